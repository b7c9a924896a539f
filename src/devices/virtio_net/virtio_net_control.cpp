// The card's control queue [VIRTIO-1.2 5.1.6.5].
#include <array>
#include <bit>
#include <cstring>

#include "devices/virtio_net/virtio_net.h"

namespace tessera::virtio_net {

namespace {

constexpr unsigned kCommandsPerTurn = 32;
constexpr std::size_t kMacSize = RxFilter::kAddressSize;

template <typename T>
bool read(virtio::Chain& chain, T& value) {
    return chain.read(std::as_writable_bytes(std::span(&value, 1))) == sizeof value;
}

constexpr ControlAck ack(bool done) {
    return done ? ControlAck::Ok : ControlAck::Error;
}

// A table of the MAC command: how many, then the addresses. Longer ones than we keep are read past; of these
// there is one address more than we keep, by which they are known.
struct Table {
    std::array<u8, (RxFilter::kMostAddresses + 1) * kMacSize> bytes{};
    std::size_t size = 0;
    [[nodiscard]] std::span<const u8> addresses() const { return std::span(bytes).first(size); }
};

bool read_table(virtio::Chain& chain, Table& table) {
    u32 entries = 0;
    if (!read(chain, entries)) return false;
    const u64 bytes = u64{entries} * kMacSize;
    if (bytes > chain.readable_bytes()) return false;
    table.size = std::min<u64>(bytes, table.bytes.size());
    (void)chain.read(std::as_writable_bytes(std::span(table.bytes).first(table.size)));
    (void)chain.skip(bytes - table.size);
    return true;
}

}  // namespace

bool VirtioNet::control(unsigned queue) {
    virtio::Queue& ring = core().queue(queue);
    ring.stop_kicks();
    bool more = true;
    for (unsigned i = 0; more && i < kCommandsPerTurn; ++i) {
        if (!core().pop(queue, control_chain_)) {
            more = ring.want_kicks();
            continue;
        }
        const auto result = static_cast<std::byte>(command(control_chain_));
        core().push(queue, control_chain_, static_cast<u32>(control_chain_.write({&result, 1})));
    }
    core().signal(queue);
    return more;
}

ControlAck VirtioNet::command(virtio::Chain& chain) {
    std::array<u8, 2> header{};
    if (!read(chain, header)) return ControlAck::Error;
    const auto agreed = [this](unsigned feature) { return core().negotiated(feature); };
    switch (static_cast<ControlClass>(header[0])) {
        case ControlClass::Rx: return rx_command(header[1], chain);
        case ControlClass::Mac: return mac_command(header[1], chain);
        case ControlClass::Vlan: return vlan_command(header[1], chain);
        case ControlClass::Announce:
            if (header[1] != kAnnounceAck || !agreed(kFeatureGuestAnnounce)) return ControlAck::Error;
            state_.announce = 0;
            return ControlAck::Ok;
        case ControlClass::MultiQueue: return pairs_command(header[1], chain);
        case ControlClass::GuestOffloads: return offloads_command(header[1], chain);
    }
    return ControlAck::Error;
}

ControlAck VirtioNet::rx_command(u8 which, virtio::Chain& chain) {
    // [VIRTIO-1.2 5.1.6.5.1] The first two come with CTRL_RX, the others with CTRL_RX_EXTRA.
    const unsigned feature =
        which <= static_cast<u8>(RxCommand::AllMulticast) ? kFeatureControlRx : kFeatureControlRxExtra;
    u8 on = 0;
    if (!core().negotiated(feature) || !read(chain, on)) return ControlAck::Error;
    return ack(filter_.set_mode(which, on));
}

ControlAck VirtioNet::mac_command(u8 which, virtio::Chain& chain) {
    switch (static_cast<MacCommand>(which)) {
        case MacCommand::TableSet: {
            Table unicast;
            Table multicast;
            if (!core().negotiated(kFeatureControlRx) || !read_table(chain, unicast) ||
                !read_table(chain, multicast))
                return ControlAck::Error;
            filter_.set_unicast(unicast.addresses());
            filter_.set_multicast(multicast.addresses());
            return ControlAck::Ok;
        }
        case MacCommand::AddressSet: {
            Mac mac{};
            if (!core().negotiated(kFeatureControlMac) || !read(chain, mac)) return ControlAck::Error;
            state_.mac = mac;
            return ControlAck::Ok;
        }
    }
    return ControlAck::Error;
}

ControlAck VirtioNet::vlan_command(u8 which, virtio::Chain& chain) {
    u16 vlan = 0;
    if (!core().negotiated(kFeatureControlVlan) || !read(chain, vlan)) return ControlAck::Error;
    return ack(filter_.set_vlan(which, vlan));
}

ControlAck VirtioNet::pairs_command(u8 which, virtio::Chain& chain) {
    u16 pairs = 0;
    if (which != kPairsSet || !core().negotiated(kFeatureMultiQueue) || !read(chain, pairs) || pairs == 0 ||
        pairs > most_pairs_)
        return ControlAck::Error;
    state_.pairs = pairs;
    tell_backend();
    return ControlAck::Ok;
}

// [VIRTIO-1.2 5.1.6.5.6.1] A subset of what was agreed on.
ControlAck VirtioNet::offloads_command(u8 which, virtio::Chain& chain) {
    u64 offloads = 0;
    if (which != kGuestOffloadsSet || !core().negotiated(kFeatureControlGuestOffloads) ||
        !read(chain, offloads) || (offloads & ~agreed_guest_offloads()) != 0)
        return ControlAck::Error;
    state_.guest_offloads = offloads;
    tell_backend();
    return ControlAck::Ok;
}

}  // namespace tessera::virtio_net
