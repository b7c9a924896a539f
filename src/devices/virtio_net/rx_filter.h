// Which frames a network card keeps, as its driver has set it [VIRTIO-1.2 5.1.6.5.1 to 5.1.6.5.3].
#pragma once

#include <array>
#include <span>
#include <utility>
#include <vector>

#include "base/types.h"
#include "devices/virtio_net/virtio_net_regs.h"
#include "snapshot/state_visitor.h"

namespace tessera::virtio_net {

using Mac = std::array<u8, 6>;

class RxFilter {
public:
    static constexpr std::size_t kMostAddresses = 64;  // of each kind; more, and all of the kind are kept
    static constexpr unsigned kVlans = 4096;
    static constexpr std::size_t kAddressSize = 6;

    RxFilter() { make_room(); }

    // Whether to keep a frame that begins with these bytes: the two addresses, the type, and a VLAN tag if
    // there is one.
    [[nodiscard]] bool keeps(std::span<const u8> frame, const Mac& own) const;

    // Each command of the control queue; false if it makes no sense.
    [[nodiscard]] bool set_mode(u8 command, u8 on);
    [[nodiscard]] bool set_vlan(u8 command, u16 vlan);
    // Addresses behind one another.
    void set_unicast(std::span<const u8> addresses) {
        set(state_.unicast, state_.too_many_unicast, addresses);
    }
    void set_multicast(std::span<const u8> addresses) {
        set(state_.multicast, state_.too_many_multicast, addresses);
    }
    // A driver that does not filter VLANs gets all of them.
    void filter_vlans(bool on) { state_.filter_vlans = on ? 1 : 0; }

    void reset();
    // Field ids from `base` to base + 15.
    struct State {
        // Until the driver says otherwise, everything is kept.
        u8 promiscuous = 1;
        u8 all_multicast = 0;
        u8 all_unicast = 0;
        u8 no_multicast = 0;
        u8 no_unicast = 0;
        u8 no_broadcast = 0;
        u8 too_many_unicast = 0;
        u8 too_many_multicast = 0;
        u8 filter_vlans = 0;
        std::vector<u8> unicast;
        std::vector<u8> multicast;
        std::vector<u8> vlans = std::vector<u8>(kVlans / 8);
    };
    void visit_state(StateVisitor& v, unsigned base) { visit(v, base, state_); }
    static void visit(StateVisitor& v, unsigned base, State& s);
    [[nodiscard]] static bool valid(const State& s);
    void restore(State s) {
        state_ = std::move(s);
        make_room();
    }

private:
    // A driver's commands allocate nothing.
    void make_room() {
        state_.unicast.reserve(kMostAddresses * kAddressSize);
        state_.multicast.reserve(kMostAddresses * kAddressSize);
    }
    static void set(std::vector<u8>& table, u8& too_many, std::span<const u8> addresses);
    [[nodiscard]] static bool contains(std::span<const u8> table, std::span<const u8> address);
    [[nodiscard]] bool keeps_vlan(std::span<const u8> frame) const;

    State state_;
};

}  // namespace tessera::virtio_net
