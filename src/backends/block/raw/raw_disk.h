// A disk whose sectors are the bytes of a file, in order.
// A file whose length is no whole number of sectors is a disk rounded up to one: what is missing reads as
// zeroes, and the first write to that sector makes the file as long as the disk.
#pragma once

#include <memory>

#include "backends/block/block_backend.h"
#include "backends/block/block_log.h"
#include "backends/block/file/host_file.h"

namespace tessera::block {

class RawDisk final : public BlockBackend {
public:
    // `log` is the file's.
    RawDisk(std::unique_ptr<BlockLog> log, std::unique_ptr<HostFile> file);
    // In another kind of file.
    explicit RawDisk(std::unique_ptr<BlockFile> file);
    [[nodiscard]] const BlockInfo& info() const override { return info_; }
    void submit(std::span<BlockRequest* const> requests) override;

private:
    std::unique_ptr<BlockLog> log_;
    std::unique_ptr<BlockFile> file_;
    BlockInfo info_;
};

}  // namespace tessera::block
