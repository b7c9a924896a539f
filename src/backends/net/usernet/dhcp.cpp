#include "backends/net/usernet/dhcp.h"

#include <algorithm>

namespace tessera::usernet {

namespace {

constexpr std::size_t kOptionsAt = 240;
constexpr u32 kMagic = 0x63825363;
constexpr u32 kLeaseSeconds = 86400;
constexpr u16 kServerPort = 67;
constexpr u16 kClientPort = 68;
constexpr MacAddress kBroadcast{{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}};

enum class Option : u8 {  // [RFC 2132]
    Pad = 0,
    SubnetMask = 1,
    Router = 3,
    Resolver = 6,
    HostName = 12,
    Domain = 15,
    Mtu = 26,
    Broadcast = 28,
    RequestedAddress = 50,
    LeaseTime = 51,
    MessageType = 53,
    Server = 54,
    RenewTime = 58,
    RebindTime = 59,
    End = 255
};
enum class Type : u8 { Discover = 1, Offer = 2, Request = 3, Ack = 5, Nak = 6, Inform = 8 };

struct Request {
    u8 type = 0;
    IpAddress client;  // its own idea, 0.0.0.0 if none
    std::optional<IpAddress> requested;
    std::optional<IpAddress> server;
    bool wants_broadcast = false;
};

void take_option(Request& request, Option option, Bytes value) {
    if (option == Option::MessageType && value.size() == 1) request.type = value[0];
    if (option == Option::RequestedAddress && value.size() == 4)
        request.requested = IpAddress::from_v4(value);
    if (option == Option::Server && value.size() == 4) request.server = IpAddress::from_v4(value);
}

std::optional<Request> parse(Bytes bytes) {
    // A request from an Ethernet card.
    if (bytes.size() < kOptionsAt || bytes[0] != 1 || bytes[1] != 1 || bytes[2] != 6 ||
        get32(bytes, 236) != kMagic)
        return std::nullopt;
    Request request;
    request.client = IpAddress::from_v4(bytes.subspan(12, 4));
    request.wants_broadcast = (bytes[10] & 0x80) != 0;
    Bytes rest = bytes.subspan(kOptionsAt);
    while (!rest.empty() && rest[0] != static_cast<u8>(Option::End)) {
        if (rest[0] == static_cast<u8>(Option::Pad)) {
            rest = rest.subspan(1);
            continue;
        }
        if (rest.size() < 2 || rest[1] > rest.size() - 2) break;
        take_option(request, static_cast<Option>(rest[0]), rest.subspan(2, rest[1]));
        rest = rest.subspan(std::size_t{2} + rest[1]);
    }
    return request;
}

class Reply {
public:
    Reply(Bytes request, Type type, const IpAddress& yours) {
        put8(bytes_, kUdpHeader, 2);
        put_bytes(bytes_, kUdpHeader + 1, request.subspan(1, 2));
        put_bytes(bytes_, kUdpHeader + 4, request.subspan(4, 4));    // transaction
        put_bytes(bytes_, kUdpHeader + 10, request.subspan(10, 6));  // flags, client's address
        put_bytes(bytes_, kUdpHeader + 16, Bytes(yours.bytes).subspan(12));
        put_bytes(bytes_, kUdpHeader + 28, request.subspan(28, 16));  // hardware address
        put32(bytes_, kUdpHeader + 236, kMagic);
        add8(Option::MessageType, static_cast<u8>(type));
    }
    void add(Option option, Bytes value) {
        put8(bytes_, size_, static_cast<u8>(option));
        put8(bytes_, size_ + 1, static_cast<u32>(value.size()));
        put_bytes(bytes_, size_ + 2, value);
        size_ += 2 + value.size();
    }
    void add8(Option option, u8 value) { add(option, Bytes(&value, 1)); }
    void add16(Option option, u32 value) {
        std::array<u8, 2> bytes{};
        put16(bytes, 0, value);
        add(option, bytes);
    }
    void add32(Option option, u32 value) {
        std::array<u8, 4> bytes{};
        put32(bytes, 0, value);
        add(option, bytes);
    }
    void add(Option option, const IpAddress& address) { add32(option, address.as_v4()); }
    void add(Option option, const std::string& text) {
        constexpr std::size_t kMostText = 64;
        std::array<u8, kMostText> bytes{};
        const std::size_t size = std::min(text.size(), kMostText);
        std::copy_n(text.begin(), size, bytes.begin());
        if (size != 0) add(option, Bytes(bytes).first(size));
    }
    Room finish() {
        put8(bytes_, size_++, static_cast<u8>(Option::End));
        size_ = std::max(size_, kUdpHeader + 300);  // [RFC 1542 2.1]: no shorter than BOOTP's
        put16(bytes_, 0, kServerPort);
        put16(bytes_, 2, kClientPort);
        put16(bytes_, 4, static_cast<u32>(size_));
        return Room(bytes_).first(size_);
    }

private:
    std::array<u8, 576> bytes_{};
    std::size_t size_ = kUdpHeader + kOptionsAt;
};

void add_network(Reply& reply, const Config& config) {
    const u32 mask = config.prefix_bits == 0 ? 0 : ~u32{0} << (32 - config.prefix_bits);
    reply.add32(Option::SubnetMask, mask);
    reply.add32(Option::Broadcast, config.gateway.as_v4() | ~mask);
    // Restricted: no way out, so none is named.
    if (!config.restricted) reply.add(Option::Router, config.gateway);
    if (!config.restricted && !config.resolvers.empty()) reply.add(Option::Resolver, config.resolver);
    reply.add16(Option::Mtu, config.mtu);
    reply.add(Option::HostName, config.guest_name);
    reply.add(Option::Domain, config.domain);
}

std::optional<Type> answer_to(const Request& request, const IpAddress& lease, const Config& config) {
    switch (static_cast<Type>(request.type)) {
        case Type::Discover: return Type::Offer;
        case Type::Inform: return Type::Ack;
        case Type::Request: {
            if (request.server && *request.server != config.gateway) return std::nullopt;
            const IpAddress wanted = request.requested.value_or(request.client);
            return wanted == lease ? Type::Ack : Type::Nak;
        }
        case Type::Offer:
        case Type::Ack:
        case Type::Nak: return std::nullopt;
    }
    return std::nullopt;  // DECLINE, RELEASE: the lease is fixed
}

}  // namespace

std::optional<IpAddress> Dhcp::lease_for(const Config& config, const MacAddress& mac) {
    const auto found = std::ranges::find(leases_, mac);
    const auto index = static_cast<u32>(found - leases_.begin());
    const IpAddress address = IpAddress::v4(config.first_guest.as_v4() + index);
    if (index >= kMostLeases || !is_guest_address(config, address)) return std::nullopt;
    if (found == leases_.end()) leases_.push_back(mac);
    return address;
}

void Dhcp::answer(Output& output, const MacAddress& sender, Bytes request_bytes) {
    const Config& config = output.config();
    const auto request = parse(request_bytes);
    if (!request) return;
    MacAddress client;
    std::ranges::copy(request_bytes.subspan(28, 6), client.bytes.begin());
    if (client.is_group()) return;
    const auto lease = lease_for(config, client);
    if (!lease) return;
    const auto type = answer_to(*request, *lease, config);
    if (!type) return;

    const bool informs = static_cast<Type>(request->type) == Type::Inform;
    const bool refuses = *type == Type::Nak;
    Reply reply(request_bytes, *type, informs || refuses ? IpAddress::v4(0) : *lease);
    reply.add(Option::Server, config.gateway);
    if (!informs && !refuses) {
        reply.add32(Option::LeaseTime, kLeaseSeconds);
        reply.add32(Option::RenewTime, kLeaseSeconds / 2);
        reply.add32(Option::RebindTime, kLeaseSeconds / 8 * 7);
    }
    if (!refuses) add_network(reply, config);

    // [RFC 2131 4.1]: to the address the client has, else to the one it is given, which it cannot answer ARP
    // for yet; broadcast if it says so, and when it is refused.
    Envelope envelope{.from = config.gateway, .to = *lease, .protocol = Protocol::Udp};
    MacAddress to = sender;
    if (!request->client.is_zero() && !refuses) {
        envelope.to = request->client;
    } else if (request->wants_broadcast || refuses) {
        envelope.to = IpAddress::v4(0xffffffff);
        to = kBroadcast;
    }
    (void)output.send_to(to, envelope, reply.finish(), 6);
}

}  // namespace tessera::usernet
