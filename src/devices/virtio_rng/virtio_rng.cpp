#include "devices/virtio_rng/virtio_rng.h"

#include <algorithm>

namespace tessera::virtio_rng {

namespace {

constexpr unsigned kRequestsPerTurn = 32;
constexpr u64 kLongestAnswer = 64 * kKiB;  // bytes; the driver asks again if it wants more

}  // namespace

bool VirtioRng::stop() {
    resume_timer_.cancel();
    state_.waiting = 0;
    return true;
}

void VirtioRng::wait() {
    state_.waiting = 1;
    resume_timer_.arm(state_.period_began_ns + kPeriodNs);
}

void VirtioRng::on_resume() {
    state_.waiting = 0;
    core().kicker().kick(0);
}

u64 VirtioRng::allowance() {
    if (config_.bytes_per_period == 0) return kLongestAnswer;
    const u64 now = clock_.now_ns();
    if (now - state_.period_began_ns >= kPeriodNs) {
        state_.period_began_ns = now;
        state_.given = 0;
    }
    return config_.bytes_per_period - std::min(state_.given, config_.bytes_per_period);
}

// Fills the chain from its front; returns how many bytes.
u32 VirtioRng::answer() {
    chain_.limit_writable(std::min(allowance(), kLongestAnswer));
    u32 written = 0;
    for (const iovec& piece : chain_.writable()) {
        const auto filled =
            static_cast<u32>(source_.fill({static_cast<std::byte*>(piece.iov_base), piece.iov_len}));
        written += filled;
        if (filled != piece.iov_len) break;
    }
    state_.given += written;
    return written;
}

bool VirtioRng::service(unsigned queue) {
    virtio::Queue& requests = core().queue(queue);
    requests.stop_kicks();
    bool more = true;
    for (unsigned i = 0; more && i < kRequestsPerTurn; ++i) {
        if (allowance() == 0) {
            wait();
            more = false;
        } else if (core().pop(queue, chain_)) {
            // [VIRTIO-1.2 5.4.6.2] The device MUST place one or more random bytes into the buffer; it cannot
            // if there is no room.
            core().push(queue, chain_, answer());
        } else {
            more = requests.want_kicks();
        }
    }
    core().signal(queue);
    return more;
}

void VirtioRng::visit(StateVisitor& v, State& s) {
    auto& [period_began_ns, given, waiting] = s;
    v.field(kFirstField, "period began", period_began_ns);
    v.field(kFirstField + 1, "given", given);
    v.field(kFirstField + 2, "waiting", waiting);
}

Status VirtioRng::load(StateVisitor& v) {
    State next;
    visit(v, next);
    // A period that begins in time to come is over.
    if (v.corrupt() || next.waiting > 1)
        return fail(Errc::CorruptState, "virtio entropy: the saved state holds values no device can have");
    (void)stop();
    state_ = next;
    if (state_.waiting != 0) wait();
    return {};
}

}  // namespace tessera::virtio_rng
