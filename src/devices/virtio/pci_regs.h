// virtio over PCI [VIRTIO-1.2 4.1.4]. Nothing but the specification lives here.
#pragma once

#include "base/types.h"

namespace tessera::virtio {

inline constexpr u16 kPciVendor = 0x1af4;       // [VIRTIO-1.2 4.1.2]
inline constexpr u16 kPciFirstDevice = 0x1040;  // plus the device type

// [VIRTIO-1.2 4.1.4] cfg_type of the vendor capabilities.
enum class PciStructure : u8 { Common = 1, Notify = 2, Isr = 3, Device = 4, ConfigAccess = 5 };

// [VIRTIO-1.2 4.1.4] The capability: offsets from its ID byte.
inline constexpr u16 kCapabilityBar = 4;
inline constexpr u16 kCapabilityOffset = 8;
inline constexpr u16 kCapabilityLength = 12;
inline constexpr u16 kCapabilityData = 16;  // the notify multiplier, or the window
inline constexpr u8 kCapabilitySize = 16;
inline constexpr u8 kLongCapabilitySize = 20;

// [VIRTIO-1.2 4.1.4.3]
enum class CommonRegister : u16 {
    DeviceFeatureSelect = 0,
    DeviceFeature = 4,
    DriverFeatureSelect = 8,
    DriverFeature = 12,
    ConfigMsixVector = 16,
    NumQueues = 18,
    DeviceStatus = 20,
    ConfigGeneration = 21,
    QueueSelect = 22,
    QueueSize = 24,
    QueueMsixVector = 26,
    QueueEnable = 28,
    QueueNotifyOff = 30,
    QueueDescLow = 32,
    QueueDescHigh = 36,
    QueueDriverLow = 40,
    QueueDriverHigh = 44,
    QueueDeviceLow = 48,
    QueueDeviceHigh = 52,
};
inline constexpr u32 kCommonSize = 56;

inline constexpr u16 kNoVector = 0xffff;  // [VIRTIO-1.2 4.1.5.1.2]

}  // namespace tessera::virtio
