// The host thread of one virtual CPU: runs it, sleeps while it is halted, parks when told.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <string>
#include <thread>

#include "base/look_window.h"
#include "cpu/cpu.h"

namespace tessera {

// What a CPU's thread did so far.
struct VcpuWork {
    std::array<u64, kExitReasons> exits{};              // of Cpu::run(), by ExitReason
    u64 running_ns = 0;                                 // in Cpu::run()
    u64 asleep_ns = 0;                                  // waiting for an interrupt
    std::chrono::steady_clock::time_point first_entry;  // of Cpu::run(); the epoch: not yet
};

class VcpuThread final : public CpuWaker {
public:
    // Told on the CPU's own thread, which waits for a command afterwards (park() or end()).
    class Listener {
    public:
        Listener() = default;
        Listener(const Listener&) = delete;
        Listener& operator=(const Listener&) = delete;
        virtual ~Listener() = default;
        virtual void on_shutdown(unsigned cpu) = 0;  // triple fault
        virtual void on_failed(unsigned cpu, const std::string& why) = 0;
    };

    VcpuThread(unsigned index, Listener& listener) : index_(index), listener_(listener) {}
    VcpuThread(const VcpuThread&) = delete;
    VcpuThread& operator=(const VcpuThread&) = delete;
    ~VcpuThread() override { end(); }

    // The CPU is known only after the local APIC that wakes it, hence not in the constructor. Another one may
    // take its place while the thread is parked; the one before stays, for a wake-up may be on its way to it.
    void attach(Cpu& cpu) { cpu_.store(&cpu); }
    // Starts the thread, parked.
    void start();
    // Asks the thread to leave the CPU, returns at once. Thread-safe, also from the thread itself.
    void park();
    // Waits until it has. Not from the thread itself.
    void wait_parked();
    // Lets it go on. Not while another thread waits for it to park.
    void unpark();
    // Ends and joins the thread.
    void end();
    // While the thread is parked.
    [[nodiscard]] const VcpuWork& work() const { return work_; }

    // An interrupt input has changed: the CPU looks at it, and wakes if it is halted. Thread-safe.
    void wake() override;

private:
    enum class Command : u8 { Run, Park, End };
    // Whether the thread sleeps because its CPU is halted. int: std::atomic waits on it without a proxy.
    enum Rest : int { kAwake, kAsleep, kWoken };

    void loop();
    bool obey();
    void run_once();
    void rest(std::chrono::steady_clock::time_point since);
    void wait_for_command();
    void command(Command next);

    unsigned index_;
    Listener& listener_;
    std::atomic<Cpu*> cpu_ = nullptr;
    std::thread thread_;
    VcpuWork work_;  // its own until it has parked

    LookWindow look_;
    std::atomic<int> rest_ = kAwake;
    std::atomic<Command> command_ = Command::Park;
    std::mutex mutex_;  // for changes of command_ and parked_, which the condition waits for
    std::condition_variable changed_;
    bool parked_ = false;
};

}  // namespace tessera
