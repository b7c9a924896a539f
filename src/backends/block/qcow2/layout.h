// The qcow2 format's numbers: fields, bits, limits, and the arithmetic of clusters. [QCOW2]
#pragma once

#include <bit>
#include <cstring>
#include <span>

#include "base/flags.h"
#include "base/types.h"

namespace tessera::block::qcow2 {

inline constexpr u32 kMagic = 0x514649FB;  // "QFI\xfb"
inline constexpr u32 kHeaderLength2 = 72;
inline constexpr u32 kHeaderLength3 = 104;
inline constexpr u32 kHeaderLengthOurs = 112;  // with the compression type

// What we take at most; the same bounds as other implementations have, so that nothing valid is refused.
inline constexpr u32 kLeastClusterBits = 9;
inline constexpr u32 kMostClusterBits = 21;
inline constexpr u64 kMostL1Bytes = 32 * kMiB;
inline constexpr u64 kMostRefcountTableBytes = 8 * kMiB;
inline constexpr u32 kMostSnapshots = 65536;
inline constexpr u32 kMostBackingName = 1023;
inline constexpr u64 kMostDiskSize = u64{1} << 62;

enum class Incompatible : u64 {
    Dirty = u64{1} << 0,
    Corrupt = u64{1} << 1,
    ExternalData = u64{1} << 2,
    CompressionType = u64{1} << 3,
    ExtendedL2 = u64{1} << 4,
};
enum class Compatible : u64 { LazyRefcounts = u64{1} << 0 };
enum class Autoclear : u64 { Bitmaps = u64{1} << 0, RawExternal = u64{1} << 1 };

enum class ExtensionType : u32 {
    End = 0,
    BackingFormat = 0xE2792ACA,
    FeatureNames = 0x6803F857,
    Bitmaps = 0x23852875,
    Encryption = 0x0537BE77,
    DataFile = 0x44415441,
};

enum class Compression : u8 { Zlib = 0, Zstd = 1 };

// Entries of L1 and L2 tables. [QCOW2 cluster mapping]
inline constexpr u64 kCopied = u64{1} << 63;
inline constexpr u64 kCompressed = u64{1} << 62;
inline constexpr u64 kZero = 1;
inline constexpr u64 kOffsetMask = 0x00FFFFFFFFFFFE00;   // bits 9 to 55
inline constexpr u64 kRefcountOffsetMask = ~u64{0x1FF};  // bits 9 to 63
inline constexpr u64 kL2Reserved = 0x3F000000000001FE;   // of a standard cluster
inline constexpr u64 kL1Reserved = 0x7F000000000001FF;

// Numbers in an image are big-endian.
template <typename T>
[[nodiscard]] T load_be(std::span<const u8> bytes, u64 offset) {
    T value = 0;
    std::memcpy(&value, bytes.subspan(offset, sizeof value).data(), sizeof value);
    return std::byteswap(value);
}
template <typename T>
void store_be(std::span<u8> bytes, u64 offset, T value) {
    value = std::byteswap(value);
    std::memcpy(bytes.subspan(offset, sizeof value).data(), &value, sizeof value);
}

// What follows from cluster_bits and refcount_order.
struct Geometry {
    u32 cluster_bits = 16;
    u32 refcount_order = 4;

    [[nodiscard]] u64 cluster() const { return u64{1} << cluster_bits; }
    [[nodiscard]] u64 offset_in(u64 offset) const { return offset & (cluster() - 1); }
    [[nodiscard]] u64 clusters_for(u64 bytes) const {
        return (bytes >> cluster_bits) + (offset_in(bytes) != 0 ? 1 : 0);
    }
    [[nodiscard]] u64 round_up(u64 bytes) const { return clusters_for(bytes) << cluster_bits; }
    [[nodiscard]] bool is_aligned(u64 offset) const { return offset_in(offset) == 0; }

    [[nodiscard]] u32 l2_bits() const { return cluster_bits - 3; }
    [[nodiscard]] u64 l2_entries() const { return u64{1} << l2_bits(); }
    [[nodiscard]] u64 l1_index(u64 guest) const { return guest >> (cluster_bits + l2_bits()); }
    [[nodiscard]] u64 l2_index(u64 guest) const { return (guest >> cluster_bits) & (l2_entries() - 1); }
    [[nodiscard]] u64 l1_entries_for(u64 size) const {
        const u32 bits = cluster_bits + l2_bits();
        return (size >> bits) + ((size & ((u64{1} << bits) - 1)) != 0 ? 1 : 0);
    }

    [[nodiscard]] u32 refcount_bits() const { return u32{1} << refcount_order; }
    [[nodiscard]] u64 most_refcount() const {
        return refcount_order == 6 ? ~u64{0} : (u64{1} << refcount_bits()) - 1;
    }
    [[nodiscard]] u32 block_bits() const { return cluster_bits + 3 - refcount_order; }
    [[nodiscard]] u64 block_entries() const { return u64{1} << block_bits(); }

    // [QCOW2] Compressed Clusters Descriptor: where its two fields meet.
    [[nodiscard]] u32 compressed_shift() const { return 62 - (cluster_bits - 8); }
};

// A range of the image file that holds one compressed cluster.
struct CompressedRange {
    u64 offset = 0;
    u64 length = 0;  // bytes, to the end of its last sector
};
[[nodiscard]] inline CompressedRange compressed_range(const Geometry& geometry, u64 entry) {
    const u32 shift = geometry.compressed_shift();
    const u64 offset = entry & ((u64{1} << shift) - 1) & ((u64{1} << 56) - 1);
    const u64 sectors = ((entry & ~(kCopied | kCompressed)) >> shift) + 1;
    return {.offset = offset, .length = sectors * 512 - (offset & 511)};
}

// An entry of a refcount block; widths under a byte count from the least significant bit. [QCOW2]
[[nodiscard]] inline u64 load_refcount(std::span<const u8> block, u32 order, u64 index) {
    switch (order) {
        case 4: return load_be<u16>(block, index * 2);
        case 5: return load_be<u32>(block, index * 4);
        case 6: return load_be<u64>(block, index * 8);
        default: break;
    }
    const u32 bits = u32{1} << order;
    const u64 bit = index << order;
    return (block[bit / 8] >> (bit % 8)) & ((u32{1} << bits) - 1);
}
inline void store_refcount(std::span<u8> block, u32 order, u64 index, u64 value) {
    switch (order) {
        case 4: store_be(block, index * 2, static_cast<u16>(value)); return;
        case 5: store_be(block, index * 4, static_cast<u32>(value)); return;
        case 6: store_be(block, index * 8, value); return;
        default: break;
    }
    const u32 bits = u32{1} << order;
    const u64 bit = index << order;
    const u32 mask = ((u32{1} << bits) - 1) << (bit % 8);
    u8& byte = block[bit / 8];
    byte = static_cast<u8>((byte & ~mask) | ((static_cast<u32>(value) << (bit % 8)) & mask));
}

enum class ClusterKind : u8 {
    Unallocated,    // reads from the backing file
    Zero,           // reads as zeroes, has no place in the file
    ZeroAllocated,  // reads as zeroes, has a place to write to
    Data,
    Compressed,
    Invalid,  // the entry breaks the format's rules
};

// What an L2 entry says.
struct Mapping {
    ClusterKind kind = ClusterKind::Unallocated;
    u64 entry = 0;
    [[nodiscard]] u64 host() const { return entry & kOffsetMask; }
    [[nodiscard]] bool copied() const { return (entry & kCopied) != 0; }
    // A write may go where the data is.
    [[nodiscard]] bool in_place() const { return kind == ClusterKind::Data && copied(); }
};
[[nodiscard]] inline Mapping mapping_of(const Geometry& geometry, u32 version, u64 entry) {
    const auto is = [entry](ClusterKind kind) { return Mapping{.kind = kind, .entry = entry}; };
    if (entry == 0) return is(ClusterKind::Unallocated);
    if ((entry & kCompressed) != 0)
        return is((entry & kCopied) != 0 || compressed_range(geometry, entry).offset == 0
                      ? ClusterKind::Invalid
                      : ClusterKind::Compressed);
    const u64 host = entry & kOffsetMask;
    if ((entry & kL2Reserved) != 0 || !geometry.is_aligned(host)) return is(ClusterKind::Invalid);
    if ((entry & kZero) != 0) {
        if (version < 3 || (host == 0 && (entry & kCopied) != 0)) return is(ClusterKind::Invalid);
        return is(host == 0 ? ClusterKind::Zero : ClusterKind::ZeroAllocated);
    }
    return is(host == 0 ? ClusterKind::Invalid : ClusterKind::Data);
}

}  // namespace tessera::block::qcow2
