// Numbers and bits every virtio device shares [VIRTIO-1.2 2, 5, 6]. Nothing but the specification lives here.
#pragma once

#include "base/types.h"

namespace tessera::virtio {

// [VIRTIO-1.2 5]
enum class DeviceType : u16 {
    Network = 1,
    Block = 2,
    Console = 3,
    Entropy = 4,
    Balloon = 5,
    Socket = 19,
};

// [VIRTIO-1.2 2.1]
enum class DeviceStatus : u8 {
    Acknowledge = 1,
    Driver = 2,
    DriverOk = 4,
    FeaturesOk = 8,
    NeedsReset = 64,
    Failed = 128,
};

// [VIRTIO-1.2 6] Bit numbers; the low 24 are the device types' own.
inline constexpr unsigned kFeatureIndirect = 28;
inline constexpr unsigned kFeatureEventIndex = 29;
inline constexpr unsigned kFeatureVersion1 = 32;
inline constexpr unsigned kFeaturePackedRing = 34;

[[nodiscard]] constexpr u64 feature_bit(unsigned number) {
    return u64{1} << number;
}

// Interrupt status: [VIRTIO-1.2 4.1.4.5] and [VIRTIO-1.2 4.2.2] agree.
enum class InterruptCause : u8 { UsedBuffer = 1, Configuration = 2 };

// [VIRTIO-1.2 2.7.5], [VIRTIO-1.2 2.8.1]: flags of a descriptor; the last two in packed rings only.
enum class DescriptorFlag : u16 { Next = 1, Write = 2, Indirect = 4, Available = 1 << 7, Used = 1 << 15 };

// [VIRTIO-1.2 2.7.5], [VIRTIO-1.2 2.8.13]: where a descriptor's fields are. The last 4 bytes differ.
inline constexpr u64 kDescriptorSize = 16;
inline constexpr u64 kDescriptorAddress = 0;
inline constexpr u64 kDescriptorLength = 8;
inline constexpr u64 kSplitDescriptorFlags = 12;
inline constexpr u64 kSplitDescriptorNext = 14;
inline constexpr u64 kPackedDescriptorId = 12;
inline constexpr u64 kPackedDescriptorFlags = 14;

// [VIRTIO-1.2 2.7.6], [VIRTIO-1.2 2.7.8]: the available and the used ring of a split queue.
inline constexpr u64 kRingFlags = 0;
inline constexpr u64 kRingIndex = 2;
inline constexpr u64 kRingEntries = 4;
inline constexpr u64 kAvailableEntrySize = 2;
inline constexpr u64 kUsedEntrySize = 8;
inline constexpr u16 kAvailableNoInterrupt = 1;
inline constexpr u16 kUsedNoNotify = 1;

// [VIRTIO-1.2 2.8.14] The event suppression structures of a packed queue.
inline constexpr u64 kEventOffset = 0;
inline constexpr u64 kEventFlags = 2;
inline constexpr u64 kEventSize = 4;
inline constexpr u16 kEventOffsetMask = 0x7fff;
inline constexpr unsigned kEventWrapShift = 15;
enum class EventFlags : u16 { Enable = 0, Disable = 1, AtDescriptor = 2 };

}  // namespace tessera::virtio
