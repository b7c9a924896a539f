// Flags that depend on more than the opcode: conditions, shift counts, repeat prefixes.
#include "cpu/x86/decode/flags.h"

#include <array>

namespace tessera::x86::tables {

namespace {

// Flags read by condition code / 2 [SDM 1 B].
constexpr std::array<u16, 8> kConditionFlags = {
    eflags::kOf,
    eflags::kCf,
    eflags::kZf,
    eflags::kCf | eflags::kZf,
    eflags::kSf,
    eflags::kPf,
    eflags::kSf | eflags::kOf,
    eflags::kZf | eflags::kSf | eflags::kOf,
};

void make_undefined(Insn& insn, u16 bits) {
    insn.flags_undefined |= insn.flags_written & bits;
    insn.flags_written &= static_cast<u16>(~bits);
}

// [SDM 2B SAL/SAR/SHL/SHR, RCL/RCR/ROL/ROR, SHLD] A count of 0 leaves all flags; OF is defined for a
// count of 1 only.
void set_shift_flags(Insn& insn, bool count_unknown) {
    const unsigned width = insn.operand_size * 8u;
    const auto count = static_cast<unsigned>(insn.immediate & (width == 64 ? 63 : 31));
    if (!count_unknown && count == 0) {
        insn.flags_read = insn.flags_written = insn.flags_undefined = 0;
        return;
    }
    if (count_unknown || count != 1) make_undefined(insn, eflags::kOf);
    const bool plain = insn.mnemonic == Mnemonic::Shl || insn.mnemonic == Mnemonic::Shr;
    const bool pair = insn.mnemonic == Mnemonic::Shld || insn.mnemonic == Mnemonic::Shrd;
    // The carry of a bit that was never there. With CL it depends; the executor's own masks are finer.
    if (plain && (count_unknown ? width < 32 : count >= width)) make_undefined(insn, eflags::kCf);
    if (pair && (count_unknown ? width < 32 : count > width)) make_undefined(insn, eflags::kStatus);
}

}  // namespace

void set_flags(const Form& form, Insn& insn) {
    insn.flags_read = form.flags_read;
    insn.flags_written = form.flags_written;
    insn.flags_undefined = form.flags_undefined;
    if (form.traits.has(Trait::Condition)) {
        insn.condition = insn.opcode & 0xf;
        insn.flags_read |= kConditionFlags[insn.condition >> 1];
    }
    if (form.traits.has(Trait::ShiftCount)) set_shift_flags(insn, form.traits.has(Trait::MaybeFlags));
    if (form.traits.has(Trait::MaybeFlags) ||
        (form.traits.has(Trait::RepeatFlags) && (insn.has(InsnFlag::Rep) || insn.has(InsnFlag::Repne))))
        insn.flags_read |= insn.flags_written | insn.flags_undefined;
}

}  // namespace tessera::x86::tables
