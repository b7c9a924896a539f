// A host whose sockets are strings, and a wire that keeps frames: both can be short of room.
#pragma once

#include <deque>
#include <map>
#include <memory>

#include "backends/net/usernet/stack.h"
#include "backends/net/usernet/testing/frames.h"

namespace tessera::usernet::testing {

class FakeHost final : public Host {
public:
    struct TcpSocket {
        Endpoint to;
        std::string sent;       // by the guest
        std::string incoming;   // for the guest, not yet discarded
        bool finished = false;  // by the guest
        bool closed = false;
        Ending ending{};
    };
    struct DatagramSocket {
        DatagramKind kind{};
        Endpoint to;
        std::vector<std::string> sent;
        std::deque<std::string> incoming;
        bool closed = false;
    };
    struct ForwardSocket {
        std::vector<std::pair<Endpoint, std::string>> sent;
        std::deque<std::pair<Endpoint, std::string>> incoming;
    };

    ConnectResult tcp_connect(u32 id, const Endpoint& to) override {
        tcp[id] = {};
        tcp[id].to = to;
        last_tcp = id;
        ++connects;
        return connect_result;
    }
    Transfer tcp_send(u32 id, Bytes bytes) override {
        if (dead) return {.failed = true};
        const std::size_t taken = std::min(bytes.size(), send_room);
        tcp.at(id).sent.append(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(taken));
        if (send_room != kUnlimited) send_room -= taken;
        return {.bytes = taken};
    }
    Transfer tcp_peek(u32 id, u32 offset, std::span<const iovec> room) override {
        if (dead) return {.failed = true};
        const std::string& data = tcp.at(id).incoming;
        Transfer done;
        for (const iovec& piece : room) {
            const std::size_t at = std::min(data.size(), offset + done.bytes);
            const std::size_t size = std::min(piece.iov_len, data.size() - at);
            std::memcpy(piece.iov_base, data.data() + at, size);
            done.bytes += size;
        }
        return done;
    }
    void tcp_discard(u32 id, u32 bytes) override {
        EXPECT_LE(bytes, tcp.at(id).incoming.size());
        tcp.at(id).incoming.erase(0, bytes);
    }
    void tcp_finish(u32 id) override {
        EXPECT_FALSE(tcp.at(id).finished);
        tcp.at(id).finished = true;
    }
    void tcp_close(u32 id, Ending ending) override {
        EXPECT_FALSE(tcp.at(id).closed);
        tcp.at(id).closed = true;
        tcp.at(id).ending = ending;
    }

    bool datagram_open(u32 id, DatagramKind kind, const Endpoint& to) override {
        if (!datagrams_allowed) return false;
        EXPECT_TRUE(!datagrams.contains(id) || datagrams[id].closed);
        datagrams[id] = {};
        datagrams[id].kind = kind;
        datagrams[id].to = to;
        last_datagram = id;
        return true;
    }
    void datagram_send(u32 id, Bytes message) override {
        datagrams.at(id).sent.emplace_back(message.begin(), message.end());
    }
    std::optional<std::size_t> datagram_receive(u32 id, Room room) override {
        return pop(datagrams.at(id).incoming, room);
    }
    void datagram_close(u32 id) override {
        EXPECT_FALSE(datagrams.at(id).closed);
        datagrams.at(id).closed = true;
    }

    std::optional<Arrival> forward_receive(u32 forward, Room room) override {
        auto& waiting = forwards[forward].incoming;
        if (waiting.empty()) return std::nullopt;
        const Endpoint from = waiting.front().first;
        std::deque<std::string> one{waiting.front().second};
        waiting.pop_front();
        return Arrival{.from = from, .bytes = *pop(one, room)};
    }
    void forward_send(u32 forward, const Endpoint& to, Bytes message) override {
        forwards[forward].sent.emplace_back(to, std::string(message.begin(), message.end()));
    }

    static constexpr std::size_t kUnlimited = ~std::size_t{0};
    ConnectResult connect_result = ConnectResult::InProgress;
    std::size_t send_room = kUnlimited;
    bool dead = false;
    bool datagrams_allowed = true;
    int connects = 0;
    u32 last_tcp = 0;
    u32 last_datagram = 0;
    std::map<u32, TcpSocket> tcp;
    std::map<u32, DatagramSocket> datagrams;
    std::map<u32, ForwardSocket> forwards;

private:
    static std::optional<std::size_t> pop(std::deque<std::string>& waiting, Room room) {
        if (waiting.empty()) return std::nullopt;
        const std::string message = waiting.front();
        waiting.pop_front();
        const std::size_t size = std::min(message.size(), room.size());
        std::memcpy(room.data(), message.data(), size);
        return size;
    }
};

class FakeWire final : public Wire {
public:
    std::size_t reserve(std::size_t size, std::span<Room> frames) override {
        reserved_.clear();
        std::size_t count = 0;
        while (count < frames.size() && sent.size() + count < room) {
            // Exactly as large as asked for: the sanitizer sees what writes past it.
            reserved_.push_back(std::make_unique<Buffer>(size, u8{0xa5}));
            frames[count++] = *reserved_.back();
        }
        return count;
    }
    void commit(std::span<const std::size_t> sizes) override {
        ASSERT_LE(sizes.size(), reserved_.size());
        for (std::size_t i = 0; i < sizes.size(); ++i) {
            ASSERT_LE(sizes[i], reserved_[i]->size());
            reserved_[i]->resize(sizes[i]);
            sent.push_back(std::move(*reserved_[i]));
        }
        reserved_.clear();
    }
    [[nodiscard]] bool drained() const override { return is_drained; }

    std::size_t room = 100'000;  // frames
    bool is_drained = true;
    std::deque<Buffer> sent;

private:
    std::vector<std::unique_ptr<Buffer>> reserved_;
};

}  // namespace tessera::usernet::testing
