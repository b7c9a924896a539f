// A qcow2 image: maps the guest's clusters to the file's, allocates, copies on write. [QCOW2]
// Its calls wait until they are done and may be made by many threads at once; qcow2_disk.h makes a disk of
// it.
//
// What is durable when. Changes of L1 and L2 tables and of refcounts stay in memory until a commit, which
//   1. writes the refcounts and those L2 tables that nothing in the file refers to yet,
//   2. waits until these and all data written so far are durable,
//   3. writes the changed parts of L2 and L1 tables, and waits until they are durable,
//   4. only then counts down the refcounts of what the tables no longer refer to.
// So at any moment the file refers to nothing that is not counted and written, and a cluster is not used
// again while the file may still refer to it. A crash loses clusters (leaks) at most.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <vector>

#include "backends/block/block_file.h"
#include "backends/block/block_log.h"
#include "backends/block/file/pieces.h"
#include "backends/block/qcow2/header.h"
#include "backends/block/qcow2/metadata_map.h"
#include "backends/block/qcow2/refcounts.h"
#include "backends/block/qcow2/snapshots.h"
#include "backends/block/qcow2/table_cache.h"
#include "backends/block/source.h"

namespace tessera::block::qcow2 {

struct ImageOptions {
    bool writable = true;
    u64 l2_cache_bytes = 32 * kMiB;
    u64 refcount_cache_bytes = 4 * kMiB;
};

class Image final : public Source {
public:
    // `backing` is what unallocated clusters read from, null for zeroes. `log` outlives the image. An image
    // that a writer left in the middle of its work (dirty bit) is repaired if it may be written.
    static Result<std::unique_ptr<Image>> open(std::unique_ptr<BlockFile> file,
                                               std::unique_ptr<Source> backing, const ImageOptions& options,
                                               BlockLog& log);
    Image(const Image&) = delete;
    Image& operator=(const Image&) = delete;
    ~Image() override;  // commits

    [[nodiscard]] const Header& header() const { return header_; }
    [[nodiscard]] const std::vector<Snapshot>& snapshots() const { return snapshots_.snapshots; }
    [[nodiscard]] BlockFile& file() { return *file_; }
    [[nodiscard]] Source* backing() { return backing_.get(); }
    [[nodiscard]] bool has_backing() const { return backing_ != nullptr; }

    [[nodiscard]] u64 size() const override { return header_.disk_size / kSectorSize * kSectorSize; }
    using Source::read;
    BlockStatus read(u64 offset, std::span<const iovec> buffers) override;
    BlockStatus run_at(u64 offset, Run& run) override;
    BlockStatus write(u64 offset, std::span<const iovec> buffers);
    BlockStatus write(u64 offset, std::span<const u8> bytes);
    BlockStatus write_zeroes(u64 offset, u64 length, bool may_unmap);
    BlockStatus discard(u64 offset, u64 length);
    // One whole cluster that was never written, compressed if that makes it smaller.
    BlockStatus write_compressed(u64 offset, std::span<const u8> cluster);
    // Everything completed so far is durable: a commit.
    BlockStatus flush();
    Status resize(u64 new_size);
    // Makes all of it read from the backing file again. Nothing may be in flight.
    BlockStatus make_empty();
    // What this image itself holds, not its backing file.
    BlockStatus mapping_at(u64 offset, ClusterKind& kind, u64& length);

    // A request whose data can be moved without looking at anything but tables in memory: where it is. Does
    // not wait: false also if somebody holds the image's lock, who may be reading a table. While it is under
    // way the clusters are not used for anything else; ended() says that it is over.
    struct Segment {
        u64 host = 0;
        u64 length = 0;
        bool zero = false;  // reads as zeroes, has no place
    };
    struct Plan {
        std::vector<Segment> segments;
        u64 epoch = 0;
    };
    enum class Way : u8 { Read, Write };
    [[nodiscard]] bool plan(Way way, u64 offset, u64 length, Plan& plan);
    void ended(u64 epoch) { end_io(epoch); }

private:
    struct Span {  // guest clusters, by number
        u64 first;
        u64 count;
        [[nodiscard]] u64 end() const { return first + count; }
    };
    struct WriteStep {
        u64 offset = 0;
        u64 length = 0;
        Span clusters{};
        bool in_place = false;
        bool reuse = false;      // the cluster's own place, which reads as zeroes so far
        bool untouched = false;  // the new place reads as zeroes
        u64 host = 0;            // of the first cluster
        Mapping first_old;
        Mapping last_old;
        u64 epoch = 0;
    };
    struct ReadStep {
        Mapping mapping;
        u64 length = 0;
        u64 epoch = 0;
        u64 generation = 0;
    };
    struct PieceOfFile {
        u64 offset = 0;
        std::vector<u8> bytes;
        u64 table = 0;  // the table it is of
        u64 changes = 0;
    };
    struct Batch {
        std::vector<PieceOfFile> fresh_blocks, blocks, refcount_table, fresh_l2, l2, l1;
        std::vector<u64> freed;
        u64 epoch = 0;
        bool refers = false;  // the file may refer to the fresh tables: step 3 has begun
        [[nodiscard]] bool has_mappings() const { return !l2.empty() || !l1.empty() || !fresh_l2.empty(); }
    };
    struct Freed {
        u64 epoch;  // I/O that began in it may still use the clusters
        std::vector<u64> clusters;
    };
    enum class Clear : u8 { Zero, ZeroUnmap, Discard, Drop };

    Image(std::unique_ptr<BlockFile> file, std::unique_ptr<Source> backing, Header header,
          const ImageOptions& options, BlockLog& log);

    // image_open.cpp
    Status load();
    Status prepare_writing();
    Status collect_metadata();
    Status collect_tables();

    // image.cpp; with mutex_
    [[nodiscard]] const Geometry& geometry() const { return header_.geometry; }
    BlockStatus l2_for_reading(u64 l1_index, Table*& table);  // null: none
    BlockStatus l2_for_writing(u64 l1_index, Table*& table);
    [[nodiscard]] Mapping mapping(const Table* table, u64 guest) const;
    void set_l1(u64 index, u64 entry);
    BlockStatus broken(const std::string& what);
    void release(const Mapping& old);
    u64 begin_io() {
        const std::scoped_lock lock(active_mutex_);
        ++active_[epoch_];
        return epoch_;
    }
    [[nodiscard]] u64 busy_from() {
        const std::scoped_lock lock(active_mutex_);
        return active_.empty() ? ~u64{0} : active_.begin()->first;
    }
    void end_io(u64 epoch);
    [[nodiscard]] bool is_being_allocated(Span clusters) const;
    [[nodiscard]] bool is_good_place(u64 host, u64 length) const;

    // image_read.cpp
    BlockStatus next_read(u64 offset, u64 length, ReadStep& step);
    BlockStatus perform_read(u64 offset, const ReadStep& step, PieceWalk& walk);
    BlockStatus read_backing(u64 offset, std::span<const iovec> buffers);
    BlockStatus read_compressed(const ReadStep& step, std::vector<u8>& cluster);
    BlockStatus read_old(const Mapping& old, u64 offset, std::span<u8> bytes);
    [[nodiscard]] bool old_reads_as_zeroes(const Mapping& old, u64 offset, u64 length);

    // image_write.cpp
    BlockStatus write_part(u64 offset, u64 most, PieceWalk& walk, u64& length);
    BlockStatus next_write(std::unique_lock<std::mutex>& lock, u64 offset, u64 most, WriteStep& step);
    BlockStatus plan_allocation(Table& table, u64 offset, u64 most, WriteStep& step);
    BlockStatus perform_write(const WriteStep& step, PieceWalk& walk);
    BlockStatus finish_write(const WriteStep& step, BlockStatus status);
    BlockStatus clear(u64 offset, u64 length, Clear how);
    BlockStatus clear_clusters(Span clusters, Clear how);
    BlockStatus clear_in_table(std::unique_lock<std::mutex>& lock, Span clusters, Clear how);
    [[nodiscard]] u64 cleared_entry(const Mapping& old, Clear how) const;
    BlockStatus write_zero_part(u64 offset, u64 length);
    BlockStatus reserve_compressed(u64 length, u64& offset);
    BlockStatus relieve();

    // image_commit.cpp
    BlockStatus commit();  // with commit_mutex_
    BlockStatus sync();
    Status grow_l1(u64 entries);
    Batch capture();  // with mutex_
    BlockStatus write_batch(Batch& batch);
    BlockStatus write_all(const std::vector<PieceOfFile>& pieces);
    void committed(const Batch& batch);
    void not_committed(Batch& batch);
    BlockStatus free_clusters();

    std::unique_ptr<BlockFile> file_;
    std::unique_ptr<Source> backing_;
    BlockLog& log_;
    const ImageOptions options_;
    Header header_;
    SnapshotTable snapshots_;

    std::atomic<u64> commits_ = 0;               // begun
    std::mutex commit_mutex_;                    // one commit at a time; taken before mutex_
    BlockStatus last_commit_ = BlockStatus::Ok;  // under commit_mutex_
    std::mutex mutex_;                           // all that follows
    std::condition_variable allocated_;
    std::vector<u64> l1_;
    std::set<u64> dirty_l1_sectors_;
    MetadataMap map_;
    TableCache l2_;
    Refcounts refcounts_;
    std::vector<Span> allocating_;  // guest clusters whose data is being written to a new place
    u64 epoch_ = 1;                 // counts commits
    std::vector<u64> freed_;        // clusters no table in memory refers to any more, once for each reference
    std::vector<Freed> committed_freed_;
    u64 compressed_at_ = 0;             // the next compressed cluster may go here; 0: nowhere yet
    bool broken_ = false;               // the image breaks the rules: no more writes
    std::atomic<bool> failed_ = false;  // a flush failed: no more writes; not only under mutex_

    std::mutex active_mutex_;    // after mutex_
    std::map<u64, u64> active_;  // data I/O under way, by the epoch it began in

    std::mutex unpacked_mutex_;  // the latest compressed cluster, for reads that go on in it
    u64 unpacked_entry_ = 0;
    std::vector<u8> unpacked_;
    u64 unpacked_generation_ = 0;  // under mutex_: compressed clusters that were freed
};

}  // namespace tessera::block::qcow2
