// Hostile qcow2 images: opened, read, written, resized, checked and repaired. The input changes a good image:
// a list of places and values, then operations.
#include <algorithm>
#include <array>
#include <cstdlib>
#include <memory>

#include "backends/block/qcow2/check.h"
#include "backends/block/qcow2/create.h"
#include "backends/block/qcow2/image.h"
#include "backends/block/testing/memory_file.h"

namespace {

using namespace tessera;                      // NOLINT(google-build-using-namespace)
using namespace tessera::block;               // NOLINT(google-build-using-namespace)
using namespace tessera::block::qcow2;        // NOLINT(google-build-using-namespace)
using namespace tessera::block::testing_rig;  // NOLINT(google-build-using-namespace)

class Input {
public:
    Input(const std::uint8_t* data, std::size_t size) : rest_(data, size) {}
    [[nodiscard]] bool empty() const { return rest_.empty(); }
    u64 number(std::size_t bytes) {
        u64 value = 0;
        for (std::size_t i = 0; i < bytes && !rest_.empty(); ++i) {
            value = value << 8 | rest_.front();
            rest_ = rest_.subspan(1);
        }
        return value;
    }

private:
    std::span<const std::uint8_t> rest_;
};

// Fails the fuzzer where a test would fail.
void require(bool condition) {
    if (!condition) std::abort();
}

std::vector<u8> good_image(u64 shape) {
    MemoryFile::Medium medium;
    BlockLog log([](const std::string&) {});
    const std::array<u64, 4> clusters{512, 1024, 4096, 65536};
    constexpr std::array<u32, 4> kRefcounts{1, 4, 16, 64};
    const CreateOptions options{.size = 256 * kKiB,
                                .cluster = clusters[shape % 4],
                                .refcount_bits = kRefcounts[shape / 4 % 4],
                                .compression = shape / 16 % 2 == 0 ? Compression::Zlib : Compression::Zstd,
                                .lazy_refcounts = shape / 32 % 2 != 0};
    {
        MemoryFile file(medium);
        require(create(file, options).has_value());
    }
    auto image = Image::open(std::make_unique<MemoryFile>(medium), nullptr, {}, log);
    require(image.has_value());
    const std::vector<u8> bytes(20 * kKiB, 0x5A);
    require((*image)->write(0, std::span<const u8>(bytes)) == BlockStatus::Ok);
    std::vector<u8> cluster(options.cluster, 7);
    require((*image)->write_compressed(128 * kKiB, cluster) == BlockStatus::Ok);
    require((*image)->write_zeroes(64 * kKiB, 64 * kKiB, true) == BlockStatus::Ok);
    image->reset();
    return medium.bytes;
}

void spoil(std::vector<u8>& bytes, Input& input) {
    for (u64 count = input.number(1) % 16; count > 0; --count) {
        const u64 width = u64{1} << input.number(1) % 4;
        const u64 near = input.number(1);  // one in four in the header, the others anywhere
        const u64 place = near % 4 == 0 ? input.number(1) : input.number(3);
        u64 value = input.number(width);
        if (near % 8 == 7) value = value << 9 | (near & 0x80 ? kCopied : 0);
        const u64 at = place % bytes.size();
        for (u64 i = 0; i < width && at + i < bytes.size(); ++i)
            bytes[at + i] = static_cast<u8>(value >> ((width - 1 - i) * 8));
    }
    if (const u64 cut = input.number(1); cut > 250) bytes.resize(bytes.size() * (cut - 250) / 6);
}

void use(Image& image, Input& input) {
    std::vector<u8> buffer(16 * kKiB, 0x33);
    for (int step = 0; step < 40 && !input.empty(); ++step) {
        const u64 size = std::min<u64>(image.size(), 64 * kMiB) / 512;
        if (size == 0) return;
        const u64 what = input.number(1);
        const u64 sector = input.number(2) % size;
        const u64 length = std::min<u64>(1 + input.number(1) % 32, size - sector) * 512;
        const u64 offset = sector * 512;
        const auto part = std::span(buffer).first(length);
        Source::Run run;
        switch (what % 8) {
            case 0: (void)image.read(offset, part); break;
            case 1: (void)image.run_at(offset, run); break;
            case 2: (void)image.write_zeroes(offset, length, what >= 128); break;
            case 3: (void)image.discard(offset, length); break;
            case 4: (void)image.flush(); break;
            case 5: {
                Image::Plan plan;
                if (image.plan(what >= 128 ? Image::Way::Write : Image::Way::Read, offset, length, plan))
                    image.ended(plan.epoch);
                break;
            }
            default: {
                // What was written is read back, as long as the image is not found to be damaged.
                if (image.write(offset, std::span<const u8>(part)) != BlockStatus::Ok) break;
                (void)image.read(offset, part);
                break;
            }
        }
    }
    if (input.number(1) % 16 == 0) (void)image.resize(input.number(2) * 512);
}

}  // namespace

// NOLINTNEXTLINE(readability-identifier-naming): libFuzzer fixes this name.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    static const auto kImages = [] {
        std::array<std::vector<u8>, 64> images;
        for (u64 shape = 0; shape < images.size(); ++shape) images[shape] = good_image(shape);
        return images;
    }();
    Input input(data, size);
    MemoryFile::Medium medium;
    medium.most_bytes = 16 * kMiB;
    medium.bytes = kImages[input.number(1) % kImages.size()];
    spoil(medium.bytes, input);
    const u64 how = input.number(1);
    MemoryFile file(medium);
    BlockLog log([](const std::string&) {});
    if (how % 4 == 0) {
        const auto report = check(file, how >= 128 ? Repair::All : Repair::Leaks);
        if (how >= 128 && report && report->corruptions_left() == 0) {
            const auto again = check(file, Repair::No);
            require(again && again->corruptions == 0);
        }
    }
    {
        const bool writable = how % 8 != 7;
        auto image = Image::open(std::make_unique<MemoryFile>(medium, !writable), nullptr,
                                 {.writable = writable, .l2_cache_bytes = 1, .refcount_cache_bytes = 1}, log);
        if (image) use(**image, input);
    }
    (void)check(file, Repair::No);
    return 0;
}
