// A virtual machine's life: CPU threads, the event loop, time; start, pause, reset in place, stop. Knows no
// chips: the machine (src/machines) brings them.
#pragma once

#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "backends/event_loop/event_loop.h"
#include "base/result.h"
#include "cpu/cpu.h"
#include "devices/reset_control/machine_events.h"
#include "vm/host_time.h"
#include "vm/host_timers.h"
#include "vm/vcpu_thread.h"

namespace tessera {

// What a board does for its VM. All on the event loop's thread, with every CPU parked and no lock held.
class Machine {
public:
    Machine() = default;
    Machine(const Machine&) = delete;
    Machine& operator=(const Machine&) = delete;
    virtual ~Machine() = default;

    // The bootstrap processor first. The CPUs live as long as the machine.
    [[nodiscard]] virtual std::span<Cpu* const> cpus() = 0;
    // Everything as at power-on: chips, memory, CPUs, with the boot image loaded again. Also called once
    // before the first start.
    virtual Status power_on() = 0;
    // Goes on with another engine: every CPU's state and every chip's moves over. Fails with nothing changed.
    virtual Status use_engine(EngineKind engine) = 0;
    [[nodiscard]] virtual EngineKind engine() const = 0;
    // Somebody pressed the power button: a guest with ACPI shuts down.
    virtual void press_power_button() = 0;
    // Every CPU has left its guest, guest time is about to stand still. Also called when nothing ran.
    virtual Status on_halt() { return {}; }
    // Guest time runs, the CPUs are about to.
    virtual Status on_go_on() { return {}; }
};

// Why a VM came to its end.
struct Ending {
    enum class Kind : u8 {
        PoweredOff,   // by the guest
        Reset,        // the guest asked for a reset, and resets end the VM
        TripleFault,  // likewise, by a triple fault
        Stopped,      // by Vm::stop()
        Failed,       // the host or we could not go on
    };
    Kind kind = Kind::Stopped;
    ResetSource reset_source = ResetSource::Host;  // with Reset
    std::string message;                           // with Failed: what and why
};

enum class OnReset : u8 { Restart, End };

// Figures about the work so far.
struct VmStatistics {
    struct OneCpu {
        VcpuWork work;
        u64 instructions = 0;           // 0: the engine does not count them
        bool all_instructions = true;   // else it does not count all of them
        std::vector<Statistic> engine;  // what it counts besides
    };
    u64 elapsed_ns = 0;  // since the first start()
    u64 resets = 0;
    std::chrono::steady_clock::time_point first_entry;  // of the bootstrap CPU; the epoch: not yet
    std::vector<OneCpu> cpus;
};

class Vm final : public MachineEvents, private VcpuThread::Listener {
public:
    // The clock stands still until start(). Fails when the host has no threads or descriptors left.
    static Result<std::unique_ptr<Vm>> create(unsigned cpus, OnReset on_reset);
    Vm(const Vm&) = delete;
    Vm& operator=(const Vm&) = delete;
    ~Vm() override;

    // --- Parts for the machine to be built from. They live as long as the Vm.
    [[nodiscard]] EventLoop& loop() { return *loop_; }
    [[nodiscard]] const HostTsc& tsc() const { return tsc_; }
    [[nodiscard]] HostClock& clock() { return clock_; }
    [[nodiscard]] CpuWaker& waker(unsigned cpu) { return *cpus_[cpu]; }
    // A timer queue whose timers fire with `domain` held; it stands still while the VM is paused.
    HostTimers& add_timers(Lock& domain);

    // Takes the machine, which was built from the parts above, and brings it to its power-on state.
    Status install(std::unique_ptr<Machine> machine);

    // --- Life. Thread-safe, except that one thread at a time may wait; all but stop() wait until it is done.
    void start();  // also after pause()
    void pause();
    void reset();
    void press_power_button();
    // Hands the running (or paused) guest to another engine.
    Status switch_engine(EngineKind engine);
    void stop();  // ends the VM soon, with Ending::Stopped

    // Stops every CPU for a moment if the VM runs. Also after the end.
    [[nodiscard]] VmStatistics statistics();

    // Waits for the end. The VM does not run any more then; only its destructor is left to be called.
    Ending wait();
    // Whether it has come to its end.
    [[nodiscard]] bool ended();
    [[nodiscard]] u64 resets() const { return resets_.load(std::memory_order_relaxed); }

    // MachineEvents: what the guest's chips ask for. The CPUs stop at their next instruction.
    void request_reset(ResetSource source) override;
    void request_power_off() override;

private:
    Vm(unsigned cpus, OnReset on_reset);
    void on_shutdown(unsigned cpu) override;
    void on_failed(unsigned cpu, const std::string& why) override;

    // What is to happen at the next safe point.
    struct Request {
        enum class Kind : u8 { Reset, PowerOff, TripleFault, Stop, Fail };
        Kind kind;
        ResetSource source = ResetSource::Host;
        std::string message;
    };
    void ask(Request request);
    [[nodiscard]] bool asked();
    void reset_or_end(const Request& request);
    void answer_request();
    void attach_cpus();
    void halt_all();
    void go_on();
    void restart();
    void end(Ending ending);

    OnReset on_reset_;
    HostTsc tsc_;
    HostClock clock_{tsc_};
    std::unique_ptr<EventLoop> loop_;
    std::vector<std::unique_ptr<HostTimers>> timers_;
    std::vector<std::unique_ptr<VcpuThread>> cpus_;
    std::unique_ptr<Machine> machine_;

    // Loop thread only.
    bool running_ = false;  // as the user wants it
    bool threads_up_ = false;
    std::chrono::steady_clock::time_point started_;

    std::atomic<u64> resets_ = 0;
    std::mutex mutex_;
    std::condition_variable changed_;
    std::optional<Request> request_;
    std::optional<Ending> ending_;
};

}  // namespace tessera
