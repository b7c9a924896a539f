#include "machines/board/queue_bells.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include <utility>

namespace tessera {

QueueBells::QueueBells(EventLoop& loop, unsigned queues, DoorbellOf doorbell_of, Ring ring)
    : loop_(loop), doorbell_of_(doorbell_of), ring_(std::move(ring)), bells_(queues) {}

void QueueBells::end() {
    use(nullptr);
    // A loop that has ended hears nothing any more.
    (void)loop_.run([this] {
        for (const Bell& bell : bells_)
            if (bell.event.is_open()) loop_.forget(bell.event.get());
    });
}

void QueueBells::use(DoorbellHost* host) {
    const std::scoped_lock guard(mutex_);
    in_use_ = host != nullptr;
    moves_left_ = kMostMoves;
    if (in_use_) host_ = host;
    update_missing();
}

void QueueBells::on_place(std::optional<u64> base) {
    const std::scoped_lock guard(mutex_);
    bool took_down = false;
    for (Bell& bell : bells_) {
        if (!bell.hung) continue;
        host_->take_down(*bell.hung, bell.event.get());
        bell.hung.reset();
        took_down = true;
    }
    if (took_down) --moves_left_;
    base_ = base;
    update_missing();
}

void QueueBells::update_missing() {
    u64 missing = 0;
    if (in_use_ && base_ && moves_left_ != 0)
        for (unsigned queue = 0; queue < bells_.size(); ++queue)
            if (!bells_[queue].hung) missing |= bit(queue);
    missing_.store(missing, std::memory_order_relaxed);
}

void QueueBells::hang_up(unsigned queue) {
    if (queue >= bells_.size() || (missing_.load(std::memory_order_relaxed) & bit(queue)) == 0) return;
    if (try_to_hang(queue, open(queue)) || !bells_[queue].event.is_open()) return;
    // Descriptors are too rare to be kept for nothing.
    listen(queue);
    loop_.forget(bells_[queue].event.get());
    bells_[queue].event = File();
}

bool QueueBells::try_to_hang(unsigned queue, bool opened) {
    const std::scoped_lock guard(mutex_);
    // It may have been moved away meanwhile. What fails now is not tried again at this place.
    const u64 missing = missing_.fetch_and(~bit(queue), std::memory_order_relaxed);
    if ((missing & bit(queue)) == 0 || !opened || !base_) return false;
    Doorbell bell = doorbell_of_(queue);
    bell.address += *base_;
    if (!host_->hang(bell, bells_[queue].event.get())) return false;
    bells_[queue].hung = bell;
    return true;
}

bool QueueBells::open(unsigned queue) {
    File& event = bells_[queue].event;
    if (event.is_open()) return true;
    File made(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (!made.is_open() ||
        !loop_.watch(made.get(), EPOLLIN, [this, queue](u32 /*events*/) { listen(queue); }))
        return false;
    event = std::move(made);
    return true;
}

void QueueBells::listen(unsigned queue) {
    u64 rung = 0;
    if (read(bells_[queue].event.get(), &rung, sizeof rung) == static_cast<ssize_t>(sizeof rung))
        ring_(queue);
}

void QueueBells::listen() {
    for (unsigned queue = 0; queue < bells_.size(); ++queue)
        if (bells_[queue].event.is_open()) listen(queue);
}

}  // namespace tessera
