// A hostile guest, a host whose sockets do anything, and a wire that runs out of room, against the user-mode
// network. Checksums are promised rather than computed, or hardly a frame would get past them.
#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <vector>

#include "backends/net/usernet/stack.h"

namespace {

using namespace tessera;           // NOLINT(google-build-using-namespace): a program of one file
using namespace tessera::usernet;  // NOLINT(google-build-using-namespace)

class Input {
public:
    Input(const u8* data, std::size_t size) : rest_(data, size) {}
    [[nodiscard]] bool empty() const { return rest_.empty(); }
    u8 byte() {
        if (rest_.empty()) return 0;
        const u8 value = rest_[0];
        rest_ = rest_.subspan(1);
        return value;
    }
    u32 word() { return u32{byte()} << 8 | byte(); }
    Bytes take(std::size_t size) {
        const Bytes taken = rest_.first(std::min(size, rest_.size()));
        rest_ = rest_.subspan(taken.size());
        return taken;
    }

private:
    Bytes rest_;
};

void must(bool right, const char* what) {
    if (right) return;
    std::fprintf(stderr, "broken promise: %s\n", what);
    std::abort();
}

class FuzzHost final : public Host {
public:
    explicit FuzzHost(Input& input) : input_(input) {}
    ConnectResult tcp_connect(u32 id, const Endpoint& to) override {
        check(to);
        must(!tcp_[id], "a number is given out once");
        tcp_[id] = true;
        return static_cast<ConnectResult>(input_.byte() % 5);
    }
    Transfer tcp_send(u32 id, Bytes bytes) override {
        must(tcp_[id], "only open sockets are used");
        const u8 how = input_.byte();
        return {.bytes = how > 128 ? bytes.size() : bytes.size() * how / 128, .failed = how == 1};
    }
    Transfer tcp_peek(u32 id, u32 /*offset*/, std::span<const iovec> room) override {
        must(tcp_[id], "only open sockets are used");
        const u8 how = input_.byte();
        Transfer done{.bytes = 0, .failed = how == 1};
        for (const iovec& piece : room) {
            const std::size_t size = how > 128 ? piece.iov_len : piece.iov_len * how / 128;
            std::memset(piece.iov_base, 'x', size);
            done.bytes += size;
        }
        return done;
    }
    void tcp_discard(u32 id, u32 /*bytes*/) override { must(tcp_[id], "only open sockets are used"); }
    void tcp_finish(u32 id) override { must(tcp_[id], "only open sockets are used"); }
    void tcp_close(u32 id, Ending /*ending*/) override {
        must(tcp_[id], "closed once");
        tcp_[id] = false;
    }
    bool datagram_open(u32 id, DatagramKind /*kind*/, const Endpoint& to) override {
        check(to);
        must(!datagrams_[id], "a number is given out once");
        datagrams_[id] = input_.byte() % 8 != 0;
        return datagrams_[id];
    }
    void datagram_send(u32 id, Bytes /*message*/) override {
        must(datagrams_[id], "only open sockets are used");
    }
    std::optional<std::size_t> datagram_receive(u32 id, Room room) override {
        must(datagrams_[id], "only open sockets are used");
        if (input_.byte() % 4 == 0) return std::nullopt;
        return std::min<std::size_t>(room.size(), input_.word());
    }
    void datagram_close(u32 id) override {
        must(datagrams_[id], "closed once");
        datagrams_[id] = false;
    }
    std::optional<Arrival> forward_receive(u32 /*forward*/, Room room) override {
        if (input_.byte() % 4 == 0) return std::nullopt;
        Arrival arrival;
        arrival.from = {.address = IpAddress::v4(input_.word() << 8),
                        .port = static_cast<u16>(input_.word())};
        arrival.bytes = std::min<std::size_t>(room.size(), input_.word());
        return arrival;
    }
    void forward_send(u32 /*forward*/, const Endpoint& /*to*/, Bytes /*message*/) override {}
    void forget(u32 id) { tcp_[id] = true; }

private:
    static void check(const Endpoint& to) {
        const IpAddress& address = to.address;
        must(!address.is_loopback() && !address.is_multicast() && !address.is_zero() &&
                 !address.is_link_local(),
             "a guest does not reach the host itself");
    }
    Input& input_;
    std::array<bool, Tcp::kMostConnections> tcp_{};
    std::array<bool, Datagrams::kMostFlows> datagrams_{};
};

class FuzzWire final : public Wire {
public:
    std::size_t reserve(std::size_t size, std::span<Room> frames) override {
        kept_.clear();
        for (std::size_t i = 0; i < frames.size() && i < room; ++i) {
            kept_.push_back(std::make_unique<std::vector<u8>>(size));
            frames[i] = *kept_.back();
        }
        return kept_.size();
    }
    void commit(std::span<const std::size_t> sizes) override {
        must(sizes.size() <= kept_.size(), "no more than was reserved");
        for (std::size_t i = 0; i < sizes.size(); ++i) must(sizes[i] <= kept_[i]->size(), "no larger either");
        kept_.clear();
    }
    [[nodiscard]] bool drained() const override { return room > 1; }
    std::size_t room = 4;

private:
    std::vector<std::unique_ptr<std::vector<u8>>> kept_;
};

// Frames of a guest begin alike; the rest is the fuzzer's.
std::vector<u8> frame_of(Input& input, const Config& config) {
    const u8 kind = input.byte();
    std::vector<u8> frame(sizeof(NetHeader));
    frame[0] = NetHeader::kNeedsChecksum;
    frame[1] = kind % 8 == 7 ? NetHeader::kGsoUdpL4 : 0;
    frame[4] = input.byte();
    frame.insert(frame.end(), config.mac.bytes.begin(), config.mac.bytes.end());
    frame.insert(frame.end(), {2, 0, 0, 0, 0, 1});
    const Bytes body = input.take(input.word() % 2000);
    static constexpr std::array<u16, 4> kTypes{0x0800, 0x0800, 0x86dd, 0x0806};
    const u16 type = kTypes[kind % kTypes.size()];
    frame.push_back(static_cast<u8>(type >> 8));
    frame.push_back(static_cast<u8>(type));
    if (kind < 128 && type == 0x0800) {  // a header that is right
        std::array<u8, 20> ip{0x45, 0, 0, 0, 0, 1, 0, 0, 64, 0, 0, 0, 10, 0, 2, 15, 192, 0, 2, 1};
        put16(ip, 2, static_cast<u32>(ip.size() + body.size()));
        static constexpr std::array<u8, 4> kProtocols{6, 6, 17, 1};
        ip[9] = kProtocols[kind / 4 % 4];
        if (kind % 16 == 9) put16(ip, 6, input.word());
        if (kind % 16 == 5) std::copy_n(config.resolver.bytes.begin() + 12, 4, ip.begin() + 16);
        u32 sum = 0;
        for (std::size_t i = 0; i < ip.size(); i += 2) sum += get16(ip, i);
        sum = (sum & 0xffff) + (sum >> 16);
        put16(ip, 10, ~((sum & 0xffff) + (sum >> 16)));
        frame.insert(frame.end(), ip.begin(), ip.end());
    }
    frame.insert(frame.end(), body.begin(), body.end());
    return frame;
}

}  // namespace

// NOLINTNEXTLINE(readability-identifier-naming): libFuzzer fixes this name.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    Input input(data, size);
    Config config;
    config.resolvers = {{.address = IpAddress::v4(0xc6336435), .port = 53},
                        {.address = IpAddress::v4(0xc6336436), .port = 53}};
    config.forwards = {{.guest = {.address = config.first_guest, .port = 22}},
                       {.transport = Transport::Udp, .guest = {.address = config.first_guest, .port = 69}}};
    FuzzHost host(input);
    FuzzWire wire;
    auto stack = std::make_unique<Stack>(config, host, wire);
    u64 now_ms = 0;
    for (int step = 0; step < 500 && !input.empty(); ++step) {
        const u8 what = input.byte();
        switch (what % 12) {
            case 0:
                stack->tcp_connected(what / 12, static_cast<ConnectResult>(input.byte() % 5), now_ms);
                break;
            case 1: {
                const u8 flags = input.byte();
                stack->tcp_ready(flags >> 4,
                                 {.readable = (flags & 1) != 0,
                                  .writable = (flags & 2) != 0,
                                  .finished = (flags & 4) != 0,
                                  .failed = (flags & 8) != 0},
                                 now_ms);
                break;
            }
            case 2: stack->datagram_readable(what / 12); break;
            case 3: stack->datagram_failed(what / 12); break;
            case 4: stack->forward_readable(1); break;
            case 5:
                if (const auto id = stack->tcp_incoming(
                        0, {.address = IpAddress::v4(0x7f000001), .port = input.byte()}, now_ms))
                    host.forget(*id);
                break;
            case 6: wire.room = input.byte() % 8; break;
            case 7: now_ms += input.word() * u64{16}; break;
            case 8: stack->guest_takes({.checksum = (what & 16) != 0, .tso4 = (what & 32) != 0}); break;
            default: {
                // Exactly as large as it is, for the sanitizer.
                const std::vector<u8> made = frame_of(input, config);
                const auto exact = std::make_unique<u8[]>(made.size());  // NOLINT(modernize-avoid-c-arrays)
                std::copy(made.begin(), made.end(), exact.get());
                stack->input(Bytes(exact.get(), made.size()), now_ms);
            }
        }
        for (int turn = 0; turn < 8 && stack->flush(now_ms); ++turn) {
        }
        (void)stack->run_due(now_ms);
    }
    return 0;
}
