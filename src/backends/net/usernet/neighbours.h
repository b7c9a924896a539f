// Which Ethernet address the guest's IP addresses have: learnt from what it sends, bounded.
#pragma once

#include <algorithm>
#include <array>
#include <optional>

#include "backends/net/usernet/addresses.h"

namespace tessera::usernet {

class Neighbours {
public:
    void learn(const IpAddress& address, const MacAddress& mac) {
        ++age_;
        auto* entry = std::ranges::find(entries_, address, &Entry::address);
        if (entry == entries_.end()) entry = std::ranges::min_element(entries_, {}, &Entry::used);
        *entry = {.address = address, .mac = mac, .used = age_};
    }
    [[nodiscard]] std::optional<MacAddress> find(const IpAddress& address) const {
        const auto* const entry = std::ranges::find(entries_, address, &Entry::address);
        if (entry == entries_.end() || entry->used == 0) return std::nullopt;
        return entry->mac;
    }

private:
    struct Entry {
        IpAddress address;
        MacAddress mac;
        u64 used = 0;  // 0: empty
    };
    std::array<Entry, 32> entries_{};
    u64 age_ = 0;
};

}  // namespace tessera::usernet
