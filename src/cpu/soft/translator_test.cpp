// Translated code where it would be easy to get wrong and hard to meet by chance. (What all code has in
// common, tests/oracle compares.) TestMachine translates blocks at their first run.
#include <bit>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <vector>

#include "cpu/soft/testing/kernel_rig.h"
#include "cpu/soft/x86_names.h"

namespace tessera::soft {
namespace {

constexpr int kBreakpoint = 3, kAlignmentCheck = 17;

// All accesses by way of RSP share what they remember of the stack's page.
TEST(Translator, StackAccessLargerThanTheOneBeforeCrossesIntoTheRightPage) {
    KernelRig rig;
    State s = rig.kernel64(3);
    constexpr u64 kPage = KernelRig::kUserStack, kNext = KernelRig::kUserStack + 0x1000, kElsewhere = 0x4b000;
    rig.set_pte(kNext, kElsewhere | 7);
    rig.write<u32>(kPage + 0xffc, 0x11111111);
    rig.write<u32>(kNext, 0x22222222);  // physically the next, but not mapped there
    rig.write<u32>(kElsewhere, 0x33333333);
    s.gpr[Rsp] = kPage + 0xff0;
    rig.set_gate64(kBreakpoint, 0xee, 0);
    s = rig.go(s, {0xb9, 4, 0, 0, 0,              // mov ecx, 4
                   0x8a, 0x04, 0x24,              // mov al, [rsp]
                   0x48, 0x8b, 0x5c, 0x24, 0x0c,  // mov rbx, [rsp + 12]
                   0xff, 0xc9, 0x75, 0xf4,        // dec ecx; jnz to mov al
                   0xcc});
    ASSERT_EQ(KernelRig::vector_of(s), kBreakpoint);
    EXPECT_EQ(s.gpr[Rbx], 0x3333333311111111U);
}

TEST(Translator, AlignmentIsCheckedOnceAcIsSetThoughThePageIsKnown) {
    KernelRig rig;
    State s = rig.kernel64(3);
    s.cr0 |= cr0::kAm;
    s.rflags |= eflags::kIf;
    s = rig.go(s, {0xb9, 4,    0,    0,    0,                 // mov ecx, 4
                   0x8b, 0x44, 0x24, 0x01,                    // mov eax, [rsp + 1]
                   0xff, 0xc9, 0x75, 0xf8,                    // dec ecx; jnz to mov
                   0x9c, 0x81, 0x0c, 0x24, 0, 0, 4, 0, 0x9d,  // pushfq; or [rsp], AC; popfq
                   0x8b, 0x44, 0x24, 0x01,                    // mov eax, [rsp + 1]
                   0xcc});
    EXPECT_EQ(KernelRig::vector_of(s), kAlignmentCheck);
}

TEST(Translator, BranchToWhatMarksEmptyTargetsIsAPageFault) {
    constexpr int kPageFault = 14;
    for (const u64 target : {0, 1}) {
        KernelRig rig;
        State s = rig.kernel64(3);
        s.gpr[Rax] = target;
        s = rig.go(s, {0xff, 0xe0});  // jmp rax
        EXPECT_EQ(KernelRig::vector_of(s), kPageFault);
        EXPECT_EQ(s.cr2, target);
    }
}

TEST(Translator, AnInstructionAcrossTwoPagesIsWhatBothPagesHoldNow) {
    constexpr u64 kSecond = 0x81000, kOther = 0x90000, kFunction = kSecond - 3;
    KernelRig rig;
    State s = rig.kernel64(0);
    rig.put(kFunction, {0xb8, 0xaa, 0xaa, 0x11, 0x11, 0xc3});  // mov eax, 0x1111aaaa; ret
    rig.put(kOther, {0x22, 0x22, 0xc3});
    s.gpr[R8] = kFunction;
    s.gpr[Rsi] = KernelRig::pte_address(kSecond);
    s.gpr[Rdi] = kSecond;
    s = rig.go(s, {0xb9, 20,   0,    0,    0,           // mov ecx, 20
                   0x41, 0xff, 0xd0,                    // call r8
                   0x48, 0x01, 0xc3,                    // add rbx, rax
                   0x81, 0x36, 0,    0x10, 0x01, 0,     // xor dword [rsi], kSecond ^ kOther
                   0x0f, 0x01, 0x3f,                    // invlpg [rdi]
                   0xff, 0xc9, 0x75, 0xed,              // dec ecx; jnz to call
                   0xb9, 20,   0,    0,    0,           // mov ecx, 20
                   0x41, 0xff, 0xd0,                    // call r8
                   0x48, 0x01, 0xc3,                    // add rbx, rax
                   0xfe, 0x07, 0xff, 0xc9, 0x75, 0xf4,  // inc byte [rdi]; dec ecx; jnz to call
                   0xf4});                              // hlt
    EXPECT_EQ(s.activity, Activity::Halted);
    u64 sum = 10 * (u64{0x1111'aaaa} + 0x2222'aaaa);
    for (u64 i = 0; i < 20; ++i) sum += 0x1111'aaaa + (i << 16);
    EXPECT_EQ(s.gpr[Rbx], sum);
}

// --- little room for code

class LittleRoom : public testing::Test {
protected:
    static constexpr u64 kDriver = 0x80000, kFunctions = 0x100000, kSum = 0x70000;
    static constexpr u32 kCount = 600, kRounds = 5;

    static u32 number_of(u32 function) { return 0x0101'0101 * (function % 100); }
    static void little_endian(std::vector<u8>& out, u32 value) {
        for (unsigned i = 0; i < 4; ++i) out.push_back(static_cast<u8>(value >> 8 * i));
    }
    // Calls many functions, several times over; returns what they leave in RAX and in memory.
    static std::pair<u64, u32> run(KernelRig& rig) {
        std::vector<u8> driver{0xb9};  // mov ecx, rounds
        little_endian(driver, kRounds);
        for (u32 f = 0; f < kCount; ++f) {
            const u64 at = kFunctions + f * 64;
            std::vector<u8> code{0x48, 0x05};  // add rax, number
            little_endian(code, number_of(f));
            code.insert(code.end(), {0x48, 0xd1, 0xc0,  // rol rax, 1
                                     0x01, 0x03,        // add [rbx], eax
                                     0xc3});            // ret
            put(rig, at, code);
            driver.push_back(0xe8);  // call
            little_endian(driver, static_cast<u32>(at - (kDriver + driver.size() + 4)));
        }
        driver.insert(driver.end(), {0xff, 0xc9, 0x0f, 0x85});  // dec ecx; jnz to the first call
        little_endian(driver, static_cast<u32>(5 - (driver.size() + 4)));
        driver.push_back(0xf4);  // hlt
        put(rig, kDriver, driver);
        State s = rig.kernel64(0);
        s.gpr[Rbx] = kSum;
        rig.write<u32>(kSum, 0);
        s.rip = kDriver;
        rig.cpu().set_state(s);
        EXPECT_EQ(rig.cpu().run().reason, ExitReason::Halted);
        return {rig.cpu().state().gpr[Rax], rig.read<u32>(kSum)};
    }
    static void put(KernelRig& rig, u64 at, const std::vector<u8>& bytes) {
        for (const u8 byte : bytes) rig.write<u8>(at++, byte);
    }
    static std::pair<u64, u32> expected() {
        u64 rax = 0;
        u32 sum = 0;
        for (u32 round = 0; round < kRounds; ++round)
            for (u32 f = 0; f < kCount; ++f) {
                rax = std::rotl(rax + number_of(f), 1);
                sum += static_cast<u32>(rax);
            }
        return {rax, sum};
    }
    static u64 figure(KernelRig& rig, std::string_view name) {
        std::vector<Statistic> all;
        rig.cpu().statistics(all);
        for (const Statistic& s : all)
            if (s.name == name) return s.value;
        ADD_FAILURE() << "no figure " << name;
        return 0;
    }
};

TEST_F(LittleRoom, AFullCodeCacheCostsNothingButTime) {
    KernelRig rig({.translate_after = 1, .code_cache = 128 * kKiB});
    EXPECT_EQ(run(rig), expected());
    EXPECT_GT(figure(rig, "code cache flushes"), 1U);
}

TEST_F(LittleRoom, AFullCacheOfDecodedCodeCostsNothingButTime) {
    KernelRig rig({.jit = false, .code_cache = 4 * kKiB});
    EXPECT_EQ(run(rig), expected());
    EXPECT_GT(figure(rig, "decoded code full"), 1U);
}

// --- lockstep

class Lockstep : public testing::Test {
protected:
    static SoftCpuConfig config(bool mistranslate) {
        return {.translate_after = 1, .check = 1, .mistranslate = mistranslate};
    }
    // Stores, a call, a loop, MMX and SSE, and a fault at the end.
    static constexpr std::initializer_list<u8> kProgram{
        0xb9, 5,    0,    0,    0,               // mov ecx, 5
        0x48, 0xff, 0xc0,                        // inc rax
        0x50,                                    // push rax
        0xf3, 0x48, 0x0f, 0x2a, 0xc0,            // cvtsi2ss xmm0, rax
        0x0f, 0x58, 0xc8,                        // addps xmm1, xmm0
        0xd9, 0xe8, 0xdd, 0x1c, 0x24,            // fld1; fstp qword [rsp]
        0x5b,                                    // pop rbx
        0xff, 0xc9, 0x75, 0xe9,                  // dec ecx; jnz to inc
        0x8b, 0x04, 0x25, 0,    0,    0, 0x70};  // mov eax, [0x70000000]
};

TEST_F(Lockstep, FindsNothingInWhatIsRight) {
    KernelRig rig(config(false));
    const State s = rig.go(rig.kernel64(3), kProgram);
    EXPECT_EQ(KernelRig::vector_of(s), 14);
    EXPECT_EQ(rig.cpu().failure(), "");
    EXPECT_EQ(s.gpr[Rbx], 0x3ff0000000000000U);
}

TEST_F(Lockstep, FindsAWrongTranslation) {
    KernelRig rig(config(true));
    (void)rig.go(rig.kernel64(3), kProgram);
    EXPECT_EQ(rig.last_exit, ExitReason::Failed);
    EXPECT_THAT(rig.cpu().failure(), testing::StartsWith(std::string(kCheckFailure)));
    EXPECT_THAT(rig.cpu().failure(), testing::HasSubstr("48ffc0")) << "the block's bytes";
    EXPECT_THAT(rig.cpu().failure(),
                testing::HasSubstr("r0     interpreter 0000000000000001  translator 0000000000000002"));
}

}  // namespace
}  // namespace tessera::soft
