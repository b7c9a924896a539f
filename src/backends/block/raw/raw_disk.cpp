#include "backends/block/raw/raw_disk.h"

#include <vector>

#include "backends/block/request_check.h"

namespace tessera::block {

RawDisk::RawDisk(std::unique_ptr<BlockFile> file) : file_(std::move(file)) {
    info_.size = (file_->size() + kSectorSize - 1) / kSectorSize * kSectorSize;
    info_.discard_granularity = file_->read_only() ? 0 : kSectorSize;
    info_.can_write_zeroes = !file_->read_only();
    info_.read_only = file_->read_only();
    info_.name = file_->name();
}

RawDisk::RawDisk(std::unique_ptr<BlockLog> log, std::unique_ptr<HostFile> file)
    : RawDisk(std::unique_ptr<BlockFile>(std::move(file))) {
    log_ = std::move(log);
    const auto& host = static_cast<const HostFile&>(*file_);
    info_.logical_block = host.logical_block();
    info_.physical_block = std::max(host.physical_block(), info_.logical_block);
    info_.discard_granularity = info_.read_only ? 0 : info_.physical_block;
}

void RawDisk::submit(std::span<BlockRequest* const> requests) {
    std::vector<BlockRequest*> good;
    good.reserve(requests.size());
    for (BlockRequest* request : requests) {
        if (!is_in_range(info_, *request))
            request->done(BlockStatus::OutOfRange);
        else if (request->operation != BlockOperation::Flush && request->length == 0)
            request->done(BlockStatus::Ok);
        else
            good.push_back(request);
    }
    file_->submit(good);
}

}  // namespace tessera::block
