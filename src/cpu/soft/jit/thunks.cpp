// The ways into and out of translated code.
#include "cpu/soft/jit/layout.h"
#include "cpu/soft/jit/runtime.h"
#include "cpu/soft/jit/translator.h"

namespace tessera::soft::jit {

namespace {

[[nodiscard]] Mem gs(u64 offset) {
    return {.disp = static_cast<s32>(offset), .gs = true};
}
constexpr std::array<HostReg, 6> kCalleeSaved{kRbx, kRbp, kR12, kR13, kR14, kR15};

// RAX apart, which the flags pass through.
template <typename F>
void for_registers(F f) {
    for (unsigned guest = 1; guest < 16; ++guest)
        if (host_of(guest) != kNoReg) f(host_of(guest), gs(kOffReg + guest * 8));
}

void move_vectors(Emitter& e, bool to_memory) {
    for (unsigned n = 0; n < 16; ++n) {
        e.put8(0x65);
        e.put8(0xc4);
        e.put8(n < 8 ? 0xe1 : 0x61);
        e.put8(0x7c);  // 256 bits
        e.put8(to_memory ? 0x11 : 0x10);
        e.operand(n, Mem{.disp = static_cast<s32>(kOffYmm + n * 32)});
    }
}

void change_traps(Emitter& e, bool cold) {
    e.put8(0x66);
    e.op_rm(false, 0x81, cold ? 1 : 4, gs(kOffFpTraps));  // or, and
    e.put16(cold ? u32{kTrapVectorCold} : ~u32{kTrapVectorCold} & 0xffff);
}

// Leaves BL 1 if they were live.
void save_vectors(Emitter& e) {
    constexpr unsigned kNotZero = 5;
    e.test_mem32(gs(kOffFpTraps), kTrapVectorCold);
    e.put8(0x0f), e.put8(0x94), e.put8(0xc3);  // setz bl
    u8* cold = e.jcc_near(kNotZero);
    move_vectors(e, true);
    e.put8(0xc5), e.put8(0xf8), e.put8(0x77);  // vzeroupper
    change_traps(e, true);
    e.bind(cold);
}

void leave(Emitter& e) {
    e.load(kRsp, gs(kOffHostStack));
    e.alu_imm(Alu::Add, true, kRsp, 8);
    for (size_t i = kCalleeSaved.size(); i-- > 0;) e.pop(kCalleeSaved[i]);
    e.ret();
}

void save_status(Emitter& e) {
    e.lahf_seto();
    e.store16(gs(kOffStatus), kRax);
}

// Finds the page of an access whose slot did not have it. S1: linear address; S0: the slot, and the access's
// size less one in its low bits. If the TLB has it: zero flag set, S0 the address, S1 the addend. The slot is
// filled if it may be.
void emit_refill(Emitter& e, bool user, bool write) {
    constexpr unsigned kZero = 4, kNotZero = 5, kAboveOrEqual = 3;
    constexpr std::array<HostReg, 5> kUsed{kRax, kRcx, kRdx, kRbx, kRsi};
    const u64 log = kOffSlotLogs + (user ? sizeof(SlotLog) : 0);
    // An access that hardly ever finds its page again is best served by the TLB alone: only one miss in so
    // many fills the slot, but for as many as were emptied.
    constexpr unsigned kMissesPerFill = 8, kBelow = 2;
    const auto index = [&](HostReg r) {
        e.shr_imm(false, r, 7);
        e.alu_imm(Alu::And, false, r, (kTlbEntries - 1) * sizeof(TlbEntry));
    };
    const s32 tag = static_cast<s32>(write ? kOffTagW : kOffTagR);
    e.op_rm(false, 0x80, 5, gs(kOffMisses));  // sub byte, imm8
    e.put8(1);
    u8* fill = e.jcc_near(kBelow);
    e.store(gs(kOffReg), kRax);
    e.store(gs(kOffSlot), kS0);
    e.mov32(kRax, kS0);
    e.alu_imm(Alu::And, false, kRax, sizeof(Slot) - 1);
    e.alu(Alu::Add, true, kRax, kS1);
    e.alu_imm(Alu::And, true, kRax, -4096);
    e.mov(kS0, kS1);
    index(kS1);
    e.alu(Alu::Add, true, kS1, gs(kOffTlb));
    e.alu(Alu::Cmp, true, kRax, {.base = kS1, .disp = tag});
    e.load(kRax, gs(kOffReg));
    u8* not_there = e.jcc_near(kNotZero);
    e.load(kS1, {.base = kS1, .disp = static_cast<s32>(kOffAddend)});
    e.ret();

    e.bind(not_there);
    e.mov(kS1, kS0);
    e.load(kS0, gs(kOffSlot));
    u8* look_again = e.jmp_near();
    e.bind(fill);
    e.store_imm8(gs(kOffMisses), 0);
    e.alu_mem_imm(Alu::Sub, false, gs(kOffSlotsEmptied), 1);
    u8* next_too = e.jcc_near(kAboveOrEqual);
    e.store_imm32(gs(kOffSlotsEmptied), 0);
    e.store_imm8(gs(kOffMisses), kMissesPerFill - 1);
    e.bind(next_too);
    e.bind(look_again);
    for (const HostReg r : kUsed) e.push(r);
    e.mov(kRsi, kS1);
    e.mov32(kRcx, kS0);
    e.alu_imm(Alu::And, false, kRcx, sizeof(Slot) - 1);
    e.alu_imm(Alu::And, true, kS0, -static_cast<s32>(sizeof(Slot)));
    e.lea(kRax, {.base = kS1, .index = kRcx});
    e.alu_imm(Alu::And, true, kRax, -4096);
    e.mov32(kRdx, kS1);
    index(kRdx);
    e.mov(kRbx, kRdx);
    e.alu(Alu::Add, true, kRdx, gs(kOffTlb));
    e.alu(Alu::Cmp, true, kRax, {.base = kRdx, .disp = tag});
    u8* miss = e.jcc_near(kNotZero);
    e.load(kS1, {.base = kRdx, .disp = static_cast<s32>(kOffAddend)});
    u8* not_global = nullptr;
    u8* other_set = nullptr;
    if (!user) {
        // Only what holds in every address space and with SMAP in force.
        e.op_rm(false, 0xf6, 0, {.base = kRdx, .disp = static_cast<s32>(kOffAux)});  // test byte, imm8
        e.put8(kTlbGlobal);
        not_global = e.jcc_near(kZero);
        e.alu(Alu::Add, true, kRbx, gs(kOffSlotTlb));
        e.alu(Alu::Cmp, true, kRbx, kRdx);
        other_set = e.jcc_near(kNotZero);
    }
    e.op_rm(true, 0x83, 7, {.base = kS0, .disp = offsetof(Slot, limit)});  // cmp qword, imm8
    e.put8(0);
    u8* known = e.jcc_near(kNotZero);
    e.load(kRbx, gs(log + offsetof(SlotLog, next)));
    e.alu(Alu::Cmp, true, kRbx, gs(log + offsetof(SlotLog, end)));
    u8* full = e.jcc_near(kAboveOrEqual);
    e.store({.base = kRbx}, kS0);
    e.alu_imm(Alu::Add, true, kRbx, sizeof(Slot*));
    e.store(gs(log + offsetof(SlotLog, next)), kRbx);
    e.bind(known);
    e.store({.base = kS0, .disp = offsetof(Slot, page)}, kRax);
    e.store({.base = kS0, .disp = offsetof(Slot, addend)}, kS1);
    e.mov_imm(kRdx, 4096);
    e.alu(Alu::Sub, true, kRdx, kRcx);
    e.alu(Alu::Sub, true, kRdx, {.base = kS0, .disp = offsetof(Slot, less)});
    e.store({.base = kS0, .disp = offsetof(Slot, limit)}, kRdx);
    if (!user) {
        e.bind(not_global);
        e.bind(other_set);
    }
    e.mov(kS0, kRsi);
    e.alu(Alu::Xor, false, kRax, kRax);
    for (size_t i = kUsed.size(); i-- > 0;) e.pop(kUsed[i]);
    e.ret();

    // Not in the first table: perhaps in the second.
    e.bind(miss);
    e.bind(full);
    e.alu(Alu::Or, true, kS0, kRcx);
    e.store(gs(kOffAddress), kRsi);
    for (size_t i = kUsed.size(); i-- > 0;) e.pop(kUsed[i]);
    e.store(gs(kOffReg), kRax);
    for_registers([&](HostReg host, const Mem& m) { e.store(m, host); });
    save_vectors(e);
    e.load(kRdi, gs(kOffSelf));
    e.mov(kRsi, kS0);
    e.mov_imm(kRdx, write ? 1 : 0);
    e.mov_imm(kRax, reinterpret_cast<u64>(&Runtime::refill));
    e.alu_imm(Alu::Sub, true, kRsp, 8);
    e.call(kRax);
    e.alu_imm(Alu::Add, true, kRsp, 8);
    e.put8(0x84), e.put8(0xdb);  // test bl, bl
    u8* cold = e.jcc_near(kZero);
    move_vectors(e, false);
    change_traps(e, false);
    e.bind(cold);
    e.load(kS0, gs(kOffAddress));
    e.load(kS1, gs(kOffSlot));
    e.alu_imm(Alu::Cmp, true, kRax, 1);  // found
    for_registers([&](HostReg host, const Mem& m) { e.load(host, m); });
    e.load(kRax, gs(kOffReg));
    e.ret();
}

}  // namespace

void Jit::emit_thunks() {
    // UndefinedBehaviorSanitizer looks for a function's type in the bytes before it.
    constexpr unsigned kBeforeFunction = 16;
    Emitter e(code_->begin() + kBeforeFunction);
    const Mem rax = gs(kOffReg);
    constexpr unsigned kZero = 4, kNotZero = 5;

    // ExitRecord* enter(Vcpu& (GS has it), const void* code)
    thunk_.enter = e.here();
    for (const HostReg r : kCalleeSaved) e.push(r);
    e.alu_imm(Alu::Sub, true, kRsp, 8);
    e.store(gs(kOffHostStack), kRsp);
    e.mov(kS1, kRsi);
    for_registers([&](HostReg host, const Mem& m) { e.load(host, m); });
    e.load(kRax, rax);
    e.jmp(kS1);

    // S1: the exit record.
    thunk_.exit_indirect = e.here();
    e.store(gs(kOffTarget), kS0);
    thunk_.exit_saved = e.here();
    e.store(rax, kRax);
    u8* common = e.jmp_near();
    thunk_.exit = e.here();
    e.store(rax, kRax);
    save_status(e);
    e.bind(common);
    for_registers([&](HostReg host, const Mem& m) { e.store(m, host); });
    save_vectors(e);
    e.mov(kRax, kS1);
    leave(e);

    // S0: RIP of a target, S1: the exit record if the target cache does not have it. The flags are saved.
    thunk_.find_target = e.here();
    e.store(gs(kOffAddress), kS1);
    emit_find_target(e);
    u8* unknown = e.jcc_near(kNotZero);
    e.jmp(Mem{.base = kS1, .disp = 8});
    e.bind(unknown);
    e.load(kS1, gs(kOffAddress));
    Emitter::patch(e.jmp_near(), thunk_.exit_saved);

    // S1: the op, S0: the page. Called with the stack 8 bytes off its alignment.
    thunk_.call_op_saving = e.here();
    e.store(rax, kRax);
    save_status(e);
    common = e.jmp_near();
    thunk_.call_op = e.here();
    e.store(rax, kRax);
    e.bind(common);
    for_registers([&](HostReg host, const Mem& m) { e.store(m, host); });
    e.store(gs(kOffReg + kRipSlot * 8), kS0);
    save_vectors(e);
    e.load(kRdi, gs(kOffSelf));
    e.mov(kRsi, kS1);
    e.mov_imm(kRax, reinterpret_cast<u64>(&Runtime::run_op));
    e.alu_imm(Alu::Sub, true, kRsp, 8);
    e.call(kRax);
    e.alu_imm(Alu::Add, true, kRsp, 8);
    static_assert(Runtime::kNextInsn == 1);
    constexpr unsigned kBelow = 2, kAbove = 7;
    e.alu_imm(Alu::Cmp, true, kRax, 1);
    u8* gone = e.jcc_near(kBelow);
    u8* elsewhere = e.jcc_near(kAbove);
    e.put8(0x84), e.put8(0xdb);  // test bl, bl
    u8* cold = e.jcc_near(kZero);
    move_vectors(e, false);
    change_traps(e, false);
    e.bind(cold);
    for_registers([&](HostReg host, const Mem& m) { e.load(host, m); });
    e.op_rm(false, 0x0fb7, kRax, gs(kOffStatus));
    e.sahf_from_ax();
    e.load(kRax, rax);
    e.ret();
    e.bind(gone);
    leave(e);
    e.bind(elsewhere);
    e.mov(kS1, kRax);
    for_registers([&](HostReg host, const Mem& m) { e.load(host, m); });
    e.load(kRax, rax);
    e.alu_imm(Alu::Add, true, kRsp, 8);
    e.jmp(kS1);

    thunk_.load_vectors = e.here();
    move_vectors(e, false);
    change_traps(e, false);
    e.ret();

    for (unsigned user = 0; user < 2; ++user)
        for (unsigned write = 0; write < 2; ++write) {
            thunk_.refill[user][write] = e.here();
            emit_refill(e, user != 0, write != 0);
        }

    first_ = at_ = e.here();
}

}  // namespace tessera::soft::jit
