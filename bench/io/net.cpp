// Rows of a network, as a client sees them: streams in both directions, one byte there and back, small UDP
// packets sent and sent back.
#include <arpa/inet.h>
#include <array>
#include <cerrno>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>
#include <vector>

#include "io.h"

namespace tessera::iobench {
namespace {

constexpr std::size_t kChunk = 128 << 10;
constexpr std::size_t kPacket = 64;
constexpr int kWindow = 32;  // packets on their way there and back

struct Server {
    sockaddr_in place{};
    [[nodiscard]] const sockaddr* address() const { return reinterpret_cast<const sockaddr*>(&place); }
};

int connect_for(const Server& server, char letter) {
    const int connection = socket(AF_INET, SOCK_STREAM, 0);
    const int one = 1;
    (void)setsockopt(connection, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    if (connect(connection, server.address(), sizeof(server.place)) != 0) fail("connect");
    if (send(connection, &letter, 1, 0) != 1) fail("send");
    return connection;
}

u64 receive_count(int connection) {
    u64 count = 0;
    if (recv(connection, &count, sizeof(count), MSG_WAITALL) != sizeof(count)) fail("the server's answer");
    return count;
}

void stream_from(const Server& server, const std::string& name, double seconds) {
    const int connection = connect_for(server, 'D');
    std::vector<u8> bytes(kChunk);
    const Row row(name, "byte");
    u64 sum = 0;
    while (row.elapsed() < seconds) {
        const ssize_t got = recv(connection, bytes.data(), bytes.size(), 0);
        if (got <= 0) fail(name);
        sum += static_cast<u64>(got);
    }
    row.print(static_cast<double>(sum), sum / 1460);
    (void)close(connection);
}

void stream_to(const Server& server, const std::string& name, double seconds) {
    const int connection = connect_for(server, 'U');
    const std::vector<u8> bytes(kChunk);
    const Row row(name, "byte");
    u64 sum = 0;
    while (row.elapsed() < seconds) {
        const ssize_t sent = send(connection, bytes.data(), bytes.size(), 0);
        if (sent <= 0) fail(name);
        sum += static_cast<u64>(sent);
    }
    (void)shutdown(connection, SHUT_WR);
    // All of it has arrived: what lies in between does not count.
    if (receive_count(connection) != sum) fail(name + ": not all arrived");
    row.print(static_cast<double>(sum), sum / 1460);
    (void)close(connection);
}

void there_and_back(const Server& server, const std::string& name, double seconds) {
    const int connection = connect_for(server, 'R');
    const Row row(name, "trip");
    u64 trips = 0;
    for (; row.elapsed() < seconds; ++trips) {
        char byte = 'x';
        if (send(connection, &byte, 1, 0) != 1 || recv(connection, &byte, 1, 0) != 1) fail(name);
    }
    row.print(static_cast<double>(trips), trips);
    (void)close(connection);
}

int packet_socket(const Server& server) {
    const int socket_number = socket(AF_INET, SOCK_DGRAM, 0);
    const timeval patience{.tv_sec = 0, .tv_usec = 100'000};
    (void)setsockopt(socket_number, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    if (connect(socket_number, server.address(), sizeof(server.place)) != 0) fail("connect");
    return socket_number;
}

void packets_to(const Server& server, const std::string& name, double seconds) {
    const int packets = packet_socket(server);
    std::array<u8, kPacket> bytes{'S'};
    const int before = connect_for(server, 'P');
    (void)receive_count(before);
    (void)close(before);
    const Row row(name, "packet");
    while (row.elapsed() < seconds)
        for (int i = 0; i < kWindow; ++i)
            if (send(packets, bytes.data(), bytes.size(), 0) < 0 && errno != ENOBUFS && errno != ECONNREFUSED)
                fail(name);
    // Those that arrived count, not those that were sent.
    const int after = connect_for(server, 'P');
    const u64 count = receive_count(after);
    row.print(static_cast<double>(count), count);
    (void)close(after);
    (void)close(packets);
}

void packets_back(const Server& server, const std::string& name, double seconds) {
    const int packets = packet_socket(server);
    std::array<u8, kPacket> bytes{'E'};
    const Row row(name, "packet");
    u64 came = 0;
    int flying = 0;
    while (row.elapsed() < seconds) {
        for (; flying < kWindow; ++flying)
            if (send(packets, bytes.data(), bytes.size(), 0) < 0) break;
        if (recv(packets, bytes.data(), bytes.size(), 0) < 0) {
            flying = 0;  // the rest has been lost
            continue;
        }
        ++came;
        --flying;
        while (recv(packets, bytes.data(), bytes.size(), MSG_DONTWAIT) > 0) {
            ++came;
            if (flying > 0) --flying;
        }
    }
    row.print(static_cast<double>(came), came);
    (void)close(packets);
}

}  // namespace

void net_rows(const std::string& address, u16 port, const Wanted& wanted) {
    Server server;
    server.place.sin_family = AF_INET;
    server.place.sin_port = htons(port);
    if (inet_pton(AF_INET, address.c_str(), &server.place.sin_addr) != 1) fail(address);
    struct Load {
        const char* name;
        void (*run)(const Server& server, const std::string& name, double seconds);
    };
    constexpr std::array kLoads{Load{"tcp_send", stream_to}, Load{"tcp_receive", stream_from},
                                Load{"tcp_trip", there_and_back}, Load{"udp_send", packets_to},
                                Load{"udp_echo", packets_back}};
    for (const Load& load : kLoads)
        if (wanted.has(load.name)) load.run(server, wanted.prefix + load.name, wanted.seconds);
}

}  // namespace tessera::iobench
