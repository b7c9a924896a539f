// The far end of the network rows: a connection begins with a letter that says what is to be done with it.
//     D  send until the other end closes        U  receive until the end, then say how many bytes (64 bits)
//     R  send back every byte at once           P  say how many UDP packets came since the last time (64
//     bits)
// UDP packets whose first byte is 'E' are sent back.
#include <arpa/inet.h>
#include <array>
#include <atomic>
#include <cstdio>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <thread>
#include <unistd.h>
#include <vector>

#include "io.h"

namespace tessera::iobench {
namespace {

constexpr std::size_t kChunk = 256 << 10;
std::atomic<u64> packets;

bool send_all(int connection, const void* bytes, std::size_t length) {
    const auto* at = static_cast<const u8*>(bytes);
    while (length != 0) {
        const ssize_t sent = send(connection, at, length, MSG_NOSIGNAL);
        if (sent <= 0) return false;
        at += sent;
        length -= static_cast<std::size_t>(sent);
    }
    return true;
}

void answer(int connection) {
    const int one = 1;
    (void)setsockopt(connection, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    std::vector<u8> bytes(kChunk);
    char letter = 0;
    if (recv(connection, &letter, 1, 0) == 1) {
        u64 count = 0;
        if (letter == 'D') {
            while (send_all(connection, bytes.data(), bytes.size())) {
            }
        } else if (letter == 'U') {
            for (ssize_t got = 0; (got = recv(connection, bytes.data(), bytes.size(), 0)) > 0;)
                count += static_cast<u64>(got);
            (void)send_all(connection, &count, sizeof(count));
        } else if (letter == 'R') {
            for (ssize_t got = 0; (got = recv(connection, bytes.data(), bytes.size(), 0)) > 0;)
                if (!send_all(connection, bytes.data(), static_cast<std::size_t>(got))) break;
        } else if (letter == 'P') {
            count = packets.exchange(0);
            (void)send_all(connection, &count, sizeof(count));
        }
    }
    (void)close(connection);
}

void answer_packets(int socket) {
    std::array<u8, 2048> bytes{};
    for (;;) {
        sockaddr_in from{};
        socklen_t length = sizeof(from);
        const ssize_t got =
            recvfrom(socket, bytes.data(), bytes.size(), 0, reinterpret_cast<sockaddr*>(&from), &length);
        if (got <= 0) continue;
        packets.fetch_add(1, std::memory_order_relaxed);
        if (bytes[0] == 'E')
            (void)sendto(socket, bytes.data(), static_cast<std::size_t>(got), 0,
                         reinterpret_cast<sockaddr*>(&from), length);
    }
}

}  // namespace

void serve(const std::string& address) {
    sockaddr_in place{};
    place.sin_family = AF_INET;
    socklen_t length = sizeof(place);
    if (inet_pton(AF_INET, address.c_str(), &place.sin_addr) != 1) fail(address);
    const int listener = socket(AF_INET, SOCK_STREAM, 0), datagrams = socket(AF_INET, SOCK_DGRAM, 0);
    if (bind(listener, reinterpret_cast<sockaddr*>(&place), length) != 0 || listen(listener, 16) != 0)
        fail("listen");
    if (getsockname(listener, reinterpret_cast<sockaddr*>(&place), &length) != 0) fail("getsockname");
    if (bind(datagrams, reinterpret_cast<sockaddr*>(&place), length) != 0) fail("bind");
    std::printf("%d\n", ntohs(place.sin_port));
    (void)std::fflush(stdout);
    std::thread(answer_packets, datagrams).detach();
    std::thread([listener] {
        for (int connection = 0; (connection = accept(listener, nullptr, nullptr)) >= 0;)
            std::thread(answer, connection).detach();
    }).detach();
    char byte = 0;
    while (read(STDIN_FILENO, &byte, 1) > 0) {
    }
    std::_Exit(0);
}

}  // namespace tessera::iobench
