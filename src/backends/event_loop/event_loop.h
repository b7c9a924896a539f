// One thread that waits for file descriptors, deadlines and messages, and calls those who asked.
// The host side of a VM: timers of chips, terminals, the monitor. Not for CPUs, which have threads of their
// own.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <sys/epoll.h>
#include <thread>
#include <unordered_map>
#include <vector>

#include "base/look_window.h"
#include "base/result.h"
#include "base/types.h"

namespace tessera {

// Told when something may be due.
class DeadlineHandler {
public:
    DeadlineHandler() = default;
    DeadlineHandler(const DeadlineHandler&) = delete;
    DeadlineHandler& operator=(const DeadlineHandler&) = delete;
    virtual ~DeadlineHandler() = default;
    // Runs what is due and returns how many nanoseconds from now the next thing is, kNothingDue if nothing
    // is. Called on the loop's thread, after every wake-up of it: has to be cheap when nothing is due.
    virtual u64 run_due() = 0;

    static constexpr u64 kNothingDue = ~u64{0};
};

class EventLoop {
public:
    using Task = std::function<void()>;
    // The argument holds EPOLLIN, EPOLLOUT, EPOLLHUP, EPOLLERR.
    using FdHandler = std::function<void(u32 events)>;

    // What the thread does when there is nothing to do. Looking for messages a short time before it sleeps,
    // if that has paid lately, makes the sender's part cheaper as well, and takes a part of a processor.
    enum class Idle : u8 { Sleeps, LooksFirst };
    // Fails when the host has no descriptors or threads left.
    static Result<std::unique_ptr<EventLoop>> create(const std::string& name, Idle idle = Idle::Sleeps);
    EventLoop(const EventLoop&) = delete;
    EventLoop& operator=(const EventLoop&) = delete;
    ~EventLoop();  // stops

    // Ends the thread after the task it is in; tasks that wait are dropped. Not from the loop's own thread.
    void stop();

    // Runs `task` on the loop's thread soon. Thread-safe, never blocks.
    void post(Task task);
    // Runs `task` on the loop's thread and waits for it; directly if this is the loop's thread. False if the
    // loop has ended and the task did not run.
    bool run(const Task& task);
    [[nodiscard]] bool is_this_thread() const { return std::this_thread::get_id() == thread_.get_id(); }

    // Descriptors: on the loop's thread only. `events` may be 0 (only errors and hang-ups are reported then).
    // A regular file cannot be waited for (EPERM): the error says Unsupported.
    Status watch(int fd, u32 events, FdHandler handler);
    Status change(int fd, u32 events);
    void forget(int fd);

    // Deadlines. Handlers are added and removed on the loop's thread or while it runs nothing else (before
    // start, by run()). wake_in: "be back in run_due within ns": thread-safe, and a system call only if
    // nothing earlier is due anyway.
    void add(DeadlineHandler& handler);
    void remove(DeadlineHandler& handler);
    void wake_in(u64 ns);

private:
    EventLoop() = default;
    Status open(const std::string& name);
    void loop();
    void wait();
    int look(std::span<epoll_event> events);
    void run_tasks();
    void run_deadlines();
    void dispatch(u64 key, u32 events);
    void kick() const;

    struct Watch {
        int fd;
        FdHandler handler;
    };

    Idle idle_ = Idle::Sleeps;
    LookWindow look_window_;  // the loop's thread only
    int epoll_ = -1;
    int wakeup_ = -1;  // eventfd: tasks wait, or stop
    int timer_ = -1;   // timerfd: the earliest deadline
    std::thread thread_;
    std::atomic<bool> stopping_ = false;

    std::mutex tasks_mutex_;
    std::vector<Task> tasks_;
    std::atomic<bool> tasks_wait_ = false;  // tasks_ is not empty; written under tasks_mutex_
    std::atomic<bool> looking_ = false;     // the thread sees tasks_wait_ by itself
    bool ended_ = false;                    // under tasks_mutex_

    // Keys are never reused, so that an event that was already fetched cannot reach a newer watch of the same
    // fd.
    u64 next_key_ = 2;
    std::unordered_map<int, u64> keys_;
    std::unordered_map<u64, std::shared_ptr<Watch>> watches_;

    std::vector<DeadlineHandler*> deadlines_;
    std::mutex timer_mutex_;
    std::atomic<u64> armed_for_ns_ =
        DeadlineHandler::kNothingDue;  // CLOCK_MONOTONIC; written under timer_mutex_
};

}  // namespace tessera
