// Host code for system instructions that kernels use all the time, and for BT with a register as bit number.
#include "cpu/soft/jit/layout.h"
#include "cpu/soft/jit/translator.h"

namespace tessera::soft::jit {

namespace {

using x86::Insn;
using x86::Mnemonic;
using x86::OperandKind;

constexpr unsigned kEqual = 4, kNotEqual = 5;

[[nodiscard]] Mem segment(unsigned seg, u64 field) {
    return {.disp = static_cast<s32>(kOffSeg + seg * sizeof(x86::Segment) + field), .gs = true};
}

}  // namespace

HostReg Translator::result_register(unsigned guest) {
    const HostReg host = host_of(guest);
    return host == kNoReg ? kS0 : host;
}

void Translator::store_result(unsigned guest) {
    if (host_of(guest) == kNoReg) e_.store(slot(guest), kS0);
}

bool Translator::emit_access_check(const Item& item) {
    if (user_) return false;
    const bool set = item.in.mnemonic == Mnemonic::Stac;
    constexpr auto kAc = static_cast<s32>(x86::eflags::kAc);
    clobber_flags(item.live_in);
    e_.alu_mem_imm(set ? Alu::Or : Alu::And, false, gs(kOffEflags), set ? kAc : ~kAc);
    e_.load(kS0, gs(set ? kOffStacTlb : kOffClacTlb));
    e_.store(gs(kOffTlb), kS0);
    return true;
}

bool Translator::emit_mov_from_seg(const Item& item) {
    const Insn& in = item.in;
    if (!in.is(0, OperandKind::Gpr) || !in.is(1, OperandKind::Segment) || in.operand[0].size < 4)
        return false;
    const unsigned guest = in.operand[0].reg;
    e_.op_rm(false, 0x0fb7, result_register(guest),
             segment(in.operand[1].reg, offsetof(x86::Segment, selector)));
    store_result(guest);
    return true;
}

bool Translator::emit_segment_base(const Item& item) {
    const Insn& in = item.in;
    if (!wide() || !in.is(0, OperandKind::Gpr)) return false;
    const bool write = in.mnemonic == Mnemonic::Wrfsbase || in.mnemonic == Mnemonic::Wrgsbase;
    const bool fs = in.mnemonic == Mnemonic::Rdfsbase || in.mnemonic == Mnemonic::Wrfsbase;
    const unsigned seg = fs ? x86::Fs : x86::Gs;
    const unsigned guest = in.operand[0].reg;
    const bool whole = in.operand_size == 8;
    clobber_flags(item.live_in);
    const size_t stub = cold_path(item, false);
    e_.test_mem32(gs(kOffCr4), static_cast<u32>(x86::cr4::kFsgsbase));
    stubs_[stub].add(e_.jcc_near(kEqual));
    if (!write) {
        e_.op_rm(whole, 0x8b, result_register(guest), gs(kOffSegBase + seg * 8));
        store_result(guest);
    } else {
        constexpr unsigned kSignBits = 16;
        const HostReg from = host_of(guest);
        if (from == kNoReg)
            e_.op_rm(whole, 0x8b, kS0, slot(guest));
        else
            e_.op_rr(whole, 0x8b, kS0, from);
        e_.mov(kS1, kS0);
        e_.shl_imm(true, kS1, kSignBits);
        e_.op_rr(true, 0xc1, 7, kS1);  // sar
        e_.put8(kSignBits);
        e_.alu(Alu::Cmp, true, kS1, kS0);
        stubs_[stub].add(e_.jcc_near(kNotEqual));
        e_.store(segment(seg, offsetof(x86::Segment, base)), kS0);
        e_.store(gs(kOffSegBase + seg * 8), kS0);
    }
    come_back(stub);
    return true;
}

bool Translator::emit_rdtsc(const Item& item) {
    clobber_flags(item.live_in);
    const size_t stub = cold_path(item, false);
    if (user_) {
        e_.test_mem32(gs(kOffCr4), static_cast<u32>(x86::cr4::kTsd));
        stubs_[stub].add(e_.jcc_near(kNotEqual));
    }
    e_.op_rm(false, 0x80, 7, gs(kOffTscIsProcessors));  // cmp byte, imm8
    e_.put8(0);
    stubs_[stub].add(e_.jcc_near(kEqual));
    constexpr unsigned kHalf = 32;
    if (item.in.mnemonic == Mnemonic::Rdtscp) {
        e_.put8(0x0f), e_.put8(0xae), e_.put8(0xe8);  // lfence
        e_.load32(kRcx, gs(kOffTscAux));
    }
    e_.put8(0x0f), e_.put8(0x31);
    e_.shl_imm(true, kRdx, kHalf);
    e_.alu(Alu::Or, true, kRax, kRdx);
    e_.alu(Alu::Sub, true, kRax, gs(kOffTscLess));
    e_.alu(Alu::Add, true, kRax, gs(kOffTscOffset));
    e_.mov(kRdx, kRax);
    e_.shr_imm(true, kRdx, kHalf);
    e_.mov32(kRax, kRax);
    come_back(stub);
    return true;
}

// The word the bit is in is what is accessed. The host's own instruction counts words from the operand too.
bool Translator::emit_bit_string(const Item& item) {
    const Insn& in = item.in;
    const unsigned size = in.operand_size;
    if (size < 4 || in.address_size != (wide() ? 8 : 4)) return false;
    const bool whole = size == 8;
    const unsigned word_shift = whole ? 3 : 2, bit_shift = whole ? 6 : 5;
    const unsigned number = in.operand[1].reg;
    const auto words_before = [&](HostReg to) {
        if (host_of(number) == kNoReg)
            e_.op_rm(true, whole ? 0x8b : 0x63, to, slot(number));  // mov, movsxd
        else
            e_.op_rr(true, whole ? 0x8b : 0x63, to, host_of(number));
        e_.op_rr(true, 0xc1, 7, to);  // sar
        e_.put8(bit_shift);
        e_.shl_imm(true, to, word_shift);
    };
    const bool flat = in.segment != x86::Fs && in.segment != x86::Gs;
    if (!flat || !wide()) return false;
    clobber_flags(item.live_in);
    const size_t stub = cold_path(item, false);
    effective_address(kS0, in, item.rip + in.length, true, false);
    words_before(kS1);
    e_.alu(Alu::Add, true, kS0, kS1);
    e_.mov(kS1, kS0);
    const MemoryUse use = memory_use(in);
    find_page(stub, jit_.new_slot(size), {.base = kS0}, size, use.write, false);
    e_.lea(kS1, {.base = kS0, .index = kS1});
    words_before(kS0);
    e_.alu(Alu::Sub, true, kS1, kS0);
    Operands to;
    to.memory = true;
    to.m = {.base = kS1};
    to.drop_lock = single_cpu_;
    to.reg = result_register(number);
    prepare_flags(item, kNoReg);
    if (host_of(number) == kNoReg) e_.load(kS0, slot(number));
    reencode(e_, in, item.bytes.data(), to);
    flags_written(item);
    come_back(stub);
    return true;
}

}  // namespace tessera::soft::jit
