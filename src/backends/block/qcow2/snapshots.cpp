#include "backends/block/qcow2/snapshots.h"

#include <array>
#include <fmt/format.h>

namespace tessera::block::qcow2 {

namespace {

constexpr u64 kFixed = 40;
constexpr u64 kMostExtra = 1024;
constexpr u64 kMostTable = 64 * kMiB;

std::string text_of(std::span<const u8> bytes) {
    return {bytes.begin(), bytes.end()};
}

}  // namespace

Result<SnapshotTable> read_snapshots(BlockFile& file, const Header& header) {
    const auto damaged = [&](std::string_view what) {
        return fail(Errc::CorruptState,
                    fmt::format("qcow2 image '{}': snapshot table: {}", file.name(), what));
    };
    const Geometry& geometry = header.geometry;
    const u64 file_end = geometry.round_up(file.size());
    SnapshotTable table;
    for (u32 i = 0; i < header.snapshots; ++i) {
        const u64 at = header.snapshots_offset + table.bytes;
        std::array<u8, kFixed> head{};
        if (at >= file_end || table.bytes > kMostTable) return damaged("it reaches past the end of the file");
        if (file.read(at, std::span(head)) != BlockStatus::Ok) return damaged("it cannot be read");
        const u64 id_length = load_be<u16>(head, 12);
        const u64 name_length = load_be<u16>(head, 14);
        const u64 extra_length = load_be<u32>(head, 36);
        if (extra_length > kMostExtra) return damaged("an entry is too long");
        std::vector<u8> rest(extra_length + id_length + name_length);
        if (file.read(at + kFixed, std::span(rest)) != BlockStatus::Ok) return damaged("it cannot be read");
        const auto strings = std::span(rest).subspan(extra_length);
        Snapshot snapshot{.l1_offset = load_be<u64>(head, 0),
                          .l1_entries = load_be<u32>(head, 8),
                          .id = text_of(strings.first(id_length)),
                          .name = text_of(strings.subspan(id_length)),
                          .seconds = load_be<u32>(head, 16),
                          .state_bytes = extra_length >= 8 ? load_be<u64>(rest, 0) : load_be<u32>(head, 32),
                          .disk_size = extra_length >= 16 ? load_be<u64>(rest, 8) : header.disk_size};
        const u64 l1_bytes = u64{snapshot.l1_entries} * 8;
        if (l1_bytes > kMostL1Bytes || !geometry.is_aligned(snapshot.l1_offset) ||
            snapshot.l1_offset > file_end || (l1_bytes != 0 && snapshot.l1_offset == 0) ||
            l1_bytes > file_end - snapshot.l1_offset)
            return damaged(fmt::format("the L1 table of snapshot {} is not inside the file", i + 1));
        table.snapshots.push_back(std::move(snapshot));
        table.bytes += (kFixed + rest.size() + 7) / 8 * 8;
    }
    return table;
}

}  // namespace tessera::block::qcow2
