// Prefix bytes and operand sizes as tables.
#pragma once

#include <array>

#include "cpu/x86/decode/form.h"

namespace tessera::x86::tables {

enum class Prefix : u8 { None, Es, Cs, Ss, Ds, Fs, Gs, OperandSize, AddressSize, Lock, Repne, Rep, Rex };

inline constexpr auto kPrefixes = [] {
    std::array<Prefix, 256> table{};
    table[0x26] = Prefix::Es;
    table[0x2e] = Prefix::Cs;
    table[0x36] = Prefix::Ss;
    table[0x3e] = Prefix::Ds;
    table[0x64] = Prefix::Fs;
    table[0x65] = Prefix::Gs;
    table[0x66] = Prefix::OperandSize;
    table[0x67] = Prefix::AddressSize;
    table[0xf0] = Prefix::Lock;
    table[0xf2] = Prefix::Repne;
    table[0xf3] = Prefix::Rep;
    for (unsigned b = 0x40; b < 0x50; ++b) table[b] = Prefix::Rex;
    return table;
}();

// Effective operand size by rule and by code size, 66 and W [SDM 1 3.6.1].
inline constexpr auto kOperandSizes = [] {
    std::array<std::array<u8, 12>, static_cast<size_t>(OperandSizeRule::Count_)> table{};
    for (unsigned i = 0; i < 12; ++i) {
        const bool bits16 = i / 4 == 0;
        const bool bits64 = i / 4 == 2;
        const bool w = bits64 && (i & 1) != 0;
        const bool prefix = (i & 2) != 0;
        const u8 z = bits16 != prefix ? 2 : 4;
        const u8 v = w ? 8 : z;
        const auto set = [&](OperandSizeRule rule, u8 size) { table[static_cast<size_t>(rule)][i] = size; };
        set(OperandSizeRule::Byte, 1);
        set(OperandSizeRule::V, v);
        set(OperandSizeRule::Z, v > 4 ? 4 : v);
        set(OperandSizeRule::Default64, bits64 && v == 4 ? 8 : v);
        set(OperandSizeRule::Y, w ? 8 : 4);
        set(OperandSizeRule::Native, bits64 ? 8 : 4);
        set(OperandSizeRule::Table, bits64 ? 8 : v);
    }
    return table;
}();

// Bytes of an operand by log2 of the operand size and by VEX.L (+ 4).
inline constexpr auto kSizes = [] {
    std::array<std::array<u16, 8>, static_cast<size_t>(Size::Count_)> table{};
    for (unsigned i = 0; i < 8; ++i) {
        const u16 v = static_cast<u16>(1 << (i & 3));
        const u16 x = i >= 4 ? 32 : 16;
        const auto set = [&](Size size, unsigned bytes) {
            table[static_cast<size_t>(size)][i] = static_cast<u16>(bytes);
        };
        set(Size::S0, 0);
        set(Size::S1, 1);
        set(Size::S2, 2);
        set(Size::S4, 4);
        set(Size::S8, 8);
        set(Size::S10, 10);
        set(Size::S16, 16);
        set(Size::S32, 32);
        set(Size::S512, 512);
        set(Size::V, v);
        set(Size::Z, v > 4 ? 4 : v);
        set(Size::Far, (v > 4 ? 4 : v) + 2);
        set(Size::Pair, 2 * v);
        set(Size::Crc, v < 4 ? 4 : v);
        set(Size::Table, v == 8 ? 10 : 6);
        set(Size::Env, v == 2 ? 14 : 28);
        set(Size::FpuSave, v == 2 ? 94 : 108);
        set(Size::X, x);
        set(Size::Half, x / 2);
        set(Size::Quarter, x / 4);
        set(Size::Eighth, x / 8);
    }
    return table;
}();

}  // namespace tessera::x86::tables
