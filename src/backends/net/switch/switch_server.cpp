#include "backends/net/switch/switch_server.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <ctime>
#include <memory>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>
#include <vector>

#include "backends/net/confine/confine.h"
#include "backends/net/helper/net_helper.h"
#include "backends/net/ring/link.h"
#include "backends/net/switch/mac_table.h"
#include "backends/net/switch/offload.h"

namespace tessera::net {

namespace {

constexpr std::size_t kMostMembers = 64;
constexpr int kFramesAtOnce = 64;
constexpr int kMessagesAtOnce = 32;
constexpr u64 kJoinPatienceMs = 5'000;
constexpr u64 kLonelyMs = 500;  // without members, before it ends
constexpr u32 kListener = ~u32{0};
constexpr NetOffloads kOffered{.checksum = true, .tso4 = true, .tso6 = true};

u64 now_ms() {
    timespec now{};
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return static_cast<u64>(now.tv_sec) * 1000 + static_cast<u64>(now.tv_nsec) / 1'000'000;
}

struct Member {
    File socket;
    std::unique_ptr<Link> link;  // null until it has said hello
    NetOffloads takes;
    u64 came_ms = 0;
    bool wake = false;  // owed to it
};

class SwitchServer {
public:
    SwitchServer() : members_(kMostMembers), scratch_(kMaxFrame) {}

    int run() {
        epoll_ = File(epoll_create1(EPOLL_CLOEXEC));
        if (!epoll_.is_open() || !watch(kHelperSocket, kListener)) return 1;
        lonely_since_ms_ = now_ms();
        while (!is_over()) {
            bool more = false;
            for (u32 i = 0; i < kMostMembers; ++i) more = take_frames(i) || more;
            wake_all();
            wait(more || !all_sleep() ? 0 : next_deadline());
        }
        return 0;
    }

private:
    [[nodiscard]] bool watch(int fd, u32 id) const {
        epoll_event event{.events = EPOLLIN, .data = {.u32 = id}};
        return epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) == 0;
    }

    // --- Members ---

    bool is_over() {
        const u64 now = now_ms();
        bool lonely = true;
        for (u32 i = 0; i < kMostMembers; ++i) {
            Member& member = members_[i];
            if (!member.socket.is_open()) continue;
            if (!member.link && now - member.came_ms > kJoinPatienceMs)
                leave(i);
            else
                lonely = false;
        }
        if (!lonely) lonely_since_ms_ = now;
        return lonely && now - lonely_since_ms_ > kLonelyMs;
    }
    // To be awake when is_over may have changed its mind.
    [[nodiscard]] int next_deadline() const {
        const bool settled =
            std::ranges::any_of(members_, [](const Member& member) { return member.link != nullptr; });
        const bool joining = std::ranges::any_of(
            members_, [](const Member& member) { return member.socket.is_open() && !member.link; });
        constexpr int kSoon = 250;
        return settled && !joining ? -1 : kSoon;
    }
    void accept_one() {
        File socket(accept4(kHelperSocket, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
        const auto place =
            std::ranges::find_if(members_, [](const Member& member) { return !member.socket.is_open(); });
        if (!socket.is_open() || place == members_.end()) return;  // full: it is closed
        const auto id = static_cast<u32>(place - members_.begin());
        if (!watch(socket.get(), id)) return;
        place->socket = std::move(socket);
        place->came_ms = now_ms();
    }
    void leave(u32 id) {
        members_[id] = {};
        table_.forget_member(id);
    }
    // False if it is gone, or says what no member says.
    bool hear(Member& member) {
        Message message;
        for (int i = 0; i < kMessagesAtOnce; ++i) {
            const Receipt receipt = receive_message(member.socket.get(), message);
            if (receipt == Receipt::Nothing) return true;
            if (receipt == Receipt::Gone) return false;
            switch (message.type) {
                case MessageType::Wake: break;
                case MessageType::Offloads:
                    if (message.content.size() != 1) return false;
                    member.takes = unpack_offloads(message.content[0]);
                    break;
                case MessageType::Hello: {
                    if (member.link || message.files.size() != 1) return false;
                    auto link = Link::adopt(member.socket.get(), std::move(message.files[0]));
                    if (!link) return false;
                    member.link = std::move(*link);
                    (void)send_message(member.socket.get(), MessageType::Ready);
                    break;
                }
                case MessageType::Ready: return false;
            }
        }
        return true;
    }
    void wait(int timeout_ms) {
        std::array<epoll_event, 64> events;  // NOLINT(cppcoreguidelines-pro-type-member-init): the kernel's
        const int count = epoll_wait(epoll_.get(), events.data(), events.size(), timeout_ms);
        for (int i = 0; i < count; ++i) {
            const u32 id = events[static_cast<std::size_t>(i)].data.u32;
            if (id == kListener)
                accept_one();
            else if (members_[id].socket.is_open() && !hear(members_[id]))
                leave(id);
        }
    }
    void wake_all() {
        for (Member& member : members_)
            if (std::exchange(member.wake, false) && member.link) member.link->wake_peer();
    }
    // True if nobody has sent anything, and everybody will wake us.
    bool all_sleep() {
        return std::ranges::all_of(
            members_, [](const Member& member) { return !member.link || member.link->in().sleep(); });
    }

    // --- Frames ---

    // True if there may be more.
    bool take_frames(u32 id) {
        Member& member = members_[id];
        for (int i = 0; member.link && i < kFramesAtOnce; ++i) {
            const std::span<const u8> frame = member.link->in().next();
            if (member.link->broken()) {
                leave(id);
                return false;
            }
            if (frame.empty()) return false;
            forward(id, frame);
            if (member.link->in().pop()) member.wake = true;
        }
        return member.link != nullptr;
    }
    void forward(u32 from, std::span<const u8> frame) {
        NetHeader header;
        std::memcpy(&header, frame.data(), sizeof header);
        const std::span<const u8> ethernet = frame.subspan(sizeof header);
        if (!header_is_sane(header, ethernet.size(), kOffered)) return;
        usernet::MacAddress to;
        usernet::MacAddress source;
        std::memcpy(to.bytes.data(), ethernet.data(), to.bytes.size());
        std::memcpy(source.bytes.data(), ethernet.subspan(to.bytes.size()).data(), source.bytes.size());
        const u64 now = now_ms();
        table_.learn(source, from, now);
        const auto place = to.is_group() ? std::nullopt : table_.find(to, now);
        for (u32 id = 0; id < kMostMembers; ++id)
            if (id != from && (!place || *place == id) && members_[id].link)
                deliver(members_[id], header, ethernet);
    }
    void deliver(Member& member, const NetHeader& header, std::span<const u8> ethernet) {
        if (takes_as_is(header, member.takes)) {
            put(member, header, ethernet);
            return;
        }
        // The sender may write to what it has sent: a copy is finished.
        std::memcpy(scratch_.data(), ethernet.data(), ethernet.size());
        complete_frame(header, std::span(scratch_).first(ethernet.size()),
                       [&](std::span<const u8> complete) { put(member, {}, complete); });
    }
    // Lost if the member does not keep up: its ring is its queue.
    static void put(Member& member, const NetHeader& header, std::span<const u8> ethernet) {
        const std::size_t size = sizeof header + ethernet.size();
        std::array<std::span<u8>, 1> room;
        if (member.link->out().reserve(size, room) == 0) return;
        std::memcpy(room[0].data(), &header, sizeof header);
        std::memcpy(room[0].subspan(sizeof header).data(), ethernet.data(), ethernet.size());
        if (member.link->out().commit(std::array{size})) member.wake = true;
    }

    File epoll_;
    std::vector<Member> members_;
    MacTable table_;
    std::vector<u8> scratch_;
    u64 lonely_since_ms_ = 0;
};

}  // namespace

int net_switch_main() {
    // Not a child of the VM that happened to be first.
    const pid_t child = fork();
    if (child != 0) return child < 0 ? 1 : 0;
    (void)setsid();
    return serve_switch();
}

int serve_switch() {
    (void)confine(Needs::NoSockets);
    return std::make_unique<SwitchServer>()->run();
}

}  // namespace tessera::net
