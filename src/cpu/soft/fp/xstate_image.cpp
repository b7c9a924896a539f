// Conversions between Vcpu::fpu and the image FXSAVE writes.
#include "cpu/soft/fp/xstate_image.h"

#include <algorithm>
#include <cstring>

#include "cpu/x86/x87_tags.h"

namespace tessera::soft {

namespace {

template <typename T>
void put(u8* out, T value) {
    std::memcpy(out, &value, sizeof(T));
}
template <typename T>
T get(const u8* in) {
    T value{};
    std::memcpy(&value, in, sizeof(T));
    return value;
}

}  // namespace

void put_x87(const x86::Fpu& fpu, Pointers pointers, X87Image& head, StImage& registers) {
    head.fill(0);
    registers.fill(0);
    put<u16>(&head[0], fpu.control);
    put<u16>(&head[2], x87_status_of(fpu.status, fpu.control));
    head[4] = x86::abridged_x87_tags(fpu.tag);
    put<u16>(&head[6], fpu.opcode);
    if (pointers == Pointers::Wide) {
        put<u64>(&head[8], fpu.ip);
        put<u64>(&head[16], fpu.dp);
    } else {
        put<u32>(&head[8], static_cast<u32>(fpu.ip));
        put<u16>(&head[12], fpu.cs);
        put<u32>(&head[16], static_cast<u32>(fpu.dp));
        put<u16>(&head[20], fpu.ds);
    }
    for (unsigned i = 0; i < 8; ++i) std::copy_n(fpu.st[i].begin(), 10, &registers[i * 16UL]);
}

void take_x87(Vcpu& c, Pointers pointers, const X87Image& head, const StImage& registers) {
    x86::Fpu& fpu = c.fpu;
    fpu.control = static_cast<u16>((get<u16>(&head[0]) & 0x1f3f) | 0x40);
    fpu.status = x87_status_of(get<u16>(&head[2]), fpu.control);
    fpu.opcode = get<u16>(&head[6]) & 0x7ff;
    if (pointers == Pointers::Wide) {
        fpu.ip = get<u64>(&head[8]);
        fpu.dp = get<u64>(&head[16]);
        fpu.cs = fpu.ds = 0;
    } else {
        fpu.ip = get<u32>(&head[8]);
        fpu.cs = get<u16>(&head[12]);
        fpu.dp = get<u32>(&head[16]);
        fpu.ds = get<u16>(&head[20]);
    }
    for (unsigned i = 0; i < 8; ++i) std::copy_n(&registers[i * 16UL], 10, fpu.st[i].begin());
    fpu.tag = x86::x87_tags(head[4], fpu.status, fpu.st);
}

u64 components_in_use(const Vcpu& c) {
    x86::Fpu initial;
    initial.control = 0x037f;
    initial.tag = 0xffff;
    u64 used = c.fpu == initial ? 0 : xcr0::kX87;
    for (const auto& reg : c.ymm) {
        if ((reg[0] | reg[1]) != 0) used |= xcr0::kSse;
        if ((reg[2] | reg[3]) != 0) used |= xcr0::kAvx;
    }
    return used;
}

void init_x87(Vcpu& c) {
    c.fpu = {};
    c.fpu.control = 0x037f;
    c.fpu.tag = 0xffff;
}

}  // namespace tessera::soft
