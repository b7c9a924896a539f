#include "backends/net/usernet/packet.h"

#include "backends/net/usernet/checksum.h"

namespace tessera::usernet {

u64 pseudo_sum(const IpAddress& from, const IpAddress& to, Protocol protocol, std::size_t length) {
    std::array<u8, 8> rest{};
    put32(rest, 0, static_cast<u32>(length));
    put32(rest, 4, static_cast<u32>(protocol));
    u64 sum = add_to_sum(0, rest);
    const std::size_t skip = from.is_v4() ? 12 : 0;
    sum = add_to_sum(sum, Bytes(from.bytes).subspan(skip));
    return add_to_sum(sum, Bytes(to.bytes).subspan(skip));
}

bool checksum_is_right(const Packet& packet) {
    if ((packet.net.flags & NetHeader::kNeedsChecksum) != 0) return true;
    u64 sum = 0;
    if (packet.protocol != Protocol::Icmp)
        sum = pseudo_sum(packet.from, packet.to, packet.protocol, packet.message.size());
    return adds_up(add_to_sum(sum, packet.message));
}

}  // namespace tessera::usernet
