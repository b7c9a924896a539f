#include "backends/block/file/uring_engine.h"

#include <cerrno>
#include <csignal>
#include <numeric>
#include <pthread.h>
#include <system_error>

#include "backends/block/file/pieces.h"

namespace tessera::block {

namespace {

constexpr u64 kStop = ~u64{0};  // user data of the message that ends the thread
constexpr u64 kMostBytes = u64{1} << 30;

}  // namespace

std::unique_ptr<UringEngine> UringEngine::create(Owner& owner, int fd) {
    std::unique_ptr<UringEngine> engine(new UringEngine(owner, fd));
    if (io_uring_queue_init(kSlots, &engine->ring_, IORING_SETUP_CLAMP) < 0) {
        engine->ring_.ring_fd = -1;
        return nullptr;
    }
    engine->slots_.resize(kSlots);
    engine->free_.resize(kSlots);
    std::iota(engine->free_.begin(), engine->free_.end(), 0U);
    sigset_t all{};
    sigset_t before{};
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    try {
        engine->thread_ = std::thread([raw = engine.get()] { raw->reap(); });
    } catch (const std::system_error&) {
        io_uring_queue_exit(&engine->ring_);
        engine->ring_.ring_fd = -1;
    }
    (void)pthread_sigmask(SIG_SETMASK, &before, nullptr);
    if (engine->ring_.ring_fd < 0) return nullptr;
    return engine;
}

UringEngine::~UringEngine() {
    if (!thread_.joinable()) return;
    {
        const std::scoped_lock lock(mutex_);
        io_uring_sqe* entry = io_uring_get_sqe(&ring_);
        io_uring_prep_nop(entry);
        io_uring_sqe_set_data64(entry, kStop);
        (void)io_uring_submit(&ring_);
    }
    thread_.join();
    io_uring_queue_exit(&ring_);
}

void UringEngine::submit(std::span<BlockRequest* const> requests) {
    const std::scoped_lock lock(mutex_);
    waiting_.insert(waiting_.end(), requests.begin(), requests.end());
    start_waiting();
}

void UringEngine::start_waiting() {
    bool any = false;
    while (!waiting_.empty() && !free_.empty()) {
        const unsigned index = free_.back();
        free_.pop_back();
        slots_[index].request = waiting_.front();
        slots_[index].done = 0;
        waiting_.pop_front();
        prepare(index);
        any = true;
    }
    if (any) push();
}

// The kernel may be short of memory for a moment (EAGAIN); what it did not take stays in the ring.
void UringEngine::push() {
    constexpr int kTries = 10000;
    for (int i = 0; i < kTries && io_uring_sq_ready(&ring_) != 0; ++i)
        if (io_uring_submit(&ring_) < 0) std::this_thread::yield();
}

void UringEngine::prepare(unsigned index) {
    Slot& slot = slots_[index];
    const BlockRequest& request = *slot.request;
    // One entry for each slot at most, so there is always one.
    io_uring_sqe* entry = io_uring_get_sqe(&ring_);
    if (request.operation == BlockOperation::Flush) {
        io_uring_prep_fsync(entry, fd_, IORING_FSYNC_DATASYNC);
    } else {
        std::span<const iovec> pieces = request.buffers;
        if (slot.done != 0 || pieces.size() > kMostPieces || request.length > kMostBytes) {
            slot.rest.clear();
            PieceWalk walk(request.buffers);
            walk.skip(slot.done);
            (void)walk.take(kMostBytes, slot.rest, kMostPieces);
            pieces = slot.rest;
        }
        const u64 offset = request.offset + slot.done;
        if (request.operation == BlockOperation::Write)
            io_uring_prep_writev2(entry, fd_, pieces.data(), static_cast<unsigned>(pieces.size()), offset,
                                  request.force_unit_access ? RWF_DSYNC : 0);
        else
            io_uring_prep_readv2(entry, fd_, pieces.data(), static_cast<unsigned>(pieces.size()), offset, 0);
    }
    io_uring_sqe_set_data64(entry, index);
}

bool UringEngine::settle(Slot& slot, int result, int& error) const {
    const BlockRequest& request = *slot.request;
    if (result == -EINTR || result == -EAGAIN) return false;
    if (result < 0 || request.operation == BlockOperation::Flush) {
        error = result < 0 ? -result : 0;
        return true;
    }
    slot.done += static_cast<u64>(result);
    if (slot.done >= request.length) return true;
    if (result > 0) return false;
    if (request.operation != BlockOperation::Read || !owner_.is_end(request.offset + slot.done)) {
        error = EIO;
        return true;
    }
    PieceWalk walk(request.buffers);
    walk.skip(slot.done);
    walk.fill_zero(request.length - slot.done);
    return true;
}

void UringEngine::reap() {
    (void)pthread_setname_np(pthread_self(), "disk-uring");
    for (;;) {
        io_uring_cqe* completion = nullptr;
        if (io_uring_wait_cqe(&ring_, &completion) < 0) continue;  // EINTR
        const u64 data = io_uring_cqe_get_data64(completion);
        const int result = completion->res;
        io_uring_cqe_seen(&ring_, completion);
        if (data == kStop) return;
        const auto index = static_cast<unsigned>(data);
        BlockRequest* ended = nullptr;
        int error = 0;
        {
            const std::scoped_lock lock(mutex_);
            Slot& slot = slots_[index];
            if (settle(slot, result, error)) {
                ended = slot.request;
                free_.push_back(index);
                start_waiting();
            } else {
                prepare(index);
                push();
            }
        }
        if (ended != nullptr) owner_.completed(*ended, error);
    }
}

}  // namespace tessera::block
