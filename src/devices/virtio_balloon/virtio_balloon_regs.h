// Registers and requests of the virtio balloon [VIRTIO-1.2 5.5]. Nothing but the specification lives here.
#pragma once

#include "base/types.h"

namespace tessera::virtio_balloon {

// [VIRTIO-1.2 5.5.3] Bit numbers.
inline constexpr unsigned kFeatureMustTellHost = 0;
inline constexpr unsigned kFeatureStatistics = 1;
inline constexpr unsigned kFeatureDeflateOnOom = 2;
inline constexpr unsigned kFeaturePagePoison = 4;
inline constexpr unsigned kFeatureReporting = 5;

// [VIRTIO-1.2 5.5.4]
enum class ConfigRegister : u32 { NumPages = 0, Actual = 4, FreePageHintCommand = 8, PoisonValue = 12 };
inline constexpr u32 kConfigSize = 16;

// [VIRTIO-1.2 5.5.6] Page numbers count pages of 4 KiB, whatever the guest's pages are.
inline constexpr unsigned kPageShift = 12;

// [VIRTIO-1.2 5.5.6.3] An entry of the statistics buffer: a tag, and a value in bytes or a count.
inline constexpr u64 kStatisticSize = 10;
inline constexpr u64 kStatisticValue = 2;
enum class StatisticTag : u16 {
    SwapIn = 0,
    SwapOut = 1,
    MajorFaults = 2,
    MinorFaults = 3,
    FreeMemory = 4,
    TotalMemory = 5,
    AvailableMemory = 6,
    DiskCaches = 7,
    HugePageAllocations = 8,
    HugePageFailures = 9,
};
inline constexpr unsigned kStatisticTags = 10;

}  // namespace tessera::virtio_balloon
