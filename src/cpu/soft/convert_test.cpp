// x86::State into the software CPU and out of it again.
#include <gtest/gtest.h>

#include "cpu/soft/testing/kernel_rig.h"

namespace tessera::soft {
namespace {

TEST(Convert, CarriesWhatOnlyOtherEnginesHave) {
    KernelRig rig;
    x86::State s = rig.kernel64();
    s.other_msrs = {{.index = 0x1d9, .value = 1}, {.index = 0x345, .value = 0x10}};
    s.other_components = {{.number = 5, .bytes = std::vector<u8>(64, 0xa5)}};
    s.msr.kvm_steal_time = 0x5001;
    s.msr.kvm_async_pf = 0x6001;
    s.msr.kvm_async_pf_vector = 0xf3;
    s.msr.kvm_poll_control = 0;
    rig.cpu().set_state(s);
    EXPECT_EQ(rig.cpu().state(), s);

    const x86::State after = rig.run(s, {0x90});
    EXPECT_EQ(after.other_msrs, s.other_msrs);
    EXPECT_EQ(after.other_components, s.other_components);
    EXPECT_EQ(after.msr, s.msr);
}

TEST(Convert, AnEventToRepeatComesOutAsItWentIn) {
    KernelRig rig;
    x86::State s = rig.kernel64();
    s.event_valid = true;
    s.event_vector = 14;
    s.event_has_error = true;
    s.event_error = 2;
    rig.cpu().set_state(s);
    EXPECT_EQ(rig.cpu().state(), s);
    s.event_vector = 9;
    s.event_has_error = false;
    s.event_error = 0;
    s.event_is_interrupt = true;
    rig.cpu().set_state(s);
    EXPECT_EQ(rig.cpu().state(), s);
}

// [SDM 3A 6.7.1] An NMI keeps further ones out, an exception with its vector would not.
TEST(Convert, ARepeatedNmiBlocksNmis) {
    KernelRig rig;
    x86::State s = rig.kernel64();
    s.event_valid = true;
    s.event_vector = 2;
    const x86::State after = rig.run(s, {0x90});
    EXPECT_EQ(KernelRig::vector_of(after), 2);
    EXPECT_TRUE(after.nmi_blocked);
    EXPECT_FALSE(after.event_valid);
}

// [SDM 3A table 6-5] Interrupts are benign, whatever their vector: a fault while one is delivered is itself.
TEST(Convert, ARepeatedInterruptWithALowVectorIsNoException) {
    KernelRig rig;
    x86::State s = rig.kernel64();
    rig.set_gate64(10, 0x0e, 0);  // not present
    s.event_valid = true;
    s.event_vector = 10;
    s.event_is_interrupt = true;
    EXPECT_EQ(KernelRig::vector_of(rig.run(s, {0x90})), 11);
    s.event_is_interrupt = false;
    s.event_has_error = true;
    EXPECT_EQ(KernelRig::vector_of(rig.run(s, {0x90})), 8);
}

// --- before another engine gets the state

TEST(PrepareToLeave, TakesBackTheOfferToEndAnInterruptInMemory) {
    KernelRig rig;
    constexpr u64 kWord = KernelRig::kData;
    x86::State s = rig.kernel64();
    s.msr.kvm_pv_eoi = kWord | 1;
    s.paravirt_eoi_offered = true;
    rig.write<u32>(kWord, 1);
    rig.cpu().set_state(s);
    rig.engine().prepare_to_leave(0);
    EXPECT_FALSE(rig.cpu().state().paravirt_eoi_offered);
    EXPECT_EQ(rig.read<u32>(kWord), 0u) << "the guest writes to its APIC, whoever that is";
    rig.engine().prepare_to_leave(0);
    s.paravirt_eoi_offered = false;
    EXPECT_EQ(rig.cpu().state(), s) << "and nothing else";
}

class Kicker final : public IoDevice {
public:
    IoStatus read(u64 /*offset*/, std::span<std::byte> /*out*/) override { return IoStatus::Ok; }
    IoStatus write(u64 /*offset*/, std::span<const std::byte> /*in*/) override {
        cpu->kick();
        return IoStatus::Ok;
    }
    Cpu* cpu = nullptr;
};

// [SDM 3B 17.3.1.4] The trap of an instruction that ended in a kick is still due.
TEST(PrepareToLeave, AnOutstandingDebugTrapGoesAlong) {
    constexpr u64 kSingleStep = 1 << 14;
    KernelRig rig;
    Kicker kicker;
    NullLock lock;
    kicker.cpu = &rig.cpu();
    ASSERT_TRUE(rig.ports.add("kicker", 0x70, 1, kicker, lock));
    x86::State s = rig.kernel64();
    s.rflags |= x86::eflags::kTf;
    rig.put(KernelRig::kCode, {0xe6, 0x70});  // out 0x70, al
    rig.cpu().set_state(s);
    ASSERT_EQ(rig.cpu().run().reason, ExitReason::Kicked);
    rig.engine().prepare_to_leave(0);
    const x86::State after = rig.cpu().state();
    EXPECT_EQ(after.rip, KernelRig::kCode + 2);
    EXPECT_TRUE(after.event_valid);
    EXPECT_EQ(after.event_vector, 1);
    EXPECT_FALSE(after.event_is_interrupt);
    EXPECT_NE(after.dr6 & kSingleStep, 0u);

    rig.cpu().set_state(after);
    ASSERT_EQ(rig.cpu().run().reason, ExitReason::Halted);
    EXPECT_EQ(KernelRig::vector_of(rig.cpu().state()), 1);
}

}  // namespace
}  // namespace tessera::soft
