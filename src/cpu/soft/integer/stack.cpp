// PUSH POP PUSHA POPA PUSHF POPF ENTER LEAVE. (Segment registers: lower_system.)
#include <array>

#include "cpu/soft/integer/handlers.h"
#include "cpu/soft/system.h"

namespace tessera::soft {
namespace {

using x86::Mnemonic;
namespace flag = x86::eflags;

// --- the stack at any stack size. RSP only changes where set_sp is called, after all that can fault.

[[nodiscard]] u64 sp_plus(const Vcpu& c, u64 sp, s64 distance) {
    return (sp + static_cast<u64>(distance)) & c.sp_mask;
}

// The stack pointer register with `sp` as its used part: a 16-bit one keeps what is above.
[[nodiscard]] u64 with_sp(const Vcpu& c, u64 old, u64 sp) {
    return c.sp_mask == 0xffff ? (old & ~u64{0xffff}) | (sp & 0xffff) : sp & c.sp_mask;
}
void set_sp(Vcpu& c, u64 sp) {
    c.reg[x86::Rsp] = with_sp(c, c.reg[x86::Rsp], sp);
}

[[nodiscard]] u64 stack_address(Vcpu& c, u64 sp, unsigned size, Access access) {
    return linear_of(c, x86::Ss, sp & c.sp_mask, size, access);
}
template <typename T>
[[nodiscard]] T stack_load(Vcpu& c, u64 sp) {
    return load<T>(c, stack_address(c, sp, sizeof(T), Access::Read), x86::Ss);
}
template <typename T>
void stack_store(Vcpu& c, u64 sp, T value) {
    store<T>(c, stack_address(c, sp, sizeof(T), Access::Write), value, x86::Ss);
}
void stack_probe(Vcpu& c, u64 sp, unsigned size) {
    probe(c, stack_address(c, sp, size, Access::Write), size, Access::Write, x86::Ss);
}

template <typename T>
void push_value(Vcpu& c, T value) {
    const u64 sp = sp_plus(c, c.reg[x86::Rsp], -static_cast<s64>(sizeof(T)));
    stack_store<T>(c, sp, value);
    set_sp(c, sp);
}

// --- PUSH

template <typename T, Place Src>
TESSERA_HANDLER void push(Vcpu& c, const Op* op) {
    c.cur = op;
    push_value<T>(c, read_operand<Src, T>(c, op));
    TESSERA_NEXT(c, op);
}

template <Place Src>
TESSERA_HANDLER void push64(Vcpu& c, const Op* op) {
    const u64 sp = c.reg[x86::Rsp] - 8;
    const TlbEntry& e = tlb_entry(c, sp);
    if (((sp + 7) & ~kPageMask) != e.tag_w) [[unlikely]]
        TESSERA_MUSTTAIL return push<u64, Src>(c, op);
    host_store<u64>(sp + static_cast<u64>(e.addend), read_operand<Src, u64>(c, op));
    c.reg[x86::Rsp] = sp;
    TESSERA_NEXT(c, op);
}

// On a 32-bit stack whose limit is no matter.
template <Place Src>
TESSERA_HANDLER void push32(Vcpu& c, const Op* op) {
    const u64 sp = static_cast<u32>(c.reg[x86::Rsp] - 4);
    const u64 lin = static_cast<u32>(c.seg_base[x86::Ss] + sp);
    const TlbEntry& e = tlb_entry(c, lin);
    if (c.sp_mask != 0xffff'ffff || sp + 4 > c.write_end[x86::Ss] || ((lin + 3) & ~kPageMask) != e.tag_w)
        [[unlikely]]
        TESSERA_MUSTTAIL return push<u32, Src>(c, op);
    host_store<u32>(lin + static_cast<u64>(e.addend), read_operand<Src, u32>(c, op));
    c.reg[x86::Rsp] = sp;
    TESSERA_NEXT(c, op);
}

template <Place Src>
[[nodiscard]] Handler push_handler(const Op& op, unsigned size) {
    const bool wide = (op.flags & kLongMode) != 0;
    if (wide && size == 8) return push64<Src>;
    if (!wide && size == 4) return push32<Src>;
    return TESSERA_SIZED_WORDS(size, push<T, Src>);
}

bool lower_push(const x86::Insn& in, Op& op) {
    const x86::Operand& src = in.operand[0];
    const unsigned size = in.operand_size;
    if (is_memory(src)) return use(op, TESSERA_SIZED_WORDS(size, push<T, Place::Mem>));
    if (is_immediate(src)) {
        op.imm = in.immediate;
        return use(op, push_handler<Place::Imm>(op, size));
    }
    op.r1 = gpr_offset(src);
    return use(op, push_handler<Place::R1>(op, size));
}

// --- POP

template <typename T>
TESSERA_HANDLER void pop(Vcpu& c, const Op* op) {
    c.cur = op;
    const u64 sp = c.reg[x86::Rsp];
    const T value = stack_load<T>(c, sp);
    set_sp(c, sp_plus(c, sp, sizeof(T)));
    set_gpr<T>(c, op->r1, value);
    TESSERA_NEXT(c, op);
}

TESSERA_HANDLER void pop64(Vcpu& c, const Op* op) {
    const u64 sp = c.reg[x86::Rsp];
    const TlbEntry& e = tlb_entry(c, sp);
    if (((sp + 7) & ~kPageMask) != e.tag_r) [[unlikely]]
        TESSERA_MUSTTAIL return pop<u64>(c, op);
    const u64 value = host_load<u64>(sp + static_cast<u64>(e.addend));
    c.reg[x86::Rsp] = sp + 8;
    c.reg[op->r1 / 8] = value;
    TESSERA_NEXT(c, op);
}

TESSERA_HANDLER void pop32(Vcpu& c, const Op* op) {
    const u64 sp = static_cast<u32>(c.reg[x86::Rsp]);
    const u64 lin = static_cast<u32>(c.seg_base[x86::Ss] + sp);
    const TlbEntry& e = tlb_entry(c, lin);
    if (c.sp_mask != 0xffff'ffff || sp + 4 > c.read_end[x86::Ss] || ((lin + 3) & ~kPageMask) != e.tag_r)
        [[unlikely]]
        TESSERA_MUSTTAIL return pop<u32>(c, op);
    const u32 value = host_load<u32>(lin + static_cast<u64>(e.addend));
    c.reg[x86::Rsp] = static_cast<u32>(sp + 4);
    c.reg[op->r1 / 8] = value;
    TESSERA_NEXT(c, op);
}

// The address counts with RSP as it is after the increment [SDM 2B POP].
template <typename T>
void pop_memory(Vcpu& c, const Op& op) {
    const u64 old_sp = c.reg[x86::Rsp];
    const u64 new_sp = with_sp(c, old_sp, old_sp + sizeof(T));
    const T value = stack_load<T>(c, old_sp);
    const u64 base = op.base == x86::Rsp ? new_sp : c.reg[op.base];
    u64 ea = base + (c.reg[op.index] << op.scale) + static_cast<u64>(static_cast<s64>(op.disp));
    if ((op.flags & kAddress64) == 0)
        ea = (op.flags & kAddress32) != 0 ? static_cast<u32>(ea) : static_cast<u16>(ea);
    store<T>(c, linear_of(c, op.seg, ea, sizeof(T), Access::Write), value, op.seg);
    c.reg[x86::Rsp] = new_sp;
}

bool lower_pop(const x86::Insn& in, Op& op) {
    const unsigned size = in.operand_size;
    if (is_memory(in.operand[0])) return use(op, TESSERA_SIZED_WORDS(size, continue_with<pop_memory<T>>));
    op.r1 = gpr_offset(in.operand[0]);
    if ((op.flags & kLongMode) != 0 && size == 8) return use(op, pop64);
    if ((op.flags & kLongMode) == 0 && size == 4) return use(op, pop32);
    return use(op, TESSERA_SIZED_WORDS(size, pop<T>));
}

// --- PUSHA POPA

template <typename T>
void push_all(Vcpu& c, const Op&) {
    const u64 sp = c.reg[x86::Rsp];
    // Whatever faults does so before the first store.
    for (unsigned i = 1; i <= 8; ++i)
        stack_probe(c, sp_plus(c, sp, -static_cast<s64>(i * sizeof(T))), sizeof(T));
    for (unsigned i = 0; i < 8; ++i)
        stack_store<T>(c, sp_plus(c, sp, -static_cast<s64>((i + 1) * sizeof(T))), static_cast<T>(c.reg[i]));
    set_sp(c, sp_plus(c, sp, -static_cast<s64>(8 * sizeof(T))));
}

template <typename T>
void pop_all(Vcpu& c, const Op&) {
    const u64 sp = c.reg[x86::Rsp];
    std::array<T, 8> values{};
    for (unsigned i = 0; i < 8; ++i) values[i] = stack_load<T>(c, sp_plus(c, sp, i * sizeof(T)));
    for (unsigned i = 0; i < 8; ++i) {
        if (const unsigned reg = 7 - i; reg != x86::Rsp) set_gpr<T>(c, static_cast<u8>(8 * reg), values[i]);
    }
    set_sp(c, sp_plus(c, sp, 8 * sizeof(T)));
}

// --- PUSHF POPF

// [SDM 3A 20.3.1, 2B PUSHF POPF] in virtual-8086 mode below IOPL 3: only 16 bits wide, and only with CR4.VME.
[[nodiscard]] bool flags_are_virtual(Vcpu& c, unsigned size) {
    if (!c.v8086() || c.iopl() == 3) return false;
    if ((c.cr4 & x86::cr4::kVme) == 0 || size != 2) raise_gp0(c);
    return true;
}

template <typename T>
void push_flags(Vcpu& c, const Op&) {
    u64 image = c.rflags() & ~(flag::kVm | flag::kRf);
    if (flags_are_virtual(c, sizeof(T))) {
        image = (image & ~flag::kIf) | flag::kIopl;
        if ((c.eflags & flag::kVif) != 0) image |= flag::kIf;
    }
    push_value<T>(c, static_cast<T>(image));
}

template <typename T>
void pop_flags(Vcpu& c, const Op&) {
    const bool is_virtual = flags_are_virtual(c, sizeof(T));
    const u64 sp = c.reg[x86::Rsp];
    const u64 image = stack_load<T>(c, sp);
    const u64 before = c.rflags();
    u64 change = flag::kStatus | flag::kTf | flag::kDf | flag::kNt;
    if constexpr (sizeof(T) > 2) change |= flag::kAc | flag::kId;
    u64 after = 0;
    if (is_virtual) {
        if (((image & flag::kIf) != 0 && (before & flag::kVip) != 0) || (image & flag::kTf) != 0)
            raise_gp0(c);
        after = (before & ~(change | flag::kVif)) | (image & change);
        if ((image & flag::kIf) != 0) after |= flag::kVif;
    } else {
        if (!c.protected_mode() || (c.cpl == 0 && !c.v8086()))
            change |= flag::kIf | flag::kIopl;
        else if (c.cpl <= c.iopl())
            change |= flag::kIf;
        after = (before & ~change) | (image & change);
    }
    if constexpr (sizeof(T) > 2) after &= ~flag::kRf;
    set_sp(c, sp_plus(c, sp, sizeof(T)));
    c.set_status(after);
    set_eflags(c, (after & ~flag::kStatus) | flag::kOne);
}

// Only what lets something new happen (an interrupt, a trap, other access rights) needs the dispatcher.
template <typename T>
TESSERA_HANDLER void pop_flags_and_look(Vcpu& c, const Op* op) {
    c.cur = op;
    const u64 before = c.eflags;
    pop_flags<T>(c, *op);
    const u64 harmless = flag::kDf | (before & flag::kIf);
    if (((before ^ c.eflags) & ~harmless) == 0) [[likely]]
        TESSERA_NEXT(c, op);
    c.rip = next_rip(c, *op);
    c.instructions += op->n;
}

// --- ENTER LEAVE

// [SDM 2A ENTER] RSP and RBP change at the end, after all that can fault: the pushes, and a write where RSP
// will be. What a faulting ENTER has pushed by then stays in memory, as on the processor. imm: the bytes of
// locals; r1: the nesting level.
template <typename T>
void enter(Vcpu& c, const Op& op) {
    constexpr s64 kSize = sizeof(T);
    const unsigned level = op.r1 & 31;
    const u64 old_sp = c.reg[x86::Rsp];
    const u64 bp = c.reg[x86::Rbp];
    u64 sp = sp_plus(c, old_sp, -kSize);
    stack_store<T>(c, sp, static_cast<T>(bp));
    const u64 frame = with_sp(c, old_sp, sp);
    for (unsigned i = 1; i < level; ++i) {
        sp = sp_plus(c, sp, -kSize);
        stack_store<T>(c, sp, stack_load<T>(c, sp_plus(c, bp, -kSize * i)));
    }
    if (level != 0) {
        sp = sp_plus(c, sp, -kSize);
        stack_store<T>(c, sp, static_cast<T>(frame));
    }
    sp = sp_plus(c, sp, -static_cast<s64>(op.imm));
    stack_probe(c, sp, sizeof(T));
    set_gpr<T>(c, 8 * x86::Rbp, static_cast<T>(frame));
    set_sp(c, sp);
}

template <typename T>
TESSERA_HANDLER void leave(Vcpu& c, const Op* op) {
    c.cur = op;
    const u64 bp = c.reg[x86::Rbp];
    const T value = stack_load<T>(c, bp);
    set_sp(c, sp_plus(c, bp, sizeof(T)));
    set_gpr<T>(c, 8 * x86::Rbp, value);
    TESSERA_NEXT(c, op);
}

}  // namespace

bool lower_stack(const x86::Insn& in, Op& op) {
    const unsigned size = in.operand_size;
    switch (in.mnemonic) {
        case Mnemonic::Push: return lower_push(in, op);
        case Mnemonic::Pop: return lower_pop(in, op);
        case Mnemonic::Pusha:
            return use(op, size == 2 ? continue_with<push_all<u16>> : continue_with<push_all<u32>>);
        case Mnemonic::Popa:
            return use(op, size == 2 ? continue_with<pop_all<u16>> : continue_with<pop_all<u32>>);
        case Mnemonic::Pushf: return use(op, TESSERA_SIZED_WORDS(size, continue_with<push_flags<T>>));
        case Mnemonic::Popf: return use(op, TESSERA_SIZED_WORDS(size, pop_flags_and_look<T>));
        case Mnemonic::Enter:
            op.imm = in.immediate & 0xffff;
            op.r1 = static_cast<u8>(in.immediate2 & 31);
            return use(op, TESSERA_SIZED_WORDS(size, continue_with<enter<T>>));
        case Mnemonic::Leave: return use(op, TESSERA_SIZED_WORDS(size, leave<T>));
        default: return false;
    }
}

}  // namespace tessera::soft
