// A DHCP server [RFC 2131] with one fixed lease for each card that asks, the first for Config::first_guest.
// GAP: BOOTP without DHCP options, and network booting.
#pragma once

#include <vector>

#include "backends/net/usernet/output.h"

namespace tessera::usernet {

class Dhcp {
public:
    // `request_bytes` is the payload of a UDP packet to port 67, copied.
    void answer(Output& output, const MacAddress& sender, Bytes request_bytes);

    static constexpr std::size_t kMostLeases = 16;

private:
    std::optional<IpAddress> lease_for(const Config& config, const MacAddress& mac);
    std::vector<MacAddress> leases_;
};

}  // namespace tessera::usernet
