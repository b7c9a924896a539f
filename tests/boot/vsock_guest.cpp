// What the guest of boot.vsock_* runs: a static program that uses its sockets of the family AF_VSOCK.
//
//     vsock echo PORT COUNT    listens, and sends back what each of COUNT connections sends, one after
//     another vsock send CID PORT      sends what it reads from standard input, and says what comes back
#include <array>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <linux/vm_sockets.h>
#include <span>
#include <string_view>
#include <sys/socket.h>
#include <unistd.h>

namespace {

int fail(const char* what) {
    (void)std::printf("%s: %m\n", what);
    return 1;
}

sockaddr_vm address_of(unsigned cid, const char* port) {
    sockaddr_vm address{};
    address.svm_family = AF_VSOCK;
    address.svm_cid = cid;
    address.svm_port = static_cast<unsigned>(std::strtoul(port, nullptr, 10));
    return address;
}

bool write_all(int to, std::span<const char> bytes) {
    while (!bytes.empty()) {
        const ssize_t wrote = write(to, bytes.data(), bytes.size());
        if (wrote < 0) return false;
        bytes = bytes.subspan(static_cast<std::size_t>(wrote));
    }
    return true;
}

// To the end of what comes.
bool copy(int from, int to) {
    std::array<char, 65536> buffer{};
    for (;;) {
        const ssize_t got = read(from, buffer.data(), buffer.size());
        if (got <= 0) return got == 0;
        if (!write_all(to, std::span(buffer).first(static_cast<std::size_t>(got)))) return false;
    }
}

int echo(const char* port, const char* count) {
    const int listener = socket(AF_VSOCK, SOCK_STREAM, 0);
    const sockaddr_vm address = address_of(VMADDR_CID_ANY, port);
    if (bind(listener, reinterpret_cast<const sockaddr*>(&address), sizeof address) < 0 ||
        listen(listener, 8) < 0)
        return fail("listen");
    (void)std::printf("listening\n");
    (void)std::fflush(stdout);
    for (long left = std::strtol(count, nullptr, 10); left > 0; --left) {
        sockaddr_vm peer{};
        socklen_t size = sizeof peer;
        const int connection = accept(listener, reinterpret_cast<sockaddr*>(&peer), &size);
        if (connection < 0) return fail("accept");
        if (!copy(connection, connection)) return fail("echo");
        (void)std::printf("served %u\n", peer.svm_cid);
        (void)std::fflush(stdout);
        (void)close(connection);
    }
    return 0;
}

int send(const char* cid, const char* port) {
    const int connection = socket(AF_VSOCK, SOCK_STREAM, 0);
    const sockaddr_vm address = address_of(static_cast<unsigned>(std::strtoul(cid, nullptr, 10)), port);
    if (connect(connection, reinterpret_cast<const sockaddr*>(&address), sizeof address) < 0)
        return fail("connect");
    if (!copy(STDIN_FILENO, connection) || shutdown(connection, SHUT_WR) < 0) return fail("send");
    if (!copy(connection, STDOUT_FILENO)) return fail("receive");
    return 0;
}

}  // namespace

int main(int count, char** words) {
    (void)std::signal(SIGPIPE, SIG_IGN);
    const std::span<char*> arguments(words, static_cast<std::size_t>(count));
    if (count == 4 && std::string_view(arguments[1]) == "echo") return echo(arguments[2], arguments[3]);
    if (count == 4 && std::string_view(arguments[1]) == "send") return send(arguments[2], arguments[3]);
    (void)std::printf("vsock echo PORT COUNT | send CID PORT\n");
    return 2;
}
