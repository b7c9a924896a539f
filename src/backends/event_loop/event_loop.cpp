#include "backends/event_loop/event_loop.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <condition_variable>
#include <csignal>
#include <ctime>
#include <fmt/format.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <system_error>
#include <unistd.h>

namespace tessera {

namespace {

constexpr u64 kWakeupKey = 0;
constexpr u64 kTimerKey = 1;
constexpr u64 kNsPerSecond = 1'000'000'000;

u64 monotonic_ns() {
    timespec now{};
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return static_cast<u64>(now.tv_sec) * kNsPerSecond + static_cast<u64>(now.tv_nsec);
}

std::unexpected<Error> host_failure(std::string_view what, int error) {
    return fail(Errc::HostFailure,
                fmt::format("{}: {}; raise the limit of open files (ulimit -n) or free some memory", what,
                            std::generic_category().message(error)));
}

}  // namespace

Result<std::unique_ptr<EventLoop>> EventLoop::create(const std::string& name, Idle idle) {
    std::unique_ptr<EventLoop> loop(new EventLoop);
    // Guest, loop and whoever is waited for want a processor each: with two, echoed packets of the user-mode
    // network took twice as long.
    if (std::thread::hardware_concurrency() > 2) loop->idle_ = idle;
    if (auto opened = loop->open(name); !opened) return std::unexpected(std::move(opened.error()));
    return loop;
}

Status EventLoop::open(const std::string& name) {
    epoll_ = epoll_create1(EPOLL_CLOEXEC);
    if (epoll_ < 0) return host_failure("cannot create an epoll instance", errno);
    wakeup_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (wakeup_ < 0) return host_failure("cannot create an event descriptor", errno);
    timer_ = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    if (timer_ < 0) return host_failure("cannot create a timer", errno);
    for (const auto& [fd, key] : {std::pair{wakeup_, kWakeupKey}, std::pair{timer_, kTimerKey}}) {
        epoll_event event{.events = EPOLLIN, .data = {.u64 = key}};
        if (epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &event) < 0)
            return host_failure("cannot watch a descriptor", errno);
    }
    thread_ = std::thread([this, name = name.substr(0, 15)] {
        (void)pthread_setname_np(pthread_self(), name.c_str());
        loop();
    });
    return {};
}

EventLoop::~EventLoop() {
    stop();
    for (const int fd : {epoll_, wakeup_, timer_})
        if (fd >= 0) (void)close(fd);
}

void EventLoop::stop() {
    stopping_.store(true, std::memory_order_release);
    if (wakeup_ >= 0) kick();
    if (thread_.joinable()) thread_.join();
}

void EventLoop::kick() const {
    const u64 one = 1;
    // Fails only when the counter is full, and then the loop is awake anyway.
    (void)!write(wakeup_, &one, sizeof one);
}

void EventLoop::post(Task task) {
    {
        const std::scoped_lock guard(tasks_mutex_);
        if (ended_) return;
        tasks_.push_back(std::move(task));
        if (tasks_.size() != 1) return;  // somebody has kicked for the first one
        tasks_wait_.store(true);
    }
    // Either this sees that the thread is looking, or the thread, when it stops, that there is a task.
    if (!looking_.load()) kick();
}

bool EventLoop::run(const Task& task) {
    if (is_this_thread()) {
        task();
        return true;
    }
    // The shared block outlives whichever side leaves last: a dropped task must wake us too.
    struct Rendezvous {
        std::mutex mutex;
        std::condition_variable changed;
        bool done = false;
        bool dropped = false;
    };
    auto meeting = std::make_shared<Rendezvous>();
    struct Notice {
        std::shared_ptr<Rendezvous> meeting;
        explicit Notice(std::shared_ptr<Rendezvous> m) : meeting(std::move(m)) {}
        Notice(const Notice&) = delete;
        Notice& operator=(const Notice&) = delete;
        ~Notice() {
            const std::scoped_lock guard(meeting->mutex);
            meeting->dropped = !meeting->done;
            meeting->changed.notify_all();
        }
    };
    post([&task, notice = std::make_shared<Notice>(meeting)] {
        task();
        const std::scoped_lock guard(notice->meeting->mutex);
        notice->meeting->done = true;
    });
    std::unique_lock guard(meeting->mutex);
    meeting->changed.wait(guard, [&] { return meeting->done || meeting->dropped; });
    return meeting->done;
}

Status EventLoop::watch(int fd, u32 events, FdHandler handler) {
    const u64 key = next_key_++;
    epoll_event event{.events = events, .data = {.u64 = key}};
    if (epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &event) < 0) {
        if (errno == EPERM) return fail(Errc::Unsupported, "this kind of file is always ready");
        return host_failure("cannot watch a descriptor", errno);
    }
    keys_[fd] = key;
    watches_[key] = std::make_shared<Watch>(Watch{fd, std::move(handler)});
    return {};
}

Status EventLoop::change(int fd, u32 events) {
    const auto key = keys_.find(fd);
    if (key == keys_.end()) return fail(Errc::InvalidArgument, "the descriptor is not watched");
    epoll_event event{.events = events, .data = {.u64 = key->second}};
    if (epoll_ctl(epoll_, EPOLL_CTL_MOD, fd, &event) < 0)
        return host_failure("cannot watch a descriptor", errno);
    return {};
}

void EventLoop::forget(int fd) {
    const auto key = keys_.find(fd);
    if (key == keys_.end()) return;
    (void)epoll_ctl(epoll_, EPOLL_CTL_DEL, fd, nullptr);
    watches_.erase(key->second);
    keys_.erase(key);
}

void EventLoop::add(DeadlineHandler& handler) {
    deadlines_.push_back(&handler);
}

void EventLoop::remove(DeadlineHandler& handler) {
    std::erase(deadlines_, &handler);
}

void EventLoop::wake_in(u64 ns) {
    const u64 now = monotonic_ns();
    const u64 when = ns > DeadlineHandler::kNothingDue - now ? DeadlineHandler::kNothingDue : now + ns;
    if (when >= armed_for_ns_.load(std::memory_order_acquire)) return;
    const std::scoped_lock guard(timer_mutex_);
    if (when >= armed_for_ns_.load(std::memory_order_relaxed)) return;
    armed_for_ns_.store(when, std::memory_order_release);
    itimerspec spec{};
    spec.it_value.tv_sec = static_cast<time_t>(when / kNsPerSecond);
    spec.it_value.tv_nsec = static_cast<long>(when % kNsPerSecond);
    (void)timerfd_settime(timer_, TFD_TIMER_ABSTIME, &spec, nullptr);
}

void EventLoop::run_tasks() {
    std::vector<Task> tasks;
    {
        const std::scoped_lock guard(tasks_mutex_);
        tasks.swap(tasks_);
        tasks_wait_.store(false, std::memory_order_relaxed);
    }
    for (Task& task : tasks) {
        task();
        task = nullptr;
    }
}

void EventLoop::run_deadlines() {
    // Forget what the timer was armed for first: a deadline that arrives from here on programs it anew, and
    // one that arrived before is seen by run_due.
    {
        const std::scoped_lock guard(timer_mutex_);
        if (armed_for_ns_.load(std::memory_order_relaxed) > monotonic_ns()) return;
        armed_for_ns_.store(DeadlineHandler::kNothingDue, std::memory_order_release);
    }
    u64 next = DeadlineHandler::kNothingDue;
    for (DeadlineHandler* handler : deadlines_) next = std::min(next, handler->run_due());
    if (next != DeadlineHandler::kNothingDue) wake_in(next);
}

void EventLoop::dispatch(u64 key, u32 events) {
    if (key == kWakeupKey || key == kTimerKey) {
        u64 count = 0;
        (void)!read(key == kWakeupKey ? wakeup_ : timer_, &count, sizeof count);
        return;
    }
    // Copied: the handler may forget its own descriptor.
    if (const auto it = watches_.find(key); it != watches_.end()) {
        const std::shared_ptr<Watch> watch = it->second;
        watch->handler(events);
    }
}

// Looks for tasks and events for a while; returns how many events, -1 if there is nothing of either.
int EventLoop::look(std::span<epoll_event> events) {
    const u64 window = look_window_.ns();
    if (window == 0) return -1;
    const u64 end = monotonic_ns() + window;
    int count = -1;
    looking_.store(true);
    do {
        std::this_thread::yield();  // what is waited for may be waiting for this processor
        const int ready = epoll_wait(epoll_, events.data(), static_cast<int>(events.size()), 0);
        if (ready > 0 || tasks_wait_.load(std::memory_order_acquire)) count = std::max(ready, 0);
    } while (count < 0 && monotonic_ns() < end);
    looking_.store(false);
    return count < 0 && tasks_wait_.load() ? 0 : count;
}

// Until there is something to do. Events have been dispatched then.
void EventLoop::wait() {
    std::array<epoll_event, 32> events{};
    const bool looks = idle_ == Idle::LooksFirst;
    const u64 begin = looks ? monotonic_ns() : 0;
    int count = looks ? look(events) : -1;
    const auto came = count < 0 ? LookWindow::Came::WhileAsleep : LookWindow::Came::WhileLooking;
    if (count < 0) count = epoll_wait(epoll_, events.data(), events.size(), -1);
    if (looks) look_window_.waited(monotonic_ns() - begin, came);
    for (int i = 0; i < count; ++i) dispatch(events[i].data.u64, events[i].events);
}

void EventLoop::loop() {
    // A pipe without a reader is an error code here, not the end of the process.
    sigset_t pipes;
    (void)sigemptyset(&pipes);
    (void)sigaddset(&pipes, SIGPIPE);
    (void)pthread_sigmask(SIG_BLOCK, &pipes, nullptr);
    while (!stopping_.load(std::memory_order_acquire)) {
        wait();
        run_tasks();
        run_deadlines();
    }
    std::vector<Task> dropped;
    const std::scoped_lock guard(tasks_mutex_);
    ended_ = true;
    dropped.swap(tasks_);
}

}  // namespace tessera
