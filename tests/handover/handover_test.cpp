// A guest that counts, sleeps and takes interrupts of every kind (handover.asm) is interrupted itself, a
// hundred times, and says at the end what it missed: nothing.
#include <algorithm>
#include <array>
#include <charconv>
#include <chrono>
#include <condition_variable>
#include <functional>
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

constexpr unsigned kTimes = 100;

// A machine with the guest, from its start to its report.
class Guest {
public:
    // `level`: of its processor under KVM; none: the host's.
    void start(const Way& way, EngineChoice engine, std::optional<x86::FeatureLevel> level) {
        auto vm = Vm::create(kCpus, OnReset::End);
        ASSERT_TRUE(vm) << vm.error().message;
        vm_ = *std::move(vm);
        irqchip_ = way.irqchip;
        const auto built = build_machine(*vm_, {.kind = way.machine,
                                                .memory = 16 * kMiB,
                                                .cpus = kCpus,
                                                .engine = engine,
                                                .kvm = {.irqchip = way.irqchip, .level = level},
                                                .soft = {.cpus = kCpus},
                                                .kernel = HANDOVER_GUEST,
                                                .serial = &cable_});
        ASSERT_TRUE(built) << built.error().message;
        vm_->start();
        go_on_for(3);
    }
    void go_on_for(u64 dots) { ASSERT_TRUE(cable_.wait_for_dots(dots)) << cable_.text(); }
    [[nodiscard]] Vm& vm() { return *vm_; }
    // Asks the guest what it found.
    void finish() {
        cable_.quit(vm_->loop());
        ASSERT_TRUE(cable_.wait_for_report()) << cable_.text();
        EXPECT_EQ(vm_->wait().kind, Ending::Kind::PoweredOff);
        std::istringstream lines(cable_.text());
        std::string name;
        for (u64 value = 0; lines >> name >> value;) found_[name] = value;
    }
    // Ticks are missing on a host that was busy: whether it lost them nobody can say.
    [[nodiscard]] bool is_disturbed() const {
        return busy_.seen() > 0 && (!kept_ticks("lapic_") || !kept_ticks("pit_"));
    }
    void expect_nothing_lost() {
        SCOPED_TRACE(cable_.text());
        for (const std::string timer : {"lapic_", "pit_"}) {
            EXPECT_TRUE(kept_ticks(timer)) << timer << "; host busy " << busy_.seen() << " times";
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

private:
    static constexpr unsigned kCpus = 2;

    [[nodiscard]] u64 found(const std::string& name) const {
        const auto it = found_.find(name);
        if (it == found_.end()) ADD_FAILURE() << "no word about " << name;
        return it == found_.end() ? 0 : it->second;
    }
    [[nodiscard]] bool kept_ticks(const std::string& timer) const {
        u64 lost = found(timer + "lost");
        // The kernel's 8254 begins a period whenever it takes over: a tick may come nearly a period late.
        if (irqchip_ == kvm::Irqchip::Kernel && timer == "pit_") lost -= std::min(lost, found("pit_back"));
        // One may be on its way at the end, and more where the host is late.
        const u64 missing = lost + found(timer + "excused") + 1 + busy_.seen();
        return lost <= busy_.seen() && found(timer + "due") <= found(timer + "taken") + missing;
    }

    kvm::Irqchip irqchip_ = kvm::Irqchip::User;
    BusyHost busy_;
    Cable cable_;  // longer than the VM
    std::unique_ptr<Vm> vm_;
    std::map<std::string, u64> found_;
};

class Handover : public testing::TestWithParam<Way> {
protected:
    using Treatment = std::function<void(Guest&)>;

    // Once more if the host was too busy to tell.
    void expect_nothing_lost(EngineChoice engine, const Treatment& treatment) {
        constexpr int kMostTries = 4;
        for (int left = kMostTries; left > 0; --left) {
            Guest guest;
            ASSERT_NO_FATAL_FAILURE(guest.start(GetParam(), engine, level_));
            ASSERT_NO_FATAL_FAILURE(treatment(guest));
            ASSERT_NO_FATAL_FAILURE(guest.finish());
            if (left > 1 && guest.is_disturbed()) continue;
            guest.expect_nothing_lost();
            return;
        }
    }
    static void pause_often(Guest& guest) {
        for (unsigned time = 0; time < kTimes; ++time) {
            guest.vm().pause();
            guest.vm().start();
            ASSERT_NO_FATAL_FAILURE(guest.go_on_for(1)) << "after pause " << time;
        }
    }

    std::optional<x86::FeatureLevel> level_ = x86::FeatureLevel::Max;
};

// The software CPU alone.
class Alone : public Handover {};

TEST_P(Alone, AGuestLeftAloneLosesNothing) {
    expect_nothing_lost(EngineChoice::Soft, [](Guest& guest) { guest.go_on_for(50); });
}

TEST_P(Alone, AHundredPausesLoseNothing) {
    expect_nothing_lost(EngineChoice::Soft, pause_often);
}

TEST_P(Handover, AGuestLeftAloneWithKvmLosesNothing) {
    NEEDS_KVM();
    expect_nothing_lost(EngineChoice::Kvm, [](Guest& guest) { guest.go_on_for(50); });
}

TEST_P(Handover, AHundredPausesWithKvmLoseNothing) {
    NEEDS_KVM();
    expect_nothing_lost(EngineChoice::Kvm, pause_often);
}

TEST_P(Handover, AGuestWithTheHostsProcessorStaysAndGoesOn) {
    NEEDS_KVM();
    level_.reset();
    expect_nothing_lost(EngineChoice::Kvm, [](Guest& guest) {
        const auto status = guest.vm().switch_engine(EngineKind::Soft);
        ASSERT_FALSE(status);
        EXPECT_NE(status.error().message.find("--cpu x86-64-v2"), std::string::npos)
            << status.error().message;
        guest.go_on_for(3);
    });
}

TEST_P(Handover, AHundredChangesOfTheEngineLoseNothing) {
    NEEDS_KVM();
    expect_nothing_lost(EngineChoice::Soft, [](Guest& guest) {
        for (unsigned time = 0; time < kTimes; ++time) {
            const auto status = guest.vm().switch_engine(time % 2 == 0 ? EngineKind::Kvm : EngineKind::Soft);
            ASSERT_TRUE(status) << status.error().message;
            ASSERT_NO_FATAL_FAILURE(guest.go_on_for(1)) << "after change " << time;
        }
    });
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
