// Endpoints as the system calls have them.
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>

#include "backends/net/usernet/addresses.h"

namespace tessera::net {

struct SocketAddress {
    sockaddr_storage storage{};
    socklen_t size = sizeof(sockaddr_storage);

    SocketAddress() = default;
    explicit SocketAddress(const usernet::Endpoint& endpoint);
    [[nodiscard]] usernet::Endpoint endpoint() const;
    [[nodiscard]] int family() const { return storage.ss_family; }
    [[nodiscard]] sockaddr* raw() { return reinterpret_cast<sockaddr*>(&storage); }
    [[nodiscard]] const sockaddr* raw() const { return reinterpret_cast<const sockaddr*>(&storage); }
};

}  // namespace tessera::net
