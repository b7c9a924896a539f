#include "vm/vm.h"

#include <atomic>
#include <functional>
#include <future>
#include <gtest/gtest.h>
#include <thread>

namespace tessera {
namespace {

// A CPU whose program is a function: called again and again, each call one step of the guest.
class ScriptedCpu final : public Cpu, public CpuWaker {
public:
    using Step = std::function<std::optional<ExitReason>()>;

    Exit run() override {
        for (;;) {
            if (kicked_.exchange(false)) return {ExitReason::Kicked};
            const std::scoped_lock guard(mutex_);
            if (const auto reason = step_()) return {*reason};
        }
    }
    Exit step(u64 /*count*/) override { return {ExitReason::Debug}; }
    void kick() override { kicked_.store(true); }
    CpuWaker& waker() override { return *this; }
    void wake() override { wakes.fetch_add(1); }
    [[nodiscard]] x86::State state() const override { return {}; }
    void set_state(const x86::State& /*state*/) override {}
    [[nodiscard]] u64 instructions() const override { return counted; }
    void statistics(std::vector<Statistic>& out) const override {
        out.push_back({.name = "thoughts", .value = counted * 2});
    }
    [[nodiscard]] std::string failure() const override { return "the script said so"; }

    void program(Step step) {
        const std::scoped_lock guard(mutex_);
        step_ = std::move(step);
    }
    std::atomic<int> wakes = 0;
    u64 counted = 0;  // its thread's

private:
    std::atomic<bool> kicked_ = false;
    std::mutex mutex_;
    Step step_ = [] { return ExitReason::Halted; };
};

class ScriptedMachine final : public Machine {
public:
    explicit ScriptedMachine(unsigned count) : cpus_(count) {
        for (auto& cpu : cpus_) pointers_.push_back(&cpu);
    }
    std::span<Cpu* const> cpus() override { return pointers_; }
    Status power_on() override {
        ++power_ons;
        return on_power_on ? on_power_on() : Status{};
    }
    Status use_engine(EngineKind /*engine*/) override { return {}; }
    [[nodiscard]] EngineKind engine() const override { return EngineKind::Soft; }
    void press_power_button() override { ++buttons; }
    ScriptedCpu& cpu(unsigned index) { return cpus_[index]; }

    std::function<Status()> on_power_on;
    int power_ons = 0;
    int buttons = 0;

private:
    std::vector<ScriptedCpu> cpus_;
    std::vector<Cpu*> pointers_;
};

struct VmTest : testing::Test {
    void make(unsigned cpus, OnReset on_reset = OnReset::Restart) {
        vm = std::move(*Vm::create(cpus, on_reset));
        auto made = std::make_unique<ScriptedMachine>(cpus);
        machine = made.get();
        ASSERT_TRUE(vm->install(std::move(made)).has_value());
    }
    std::unique_ptr<Vm> vm;
    ScriptedMachine* machine = nullptr;
};

TEST_F(VmTest, PowersOnOnceAndEndsWhenTheGuestSwitchesOff) {
    make(1);
    machine->cpu(0).program([&]() -> std::optional<ExitReason> {
        vm->request_power_off();
        return std::nullopt;
    });
    vm->start();
    EXPECT_EQ(vm->wait().kind, Ending::Kind::PoweredOff);
    EXPECT_EQ(machine->power_ons, 1);
    EXPECT_TRUE(vm->ended());
}

TEST_F(VmTest, AGuestsResetPowersOnAgainAndGoesOn) {
    make(2);
    machine->cpu(0).program([&]() -> std::optional<ExitReason> {
        if (vm->resets() < 3)
            vm->request_reset(ResetSource::KeyboardController);
        else
            vm->request_power_off();
        return std::nullopt;
    });
    vm->start();
    EXPECT_EQ(vm->wait().kind, Ending::Kind::PoweredOff);
    EXPECT_EQ(machine->power_ons, 4);
}

TEST_F(VmTest, ACpuThatAskedForAResetGoesNoFurther) {
    make(1);
    std::atomic<int> steps = 0;
    machine->on_power_on = [&]() -> Status {
        EXPECT_EQ(steps.load(), 1);
        return {};
    };
    machine->cpu(0).program([&]() -> std::optional<ExitReason> {
        if (vm->resets() > 0) {
            vm->request_power_off();
        } else {
            steps.fetch_add(1);
            vm->request_reset(ResetSource::ResetRegister);
        }
        return std::nullopt;
    });
    vm->start();
    (void)vm->wait();
    EXPECT_EQ(steps.load(), 1);
}

TEST_F(VmTest, ResetsAndTripleFaultsEndTheVmWhenToldTo) {
    make(1, OnReset::End);
    machine->cpu(0).program([&]() -> std::optional<ExitReason> {
        vm->request_reset(ResetSource::Port92);
        return std::nullopt;
    });
    vm->start();
    const Ending ending = vm->wait();
    EXPECT_EQ(ending.kind, Ending::Kind::Reset);
    EXPECT_EQ(ending.reset_source, ResetSource::Port92);

    make(1, OnReset::End);
    machine->cpu(0).program([] { return ExitReason::Shutdown; });
    vm->start();
    EXPECT_EQ(vm->wait().kind, Ending::Kind::TripleFault);
}

TEST_F(VmTest, ATripleFaultResetsOtherwise) {
    make(1);
    machine->cpu(0).program([&]() -> std::optional<ExitReason> {
        if (vm->resets() == 0) return ExitReason::Shutdown;
        vm->request_power_off();
        return std::nullopt;
    });
    vm->start();
    EXPECT_EQ(vm->wait().kind, Ending::Kind::PoweredOff);
    EXPECT_EQ(vm->resets(), 1U);
}

TEST_F(VmTest, AnEngineThatFailsEndsTheVmWithItsReason) {
    make(2);
    machine->cpu(1).program([] { return ExitReason::Failed; });
    vm->start();
    const Ending ending = vm->wait();
    EXPECT_EQ(ending.kind, Ending::Kind::Failed);
    EXPECT_EQ(ending.message, "CPU 1 cannot go on: the script said so");
}

TEST_F(VmTest, AMachineThatCannotPowerOnAgainEndsTheVm) {
    make(1);
    machine->on_power_on = [] { return fail(Errc::HostFailure, "no memory left"); };
    vm->start();
    vm->reset();
    const Ending ending = vm->wait();
    EXPECT_EQ(ending.kind, Ending::Kind::Failed);
    EXPECT_EQ(ending.message, "no memory left");
}

TEST_F(VmTest, AHaltedCpuSleepsUntilWoken) {
    make(1);
    std::atomic<int> entered = 0;
    machine->cpu(0).program([&] {
        entered.fetch_add(1);
        return ExitReason::Halted;
    });
    vm->start();
    while (entered.load() == 0) std::this_thread::yield();
    for (int i = 0; i < 100; ++i) {
        const int before = entered.load();
        vm->waker(0).wake();
        while (entered.load() == before) std::this_thread::yield();
    }
    EXPECT_GE(machine->cpu(0).wakes.load(), 100) << "the CPU's own wire is driven too";
    vm->stop();
    EXPECT_EQ(vm->wait().kind, Ending::Kind::Stopped);
}

TEST_F(VmTest, NoWakeUpIsLostBetweenTwoCpus) {
    // Each CPU hands a ball to the other and halts; a lost wake-up would stop the game.
    make(2);
    constexpr int kRounds = 20'000;
    std::atomic<int> ball = 0;
    for (unsigned me = 0; me < 2; ++me)
        machine->cpu(me).program([&, me]() -> std::optional<ExitReason> {
            const int at = ball.load();
            if (at >= kRounds) {
                vm->request_power_off();
                return std::nullopt;
            }
            if (static_cast<unsigned>(at % 2) != me) return ExitReason::Halted;
            ball.store(at + 1);
            vm->waker(1 - me).wake();
            return std::nullopt;
        });
    vm->start();
    EXPECT_EQ(vm->wait().kind, Ending::Kind::PoweredOff);
}

TEST_F(VmTest, PausedMeansNoStepAndNoTime) {
    make(2);
    std::atomic<u64> steps = 0;
    for (unsigned i = 0; i < 2; ++i)
        machine->cpu(i).program([&]() -> std::optional<ExitReason> {
            steps.fetch_add(1);
            return std::nullopt;
        });
    vm->start();
    for (int round = 0; round < 20; ++round) {
        const u64 begin = steps.load();
        while (steps.load() == begin) std::this_thread::yield();
        vm->pause();
        const u64 paused = steps.load();
        const u64 time = vm->clock().now_ns();
        std::this_thread::yield();
        EXPECT_EQ(steps.load(), paused);
        EXPECT_EQ(vm->clock().now_ns(), time);
        vm->start();
    }
    vm->stop();
    EXPECT_EQ(vm->wait().kind, Ending::Kind::Stopped);
}

TEST_F(VmTest, AResetWhilePausedStaysPaused) {
    make(1);
    std::atomic<int> steps = 0;
    machine->cpu(0).program([&]() -> std::optional<ExitReason> {
        steps.fetch_add(1);
        return ExitReason::Halted;
    });
    vm->start();
    vm->pause();
    const int before = steps.load();
    vm->reset();
    EXPECT_EQ(steps.load(), before);
    EXPECT_EQ(machine->power_ons, 2);
    vm->start();
    vm->waker(0).wake();
    while (steps.load() == before) std::this_thread::yield();
    vm->stop();
    EXPECT_EQ(vm->wait().kind, Ending::Kind::Stopped);
}

TEST_F(VmTest, StatisticsStopTheCpusForAMomentAndTheyGoOn) {
    make(2);
    std::atomic<u64> steps = 0;
    for (unsigned i = 0; i < 2; ++i)
        machine->cpu(i).program([&, i]() -> std::optional<ExitReason> {
            ++machine->cpu(i).counted;
            steps.fetch_add(1);
            return std::nullopt;
        });
    EXPECT_EQ(vm->statistics().elapsed_ns, 0U) << "before the start";
    vm->start();
    u64 before = 0;
    for (int round = 0; round < 10; ++round) {
        const u64 begin = steps.load();
        while (steps.load() == begin) std::this_thread::yield();
        const VmStatistics s = vm->statistics();
        ASSERT_EQ(s.cpus.size(), 2U);
        EXPECT_GT(s.cpus[0].instructions + s.cpus[1].instructions, before);
        EXPECT_EQ(s.cpus[0].engine.at(0).value, s.cpus[0].instructions * 2);
        EXPECT_LE(s.cpus[0].work.running_ns, s.elapsed_ns);
        before = s.cpus[0].instructions + s.cpus[1].instructions;
    }
    vm->pause();
    const u64 paused = steps.load();
    EXPECT_EQ(vm->statistics().cpus[1].instructions, machine->cpu(1).counted);
    EXPECT_EQ(steps.load(), paused) << "a paused VM stays paused";
}

TEST_F(VmTest, StatisticsCountExitsAndAreThereAfterTheEnd) {
    make(1);
    int entered = 0;
    machine->cpu(0).program([&]() -> std::optional<ExitReason> {
        if (++entered == 4) vm->request_power_off();
        if (entered >= 4) return std::nullopt;
        vm->waker(0).wake();
        return ExitReason::Halted;
    });
    vm->start();
    EXPECT_EQ(vm->wait().kind, Ending::Kind::PoweredOff);
    const VmStatistics s = vm->statistics();
    ASSERT_EQ(s.cpus.size(), 1U);
    EXPECT_EQ(s.cpus[0].work.exits[static_cast<std::size_t>(ExitReason::Halted)], 3U);
    EXPECT_EQ(s.cpus[0].work.exits[static_cast<std::size_t>(ExitReason::Kicked)], 1U);
    EXPECT_GT(s.cpus[0].work.running_ns, 0U);
}

TEST_F(VmTest, ThePowerButtonReachesTheMachine) {
    make(1);
    vm->start();
    vm->press_power_button();
    EXPECT_EQ(machine->buttons, 1);
}

TEST_F(VmTest, CanGoAwayAtAnyTime) {
    for (int i = 0; i < 20; ++i) {
        make(2);
        machine->cpu(1).program([]() -> std::optional<ExitReason> { return std::nullopt; });
        if (i % 2 == 0) vm->start();
        if (i % 3 == 0) vm->stop();
        vm.reset();
    }
}

TEST_F(VmTest, ThreadsMayStartPauseAndResetAtOnce) {
    make(2);
    for (unsigned i = 0; i < 2; ++i)
        machine->cpu(i).program([]() -> std::optional<ExitReason> { return std::nullopt; });
    {
        std::vector<std::jthread> users;
        users.emplace_back([&] {
            for (int i = 0; i < 50; ++i) vm->start();
        });
        users.emplace_back([&] {
            for (int i = 0; i < 50; ++i) vm->pause();
        });
        users.emplace_back([&] {
            for (int i = 0; i < 50; ++i) vm->request_reset(ResetSource::Host);
        });
    }
    vm->stop();
    EXPECT_EQ(vm->wait().kind, Ending::Kind::Stopped);
}

}  // namespace
}  // namespace tessera
