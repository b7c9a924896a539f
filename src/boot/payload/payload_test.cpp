#include "boot/payload/payload.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <random>

#include "boot/testing/packed_kernels.h"

namespace tessera::boot {
namespace {

using testing::HasSubstr;

// Half of it compresses well, half hardly; longer than a block of LZ4's legacy format.
Bytes make_plain(std::size_t size) {
    std::mt19937 random(1);
    Bytes plain(size);
    for (std::size_t at = 0; at < size; ++at)
        plain[at] = static_cast<std::byte>(at / 4096 % 2 == 0 ? at / 64 : random());
    return plain;
}

Result<KernelPayload> find(const Bytes& file) {
    const auto image = parse_bzimage("vmlinuz", file);
    EXPECT_TRUE(image) << image.error().message;
    return find_payload("vmlinuz", *image);
}

struct Unpacked {
    Status status;
    Bytes bytes;
};
Unpacked unpack_all(const Bytes& file) {
    const auto payload = find(file);
    if (!payload) return {.status = std::unexpected(payload.error()), .bytes = {}};
    Bytes out(payload->unpacked_size);
    Status status = unpack("vmlinuz", *payload, out);
    return {.status = std::move(status), .bytes = std::move(out)};
}

class PayloadFormatTest : public testing::TestWithParam<Compression> {};
INSTANTIATE_TEST_SUITE_P(All, PayloadFormatTest,
                         testing::Values(Compression::Gzip, Compression::Xz, Compression::Lzma,
                                         Compression::Lz4, Compression::Zstd),
                         [](const auto& test) { return std::string(name_of(test.param)); });

TEST_P(PayloadFormatTest, UnpacksWhatWasPacked) {
    const Bytes plain = make_plain((9 << 20) + 123);
    const Bytes file = make_packed_bzimage(pack(GetParam(), plain));
    const auto payload = find(file);
    ASSERT_TRUE(payload) << payload.error().message;
    EXPECT_EQ(payload->compression, GetParam());
    EXPECT_EQ(payload->unpacked_size, plain.size());
    const Unpacked out = unpack_all(file);
    ASSERT_TRUE(out.status) << out.status.error().message;
    EXPECT_TRUE(out.bytes == plain);
}

TEST_P(PayloadFormatTest, AnotherSizeThanAnnouncedIsDamage) {
    const Bytes plain = make_plain(100'000);
    for (const s32 more : {-1, 1, 5000}) {
        Bytes payload = pack(GetParam(), plain);
        poke<u32>(payload, payload.size() - 4, static_cast<u32>(100'000 + more));
        const Unpacked out = unpack_all(make_packed_bzimage(payload));
        ASSERT_FALSE(out.status) << more;
        EXPECT_EQ(out.status.error().code, Errc::InvalidArgument);
        EXPECT_THAT(out.status.error().message, HasSubstr(name_of(GetParam()))) << more;
    }
}

TEST_P(PayloadFormatTest, DamageAnywhereIsRefusedOrHarmless) {
    const Bytes plain = make_plain(20'000);
    const Bytes good = pack(GetParam(), plain);
    int refused = 0;
    for (std::size_t at = 6; at + 4 < good.size(); at += 97) {
        Bytes payload = good;
        payload[at] ^= std::byte{0x55};
        const Unpacked out = unpack_all(make_packed_bzimage(payload));
        if (!out.status) ++refused;
    }
    EXPECT_GT(refused, 0);
    for (const std::size_t size : {good.size() / 4, good.size() / 2, good.size() - 10}) {
        Bytes payload(good.begin(), good.begin() + static_cast<std::ptrdiff_t>(size));
        poke<u32>(payload, payload.size(), 20'000);
        EXPECT_FALSE(unpack_all(make_packed_bzimage(payload)).status) << "cut at " << size;
    }
}

TEST(PayloadTest, KernelsThatDoNotTellUnpackThemselves) {
    Bytes file = make_packed_bzimage(pack(Compression::Lz4, make_plain(1000)));
    poke<u16>(file, 0x206, 0x0209);  // no init_size yet
    EXPECT_EQ(find(file).error().code, Errc::Unsupported);
    file = make_bzimage();  // payload_length 0
    EXPECT_EQ(find(file).error().code, Errc::Unsupported);
    Bytes payload = pack(Compression::Lz4, make_plain(1000));
    poke_text(payload, 0, "BZh9");
    const auto bzip2 = find(make_packed_bzimage(payload));
    EXPECT_EQ(bzip2.error().code, Errc::Unsupported);
    EXPECT_THAT(bzip2.error().message, HasSubstr("another way than gzip, xz, lzma, lz4 or zstd"));
}

TEST(PayloadTest, HeadersThatCannotBeAreDamage) {
    const Bytes good = make_packed_bzimage(pack(Compression::Zstd, make_plain(1000)));
    for (const auto& [offset, value] :
         std::initializer_list<std::pair<std::size_t, u32>>{{0x248, 0xffffffff},  // payload_offset
                                                            {0x248, 0x7fffffff},
                                                            {0x24c, 0xffffffff},  // payload_length
                                                            {0x24c, 4}}) {
        Bytes file = good;
        poke<u32>(file, offset, value);
        const auto payload = find(file);
        ASSERT_FALSE(payload);
        EXPECT_EQ(payload.error().code, Errc::InvalidArgument) << value;
        EXPECT_THAT(payload.error().message, HasSubstr("vmlinuz: "));
    }
}

TEST(PayloadTest, UnpacksNoMoreThanTheMemoryTheHeaderAsksFor) {
    Bytes payload = pack(Compression::Zstd, make_plain(1 << 20));
    EXPECT_TRUE(find(make_packed_bzimage(payload, 1 << 20)));
    EXPECT_EQ(find(make_packed_bzimage(payload, (1 << 20) - 1)).error().code, Errc::InvalidArgument);
    poke<u32>(payload, payload.size() - 4, 0);
    EXPECT_EQ(find(make_packed_bzimage(payload)).error().code, Errc::InvalidArgument);
    poke<u32>(payload, payload.size() - 4, (1U << 30) + 1);
    EXPECT_EQ(find(make_packed_bzimage(payload, 0x6000'0000)).error().code, Errc::Unsupported);
}

TEST(PayloadTest, AWindowThatNeedsTooMuchMemoryIsUnsupported) {
    Bytes payload = pack_xz(make_plain(1000), 1U << 30);
    poke<u32>(payload, payload.size(), 1000);
    const Unpacked out = unpack_all(make_packed_bzimage(payload));
    ASSERT_FALSE(out.status);
    EXPECT_EQ(out.status.error().code, Errc::Unsupported);
    EXPECT_THAT(out.status.error().message, HasSubstr("too much memory"));
}

TEST(PayloadTest, Lz4BlocksAreFullButTheLast) {
    // A stream of blocks that give a byte each is none that a kernel's build makes.
    Bytes payload;
    poke<u32>(payload, 0, 0x184c'2102);
    for (int n = 0; n < 100; ++n) {
        poke<u32>(payload, payload.size(), 2);
        poke<u16>(payload, payload.size(), 0x4110);  // one literal, 'A'
    }
    for (const u32 announced : {1U, 99U, 100U, 101U}) {
        Bytes whole = payload;
        poke<u32>(whole, whole.size(), announced);
        EXPECT_FALSE(unpack_all(make_packed_bzimage(whole)).status) << announced;
    }
}

TEST(PayloadTest, Lz4BlocksMayBeUnpackedInAnyOrder) {
    const Bytes plain = make_plain((20 << 20) + 5);
    const Bytes file = make_packed_bzimage(pack(Compression::Lz4, plain), 24 << 20);
    const auto payload = find(file);
    ASSERT_TRUE(payload);
    Bytes out(payload->unpacked_size);
    std::size_t pieces = 0;
    const auto backwards = [&](std::size_t count, const std::function<void(std::size_t)>& task) {
        pieces = count;
        while (count-- > 0) task(count);
    };
    ASSERT_TRUE(unpack("vmlinuz", *payload, out, backwards));
    EXPECT_EQ(pieces, 3U);
    EXPECT_TRUE(out == plain);
}

}  // namespace
}  // namespace tessera::boot
