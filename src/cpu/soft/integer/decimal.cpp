// DAA DAS AAA AAS AAM AAD. The host has none of them in 64-bit code, so they are computed here; flags the
// manuals leave undefined: OF is cleared, and AAA and AAS give SF ZF PF of AL.
#include <bit>

#include "cpu/soft/integer/handlers.h"

namespace tessera::soft {
namespace {

using x86::Mnemonic;

inline constexpr u8 kAl = 0, kAh = 1;

// SF ZF PF of a byte, with CF and AF as given.
[[nodiscard]] u16 status_of(u8 value, bool carry, bool adjust) {
    u16 status = 0x0200;
    if (value == 0) status |= kStatusZf;
    if ((value & 0x80) != 0) status |= kStatusSf;
    if ((std::popcount(value) & 1) == 0) status |= kStatusPf;
    if (carry) status |= kStatusCf;
    if (adjust) status |= kStatusAf;
    return status;
}

enum class Direction : u8 { AfterAddition, AfterSubtraction };

// DAA DAS [SDM 2A]
template <Direction D>
void decimal_adjust(Vcpu& c, const Op&) {
    const u8 before = get_gpr<u8>(c, kAl);
    const bool old_carry = (c.status & kStatusCf) != 0;
    unsigned al = before;
    bool carry = false;
    const bool adjust = (before & 0xf) > 9 || (c.status & kStatusAf) != 0;
    if (adjust) {
        al = D == Direction::AfterAddition ? al + 6 : al - 6;
        carry = old_carry || (al & 0x100) != 0;
    }
    if (before > 0x99 || old_carry) {
        al = D == Direction::AfterAddition ? al + 0x60 : al - 0x60;
        carry = true;
    } else if (D == Direction::AfterAddition) {
        carry = false;
    }
    set_gpr<u8>(c, kAl, static_cast<u8>(al));
    c.status = status_of(static_cast<u8>(al), carry, adjust);
}

// AAA AAS [SDM 2A]
template <Direction D>
void ascii_adjust(Vcpu& c, const Op&) {
    const bool adjust = (get_gpr<u8>(c, kAl) & 0xf) > 9 || (c.status & kStatusAf) != 0;
    if (adjust) {
        const unsigned ax = get_gpr<u16>(c, kAl);
        if (D == Direction::AfterAddition)
            set_gpr<u16>(c, kAl, static_cast<u16>(ax + 0x106));
        else
            set_gpr<u16>(c, kAl, static_cast<u16>(ax - 0x106));
    }
    const u8 al = get_gpr<u8>(c, kAl) & 0xf;
    set_gpr<u8>(c, kAl, al);
    c.status = status_of(al, adjust, adjust);
}

// AAM: the immediate is the base; 0 divides by zero [SDM 2A AAM].
void ascii_adjust_multiply(Vcpu& c, const Op& op) {
    const u8 base = static_cast<u8>(op.imm);
    if (base == 0) raise(c, x86::kDe);
    const u8 al = get_gpr<u8>(c, kAl);
    const u8 rest = al % base;
    set_gpr<u8>(c, kAh, al / base);
    set_gpr<u8>(c, kAl, rest);
    c.status = status_of(rest, false, false);
}

void ascii_adjust_divide(Vcpu& c, const Op& op) {
    const u8 al = static_cast<u8>(get_gpr<u8>(c, kAl) + get_gpr<u8>(c, kAh) * static_cast<u8>(op.imm));
    set_gpr<u16>(c, kAl, al);
    c.status = status_of(al, false, false);
}

}  // namespace

bool lower_decimal(const x86::Insn& in, Op& op) {
    switch (in.mnemonic) {
        case Mnemonic::Daa: return use(op, continue_with<decimal_adjust<Direction::AfterAddition>>);
        case Mnemonic::Das: return use(op, continue_with<decimal_adjust<Direction::AfterSubtraction>>);
        case Mnemonic::Aaa: return use(op, continue_with<ascii_adjust<Direction::AfterAddition>>);
        case Mnemonic::Aas: return use(op, continue_with<ascii_adjust<Direction::AfterSubtraction>>);
        case Mnemonic::Aam: op.imm = in.immediate; return use(op, continue_with<ascii_adjust_multiply>);
        case Mnemonic::Aad: op.imm = in.immediate; return use(op, continue_with<ascii_adjust_divide>);
        default: return false;
    }
}

}  // namespace tessera::soft
