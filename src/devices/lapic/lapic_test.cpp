#include "devices/lapic/lapic.h"

#include <array>
#include <gtest/gtest.h>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "devices/lapic/lapic_fabric.h"
#include "devices/lapic/lapic_rig.h"
#include "devices/testing/device_suite.h"

TESSERA_JOIN_DEVICE_SUITE(Lapic, tessera::lapic::LapicRig);

namespace tessera::lapic {
namespace {

// Restated from the manual: offsets in the page (SDM 3A table 11-1).
enum Offset : u32 {
    kId = 0x20,
    kVersionReg = 0x30,
    kTpr = 0x80,
    kPpr = 0xa0,
    kEoi = 0xb0,
    kLdr = 0xd0,
    kDfr = 0xe0,
    kSvr = 0xf0,
    kIsr = 0x100,
    kTmr = 0x180,
    kIrr = 0x200,
    kEsr = 0x280,
    kIcrLow = 0x300,
    kIcrHigh = 0x310,
    kLvtTimer = 0x320,
    kLvtThermal = 0x330,
    kLvtPerf = 0x340,
    kLvtLint0 = 0x350,
    kLvtLint1 = 0x360,
    kLvtError = 0x370,
    kInitialCount = 0x380,
    kCurrentCount = 0x390,
    kDivide = 0x3e0,
};
constexpr u32 kBaseMsr = 0x1b;
constexpr u32 kDeadlineMsr = 0x6e0;
constexpr u64 kEnabledBase = 0xfee0'0800;
constexpr u64 kX2apicBase = 0xfee0'0c00;
constexpr u64 kBsp = 0x100;
constexpr u32 kMasked = 0x10000;

struct RecordingEoi final : EoiSink {
    std::vector<u8> vectors;
    void end_of_interrupt(u8 vector) override { vectors.push_back(vector); }
};
struct FakePic final : PicAcknowledge {
    std::optional<u8> answer;
    Lapic* lower = nullptr;  // the acknowledge cycle lowers INTR
    std::optional<u8> acknowledge_interrupt() override {
        if (lower != nullptr) lower->set_lint(0, false);
        return answer;
    }
};
struct Waker final : CpuWaker {
    int count = 0;
    void wake() override { ++count; }
};

class LapicTest : public testing::Test {
protected:
    LapicTest() {
        for (u32 id = 0; id < 4; ++id) {
            cpus.push_back(std::make_unique<Lapic>(Lapic::Config{.apic_id = id, .bootstrap = id == 0}, clock,
                                                   tsc, clock, fabric));
            fabric.add(*cpus.back());
            cpus.back()->connect_waker(wakers[id]);
            cpus.back()->connect_eoi(eoi);
            cpus.back()->connect_pic(pic);
            cpus.back()->write_register(kSvr, 0x1ff);
        }
    }
    void x2apic(unsigned cpu) {
        ASSERT_EQ(cpus[cpu]->write_msr(kBaseMsr, kX2apicBase | (cpu == 0 ? kBsp : 0)), MsrResult::Ok);
    }
    u64 msr(unsigned cpu, u32 index) {
        u64 value = 0;
        EXPECT_EQ(cpus[cpu]->read_msr(index, value), MsrResult::Ok) << std::hex << index;
        return value;
    }
    bool vector_in(u32 bank, u8 vector) {
        return (lapic().read_register(bank + vector / 32 * 16) >> (vector % 32) & 1) != 0;
    }
    void fixed(u32 destination, u8 vector, TriggerMode trigger = TriggerMode::Edge) {
        ApicMessage m;
        m.destination = destination;
        m.vector = vector;
        m.trigger = trigger;
        fabric.deliver(m);
    }
    std::vector<u32> pending_on() {
        std::vector<u32> ids;
        for (auto& cpu : cpus)
            if (cpu->interrupt_pending()) ids.push_back(cpu->apic_id());
        return ids;
    }
    Lapic& lapic() { return *cpus[0]; }

    FakeClock clock;
    FakeTsc tsc{clock};
    LapicFabric fabric;
    RecordingEoi eoi;
    FakePic pic;
    std::array<Waker, 4> wakers;
    std::vector<std::unique_ptr<Lapic>> cpus;
};

// --- Reset.

TEST_F(LapicTest, PowerOnValues) {
    Lapic fresh({.apic_id = 5}, clock, tsc, clock, fabric);
    EXPECT_EQ(fresh.read_register(kId), 5u << 24);
    EXPECT_EQ(fresh.read_register(kTpr), 0u);
    EXPECT_EQ(fresh.read_register(kLdr), 0u);
    EXPECT_EQ(fresh.read_register(kDfr), 0xffff'ffffu);
    EXPECT_EQ(fresh.read_register(kSvr), 0xffu);
    for (const u32 lvt : {kLvtTimer, kLvtThermal, kLvtPerf, kLvtLint0, kLvtLint1, kLvtError})
        EXPECT_EQ(fresh.read_register(lvt), kMasked);
    EXPECT_EQ(fresh.read_register(kInitialCount), 0u);
    EXPECT_EQ(fresh.read_register(kCurrentCount), 0u);
    EXPECT_EQ(fresh.read_register(kDivide), 0u);
    u64 base = 0;
    EXPECT_EQ(fresh.read_msr(kBaseMsr, base), MsrResult::Ok);
    EXPECT_EQ(base, 0xfee0'0800u);
    EXPECT_FALSE(fresh.is_bootstrap());
    EXPECT_EQ(msr(0, kBaseMsr), 0xfee0'0900u);
    EXPECT_TRUE(lapic().is_bootstrap());
}

TEST_F(LapicTest, VersionTellsLvtCountAndEoiSuppression) {
    const u32 version = lapic().read_register(kVersionReg);
    EXPECT_GE(version & 0xff, 0x14u);
    EXPECT_EQ(version >> 16 & 0xff, 6u);  // entries less one
    EXPECT_EQ(version >> 24 & 1, 1u);
}

TEST_F(LapicTest, InitKeepsIdAndBaseAndClearsTheRest) {
    x2apic(0);
    fixed(0, 0x40);
    EXPECT_EQ(lapic().write_msr(0x832, 0x20041), MsrResult::Ok);
    lapic().init_reset();
    EXPECT_FALSE(lapic().interrupt_pending());
    EXPECT_EQ(msr(0, kBaseMsr), kX2apicBase | kBsp);
    EXPECT_EQ(msr(0, 0x80f), 0xffu);
    EXPECT_EQ(msr(0, 0x832), kMasked);
    EXPECT_EQ(msr(0, 0x80d), 1u);
}

// --- Priorities and acknowledge.

TEST_F(LapicTest, InterruptGoesFromIrrToIsrToEnd) {
    fixed(0, 0x51);
    EXPECT_TRUE(lapic().interrupt_pending());
    EXPECT_TRUE(vector_in(kIrr, 0x51));
    EXPECT_EQ(lapic().acknowledge(), 0x51);
    EXPECT_FALSE(vector_in(kIrr, 0x51));
    EXPECT_TRUE(vector_in(kIsr, 0x51));
    EXPECT_EQ(lapic().read_register(kPpr), 0x50u);
    lapic().write_register(kEoi, 0);
    EXPECT_FALSE(vector_in(kIsr, 0x51));
    EXPECT_EQ(lapic().read_register(kPpr), 0u);
    EXPECT_EQ(lapic().acknowledge(), std::nullopt);
}

TEST_F(LapicTest, HigherVectorFirstAndOnlyHigherClassNests) {
    fixed(0, 0x41);
    fixed(0, 0x62);
    EXPECT_EQ(lapic().acknowledge(), 0x62);
    EXPECT_FALSE(lapic().interrupt_pending());
    fixed(0, 0x6f);  // same class: waits
    EXPECT_FALSE(lapic().interrupt_pending());
    fixed(0, 0x70);
    EXPECT_EQ(lapic().acknowledge(), 0x70);
    lapic().write_register(kEoi, 0);
    EXPECT_FALSE(lapic().interrupt_pending());
    lapic().write_register(kEoi, 0);
    EXPECT_EQ(lapic().acknowledge(), 0x6f);
}

TEST_F(LapicTest, TaskPriorityHoldsBackItsClassAndBelow) {
    lapic().write_register(kTpr, 0x50);
    EXPECT_EQ(lapic().cr8(), 5);
    fixed(0, 0x5f);
    EXPECT_FALSE(lapic().interrupt_pending());
    EXPECT_EQ(lapic().acknowledge(), std::nullopt);
    lapic().set_cr8(4);
    EXPECT_EQ(lapic().read_register(kTpr), 0x40u);
    EXPECT_TRUE(lapic().interrupt_pending());
}

TEST_F(LapicTest, PprTakesTheLowBitsOfTprOnlyWhenTprRules) {
    lapic().write_register(kTpr, 0x4a);
    EXPECT_EQ(lapic().read_register(kPpr), 0x4au);
    fixed(0, 0x63);
    (void)lapic().acknowledge();
    EXPECT_EQ(lapic().read_register(kPpr), 0x60u);
    lapic().write_register(kTpr, 0x65);
    EXPECT_EQ(lapic().read_register(kPpr), 0x65u);
}

TEST_F(LapicTest, RequestThatBecomesDeliverableWakesTheCpu) {
    lapic().write_register(kTpr, 0xf0);
    fixed(0, 0x80);
    EXPECT_FALSE(lapic().interrupt_pending());
    const int before = wakers[0].count;
    lapic().write_register(kTpr, 0);
    EXPECT_GT(wakers[0].count, before);
    fixed(0, 0x81);
    (void)lapic().acknowledge();
    EXPECT_FALSE(lapic().interrupt_pending());
    const int before_eoi = wakers[0].count;
    lapic().write_register(kEoi, 0);
    EXPECT_GT(wakers[0].count, before_eoi);
}

TEST_F(LapicTest, EoiWithoutServiceDoesNothing) {
    lapic().write_register(kEoi, 0);
    EXPECT_TRUE(eoi.vectors.empty());
}

TEST_F(LapicTest, LevelTriggeredEoiReachesTheIoApicEdgeDoesNot) {
    fixed(0, 0x40, TriggerMode::Edge);
    (void)lapic().acknowledge();
    lapic().write_register(kEoi, 0);
    EXPECT_TRUE(eoi.vectors.empty());
    fixed(0, 0x40, TriggerMode::Level);
    EXPECT_TRUE(lapic().interrupt_pending());
    EXPECT_TRUE(vector_in(kTmr, 0x40));
    (void)lapic().acknowledge();
    lapic().write_register(kEoi, 0);
    EXPECT_EQ(eoi.vectors, std::vector<u8>{0x40});
    // Accepted as edge again: TMR follows.
    fixed(0, 0x40, TriggerMode::Edge);
    EXPECT_TRUE(lapic().interrupt_pending());
    EXPECT_FALSE(vector_in(kTmr, 0x40));
}

TEST_F(LapicTest, EoiBroadcastCanBeSuppressed) {
    lapic().write_register(kSvr, 0x11ff);
    EXPECT_EQ(lapic().read_register(kSvr), 0x11ffu);
    fixed(0, 0x40, TriggerMode::Level);
    (void)lapic().acknowledge();
    lapic().write_register(kEoi, 0);
    EXPECT_TRUE(eoi.vectors.empty());
    EXPECT_FALSE(vector_in(kIsr, 0x40));
}

TEST_F(LapicTest, EoiCanWaitOnlyForALoneEdgeInterrupt) {
    EXPECT_FALSE(lapic().eoi_can_wait(0x50)) << "nothing in service";
    fixed(0, 0x50);
    EXPECT_TRUE(lapic().requested());
    EXPECT_FALSE(lapic().eoi_can_wait(0x50)) << "not in service yet";
    EXPECT_EQ(lapic().acknowledge(), 0x50);
    EXPECT_FALSE(lapic().requested());
    EXPECT_TRUE(lapic().eoi_can_wait(0x50));
    EXPECT_FALSE(lapic().eoi_can_wait(0x51));
    fixed(0, 0x20);
    EXPECT_TRUE(lapic().requested()) << "though its class is held back";
    EXPECT_FALSE(lapic().eoi_can_wait(0x50));
    lapic().end_of_interrupt();
    EXPECT_FALSE(vector_in(kIsr, 0x50));
    EXPECT_EQ(lapic().acknowledge(), 0x20);
    fixed(0, 0x60);
    EXPECT_EQ(lapic().acknowledge(), 0x60);
    EXPECT_FALSE(lapic().eoi_can_wait(0x60)) << "nested";
    lapic().end_of_interrupt();
    lapic().end_of_interrupt();
    fixed(0, 0x70, TriggerMode::Level);
    EXPECT_EQ(lapic().acknowledge(), 0x70);
    EXPECT_FALSE(lapic().eoi_can_wait(0x70)) << "the I/O APIC waits for it";
    lapic().end_of_interrupt();
    EXPECT_EQ(eoi.vectors, std::vector<u8>{0x70});
}

TEST_F(LapicTest, SendPhysicalSendsVectorAndModeToOneCpu) {
    EXPECT_TRUE(lapic().send_physical(0xfffff800 | 0x50, 2));  // no logical mode, no shorthand
    EXPECT_EQ(pending_on(), std::vector<u32>{2});
    EXPECT_EQ(cpus[2]->acknowledge(), 0x50);
    EXPECT_TRUE(lapic().send_physical(0x400, 1));
    EXPECT_TRUE(cpus[1]->take_events().nmi);
    EXPECT_TRUE(lapic().send_physical(0x51, 0));
    EXPECT_EQ(lapic().acknowledge(), 0x51);
    x2apic(3);
    EXPECT_TRUE(cpus[3]->send_physical(0x52, 1));
    EXPECT_EQ(pending_on(), std::vector<u32>{1});
    ASSERT_EQ(lapic().write_msr(kBaseMsr, 0xfee0'0000 | kBsp), MsrResult::Ok);
    EXPECT_FALSE(lapic().send_physical(0x53, 1));
}

TEST_F(LapicTest, EveryVectorFrom16IsDeliveredOnce) {
    for (unsigned v = 16; v < 256; ++v) fixed(0, static_cast<u8>(v));
    for (int v = 255; v >= 16; --v) {
        const auto got = lapic().acknowledge();
        ASSERT_EQ(got, static_cast<u8>(v));
        lapic().write_register(kEoi, 0);
    }
    EXPECT_EQ(lapic().acknowledge(), std::nullopt);
}

// --- Software and global enable.

TEST_F(LapicTest, DisabledBySoftwareMasksLvtsAndRefusesFixedButTakesNmiInitSipi) {
    lapic().write_register(kLvtTimer, 0x40);
    lapic().write_register(kSvr, 0xff);
    EXPECT_EQ(lapic().read_register(kLvtTimer), kMasked | 0x40);
    lapic().write_register(kLvtTimer, 0x40);
    EXPECT_EQ(lapic().read_register(kLvtTimer), kMasked | 0x40);
    fixed(0, 0x41);
    EXPECT_FALSE(lapic().interrupt_pending());
    ApicMessage m;
    m.delivery_mode = DeliveryMode::Nmi;
    fabric.deliver(m);
    EXPECT_TRUE(lapic().take_events().nmi);
    EXPECT_FALSE(lapic().take_events().nmi);
    m.delivery_mode = DeliveryMode::Init;
    fabric.deliver(m);
    m.delivery_mode = DeliveryMode::StartUp;
    m.vector = 0x9a;
    fabric.deliver(m);
    EXPECT_TRUE(lapic().take_events().init);
    EXPECT_EQ(lapic().take_events().sipi, 0x9a);
}

TEST_F(LapicTest, StartUpBehindAnInitIsReportedAfterTheCpuWasReset) {
    ApicMessage m;
    m.delivery_mode = DeliveryMode::Init;
    fabric.deliver(m);
    m.delivery_mode = DeliveryMode::StartUp;
    m.vector = 0x9a;
    fabric.deliver(m);
    const int before = wakers[0].count;
    const auto first = lapic().take_events();
    EXPECT_TRUE(first.init);
    EXPECT_EQ(first.sipi, std::nullopt);
    EXPECT_GT(wakers[0].count, before);
    lapic().init_reset();
    EXPECT_EQ(lapic().take_events().sipi, 0x9a);
    EXPECT_EQ(lapic().take_events().sipi, std::nullopt);
}

TEST_F(LapicTest, DisabledBySoftwareKeepsWhatWasRequested) {
    fixed(0, 0x41);
    EXPECT_TRUE(lapic().interrupt_pending());
    lapic().write_register(kSvr, 0xff);
    EXPECT_EQ(lapic().acknowledge(), 0x41);
}

TEST_F(LapicTest, GloballyDisabledIsAbsentAndPassesThePinsThrough) {
    EXPECT_EQ(lapic().write_msr(kBaseMsr, 0xfee0'0000 | kBsp), MsrResult::Ok);
    EXPECT_FALSE(lapic().globally_enabled());
    EXPECT_FALSE(lapic().owns_page(0xfee0'0000));
    fixed(0, 0x41);
    ApicMessage m;
    m.delivery_mode = DeliveryMode::Nmi;
    fabric.deliver(m);
    EXPECT_FALSE(lapic().interrupt_pending());
    EXPECT_FALSE(lapic().take_events().nmi);
    lapic().set_lint(0, true);
    EXPECT_TRUE(lapic().interrupt_pending());
    pic.answer = 0x08;
    pic.lower = &lapic();
    EXPECT_EQ(lapic().acknowledge(), 0x08);
    EXPECT_FALSE(lapic().interrupt_pending());
    lapic().set_lint(1, true);
    EXPECT_TRUE(lapic().take_events().nmi);
    // Enabled again it is as after power-up.
    EXPECT_EQ(lapic().write_msr(kBaseMsr, kEnabledBase | kBsp), MsrResult::Ok);
    EXPECT_EQ(lapic().read_register(kSvr), 0xffu);
}

TEST_F(LapicTest, PageMovesWithTheBase) {
    EXPECT_TRUE(lapic().owns_page(0xfee0'0000));
    EXPECT_EQ(lapic().write_msr(kBaseMsr, 0x1'2345'6800 | kBsp), MsrResult::Ok);
    EXPECT_FALSE(lapic().owns_page(0xfee0'0000));
    EXPECT_TRUE(lapic().owns_page(0x1'2345'6000));
    EXPECT_EQ(lapic().write_msr(kBaseMsr, kEnabledBase | kBsp | 1), MsrResult::GeneralProtection);
    EXPECT_EQ(lapic().write_msr(kBaseMsr, kEnabledBase | 1 << 9), MsrResult::GeneralProtection);
    EXPECT_EQ(lapic().write_msr(kBaseMsr, kEnabledBase | u64{1} << 46), MsrResult::GeneralProtection);
}

TEST_F(LapicTest, ModeTransitionsAreThoseOfTheManual) {
    const u64 disabled = 0xfee0'0000;
    const u64 invalid = 0xfee0'0400;
    auto& l = lapic();
    EXPECT_EQ(l.write_msr(kBaseMsr, invalid), MsrResult::GeneralProtection);
    EXPECT_EQ(l.write_msr(kBaseMsr, disabled), MsrResult::Ok);
    EXPECT_EQ(l.write_msr(kBaseMsr, kX2apicBase), MsrResult::GeneralProtection);
    EXPECT_EQ(l.write_msr(kBaseMsr, invalid), MsrResult::GeneralProtection);
    EXPECT_EQ(l.write_msr(kBaseMsr, kEnabledBase), MsrResult::Ok);
    EXPECT_EQ(l.write_msr(kBaseMsr, kX2apicBase), MsrResult::Ok);
    EXPECT_EQ(l.write_msr(kBaseMsr, kEnabledBase), MsrResult::GeneralProtection);
    EXPECT_EQ(l.write_msr(kBaseMsr, invalid), MsrResult::GeneralProtection);
    EXPECT_EQ(l.write_msr(kBaseMsr, kX2apicBase), MsrResult::Ok);
    EXPECT_FALSE(l.owns_page(0xfee0'0000));
    EXPECT_EQ(l.write_msr(kBaseMsr, disabled), MsrResult::Ok);
}

TEST_F(LapicTest, X2apicBitIsReservedOnAModelWithoutIt) {
    Lapic old({.apic_id = 9, .x2apic = false}, clock, tsc, clock, fabric);
    EXPECT_EQ(old.write_msr(kBaseMsr, kX2apicBase), MsrResult::GeneralProtection);
}

// --- x2APIC MSRs.

TEST_F(LapicTest, X2apicMsrsFaultOutsideTheMode) {
    u64 value = 0;
    EXPECT_EQ(lapic().read_msr(0x802, value), MsrResult::GeneralProtection);
    EXPECT_EQ(lapic().write_msr(0x80b, 0), MsrResult::GeneralProtection);
    EXPECT_EQ(lapic().read_msr(0x900, value), MsrResult::NotMine);
    EXPECT_EQ(lapic().read_msr(0x7ff, value), MsrResult::NotMine);
}

TEST_F(LapicTest, X2apicAccessRightsAreThoseOfTheTable) {
    x2apic(1);
    // SDM 3A table 11-6: r read only, w write only, b both, - reserved.
    const std::string rights =
        "--rr----b-rw-r-b"
        "rrrrrrrrrrrrrrrr"
        "rrrrrrrrb------b"
        "b-bbbbbbbr----bw";
    for (u32 i = 0; i < 0x100; ++i) {
        const char right = i < rights.size() ? rights[i] : '-';
        u64 value = 0;
        const bool readable = cpus[1]->read_msr(0x800 + i, value) == MsrResult::Ok;
        EXPECT_EQ(readable, right == 'r' || right == 'b') << std::hex << i;
        if (i == 0x30) continue;  // ICR: zero is an illegal vector, tested below
        const bool writable = cpus[1]->write_msr(0x800 + i, 0) == MsrResult::Ok;
        EXPECT_EQ(writable, right == 'w' || right == 'b') << std::hex << i;
    }
}

TEST_F(LapicTest, X2apicReservedBitsFault) {
    x2apic(0);
    auto& l = lapic();
    EXPECT_EQ(l.write_msr(0x808, 0x100), MsrResult::GeneralProtection);
    EXPECT_EQ(l.write_msr(0x80b, 1), MsrResult::GeneralProtection);
    EXPECT_EQ(l.write_msr(0x80f, 0x400), MsrResult::GeneralProtection);
    EXPECT_EQ(l.write_msr(0x828, 1), MsrResult::GeneralProtection);
    EXPECT_EQ(l.write_msr(0x832, 0x2000), MsrResult::GeneralProtection);
    EXPECT_EQ(l.write_msr(0x835, 0x20000), MsrResult::GeneralProtection);
    EXPECT_EQ(l.write_msr(0x837, 0x700), MsrResult::GeneralProtection);
    EXPECT_EQ(l.write_msr(0x838, u64{1} << 32), MsrResult::GeneralProtection);
    EXPECT_EQ(l.write_msr(0x83e, 4), MsrResult::GeneralProtection);
    EXPECT_EQ(l.write_msr(0x83f, 0x100), MsrResult::GeneralProtection);
    EXPECT_EQ(l.write_msr(0x830, 0x12040), MsrResult::GeneralProtection);
    EXPECT_EQ(l.write_msr(0x830, 0x100040), MsrResult::GeneralProtection);
    // Bits that only the chip sets may be written back.
    EXPECT_EQ(l.write_msr(0x835, 0x15000 | 0x700), MsrResult::Ok);
    EXPECT_EQ(msr(0, 0x835), 0x10700u);
}

TEST_F(LapicTest, X2apicLogicalIdIsDerived) {
    Lapic big({.apic_id = 0x1234'5679 & 0xfffff}, clock, tsc, clock, fabric);
    EXPECT_EQ(big.write_msr(kBaseMsr, kX2apicBase), MsrResult::Ok);
    u64 value = 0;
    EXPECT_EQ(big.read_msr(0x80d, value), MsrResult::Ok);
    const u32 id = 0x4'5679;
    EXPECT_EQ(value, u64{(id >> 4) << 16} | u64{1} << (id & 15));
    EXPECT_EQ(big.read_msr(0x802, value), MsrResult::Ok);
    EXPECT_EQ(value, id);
}

TEST_F(LapicTest, SelfIpiRegisterRequestsTheVector) {
    x2apic(0);
    EXPECT_EQ(lapic().write_msr(0x83f, 0x99), MsrResult::Ok);
    EXPECT_EQ(lapic().acknowledge(), 0x99);
    EXPECT_EQ(lapic().write_msr(0x80b, 0), MsrResult::Ok);
    EXPECT_EQ(msr(0, 0x814), 0u);
}

TEST_F(LapicTest, X2apicIcrSendsTo32BitIdAndReadsBack) {
    x2apic(0);
    EXPECT_EQ(lapic().write_msr(0x830, u64{2} << 32 | 0x4051), MsrResult::Ok);
    EXPECT_EQ(msr(0, 0x830), u64{2} << 32 | 0x4051);
    EXPECT_EQ(pending_on(), std::vector<u32>{2});
    EXPECT_EQ(lapic().write_msr(0x830, u64{0xff} << 32 | 0x4051), MsrResult::Ok);  // CPU 255, not everyone
    EXPECT_EQ(pending_on(), std::vector<u32>{2});
    EXPECT_EQ(lapic().write_msr(0x830, u64{0xffff'ffff} << 32 | 0x4051), MsrResult::Ok);
    EXPECT_EQ(pending_on(), (std::vector<u32>{0, 1, 2, 3}));
}

TEST_F(LapicTest, X2apicLogicalClusterAddressesItsBits) {
    for (unsigned i = 0; i < 4; ++i) x2apic(i);
    EXPECT_EQ(lapic().write_msr(0x830, u64{0b1010} << 32 | 0x4861), MsrResult::Ok);
    EXPECT_EQ(pending_on(), (std::vector<u32>{1, 3}));
    EXPECT_EQ(lapic().write_msr(0x830, u64{0x1'0001} << 32 | 0x4861), MsrResult::Ok);  // another cluster
    EXPECT_EQ(pending_on(), (std::vector<u32>{1, 3}));
}

// --- Inter-processor interrupts in xAPIC mode.

TEST_F(LapicTest, XapicPhysicalIpiAndBroadcast) {
    lapic().write_register(kIcrHigh, 3u << 24);
    lapic().write_register(kIcrLow, 0x4077);
    EXPECT_EQ(lapic().read_register(kIcrHigh), 3u << 24);
    EXPECT_EQ(lapic().read_register(kIcrLow), 0x4077u);
    EXPECT_EQ(pending_on(), std::vector<u32>{3});
    lapic().write_register(kIcrHigh, 0xffu << 24);
    lapic().write_register(kIcrLow, 0x4078);
    EXPECT_EQ(pending_on(), (std::vector<u32>{0, 1, 2, 3}));
}

TEST_F(LapicTest, Shorthands) {
    lapic().write_register(kIcrLow, 0x44050);  // self
    EXPECT_EQ(pending_on(), std::vector<u32>{0});
    lapic().write_register(kIcrLow, 0xc4050);  // all but self
    EXPECT_EQ(pending_on(), (std::vector<u32>{0, 1, 2, 3}));
    cpus[2]->write_register(kIcrLow, 0x840a0);  // all
    for (auto& cpu : cpus) EXPECT_EQ(cpu->acknowledge(), 0xa0);
    // NMI to self or to all by shorthand is not among the valid combinations.
    lapic().write_register(kIcrLow, 0x44400);
    lapic().write_register(kIcrLow, 0x84400);
    for (auto& cpu : cpus) EXPECT_FALSE(cpu->take_events().nmi);
    lapic().write_register(kIcrLow, 0xc4400);
    EXPECT_FALSE(lapic().take_events().nmi);
    for (unsigned i = 1; i < 4; ++i) EXPECT_TRUE(cpus[i]->take_events().nmi);
}

TEST_F(LapicTest, InitAssertReachesDeassertIsIgnored) {
    lapic().write_register(kIcrHigh, 1u << 24);
    lapic().write_register(kIcrLow, 0x8500);  // level, de-assert
    EXPECT_FALSE(cpus[1]->take_events().init);
    lapic().write_register(kIcrLow, 0xc500);
    EXPECT_TRUE(cpus[1]->take_events().init);
    EXPECT_FALSE(cpus[1]->take_events().init);
    lapic().write_register(kIcrLow, 0x4608);
    EXPECT_EQ(cpus[1]->take_events().sipi, 0x08);
}

TEST_F(LapicTest, FirstOfSeveralStartUpsCountsAndInitVoidsThem) {
    ApicMessage m;
    m.delivery_mode = DeliveryMode::StartUp;
    m.vector = 0x10;
    fabric.deliver(m);
    m.vector = 0x20;
    fabric.deliver(m);
    EXPECT_EQ(lapic().take_events().sipi, 0x10);
    fabric.deliver(m);
    m.delivery_mode = DeliveryMode::Init;
    fabric.deliver(m);
    const auto events = lapic().take_events();
    EXPECT_TRUE(events.init);
    EXPECT_EQ(events.sipi, std::nullopt);
}

TEST_F(LapicTest, SmiIsAnEvent) {
    lapic().write_register(kIcrHigh, 1u << 24);
    lapic().write_register(kIcrLow, 0x4200);
    EXPECT_TRUE(cpus[1]->take_events().smi);
}

TEST_F(LapicTest, FlatLogicalDestination) {
    for (unsigned i = 0; i < 4; ++i) cpus[i]->write_register(kLdr, u32{1} << (24 + i));
    lapic().write_register(kIcrHigh, 0b0110u << 24);
    lapic().write_register(kIcrLow, 0x4840);
    EXPECT_EQ(pending_on(), (std::vector<u32>{1, 2}));
}

TEST_F(LapicTest, ClusterLogicalDestination) {
    for (unsigned i = 0; i < 4; ++i) {
        cpus[i]->write_register(kDfr, 0x0fff'ffff);
        cpus[i]->write_register(kLdr, (i / 2 << 28) | u32{1} << (24 + i % 2));
    }
    EXPECT_EQ(lapic().read_register(kDfr), 0x0fff'ffffu);
    lapic().write_register(kIcrHigh, 0x13u << 24);
    lapic().write_register(kIcrLow, 0x4840);
    EXPECT_EQ(pending_on(), (std::vector<u32>{2, 3}));
    lapic().write_register(kIcrHigh, 0x01u << 24);
    lapic().write_register(kIcrLow, 0x4840);
    EXPECT_EQ(pending_on(), (std::vector<u32>{0, 2, 3}));
    lapic().write_register(kIcrHigh, 0xffu << 24);
    lapic().write_register(kIcrLow, 0x4840);
    EXPECT_EQ(pending_on(), (std::vector<u32>{0, 1, 2, 3}));
}

TEST_F(LapicTest, LowestPriorityReachesExactlyOneAndTakesTurns) {
    for (unsigned i = 0; i < 4; ++i) cpus[i]->write_register(kLdr, u32{1} << (24 + i));
    cpus[3]->write_register(kSvr, 0xff);  // takes no part
    std::array<int, 4> got{};
    for (int n = 0; n < 30; ++n) {
        ApicMessage m;
        m.destination = 0x0f;
        m.destination_mode = DestinationMode::Logical;
        m.delivery_mode = DeliveryMode::LowestPriority;
        m.vector = 0x50;
        fabric.deliver(m);
        const auto ids = pending_on();
        ASSERT_EQ(ids.size(), 1u);
        ++got[ids[0]];
        (void)cpus[ids[0]]->acknowledge();
        cpus[ids[0]]->write_register(kEoi, 0);
    }
    EXPECT_EQ(got, (std::array<int, 4>{10, 10, 10, 0}));
}

// --- Errors.

TEST_F(LapicTest, IllegalVectorsAreLoggedAndShownAfterAWrite) {
    lapic().write_register(kLvtError, 0xfe);
    lapic().write_register(kIcrHigh, 1u << 24);
    lapic().write_register(kIcrLow, 0x400f);
    EXPECT_FALSE(cpus[1]->interrupt_pending());
    EXPECT_EQ(lapic().read_register(kEsr), 0u);
    lapic().write_register(kEsr, 0);
    EXPECT_EQ(lapic().read_register(kEsr), 0x20u);
    EXPECT_EQ(lapic().acknowledge(), 0xfe);
    lapic().write_register(kEoi, 0);
    fixed(0, 15);
    EXPECT_EQ(lapic().acknowledge(), 0xfe);
    lapic().write_register(kEsr, 0);
    EXPECT_EQ(lapic().read_register(kEsr), 0x40u);
    lapic().write_register(kEsr, 0);
    EXPECT_EQ(lapic().read_register(kEsr), 0u);
}

TEST_F(LapicTest, ReservedRegisterIsLogged) {
    EXPECT_EQ(lapic().read_register(0x3f0), 0u);
    lapic().write_register(kEsr, 0);
    EXPECT_EQ(lapic().read_register(kEsr), 0x80u);
    lapic().write_register(0x40, 1);
    lapic().write_register(kEsr, 0);
    EXPECT_EQ(lapic().read_register(kEsr), 0x80u);
}

TEST_F(LapicTest, IllegalVectorInTheErrorEntryEndsQuietly) {
    lapic().write_register(kLvtError, 0x05);
    fixed(0, 3);
    EXPECT_FALSE(lapic().interrupt_pending());
    lapic().write_register(kEsr, 0);
    EXPECT_EQ(lapic().read_register(kEsr), 0x40u);
}

// --- Pins.

TEST_F(LapicTest, ExtIntFollowsTheLevelOfLint0) {
    lapic().write_register(kTpr, 0xff);  // does not hold ExtINT back
    lapic().write_register(kLvtLint0, 0x700);
    lapic().set_lint(0, true);
    EXPECT_TRUE(lapic().interrupt_pending());
    lapic().set_lint(0, false);
    EXPECT_FALSE(lapic().interrupt_pending());
    lapic().set_lint(0, true);
    pic.answer = 0x31;
    pic.lower = &lapic();
    EXPECT_EQ(lapic().acknowledge(), 0x31);
    EXPECT_FALSE(lapic().interrupt_pending());
    EXPECT_FALSE(vector_in(kIsr, 0x31));  // no EOI to the local APIC
    lapic().write_register(kLvtLint0, kMasked | 0x700);
    lapic().set_lint(0, true);
    EXPECT_FALSE(lapic().interrupt_pending());
}

TEST_F(LapicTest, ExtIntThatWentAwayFallsBackToTheOwnVectors) {
    lapic().write_register(kLvtLint0, 0x700);
    lapic().set_lint(0, true);
    fixed(0, 0x44);
    pic.answer = std::nullopt;
    pic.lower = &lapic();
    EXPECT_EQ(lapic().acknowledge(), 0x44);
}

TEST_F(LapicTest, ExtIntMessageIsAcknowledgedOnce) {
    ApicMessage m;
    m.delivery_mode = DeliveryMode::ExtInt;
    fabric.deliver(m);
    EXPECT_TRUE(lapic().interrupt_pending());
    pic.answer = 0x20;
    EXPECT_EQ(lapic().acknowledge(), 0x20);
    EXPECT_FALSE(lapic().interrupt_pending());
}

TEST_F(LapicTest, Lint1IsNmiAtTheRisingEdge) {
    lapic().write_register(kLvtLint1, 0x400);
    lapic().set_lint(1, true);
    EXPECT_TRUE(lapic().take_events().nmi);
    EXPECT_FALSE(lapic().take_events().nmi);
    lapic().set_lint(1, false);
    EXPECT_FALSE(lapic().take_events().nmi);
    lapic().write_register(kLvtLint1, 0x2400);  // active low
    lapic().set_lint(1, true);
    EXPECT_FALSE(lapic().take_events().nmi);
    lapic().set_lint(1, false);
    EXPECT_TRUE(lapic().take_events().nmi);
}

TEST_F(LapicTest, Lint0LevelTriggeredKeepsRemoteIrrUntilEoi) {
    lapic().write_register(kLvtLint0, 0x8045);
    lapic().set_lint(0, true);
    EXPECT_EQ(lapic().acknowledge(), 0x45);
    EXPECT_EQ(lapic().read_register(kLvtLint0), 0xc045u);
    EXPECT_FALSE(lapic().interrupt_pending());
    lapic().write_register(kEoi, 0);
    EXPECT_EQ(lapic().acknowledge(), 0x45);  // still high
    lapic().set_lint(0, false);
    lapic().write_register(kEoi, 0);
    EXPECT_FALSE(lapic().interrupt_pending());
    EXPECT_EQ(lapic().read_register(kLvtLint0), 0x8045u);
}

TEST_F(LapicTest, VirtualWireModePasses8259AInterruptsAndNmi) {
    lapic().reset();
    lapic().enter_virtual_wire_mode();
    lapic().set_lint(0, true);
    EXPECT_TRUE(lapic().interrupt_pending());
    lapic().set_lint(1, true);
    EXPECT_TRUE(lapic().take_events().nmi);
}

TEST_F(LapicTest, PerformanceEntryMasksItself) {
    lapic().write_register(kLvtPerf, 0x400);
    lapic().raise_local(Lvt::Performance);
    EXPECT_TRUE(lapic().take_events().nmi);
    EXPECT_EQ(lapic().read_register(kLvtPerf), kMasked | 0x400);
    lapic().raise_local(Lvt::Performance);
    EXPECT_FALSE(lapic().take_events().nmi);
}

// --- Timer.

TEST_F(LapicTest, OneShotCountsDownAtBusClockOverDivisorAndFiresOnce) {
    lapic().write_register(kDivide, 0x3);  // by 16
    lapic().write_register(kLvtTimer, 0x60);
    lapic().write_register(kInitialCount, 1000);
    clock.advance(1600);
    EXPECT_EQ(lapic().read_register(kCurrentCount), 900u);
    EXPECT_FALSE(lapic().interrupt_pending());
    clock.advance(14400);
    EXPECT_TRUE(lapic().interrupt_pending());
    EXPECT_EQ(lapic().read_register(kCurrentCount), 0u);
    EXPECT_EQ(lapic().acknowledge(), 0x60);
    lapic().write_register(kEoi, 0);
    clock.advance(100'000);
    EXPECT_FALSE(lapic().interrupt_pending());
}

TEST_F(LapicTest, EveryDivisor) {
    // SDM 3A figure 11-10.
    const std::array<std::pair<u32, u32>, 8> table{
        {{0x0, 2}, {0x1, 4}, {0x2, 8}, {0x3, 16}, {0x8, 32}, {0x9, 64}, {0xa, 128}, {0xb, 1}}};
    lapic().write_register(kLvtTimer, 0x60);
    for (const auto& [value, divisor] : table) {
        lapic().write_register(kDivide, value);
        EXPECT_EQ(lapic().read_register(kDivide), value);
        lapic().write_register(kInitialCount, 1'000'000);
        clock.advance(u64{1000} * divisor);
        EXPECT_EQ(lapic().read_register(kCurrentCount), 999'000u) << divisor;
    }
}

TEST_F(LapicTest, PeriodicReloadsWithoutDrift) {
    lapic().write_register(kDivide, 0xb);
    lapic().write_register(kLvtTimer, 0x20060);
    lapic().write_register(kInitialCount, 100'000);
    int count = 0;
    for (int i = 0; i < 1000; ++i) {
        clock.advance(10'000);
        if (!lapic().interrupt_pending()) continue;
        EXPECT_EQ(lapic().acknowledge(), 0x60);
        lapic().write_register(kEoi, 0);
        ++count;
    }
    EXPECT_EQ(count, 100);
    clock.advance(30'000);
    EXPECT_EQ(lapic().read_register(kCurrentCount), 70'000u);
}

TEST_F(LapicTest, MissedPeriodsAreOneInterrupt) {
    lapic().write_register(kDivide, 0xb);
    lapic().write_register(kLvtTimer, 0x20060);
    lapic().write_register(kInitialCount, 100'000);
    clock.advance(1'050'000);  // the CPU did not look
    EXPECT_EQ(lapic().acknowledge(), 0x60);
    lapic().write_register(kEoi, 0);
    EXPECT_FALSE(lapic().interrupt_pending());
    EXPECT_EQ(lapic().read_register(kCurrentCount), 50'000u);
    clock.advance(50'000);
    EXPECT_TRUE(lapic().interrupt_pending());
}

TEST_F(LapicTest, TinyPeriodsDoNotStorm) {
    lapic().write_register(kDivide, 0xb);
    lapic().write_register(kLvtTimer, 0x20060);
    lapic().write_register(kInitialCount, 1);
    int fired = 0;
    for (int i = 0; i < 1000; ++i) {
        clock.advance(1000);
        if (lapic().interrupt_pending()) ++fired;
        (void)lapic().acknowledge();
        lapic().write_register(kEoi, 0);
    }
    EXPECT_LE(fired, 52);
    EXPECT_GE(fired, 45);
}

// Between a period's end and the interrupt that the shortest period holds back.
TEST(LapicTimerSnapshot, HoldsAnInterruptThatIsHeldBack) {
    LapicRig rig;
    rig.device.write_register(kSvr, 0x1ff);
    rig.device.write_register(kDivide, 0xb);
    rig.device.write_register(kLvtTimer, 0x20060);
    rig.device.write_register(kInitialCount, 1000);
    rig.clock.advance(1000);
    EXPECT_EQ(rig.device.acknowledge(), 0x60);
    rig.device.write_register(kEoi, 0);
    rig.clock.advance(1500);
    const testing_rig::Saved held = testing_rig::saved(rig);
    ASSERT_TRUE(testing_rig::load(rig, held));
    EXPECT_EQ(testing_rig::saved(rig), held);
    EXPECT_EQ(rig.device.acknowledge(), 0x60);
    rig.device.write_register(kEoi, 0);
    EXPECT_FALSE(rig.device.interrupt_pending());
}

TEST_F(LapicTest, TimerOfAHostileStateRunsAllTheSame) {
    lapic().write_register(kDivide, 0xb);
    lapic().write_register(kLvtTimer, 0x20060);
    lapic().write_register(kInitialCount, 50'000);
    Lapic::Saved hostile = lapic().saved();
    hostile.timer.earliest_ns = ~u64{0};
    ASSERT_TRUE(lapic().restore(hostile));
    clock.advance(50'000);
    EXPECT_EQ(lapic().acknowledge(), 0x60);
}

TEST_F(LapicTest, MaskedTimerCountsSilently) {
    lapic().write_register(kDivide, 0xb);
    lapic().write_register(kLvtTimer, kMasked | 0x60);
    lapic().write_register(kInitialCount, 1000);
    clock.advance(500);
    EXPECT_EQ(lapic().read_register(kCurrentCount), 500u);
    clock.advance(1000);
    EXPECT_FALSE(lapic().interrupt_pending());
}

TEST_F(LapicTest, InitialCountZeroStops) {
    lapic().write_register(kDivide, 0xb);
    lapic().write_register(kLvtTimer, 0x60);
    lapic().write_register(kInitialCount, 1000);
    lapic().write_register(kInitialCount, 0);
    clock.advance(5000);
    EXPECT_FALSE(lapic().interrupt_pending());
    EXPECT_EQ(clock.armed_count(), 0u);
}

TEST_F(LapicTest, DivisorChangeKeepsTheCount) {
    lapic().write_register(kDivide, 0xb);
    lapic().write_register(kLvtTimer, 0x60);
    lapic().write_register(kInitialCount, 1000);
    clock.advance(400);
    lapic().write_register(kDivide, 0x0);
    EXPECT_EQ(lapic().read_register(kCurrentCount), 600u);
    clock.advance(1199);
    EXPECT_FALSE(lapic().interrupt_pending());
    clock.advance(1);
    EXPECT_TRUE(lapic().interrupt_pending());
}

TEST_F(LapicTest, TscDeadlineFiresAndDisarmsItself) {
    lapic().write_register(kLvtTimer, 0x40061);
    EXPECT_EQ(lapic().write_msr(kDeadlineMsr, 5000), MsrResult::Ok);
    EXPECT_EQ(msr(0, kDeadlineMsr), 5000u);
    clock.advance(4999);
    EXPECT_FALSE(lapic().interrupt_pending());
    clock.advance(1);
    EXPECT_TRUE(lapic().interrupt_pending());
    EXPECT_EQ(msr(0, kDeadlineMsr), 0u);
    EXPECT_EQ(lapic().acknowledge(), 0x61);
}

TEST_F(LapicTest, TscDeadlineInThePastFiresAtOnceWithoutTheQueue) {
    clock.advance(10'000);
    lapic().write_register(kLvtTimer, 0x40061);
    EXPECT_EQ(lapic().write_msr(kDeadlineMsr, 1), MsrResult::Ok);
    EXPECT_EQ(clock.armed_count(), 0u);
    EXPECT_EQ(lapic().acknowledge(), 0x61);
}

// The state was kept elsewhere until after the deadline.
TEST_F(LapicTest, TscDeadlineThatHasPassedWhenAStateIsRestoredFiresAtOnceAndWakes) {
    lapic().write_register(kLvtTimer, 0x40033);
    EXPECT_EQ(lapic().write_msr(kDeadlineMsr, 5000), MsrResult::Ok);
    const Lapic::Saved armed = lapic().saved();
    lapic().reset();
    clock.advance(6000);
    const int wakes = wakers[0].count;
    ASSERT_TRUE(lapic().restore(armed));
    EXPECT_TRUE(lapic().interrupt_pending());
    EXPECT_GT(wakers[0].count, wakes);
    EXPECT_EQ(lapic().acknowledge(), 0x33);
    EXPECT_EQ(msr(0, kDeadlineMsr), 0u);
}

TEST_F(LapicTest, TscDeadlineFollowsTheOffsetOfTheCpu) {
    lapic().write_register(kLvtTimer, 0x40061);
    lapic().set_tsc_offset(-1'000'000);
    EXPECT_EQ(lapic().write_msr(kDeadlineMsr, 500), MsrResult::Ok);
    // The guest's TSC is "negative", far above the deadline.
    EXPECT_TRUE(lapic().interrupt_pending());
    (void)lapic().acknowledge();
    lapic().write_register(kEoi, 0);
    lapic().set_tsc_offset(1'000'000);
    EXPECT_EQ(lapic().write_msr(kDeadlineMsr, 1'000'500), MsrResult::Ok);
    EXPECT_FALSE(lapic().interrupt_pending());
    lapic().set_tsc_offset(1'000'400);
    clock.advance(99);
    EXPECT_FALSE(lapic().interrupt_pending());
    clock.advance(1);
    EXPECT_TRUE(lapic().interrupt_pending());
}

TEST_F(LapicTest, DeadlineAndCounterExcludeEachOther) {
    lapic().write_register(kLvtTimer, 0x60);
    EXPECT_EQ(lapic().write_msr(kDeadlineMsr, 100), MsrResult::Ok);  // ignored
    EXPECT_EQ(msr(0, kDeadlineMsr), 0u);
    lapic().write_register(kInitialCount, 1000);
    lapic().write_register(kLvtTimer, 0x40060);  // disarms
    clock.advance(100'000);
    EXPECT_FALSE(lapic().interrupt_pending());
    lapic().write_register(kInitialCount, 1000);  // ignored
    EXPECT_EQ(lapic().read_register(kInitialCount), 0u);
    EXPECT_EQ(lapic().write_msr(kDeadlineMsr, 200'000), MsrResult::Ok);
    lapic().write_register(kLvtTimer, 0x60);  // disarms
    EXPECT_EQ(msr(0, kDeadlineMsr), 0u);
    clock.advance(200'000);
    EXPECT_FALSE(lapic().interrupt_pending());
}

TEST_F(LapicTest, RewrittenDeadlineMakesTheOldWakeUpHarmless) {
    lapic().write_register(kLvtTimer, 0x40061);
    (void)lapic().write_msr(kDeadlineMsr, 1000);
    clock.advance(1000);  // posted, not looked at
    (void)lapic().write_msr(kDeadlineMsr, 5000);
    EXPECT_FALSE(lapic().interrupt_pending());
    clock.advance(4000);
    EXPECT_TRUE(lapic().interrupt_pending());
}

// --- MSI.

TEST(Msi, AddressAndDataDecode) {
    EXPECT_TRUE(is_msi_address(0xfee0'0000));
    EXPECT_TRUE(is_msi_address(0xfeef'fffc));
    EXPECT_FALSE(is_msi_address(0xfed0'0000));
    EXPECT_FALSE(is_msi_address(0x1'fee0'0000));
    const ApicMessage m = message_of_msi(0xfee0'5000, 0xc041);
    EXPECT_EQ(m.destination, 5u);
    EXPECT_EQ(m.destination_mode, DestinationMode::Physical);
    EXPECT_EQ(m.delivery_mode, DeliveryMode::Fixed);
    EXPECT_EQ(m.vector, 0x41);
    EXPECT_EQ(m.trigger, TriggerMode::Level);
    EXPECT_EQ(message_of_msi(0xfeef'f000, 0).destination, ApicMessage::kBroadcast);
    EXPECT_EQ(message_of_msi(0xfee0'300c, 0x41).delivery_mode, DeliveryMode::LowestPriority);
    EXPECT_EQ(message_of_msi(0xfee0'300c, 0x41).destination_mode, DestinationMode::Logical);
    EXPECT_EQ(message_of_msi(0xfee0'3000, 0x641).delivery_mode, DeliveryMode::Reserved);
    EXPECT_EQ(message_of_msi(0xfee0'3000, 0x441).delivery_mode, DeliveryMode::Nmi);
}

}  // namespace
}  // namespace tessera::lapic
