#include "devices/virtio_net/rx_filter.h"

#include <algorithm>
#include <utility>

namespace tessera::virtio_net {

namespace {

constexpr std::size_t kTypeOffset = 12;
constexpr std::size_t kTagOffset = 14;
constexpr u8 kGroupBit = 1;  // in the first byte of an address

}  // namespace

// With the memory there is.
void RxFilter::reset() {
    state_.unicast.clear();
    state_.multicast.clear();
    std::ranges::fill(state_.vlans, u8{0});
    state_ = State{.unicast = std::move(state_.unicast),
                   .multicast = std::move(state_.multicast),
                   .vlans = std::move(state_.vlans)};
}

bool RxFilter::contains(std::span<const u8> table, std::span<const u8> address) {
    for (; table.size() >= kAddressSize; table = table.subspan(kAddressSize))
        if (std::ranges::equal(table.first(kAddressSize), address)) return true;
    return false;
}

bool RxFilter::keeps_vlan(std::span<const u8> frame) const {
    if (state_.filter_vlans == 0) return true;
    // IEEE 802.1Q: 8100h, then 12 bits of VLAN.
    if (frame.size() < kTagOffset + 2 || frame[kTypeOffset] != 0x81 || frame[kTypeOffset + 1] != 0)
        return true;
    const unsigned vlan = (frame[kTagOffset] & 0xfU) << 8 | frame[kTagOffset + 1];
    return (state_.vlans[vlan / 8] >> (vlan % 8) & 1) != 0;
}

bool RxFilter::keeps(std::span<const u8> frame, const Mac& own) const {
    if (state_.promiscuous != 0) return true;
    if (frame.size() < kAddressSize || !keeps_vlan(frame)) return false;
    const auto to = frame.first(kAddressSize);
    if (std::ranges::all_of(to, [](u8 byte) { return byte == 0xff; })) return state_.no_broadcast == 0;
    if ((to[0] & kGroupBit) != 0)
        return state_.no_multicast == 0 && (state_.all_multicast != 0 || state_.too_many_multicast != 0 ||
                                            contains(state_.multicast, to));
    return state_.no_unicast == 0 && (state_.all_unicast != 0 || state_.too_many_unicast != 0 ||
                                      std::ranges::equal(to, own) || contains(state_.unicast, to));
}

bool RxFilter::set_mode(u8 command, u8 on) {
    if (on > 1) return false;
    switch (static_cast<RxCommand>(command)) {
        case RxCommand::Promiscuous: state_.promiscuous = on; return true;
        case RxCommand::AllMulticast: state_.all_multicast = on; return true;
        case RxCommand::AllUnicast: state_.all_unicast = on; return true;
        case RxCommand::NoMulticast: state_.no_multicast = on; return true;
        case RxCommand::NoUnicast: state_.no_unicast = on; return true;
        case RxCommand::NoBroadcast: state_.no_broadcast = on; return true;
    }
    return false;
}

bool RxFilter::set_vlan(u8 command, u16 vlan) {
    if (vlan >= kVlans) return false;
    u8& byte = state_.vlans[vlan / 8];
    const auto bit = static_cast<u8>(1U << (vlan % 8));
    switch (static_cast<VlanCommand>(command)) {
        case VlanCommand::Add: byte = static_cast<u8>(byte | bit); return true;
        case VlanCommand::Delete: byte = static_cast<u8>(byte & ~bit); return true;
    }
    return false;
}

void RxFilter::set(std::vector<u8>& table, u8& too_many, std::span<const u8> addresses) {
    too_many = addresses.size() > kMostAddresses * kAddressSize ? 1 : 0;
    if (too_many != 0) addresses = {};
    table.assign(addresses.begin(), addresses.end());
}

void RxFilter::visit(StateVisitor& v, unsigned base, State& s) {
    auto& [promiscuous, all_multicast, all_unicast, no_multicast, no_unicast, no_broadcast, many_unicast,
           many_multicast, filter_vlans, unicast, multicast, vlans] = s;
    v.field(base + 0, "promiscuous", promiscuous);
    v.field(base + 1, "all multicast", all_multicast);
    v.field(base + 2, "all unicast", all_unicast);
    v.field(base + 3, "no multicast", no_multicast);
    v.field(base + 4, "no unicast", no_unicast);
    v.field(base + 5, "no broadcast", no_broadcast);
    v.field(base + 6, "too many unicast", many_unicast);
    v.field(base + 7, "too many multicast", many_multicast);
    v.field(base + 8, "filter VLANs", filter_vlans);
    v.field(base + 9, "unicast", unicast);
    v.field(base + 10, "multicast", multicast);
    v.field(base + 11, "VLANs", vlans);
}

bool RxFilter::valid(const State& s) {
    const auto table_fits = [](const std::vector<u8>& table) {
        return table.size() % kAddressSize == 0 && table.size() <= kMostAddresses * kAddressSize;
    };
    for (const u8 flag : {s.promiscuous, s.all_multicast, s.all_unicast, s.no_multicast, s.no_unicast,
                          s.no_broadcast, s.too_many_unicast, s.too_many_multicast, s.filter_vlans})
        if (flag > 1) return false;
    return table_fits(s.unicast) && table_fits(s.multicast) && s.vlans.size() == kVlans / 8;
}

}  // namespace tessera::virtio_net
