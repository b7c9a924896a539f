// A qcow2 image as a disk: what tables in memory can place goes straight to the file, many requests at a
// time; what needs more (allocation, decompression, a backing file, tables to be read) is done by threads.
#pragma once

#include <memory>

#include "backends/block/file/work_pool.h"
#include "backends/block/qcow2/image.h"

namespace tessera::block::qcow2 {

struct DiskSettings {
    std::string name;
    u32 physical_block = 4096;
    bool read_only = false;
    bool write_through = false;  // every write is durable when it completes
};

class Qcow2Disk final : public BlockBackend, private WorkPool::Handler {
public:
    // `log` is the image's and its files'.
    Qcow2Disk(std::unique_ptr<BlockLog> log, std::unique_ptr<Image> image, DiskSettings settings);
    [[nodiscard]] const BlockInfo& info() const override { return info_; }
    void submit(std::span<BlockRequest* const> requests) override;
    [[nodiscard]] Image& image() { return *image_; }

private:
    static constexpr unsigned kThreads = 8;
    class Direct;  // a request that is under way without a thread

    void handle(BlockRequest& request) override;
    BlockStatus perform(const BlockRequest& request);
    // Null if it cannot be done so.
    std::unique_ptr<Direct> direct(BlockRequest& request);

    std::unique_ptr<BlockLog> log_;
    std::unique_ptr<Image> image_;
    const DiskSettings settings_;
    BlockInfo info_;
    WorkPool pool_;
};

}  // namespace tessera::block::qcow2
