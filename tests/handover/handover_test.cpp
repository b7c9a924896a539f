// A guest that counts, sleeps and takes interrupts of every kind (handover.asm) is interrupted itself, a
// hundred times, and says at the end what it missed: nothing.
#include <array>
#include <charconv>
#include <chrono>
#include <condition_variable>
#include <gtest/gtest.h>
#include <map>
#include <mutex>
#include <optional>
#include <sstream>
#include <stop_token>
#include <string>
#include <thread>

#include "cpu/kvm/host.h"
#include "machines/machine.h"

namespace tessera {
namespace {

using namespace std::chrono_literals;

// The guest's serial cable: counts the dots, keeps the rest, and can say 'q'.
class Cable final : public CharBackend {
public:
    bool put(u8 byte) override {
        const std::scoped_lock guard(mutex_);
        if (byte == '.')
            ++dots_;
        else
            text_ += static_cast<char>(byte);
        changed_.notify_all();
        return true;
    }
    void receive_ready() override {}
    void connect(CharPeer* peer) override { peer_ = peer; }

    // Waits for more dots than there are now. False: the guest does not write any.
    [[nodiscard]] bool wait_for_dots(u64 more) {
        std::unique_lock lock(mutex_);
        const u64 goal = dots_ + more;
        return changed_.wait_for(lock, kPatience, [&] {
            return dots_ >= goal || text_.contains("failed");
        }) && dots_ >= goal;
    }
    void quit(EventLoop& loop) {
        loop.run([this] {
            constexpr std::array<u8, 1> kQuit = {'q'};
            (void)peer_->receive(kQuit);
        });
    }
    [[nodiscard]] bool wait_for_report() {
        std::unique_lock lock(mutex_);
        return changed_.wait_for(lock, kPatience, [&] { return text_.contains("done\n"); });
    }
    [[nodiscard]] std::string text() {
        const std::scoped_lock guard(mutex_);
        return text_;
    }

private:
    static constexpr auto kPatience = 30s;

    std::mutex mutex_;
    std::condition_variable changed_;
    u64 dots_ = 0;
    std::string text_;
    CharPeer* peer_ = nullptr;
};

// Sleeps a millisecond at a time and counts how often the host was late by another two: then timers of guests
// are late as well, and two ticks become one.
class BusyHost {
public:
    [[nodiscard]] u64 seen() const { return seen_; }

private:
    void watch(const std::stop_token& stop) {
        for (auto last = std::chrono::steady_clock::now(); !stop.stop_requested();) {
            std::this_thread::sleep_for(1ms);
            const auto now = std::chrono::steady_clock::now();
            if (now - last > 3ms) ++seen_;
            last = now;
        }
    }

    std::atomic<u64> seen_ = 0;
    std::jthread thread_{[this](const std::stop_token& stop) { watch(stop); }};
};

std::string why_no_kvm() {
    const auto host = kvm::Host::open();
    return host ? "" : host.error().message;
}
#define NEEDS_KVM() \
    if (const std::string why = why_no_kvm(); !why.empty()) GTEST_SKIP() << "no KVM here: " << why

struct Way {
    MachineKind machine;
    kvm::Irqchip irqchip;
};

class Handover : public testing::TestWithParam<Way> {
protected:
    static constexpr unsigned kCpus = 2;
    static constexpr unsigned kTimes = 100;

    void start(EngineChoice engine) {
        auto vm = Vm::create(kCpus, OnReset::End);
        ASSERT_TRUE(vm) << vm.error().message;
        vm_ = *std::move(vm);
        const auto built = build_machine(*vm_, {.kind = GetParam().machine,
                                                .memory = 16 * kMiB,
                                                .cpus = kCpus,
                                                .engine = engine,
                                                .kvm = {.irqchip = GetParam().irqchip, .level = level_},
                                                .soft = {.cpus = kCpus},
                                                .kernel = HANDOVER_GUEST,
                                                .serial = &cable_});
        ASSERT_TRUE(built) << built.error().message;
        vm_->start();
        ASSERT_TRUE(cable_.wait_for_dots(3)) << cable_.text();
    }
    void pause_often() {
        for (unsigned time = 0; time < kTimes; ++time) {
            vm_->pause();
            vm_->start();
            ASSERT_TRUE(cable_.wait_for_dots(1)) << "after pause " << time << ": " << cable_.text();
        }
    }
    // Asks the guest what it found.
    void finish() {
        cable_.quit(vm_->loop());
        ASSERT_TRUE(cable_.wait_for_report()) << cable_.text();
        EXPECT_EQ(vm_->wait().kind, Ending::Kind::PoweredOff);
        std::istringstream lines(cable_.text());
        std::string name;
        for (u64 value = 0; lines >> name >> value;) found_[name] = value;
    }
    [[nodiscard]] u64 found(const std::string& name) const {
        const auto it = found_.find(name);
        if (it == found_.end()) ADD_FAILURE() << "no word about " << name;
        return it == found_.end() ? 0 : it->second;
    }
    void expect_nothing_lost() {
        SCOPED_TRACE(cable_.text());
        for (const std::string timer : {"lapic_", "pit_"}) {
            EXPECT_LE(found(timer + "lost"), busy_.seen()) << "more than the host was busy";
            // One may be on its way at the end, and more where the host is late.
            const u64 missing = found(timer + "lost") + found(timer + "excused");
            EXPECT_LE(found(timer + "due"), found(timer + "taken") + missing + 1 + busy_.seen());
            EXPECT_LE(found(timer + "taken"), found(timer + "due") + 1) << "ticks that were not due";
        }
        EXPECT_GT(found("self_ipis"), 0U);
        EXPECT_EQ(found("self_ipis"), found("self_ipis_sent"));
        EXPECT_GT(found("pings"), 0U) << "the second processor is there";
        EXPECT_EQ(found("pongs"), found("pings"));
        EXPECT_EQ(found("backwards"), 0U) << "of the time-stamp counter";
        EXPECT_EQ(found("disordered"), 0U) << "time of one processor against the other's";
        // Some hosts' KVM lets the TSC go on while a VM stands still; nowhere may it fall behind.
        constexpr double kPmTimerHz = 3'579'545;
        EXPECT_GT(static_cast<double>(found("tsc")) / static_cast<double>(vm_->tsc().hz()),
                  0.999 * static_cast<double>(found("clock")) / kPmTimerHz);
        EXPECT_EQ(found("marks_lost"), 0U) << "of registers, MSRs, local APIC";
    }

    std::optional<x86::FeatureLevel> level_ = x86::FeatureLevel::Max;  // none: the host's processor
    BusyHost busy_;
    Cable cable_;  // longer than the VM
    std::unique_ptr<Vm> vm_;

private:
    std::map<std::string, u64> found_;
};

// The software CPU alone.
class Alone : public Handover {};

TEST_P(Alone, AGuestLeftAloneLosesNothing) {
    ASSERT_NO_FATAL_FAILURE(start(EngineChoice::Soft));
    ASSERT_TRUE(cable_.wait_for_dots(50)) << cable_.text();
    ASSERT_NO_FATAL_FAILURE(finish());
    expect_nothing_lost();
}

TEST_P(Alone, AHundredPausesLoseNothing) {
    ASSERT_NO_FATAL_FAILURE(start(EngineChoice::Soft));
    pause_often();
    ASSERT_NO_FATAL_FAILURE(finish());
    expect_nothing_lost();
}

TEST_P(Handover, AGuestLeftAloneWithKvmLosesNothing) {
    NEEDS_KVM();
    ASSERT_NO_FATAL_FAILURE(start(EngineChoice::Kvm));
    ASSERT_TRUE(cable_.wait_for_dots(50)) << cable_.text();
    ASSERT_NO_FATAL_FAILURE(finish());
    expect_nothing_lost();
}

TEST_P(Handover, AHundredPausesWithKvmLoseNothing) {
    NEEDS_KVM();
    ASSERT_NO_FATAL_FAILURE(start(EngineChoice::Kvm));
    pause_often();
    ASSERT_NO_FATAL_FAILURE(finish());
    expect_nothing_lost();
}

TEST_P(Handover, AGuestWithTheHostsProcessorStaysAndGoesOn) {
    NEEDS_KVM();
    level_.reset();
    ASSERT_NO_FATAL_FAILURE(start(EngineChoice::Kvm));
    const auto status = vm_->switch_engine(EngineKind::Soft);
    ASSERT_FALSE(status);
    EXPECT_NE(status.error().message.find("--cpu x86-64-v2"), std::string::npos) << status.error().message;
    ASSERT_TRUE(cable_.wait_for_dots(3)) << cable_.text();
    ASSERT_NO_FATAL_FAILURE(finish());
    expect_nothing_lost();
}

TEST_P(Handover, AHundredChangesOfTheEngineLoseNothing) {
    NEEDS_KVM();
    ASSERT_NO_FATAL_FAILURE(start(EngineChoice::Soft));
    for (unsigned time = 0; time < kTimes; ++time) {
        const auto status = vm_->switch_engine(time % 2 == 0 ? EngineKind::Kvm : EngineKind::Soft);
        ASSERT_TRUE(status) << status.error().message;
        ASSERT_TRUE(cable_.wait_for_dots(1)) << "after change " << time << ": " << cable_.text();
    }
    ASSERT_NO_FATAL_FAILURE(finish());
    expect_nothing_lost();
}

std::string name_of(const Way& way) {
    const std::string machine = way.machine == MachineKind::Pc ? "Pc" : "Microvm";
    switch (way.irqchip) {
        case kvm::Irqchip::User: return machine + "OwnChips";
        case kvm::Irqchip::Split: return machine + "SplitChips";
        case kvm::Irqchip::Kernel: return machine + "KernelChips";
    }
    return machine;
}

INSTANTIATE_TEST_SUITE_P(Machines, Alone,
                         testing::Values(Way(MachineKind::Pc, kvm::Irqchip::User),
                                         Way(MachineKind::Microvm, kvm::Irqchip::User)),
                         [](const auto& way) { return name_of(way.param); });
INSTANTIATE_TEST_SUITE_P(Machines, Handover,
                         testing::Values(Way(MachineKind::Pc, kvm::Irqchip::User),
                                         Way(MachineKind::Pc, kvm::Irqchip::Split),
                                         Way(MachineKind::Pc, kvm::Irqchip::Kernel),
                                         Way(MachineKind::Microvm, kvm::Irqchip::User),
                                         Way(MachineKind::Microvm, kvm::Irqchip::Kernel)),
                         [](const auto& way) { return name_of(way.param); });

}  // namespace
}  // namespace tessera
