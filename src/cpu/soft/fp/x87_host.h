// Inside fp/: executing x87 instructions on the host's own registers, which hold the guest's state.
//
// The host's control word has all exceptions masked, always, except for the moment of one instruction when
// the guest unmasks some; so the host never traps, and whether the guest's next waiting instruction does
// follows from the sticky flags and the guest's masks.
#pragma once

#include "cpu/soft/access.h"
#include "cpu/soft/fp/fp_state.h"
#include "cpu/soft/vcpu.h"

namespace tessera::soft {

inline constexpr u16 kX87Masks = 0x3f;
inline constexpr u16 kX87ControlBits = 0x1f3f;  // of what is loaded, these stay; bit 6 reads as one
// Unmasked, these keep an instruction from storing or popping: invalid, overflow, underflow.
inline constexpr u16 kX87NoStore = 0x19;

// The protected-mode 32-bit environment [SDM 1 figure 8-9].
struct HostEnvironment {
    u32 control = 0, status = 0, tag = 0, ip = 0, cs_opcode = 0, dp = 0, ds = 0;
};

// What stands between a guest and its x87 instruction: raises #NM or #MF, makes the state live.
void x87_prepare(Vcpu& c);
inline void x87_begin(Vcpu& c) {
    if ((c.fp_traps & (kTrapX87 | kTrapX87Cold | kTrapX87Unmasked)) != 0) [[unlikely]]
        x87_prepare(c);
}
// For instructions that do not wait: #NM only.
inline void x87_begin_no_wait(Vcpu& c) {
    if ((c.fp_traps & kTrapX87) != 0) [[unlikely]]
        raise(c, x86::kNm);
}

// An unmasked exception is waiting for the next waiting instruction.
[[nodiscard]] bool x87_pending(const Vcpu& c);
[[noreturn]] void raise_x87_error(Vcpu& c);

void x87_unmask_host(const Vcpu& c);
[[nodiscard]] u16 x87_mask_host(const Vcpu& c);

// Around the execution of one x87 instruction: by the guest's own control word if that unmasks anything.
// x87_close returns the unmasked exceptions it raised.
inline void x87_open(const Vcpu& c) {
    if ((c.fp_traps & kTrapX87Unmasked) != 0) [[unlikely]]
        x87_unmask_host(c);
}
inline u16 x87_close(const Vcpu& c) {
    return (c.fp_traps & kTrapX87Unmasked) != 0 ? x87_mask_host(c) : u16{0};
}

// The status word as FNSTSW shows it; live or not.
[[nodiscard]] u16 x87_status(const Vcpu& c);
// FNINIT, FNCLEX.
void x87_init(Vcpu& c);
void x87_clear_exceptions(Vcpu& c);
// FLDCW. The caller has checked what is to be checked.
void x87_set_control(Vcpu& c, u16 control);

// The last non-control instruction [SDM 1 8.1.8]: r1 is the second opcode byte, r2 the low three bits of the
// first.
inline void x87_record(Vcpu& c, const Op& op) {
    c.fpu.ip = insn_rip(c, op);
    c.fpu.cs = c.seg[x86::Cs].selector;
    c.fpu.opcode = static_cast<u16>(op.r2 << 8 | op.r1);
}
inline void x87_record_operand(Vcpu& c, const Op& op) {
    x87_record(c, op);
    c.fpu.dp = effective_address(c, op);
    c.fpu.ds = c.seg[op.seg].selector;
}

// Raises now what storing to these bytes would raise.
template <unsigned Size>
inline void check_writable(Vcpu& c, u64 lin, u8 seg) {
    if (((lin + (Size - 1)) & ~kPageMask) == tlb_entry(c, lin).tag_w) [[likely]]
        return;
    probe(c, lin, Size, Access::Write, seg);
}

}  // namespace tessera::soft
