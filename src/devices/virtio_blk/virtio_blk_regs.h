// Registers and requests of the virtio block device [VIRTIO-1.2 5.2]. Nothing but the specification lives
// here.
#pragma once

#include "base/types.h"

namespace tessera::virtio_blk {

// [VIRTIO-1.2 5.2.3] Bit numbers.
inline constexpr unsigned kFeatureSizeMax = 1;
inline constexpr unsigned kFeatureSegMax = 2;
inline constexpr unsigned kFeatureReadOnly = 5;
inline constexpr unsigned kFeatureBlockSize = 6;
inline constexpr unsigned kFeatureFlush = 9;
inline constexpr unsigned kFeatureTopology = 10;
inline constexpr unsigned kFeatureConfigWce = 11;
inline constexpr unsigned kFeatureMultiQueue = 12;
inline constexpr unsigned kFeatureDiscard = 13;
inline constexpr unsigned kFeatureWriteZeroes = 14;

// [VIRTIO-1.2 5.2.4] Little-endian, without gaps.
struct ConfigSpace {
    u64 capacity = 0;  // sectors of 512 bytes
    u32 size_max = 0;
    u32 seg_max = 0;
    u16 cylinders = 0;
    u8 heads = 0;
    u8 sectors = 0;
    u32 blk_size = 0;
    u8 physical_block_exp = 0;
    u8 alignment_offset = 0;
    u16 min_io_size = 0;
    u32 opt_io_size = 0;
    u8 writeback = 0;
    u8 unused0 = 0;
    u16 num_queues = 0;
    u32 max_discard_sectors = 0;
    u32 max_discard_seg = 0;
    u32 discard_sector_alignment = 0;
    u32 max_write_zeroes_sectors = 0;
    u32 max_write_zeroes_seg = 0;
    u8 write_zeroes_may_unmap = 0;
    u8 unused1 = 0;
    u16 unused2 = 0;
};
inline constexpr u32 kConfigSize = 60;
inline constexpr u32 kWritebackOffset = 32;

// [VIRTIO-1.2 5.2.6]
enum class RequestType : u32 {
    In = 0,
    Out = 1,
    ScsiCommand = 2,  // of the legacy interface
    Flush = 4,
    GetId = 8,
    GetLifetime = 10,
    Discard = 11,
    WriteZeroes = 13,
    SecureErase = 14,
};
enum class RequestStatus : u8 { Ok = 0, IoError = 1, Unsupported = 2 };

struct RequestHeader {
    u32 type;
    u32 reserved;
    u64 sector;
};
static_assert(sizeof(RequestHeader) == 16);

// What Discard and WriteZeroes are about, one or several.
struct RangeSegment {
    u64 sector;
    u32 sectors;
    u32 flags;
};
static_assert(sizeof(RangeSegment) == 16);
inline constexpr u32 kRangeUnmap = 1;

inline constexpr u32 kIdSize = 20;  // bytes, without a terminator if full

}  // namespace tessera::virtio_blk
