// Accesses by way of RSP that share one check in translated code, where that could go wrong: frames in two
// pages, faults in the middle, RSP that goes elsewhere. TestMachine translates blocks at their first run.
#include <gtest/gtest.h>
#include <string>
#include <vector>

#include "cpu/soft/testing/kernel_rig.h"
#include "cpu/soft/x86_names.h"

namespace tessera::soft {
namespace {

constexpr int kBreakpoint = 3, kPageFault = 14;
constexpr u64 kPresentUser = 5, kAll = 7;
constexpr u64 kTimes = 4;  // that the tests' loops run

// The user's stack reaches from one page into the next, which the host does not have side by side.
class StackGroup : public testing::TestWithParam<bool> {
protected:
    static constexpr u64 kUpper = KernelRig::kUserStack, kLower = kUpper - kPageSize;
    static constexpr u64 kUpperBytes = 0x4b000, kLowerBytes = 0x4e000;

    StackGroup() : rig_({.jit = GetParam(), .translate_after = 1}), state_(rig_.kernel64(3)) {
        rig_.set_gate64(kBreakpoint, 0xee, 0);
        rig_.set_pte(kUpper, kUpperBytes | kAll);
        rig_.set_pte(kLower, kLowerBytes | kAll);
        for (u64 i = 0; i < kPageSize; ++i) {
            *rig_.ram(kUpperBytes + i) = filling(kUpper + i);
            *rig_.ram(kLowerBytes + i) = filling(kLower + i);
        }
        state_.gpr[Rax] = 0xa1a2'a3a4'a5a6'a7a8;
        state_.gpr[Rbx] = 0xb1b2'b3b4'b5b6'b7b8;
        state_.gpr[Rdx] = 0xd1d2'd3d4'd5d6'd7d8;
    }
    static u8 filling(u64 lin) { return static_cast<u8>(lin * 7 + (lin >> 8)); }
    [[nodiscard]] u8& byte_at(u64 lin) {
        return *rig_.ram(lin < kUpper ? kLowerBytes + (lin - kLower) : kUpperBytes + (lin - kUpper));
    }
    [[nodiscard]] u64 word_at(u64 lin) {
        u64 value = 0;
        for (unsigned i = 8; i-- > 0;) value = value << 8 | byte_at(lin + i);
        return value;
    }
    void put(const std::vector<u8>& code) { rig_.put(KernelRig::kUserCode, code); }
    // The code that is there, from its beginning.
    State run(u64 rsp) {
        State s = state_;
        s.gpr[Rsp] = rsp;
        rig_.cpu().set_state(s);
        rig_.last_exit = rig_.cpu().run().reason;
        return rig_.cpu().state();
    }

    KernelRig rig_;
    State state_;
};

// Four times over, with other numbers each time: the first finds nothing remembered. RSP moves meanwhile by
// what is in place of 0x7f.
const std::vector<u8> kFunction{0xb9, 4,    0,    0,    0,           // 0: mov ecx, 4
                                0x48, 0xff, 0xc0,                    // 5: inc rax
                                0x48, 0xff, 0xc3,                    // 8: inc rbx
                                0x48, 0xff, 0xc2,                    // 11: inc rdx
                                0x50,                                // 14: push rax
                                0x53,                                // 15: push rbx
                                0x48, 0x83, 0xec, 0x18,              // 16: sub rsp, 0x18
                                0x48, 0x89, 0x54, 0x24, 0x08,        // 20: mov [rsp + 8], rdx
                                0x48, 0x83, 0x44, 0x24, 0x08, 0x05,  // 25: add qword [rsp + 8], 5
                                0x66, 0x89, 0x1c, 0x24,              // 31: mov [rsp], bx
                                0x4c, 0x8b, 0x44, 0x24, 0x08,        // 35: mov r8, [rsp + 8]
                                0xf3, 0x0f, 0x6f, 0x44, 0x24, 0x18,  // 40: movdqu xmm0, [rsp + 0x18]
                                0x48, 0x83, 0xc4, 0x18,              // 46: add rsp, 0x18
                                0x41, 0x59,                          // 50: pop r9
                                0x41, 0x5a,                          // 52: pop r10
                                0x48, 0x8d, 0x64, 0x24, 0x7f,        // 54: lea rsp, [rsp + 0x7f]
                                0xff, 0xc9, 0x75, 0xc6,              // 59: dec ecx; jnz to inc rax
                                0xcc};
std::vector<u8> function_moving(int by) {
    std::vector<u8> code = kFunction;
    code[58] = static_cast<u8>(by);
    return code;
}

TEST_P(StackGroup, FramesAnywhereInTwoPagesAreWhereTheirBytesAre) {
    put(function_moving(0));
    constexpr u64 kReach = 64;
    // There and back, so that each page is left for the other several times.
    for (unsigned round = 0; round < 2; ++round)
        for (u64 step = 0; step <= 2 * kReach; ++step) {
            const u64 rsp = kUpper - kReach + (round == 0 ? step : 2 * kReach - step);
            SCOPED_TRACE(testing::Message() << "RSP " << std::hex << rsp);
            for (u64 at = rsp - 64; at < rsp + 16; ++at) byte_at(at) = filling(at);
            const State s = run(rsp);
            ASSERT_EQ(KernelRig::vector_of(s), kBreakpoint);
            const u64 rax = state_.gpr[Rax] + kTimes, rbx = state_.gpr[Rbx] + kTimes,
                      rdx = state_.gpr[Rdx] + kTimes;
            ASSERT_EQ(s.gpr[R8], rdx + 5);
            ASSERT_EQ(s.gpr[R9], rbx);
            ASSERT_EQ(s.gpr[R10], rax);
            ASSERT_EQ(s.ymm[0][0], rbx);
            ASSERT_EQ(s.ymm[0][1], rax);
            ASSERT_EQ(rig_.frame64(s, false).rsp, rsp);
            ASSERT_EQ(word_at(rsp - 8), rax);
            ASSERT_EQ(word_at(rsp - 16), rbx);
            ASSERT_EQ(word_at(rsp - 32), rdx + 5);
            ASSERT_EQ(word_at(rsp - 40) & 0xffff, rbx & 0xffff);
            for (u64 at = rsp - 38; at < rsp - 32; ++at) ASSERT_EQ(byte_at(at), filling(at));
            for (u64 at = rsp - 24; at < rsp - 16; ++at) ASSERT_EQ(byte_at(at), filling(at));
            ASSERT_EQ(byte_at(rsp - 41), filling(rsp - 41));
            ASSERT_EQ(byte_at(rsp), filling(rsp));
        }
}

TEST_P(StackGroup, FaultIsThatOfTheFirstAccessToTheMissingPage) {
    constexpr int kStep = 64;
    put(function_moving(-kStep));
    struct Access {
        u64 instruction, below, rsp_below;  // RSP: how far below that at the beginning
    };
    constexpr std::array kAccesses{Access{14, 8, 0}, Access{15, 16, 8}, Access{20, 32, 40},
                                   Access{31, 40, 40}};
    rig_.set_pte(kLower, 0);
    for (u64 above = 0; above <= 40; above += 8) {
        SCOPED_TRACE(above);
        const u64 rsp = kUpper + above;
        for (u64 at = kUpper; at < rsp; ++at) byte_at(at) = filling(at);
        const State s = run(rsp + (kTimes - 1) * u64{kStep});  // and there in the end
        const auto* const first =
            std::ranges::find_if(kAccesses, [&](const Access& access) { return access.below > above; });
        if (first == kAccesses.end()) {
            EXPECT_EQ(KernelRig::vector_of(s), kBreakpoint);
            continue;
        }
        ASSERT_EQ(KernelRig::vector_of(s), kPageFault);
        const KernelRig::Frame frame = rig_.frame64(s, true);
        EXPECT_EQ(frame.error, 6U) << "a user's write to what is not there";
        EXPECT_EQ(s.cr2, rsp - first->below);
        EXPECT_EQ(frame.rip, KernelRig::kUserCode + first->instruction);
        EXPECT_EQ(frame.rsp, rsp - first->rsp_below);
        if (above >= 8) EXPECT_EQ(word_at(rsp - 8), state_.gpr[Rax] + kTimes);
        if (above >= 16) EXPECT_EQ(word_at(rsp - 16), state_.gpr[Rbx] + kTimes);
        if (above >= 24) EXPECT_EQ(byte_at(rsp - 20), filling(rsp - 20));
    }
}

TEST_P(StackGroup, FlagsOutliveTheStackInTwoPages) {
    const std::vector<std::pair<const char*, std::vector<u8>>> makers{
        {"a comparison", {0x48, 0x39, 0xd7}}, {"STC", {0xf9}}, {"a shift", {0x31, 0xd2, 0x48, 0xd1, 0xef}}};
    for (const auto& [name, maker] : makers) {
        SCOPED_TRACE(name);
        std::vector<u8> code{0xb9, 4, 0, 0, 0};  // mov ecx, 4
        code.insert(code.end(), maker.begin(), maker.end());
        code.insert(code.end(), {0x50, 0x53,                    // push rax; push rbx
                                 0x4c, 0x8b, 0x44, 0x24, 0x08,  // mov r8, [rsp + 8]
                                 0x41, 0x59, 0x41, 0x5a,        // pop r9; pop r10
                                 0x49, 0x83, 0xd3, 0x10,        // adc r11, 0x10
                                 0xff, 0xc9, 0x75, 0xcc,        // dec ecx; jnz to the maker
                                 0xcc});
        code[code.size() - 2] = static_cast<u8>(5 - (code.size() - 1));
        put(code);
        state_.gpr[Rdi] = 0xff;  // below RDX; and shifted, carries
        for (u64 rsp = kUpper - 20; rsp <= kUpper + 20; rsp += 4) {
            const State s = run(rsp);
            ASSERT_EQ(KernelRig::vector_of(s), kBreakpoint);
            ASSERT_EQ(s.gpr[R11] - state_.gpr[R11], kTimes * 0x11);
            ASSERT_EQ(s.gpr[R8], state_.gpr[Rax]);
        }
    }
}

TEST_P(StackGroup, ReadsOfWhatMayNotBeWrittenComeBeforeTheFault) {
    put({0xb9, 4,    0,    0,    0,     // mov ecx, 4
         0x4c, 0x8b, 0x04, 0x24,        // mov r8, [rsp]
         0x4c, 0x8b, 0x4c, 0x24, 0x08,  // mov r9, [rsp + 8]
         0xff, 0xc9, 0x75, 0xf3,        // dec ecx; jnz to mov r8
         0x48, 0x89, 0x54, 0x24, 0x10,  // 18: mov [rsp + 16], rdx
         0xcc});
    const u64 rsp = kUpper + 0x100;
    const u64 there = word_at(rsp + 16);
    rig_.set_pte(kUpper, kUpperBytes | kPresentUser);
    for (unsigned i = 0; i < 3; ++i) {
        const State s = run(rsp);
        ASSERT_EQ(KernelRig::vector_of(s), kPageFault);
        EXPECT_EQ(rig_.frame64(s, true).error, 7U) << "a user's write to what is there";
        EXPECT_EQ(rig_.frame64(s, true).rip, KernelRig::kUserCode + 18);
        EXPECT_EQ(s.cr2, rsp + 16);
        EXPECT_EQ(s.gpr[R8], word_at(rsp));
        EXPECT_EQ(s.gpr[R9], word_at(rsp + 8));
        EXPECT_EQ(word_at(rsp + 16), there);
    }
    rig_.set_pte(kUpper, kUpperBytes | kAll);
    EXPECT_EQ(KernelRig::vector_of(run(rsp)), kBreakpoint);
    EXPECT_EQ(word_at(rsp + 16), state_.gpr[Rdx]);
}

TEST_P(StackGroup, GoesOnBehindAnAccessThatIsNotDoneInline) {
    put({0xb9, 4,    0,    0,    0,  // mov ecx, 4
         0x50,                       // push rax
         0x48, 0x89, 0x17,           // mov [rdi], rdx: across two pages
         0x4c, 0x8b, 0x04, 0x24,     // mov r8, [rsp]
         0x41, 0x59,                 // pop r9
         0xff, 0xc9, 0x75, 0xf2,     // dec ecx; jnz to push
         0xcc});
    state_.gpr[Rdi] = kUpper - 3;
    for (const u64 rsp : {kUpper + 0x100, kUpper + 4, kLower + 0x100}) {
        const State s = run(rsp);
        ASSERT_EQ(KernelRig::vector_of(s), kBreakpoint);
        EXPECT_EQ(word_at(kUpper - 3), state_.gpr[Rdx]);
        const u64 back = rsp == kUpper + 4 ? word_at(rsp - 8) : state_.gpr[Rax];
        EXPECT_EQ(s.gpr[R8], back);
        EXPECT_EQ(s.gpr[R9], back);
    }
}

TEST_P(StackGroup, FrameLargerThanWhatOneCheckServes) {
    put({0xb9, 4,    0,    0,    0,                 // mov ecx, 4
         0x50,                                      // push rax
         0x48, 0x81, 0xec, 0,    0x04, 0,    0,     // sub rsp, 0x400
         0x48, 0x89, 0x14, 0x24,                    // mov [rsp], rdx
         0x48, 0x89, 0x9c, 0x24, 0xf8, 0x03, 0, 0,  // mov [rsp + 0x3f8], rbx
         0x4c, 0x8b, 0x04, 0x24,                    // mov r8, [rsp]
         0x48, 0x81, 0xc4, 0,    0x04, 0,    0,     // add rsp, 0x400
         0x41, 0x59,                                // pop r9
         0xff, 0xc9, 0x75, 0xdb,                    // dec ecx; jnz to push
         0xcc});
    for (u64 rsp = kUpper - 16; rsp <= kUpper + 0x410; rsp += 8) {
        const State s = run(rsp);
        ASSERT_EQ(KernelRig::vector_of(s), kBreakpoint);
        ASSERT_EQ(s.gpr[R8], state_.gpr[Rdx]);
        ASSERT_EQ(s.gpr[R9], state_.gpr[Rax]);
        ASSERT_EQ(word_at(rsp - 0x408), state_.gpr[Rdx]);
        ASSERT_EQ(word_at(rsp - 16), state_.gpr[Rbx]);
    }
}

TEST_P(StackGroup, EndsWhereRspGoesElsewhere) {
    const u64 from = kUpper + 0x100, to = kLower + 0x100;
    struct Mover {
        const char* name;
        std::vector<u8> code;
        u64 rdi;
    };
    const std::vector<Mover> movers{
        {"mov rsp, rdi", {0x48, 0x89, 0xfc}, to},
        {"mov rsp, rdi, the other way", {0x48, 0x8b, 0xe7}, to},
        {"mov esp, edi", {0x89, 0xfc}, to},
        {"mov esp, imm", {0xbc, u8(to), u8(to >> 8), u8(to >> 16), 0}, 0},
        {"mov sp, di", {0x66, 0x89, 0xfc}, to},
        {"xchg rsp, rdi", {0x48, 0x87, 0xfc}, to},
        {"xchg rsp, rax", {0x48, 0x97, 0x48, 0x94}, to},
        {"lea rsp, [rdi]", {0x48, 0x8d, 0x27}, to},
        {"lea rsp, [rsp + rdi]", {0x48, 0x8d, 0x24, 0x3c}, to - from},
        {"lea esp, [rsp - 4096]", {0x8d, 0xa4, 0x24, 0, 0xf0, 0xff, 0xff}, 0},
        {"lea rsp, [rsp - 4096]", {0x48, 0x8d, 0xa4, 0x24, 0, 0xf0, 0xff, 0xff}, 0},
        {"add rsp, rdi", {0x48, 0x01, 0xfc}, to - from},
        {"add esp, edi", {0x01, 0xfc}, to - from},
        {"sub rsp, rdi", {0x48, 0x29, 0xfc}, from - to},
        {"sub rsp, 4096", {0x48, 0x81, 0xec, 0, 0x10, 0, 0}, 0},
        {"sub esp, 4096", {0x81, 0xec, 0, 0x10, 0, 0}, 0},
        {"sub sp, 4096", {0x66, 0x81, 0xec, 0, 0x10}, 0},
        {"xor rsp, rdi", {0x48, 0x31, 0xfc}, to ^ from},
        {"not rsp; xor rsp, rdi", {0x48, 0xf7, 0xd4, 0x48, 0x31, 0xfc}, ~(to ^ from)},
        {"pop rsp", {0x57, 0x5c}, to},
        {"push rdi; mov rsp, [rsp]", {0x57, 0x48, 0x8b, 0x24, 0x24}, to},
        {"push rdi; pop; xchg [rsp - 8]", {0x57, 0x5e, 0x48, 0x87, 0x64, 0x24, 0xf8}, to},
        {"leave", {0x48, 0x8d, 0x6f, 0xf8, 0xc9}, to},
        {"cmovz rsp, rdi", {0x31, 0xc9, 0x48, 0x0f, 0x44, 0xe7}, to},
        {"imul rsp, rdi, 1", {0x48, 0x6b, 0xe7, 0x01}, to},
        {"movsxd rsp, edi", {0x48, 0x63, 0xe7}, to},
        {"xadd rsp, rdi", {0x48, 0x0f, 0xc1, 0xfc}, to - from},
        {"xadd rdi, rsp", {0x48, 0x8d, 0x3f, 0x48, 0x0f, 0xc1, 0xe7}, to},
        {"cmpxchg rsp, rdi", {0x48, 0x89, 0xe0, 0x48, 0x0f, 0xb1, 0xfc}, to},
        {"movq rsp, xmm0", {0x66, 0x48, 0x0f, 0x6e, 0xc7, 0x66, 0x48, 0x0f, 0x7e, 0xc4}, to},
        {"pextrq rsp, xmm0, 0", {0x66, 0x48, 0x0f, 0x6e, 0xc7, 0x66, 0x48, 0x0f, 0x3a, 0x16, 0xc4, 0x00}, to},
        {"rorx rsp, rdi, 0", {0xc4, 0xe3, 0xfb, 0xf0, 0xe7, 0x00}, to},
        {"shlx rsp, rdi, rcx", {0x31, 0xc9, 0xc4, 0xe2, 0xf1, 0xf7, 0xe7}, to},
        {"andn rsp, rcx, rdi", {0x31, 0xc9, 0xc4, 0xe2, 0xf0, 0xf2, 0xe7}, to},
        {"pext rsp, rdi, rcx", {0x48, 0x83, 0xc9, 0xff, 0xc4, 0xe2, 0xc2, 0xf5, 0xe1}, to},
        {"mulx rcx, rsp, rdi", {0xba, 1, 0, 0, 0, 0xc4, 0xe2, 0xdb, 0xf6, 0xcf}, to},
        {"enter", {0xc8, 0xf8, 0x0f, 0x00}, 0},
    };
    for (const Mover& mover : movers) {
        SCOPED_TRACE(mover.name);
        std::vector<u8> code{0x41, 0xbd, 4,    0, 0, 0,  // mov r13d, 4
                             0x4c, 0x89, 0xe4,           // mov rsp, r12
                             0x4c, 0x89, 0xf7,           // mov rdi, r14
                             0x50, 0x58};                // push rax; pop rax
        code.insert(code.end(), mover.code.begin(), mover.code.end());
        code.insert(code.end(), {0x48, 0x89, 0x1c, 0x24,        // mov [rsp], rbx
                                 0x4c, 0x8b, 0x44, 0x24, 0x08,  // mov r8, [rsp + 8]
                                 0x41, 0xff, 0xcd, 0x75, 0xcc,  // dec r13d; jnz to mov rsp
                                 0xcc});
        code[code.size() - 2] = static_cast<u8>(6 - (code.size() - 1));
        put(code);
        state_.gpr[R12] = from;
        state_.gpr[R14] = mover.rdi;
        for (unsigned i = 0; i < 2; ++i) {
            for (u64 at = to; at < to + 16; ++at) byte_at(at) = filling(at);
            const State s = run(from);
            ASSERT_EQ(KernelRig::vector_of(s), kBreakpoint);
            ASSERT_EQ(rig_.frame64(s, false).rsp, to);
            ASSERT_EQ(word_at(to), state_.gpr[Rbx]);
            ASSERT_EQ(s.gpr[R8], word_at(to + 8));
        }
    }
}

// SYSCALL and SYSRET go on in translated code. What the kernel's frame taught is not for the user.
TEST_P(StackGroup, KernelFramesInTwoPagesStayTheKernels) {
    constexpr u64 kKernelCode = 0x20000, kFrame = 0x3a004;
    rig_.put(kKernelCode, {0xbc, 0x04, 0xa0, 0x03, 0x00,  // mov esp, kFrame
                           0x50, 0x53,                    // push rax; push rbx
                           0x4c, 0x8b, 0x44, 0x24, 0x08,  // mov r8, [rsp + 8]
                           0x4c, 0x8b, 0x24, 0x24,        // mov r12, [rsp]
                           0x41, 0x59, 0x41, 0x5a,        // pop r9; pop r10
                           0x48, 0x0f, 0x07});            // sysretq
    put({0xbb, 12,   0,    0,    0,                       // mov ebx, 12
         0x0f, 0x05,                                      // syscall
         0xff, 0xcb, 0x75, 0xfa,                          // dec ebx; jnz to syscall
         0xbc, 0x00, 0x9f, 0x03, 0x00,                    // mov esp, 0x39f00
         0x4c, 0x8b, 0x1c, 0x24,                          // mov r11, [rsp]
         0xcc});
    state_.msr.lstar = kKernelCode;
    for (unsigned i = 0; i < 2; ++i) {
        const State s = run(kUpper);
        EXPECT_EQ(s.gpr[R8], state_.gpr[Rax]);
        EXPECT_EQ(s.gpr[R9], 1U);
        ASSERT_EQ(KernelRig::vector_of(s), kPageFault);
        EXPECT_EQ(rig_.frame64(s, true).error, 5U) << "a user's read of what is there";
        EXPECT_EQ(s.cr2, 0x39f00U);
        EXPECT_EQ(s.gpr[Rsp] & ~u64{0xfff}, 0x39000U) << "the handler's stack, below " << std::hex << kFrame;
    }
}

INSTANTIATE_TEST_SUITE_P(Engines, StackGroup, testing::Bool(),
                         [](const testing::TestParamInfo<bool>& engine) {
                             return std::string(engine.param ? "Translator" : "Interpreter");
                         });

}  // namespace
}  // namespace tessera::soft
