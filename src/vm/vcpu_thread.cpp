#include "vm/vcpu_thread.h"

#include <chrono>
#include <fmt/format.h>
#include <pthread.h>
#include <utility>

#include "base/assert.h"

namespace tessera {

namespace {

using Steady = std::chrono::steady_clock;

u64 ns(Steady::duration duration) {
    return static_cast<u64>(std::chrono::nanoseconds(duration).count());
}

}  // namespace

void VcpuThread::start() {
    TESSERA_ASSERT(cpu_.load() != nullptr, "the VM attaches every CPU before it starts the threads");
    thread_ = std::thread([this] {
        (void)pthread_setname_np(pthread_self(), fmt::format("cpu{}", index_).c_str());
        loop();
    });
}

void VcpuThread::command(Command next) {
    {
        const std::scoped_lock guard(mutex_);
        if (command_.load(std::memory_order_relaxed) == Command::End) return;
        command_.store(next, std::memory_order_release);
        if (next == Command::Run) parked_ = false;
    }
    changed_.notify_all();
    if (Cpu* cpu = cpu_.load(); next != Command::Run && cpu != nullptr) {
        cpu->kick();
        wake();
    }
}

void VcpuThread::park() {
    command(Command::Park);
}

void VcpuThread::unpark() {
    command(Command::Run);
}

void VcpuThread::wait_parked() {
    if (!thread_.joinable()) return;
    std::unique_lock guard(mutex_);
    changed_.wait(guard, [&] { return parked_; });
}

void VcpuThread::end() {
    command(Command::End);
    if (thread_.joinable()) thread_.join();
}

void VcpuThread::wake() {
    Cpu* cpu = cpu_.load();
    if (cpu == nullptr) return;  // a board that is being built
    cpu->waker().wake();
    if (rest_.exchange(kWoken) == kAsleep) rest_.notify_one();
}

// Until the next wake(); not at all if there was one since the CPU was last entered. A short time awake, if
// that has paid lately.
void VcpuThread::rest(Steady::time_point since) {
    for (const u64 window = look_.ns(); window != 0;) {
        const u64 waited = ns(Steady::now() - since);
        if (rest_.load(std::memory_order_acquire) == kWoken) {
            look_.waited(waited, LookWindow::Came::WhileLooking);
            return;
        }
        if (waited >= window) break;
        std::this_thread::yield();  // what is waited for may be waiting for this processor
    }
    int awake = kAwake;
    if (rest_.compare_exchange_strong(awake, kAsleep)) rest_.wait(kAsleep);
    look_.waited(ns(Steady::now() - since), LookWindow::Came::WhileAsleep);
}

void VcpuThread::wait_for_command() {
    std::unique_lock guard(mutex_);
    changed_.wait(guard, [&] { return command_.load(std::memory_order_relaxed) != Command::Run; });
}

// Parks if that is the command. False: the thread is to end.
bool VcpuThread::obey() {
    if (command_.load(std::memory_order_acquire) == Command::Run) return true;
    std::unique_lock guard(mutex_);
    while (command_.load(std::memory_order_relaxed) == Command::Park) {
        // Said anew after every wake-up: unpark() and park() may both have come while this thread slept.
        const bool news = !std::exchange(parked_, true);
        if (news) changed_.notify_all();
        changed_.wait(guard);
    }
    return command_.load(std::memory_order_relaxed) == Command::Run;
}

void VcpuThread::run_once() {
    rest_.store(kAwake);
    const auto entered = Steady::now();
    if (work_.first_entry == Steady::time_point()) work_.first_entry = entered;
    Cpu& cpu = *cpu_.load();
    const ExitReason reason = cpu.run().reason;
    const auto left = Steady::now();
    ++work_.exits[static_cast<std::size_t>(reason)];
    work_.running_ns += ns(left - entered);
    switch (reason) {
        case ExitReason::Kicked:
        case ExitReason::Debug: break;
        case ExitReason::Halted:
        case ExitReason::WaitForSipi:
            rest(left);
            work_.asleep_ns += ns(Steady::now() - left);
            break;
        case ExitReason::Shutdown:
            listener_.on_shutdown(index_);
            wait_for_command();
            break;
        case ExitReason::Failed:
            listener_.on_failed(index_, cpu.failure());
            wait_for_command();
            break;
    }
}

void VcpuThread::loop() {
    while (obey()) run_once();
}

}  // namespace tessera
