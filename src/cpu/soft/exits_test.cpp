// Exits by reason: what is counted as which, and the time it took.
#include <gtest/gtest.h>
#include <vector>

#include "bus/io_device.h"
#include "cpu/soft/testing/kernel_rig.h"

namespace tessera::soft {
namespace {

using namespace x86;

// Takes its time, which the guest's clock sees.
class SlowDevice final : public IoDevice {
public:
    explicit SlowDevice(FakeClock& clock) : clock_(clock) {}
    IoStatus read(u64 /*offset*/, std::span<std::byte> /*out*/) override {
        clock_.advance(300);
        return IoStatus::Ok;
    }
    IoStatus write(u64 /*offset*/, std::span<const std::byte> /*in*/) override {
        clock_.advance(700);
        return IoStatus::Ok;
    }

private:
    FakeClock& clock_;
};

class NoLock final : public Lock {
public:
    void lock() override {}
    void unlock() override {}
};

class SoftExits : public testing::TestWithParam<bool> {
protected:
    // Ten times: OUT to port 80h, two INs, CPUID. Then an invalid opcode, whose handler halts.
    void run(std::optional<bool> count) {
        KernelRig rig({.jit = GetParam(), .translate_after = 2, .count = count});
        SlowDevice device(rig.clock);
        NoLock lock;
        ASSERT_TRUE(rig.ports.add("slow", 0x80, 1, device, lock));
        const State s = rig.kernel64(0);
        rig.put(s.rip, {0xbe, 10, 0, 0, 0,       // mov esi, 10
                        0xe6, 0x80,              // out 0x80, al
                        0xe4, 0x80, 0xe4, 0x80,  // in al, 0x80; twice
                        0x0f, 0xa2,              // cpuid
                        0xff, 0xce, 0x75, 0xf4,  // dec esi; jnz to out
                        0x0f, 0x0b});            // ud2
        rig.cpu().set_state(s);
        ASSERT_EQ(rig.cpu().run().reason, ExitReason::Halted);
        rig.cpu().statistics(all_);
    }
    [[nodiscard]] Statistic figure(std::string_view name) const {
        for (const Statistic& s : all_)
            if (s.name == name && s.unit == Statistic::Unit::Exits) return s;
        ADD_FAILURE() << "no exits " << name;
        return {};
    }

private:
    std::vector<Statistic> all_;
};

TEST_P(SoftExits, EachIsCountedUnderItsReasonWithTheTimeItTook) {
    run(true);
    EXPECT_EQ(figure("port write").value, 10U);
    EXPECT_EQ(figure("port write").whole, 7000U);
    EXPECT_EQ(figure("port read").value, 20U);
    EXPECT_EQ(figure("port read").whole, 6000U);
    EXPECT_EQ(figure("CPUID").value, 10U);
    EXPECT_EQ(figure("CPUID").whole, 0U) << "the clock stood still";
    EXPECT_EQ(figure("exception").value, 1U);
    EXPECT_EQ(figure("HLT").value, 1U);
    EXPECT_EQ(figure("interrupt").value, 0U);
    EXPECT_GE(figure("decoding").value, 2U);
    EXPECT_EQ(figure("translation").value != 0, GetParam());
}

TEST_P(SoftExits, TimeIsTakenOnlyIfAskedFor) {
    run(std::nullopt);
    EXPECT_EQ(figure("port write").value, 10U);
    EXPECT_EQ(figure("port write").whole, 0U);
}

INSTANTIATE_TEST_SUITE_P(Ways, SoftExits, testing::Bool(),
                         [](const auto& way) { return way.param ? "Translated" : "Interpreted"; });

}  // namespace
}  // namespace tessera::soft
