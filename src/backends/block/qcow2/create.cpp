#include "backends/block/qcow2/create.h"

#include <bit>
#include <fmt/format.h>

namespace tessera::block::qcow2 {

namespace {

Result<Header> header_for(const CreateOptions& options) {
    const auto refuse = [](std::string text) { return fail(Errc::InvalidArgument, std::move(text)); };
    if (options.version != 2 && options.version != 3) return refuse("the version of qcow2 is 2 or 3");
    if (!std::has_single_bit(options.cluster) || options.cluster < 512 || options.cluster > 2 * kMiB)
        return refuse("the size of clusters is a power of two from 512 to 2M");
    if (!std::has_single_bit(options.refcount_bits) || options.refcount_bits > 64)
        return refuse("refcounts have 1, 2, 4, 8, 16, 32 or 64 bits");
    if (options.version == 2 &&
        (options.refcount_bits != 16 || options.compression != Compression::Zlib || options.lazy_refcounts))
        return refuse("version 2 of qcow2 has 16 bit refcounts, zlib compression and no lazy refcounts");
    if (options.size % 512 != 0 || options.size > kMostDiskSize)
        return refuse("the size is whole sectors of 512 bytes");
    if (options.backing_name.size() > kMostBackingName)
        return refuse("the name of the backing file is too long");
    Header header;
    header.version = options.version;
    header.geometry.cluster_bits = static_cast<u32>(std::countr_zero(options.cluster));
    header.geometry.refcount_order = static_cast<u32>(std::countr_zero(options.refcount_bits));
    header.disk_size = options.size;
    header.compression = options.compression;
    header.incompatible.set(Incompatible::CompressionType, options.compression != Compression::Zlib);
    header.compatible.set(Compatible::LazyRefcounts, options.lazy_refcounts);
    header.backing_name = options.backing_name;
    header.backing_format = options.backing_format;
    const u64 entries = header.geometry.l1_entries_for(options.size);
    if (entries * 8 > kMostL1Bytes)
        return refuse(fmt::format("a disk of {} bytes needs clusters of more than {} bytes", options.size,
                                  options.cluster));
    header.l1_entries = static_cast<u32>(entries);
    return header;
}

}  // namespace

// In the file: the header, the refcount table, the refcount blocks, the L1 table.
Status create(BlockFile& file, const CreateOptions& options) {
    auto made = header_for(options);
    if (!made) return std::unexpected(std::move(made.error()));
    Header& header = *made;
    const Geometry& geometry = header.geometry;
    const u32 bits = geometry.cluster_bits;
    const u64 l1_clusters = geometry.clusters_for(u64{header.l1_entries} * 8);
    const u64 in_block = geometry.block_entries();
    u64 blocks = 1;
    u64 table = 1;
    for (bool grew = true; grew;) {
        const u64 wanted = (1 + table + blocks + l1_clusters + in_block - 1) / in_block;
        grew = wanted > blocks;
        blocks = std::max(blocks, wanted);
        table = geometry.clusters_for(blocks * 8);
    }
    const u64 clusters = 1 + table + blocks + l1_clusters;
    header.refcount_table_offset = geometry.cluster();
    header.refcount_table_clusters = static_cast<u32>(table);
    header.l1_offset = header.l1_entries == 0 ? 0 : (1 + table + blocks) << bits;

    const std::vector<u8> head = build_header(header);
    if (head.size() > geometry.cluster())
        return fail(Errc::InvalidArgument,
                    "the name of the backing file does not fit into the first cluster");
    std::vector<u8> tables((table + blocks) << bits);
    for (u64 i = 0; i < blocks; ++i) store_be(std::span(tables), i * 8, (1 + table + i) << bits);
    for (u64 i = 0; i < clusters; ++i)
        store_refcount(std::span(tables).subspan((table + i / in_block) << bits), geometry.refcount_order,
                       i % in_block, 1);
    // The header last: before it is there, this is no image.
    if (file.resize(clusters << bits) != BlockStatus::Ok ||
        file.write(geometry.cluster(), std::span<const u8>(tables)) != BlockStatus::Ok ||
        file.write(0, std::span<const u8>(head)) != BlockStatus::Ok)
        return fail(Errc::HostFailure, fmt::format("'{}' cannot be written", file.name()));
    return {};
}

}  // namespace tessera::block::qcow2
