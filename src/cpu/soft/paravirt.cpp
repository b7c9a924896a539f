// KVM's paravirtual interface, the part that saves work on a software CPU. All addresses are the guest's
// word, and looked up each time they are used: what is not RAM is left alone. GAP: steal time, asynchronous
// page faults, TLB flushes by the host, poll control.
#include "cpu/soft/paravirt.h"

#include <atomic>

#include "cpu/soft/exits.h"
#include "cpu/soft/mmu.h"
#include "cpu/soft/soft_system.h"
#include "cpu/soft/system.h"
#include "cpu/soft/system_insns.h"
#include "cpu/soft/x86_names.h"

namespace tessera::soft {

namespace {

enum Msr : u32 {
    kWallClock = 0x4b56'4d00,
    kSystemTime = 0x4b56'4d01,
    kAsyncPf = 0x4b56'4d02,
    kStealTime = 0x4b56'4d03,
    kPvEoi = 0x4b56'4d04,
    kPollControl = 0x4b56'4d05,
    kAsyncPfVector = 0x4b56'4d06,
};
constexpr u64 kEnabled = 1;

[[nodiscard]] bool offers_clock(const Vcpu& c) {
    return c.system->world().clock != nullptr;
}

// Whether all of [physical, +size) is RAM, and nothing in front of it.
[[nodiscard]] bool is_guest_ram(const Vcpu& c, u64 physical, unsigned size) {
    return is_ram(host_page(c, physical & ~kPageMask)) &&
           is_ram(host_page(c, (physical + (size - 1)) & ~kPageMask));
}
void write_guest(Vcpu& c, u64 physical, const void* in, unsigned size) {
    const auto first = static_cast<unsigned>(std::min<u64>(size, kPageSize - (physical & kPageMask)));
    physical_write(c, physical, in, first);
    if (first < size) physical_write(c, physical + first, static_cast<const u8*>(in) + first, size - first);
}
[[nodiscard]] u32 read_word(Vcpu& c, u64 physical) {
    u32 value = 0;
    physical_read(c, physical, &value, sizeof(value));
    return value;
}

// Both structures begin with a version, which is odd while they change. 4-byte aligned, `body` follows it.
template <typename Body>
void publish(Vcpu& c, u64 physical, const Body& body) {
    if (physical % 4 != 0 || !is_guest_ram(c, physical, sizeof(u32) + sizeof(body))) return;
    u32 version = read_word(c, physical) | 1;
    write_guest(c, physical, &version, sizeof(version));
    std::atomic_thread_fence(std::memory_order_release);
    write_guest(c, physical + sizeof(u32), &body, sizeof(body));
    std::atomic_thread_fence(std::memory_order_release);
    ++version;
    write_guest(c, physical, &version, sizeof(version));
}

// How ticks become nanoseconds: (shift < 0 ? ticks >> -shift : ticks << shift) * multiplier >> 32. [LINUX-KVM
// msr]
struct Scale {
    u32 multiplier = 0;
    s8 shift = 0;
};
constexpr u64 kNsPerSecond = 1'000'000'000;

[[nodiscard]] Scale scale_of(u64 hz) {
    // The multiplier uses all of its 32 bits.
    u128 factor = (u128{kNsPerSecond} << 64) / hz;  // ns per tick, 64 fraction bits
    Scale scale;
    int shift = 32;
    while (factor >= u128{1} << 64) {
        factor >>= 1;
        ++shift;
    }
    while (factor < u128{1} << 63) {
        factor <<= 1;
        --shift;
    }
    scale.multiplier = static_cast<u32>(factor >> 32);
    scale.shift = static_cast<s8>(shift - 32);
    return scale;
}
[[nodiscard]] u64 to_ns(u64 ticks, const Scale& scale) {
    const u64 shifted = scale.shift < 0 ? ticks >> -scale.shift : ticks << scale.shift;
    return static_cast<u64>(u128{shifted} * scale.multiplier >> 32);
}

struct WallClock {
    u32 seconds = 0, nanoseconds = 0;
};
struct SystemTime {
    u32 padding = 0;
    u32 tsc_timestamp_low = 0, tsc_timestamp_high = 0;
    u32 system_time_low = 0, system_time_high = 0;
    u32 multiplier = 0;
    s8 shift = 0;
    u8 flags = 0;
    std::array<u8, 2> padding2{};
};
static_assert(sizeof(WallClock) == 8 && sizeof(SystemTime) == 28);
constexpr u8 kTscStable = 1;

// The time of day when the system time was 0.
void write_wall_clock(Vcpu& c, u64 physical) {
    const CpuWorld& world = c.system->world();
    const u64 system_time = to_ns(world.tsc.ticks(), scale_of(world.tsc.hz()));
    const u64 at_zero = world.clock->wall_ns() - system_time;
    publish(c, physical,
            WallClock{.seconds = static_cast<u32>(at_zero / kNsPerSecond),
                      .nanoseconds = static_cast<u32>(at_zero % kNsPerSecond)});
}

// The local APIC's offer in guest memory: bit 0 of a dword.
[[nodiscard]] u64 eoi_word(const Vcpu& c) {
    return c.msr.kvm_pv_eoi & ~u64{3};
}
void set_eoi_bit(Vcpu& c, u32 bit) {
    const u64 at = eoi_word(c);
    if (!is_guest_ram(c, at, sizeof(u32))) return;
    const u32 value = (read_word(c, at) & ~u32{1}) | bit;
    write_guest(c, at, &value, sizeof(value));
}
// Whether the guest has cleared the bit; what is no RAM any more never says so.
[[nodiscard]] bool eoi_bit_cleared(Vcpu& c) {
    const u64 at = eoi_word(c);
    return is_guest_ram(c, at, sizeof(u32)) && (read_word(c, at) & 1) == 0;
}

}  // namespace

// --- time

namespace {

// KVM tells a guest in its steal time which CPUs the host does not execute just now, and a guest gives these
// no work. It said so of all of them when the guest left it.
void deny_preemption(Vcpu& c) {
    constexpr u64 kAddress = ~u64{0x3f}, kPreempted = 16;
    if ((c.msr.kvm_steal_time & kEnabled) == 0) return;
    const u64 at = (c.msr.kvm_steal_time & kAddress) + kPreempted;
    const u8 no = 0;
    if (is_guest_ram(c, at, sizeof no)) write_guest(c, at, &no, sizeof no);
}

}  // namespace

void refresh_paravirt_clock(Vcpu& c) {
    c.paravirt_clock_stale = false;
    deny_preemption(c);
    if ((c.msr.kvm_system_time & kEnabled) == 0 || !offers_clock(c)) return;
    // All CPUs' clocks are one line through the source's zero, so they agree to the nanosecond: hence stable.
    const Scale scale = scale_of(c.system->world().tsc.hz());
    const auto zero = static_cast<u64>(c.msr.tsc_offset);
    publish(c, c.msr.kvm_system_time & ~kEnabled,
            SystemTime{.tsc_timestamp_low = static_cast<u32>(zero),
                       .tsc_timestamp_high = static_cast<u32>(zero >> 32),
                       .multiplier = scale.multiplier,
                       .shift = scale.shift,
                       .flags = kTscStable});
}

// --- end of interrupt

void offer_paravirt_eoi(Vcpu& c, u8 vector) {
    if ((c.msr.kvm_pv_eoi & kEnabled) == 0 || !c.interrupts->eoi_can_wait(vector)) return;
    if (!is_guest_ram(c, eoi_word(c), sizeof(u32))) return;
    set_eoi_bit(c, 1);
    c.paravirt_eoi_offered = true;
}

void poll_paravirt_eoi(Vcpu& c) {
    if (eoi_bit_cleared(c)) {
        c.paravirt_eoi_offered = false;
        c.interrupts->end_of_interrupt();
    } else if (c.interrupts->requested()) {
        c.paravirt_eoi_offered = false;
        set_eoi_bit(c, 0);
    }
}

void end_paravirt_eoi(Vcpu& c) {
    c.paravirt_eoi_offered = false;
    if (eoi_bit_cleared(c))
        c.interrupts->end_of_interrupt();
    else
        set_eoi_bit(c, 0);
}

// --- MSRs

namespace {

// What a guest turned on under KVM: it keeps what it wrote, without effect here, and can turn it off. Null:
// it has not, and there is no such MSR.
u64* brought_along(Vcpu& c, u32 index) {
    x86::Msrs& m = c.msr;
    const bool faults = (m.kvm_async_pf | m.kvm_async_pf_vector) != 0;
    switch (index) {
        case kAsyncPf: return faults ? &m.kvm_async_pf : nullptr;
        case kAsyncPfVector: return faults ? &m.kvm_async_pf_vector : nullptr;
        case kStealTime: return m.kvm_steal_time != 0 ? &m.kvm_steal_time : nullptr;
        case kPollControl: return m.kvm_poll_control == 0 ? &m.kvm_poll_control : nullptr;
        default: return nullptr;
    }
}

}  // namespace

bool read_paravirt_msr(Vcpu& c, u32 index, u64& value) {
    switch (index) {
        case kWallClock: value = c.msr.kvm_wall_clock; return offers_clock(c);
        case kSystemTime: value = c.msr.kvm_system_time; return offers_clock(c);
        case kPvEoi: value = c.msr.kvm_pv_eoi; return true;
        default: break;
    }
    const u64* kept = brought_along(c, index);
    if (kept != nullptr) value = *kept;
    return kept != nullptr;
}

bool write_paravirt_msr(Vcpu& c, u32 index, u64 value) {
    switch (index) {
        case kWallClock:
            if (!offers_clock(c)) return false;
            c.msr.kvm_wall_clock = value;
            write_wall_clock(c, value);
            return true;
        case kSystemTime:
            if (!offers_clock(c)) return false;
            c.msr.kvm_system_time = value;
            refresh_paravirt_clock(c);
            return true;
        case kPvEoi:
            if ((value & 2) != 0) return false;
            if (c.paravirt_eoi_offered) end_paravirt_eoi(c);
            c.msr.kvm_pv_eoi = value;
            return true;
        default: break;
    }
    u64* kept = brought_along(c, index);
    if (kept != nullptr) *kept = value;
    return kept != nullptr;
}

// --- hypercalls

namespace {

enum Hypercall : u64 { kSendIpi = 10, kSchedYield = 11 };
constexpr s64 kNoSuchCall = -1000, kNotPermitted = -1;

// The registers of a call: four arguments, cut to 32 bits outside 64-bit mode.
struct Arguments {
    u64 a0, a1, a2, a3;
};

// Sends an interrupt to the CPUs whose bit is set in the bitmap a1:a0, bit 0 being APIC ID a2 (32 bits each
// outside 64-bit mode). Returns how many there were.
s64 send_ipis(Vcpu& c, const Arguments& a) {
    const unsigned half = c.code64() ? 64 : 32;
    const u128 bitmap = u128{a.a0} | (u128{a.a1} << half);
    s64 sent = 0;
    for (unsigned i = 0; i < c.system->count(); ++i) {
        const u32 id = c.system->vcpu(i).interrupts->apic_id();
        if (id < a.a2 || id - a.a2 >= 2 * half || (bitmap >> (id - a.a2) & 1) == 0) continue;
        if (c.interrupts->send_physical(static_cast<u32>(a.a3), id)) ++sent;
    }
    return sent;
}

s64 hypercall(Vcpu& c, u64 number, const Arguments& a) {
    switch (number) {
        case kSendIpi:
            if (c.paravirt_eoi_offered) end_paravirt_eoi(c);
            c.attention.fetch_or(kAttendInterrupts);  // one may be for this CPU
            return send_ipis(c, a);
        // To another CPU that has been preempted: whichever it is, it gets the host's time.
        case kSchedYield:
            if (const auto yield = c.system->world().yield; yield != nullptr) yield();
            return 0;
        default: return kNoSuchCall;
    }
}

}  // namespace

// VMCALL and VMMCALL, whichever a guest takes us for. [LINUX-KVM hypercalls]
void run_hypercall(Vcpu& c, const Op& /*op*/) {
    const auto cut = [&](u64 value) { return c.code64() ? value : static_cast<u32>(value); };
    const Arguments arguments{cut(c.reg[Rbx]), cut(c.reg[Rcx]), cut(c.reg[Rdx]), cut(c.reg[Rsi])};
    const u64 begun = exit_begin(c);
    const s64 result = c.cpl == 0 ? hypercall(c, cut(c.reg[Rax]), arguments) : kNotPermitted;
    c.reg[Rax] = cut(static_cast<u64>(result));
    exit_end(c, ExitCause::Hypercall, begun);
}

}  // namespace tessera::soft
