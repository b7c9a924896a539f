#include "cpu/soft/jit/reencode.h"

namespace tessera::soft::jit {

namespace {

using x86::Insn;
using x86::InsnFlag;
using x86::OperandKind;

[[nodiscard]] bool has_high_byte(const Insn& in) {
    for (unsigned i = 0; i < in.operand_count; ++i)
        if (in.is(i, OperandKind::GprHigh)) return true;
    return false;
}

// A byte register 4-7 is SPL-DIL only with a REX.
[[nodiscard]] bool has_byte_register(const Insn& in) {
    for (unsigned i = 0; i < in.operand_count; ++i)
        if (in.is(i, OperandKind::Gpr) && in.operand[i].size == 1) return true;
    return false;
}

[[nodiscard]] unsigned rex_bits(const Insn& in, const Operands& to) {
    unsigned rex = in.has(InsnFlag::RexW) ? 8 : 0;
    if (!in.has(InsnFlag::HasModrm)) return rex | (to.reg >> 3);
    if (to.memory) return rex | Emitter::rex_of(to.reg, to.m);
    return rex | static_cast<unsigned>(to.reg >> 3 << 2) | static_cast<unsigned>(to.rm >> 3);
}

[[nodiscard]] bool needs_rex(const Insn& in, const Operands& to) {
    if (rex_bits(in, to) != 0) return true;
    if (!has_byte_register(in)) return false;
    return to.reg >= 4 || (!to.memory && to.rm >= 4);
}

void legacy(Emitter& e, const Insn& in, const Operands& to) {
    if (in.has(InsnFlag::Lock) && !to.drop_lock) e.put8(0xf0);
    if (in.has(InsnFlag::OperandSizePrefix)) e.put8(0x66);
    if (in.mandatory_prefix == 0xf2 || in.mandatory_prefix == 0xf3) e.put8(in.mandatory_prefix);
    if (to.memory && to.m.gs) e.put8(0x65);
    if (needs_rex(in, to)) e.put8(0x40 | rex_bits(in, to));
    if (in.map != 0) e.put8(0x0f);
    if (in.map == 2) e.put8(0x38);
    if (in.map == 3) e.put8(0x3a);
}

// Always the three-byte form [SDM 2A 2.3.5.3].
void vex(Emitter& e, const Insn& in, const Operands& to) {
    if (to.memory && to.m.gs) e.put8(0x65);
    const unsigned rex = rex_bits(in, to);
    e.put8(0xc4);
    e.put8((~rex & 7) << 5 | in.map);
    const unsigned pp = in.mandatory_prefix == 0x66   ? 1
                        : in.mandatory_prefix == 0xf3 ? 2
                        : in.mandatory_prefix == 0xf2 ? 3
                                                      : 0;
    e.put8((rex & 8) << 4 | (~to.vvvv & 0xfU) << 3 | (in.has(InsnFlag::VexL) ? 4 : 0) | pp);
}

}  // namespace

bool can_reencode(const Insn& in, const Operands& to) {
    return !has_high_byte(in) || !needs_rex(in, to);
}

void reencode(Emitter& e, const Insn& in, const u8* bytes, const Operands& to) {
    if (in.has(InsnFlag::Vex))
        vex(e, in, to);
    else
        legacy(e, in, to);
    const bool short_inc_dec = in.map == 0 && in.opcode >= 0x40 && in.opcode <= 0x4f;  // REX to the host
    if (short_inc_dec) {
        e.put8(0xff);
        e.operand(in.opcode >> 3 & 1, static_cast<HostReg>(to.reg));
        return;
    }
    if (in.has(InsnFlag::HasModrm)) {
        // 0x82 is the twin of 0x80 in 32-bit code.
        const unsigned opcode = in.map == 0 && in.opcode == 0x82 ? 0x80 : in.opcode;
        e.put8(opcode ^ to.opcode_change);
        if (to.memory)
            e.operand(to.reg, to.m);
        else
            e.operand(to.reg, static_cast<HostReg>(to.rm));
    } else {
        e.put8((in.opcode & ~7U) | (to.reg & 7U));
    }
    for (unsigned i = 0; i < in.immediate_size; ++i) e.put8(bytes[in.immediate_offset + i]);
}

}  // namespace tessera::soft::jit
