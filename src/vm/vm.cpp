#include "vm/vm.h"

#include <fmt/format.h>
#include <utility>

#include "base/assert.h"

namespace tessera {

Vm::Vm(unsigned cpus, OnReset on_reset) : on_reset_(on_reset) {
    VcpuThread::Listener& listener = *this;
    for (unsigned i = 0; i < cpus; ++i) cpus_.push_back(std::make_unique<VcpuThread>(i, listener));
}

Result<std::unique_ptr<Vm>> Vm::create(unsigned cpus, OnReset on_reset) {
    std::unique_ptr<Vm> vm(new Vm(cpus, on_reset));
    auto loop = EventLoop::create("events");
    if (!loop) return std::unexpected(std::move(loop.error()));
    vm->loop_ = std::move(*loop);
    return vm;
}

Vm::~Vm() {
    // The loop first, so that nobody waits for CPUs to park that have ended.
    if (loop_ != nullptr) loop_->stop();
    for (auto& cpu : cpus_) cpu->end();
    // Chips cancel their timers when they go: the queues have to be there still.
    machine_.reset();
}

HostTimers& Vm::add_timers(Lock& domain) {
    timers_.push_back(std::make_unique<HostTimers>(*loop_, clock_, domain));
    timers_.back()->suspend();
    return *timers_.back();
}

Status Vm::install(std::unique_ptr<Machine> machine) {
    machine_ = std::move(machine);
    attach_cpus();
    Status status;
    (void)loop_->run([&] { status = machine_->power_on(); });
    return status;
}

void Vm::attach_cpus() {
    const auto cpus = machine_->cpus();
    TESSERA_ASSERT(cpus.size() == cpus_.size(), "the machine was built with this VM's number of CPUs");
    for (std::size_t i = 0; i < cpus.size(); ++i) cpus_[i]->attach(*cpus[i]);
}

// --- Life ---

void Vm::start() {
    (void)loop_->run([this] {
        if (ended() || running_) return;
        running_ = true;
        if (!std::exchange(threads_up_, true)) {
            started_ = std::chrono::steady_clock::now();
            for (auto& cpu : cpus_) cpu->start();
        }
        go_on();
    });
}

void Vm::pause() {
    (void)loop_->run([this] {
        if (std::exchange(running_, false)) halt_all();
    });
}

void Vm::reset() {
    (void)loop_->run([this] {
        if (ended()) return;
        halt_all();
        restart();
    });
}

void Vm::press_power_button() {
    (void)loop_->run([this] {
        if (ended()) return;
        halt_all();
        machine_->press_power_button();
        if (running_ && !asked()) go_on();
    });
}

Status Vm::switch_engine(EngineKind engine) {
    Status status;
    (void)loop_->run([&] {
        if (ended() || machine_ == nullptr || machine_->engine() == engine) return;
        if (running_) halt_all();
        status = machine_->use_engine(engine);
        attach_cpus();
        if (running_ && !asked()) go_on();
    });
    return status;
}

void Vm::stop() {
    ask({.kind = Request::Kind::Stop, .message = {}});
}

VmStatistics Vm::statistics() {
    VmStatistics statistics;
    (void)loop_->run([&] {
        if (running_) halt_all();
        if (threads_up_)
            statistics.elapsed_ns = static_cast<u64>(
                std::chrono::nanoseconds(std::chrono::steady_clock::now() - started_).count());
        statistics.resets = resets();
        statistics.first_entry = cpus_.front()->work().first_entry;
        const auto cpus = machine_ != nullptr ? machine_->cpus() : std::span<Cpu* const>();
        for (std::size_t i = 0; i < cpus.size(); ++i) {
            VmStatistics::OneCpu one{.work = cpus_[i]->work(),
                                     .instructions = cpus[i]->instructions(),
                                     .all_instructions = cpus[i]->counts_all_instructions(),
                                     .engine = {}};
            cpus[i]->statistics(one.engine);
            statistics.cpus.push_back(std::move(one));
        }
        if (running_ && !asked()) go_on();
    });
    return statistics;
}

Ending Vm::wait() {
    std::unique_lock guard(mutex_);
    changed_.wait(guard, [&] { return ending_.has_value(); });
    return ending_.value_or(Ending{});
}

bool Vm::ended() {
    const std::scoped_lock guard(mutex_);
    return ending_.has_value();
}

// --- What the guest, the CPUs and the user ask for ---

void Vm::request_reset(ResetSource source) {
    ask({.kind = Request::Kind::Reset, .source = source, .message = {}});
}

void Vm::request_power_off() {
    ask({.kind = Request::Kind::PowerOff, .message = {}});
}

void Vm::on_shutdown(unsigned /*cpu*/) {
    ask({.kind = Request::Kind::TripleFault, .source = ResetSource::TripleFault, .message = {}});
}

void Vm::on_failed(unsigned cpu, const std::string& why) {
    ask({.kind = Request::Kind::Fail, .message = fmt::format("CPU {} cannot go on: {}", cpu, why)});
}

// Whether a request waits for its answer, before which no CPU is to go on.
bool Vm::asked() {
    const std::scoped_lock guard(mutex_);
    return request_.has_value();
}

// The first request wins, until it is answered; only an end by the user or a failure comes before a reset.
void Vm::ask(Request request) {
    {
        const std::scoped_lock guard(mutex_);
        const bool urgent = request.kind == Request::Kind::Stop || request.kind == Request::Kind::Fail;
        if (ending_ || (request_ && !urgent)) return;
        request_ = std::move(request);
    }
    // At once, not when the loop comes to it: a CPU that wrote the reset register goes no further.
    for (auto& cpu : cpus_) cpu->park();
    loop_->post([this] { answer_request(); });
}

void Vm::answer_request() {
    halt_all();
    std::optional<Request> request;
    {
        const std::scoped_lock guard(mutex_);
        request = std::exchange(request_, std::nullopt);
    }
    if (!request || ended()) return;
    switch (request->kind) {
        case Request::Kind::Stop: end({.kind = Ending::Kind::Stopped, .message = {}}); break;
        case Request::Kind::Fail:
            end({.kind = Ending::Kind::Failed, .message = std::move(request->message)});
            break;
        case Request::Kind::PowerOff: end({.kind = Ending::Kind::PoweredOff, .message = {}}); break;
        case Request::Kind::Reset:
        case Request::Kind::TripleFault: reset_or_end(*request); break;
    }
}

void Vm::reset_or_end(const Request& request) {
    if (on_reset_ == OnReset::Restart) {
        restart();
        return;
    }
    const bool fault = request.kind == Request::Kind::TripleFault;
    end({.kind = fault ? Ending::Kind::TripleFault : Ending::Kind::Reset,
         .reset_source = request.source,
         .message = {}});
}

// --- Safe points, on the loop's thread ---

// Every CPU outside of its guest, guest time standing still.
void Vm::halt_all() {
    for (auto& cpu : cpus_) cpu->park();
    for (auto& cpu : cpus_) cpu->wait_parked();
    if (machine_ != nullptr)
        if (auto status = machine_->on_halt(); !status)
            ask({.kind = Request::Kind::Fail, .message = std::move(status.error().message)});
    tsc_.freeze();
    for (auto& timers : timers_) timers->suspend();
}

void Vm::go_on() {
    tsc_.thaw();
    for (auto& timers : timers_) timers->resume();
    if (auto status = machine_->on_go_on(); !status) {
        end({.kind = Ending::Kind::Failed, .message = std::move(status.error().message)});
        return;
    }
    for (auto& cpu : cpus_) cpu->unpark();
}

// Guest time goes on through a reset, as a board's oscillator does.
void Vm::restart() {
    resets_.fetch_add(1, std::memory_order_relaxed);
    if (auto status = machine_->power_on(); !status) {
        end({.kind = Ending::Kind::Failed, .message = std::move(status.error().message)});
        return;
    }
    if (running_) go_on();
}

void Vm::end(Ending ending) {
    halt_all();
    running_ = false;
    const std::scoped_lock guard(mutex_);
    ending_ = std::move(ending);
    changed_.notify_all();
}

}  // namespace tessera
