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

void move_ymm15(Emitter& e, const Mem& m, bool to_memory) {
    if (m.gs) e.put8(0x65);
    e.put8(0xc4);
    e.put8(0x41 | (m.base != kNoReg && m.base >= 8 ? 0U : 0x20U));  // R set; map 0F
    e.put8(0x7c);
    e.put8(to_memory ? 0x11 : 0x10);
    e.operand(7, m);
}

enum class RefillFor : u8 { Any, VectorStore, Stack };

// Finds the page of an access whose slot did not have it. S1: linear address; S0: the slot, and the access's
// size less one in its low bits. If the TLB has it: zero flag set, S0 the address, S1 the addend. The slot is
// filled if it may be: all misses pass here, so that costs two stores. A stack that reaches into two pages
// would change its slots all the time: those are filled by one miss in so many.
//
// Accesses across two pages that are both in the TLB: where the host has the pages side by side too, that is
// all. What is read otherwise comes from a copy. What is written (only stores of vectors) goes to
// Vcpu::jit_across: it returns kStagedReturn bytes further on, where the store is followed by a call of the
// thunk `unstage`.
void emit_refill(Emitter& e, bool user, bool write, RefillFor use) {
    constexpr u32 kPatience = 7;
    const bool staged = use == RefillFor::VectorStore;
    constexpr unsigned kZero = 4, kNotZero = 5, kAboveOrEqual = 3;
    const u64 log = kOffSlotLogs + (user ? sizeof(SlotLog) : 0);
    const Mem rax = gs(kOffReg), rcx = gs(kOffReg + kRcx * 8), rdx = gs(kOffReg + kRdx * 8);
    // From an address to the entry for its page.
    const auto find_entry = [&](HostReg r) {
        e.shr_imm(false, r, 7);
        e.alu_imm(Alu::And, false, r, (kTlbEntries - 1) * sizeof(TlbEntry));
        e.alu(Alu::Add, true, r, gs(kOffTlb));
    };
    const s32 tag = static_cast<s32>(write ? kOffTagW : kOffTagR);
    e.store(rax, kRax);
    e.store(rcx, kRcx);
    e.store(gs(kOffSlot), kS0);
    e.mov32(kRax, kS0);
    e.alu_imm(Alu::And, false, kRax, sizeof(Slot) - 1);
    e.alu_imm(Alu::And, true, kS0, -static_cast<s32>(sizeof(Slot)));
    e.alu(Alu::Add, true, kRax, kS1);
    e.alu_imm(Alu::And, true, kRax, -4096);
    e.mov32(kRcx, kS1);
    find_entry(kRcx);
    e.alu(Alu::Cmp, true, kRax, {.base = kRcx, .disp = tag});
    u8* not_there = e.jcc_near(kNotZero);
    u8* not_for_slots = nullptr;
    if (!user) {
        // Only what holds in every address space and with SMAP in force.
        e.op_rm(false, 0xf6, 0, {.base = kRcx, .disp = static_cast<s32>(kOffAux)});  // test byte, imm8
        e.put8(kTlbFillsSlots);
        not_for_slots = e.jcc_near(kZero);
    }
    const Mem limit{.base = kS0, .disp = offsetof(Slot, limit)};
    e.alu_mem_imm(Alu::Cmp, true, limit, 0);
    u8* empty = e.jcc_near(kZero);
    u8* not_yet = nullptr;
    if (use == RefillFor::Stack) {
        const Mem patience{.base = kS0, .disp = offsetof(Slot, patience)};
        e.alu_mem_imm(Alu::Sub, false, patience, 1);
        not_yet = e.jcc_near(kAboveOrEqual);
        e.store_imm32(patience, kPatience);
    }
    u8* filled = e.here();
    e.load(kRcx, {.base = kRcx, .disp = static_cast<s32>(kOffAddend)});
    e.store({.base = kS0, .disp = offsetof(Slot, page)}, kRax);
    e.store({.base = kS0, .disp = offsetof(Slot, addend)}, kRcx);
    u8* found = e.here();
    e.mov(kS0, kS1);
    e.mov(kS1, kRcx);
    e.load(kRcx, rcx);
    e.alu(Alu::Xor, false, kRax, kRax);
    e.load(kRax, rax);
    e.ret();

    e.bind(empty);
    e.push(kRbx);
    e.load(kRbx, gs(log + offsetof(SlotLog, next)));
    e.alu(Alu::Cmp, true, kRbx, gs(log + offsetof(SlotLog, end)));
    u8* full = e.jcc_near(kAboveOrEqual);
    e.store({.base = kRbx}, kS0);
    e.alu_imm(Alu::Add, true, kRbx, sizeof(Slot*));
    e.store(gs(log + offsetof(SlotLog, next)), kRbx);
    e.load32(kRbx, {.base = kS0, .disp = offsetof(Slot, full_limit)});
    e.store(limit, kRbx);
    e.pop(kRbx);
    Emitter::patch(e.jmp_near(), filled);
    // The record is full: the slot stays empty.
    e.bind(full);
    e.pop(kRbx);
    if (!user) e.bind(not_for_slots);
    if (not_yet != nullptr) e.bind(not_yet);
    e.load(kRcx, {.base = kRcx, .disp = static_cast<s32>(kOffAddend)});
    Emitter::patch(e.jmp_near(), found);

    e.bind(not_there);
    if (!write || staged) {
        const auto tag_of = [&](HostReg entry) { return Mem{.base = entry, .disp = tag}; };
        const auto addend_of = [&](HostReg entry) {
            return Mem{.base = entry, .disp = static_cast<s32>(kOffAddend)};
        };
        constexpr s32 kMiddle = sizeof(Across::bytes) / 2;
        e.store(rdx, kRdx);
        e.mov(kRdx, kS1);
        e.alu_imm(Alu::And, true, kRdx, -4096);
        e.alu(Alu::Cmp, true, kRdx, kRax);
        u8* one_page = e.jcc_near(kZero);
        e.alu(Alu::Cmp, true, kRdx, tag_of(kRcx));
        u8* first_missing = e.jcc_near(kNotZero);
        e.mov32(kRdx, kRax);
        find_entry(kRdx);
        e.alu(Alu::Cmp, true, kRax, tag_of(kRdx));
        u8* second_missing = e.jcc_near(kNotZero);
        e.load(kRcx, addend_of(kRcx));
        e.load(kRdx, addend_of(kRdx));
        e.alu(Alu::Cmp, true, kRcx, kRdx);
        u8* together = e.jcc_near(kZero);
        // Both reach to the boundary, at the middle of jit_across.
        e.alu(Alu::Add, true, kRcx, kRax);
        e.alu(Alu::Add, true, kRdx, kRax);
        if (staged) {
            e.store(gs(kOffAcross + offsetof(Across, first)), kRcx);
            e.store(gs(kOffAcross + offsetof(Across, second)), kRdx);
            e.mov(kRcx, kRax);
            e.alu(Alu::Sub, true, kRcx, kS1);
            e.store(gs(kOffAcross + offsetof(Across, first_size)), kRcx);
            e.alu_mem_imm(Alu::Add, true, {.base = kRsp}, kStagedReturn);
        } else {
            const Mem kept = gs(kOffAcross + offsetof(Across, kept));
            const s32 bytes = static_cast<s32>(kOffAcross);
            move_ymm15(e, kept, true);
            move_ymm15(e, {.base = kRcx, .disp = -kMiddle}, false);
            move_ymm15(e, gs(bytes), true);
            move_ymm15(e, {.base = kRdx}, false);
            move_ymm15(e, gs(bytes + kMiddle), true);
            move_ymm15(e, kept, false);
        }
        e.load(kRcx, gs(kOffSelf));
        e.lea(kRcx, {.base = kRcx, .disp = static_cast<s32>(kOffAcross) + kMiddle});
        e.alu(Alu::Sub, true, kRcx, kRax);
        e.bind(together);
        e.load(kRdx, rdx);
        Emitter::patch(e.jmp_near(), found);
        for (u8* miss : {one_page, first_missing, second_missing}) e.bind(miss);
        e.load(kRdx, rdx);
    }

    // Not in the first table: perhaps in the second.
    e.store(gs(kOffAddress), kS1);
    e.load(kRcx, rcx);
    e.load(kS0, gs(kOffSlot));
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

// Copies RCX bytes, 1 to 31, from RSI to RDI, by RAX and RDX: the first and the last of them, which may be
// the same. REP MOVSB takes longer to begin.
void emit_copy_few(Emitter& e) {
    constexpr unsigned kBelow = 2;
    constexpr unsigned kDouble = 8, kWord = 2;
    std::array<u8*, 4> done{};
    size_t used = 0;
    const auto move = [&](HostReg by, unsigned size, const Mem& from) {
        if (size == kWord) e.put8(0x66);
        e.op_rm(size == kDouble, size == 1 ? 0x8a : 0x8b, by, from);
    };
    const auto put = [&](HostReg by, unsigned size, const Mem& to) {
        if (size == kWord) e.put8(0x66);
        e.op_rm(size == kDouble, size == 1 ? 0x88 : 0x89, by, to);
    };
    const auto pair = [&](unsigned size, s32 first, s32 last) {
        move(kRax, size, {.base = kRsi, .disp = first});
        move(kRdx, size, {.base = kRsi, .index = kRcx, .disp = last});
        put(kRax, size, {.base = kRdi, .disp = first});
        put(kRdx, size, {.base = kRdi, .index = kRcx, .disp = last});
    };
    for (const s32 size : {16, 8, 4, 2}) {
        e.alu_imm(Alu::Cmp, false, kRcx, size);
        u8* fewer = e.jcc_near(kBelow);
        const s32 unit = std::min(size, 8);
        pair(static_cast<unsigned>(unit), 0, -unit);
        if (size > unit) pair(static_cast<unsigned>(unit), unit, -size);
        done[used++] = e.jmp_near();
        e.bind(fewer);
    }
    move(kRax, 1, {.base = kRsi});
    put(kRax, 1, {.base = kRdi});
    for (u8* from : done) e.bind(from);
}

}  // namespace

void Jit::emit_thunks() {
    // UndefinedBehaviorSanitizer looks for a function's type in the bytes before it.
    constexpr unsigned kBeforeFunction = 16;
    Emitter e(code_->begin() + kBeforeFunction);
    const Mem rax = gs(kOffReg);
    constexpr unsigned kZero = 4, kNotZero = 5;

    thunk_.flags_from_status = e.here();
    e.mov(kS0, kRax);
    e.op_rm(false, 0x0fb7, kRax, gs(kOffStatus));  // movzx eax, word
    e.sahf_from_ax();
    e.mov(kRax, kS0);
    e.ret();
    const auto announce_status = [&] { e.mov_imm(kS0, offset_of(thunk_.flags_from_status)); };

    e.align(kBeforeFunction);
    e.move_to(e.here() + kBeforeFunction);
    // ExitRecord* enter(Vcpu& (GS has it), const void* code)
    thunk_.enter = e.here();
    for (const HostReg r : kCalleeSaved) e.push(r);
    e.alu_imm(Alu::Sub, true, kRsp, 8);
    e.store(gs(kOffHostStack), kRsp);
    e.mov(kS1, kRsi);
    for_registers([&](HostReg host, const Mem& m) { e.load(host, m); });
    e.load(kRax, rax);
    announce_status();
    e.jmp(kS1);

    // S1: the exit record.
    thunk_.exit_indirect_saved = e.here();
    e.store(gs(kOffTarget), kS0);
    thunk_.exit_saved = e.here();
    e.store(rax, kRax);
    u8* common = e.jmp_near();
    thunk_.exit_indirect = e.here();
    e.store(gs(kOffTarget), kS0);
    u8* flags_in_host = e.jmp_near();
    thunk_.exit_announced = e.here();
    e.alu(Alu::Add, true, kS0, gs(kOffCodeBegin));
    e.call(kS0);
    e.bind(flags_in_host);
    thunk_.exit = e.here();
    e.store(rax, kRax);
    save_status(e);
    e.bind(common);
    for_registers([&](HostReg host, const Mem& m) { e.store(m, host); });
    save_vectors(e);
    e.mov(kRax, kS1);
    leave(e);

    // S0: RIP of a target, S1: the exit record if the target cache does not have it. The flags are announced,
    // in Vcpu::flags_code.
    thunk_.find_target = e.here();
    e.store(gs(kOffAddress), kS1);
    emit_find_target(e);
    u8* unknown = e.jcc_near(kNotZero);
    e.load32(kS0, gs(kOffFlagsCode));
    e.jmp(Mem{.base = kS1, .disp = 8});
    e.bind(unknown);
    e.load32(kS0, gs(kOffFlagsCode));
    e.load(kS1, gs(kOffAddress));
    Emitter::patch(e.jmp_near(), thunk_.exit_announced);

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
    announce_status();
    e.jmp(kS1);

    thunk_.load_vectors = e.here();
    move_vectors(e, false);
    change_traps(e, false);
    e.ret();

    for (unsigned user = 0; user < 2; ++user)
        for (unsigned write = 0; write < 2; ++write) {
            thunk_.refill[user][write] = e.here();
            emit_refill(e, user != 0, write != 0, RefillFor::Any);
            thunk_.refill_stack[user][write] = e.here();
            emit_refill(e, user != 0, write != 0, RefillFor::Stack);
        }
    for (unsigned user = 0; user < 2; ++user) {
        thunk_.refill_staged[user] = e.here();
        emit_refill(e, user != 0, true, RefillFor::VectorStore);
    }

    // S0: how many bytes were written to Vcpu::jit_across.
    thunk_.unstage = e.here();
    constexpr std::array kUsed{kRax, kRcx, kRdx, kRsi, kRdi};
    for (const HostReg r : kUsed) e.store(gs(kOffReg + r * 8), r);
    e.load(kRcx, gs(kOffAcross + offsetof(Across, first_size)));
    e.load(kRdi, gs(kOffAcross + offsetof(Across, first)));
    e.alu(Alu::Sub, true, kRdi, kRcx);
    e.load(kRsi, gs(kOffSelf));
    e.lea(kRsi, {.base = kRsi, .disp = static_cast<s32>(kOffAcross + sizeof(Across::bytes) / 2)});
    e.alu(Alu::Sub, true, kRsi, kRcx);
    emit_copy_few(e);
    e.alu(Alu::Add, true, kRsi, kRcx);
    e.alu(Alu::Sub, true, kS0, kRcx);
    e.mov(kRcx, kS0);
    e.load(kRdi, gs(kOffAcross + offsetof(Across, second)));
    emit_copy_few(e);
    for (const HostReg r : kUsed) e.load(r, gs(kOffReg + r * 8));
    e.ret();

    first_ = at_ = e.here();
}

}  // namespace tessera::soft::jit
