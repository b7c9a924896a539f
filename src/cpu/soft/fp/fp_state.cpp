// The x87 and MXCSR state: its way into the host's registers and back, and when instructions may use it.
#include "cpu/soft/fp/fp_state.h"

#include <cstring>

#include "cpu/soft/fp/fp.h"

namespace tessera::soft {

namespace {

constexpr u32 kMxcsrDefault = 0x1f80;
constexpr u16 kExceptionMasks = 0x3f;

// The protected-mode 32-bit image of FNSAVE and FRSTOR [SDM 1 figure 8-9].
struct HostImage {
    u32 control = 0, status = 0, tag = 0, ip = 0, cs_opcode = 0, dp = 0, ds = 0;
    std::array<std::array<u8, 10>, 8> st{};
};
static_assert(sizeof(HostImage) == 108);

}  // namespace

void load_mxcsr(Vcpu& c) {
    set_host_mxcsr((c.mxcsr & kMxcsrValid) | kMxcsrMasks);
}

void sync_mxcsr(Vcpu& c) {
    c.mxcsr |= host_mxcsr() & kMxcsrFlags;
}

void fp_enter(Vcpu& c) {
    load_mxcsr(c);
}

void fp_leave(Vcpu& c) {
    fp_sync(c);
    set_host_mxcsr(kMxcsrDefault);
}

void fp_sync(Vcpu& c) {
    x87_save(c);
    sync_mxcsr(c);
}

void x87_load(Vcpu& c) {
    HostImage image{};
    image.control = 0xffff'0000u | c.fpu.control | kExceptionMasks;
    image.status = 0xffff'0000u | c.fpu.status;
    image.tag = 0xffff'0000u | c.fpu.tag;
    image.st = c.fpu.st;
    asm volatile("frstor %0" : : "m"(image));
    c.x87_live = true;
    c.fp_traps = static_cast<u16>((c.fp_traps & ~kTrapX87Cold) | kTrapMmxCold);
}

void x87_save(Vcpu& c) {
    if (!c.x87_live) return;
    HostImage image{};
    asm volatile("fnsave %0" : "=m"(image));
    c.fpu.status = x87_status_of(static_cast<u16>(image.status), c.fpu.control);
    c.fpu.tag = static_cast<u16>(image.tag);
    c.fpu.st = image.st;
    c.x87_live = false;
    c.fp_traps |= kTrapX87Cold;
    if (mmx_ready(c.fpu)) c.fp_traps = static_cast<u16>(c.fp_traps & ~kTrapMmxCold);
}

void set_x87_top(x86::Fpu& fpu, unsigned top) {
    const unsigned moved = top - ((fpu.status >> 11) & 7U);
    const auto before = fpu.st;
    for (unsigned i = 0; i < 8; ++i) fpu.st[i] = before[(i + moved) & 7U];
    fpu.status = static_cast<u16>((fpu.status & ~0x3800) | top << 11);
}

void update_fp_enables(Vcpu& c) {
    unsigned traps = kTrapVectorCold;
    const bool em = (c.cr0 & x86::cr0::kEm) != 0;
    const bool ts = (c.cr0 & x86::cr0::kTs) != 0;
    if (em || ts) traps |= kTrapX87 | kTrapMmx;
    if (ts && (c.cr0 & x86::cr0::kMp) != 0) traps |= kTrapWait;
    if (em || ts || (c.cr4 & x86::cr4::kOsfxsr) == 0) traps |= kTrapSse;
    if (ts || !avx_offered(c)) traps |= kTrapAvx;
    if ((~c.mxcsr & kMxcsrMasks) != 0) traps |= kTrapMxcsr;
    if (!c.x87_live) traps |= kTrapX87Cold;
    if ((~c.fpu.control & kExceptionMasks) != 0) traps |= kTrapX87Unmasked;
    if (c.x87_live || !mmx_ready(c.fpu)) traps |= kTrapMmxCold;
    c.fp_traps = static_cast<u16>(traps);
}

}  // namespace tessera::soft
