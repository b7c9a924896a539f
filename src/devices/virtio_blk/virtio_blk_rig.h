// A disk in memory that answers at once, later, out of order, or not well, and a block device before it.
#pragma once

#include <algorithm>
#include <cstring>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "devices/virtio/testing/bench.h"
#include "devices/virtio_blk/virtio_blk.h"

namespace tessera::virtio_blk {

class MemoryDisk final : public BlockBackend {
public:
    static constexpr u64 kSize = 256 * kKiB;

    MemoryDisk() : bytes(kSize) {
        info_.size = kSize;
        info_.physical_block = 4096;
        info_.optimal_io = 65536;
        info_.discard_granularity = 4096;
        info_.can_write_zeroes = true;
        info_.name = "memory";
    }
    [[nodiscard]] const BlockInfo& info() const override { return info_; }
    void set_read_only() { info_.read_only = true; }
    void submit(std::span<BlockRequest* const> requests) override {
        std::vector<BlockRequest*> now;
        {
            const std::lock_guard guard(mutex);
            for (BlockRequest* request : requests) {
                ++submitted;
                if (hold)
                    held.push_back(request);
                else
                    now.push_back(request);
            }
        }
        for (BlockRequest* request : now) finish(*request);
    }
    // Does a request's work and says so.
    void finish(BlockRequest& request) {
        BlockStatus status = BlockStatus::Ok;
        {
            const std::lock_guard guard(mutex);
            status = fail_with;
            if (status == BlockStatus::Ok) work(request);
        }
        request.done(status);
    }
    // Finishes what is held, from `choose(size)` on each time.
    template <typename Choose>
    bool finish_one(const Choose& choose) {
        BlockRequest* request = nullptr;
        {
            const std::lock_guard guard(mutex);
            if (held.empty()) return false;
            const auto at = held.begin() + static_cast<std::ptrdiff_t>(choose(held.size()));
            request = *at;
            held.erase(at);
        }
        finish(*request);
        return true;
    }
    void finish_all() {
        while (finish_one([](std::size_t) { return std::size_t{0}; })) {
        }
    }

    std::mutex mutex;
    bool hold = false;
    BlockStatus fail_with = BlockStatus::Ok;
    std::vector<BlockRequest*> held;
    std::vector<u8> bytes;
    unsigned submitted = 0;
    // What came by, as text.
    std::vector<std::string> log;

private:
    void work(BlockRequest& request) {
        TESSERA_ASSERT(request.offset % kSectorSize == 0 && request.length % kSectorSize == 0 &&
                           request.offset <= kSize && request.length <= kSize - request.offset,
                       "the device has checked it");
        const auto range = std::span(bytes).subspan(request.offset, request.length);
        const char* name = "";
        u64 done = 0;
        switch (request.operation) {
            case BlockOperation::Read:
                for (const iovec& piece : request.buffers) {
                    std::memcpy(piece.iov_base, range.subspan(done).data(), piece.iov_len);
                    done += piece.iov_len;
                }
                name = "read";
                break;
            case BlockOperation::Write:
                for (const iovec& piece : request.buffers) {
                    std::memcpy(range.subspan(done).data(), piece.iov_base, piece.iov_len);
                    done += piece.iov_len;
                }
                name = request.force_unit_access ? "write through" : "write";
                break;
            case BlockOperation::Flush: name = "flush"; break;
            case BlockOperation::Discard: name = "discard"; break;
            case BlockOperation::WriteZeroes:
                std::ranges::fill(range, u8{0});
                name = request.may_unmap ? "zero, unmap" : "zero";
                break;
        }
        const bool transfer =
            request.operation == BlockOperation::Read || request.operation == BlockOperation::Write;
        TESSERA_ASSERT(!transfer || done == request.length, "the buffers are the length");
        if (log.size() < 1000)
            log.push_back(std::string(name) + " " + std::to_string(request.offset / kSectorSize) + " " +
                          std::to_string(request.length / kSectorSize));
    }

    BlockInfo info_;
};

struct BlkKit {
    MemoryDisk disk;
    VirtioBlk device{{.serial = "serial-1", .queues = 2}, disk};

    static constexpr u16 kRequestQueue = 0;
    // Sector 3 into memory.
    static std::vector<virtio::Segment> request(u64 at) {
        return {{.address = at, .length = 16, .writable = false},
                {.address = at + 512, .length = 512, .writable = true},
                {.address = at + 1024, .length = 1, .writable = true}};
    }
    static void header(virtio::BenchRam& ram, u64 at, u32 type, u64 sector) {
        std::memset(ram.at(at), 0, 16);
        std::memcpy(ram.at(at), &type, sizeof type);
        std::memcpy(ram.at(at + 8), &sector, sizeof sector);
    }
    static void prepare(virtio::BenchRam& ram, u64 at) {
        // What fuzzers are to come by: every type, now and then.
        const auto kind = std::to_integer<u32>(*ram.at(at + 2048));
        header(ram, at, kind < 16 ? kind : 0, 3);
        *ram.at(at + 2048) = std::byte{static_cast<u8>(kind + 1)};
    }
    void stimulate(testing_rig::Choices& choices) {
        disk.fail_with = choices.below(4) == 0 ? BlockStatus::IoError : BlockStatus::Ok;
    }
    static void refresh() {}
    void copy_surroundings(const BlkKit& from) {
        disk.bytes = from.disk.bytes;
        disk.fail_with = from.disk.fail_with;
    }
    // Requests stay in flight until some of them are completed, in any order.
    void hold_back(bool hold) {
        disk.hold = hold;
        if (!hold) disk.finish_all();
    }
    void complete_some(testing_rig::Choices& choices) {
        for (u64 n = choices.below(4); n != 0; --n)
            (void)disk.finish_one([&](std::size_t size) { return choices.below(size); });
    }
};

}  // namespace tessera::virtio_blk
