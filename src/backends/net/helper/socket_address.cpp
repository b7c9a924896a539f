#include "backends/net/helper/socket_address.h"

#include <cstring>

namespace tessera::net {

using usernet::Endpoint;
using usernet::IpAddress;

SocketAddress::SocketAddress(const Endpoint& endpoint) {
    if (endpoint.address.is_v4()) {
        sockaddr_in address{};
        address.sin_family = AF_INET;
        address.sin_port = htons(endpoint.port);
        address.sin_addr.s_addr = htonl(endpoint.address.as_v4());
        std::memcpy(&storage, &address, sizeof address);
        size = sizeof address;
        return;
    }
    sockaddr_in6 address{};
    address.sin6_family = AF_INET6;
    address.sin6_port = htons(endpoint.port);
    std::memcpy(&address.sin6_addr, endpoint.address.bytes.data(), sizeof address.sin6_addr);
    std::memcpy(&storage, &address, sizeof address);
    size = sizeof address;
}

Endpoint SocketAddress::endpoint() const {
    if (family() == AF_INET) {
        sockaddr_in address{};
        std::memcpy(&address, &storage, sizeof address);
        return {.address = IpAddress::v4(ntohl(address.sin_addr.s_addr)), .port = ntohs(address.sin_port)};
    }
    sockaddr_in6 address{};
    std::memcpy(&address, &storage, sizeof address);
    Endpoint endpoint{.address = {}, .port = ntohs(address.sin6_port)};
    std::memcpy(endpoint.address.bytes.data(), &address.sin6_addr, sizeof address.sin6_addr);
    return endpoint;
}

}  // namespace tessera::net
