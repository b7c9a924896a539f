// Registers and control commands of the virtio network device [VIRTIO-1.2 5.1]. Nothing but the specification
// lives here.
#pragma once

#include "base/types.h"

namespace tessera::virtio_net {

// [VIRTIO-1.2 5.1.3] Bit numbers; the segmentation of UDP is of [VIRTIO-1.3 5.1.3].
inline constexpr unsigned kFeatureChecksum = 0;
inline constexpr unsigned kFeatureGuestChecksum = 1;
inline constexpr unsigned kFeatureControlGuestOffloads = 2;
inline constexpr unsigned kFeatureMtu = 3;
inline constexpr unsigned kFeatureMac = 5;
inline constexpr unsigned kFeatureGuestTso4 = 7;
inline constexpr unsigned kFeatureGuestTso6 = 8;
inline constexpr unsigned kFeatureGuestEcn = 9;
inline constexpr unsigned kFeatureGuestUfo = 10;
inline constexpr unsigned kFeatureHostTso4 = 11;
inline constexpr unsigned kFeatureHostTso6 = 12;
inline constexpr unsigned kFeatureHostEcn = 13;
inline constexpr unsigned kFeatureHostUfo = 14;
inline constexpr unsigned kFeatureMergedBuffers = 15;
inline constexpr unsigned kFeatureStatus = 16;
inline constexpr unsigned kFeatureControlQueue = 17;
inline constexpr unsigned kFeatureControlRx = 18;
inline constexpr unsigned kFeatureControlVlan = 19;
inline constexpr unsigned kFeatureControlRxExtra = 20;
inline constexpr unsigned kFeatureGuestAnnounce = 21;
inline constexpr unsigned kFeatureMultiQueue = 22;
inline constexpr unsigned kFeatureControlMac = 23;
inline constexpr unsigned kFeatureGuestUso4 = 54;
inline constexpr unsigned kFeatureGuestUso6 = 55;
inline constexpr unsigned kFeatureHostUso = 56;
inline constexpr unsigned kFeatureSpeedDuplex = 63;

// [VIRTIO-1.2 5.1.4]
struct ConfigSpace {
    u8 mac[6] = {};
    u16 status = 0;
    u16 max_virtqueue_pairs = 0;
    u16 mtu = 0;
    u32 speed = 0;
    u8 duplex = 0;
    u8 unused[3] = {};
};
inline constexpr u32 kConfigSize = 17;
static_assert(sizeof(ConfigSpace) == 20);
enum class LinkStatus : u16 { Up = 1, Announce = 2 };

// [VIRTIO-1.2 5.1.6.5]
enum class ControlClass : u8 { Rx = 0, Mac = 1, Vlan = 2, Announce = 3, MultiQueue = 4, GuestOffloads = 5 };
enum class RxCommand : u8 {
    Promiscuous = 0,
    AllMulticast = 1,
    AllUnicast = 2,
    NoMulticast = 3,
    NoUnicast = 4,
    NoBroadcast = 5,
};
enum class MacCommand : u8 { TableSet = 0, AddressSet = 1 };
enum class VlanCommand : u8 { Add = 0, Delete = 1 };
inline constexpr u8 kAnnounceAck = 0;
inline constexpr u8 kPairsSet = 0;
inline constexpr u8 kGuestOffloadsSet = 0;
enum class ControlAck : u8 { Ok = 0, Error = 1 };

}  // namespace tessera::virtio_net
