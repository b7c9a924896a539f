#include "backends/net/tap/tap_net.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <fmt/format.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <system_error>

namespace tessera::net {

namespace {

constexpr const char* kDevice = "/dev/net/tun";
constexpr std::size_t kMostFrame = sizeof(NetHeader) + kMaxFrame;

// [LINUX-TUN] TUNSETOFFLOAD. Headers older than the kernel lack the last two.
constexpr unsigned kUso4 = 0x20;
constexpr unsigned kUso6 = 0x40;

unsigned offload_bits(const NetOffloads& offloads) {
    unsigned bits = 0;
    if (!offloads.checksum) return 0;  // the others need it
    bits |= TUN_F_CSUM;
    if (offloads.tso4) bits |= TUN_F_TSO4;
    if (offloads.tso6) bits |= TUN_F_TSO6;
    if (offloads.ecn && (offloads.tso4 || offloads.tso6)) bits |= TUN_F_TSO_ECN;
    if (offloads.uso) bits |= kUso4 | kUso6;
    return bits;
}

}  // namespace

// --- Opening ---

Error TapNet::refusal(int error, const char* what) const {
    const std::string reason = std::generic_category().message(error);
    const auto say = [&](std::string_view advice) {
        return Error{.code = Errc::HostFailure,
                     .message = fmt::format("--net tap={}: {}: {}; {}", name_, what, reason, advice)};
    };
    switch (error) {
        case ENOENT: return say("load the kernel's module, as root: modprobe tun");
        case EACCES: return say("let this user open it, or choose --net user, which needs no rights");
        case EPERM:
            return say(
                fmt::format("make it for this user, as root: ip tuntap add {} mode tap multi_queue user {}",
                            name_, getuid()));
        case EBUSY: return say("another program uses it; end that, or choose another name");
        case EINVAL:
            return say(
                "there is an interface of this name of another kind (one made without multi_queue has one "
                "queue only); choose another name, or queues=1");
        case ENODEV:
        case ENXIO: return say("there is no such device on this host; --net user needs none");
        default: return say("choose --net user, which needs no rights");
    }
}

Status TapNet::open_queue(bool multi_queue) {
    auto queue = std::make_unique<Queue>();
    queue->file = File(::open(kDevice, O_RDWR | O_NONBLOCK | O_CLOEXEC));
    if (!queue->file.is_open()) return std::unexpected(refusal(errno, kDevice));
    ifreq request{};
    std::copy_n(name_.begin(), std::min(name_.size(), std::size_t{IFNAMSIZ - 1}),
                std::begin(request.ifr_name));
    unsigned flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
    if (multi_queue) flags |= IFF_MULTI_QUEUE;
    request.ifr_flags = static_cast<short>(flags);
    bool set = ioctl(queue->file.get(), TUNSETIFF, &request) == 0;
    if (!set && errno == EINVAL && !multi_queue) {  // it may have been made for several
        request.ifr_flags = static_cast<short>(flags | IFF_MULTI_QUEUE);
        set = ioctl(queue->file.get(), TUNSETIFF, &request) == 0;
    }
    if (!set) return std::unexpected(refusal(errno, "cannot use this interface"));
    const int header = sizeof(NetHeader);
    const int little = 1;
    if (ioctl(queue->file.get(), TUNSETVNETHDRSZ, &header) < 0 ||
        ioctl(queue->file.get(), TUNSETVNETLE, &little) < 0)
        return std::unexpected(refusal(errno, "cannot set its header"));
    queue->frame.resize(kMostFrame);
    queues_.push_back(std::move(queue));
    return {};
}

Status TapNet::open_queues(unsigned queues) {
    for (unsigned i = 0; i < queues; ++i)
        if (auto opened = open_queue(queues > 1); !opened) return opened;
    // What the kernel can be told that the guest takes, it takes from the guest as well.
    can_take_ = {.checksum = true, .tso4 = true, .tso6 = true, .ecn = true, .uso = true};
    if (ioctl(queues_[0]->file.get(), TUNSETOFFLOAD, offload_bits(can_take_)) < 0) can_take_.uso = false;
    if (ioctl(queues_[0]->file.get(), TUNSETOFFLOAD, 0U) < 0)
        return std::unexpected(refusal(errno, "cannot set its offloads"));
    return {};
}

Result<std::unique_ptr<TapNet>> TapNet::open(EventLoop& loop, const std::string& name, unsigned queues) {
    std::unique_ptr<TapNet> tap(new TapNet(loop, name));
    if (auto opened = tap->open_queues(std::clamp(queues, 1U, kMostQueues)); !opened)
        return std::unexpected(std::move(opened.error()));
    Status watched;
    if (!loop.run([&] { watched = tap->watch(); }))
        return fail(Errc::HostFailure, "network: the event loop has ended");
    if (!watched) return std::unexpected(std::move(watched.error()));
    return tap;
}

TapNet::~TapNet() {
    (void)loop_.run([this] {
        for (const auto& queue : queues_) loop_.forget(queue->file.get());
    });
}

// --- Events ---

Status TapNet::watch() {
    for (unsigned i = 0; i < queues_.size(); ++i)
        if (auto watched = loop_.watch(queues_[i]->file.get(), EPOLLIN | EPOLLOUT | EPOLLET,
                                       [this, i](u32 events) { ready(i, events); });
            !watched)
            return watched;
    return {};
}

void TapNet::ready(unsigned index, u32 events) {
    Queue& queue = *queues_[index];
    if (card_ == nullptr) return;
    if ((events & EPOLLIN) != 0 && queue.card_waits.exchange(false)) card_->frames_waiting();
    if ((events & EPOLLOUT) != 0 && queue.card_blocked.exchange(false)) card_->transmit_ready();
}

void TapNet::connect(NetPeer* card) {
    (void)loop_.run([this, card] { card_ = card; });
}

void TapNet::use_queues(unsigned count) {
    for (unsigned i = 0; i < queues_.size() && queues_.size() > 1; ++i) {
        const bool wanted = i < std::max(count, 1U);
        if (wanted == queues_[i]->attached) continue;
        ifreq request{};
        request.ifr_flags = static_cast<short>(wanted ? IFF_ATTACH_QUEUE : IFF_DETACH_QUEUE);
        if (ioctl(queues_[i]->file.get(), TUNSETQUEUE, &request) == 0) queues_[i]->attached = wanted;
    }
}

void TapNet::guest_takes(const NetOffloads& offloads) {
    (void)ioctl(queues_[0]->file.get(), TUNSETOFFLOAD, offload_bits(offloads));
}

// --- Frames ---

std::size_t TapNet::transmit(unsigned index, std::span<const Frame> frames) {
    if (index >= queues_.size()) return frames.size();
    Queue& queue = *queues_[index];
    std::size_t done = 0;
    while (done < frames.size()) {
        const std::span<const iovec> pieces = frames[done].pieces;
        const ssize_t wrote = ::writev(queue.file.get(), pieces.data(), static_cast<int>(pieces.size()));
        if (wrote < 0 && errno == EINTR) continue;
        if (wrote < 0 && (errno == EAGAIN || errno == ENOBUFS)) {
            // The event may have come before we said that we wait for it: once more then.
            if (!queue.card_blocked.exchange(true)) continue;
            return done;
        }
        ++done;  // one that the kernel refuses is malformed, or the interface is down: it is lost
    }
    queue.card_blocked = false;
    return done;
}

std::size_t TapNet::next_size(unsigned index) {
    if (index >= queues_.size()) return 0;
    Queue& queue = *queues_[index];
    while (queue.size == 0) {
        const ssize_t got = ::read(queue.file.get(), queue.frame.data(), queue.frame.size());
        if (got < 0 && errno == EINTR) continue;
        if (got > static_cast<ssize_t>(sizeof(NetHeader))) {
            queue.size = static_cast<std::size_t>(got);
            break;
        }
        if (queue.card_waits.exchange(true)) return 0;
    }
    queue.card_waits = false;
    return queue.size;
}

std::size_t TapNet::receive(unsigned index, std::span<const iovec> pieces) {
    const std::size_t size = next_size(index);
    if (size == 0) return 0;
    Queue& queue = *queues_[index];
    std::span<const u8> rest(queue.frame.data(), size);
    for (const iovec& piece : pieces) {
        const std::size_t part = std::min(piece.iov_len, rest.size());
        if (part != 0) std::memcpy(piece.iov_base, rest.data(), part);
        rest = rest.subspan(part);
    }
    queue.size = 0;
    return size - rest.size();
}

void TapNet::drop(unsigned index) {
    if (next_size(index) != 0) queues_[index]->size = 0;
}

}  // namespace tessera::net
