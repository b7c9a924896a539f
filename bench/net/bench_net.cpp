// bench_net: what the user-mode network carries, from a card's queue through the confined helper to a socket
// of this host and back: TCP in large frames and in frames of one MTU, and UDP packets. The guest is a
// minimal sender and receiver, so it is the network that is measured; "host" is a plain loopback connection
// beside it.
#include <arpa/inet.h>
#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstring>
#include <fmt/format.h>
#include <mutex>
#include <netinet/in.h>
#include <string_view>
#include <sys/socket.h>
#include <thread>
#include <vector>

#include "backends/net/helper/net_helper.h"
#include "backends/net/open/open_net.h"

namespace {

using namespace tessera;       // NOLINT(google-build-using-namespace): a program of one file
using namespace tessera::net;  // NOLINT(google-build-using-namespace)
using Clock = std::chrono::steady_clock;

constexpr double kSeconds = 2;
constexpr std::size_t kHeaders = sizeof(NetHeader) + 14 + 20 + 20;
constexpr std::size_t kPiece = 262'144;

double since(Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
}

void put16(u8* to, unsigned value) {
    to[0] = static_cast<u8>(value >> 8);
    to[1] = static_cast<u8>(value);
}
void put32(u8* to, u32 value) {
    put16(to, value >> 16);
    put16(to + 2, value & 0xffff);
}
u32 get32(const u8* from) {
    return u32{from[0]} << 24 | u32{from[1]} << 16 | u32{from[2]} << 8 | from[3];
}

File loopback_socket(int type, u16& port) {
    File file(::socket(AF_INET, type | SOCK_CLOEXEC, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    (void)::bind(file.get(), reinterpret_cast<sockaddr*>(&address), size);
    (void)::getsockname(file.get(), reinterpret_cast<sockaddr*>(&address), &size);
    port = ntohs(address.sin_port);
    if (type == SOCK_STREAM) (void)::listen(file.get(), 1);
    return file;
}

File connect_loopback(int type, u16 port) {
    File file(::socket(AF_INET, type | SOCK_CLOEXEC, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    (void)::connect(file.get(), reinterpret_cast<sockaddr*>(&address), sizeof address);
    return file;
}

// A card and the guest's protocols behind it, as little as there can be.
class Guest final : public NetPeer {
public:
    explicit Guest(NetBackend& net) : net_(net), frame_(sizeof(NetHeader) + kMaxFrame) { net_.connect(this); }
    Guest(const Guest&) = delete;
    Guest& operator=(const Guest&) = delete;
    ~Guest() override { net_.connect(nullptr); }
    void frames_waiting() override { ring(); }
    void transmit_ready() override { ring(); }
    void link_changed(bool /*up*/) override {}

    void headers(std::vector<u8>& frame, u8 protocol, u16 port, std::size_t payload) const {
        const std::size_t header = protocol == 6 ? 20 : 8;
        frame.assign(sizeof(NetHeader) + 34 + header + payload, 'x');
        std::memset(frame.data(), 0, sizeof(NetHeader) + 34 + header);
        NetHeader net{.flags = NetHeader::kNeedsChecksum};
        net.checksum_start = 34;
        net.checksum_offset = protocol == 6 ? 16 : 6;
        if (payload > 1460) {
            net.gso_type = NetHeader::kGsoTcp4;
            net.gso_size = 1460;
            net.header_length = 54;
        }
        std::memcpy(frame.data(), &net, sizeof net);
        u8* ethernet = frame.data() + sizeof(NetHeader);
        const std::array<u8, 14> macs{0x52, 0x55, 0x0a, 0, 2, 2, 0x52, 0x54, 0, 0x12, 0x34, 0x56, 8, 0};
        std::memcpy(ethernet, macs.data(), macs.size());
        u8* ip = ethernet + 14;
        ip[0] = 0x45;
        put16(ip + 2, static_cast<unsigned>(20 + header + payload));
        ip[8] = 64;
        ip[9] = protocol;
        const std::array<u8, 8> addresses{10, 0, 2, 15, 10, 0, 2, 2};
        std::memcpy(ip + 12, addresses.data(), addresses.size());
        u32 sum = 0;
        for (int i = 0; i < 20; i += 2) sum += u32{ip[i]} << 8 | ip[i + 1];
        sum = (sum & 0xffff) + (sum >> 16);
        put16(ip + 10, ~((sum & 0xffff) + (sum >> 16)) & 0xffff);
        put16(ip + 20, 40000);
        put16(ip + 22, port);
        if (protocol == 17) put16(ip + 24, static_cast<unsigned>(8 + payload));
    }
    bool send(std::vector<u8>& frame) {
        const iovec piece{.iov_base = frame.data(), .iov_len = frame.size()};
        const NetBackend::Frame one{.pieces = {&piece, 1}};
        return net_.transmit(0, {&one, 1}) == 1;
    }
    // 0 if there is none.
    std::size_t take() {
        const iovec piece{.iov_base = frame_.data(), .iov_len = frame_.size()};
        return net_.next_size(0) == 0 ? 0 : net_.receive(0, {&piece, 1});
    }
    u32 rung() {
        const std::scoped_lock guard(mutex_);
        return rings_;
    }
    void wait(u32 rung) {
        std::unique_lock guard(mutex_);
        changed_.wait_for(guard, std::chrono::milliseconds(100), [&] { return rings_ != rung; });
    }

    // TCP.
    void tcp_header(std::vector<u8>& frame, u8 flags, u32 sequence) const {
        u8* tcp = frame.data() + sizeof(NetHeader) + 34;
        put32(tcp + 4, sequence);
        put32(tcp + 8, flags == 2 ? 0 : expects);
        tcp[12] = 0x50;
        tcp[13] = flags;
        put16(tcp + 14, 65535);
    }
    bool connect(u16 port) {
        std::vector<u8> syn;
        headers(syn, 6, port, 8);
        tcp_header(syn, 2, 1000);
        u8* tcp = syn.data() + sizeof(NetHeader) + 34;
        tcp[12] = 0x70;
        const std::array<u8, 8> options{2, 4, 5, 0xb4, 1, 3, 3, 5};
        std::memcpy(tcp + 20, options.data(), options.size());
        (void)send(syn);
        next = una = 1001;
        for (int i = 0; i < 100; ++i) {
            const u32 before = rung();
            if (const std::size_t size = take(); size >= kHeaders) {
                const u8* answer = frame_.data() + sizeof(NetHeader) + 34;
                expects = get32(answer + 4) + 1;
                headers(ack, 6, port, 0);
                acknowledge();
                return (answer[13] & 0x12) == 0x12;
            }
            wait(before);
        }
        return false;
    }
    void acknowledge() {
        tcp_header(ack, 0x10, next);
        (void)send(ack);
    }
    // Takes what has come; returns bytes of data.
    std::size_t take_all() {
        std::size_t bytes = 0;
        while (const std::size_t size = take()) {
            if (size < kHeaders) continue;
            const u8* tcp = frame_.data() + sizeof(NetHeader) + 34;
            una = get32(tcp + 8);
            window = (u32{tcp[14]} << 8 | tcp[15]) << 7;
            const std::size_t data = size - kHeaders;
            if (get32(tcp + 4) == expects) {
                expects += static_cast<u32>(data);
                bytes += data;
            }
        }
        return bytes;
    }

    u32 next = 0, una = 0, expects = 0, window = 65535;
    std::vector<u8> ack;

private:
    void ring() {
        const std::scoped_lock guard(mutex_);
        ++rings_;
        changed_.notify_all();
    }
    NetBackend& net_;
    std::vector<u8> frame_;
    std::mutex mutex_;
    std::condition_variable changed_;
    u32 rings_ = 0;
};

void row(std::string_view name, double value, std::string_view unit) {
    fmt::print("{:<44} {:>10.2f} {}\n", name, value, unit);
    (void)std::fflush(stdout);
}

// Counts what comes over one connection, until its end.
void read_all(const File& server, std::atomic<u64>& count) {
    const File connection(::accept4(server.get(), nullptr, nullptr, SOCK_CLOEXEC));
    std::vector<u8> buffer(kPiece);
    for (;;) {
        const ssize_t got = ::read(connection.get(), buffer.data(), buffer.size());
        if (got <= 0) return;
        count += static_cast<u64>(got);
    }
}

double upload(Guest& guest, std::size_t payload) {
    u16 port = 0;
    const File server = loopback_socket(SOCK_STREAM, port);
    std::atomic<u64> arrived = 0;
    std::thread sink([&] { read_all(server, arrived); });
    if (!guest.connect(port)) fmt::print("no connection\n");
    std::vector<u8> frame;
    guest.headers(frame, 6, port, payload);
    const auto start = Clock::now();
    while (since(start) < kSeconds) {
        const u32 before = guest.rung();
        (void)guest.take_all();
        bool sent = false;
        while (guest.next - guest.una + payload <= guest.window) {
            guest.tcp_header(frame, 0x10, guest.next);
            if (!guest.send(frame)) break;
            guest.next += static_cast<u32>(payload);
            sent = true;
        }
        if (!sent) guest.wait(before);
    }
    const double rate = static_cast<double>(arrived) * 8 / since(start) / 1e9;
    guest.tcp_header(guest.ack, 4, guest.una);
    std::vector<u8> reset = guest.ack;
    for (int i = 0; i < 100 && guest.una != guest.next; ++i) {
        const u32 before = guest.rung();
        (void)guest.take_all();
        guest.wait(before);
    }
    guest.tcp_header(reset, 4, guest.una);
    (void)guest.send(reset);
    sink.join();
    return rate;
}

double download(Guest& guest) {
    u16 port = 0;
    const File server = loopback_socket(SOCK_STREAM, port);
    std::thread source([&] {
        const File connection(::accept4(server.get(), nullptr, nullptr, SOCK_CLOEXEC));
        const std::vector<u8> buffer(kPiece, 'y');
        while (::send(connection.get(), buffer.data(), buffer.size(), MSG_NOSIGNAL) > 0) {
        }
    });
    if (!guest.connect(port)) fmt::print("no connection\n");
    u64 bytes = 0;
    const auto start = Clock::now();
    while (since(start) < kSeconds) {
        const u32 before = guest.rung();
        const std::size_t got = guest.take_all();
        bytes += got;
        if (got != 0)
            guest.acknowledge();
        else
            guest.wait(before);
    }
    const double rate = static_cast<double>(bytes) * 8 / since(start) / 1e9;
    std::vector<u8> reset = guest.ack;
    guest.tcp_header(reset, 4, guest.next);
    (void)guest.send(reset);
    source.join();
    while (guest.take() != 0) {
    }
    return rate;
}

// Small datagrams from the guest to a socket that echoes them.
void packets(Guest& guest) {
    u16 port = 0;
    const File server = loopback_socket(SOCK_DGRAM, port);
    std::atomic<bool> done = false;
    std::atomic<u64> arrived = 0;
    timeval patience{.tv_sec = 0, .tv_usec = 100'000};
    (void)setsockopt(server.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    std::thread echo([&] {
        std::array<u8, 2048> buffer{};
        while (!done) {
            sockaddr_in from{};
            socklen_t size = sizeof from;
            const ssize_t got = ::recvfrom(server.get(), buffer.data(), buffer.size(), 0,
                                           reinterpret_cast<sockaddr*>(&from), &size);
            if (got < 0) continue;
            ++arrived;
            (void)::sendto(server.get(), buffer.data(), static_cast<std::size_t>(got), 0,
                           reinterpret_cast<sockaddr*>(&from), size);
        }
    });
    std::vector<u8> frame;
    guest.headers(frame, 17, port, 64);
    u64 back = 0;
    u64 sent = 0;
    auto start = Clock::now();
    while (since(start) < kSeconds) {
        const u32 before = guest.rung();
        bool moved = false;
        for (int i = 0; i < 32 && sent - back < 200 && guest.send(frame); ++i) {
            ++sent;
            moved = true;
        }
        while (guest.take() != 0) {
            ++back;
            moved = true;
        }
        if (!moved) guest.wait(before);
    }
    row("UDP, 64 bytes, there and back, 200 in flight", static_cast<double>(back) / since(start) / 1e3,
        "thousand/s");
    u64 trips = 0;
    start = Clock::now();
    while (since(start) < kSeconds) {
        (void)guest.send(frame);
        for (;;) {
            const u32 before = guest.rung();
            if (guest.take() != 0) break;
            guest.wait(before);
        }
        ++trips;
    }
    row("UDP, 64 bytes, one after the other", since(start) * 1e6 / static_cast<double>(trips), "us");
    done = true;
    echo.join();
}

double host_tcp() {
    u16 port = 0;
    const File server = loopback_socket(SOCK_STREAM, port);
    std::atomic<u64> bytes = 0;
    std::thread sink([&] { read_all(server, bytes); });
    const auto start = Clock::now();
    {
        const File connection = connect_loopback(SOCK_STREAM, port);
        const std::vector<u8> buffer(kPiece, 'z');
        while (since(start) < kSeconds)
            (void)::send(connection.get(), buffer.data(), buffer.size(), MSG_NOSIGNAL);
    }
    sink.join();
    return static_cast<double>(bytes.load()) * 8 / since(start) / 1e9;
}

int measure() {
    auto loop = EventLoop::create("bench");
    NetOptions options;
    options.host_loopback = true;
    options.ipv6 = Choice::Off;
    options.helper_program = kThisProgram;
    auto net = open_net(options, **loop);
    if (!net) {
        fmt::print("{}\n", net.error().message);
        return 1;
    }
    Guest guest(**net);
    row("TCP on the host's loopback, for comparison", host_tcp(), "Gbit/s");
    (*net)->guest_takes({.checksum = true, .tso4 = true});
    row("TCP from the guest, frames of 62 KiB", upload(guest, 44 * std::size_t{1460}), "Gbit/s");
    row("TCP to the guest, frames of up to 62 KiB", download(guest), "Gbit/s");
    row("TCP from the guest, frames of one MTU", upload(guest, 1460), "Gbit/s");
    (*net)->guest_takes({.checksum = true});
    row("TCP to the guest, frames of one MTU", download(guest), "Gbit/s");
    (*net)->guest_takes({});
    row("TCP to the guest, one MTU, checksums by us", download(guest), "Gbit/s");
    packets(guest);
    return 0;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc == 2 && std::string_view(argv[1]) == kNetHelperCommand) return net_helper_main();
    return measure();
}
