// A file or block device of the host as a BlockFile. Opening decides how (cache mode, io_uring or threads)
// and locks it against other writers.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>

#include "backends/block/block_file.h"
#include "backends/block/block_log.h"
#include "backends/block/disk_options.h"
#include "backends/block/file/pieces.h"
#include "backends/block/file/uring_engine.h"
#include "backends/block/file/work_pool.h"
#include "base/result.h"

namespace tessera::block {

enum class FileAccess : u8 { ReadOnly, ReadWrite };
// Looking at what another uses is harmless if nothing is believed of it.
enum class FileLock : u8 { Needed, None };

struct HostFileOptions {
    FileAccess access = FileAccess::ReadWrite;
    CacheMode cache = CacheMode::Writeback;
    DiskEngine engine = DiskEngine::Auto;
    FileLock lock = FileLock::Needed;
};

class HostFile final : public BlockFile, private WorkPool::Handler, private UringEngine::Owner {
public:
    // An existing regular file or block device. `log` outlives it.
    static Result<std::unique_ptr<HostFile>> open(const std::string& path, const HostFileOptions& options,
                                                  BlockLog& log);
    // A new, empty file; fails if there is one.
    static Result<std::unique_ptr<HostFile>> create(const std::string& path, BlockLog& log);
    // A file without a name, gone when closed. In $TMPDIR, or /var/tmp.
    static Result<std::unique_ptr<HostFile>> temporary(BlockLog& log);
    HostFile(const HostFile&) = delete;
    HostFile& operator=(const HostFile&) = delete;
    ~HostFile() override;

    [[nodiscard]] const std::string& name() const override { return name_; }
    [[nodiscard]] bool read_only() const override { return options_.access == FileAccess::ReadOnly; }
    [[nodiscard]] u64 size() const override { return size_.load(std::memory_order_acquire); }
    using BlockFile::read;
    using BlockFile::write;
    BlockStatus read(u64 offset, std::span<const iovec> buffers) override;
    BlockStatus write(u64 offset, std::span<const iovec> buffers, Durability durability) override;
    BlockStatus sync() override;
    BlockStatus discard(u64 offset, u64 length) override;
    BlockStatus write_zeroes(u64 offset, u64 length, Unmap unmap) override;
    BlockStatus resize(u64 size) override;
    [[nodiscard]] Stretch stretch(u64 offset) const override;
    [[nodiscard]] u64 allocated() const override;
    void submit(std::span<BlockRequest* const> requests) override;

    [[nodiscard]] bool is_block_device() const { return block_device_; }
    [[nodiscard]] u32 logical_block() const { return logical_block_; }  // of a device; 512 for files
    [[nodiscard]] u32 physical_block() const { return physical_block_; }
    [[nodiscard]] bool can_discard() const { return can_discard_; }
    [[nodiscard]] bool uses_io_uring() const { return uring_ != nullptr; }
    // Two files with the same identity are one.
    [[nodiscard]] std::pair<u64, u64> identity() const { return identity_; }

private:
    static constexpr unsigned kThreads = 8;

    HostFile(int fd, std::string name, const HostFileOptions& options, BlockLog& log)
        : fd_(fd), name_(std::move(name)), options_(options), log_(log), pool_(kThreads) {}
    static Result<std::unique_ptr<HostFile>> adopt(int fd, const std::string& path,
                                                   const HostFileOptions& options, BlockLog& log);
    Status examine();
    Status lock();
    Status start_engine();
    void find_direct_alignment();

    void handle(BlockRequest& request) override;
    void completed(BlockRequest& request, int error) override;
    [[nodiscard]] bool is_end(u64 offset) const override { return offset >= size(); }
    bool move_by_cache(BlockRequest& request);
    BlockStatus perform(BlockRequest& request);

    [[nodiscard]] bool is_direct() const { return memory_alignment_ != 0; }
    [[nodiscard]] bool is_aligned(u64 offset, std::span<const iovec> buffers) const;
    // The kernel's calls until all is done; 0 or an errno.
    [[nodiscard]] int transfer(bool write, u64 offset, std::span<const iovec> buffers, int flags) const;
    int bounce(bool write, u64 offset, std::span<const iovec> buffers, int flags);
    int bounce_part(bool write, u64 offset, std::span<u8> window, PieceWalk& walk, u64 length, int flags);
    int fill_with_zeroes(u64 offset, u64 length);
    int keep_length(u64 end);
    void grew(u64 end);
    BlockStatus status_of(const char* what, u64 offset, int error);

    const int fd_;
    const std::string name_;
    const HostFileOptions options_;
    BlockLog& log_;
    std::atomic<u64> size_ = 0;
    std::pair<u64, u64> identity_;
    bool block_device_ = false;
    bool can_discard_ = true;
    u32 logical_block_ = kSectorSize;
    u32 physical_block_ = kSectorSize;
    u32 memory_alignment_ = 0;  // what O_DIRECT asks for; 0: not O_DIRECT
    u32 offset_alignment_ = 0;
    std::atomic<bool> sync_failed_ = false;
    std::atomic<bool> cache_takes_writes_ = true;
    std::mutex unaligned_mutex_;  // a write of part of a block under O_DIRECT reads the block first
    std::unique_ptr<UringEngine> uring_;
    WorkPool pool_;
};

}  // namespace tessera::block
