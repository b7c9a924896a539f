// What tests of qcow2 images share: images in memory or in files, a model of what they hold, qemu-img as a
// second reader.
#pragma once

#include <cstdio>
#include <fmt/format.h>
#include <memory>
#include <random>

#include "backends/block/file/host_file.h"
#include "backends/block/qcow2/check.h"
#include "backends/block/qcow2/create.h"
#include "backends/block/qcow2/image.h"
#include "backends/block/testing/block_rig.h"
#include "backends/block/testing/memory_file.h"

namespace tessera::block::qcow2 {

using namespace testing_rig;  // NOLINT(google-build-using-namespace): for tests only

struct Ran {
    int code = 0;
    std::string output;
};
inline Ran run_program(const std::string& command) {
    Ran ran;
    std::FILE* const pipe = popen((command + " 2>&1").c_str(), "r");
    if (pipe == nullptr) return {.code = -1, .output = "popen failed"};
    std::array<char, 4096> buffer{};
    while (const std::size_t length = std::fread(buffer.data(), 1, buffer.size(), pipe))
        ran.output.append(buffer.data(), length);
    const int status = pclose(pipe);
    ran.code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    return ran;
}

// [qemu-img(1)] check: 0 consistent, 2 corrupt, 3 leaks only.
inline int qemu_check(const std::string& path, std::string* output = nullptr) {
    const Ran ran = run_program("qemu-img check -f qcow2 " + path);
    if (output != nullptr) *output = ran.output;
    return ran.code;
}

// A disk's content as a plain array, and the same operations on it.
class Model {
public:
    explicit Model(u64 size) : bytes(size) {}
    void write(u64 offset, std::span<const u8> data) {
        std::ranges::copy(data, bytes.begin() + static_cast<std::ptrdiff_t>(offset));
    }
    void zero(u64 offset, u64 length) {
        std::fill_n(bytes.begin() + static_cast<std::ptrdiff_t>(offset), length, u8{0});
    }
    std::vector<u8> bytes;
};

inline std::vector<u8> read_all(Source& source) {
    std::vector<u8> bytes(source.size());
    EXPECT_EQ(source.read(0, std::span(bytes)), BlockStatus::Ok);
    return bytes;
}

struct MemoryImage {
    MemoryFile::Medium medium;
    BlockLog log{[this](const std::string& line) { lines.push_back(line); }};
    std::vector<std::string> lines;

    void make(const CreateOptions& options) {
        MemoryFile file(medium);
        const auto made = create(file, options);
        ASSERT_TRUE(made.has_value()) << made.error().message;
    }
    std::unique_ptr<Image> open(const ImageOptions& options = {}, std::unique_ptr<Source> backing = nullptr) {
        auto image = Image::open(std::make_unique<MemoryFile>(medium, !options.writable), std::move(backing),
                                 options, log);
        EXPECT_TRUE(image.has_value()) << image.error().message;
        return image ? *std::move(image) : nullptr;
    }
    CheckReport checked(Repair repair = Repair::No) {
        MemoryFile file(medium);
        auto report = check(file, repair);
        EXPECT_TRUE(report.has_value()) << report.error().message;
        return report ? *report : CheckReport{.corruptions = 1};
    }
};

// One random operation on image and model alike.
template <typename Random>
BlockStatus random_step(Image& image, Model& model, Random& random, bool discards_are_zeroes) {
    const u64 sectors = model.bytes.size() / 512;
    const u64 cluster = image.header().geometry.cluster();
    u64 offset = random() % sectors * 512;
    u64 length = (1 + random() % std::min<u64>(3 * cluster / 512, 256)) * 512;
    if (random() % 3 == 0) {  // whole clusters
        offset = offset / cluster * cluster;
        length = std::max(length / cluster, u64{1}) * cluster;
    }
    length = std::min(length, model.bytes.size() - offset);
    switch (random() % 10) {
        case 0: {
            const bool unmap = random() % 2 == 0;
            model.zero(offset, length);
            return image.write_zeroes(offset, length, unmap);
        }
        case 1: {
            const auto status = image.discard(offset, length);
            if (!discards_are_zeroes) {  // what is there now counts
                std::vector<u8> now(length);
                EXPECT_EQ(image.read(offset, std::span(now)), BlockStatus::Ok);
                model.write(offset, now);
            }
            return status;
        }
        case 2: return image.flush();
        default: {
            const auto bytes = pattern(length, static_cast<u32>(random()));
            model.write(offset, bytes);
            return image.write(offset, std::span<const u8>(bytes));
        }
    }
}

}  // namespace tessera::block::qcow2
