// What tests of disks share: requests that can be waited for, files that go away, bytes that tell where they
// were meant for.
#pragma once

#include <array>
#include <condition_variable>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <gtest/gtest.h>
#include <mutex>
#include <random>
#include <span>
#include <string>
#include <unistd.h>
#include <vector>

#include "backends/block/block_backend.h"

namespace tessera::block::testing_rig {

class Waited final : public BlockRequest {
public:
    void done(BlockStatus status) override {
        const std::scoped_lock lock(mutex_);
        status_ = status;
        ++calls_;
        ready_.notify_all();
    }
    BlockStatus wait() {
        std::unique_lock lock(mutex_);
        ready_.wait(lock, [this] { return calls_ > 0; });
        EXPECT_EQ(calls_, 1) << "done() is called once";
        return status_;
    }
    void again() { calls_ = 0; }

private:
    std::mutex mutex_;
    std::condition_variable ready_;
    BlockStatus status_ = BlockStatus::IoError;
    int calls_ = 0;
};

inline BlockStatus run(BlockBackend& disk, BlockOperation operation, u64 offset, std::span<u8> bytes,
                       u64 length = 0, bool may_unmap = false, bool durable = false) {
    Waited request;
    const iovec piece{.iov_base = bytes.data(), .iov_len = bytes.size()};
    request.operation = operation;
    request.offset = offset;
    request.length = bytes.empty() ? length : bytes.size();
    request.buffers = std::span(&piece, bytes.empty() ? 0 : 1);
    request.may_unmap = may_unmap;
    request.force_unit_access = durable;
    BlockRequest* const one = &request;
    disk.submit(std::span(&one, 1));
    return request.wait();
}
inline BlockStatus write(BlockBackend& disk, u64 offset, std::vector<u8> bytes) {
    return run(disk, BlockOperation::Write, offset, bytes);
}
inline std::vector<u8> read(BlockBackend& disk, u64 offset, u64 length) {
    std::vector<u8> bytes(length, 0xEE);
    EXPECT_EQ(run(disk, BlockOperation::Read, offset, bytes), BlockStatus::Ok);
    return bytes;
}
inline BlockStatus flush(BlockBackend& disk) {
    return run(disk, BlockOperation::Flush, 0, {});
}

inline std::vector<u8> pattern(u64 length, u32 seed) {
    std::vector<u8> bytes(length);
    std::minstd_rand random(seed + 1);
    for (u8& byte : bytes) byte = static_cast<u8>(random() >> 8);
    return bytes;
}

// A folder of its own for each test, removed afterwards.
class Folder {
public:
    // In memory where there is a file system for that; on a real one if the test is about the host's files.
    enum class Place : u8 { Memory, Real };
    explicit Folder(Place place = Place::Memory) {
        const bool in_memory = place == Place::Memory && access("/dev/shm", W_OK) == 0;
        const auto parent =
            in_memory ? std::filesystem::path("/dev/shm") : std::filesystem::temp_directory_path();
        std::string name = (parent / "tessera-disk-XXXXXX").string();
        EXPECT_NE(mkdtemp(name.data()), nullptr);
        path_ = name;
    }
    Folder(const Folder&) = delete;
    Folder& operator=(const Folder&) = delete;
    ~Folder() {
        std::error_code ignored;
        std::filesystem::remove_all(path_, ignored);
    }
    [[nodiscard]] std::string operator/(const std::string& name) const { return (path_ / name).string(); }
    std::string file(const std::string& name, std::span<const u8> bytes) const {
        const std::string path = *this / name;
        std::ofstream out(path, std::ios::binary);
        out.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
        return path;
    }
    std::string file(const std::string& name, u64 size) const {
        const std::string path = file(name, std::span<const u8>());
        std::filesystem::resize_file(path, size);
        return path;
    }
    [[nodiscard]] std::vector<u8> content(const std::string& name) const {
        std::ifstream in(*this / name, std::ios::binary);
        return {std::istreambuf_iterator<char>(in), {}};
    }

private:
    std::filesystem::path path_;
};

}  // namespace tessera::block::testing_rig
