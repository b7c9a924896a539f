// Conversions between Vcpu::fpu and the image FXSAVE writes.
#include "cpu/soft/fp/xstate_image.h"

#include <algorithm>
#include <cstring>

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

constexpr unsigned kEmpty = 3, kSpecial = 2, kZero = 1, kValid = 0;

// What the tag word says of a register that is not empty [SDM 1 8.1.7].
unsigned tag_of(const std::array<u8, 10>& reg) {
    const u64 mantissa = get<u64>(reg.data());
    const unsigned exponent = get<u16>(reg.data() + 8) & 0x7fffU;
    if (exponent == 0) return mantissa == 0 ? kZero : kSpecial;
    return exponent == 0x7fff || (mantissa >> 63) == 0 ? kSpecial : kValid;
}

}  // namespace

void put_x87(const x86::Fpu& fpu, Pointers pointers, X87Image& head, StImage& registers) {
    head.fill(0);
    registers.fill(0);
    put<u16>(&head[0], fpu.control);
    put<u16>(&head[2], x87_status_of(fpu.status, fpu.control));
    unsigned present = 0;
    for (unsigned i = 0; i < 8; ++i)
        if (((fpu.tag >> (2 * i)) & 3U) != kEmpty) present |= 1U << i;
    head[4] = static_cast<u8>(present);
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
    // The abridged tags are by physical register, the registers themselves by distance from TOP.
    const unsigned top = (fpu.status >> 11) & 7U;
    unsigned tag = 0;
    for (unsigned i = 0; i < 8; ++i)
        tag |= ((head[4] >> i & 1U) != 0 ? tag_of(fpu.st[(i - top) & 7U]) : kEmpty) << (2 * i);
    fpu.tag = static_cast<u16>(tag);
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
