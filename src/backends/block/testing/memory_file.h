// A file in memory that remembers what was written to it, and refuses when it is told to.
#pragma once

#include <algorithm>
#include <cstring>
#include <functional>
#include <mutex>
#include <vector>

#include "backends/block/block_file.h"
#include "backends/block/file/pieces.h"

namespace tessera::block::testing_rig {

class MemoryFile final : public BlockFile {
public:
    struct Event {
        enum class Kind : u8 { Write, Sync, Hole, Zeroes, Size } kind;
        u64 offset = 0;
        u64 length = 0;
        std::vector<u8> bytes{};  // NOLINT(readability-redundant-member-init)
    };
    // What is behind the file; outlives it, as a disk outlives a machine.
    struct Medium {
        std::vector<u8> bytes{};  // NOLINT(readability-redundant-member-init)
        std::vector<Event> log;
        bool logging = false;
        // Called before each change; another status than Ok is the answer, and nothing is changed.
        std::function<BlockStatus(const Event&)> refuse;
        u64 most_bytes = 1 * kGiB;
        std::mutex mutex;
    };

    explicit MemoryFile(Medium& medium, bool is_read_only = false)
        : medium_(medium), read_only_(is_read_only) {}

    [[nodiscard]] const std::string& name() const override { return name_; }
    [[nodiscard]] bool read_only() const override { return read_only_; }
    [[nodiscard]] u64 size() const override {
        const std::scoped_lock lock(medium_.mutex);
        return medium_.bytes.size();
    }
    using BlockFile::read;
    using BlockFile::write;
    BlockStatus read(u64 offset, std::span<const iovec> buffers) override {
        const std::scoped_lock lock(medium_.mutex);
        PieceWalk walk(buffers);
        const u64 length = total_length(buffers);
        const u64 have = offset < medium_.bytes.size() ? std::min(length, medium_.bytes.size() - offset) : 0;
        if (have != 0) walk.copy_in(std::span(medium_.bytes).subspan(offset, have));
        walk.fill_zero(length - have);
        return BlockStatus::Ok;
    }
    BlockStatus write(u64 offset, std::span<const iovec> buffers, Durability /*durability*/) override {
        std::vector<u8> bytes(total_length(buffers));
        PieceWalk(buffers).copy_out(bytes);
        return change({.kind = Event::Kind::Write, .offset = offset, .length = bytes.size(), .bytes = bytes});
    }
    BlockStatus sync() override {
        if (sync_failed_) return BlockStatus::IoError;
        const auto status = change({.kind = Event::Kind::Sync, .bytes = {}});
        if (status != BlockStatus::Ok) sync_failed_ = true;
        return status;
    }
    BlockStatus discard(u64 offset, u64 length) override {
        return change({.kind = Event::Kind::Hole, .offset = offset, .length = length, .bytes = {}});
    }
    BlockStatus write_zeroes(u64 offset, u64 length, Unmap /*unmap*/) override {
        return change({.kind = Event::Kind::Zeroes, .offset = offset, .length = length, .bytes = {}});
    }
    BlockStatus resize(u64 size) override {
        return change({.kind = Event::Kind::Size, .offset = size, .bytes = {}});
    }
    [[nodiscard]] Stretch stretch(u64 offset) const override {
        const u64 end = size();
        return {.length = offset < end ? end - offset : 0, .hole = false};
    }
    [[nodiscard]] u64 allocated() const override { return size(); }
    void submit(std::span<BlockRequest* const> requests) override {
        for (BlockRequest* request : requests) {
            switch (request->operation) {
                case BlockOperation::Read: request->done(read(request->offset, request->buffers)); break;
                case BlockOperation::Write:
                    request->done(write(request->offset, request->buffers, Durability::Cached));
                    break;
                case BlockOperation::Flush: request->done(sync()); break;
                case BlockOperation::Discard:
                case BlockOperation::WriteZeroes: request->done(BlockStatus::Unsupported); break;
            }
        }
    }

    // What an event does to bytes; the same for the file and for a replay.
    static void apply(std::vector<u8>& bytes, const Event& event) {
        const auto at = [&](u64 offset) { return bytes.begin() + static_cast<std::ptrdiff_t>(offset); };
        switch (event.kind) {
            case Event::Kind::Write:
                if (bytes.size() < event.offset + event.length) bytes.resize(event.offset + event.length);
                std::ranges::copy(event.bytes, at(event.offset));
                break;
            case Event::Kind::Zeroes:
                if (bytes.size() < event.offset + event.length) bytes.resize(event.offset + event.length);
                std::fill_n(at(event.offset), event.length, u8{0});
                break;
            case Event::Kind::Hole:
                if (event.offset < bytes.size())
                    std::fill_n(at(event.offset), std::min(event.length, bytes.size() - event.offset), u8{0});
                break;
            case Event::Kind::Size: bytes.resize(event.offset); break;
            case Event::Kind::Sync: break;
        }
    }

private:
    BlockStatus change(Event event) {
        if (read_only_ && event.kind != Event::Kind::Sync) return BlockStatus::OutOfRange;
        const std::scoped_lock lock(medium_.mutex);
        if (event.offset > medium_.most_bytes || event.length > medium_.most_bytes - event.offset)
            return BlockStatus::NoSpace;
        if (medium_.refuse)
            if (const auto status = medium_.refuse(event); status != BlockStatus::Ok) return status;
        apply(medium_.bytes, event);
        if (medium_.logging) medium_.log.push_back(std::move(event));
        return BlockStatus::Ok;
    }

    Medium& medium_;
    const bool read_only_;
    const std::string name_ = "memory";
    bool sync_failed_ = false;
};

}  // namespace tessera::block::testing_rig
