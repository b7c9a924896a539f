// A file's bytes as a disk to read from: a backing file, what a conversion reads.
#pragma once

#include <algorithm>
#include <memory>

#include "backends/block/block_file.h"
#include "backends/block/source.h"

namespace tessera::block {

class RawSource final : public Source {
public:
    explicit RawSource(std::unique_ptr<BlockFile> file) : file_(std::move(file)) {}
    [[nodiscard]] u64 size() const override {
        return (file_->size() + kSectorSize - 1) / kSectorSize * kSectorSize;
    }
    using Source::read;
    BlockStatus read(u64 offset, std::span<const iovec> buffers) override {
        return file_->read(offset, buffers);
    }
    BlockStatus run_at(u64 offset, Run& run) override {
        const BlockFile::Stretch stretch = file_->stretch(offset);
        const bool past_end = stretch.length == 0;
        run.length = past_end ? size() - offset : stretch.length;
        run.kind = past_end || stretch.hole ? Kind::Zero : Kind::Data;
        return BlockStatus::Ok;
    }

private:
    std::unique_ptr<BlockFile> file_;
};

}  // namespace tessera::block
