// Host code for instructions that do not branch.
#include "cpu/soft/fp/fp_state.h"
#include "cpu/soft/jit/layout.h"
#include "cpu/soft/jit/translator.h"
#include "cpu/soft/soft_system.h"

namespace tessera::soft::jit {

namespace {

using x86::Insn;
using x86::InsnClass;
using x86::InsnFlag;
using x86::Mnemonic;
using x86::OperandKind;

void load_x87(Vcpu& c, const Op& /*op*/) {
    x87_load(c);
}

// MOV between rAX and an address in the instruction.
[[nodiscard]] bool is_moffs(const Insn& in) {
    return in.map == 0 && in.opcode >= 0xa0 && in.opcode <= 0xa3 && in.mnemonic == Mnemonic::Mov;
}

[[nodiscard]] bool is_hint(Mnemonic mnemonic) {
    switch (mnemonic) {
        case Mnemonic::Nop:
        case Mnemonic::Prefetch:
        case Mnemonic::Prefetchnta:
        case Mnemonic::Prefetcht0:
        case Mnemonic::Prefetcht1:
        case Mnemonic::Prefetcht2:
        case Mnemonic::Prefetchw: return true;
        default: return false;
    }
}

}  // namespace

const Op* Translator::load_x87_op() {
    static const std::array<Op, 2> ops = [] {
        std::array<Op, 2> o{};
        o[0].fn = continue_with<load_x87>;
        o[0].ip = 0;
        o[1].ip = 1;
        return o;
    }();
    return ops.data();
}

void Translator::call_op(const Op* op, bool save) {
    e_.mov_imm(kS1, reinterpret_cast<u64>(op));
    e_.mov_imm(kS0, out_.page);
    Emitter::patch(e_.call_near(), save ? jit_.thunk_.call_op_saving : jit_.thunk_.call_op);
}

void Translator::emit_op(const Item& item) {
    const bool save = item.live_in != 0 && !saved_;
    if (save) bring_to_host();
    call_op(item.op, save);
    group_ = {};
    in_host_ = true;
    saved_ = true;
    producer_ = {};
    if (item.in.insn_class == InsnClass::Integer || item.in.insn_class == InsnClass::String) return;
    vectors_checked_ = 0;
    x87_checked_ = false;
}

void Translator::emit_item(const Item& item) {
    if (item.in.insn_class == InsnClass::Branch)
        emit_branch(item);
    else if (!emit_native(item))
        emit_op(item);
}

bool Translator::emit_native(const Item& item) {
    const Insn& in = item.in;
    if (Jit::is_undefined(item.op)) return false;
    if (is_moffs(in)) return emit_moffs(item);
    switch (in.mnemonic) {
        case Mnemonic::Lea:
            if (in.address_size == 2) return false;
            emit_lea(item);
            return true;
        case Mnemonic::Push: return emit_push(item);
        case Mnemonic::Cli: return emit_cli(item);
        case Mnemonic::Sti: return emit_sti(item);
        case Mnemonic::Stac:
        case Mnemonic::Clac: return emit_access_check(item);
        case Mnemonic::MovSeg: return emit_mov_from_seg(item);
        case Mnemonic::Rdfsbase:
        case Mnemonic::Rdgsbase:
        case Mnemonic::Wrfsbase:
        case Mnemonic::Wrgsbase: return emit_segment_base(item);
        case Mnemonic::Rdtsc:
        case Mnemonic::Rdtscp: return emit_rdtsc(item);
        case Mnemonic::Pushf: return emit_pushf(item);
        case Mnemonic::Swapgs: return emit_swapgs(item);
        case Mnemonic::Pop: return emit_pop(item);
        case Mnemonic::Leave: return emit_leave(item);
        case Mnemonic::Div:
        case Mnemonic::Idiv: return emit_divide(item);
        default: break;
    }
    if (in.insn_class == InsnClass::Integer && is_hint(in.mnemonic)) return true;
    if (is_bit_string(in)) return emit_bit_string(item);
    return is_copyable(in) && emit_copy(item);
}

// --- copies

// With the guest's number in `reg`.
std::optional<Operands> Translator::register_as_memory(const Insn& in, const Places& places) {
    const bool two = places.reg && places.rm;
    if (!places.rm || places.rm_high || (two && places.reg_number == places.rm_number)) return std::nullopt;
    if (places.vvvv && in.vex_vvvv == places.rm_number) return std::nullopt;
    Operands to;
    to.reg = places.reg_number;
    unsigned in_memory = places.rm_number;
    if (host_of(in_memory) != kNoReg) {
        const auto change = exchange_registers(in);
        if (!two || places.reg_high || host_of(places.reg_number) != kNoReg || !change) return std::nullopt;
        to.opcode_change = *change;
        to.reg = places.rm_number;
        in_memory = places.reg_number;
    }
    if (!may_be_memory(in, in_memory)) return std::nullopt;
    to.memory = true;
    to.m = slot(in_memory);
    return to;
}

bool Translator::emit_copy(const Item& item) {
    const Insn& in = item.in;
    const Places places = places_of(in);
    bool memory = false;
    for (unsigned i = 0; i < in.operand_count; ++i) memory |= in.is(i, OperandKind::Memory);
    if (memory && (places.reg_high || places.rm_high)) return false;  // the address needs a REX

    // Registers that are in memory are the memory operand, or get a scratch register each, if there are
    // enough.
    Operands to;
    struct Scratch {
        u8 guest;
        HostReg host;
    };
    std::array<Scratch, 2> scratch{};
    unsigned used = 0;
    bool enough = true;
    const auto place = [&](bool is_gpr, u8 number, bool high) -> u8 {
        if (!is_gpr || high) return number;
        if (host_of(number) != kNoReg) return host_of(number);
        for (unsigned i = 0; i < used; ++i)
            if (scratch[i].guest == number) return scratch[i].host;
        const unsigned available = memory ? 1 : 2;
        if (used == available) {
            enough = false;
            return 0;
        }
        scratch[used] = {number, used == 0 ? kS0 : kS1};
        return scratch[used++].host;
    };
    if (const std::optional<Operands> in_place = register_as_memory(in, places)) {
        to = *in_place;
        to.reg = place(places.reg, to.reg, places.reg_high);
    } else {
        to.reg = place(places.reg, places.reg_number, places.reg_high);
        if (!memory) to.rm = place(places.rm, places.rm_number, places.rm_high);
        to.memory = memory;
    }
    to.vvvv = place(places.vvvv, in.vex_vvvv, false);
    to.drop_lock = single_cpu_;
    if (!enough || (!memory && !can_reencode(in, to))) return false;

    const MemoryUse use = memory_use(in);
    if (in.insn_class == InsnClass::Vector) check_vectors(item);
    if (in.insn_class == InsnClass::X87) check_x87(item);
    std::optional<Checked> at;
    if (memory) {
        if (!use.used) return false;
        at = check(item, use, false);
        if (!at) return false;
        to.m = at->m;
        if (used > 0 && !at->s0_free) {
            e_.lea(kS1, at->m);
            to.m = {.base = kS1};
        }
    }
    if (stores_vector(in)) {
        stubs_.back().staged = to;
        stubs_.back().item = &item;
    }
    const bool s0_free = used == 0 && (!memory || at->s0_free);
    prepare_flags(item, s0_free ? kS0 : kNoReg);
    for (unsigned i = 0; i < used; ++i)
        if (!overwrites(in, scratch[i].guest)) e_.load(scratch[i].host, slot(scratch[i].guest));
    reencode(e_, in, item.bytes.data(), to);
    if (c_.system->config().mistranslate && in.mnemonic == Mnemonic::Inc && !memory && places.rm &&
        !places.rm_high)
        e_.lea(static_cast<HostReg>(to.rm), {.base = to.rm, .disp = 1});
    const unsigned written = written_operands(in);
    for (unsigned i = 0; i < used; ++i) {
        bool store = false;
        for (unsigned k = 0; k < in.operand_count; ++k)
            store |= (written >> k & 1) != 0 && in.is(k, OperandKind::Gpr) &&
                     in.operand[k].reg == scratch[i].guest;
        if (store) e_.store(slot(scratch[i].guest), scratch[i].host);
    }
    flags_written(item);
    if (in.insn_class == InsnClass::X87) record_x87(item);
    if (memory) come_back(at->stub);
    return true;
}

void Translator::emit_lea(const Item& item) {
    const Insn& in = item.in;
    const unsigned guest = in.operand[0].reg;
    const HostReg host = host_of(guest);
    const u64 next = item.rip + in.length;
    if (in.operand_size != 2 && host != kNoReg) {
        // With two registers from memory the target may be needed until the end.
        if (in.base < 16 && in.index < 16 && host_of(in.base) == kNoReg && host_of(in.index) == kNoReg) {
            effective_address(kS0, in, next, false, in.operand_size == 4);
            e_.mov(host, kS0);
        } else {
            const bool to_itself =
                in.base < 16 && host_of(in.base) == kNoReg && in.index < 16 && host_of(in.index) == host;
            const bool to_base =
                in.index < 16 && host_of(in.index) == kNoReg && in.base < 16 && host_of(in.base) == host;
            const HostReg to = to_itself || to_base ? kS0 : host;
            effective_address(to, in, next, false, in.operand_size == 4);
            if (to != host) e_.mov(host, to);
        }
        return;
    }
    effective_address(kS0, in, next, false, in.operand_size == 4);
    if (in.operand_size == 2) {
        if (host != kNoReg) {
            e_.put8(0x66);
            e_.op_rr(false, 0x8b, host, kS0);
        } else {
            e_.store16(slot(guest), kS0);
        }
    } else {
        e_.store(slot(guest), kS0);
    }
}

bool Translator::emit_moffs(const Item& item) {
    const Insn& in = item.in;
    if (in.address_size == 2) return false;
    MemoryUse use = memory_use(in);
    const auto at = check(item, use, false);
    if (!at) return false;
    const bool byte = in.operand_size == 1;
    if (in.operand_size == 2) e_.put8(0x66);
    e_.op_rm(in.operand_size == 8, (use.write ? 0x88U : 0x8aU) | (byte ? 0 : 1), kRax, at->m);
    come_back(at->stub);
    return true;
}

// --- DIV and IDIV: natively where the quotient is sure to fit, which nearly always is; else the handler.

bool Translator::emit_divide(const Item& item) {
    const Insn& in = item.in;
    const unsigned size = in.operand_size;
    if (size < 4) return false;
    const bool wide_op = size == 8;
    const MemoryUse use = memory_use(in);
    size_t stub = 0;
    if (use.used) {
        const auto at = check(item, use, false);
        if (!at) return false;
        stub = at->stub;
        e_.op_rm(wide_op, 0x8b, kS0, at->m);
    } else {
        clobber_flags(item.live_in);
        stub = cold_path(item, false);
        const HostReg from = host_of(in.operand[0].reg);
        if (from == kNoReg)
            e_.op_rm(wide_op, 0x8b, kS0, slot(in.operand[0].reg));
        else
            e_.op_rr(wide_op, 0x8b, kS0, from);
    }
    constexpr unsigned kAboveOrEqual = 3, kNotEqual = 5, kBelowOrEqual = 6;
    if (in.mnemonic == Mnemonic::Div) {
        e_.alu(Alu::Cmp, wide_op, kRdx, kS0);
        stubs_[stub].add(e_.jcc_near(kAboveOrEqual));
        e_.op_rr(wide_op, 0xf7, 6, kS0);
    } else {
        // The dividend is a number of one register's size, and the divisor neither 0 nor -1.
        e_.op_rr(wide_op, 0x8b, kS1, kRax);
        e_.op_rr(wide_op, 0xc1, 7, kS1);  // sar
        e_.put8(wide_op ? 63 : 31);
        e_.alu(Alu::Cmp, wide_op, kS1, kRdx);
        stubs_[stub].add(e_.jcc_near(kNotEqual));
        const Mem plus_one{.base = kS0, .disp = 1};
        wide_op ? e_.lea(kS1, plus_one) : e_.lea32(kS1, plus_one);
        e_.alu_imm(Alu::Cmp, wide_op, kS1, 1);
        stubs_[stub].add(e_.jcc_near(kBelowOrEqual));
        e_.op_rr(wide_op, 0xf7, 7, kS0);
    }
    flags_written(item);
    come_back(stub);
    return true;
}

// --- at CPL 0

bool Translator::emit_cli(const Item& item) {
    if (user_) return false;
    clobber_flags(item.live_in);
    e_.alu_mem_imm(Alu::And, false, gs(kOffEflags), ~static_cast<s32>(x86::eflags::kIf));
    return true;
}

// Nothing looks for interrupts before the block that follows has begun.
bool Translator::emit_sti(const Item& item) {
    constexpr unsigned kNotEqual = 5;
    const u64 next = next_rip(item);
    if (user_ || !same_page(next)) return false;
    clobber_flags(item.live_in);
    const size_t stub = cold_path(item, false);
    e_.alu_mem_imm(Alu::Cmp, true, gs(kOffAttention), 0);  // and Vcpu::interrupt_waits
    stubs_[stub].add(e_.jcc_near(kNotEqual));
    e_.alu_mem_imm(Alu::Or, false, gs(kOffEflags), static_cast<s32>(x86::eflags::kIf));
    come_back(stub);
    if (ExitRecord* r = direct_exit(next, item)) r->shadow = true;
    ended_ = true;
    return true;
}

bool Translator::emit_swapgs(const Item& /*item*/) {
    if (user_ || !wide()) return false;
    const Mem base = gs(kOffSeg + x86::Gs * sizeof(x86::Segment) + offsetof(x86::Segment, base));
    const Mem other = gs(kOffKernelGsBase);
    e_.load(kS0, base);
    e_.load(kS1, other);
    e_.store(other, kS0);
    e_.store(base, kS1);
    e_.store(gs(kOffSegBase + x86::Gs * 8), kS1);
    return true;
}

// --- vector and x87 state

void Translator::check_vectors(const Item& item) {
    const u32 traps = (item.in.has(InsnFlag::Vex) ? kTrapAvx : kTrapSse) | u32{kTrapMxcsr};
    if ((vectors_checked_ & traps) == traps) return;
    clobber_flags(item.live_in);
    e_.test_mem32(gs(kOffFpTraps), traps | kTrapVectorCold);
    Stub stub{.kind = Stub::Kind::LoadVectors};
    stub.add(e_.jcc_near(5));
    stub.back = e_.here();
    stub.item = &item;
    stub.flags = to_repeat(item);
    stub.traps = traps;
    stubs_.push_back(stub);
    vectors_checked_ |= traps;
}

void Translator::check_x87(const Item& item) {
    if (x87_checked_) return;
    constexpr u32 kTraps = kTrapX87 | kTrapX87Unmasked;
    clobber_flags(item.live_in);
    e_.test_mem32(gs(kOffFpTraps), kTraps | kTrapX87Cold);
    Stub stub{.kind = Stub::Kind::LoadX87};
    stub.add(e_.jcc_near(5));
    stub.back = e_.here();
    stub.item = &item;
    stub.flags = to_repeat(item);
    stub.traps = kTraps;
    stubs_.push_back(stub);
    x87_checked_ = true;
}

// The last non-control instruction [SDM 1 8.1.8].
void Translator::record_x87(const Item& item) {
    const Insn& in = item.in;
    const auto fpu = [](u64 offset) { return gs(kOffFpu + offset); };
    const auto selector = [](unsigned seg) { return gs(kOffSeg + seg * sizeof(x86::Segment)); };
    if (memory_use(in).used) {
        effective_address(kS0, in, item.rip + in.length, false, false);
        e_.store(fpu(offsetof(x86::Fpu, dp)), kS0);
        e_.load32(kS0, selector(in.segment));
        e_.store16(fpu(offsetof(x86::Fpu, ds)), kS0);
    }
    e_.mov_imm(kS0, item.rip);
    e_.store(fpu(offsetof(x86::Fpu, ip)), kS0);
    e_.load32(kS0, selector(x86::Cs));
    e_.store16(fpu(offsetof(x86::Fpu, cs)), kS0);
    e_.store_imm16(fpu(offsetof(x86::Fpu, opcode)), (in.opcode & 7U) << 8 | in.modrm);
}

}  // namespace tessera::soft::jit
