// Images that somebody made to do harm: each is refused, or read and written without harm to anything but
// itself, within little memory and time.
#include <chrono>
#include <gmock/gmock.h>
#include <sys/resource.h>
#include <zlib.h>
#include <zstd.h>

#include "backends/block/qcow2/compression.h"
#include "backends/block/qcow2/image_rig.h"

namespace tessera::block::qcow2 {
namespace {

using ::testing::HasSubstr;

// The places of the tables in the image that each case starts from: 4 KiB clusters, 1 MiB, some data, a
// compressed cluster at guest 512 KiB.
struct Victim {
    std::vector<u8> bytes;
    u64 l1 = 0;
    u64 l2 = 0;
    u64 refcount_table = 0;
    u64 refcount_block = 0;
    u64 data = 0;

    void put64(u64 at, u64 value) { store_be(std::span(bytes), at, value); }
    void put32(u64 at, u32 value) { store_be(std::span(bytes), at, value); }
    [[nodiscard]] u64 get64(u64 at) const { return load_be<u64>(bytes, at); }
    void extension(u32 type, u32 length) {
        put32(112, type);
        put32(116, length);
    }
};

constexpr u64 kCluster = 4096;
constexpr u64 kSize = kMiB;

Victim make_victim(Compression compression = Compression::Zlib) {
    MemoryImage memory;
    memory.make({.size = kSize, .cluster = kCluster, .compression = compression});
    {
        const auto image = memory.open();
        EXPECT_EQ(image->write(0, pattern(64 * kKiB, 1)), BlockStatus::Ok);
        EXPECT_EQ(image->write_compressed(512 * kKiB, std::vector<u8>(kCluster, 7)), BlockStatus::Ok);
    }
    Victim victim{.bytes = memory.medium.bytes};
    victim.bytes.resize((victim.bytes.size() + kCluster - 1) / kCluster * kCluster);
    victim.l1 = victim.get64(40);
    victim.l2 = victim.get64(victim.l1) & kOffsetMask;
    victim.refcount_table = victim.get64(48);
    victim.refcount_block = victim.get64(victim.refcount_table);
    victim.data = victim.get64(victim.l2) & kOffsetMask;
    return victim;
}

enum class Expect : u8 {
    Refused,   // not opened at all
    ReadOnly,  // opened for reading only
    Survives,  // opened, and whatever is done with it ends well
};

struct Case {
    const char* name;
    Expect expect;
    void (*spoil)(Victim&);
};

void PrintTo(const Case& one, std::ostream* out) {
    *out << one.name;
}

constexpr u64 kCompressedIndex = 512 * kKiB / kCluster;

const Case kCases[] = {
    // The header.
    {"Truncated", Expect::Refused, [](Victim& v) { v.bytes.resize(60); }},
    {"OnlyTheHeader", Expect::Refused, [](Victim& v) { v.bytes.resize(104); }},
    {"WrongMagic", Expect::Refused, [](Victim& v) { v.bytes[0] = 'X'; }},
    {"Version0", Expect::Refused, [](Victim& v) { v.put32(4, 0); }},
    {"Version4", Expect::Refused, [](Victim& v) { v.put32(4, 4); }},
    {"ClusterBits0", Expect::Refused, [](Victim& v) { v.put32(20, 0); }},
    {"ClusterBits8", Expect::Refused, [](Victim& v) { v.put32(20, 8); }},
    {"ClusterBits22", Expect::Refused, [](Victim& v) { v.put32(20, 22); }},
    {"ClusterBits31", Expect::Refused, [](Victim& v) { v.put32(20, 31); }},
    {"ClusterBits255", Expect::Refused, [](Victim& v) { v.put32(20, 255); }},
    {"ClusterBitsThatDoNotFit", Expect::Refused, [](Victim& v) { v.put32(20, 21); }},
    {"SizeOf2To63", Expect::Refused, [](Victim& v) { v.put64(24, u64{1} << 63); }},
    {"SizeOfAllOnes", Expect::Refused, [](Victim& v) { v.put64(24, ~u64{0}); }},
    {"SizeThatTheL1TableDoesNotCover", Expect::Refused, [](Victim& v) { v.put64(24, 1 * kGiB); }},
    {"EncryptedByAes", Expect::Refused, [](Victim& v) { v.put32(32, 1); }},
    {"EncryptedByLuks", Expect::Refused, [](Victim& v) { v.put32(32, 2); }},
    {"L1WithoutEntries", Expect::Refused, [](Victim& v) { v.put32(36, 0); }},
    {"L1With4GEntries", Expect::Refused, [](Victim& v) { v.put32(36, ~u32{0}); }},
    {"L1OfJustOver32M", Expect::Refused, [](Victim& v) { v.put32(36, 4 * 1024 * 1024 + 1); }},
    {"L1LongerThanTheFile", Expect::Refused, [](Victim& v) { v.put32(36, 4 * 1024 * 1024); }},
    {"L1AtTheHeader", Expect::Refused, [](Victim& v) { v.put64(40, 0); }},
    {"L1Misaligned", Expect::Refused, [](Victim& v) { v.put64(40, v.l1 + 8); }},
    {"L1PastTheEnd", Expect::Refused, [](Victim& v) { v.put64(40, u64{1} << 50); }},
    {"L1OffsetWraps", Expect::Refused, [](Victim& v) { v.put64(40, ~u64{0} - kCluster + 1); }},
    {"RefcountTableAtTheHeader", Expect::Refused, [](Victim& v) { v.put64(48, 0); }},
    {"RefcountTableMisaligned", Expect::Refused, [](Victim& v) { v.put64(48, v.refcount_table + 512); }},
    {"RefcountTablePastTheEnd", Expect::Refused, [](Victim& v) { v.put64(48, u64{1} << 62); }},
    {"RefcountTableWithoutClusters", Expect::Refused, [](Victim& v) { v.put32(56, 0); }},
    {"RefcountTableOf16T", Expect::Refused, [](Victim& v) { v.put32(56, ~u32{0}); }},
    {"TooManySnapshots", Expect::Refused, [](Victim& v) { v.put32(60, 65537), v.put64(64, kCluster * 2); }},
    {"SnapshotTablePastTheEnd", Expect::Refused,
     [](Victim& v) { v.put32(60, 1), v.put64(64, u64{1} << 40); }},
    {"RefcountsOf128Bits", Expect::Refused, [](Victim& v) { v.put32(96, 7); }},
    {"RefcountOrderOfAllOnes", Expect::Refused, [](Victim& v) { v.put32(96, ~u32{0}); }},
    {"HeaderLength0", Expect::Refused, [](Victim& v) { v.put32(100, 0); }},
    {"HeaderLengthOdd", Expect::Refused, [](Victim& v) { v.put32(100, 105); }},
    {"HeaderLongerThanItsCluster", Expect::Refused, [](Victim& v) { v.put32(100, 1U << 31); }},
    {"UnknownFeature", Expect::Refused, [](Victim& v) { v.put64(72, u64{1} << 63); }},
    {"ExternalDataFile", Expect::Refused, [](Victim& v) { v.put64(72, 4); }},
    {"ExternalDataFileNameOnly", Expect::Refused, [](Victim& v) { v.extension(0x44415441, 8); }},
    {"ExtendedL2", Expect::Refused, [](Victim& v) { v.put64(72, 16); }},
    {"CompressionTypeUnknown", Expect::Refused, [](Victim& v) { v.put64(72, 8), v.bytes[104] = 9; }},
    {"CompressionBitWithoutType", Expect::Refused, [](Victim& v) { v.put64(72, 8); }},
    {"CompressionTypeWithoutBit", Expect::Refused, [](Victim& v) { v.bytes[104] = 1; }},
    {"ExtensionLongerThanItsCluster", Expect::Refused, [](Victim& v) { v.extension(0x12345678, ~u32{0}); }},
    {"ExtensionLengthWraps", Expect::Refused, [](Victim& v) { v.extension(0x6803F857, 0xFFFFFFF9); }},
    {"EncryptionExtension", Expect::Refused, [](Victim& v) { v.extension(0x0537BE77, 16); }},
    {"BackingNamePastTheCluster", Expect::Refused,
     [](Victim& v) { v.put64(8, kCluster - 4), v.put32(16, 100); }},
    {"BackingNameOffsetWraps", Expect::Refused, [](Victim& v) { v.put64(8, ~u64{0} - 3), v.put32(16, 100); }},
    {"BackingNameTooLong", Expect::Refused, [](Victim& v) { v.put64(8, 200), v.put32(16, 1024); }},
    {"BackingNameWithAZero", Expect::Refused, [](Victim& v) { v.put64(8, 2000), v.put32(16, 10); }},
    {"BackingNameInTheHeader", Expect::Refused, [](Victim& v) { v.put64(8, 8), v.put32(16, 10); }},
    {"MarkedCorrupt", Expect::ReadOnly, [](Victim& v) { v.put64(72, 2); }},
    // Tables that lie over one another.
    {"L1IsTheRefcountTable", Expect::ReadOnly, [](Victim& v) { v.put64(40, v.refcount_table); }},
    {"L1IsTheRefcountBlock", Expect::ReadOnly, [](Victim& v) { v.put64(40, v.refcount_block); }},
    {"L2IsTheHeader", Expect::ReadOnly, [](Victim& v) { v.put64(v.l1, kCopied); }},
    {"L2IsTheL1", Expect::ReadOnly, [](Victim& v) { v.put64(v.l1, v.l1 | kCopied); }},
    {"L2IsTheRefcountBlock", Expect::ReadOnly, [](Victim& v) { v.put64(v.l1, v.refcount_block | kCopied); }},
    {"L2Misaligned", Expect::ReadOnly, [](Victim& v) { v.put64(v.l1, (v.l2 + 512) | kCopied); }},
    {"L2PastTheEnd", Expect::ReadOnly, [](Victim& v) { v.put64(v.l1, (u64{1} << 54) | kCopied); }},
    {"L1ReservedBits", Expect::ReadOnly,
     [](Victim& v) { v.put64(v.l1, v.l2 | kCopied | (u64{1} << 60) | 1); }},
    {"RefcountBlockIsTheHeader", Expect::ReadOnly, [](Victim& v) { v.put64(v.refcount_table, 0x1FF); }},
    {"RefcountBlockIsTheL2", Expect::ReadOnly, [](Victim& v) { v.put64(v.refcount_table, v.l2); }},
    {"RefcountBlockIsItsTable", Expect::ReadOnly,
     [](Victim& v) { v.put64(v.refcount_table, v.refcount_table); }},
    {"RefcountBlockMisaligned", Expect::ReadOnly,
     [](Victim& v) { v.put64(v.refcount_table, v.refcount_block + 512); }},
    {"RefcountBlockPastTheEnd", Expect::ReadOnly, [](Victim& v) { v.put64(v.refcount_table, u64{1} << 60); }},
    {"TwoRefcountBlocksAreOne", Expect::ReadOnly,
     [](Victim& v) { v.put64(v.refcount_table + 8, v.refcount_block); }},
    {"SnapshotTableIsTheHeader", Expect::Refused, [](Victim& v) { v.put32(60, 1), v.put64(64, 0); }},
    {"SnapshotTableIsData", Expect::ReadOnly, [](Victim& v) { v.put32(60, 3), v.put64(64, v.data); }},
    {"SnapshotL1IsTheL1", Expect::ReadOnly,
     [](Victim& v) {
         std::fill_n(v.bytes.begin() + static_cast<std::ptrdiff_t>(v.data), kCluster, u8{0});
         v.put32(60, 1), v.put64(64, v.data), v.put64(v.data, v.l1), v.put32(v.data + 8, 1);
     }},
    {"SnapshotExtraOf4G", Expect::ReadOnly,
     [](Victim& v) { v.put32(60, 1), v.put64(64, v.data), v.put32(v.data + 36, ~u32{0}); }},
    // Entries.
    {"DataIsTheHeader", Expect::Survives, [](Victim& v) { v.put64(v.l2, kCopied); }},
    {"DataIsTheL1", Expect::Survives, [](Victim& v) { v.put64(v.l2, v.l1 | kCopied); }},
    {"DataIsItsL2", Expect::Survives, [](Victim& v) { v.put64(v.l2, v.l2 | kCopied); }},
    {"DataIsTheRefcountBlock", Expect::Survives,
     [](Victim& v) { v.put64(v.l2, v.refcount_block | kCopied); }},
    {"DataIsTheRefcountTable", Expect::Survives,
     [](Victim& v) { v.put64(v.l2, v.refcount_table | kCopied); }},
    {"DataMisaligned", Expect::Survives, [](Victim& v) { v.put64(v.l2, (v.data + 512) | kCopied); }},
    {"DataPastTheEnd", Expect::Survives, [](Victim& v) { v.put64(v.l2, (u64{1} << 55) | kCopied); }},
    {"DataJustPastTheEnd", Expect::Survives,
     [](Victim& v) { v.put64(v.l2, (v.bytes.size() + kCluster * 64) / kCluster * kCluster | kCopied); }},
    {"DataReservedBits", Expect::Survives, [](Victim& v) { v.put64(v.l2, v.data | kCopied | 0x1FE); }},
    {"EveryEntryIsOneCluster", Expect::Survives,
     [](Victim& v) {
         for (u64 i = 0; i < 256; ++i) v.put64(v.l2 + i * 8, v.data | kCopied);
     }},
    {"ZeroWithoutAPlaceButCopied", Expect::Survives, [](Victim& v) { v.put64(v.l2, kCopied | kZero); }},
    {"ZeroInTheHeader", Expect::Survives,
     [](Victim& v) { v.put64(v.l2, v.refcount_block | kCopied | kZero); }},
    {"CompressedAndCopied", Expect::Survives,
     [](Victim& v) { v.put64(v.l2, kCompressed | kCopied | v.data); }},
    {"CompressedAtTheHeader", Expect::Survives, [](Victim& v) { v.put64(v.l2, kCompressed); }},
    {"CompressedIsData", Expect::Survives, [](Victim& v) { v.put64(v.l2, kCompressed | v.data); }},
    {"CompressedPastTheEnd", Expect::Survives,
     [](Victim& v) { v.put64(v.l2, kCompressed | (u64{1} << 54)); }},
    {"CompressedOfMostSectors", Expect::Survives, [](Victim& v) { v.put64(v.l2, ~kCopied); }},
    {"CompressedStreamIsNoise", Expect::Survives,
     [](Victim& v) {
         const u64 at = compressed_range({.cluster_bits = 12}, v.get64(v.l2 + kCompressedIndex * 8)).offset;
         std::ranges::copy(pattern(64, 5), v.bytes.begin() + static_cast<std::ptrdiff_t>(at));
     }},
    // Refcounts.
    {"NothingIsCounted", Expect::Survives,
     [](Victim& v) {
         std::fill_n(v.bytes.begin() + static_cast<std::ptrdiff_t>(v.refcount_block), kCluster, u8{0});
     }},
    {"EverythingIsCountedFully", Expect::Survives,
     [](Victim& v) {
         std::fill_n(v.bytes.begin() + static_cast<std::ptrdiff_t>(v.refcount_block), kCluster, u8{0xFF});
     }},
    {"NoRefcountBlocks", Expect::Survives, [](Victim& v) { v.put64(v.refcount_table, 0); }},
    {"MarkedDirty", Expect::Survives, [](Victim& v) { v.put64(72, 1); }},
    {"MarkedDirtyAndNothingIsCounted", Expect::Survives,
     [](Victim& v) {
         v.put64(72, 1);
         std::fill_n(v.bytes.begin() + static_cast<std::ptrdiff_t>(v.refcount_block), kCluster, u8{0});
     }},
    {"MarkedDirtyAndDataIsTheL1", Expect::Survives,
     [](Victim& v) { v.put64(72, 1), v.put64(v.l2, v.l1 | kCopied); }},
    {"BitmapsOf4G", Expect::Survives,
     [](Victim& v) {
         v.extension(0x23852875, 24);
         v.put32(120, ~u32{0}), v.put64(128, ~u64{0}), v.put64(136, ~u64{0}), v.put64(88, 1);
     }},
    {"BitmapDirectoryIsTheHeader", Expect::Survives,
     [](Victim& v) {
         v.extension(0x23852875, 24);
         v.put32(120, 65535), v.put64(128, kCluster), v.put64(136, 0), v.put64(88, 1);
     }},
};

class HostileTest : public ::testing::TestWithParam<Case> {};

// Everything a guest and a user can do with an image.
void use(MemoryFile::Medium& medium, bool writable) {
    BlockLog log([](const std::string&) {});
    auto image =
        Image::open(std::make_unique<MemoryFile>(medium, !writable), nullptr, {.writable = writable}, log);
    if (!image) return;
    std::vector<u8> bytes(64 * kKiB);
    for (u64 at = 0; at + bytes.size() <= (*image)->size() && at < 2 * kMiB; at += bytes.size())
        (void)(*image)->read(at, std::span(bytes));
    for (u64 at = 0; at < 2 * kMiB && at < (*image)->size(); at += 60 * kKiB) {
        Source::Run run;
        (void)(*image)->run_at(at, run);
        if (!writable) continue;
        (void)(*image)->write(at, pattern(512, 1));
        (void)(*image)->write_zeroes(at, 4096, true);
        (void)(*image)->write(at, pattern(512, 2));
        (void)(*image)->discard(at, 8192);
        (void)(*image)->flush();
    }
    if (!writable) return;
    (void)(*image)->write(0, pattern(kMiB, 3));
    (void)(*image)->flush();
    (void)(*image)->resize(8 * kMiB);
}

TEST_P(HostileTest, IsRefusedOrDoesNoHarm) {
    const auto begin = std::chrono::steady_clock::now();
    Victim victim = make_victim();
    GetParam().spoil(victim);
    const auto medium_of = [&](MemoryFile::Medium& medium) {
        medium.bytes = victim.bytes;
        medium.most_bytes = 64 * kMiB;  // a write beyond is as good as an escape
        medium.refuse = [](const MemoryFile::Event& event) {
            EXPECT_LE(event.offset + event.length, 64 * kMiB);
            return BlockStatus::Ok;
        };
    };
    const auto opens = [&](bool writable) {
        MemoryFile::Medium medium;
        medium_of(medium);
        BlockLog log([](const std::string&) {});
        const auto image = Image::open(std::make_unique<MemoryFile>(medium, !writable), nullptr,
                                       {.writable = writable}, log);
        if (!image) {
            EXPECT_THAT(image.error().message, HasSubstr("qcow2 image 'memory'"));
        }
        return image.has_value();
    };
    EXPECT_EQ(opens(false), GetParam().expect != Expect::Refused);
    EXPECT_EQ(opens(true), GetParam().expect == Expect::Survives);
    for (const bool writable : {false, true}) {
        MemoryFile::Medium medium;
        medium_of(medium);
        use(medium, writable);
        if (!writable) {
            EXPECT_TRUE(medium.bytes == victim.bytes);
        }
    }
    MemoryFile::Medium medium;
    medium_of(medium);
    MemoryFile file(medium);
    (void)check(file, Repair::No);
    EXPECT_TRUE(medium.bytes == victim.bytes) << "a check without repair changes nothing";
    (void)check(file, Repair::Leaks);
    const auto repaired = check(file, Repair::All);
    if (repaired && repaired->corruptions_left() == 0) {
        const auto again = check(file, Repair::No);
        ASSERT_TRUE(again.has_value()) << again.error().message;
        EXPECT_EQ(again->corruptions, 0U) << ::testing::PrintToString(again->messages);
        use(medium, true);
        EXPECT_EQ(check(file, Repair::No)->corruptions, 0U) << "after a repair it is an image like others";
    }
    // Not a measurement: an image that takes the monitor's time takes minutes, or for ever.
    EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(20));
}

INSTANTIATE_TEST_SUITE_P(Qcow2, HostileTest, ::testing::ValuesIn(kCases),
                         [](const auto& one) { return std::string(one.param.name); });

TEST(HostileTest, ThereAreAtLeast40Kinds) {
    EXPECT_GE(std::size(kCases), 40U);
}

// What would be read 65536 times is read once, or not at all.
TEST(HostileTest, TablesThatAreNamedOverAndOverTakeNoTime) {
    constexpr u64 kEntry = 56;
    Victim victim = make_victim();
    const u64 table = victim.bytes.size();
    victim.bytes.resize(table + 65536 * kEntry);
    victim.put32(60, 65536);
    victim.put64(64, table);
    for (u64 i = 0; i < 65536; ++i) {
        const u64 at = table + i * kEntry;
        victim.put64(at, table);  // the table itself
        victim.put32(at + 8, 65536 * kEntry / 8);
        victim.put32(at + 36, 16);
    }
    for (const u64 mark : {u64{0}, u64{1}}) {
        MemoryFile::Medium medium;
        medium.bytes = victim.bytes;
        medium.bytes[79] = static_cast<u8>(mark);  // dirty: repaired when it is opened
        use(medium, true);
        use(medium, false);
        MemoryFile file(medium);
        const auto report = check(file, Repair::All);
        EXPECT_TRUE(!report || report->corruptions_left() != 0);
    }
}

TEST(HostileTest, AnUnknownFeatureIsNamedAsTheImageNamesIt) {
    Victim victim = make_victim();
    victim.put64(72, u64{1} << 40);
    victim.extension(0x6803F857, 48);
    std::fill_n(victim.bytes.begin() + 120, 56, u8{0});
    victim.bytes[121] = 40;
    const std::string_view name = "time travel\x1b[2J";
    std::ranges::copy(name, victim.bytes.begin() + 122);
    MemoryFile::Medium medium;
    medium.bytes = victim.bytes;
    MemoryFile file(medium);
    const auto header = read_header(file);
    ASSERT_FALSE(header.has_value());
    EXPECT_THAT(header.error().message, HasSubstr("'time travel?[2J'"));
}

// A few bytes that would unpack to gigabytes fill one cluster and no more.
TEST(CompressionTest, ABombFillsOneClusterOnly) {
    const std::vector<u8> zeroes(16 * kMiB);
    std::vector<u8> packed(zeroes.size());
    z_stream stream{};
    ASSERT_EQ(deflateInit2(&stream, 9, Z_DEFLATED, -12, 9, Z_DEFAULT_STRATEGY), Z_OK);
    stream.next_in = const_cast<u8*>(zeroes.data());
    stream.avail_in = static_cast<uInt>(zeroes.size());
    stream.next_out = packed.data();
    stream.avail_out = static_cast<uInt>(packed.size());
    ASSERT_EQ(deflate(&stream, Z_FINISH), Z_STREAM_END);
    packed.resize(packed.size() - stream.avail_out);
    (void)deflateEnd(&stream);
    std::vector<u8> cluster(64 * kKiB, 0xEE);
    EXPECT_TRUE(decompress(Compression::Zlib, packed, cluster));
    EXPECT_EQ(cluster, std::vector<u8>(64 * kKiB));

    packed.resize(ZSTD_compressBound(zeroes.size()));
    packed.resize(ZSTD_compress(packed.data(), packed.size(), zeroes.data(), zeroes.size(), 19));
    EXPECT_FALSE(decompress(Compression::Zstd, packed, cluster));
}

TEST(CompressionTest, StreamsThatEndTooSoonAreRefused) {
    for (const auto type : {Compression::Zlib, Compression::Zstd}) {
        const std::vector<u8> in(4096, 3);
        const auto packed = compress(type, in);
        ASSERT_TRUE(packed.has_value());
        std::vector<u8> out(4096);
        EXPECT_TRUE(decompress(type, *packed, out));
        EXPECT_EQ(out, in);
        for (u64 length = 0; length < packed->size(); ++length) {
            std::vector<u8> small(4096);
            const bool unpacked = decompress(type, std::span(*packed).first(length), small);
            EXPECT_TRUE(!unpacked || small == in);
        }
        std::vector<u8> larger(8192);
        EXPECT_FALSE(decompress(type, *packed, larger));
        EXPECT_FALSE(compress(type, pattern(4096, 1)).has_value()) << "noise does not become smaller";
    }
}

}  // namespace
}  // namespace tessera::block::qcow2
