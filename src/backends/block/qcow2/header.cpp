#include "backends/block/qcow2/header.h"

#include <algorithm>
#include <array>
#include <fmt/format.h>

namespace tessera::block::qcow2 {

namespace {

constexpr u64 kKnownIncompatible =
    static_cast<u64>(Incompatible::Dirty) | static_cast<u64>(Incompatible::Corrupt) |
    static_cast<u64>(Incompatible::ExternalData) | static_cast<u64>(Incompatible::CompressionType) |
    static_cast<u64>(Incompatible::ExtendedL2);

// Reads one header; each step gives what is wrong, empty if nothing is.
class HeaderReader {
public:
    explicit HeaderReader(BlockFile& file) : file_(file) {}

    Result<Header> read() {
        for (const auto step :
             {&HeaderReader::fixed_part, &HeaderReader::version3_part, &HeaderReader::extensions,
              &HeaderReader::features, &HeaderReader::backing, &HeaderReader::tables})
            if (std::string wrong = (this->*step)(); !wrong.empty())
                return fail(code_, fmt::format("qcow2 image '{}': {}", file_.name(), wrong));
        return std::move(header_);
    }

private:
    std::string unsupported(std::string text) {
        code_ = Errc::Unsupported;
        return text;
    }

    std::string fixed_part() {
        std::array<u8, kHeaderLength2> head{};
        if (file_.size() < head.size()) return "it is too short to be one";
        if (file_.read(0, std::span(head)) != BlockStatus::Ok) return "its header cannot be read";
        if (load_be<u32>(head, 0) != kMagic) return "it does not begin like one";
        header_.version = load_be<u32>(head, 4);
        if (header_.version != 2 && header_.version != 3)
            return unsupported(
                fmt::format("its version is {}; versions 2 and 3 can be used", header_.version));
        const u32 bits = load_be<u32>(head, 20);
        if (bits < kLeastClusterBits || bits > kMostClusterBits)
            return fmt::format("its clusters are of 2^{} bytes; from 2^9 to 2^21 is possible", bits);
        header_.geometry.cluster_bits = bits;
        // The rest of the header lies in the first cluster.
        cluster_.resize(header_.geometry.cluster());
        if (file_.read(0, std::span(cluster_)) != BlockStatus::Ok) return "its header cannot be read";
        header_.disk_size = load_be<u64>(cluster_, 24);
        if (header_.disk_size > kMostDiskSize) return "it says to hold a disk of more than 2^62 bytes";
        if (load_be<u32>(cluster_, 32) != 0)
            return unsupported("it is encrypted, which is not supported; decrypt it by qemu-img convert");
        header_.l1_entries = load_be<u32>(cluster_, 36);
        header_.l1_offset = load_be<u64>(cluster_, 40);
        header_.refcount_table_offset = load_be<u64>(cluster_, 48);
        header_.refcount_table_clusters = load_be<u32>(cluster_, 56);
        header_.snapshots = load_be<u32>(cluster_, 60);
        header_.snapshots_offset = load_be<u64>(cluster_, 64);
        header_.length = kHeaderLength2;
        return {};
    }

    std::string version3_part() {
        if (header_.version < 3) return {};
        header_.incompatible = Flags<Incompatible>(load_be<u64>(cluster_, 72));
        header_.compatible = Flags<Compatible>(load_be<u64>(cluster_, 80));
        header_.autoclear = load_be<u64>(cluster_, 88);
        header_.geometry.refcount_order = load_be<u32>(cluster_, 96);
        if (header_.geometry.refcount_order > 6)
            return fmt::format("its refcounts are of 2^{} bits; up to 2^6 is possible",
                               header_.geometry.refcount_order);
        header_.length = load_be<u32>(cluster_, 100);
        if (header_.length < kHeaderLength3 || header_.length % 8 != 0 || header_.length > cluster_.size())
            return fmt::format("its header is {} bytes long, which cannot be", header_.length);
        const u8 type = header_.length > kHeaderLength3 ? cluster_[kHeaderLength3] : u8{0};
        if (type > static_cast<u8>(Compression::Zstd))
            return unsupported(fmt::format("its compression is of type {}; zlib and zstd can be used", type));
        header_.compression = static_cast<Compression>(type);
        if (header_.incompatible.has(Incompatible::CompressionType) != (type != 0))
            return "its compression type and the feature bit for it do not agree";
        return {};
    }

    std::string extensions() {
        u64 at = header_.length;
        for (;;) {
            if (at + 8 > cluster_.size()) break;  // the area ends with the cluster
            const auto type = static_cast<ExtensionType>(load_be<u32>(cluster_, at));
            const u64 length = load_be<u32>(cluster_, at + 4);
            at += 8;
            if (type == ExtensionType::End) break;
            if (length > cluster_.size() - at) return "a header extension reaches past the first cluster";
            if (std::string wrong = extension(type, std::span(cluster_).subspan(at, length)); !wrong.empty())
                return wrong;
            at += (length + 7) / 8 * 8;
        }
        header_.bytes_used = std::min<u64>(at, cluster_.size());
        return {};
    }

    std::string extension(ExtensionType type, std::span<const u8> data) {
        switch (type) {
            case ExtensionType::BackingFormat:
                if (data.size() > 32) return "the name of its backing file's format is too long";
                header_.backing_format.assign(data.begin(), data.end());
                return {};
            case ExtensionType::FeatureNames: feature_names_ = data; return {};
            case ExtensionType::Bitmaps:
                if (data.size() < 24) return "its bitmaps extension is too short";
                header_.bitmaps = BitmapDirectory{.count = load_be<u32>(data, 0),
                                                  .bytes = load_be<u64>(data, 8),
                                                  .offset = load_be<u64>(data, 16)};
                return {};
            case ExtensionType::Encryption: return unsupported("it is encrypted, which is not supported");
            // The path would be one of the host, chosen by whoever made the image.
            case ExtensionType::DataFile:
                return unsupported("its data is in another file, which is not supported");
            case ExtensionType::End: return {};
        }
        return {};  // may be ignored
    }

    // The name the image itself gives a feature, for the message. [QCOW2 feature name table]
    std::string name_of_bit(unsigned bit) const {
        for (std::span<const u8> rest = feature_names_; rest.size() >= 48; rest = rest.subspan(48)) {
            if (rest[0] != 0 || rest[1] != bit) continue;
            std::string name;
            for (const u8 byte : rest.subspan(2, 46)) {
                if (byte == 0) break;
                name += byte >= 0x20 && byte < 0x7F ? static_cast<char>(byte) : '?';
            }
            return fmt::format("'{}'", name);
        }
        return fmt::format("bit {}", bit);
    }

    std::string features() {
        const u64 bits = header_.incompatible.raw();
        if (const u64 unknown = bits & ~kKnownIncompatible; unknown != 0)
            return unsupported(fmt::format("it needs a feature that is not known here: {}",
                                           name_of_bit(static_cast<unsigned>(std::countr_zero(unknown)))));
        if (header_.incompatible.has(Incompatible::ExternalData))
            return unsupported("its data is in another file, which is not supported");
        // GAP: subclusters.
        if (header_.incompatible.has(Incompatible::ExtendedL2))
            return unsupported(
                "it has subclusters (extended_l2), which are not supported; convert it by qemu-img "
                "convert -o extended_l2=off");
        return {};
    }

    std::string backing() {
        const u64 offset = load_be<u64>(cluster_, 8);
        const u32 length = load_be<u32>(cluster_, 16);
        if (offset == 0) return {};
        if (length == 0 || length > kMostBackingName)
            return "the name of its backing file has an impossible length";
        if (offset < header_.length || offset > cluster_.size() || length > cluster_.size() - offset)
            return "the name of its backing file is not in the first cluster";
        const auto name = std::span(cluster_).subspan(offset, length);
        if (std::ranges::find(name, u8{0}) != name.end())
            return "the name of its backing file has a zero byte";
        header_.backing_name.assign(name.begin(), name.end());
        header_.bytes_used = std::max(header_.bytes_used, offset + length);
        return {};
    }

    [[nodiscard]] bool fits(u64 offset, u64 bytes) const {
        const u64 end = header_.geometry.round_up(file_.size());
        return header_.geometry.is_aligned(offset) && offset >= header_.geometry.cluster() && offset <= end &&
               bytes <= end - offset;
    }

    std::string tables() {
        const Geometry& geometry = header_.geometry;
        const u64 l1_bytes = u64{header_.l1_entries} * 8;
        if (l1_bytes > kMostL1Bytes) return "its L1 table is larger than 32 MiB";
        if (header_.l1_entries < geometry.l1_entries_for(header_.disk_size))
            return "its L1 table is too short for the disk";
        if (header_.l1_entries != 0 && !fits(header_.l1_offset, l1_bytes))
            return "its L1 table is not inside the file";
        const u64 refcount_bytes = u64{header_.refcount_table_clusters} << geometry.cluster_bits;
        if (header_.refcount_table_clusters == 0) return "it has no refcount table";
        if (refcount_bytes > kMostRefcountTableBytes) return "its refcount table is larger than 8 MiB";
        if (!fits(header_.refcount_table_offset, refcount_bytes))
            return "its refcount table is not inside the file";
        if (header_.snapshots > kMostSnapshots) return "it says to have more than 65536 snapshots";
        if (header_.snapshots != 0 && !fits(header_.snapshots_offset, u64{header_.snapshots} * 40))
            return "its snapshot table is not inside the file";
        return {};
    }

    BlockFile& file_;
    Header header_;
    std::vector<u8> cluster_;
    std::span<const u8> feature_names_;
    Errc code_ = Errc::CorruptState;
};

void store_changing_fields(std::span<u8> bytes, const Header& header) {
    store_be(bytes, 24, header.disk_size);
    store_be(bytes, 36, header.l1_entries);
    store_be(bytes, 40, header.l1_offset);
    store_be(bytes, 48, header.refcount_table_offset);
    store_be(bytes, 56, header.refcount_table_clusters);
    if (header.version < 3) return;
    store_be(bytes, 72, header.incompatible.raw());
    store_be(bytes, 80, header.compatible.raw());
    store_be(bytes, 88, header.autoclear);
}

void append_extension(std::vector<u8>& bytes, ExtensionType type, std::span<const u8> data) {
    const u64 at = bytes.size();
    bytes.resize(at + 8 + (data.size() + 7) / 8 * 8);
    store_be(std::span(bytes), at, static_cast<u32>(type));
    store_be(std::span(bytes), at + 4, static_cast<u32>(data.size()));
    std::ranges::copy(data, bytes.begin() + static_cast<std::ptrdiff_t>(at) + 8);
}

std::vector<u8> feature_names() {
    struct Name {
        u8 type, bit;
        const char* text;
    };
    constexpr std::array kNames{
        Name{0, 0, "dirty bit"},        Name{0, 1, "corrupt bit"},         Name{0, 2, "external data file"},
        Name{0, 3, "compression type"}, Name{0, 4, "extended L2 entries"}, Name{1, 0, "lazy refcounts"},
        Name{2, 0, "bitmaps"},          Name{2, 1, "raw external data"}};
    std::vector<u8> bytes;
    for (const Name& name : kNames) {
        const u64 at = bytes.size();
        bytes.resize(at + 48);
        bytes[at] = name.type;
        bytes[at + 1] = name.bit;
        const std::string_view text = name.text;
        std::ranges::copy(text, bytes.begin() + static_cast<std::ptrdiff_t>(at) + 2);
    }
    return bytes;
}

std::span<const u8> bytes_of(const std::string& text) {
    return {reinterpret_cast<const u8*>(text.data()), text.size()};
}

}  // namespace

Result<Header> read_header(BlockFile& file) {
    return HeaderReader(file).read();
}

BlockStatus update_header(BlockFile& file, const Header& header) {
    std::array<u8, 512> sector{};
    if (const auto status = file.read(0, std::span(sector)); status != BlockStatus::Ok) return status;
    store_changing_fields(sector, header);
    return file.write(0, std::span<const u8>(sector));
}

std::vector<u8> build_header(const Header& header) {
    std::vector<u8> bytes(header.version < 3 ? kHeaderLength2 : kHeaderLengthOurs);
    const auto all = [&] { return std::span(bytes); };
    store_be(all(), 0, kMagic);
    store_be(all(), 4, header.version);
    store_be(all(), 20, header.geometry.cluster_bits);
    store_be(all(), 60, header.snapshots);
    store_be(all(), 64, header.snapshots_offset);
    store_changing_fields(bytes, header);
    if (header.version >= 3) {
        store_be(all(), 96, header.geometry.refcount_order);
        store_be(all(), 100, kHeaderLengthOurs);
        bytes[kHeaderLength3] = static_cast<u8>(header.compression);
    }
    if (!header.backing_format.empty())
        append_extension(bytes, ExtensionType::BackingFormat, bytes_of(header.backing_format));
    // A courtesy for programs that know less than we do; it must leave room in the smallest clusters.
    if (header.version >= 3 && header.geometry.cluster() >= 4096)
        append_extension(bytes, ExtensionType::FeatureNames, feature_names());
    append_extension(bytes, ExtensionType::End, {});
    if (!header.backing_name.empty()) {
        const u64 place = bytes.size();
        store_be(all(), 8, place);
        store_be(all(), 16, static_cast<u32>(header.backing_name.size()));
        const auto name = bytes_of(header.backing_name);
        bytes.insert(bytes.end(), name.begin(), name.end());
    }
    return bytes;
}

}  // namespace tessera::block::qcow2
