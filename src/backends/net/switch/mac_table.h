// Which member of a switch has which Ethernet address: learnt from what they send, bounded in all and for
// each member, so that one who makes addresses up takes no other's place.
#pragma once

#include <algorithm>
#include <optional>
#include <unordered_map>
#include <vector>

#include "backends/net/usernet/addresses.h"

namespace tessera::net {

class MacTable {
public:
    using MacAddress = usernet::MacAddress;
    static constexpr std::size_t kMostOfOne = 64;
    static constexpr u64 kForgetMs = 300'000;

    void learn(const MacAddress& mac, u32 member, u64 now_ms) {
        if (mac.is_group()) return;
        const auto known = places_.find(key(mac));
        if (known != places_.end()) {
            if (known->second.member == member) {
                known->second.heard_ms = now_ms;
                return;
            }
            // It has moved. Its place counts for the new member, if that has one left.
            --counts_[known->second.member];
            places_.erase(known);
        }
        if (counts_[member] >= kMostOfOne && !forget_oldest(member, now_ms)) return;
        places_[key(mac)] = {.member = member, .heard_ms = now_ms};
        ++counts_[member];
    }
    [[nodiscard]] std::optional<u32> find(const MacAddress& mac, u64 now_ms) const {
        const auto known = places_.find(key(mac));
        if (known == places_.end() || now_ms - known->second.heard_ms > kForgetMs) return std::nullopt;
        return known->second.member;
    }
    void forget_member(u32 member) {
        std::erase_if(places_, [&](const auto& place) { return place.second.member == member; });
        counts_.erase(member);
    }
    [[nodiscard]] std::size_t size() const { return places_.size(); }

private:
    struct Place {
        u32 member = 0;
        u64 heard_ms = 0;
    };
    static u64 key(const MacAddress& mac) {
        u64 value = 0;
        for (const u8 byte : mac.bytes) value = value << 8 | byte;
        return value;
    }
    // Makes room for another address of the member, if one of its is old.
    bool forget_oldest(u32 member, u64 now_ms) {
        const auto dropped = std::erase_if(places_, [&](const auto& place) {
            return place.second.member == member && now_ms - place.second.heard_ms > kForgetMs;
        });
        counts_[member] -= dropped;
        return dropped != 0;
    }

    std::unordered_map<u64, Place> places_;
    std::unordered_map<u32, std::size_t> counts_;
};

}  // namespace tessera::net
