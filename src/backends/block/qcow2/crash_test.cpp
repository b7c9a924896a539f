// Crashes and failing hosts: a log of all writes to the image's file, replayed to every prefix and to subsets
// of what was not yet durable, and every write refused in turn. What is left never is corrupt, and has every
// write that a flush acknowledged.
#include <gmock/gmock.h>
#include <map>
#include <ostream>
#include <set>

#include "backends/block/qcow2/image_rig.h"
#include "backends/block/raw/raw_source.h"

namespace tessera::block::qcow2 {
namespace {

using Sector = std::vector<u8>;
using Event = MemoryFile::Event;

// What may be in each sector after a crash: what the last acknowledged flush saw, or anything written since.
class History {
public:
    explicit History(std::span<const u8> start) {
        for (u64 at = 0; at < start.size(); at += 512) {
            const auto bytes = start.subspan(at, 512);
            sectors_.push_back({{0, {bytes.begin(), bytes.end()}}});
        }
    }
    void wrote(u64 log_index, u64 offset, std::span<const u8> bytes) {
        for (u64 at = 0; at < bytes.size(); at += 512) {
            const auto sector = bytes.subspan(at, 512);
            sectors_[(offset + at) / 512].push_back({log_index, {sector.begin(), sector.end()}});
        }
    }
    void zeroed(u64 log_index, u64 offset, u64 length) { wrote(log_index, offset, std::vector<u8>(length)); }
    // A flush that began when so much was in the log was acknowledged when `log_index` was.
    void flushed(u64 began, u64 log_index) { flushes_[log_index] = began; }

    [[nodiscard]] u64 durable_at(u64 log_index) const {
        auto it = flushes_.upper_bound(log_index);
        return it == flushes_.begin() ? 0 : std::prev(it)->second;
    }
    [[nodiscard]] bool allows(u64 sector, u64 log_index, std::span<const u8> found) const {
        const u64 durable = durable_at(log_index);
        const auto& versions = sectors_[sector];
        std::size_t oldest = 0;
        for (std::size_t i = 0; i < versions.size(); ++i)
            if (versions[i].log_index < durable || i == 0) oldest = i;
        for (std::size_t i = oldest; i < versions.size() && versions[i].log_index <= log_index; ++i)
            if (std::ranges::equal(versions[i].bytes, found)) return true;
        return false;
    }

private:
    struct Version {
        u64 log_index;  // the log's length when the write began
        Sector bytes;
    };
    std::vector<std::vector<Version>> sectors_;
    std::map<u64, u64> flushes_;
};

struct Crash {
    u64 cluster;
    u32 refcount_bits;
    u32 version;
    bool backing;
    u64 size = 200 * kKiB;
    u32 steps = 250;
};

class EachCrash : public ::testing::TestWithParam<Crash> {
protected:
    const u64 size_ = GetParam().size;

    void make(u32 seed) {
        memory_.make({.size = size_,
                      .version = GetParam().version,
                      .cluster = GetParam().cluster,
                      .refcount_bits = GetParam().refcount_bits});
        below_ = pattern(GetParam().backing ? size_ / 2 : 0, 99);
        base_.bytes = below_;
        auto start = below_;
        start.resize(size_);
        if (size_ > kMiB) {  // so full that the refcount table has to grow soon
            const auto bytes = pattern(size_ / 3 * 2, 5);
            ASSERT_EQ(memory_.open({}, backing())->write(0, std::span<const u8>(bytes)), BlockStatus::Ok);
            std::ranges::copy(bytes, start.begin());
        }
        history_ = std::make_unique<History>(start);
        random_.seed(seed);
    }
    std::unique_ptr<Source> backing() {
        if (!GetParam().backing) return nullptr;
        return std::make_unique<RawSource>(std::make_unique<MemoryFile>(base_, true));
    }
    [[nodiscard]] u64 log_length() {
        const std::scoped_lock lock(memory_.medium.mutex);
        return memory_.medium.log.size();
    }
    // Of several outcomes that are allowed this one has come about; a later flush makes it durable.
    void now_is(Image& image, u64 offset, u64 length) {
        std::vector<u8> now(length);
        if (image.read(offset, std::span(now)) == BlockStatus::Ok) history_->wrote(log_length(), offset, now);
    }
    // Operations that fail may or may not have happened.
    void step(Image& image) {
        const u64 cluster = GetParam().cluster;
        u64 offset = random_() % (size_ / 512) * 512;
        u64 length = (1 + random_() % 16) * 512 * std::max<u64>(size_ / (512 * kKiB), 1);
        if (random_() % 3 == 0) {
            offset = offset / cluster * cluster;
            length = std::max<u64>((1 + random_() % 4) * cluster, length / cluster * cluster);
        }
        length = std::min(length, size_ - offset);
        const u64 began = log_length();
        switch (random_() % 12) {
            case 0:
            case 1: {
                if (image.flush() == BlockStatus::Ok) history_->flushed(began, log_length());
                break;
            }
            case 2: {
                history_->zeroed(began, offset, length);
                if (image.write_zeroes(offset, length, random_() % 2 == 0) != BlockStatus::Ok)
                    now_is(image, offset, length);
                break;
            }
            case 3: {
                // Contents after a discard are anything that was there: zeroes, the backing file's, the old.
                history_->zeroed(began, offset, length);
                const auto end = std::min<u64>(below_.size(), offset + length);
                if (offset < end)
                    history_->wrote(began, offset, std::span(below_).subspan(offset, end - offset));
                (void)image.discard(offset, length);
                now_is(image, offset, length);
                break;
            }
            case 4: {
                const u64 aligned = offset / cluster * cluster;
                const u64 end = std::min(aligned + cluster, size_);
                std::vector<u8> bytes(cluster, static_cast<u8>(random_()));
                history_->wrote(began, aligned, std::span(bytes).first(end - aligned));
                if (image.write_compressed(aligned, bytes) != BlockStatus::Ok)
                    now_is(image, aligned, end - aligned);
                break;
            }
            default: {
                const auto bytes = pattern(length, static_cast<u32>(random_()));
                history_->wrote(began, offset, bytes);
                if (image.write(offset, std::span<const u8>(bytes)) != BlockStatus::Ok)
                    now_is(image, offset, length);
                break;
            }
        }
    }
    // The image in `medium`, as it would be found after a crash when so much was in the log.
    void examine(MemoryFile::Medium& medium, u64 log_index) {
        MemoryFile file(medium, true);
        const auto report = check(file, Repair::No);
        ASSERT_TRUE(report.has_value()) << report.error().message;
        ASSERT_EQ(report->corruptions, 0U)
            << "at " << log_index << ": " << ::testing::PrintToString(report->messages);
        BlockLog log([](const std::string&) {});
        const auto image =
            Image::open(std::make_unique<MemoryFile>(medium, true), backing(), {.writable = false}, log);
        ASSERT_TRUE(image.has_value()) << image.error().message;
        const auto bytes = read_all(**image);
        for (u64 sector = 0; sector < size_ / 512; ++sector)
            ASSERT_TRUE(history_->allows(sector, log_index, std::span(bytes).subspan(sector * 512, 512)))
                << "sector " << sector << " after a crash at " << log_index;
    }
    // Goes on with what a crash left.
    void go_on(const std::vector<u8>& bytes) {
        MemoryFile::Medium medium;
        medium.bytes = bytes;
        BlockLog log([](const std::string&) {});
        {
            auto image = Image::open(std::make_unique<MemoryFile>(medium), backing(), {}, log);
            ASSERT_TRUE(image.has_value()) << image.error().message;
            Model model(size_);
            model.bytes = read_all(**image);
            for (int i = 0; i < 30; ++i)
                ASSERT_EQ(random_step(**image, model, random_, false), BlockStatus::Ok);
            ASSERT_TRUE(read_all(**image) == model.bytes);
        }
        MemoryFile file(medium);
        ASSERT_EQ(check(file, Repair::No)->corruptions, 0U);
        const auto repaired = check(file, Repair::Leaks);
        ASSERT_TRUE(repaired.has_value());
        ASSERT_EQ(repaired->leaks_left(), 0U);
        const auto after = check(file, Repair::No);
        ASSERT_EQ(after->corruptions + after->leaks, 0U) << ::testing::PrintToString(after->messages);
    }

    // One in so many writes is refused; 0: none.
    void subsets(u32 seed, u32 refused);

    MemoryImage memory_;
    MemoryFile::Medium base_;
    std::vector<u8> below_;
    std::unique_ptr<History> history_;
    std::minstd_rand random_;
};

TEST_P(EachCrash, EveryPrefixOfTheLogIsAGoodImage) {
    make(1);
    const std::vector<u8> start = memory_.medium.bytes;
    memory_.medium.logging = true;
    {
        auto image = memory_.open({.l2_cache_bytes = 1, .refcount_cache_bytes = 1}, backing());
        for (u32 i = 0; i < GetParam().steps; ++i) step(*image);
    }
    const std::vector<Event> log = std::move(memory_.medium.log);
    MemoryFile::Medium now;
    now.bytes = start;
    const Folder folder;
    for (u64 i = 0; i <= log.size(); ++i) {
        ASSERT_NO_FATAL_FAILURE(examine(now, i));
        if (i % 97 == 0) {
            ASSERT_NO_FATAL_FAILURE(go_on(now.bytes));
            std::string output;
            const int code = qemu_check(folder.file("disk.qcow2", now.bytes), &output);
            ASSERT_TRUE(code == 0 || code == 3) << output;
        }
        if (i < log.size()) MemoryFile::apply(now.bytes, log[i]);
    }
    EXPECT_GT(log.size(), 200U);
    // [QCOW2] refcount_table_clusters
    if (size_ > kMiB) {
        EXPECT_GT(load_be<u32>(now.bytes, 56), 1U) << "the refcount table did not grow";
    }
}

void EachCrash::subsets(u32 seed, u32 refused) {
    memory_.medium.bytes.clear();
    memory_.medium.log.clear();
    memory_.medium.logging = false;
    memory_.medium.refuse = nullptr;
    make(seed);
    const std::vector<u8> start = memory_.medium.bytes;
    memory_.medium.logging = true;
    std::minstd_rand luck(seed + 1);
    memory_.medium.refuse = [&](const Event& event) {
        const bool is_refused = refused != 0 && event.kind == Event::Kind::Write && luck() % refused == 0;
        return is_refused ? BlockStatus::NoSpace : BlockStatus::Ok;
    };
    {
        auto image = memory_.open({.l2_cache_bytes = 1, .refcount_cache_bytes = 1}, backing());
        for (u32 i = 0; i < GetParam().steps; ++i) step(*image);
    }
    const std::vector<Event> log = std::move(memory_.medium.log);
    MemoryFile::Medium durable;
    durable.bytes = start;
    u64 first = 0;  // not durable from here on
    for (u64 i = 0; i < log.size(); ++i) {
        if (log[i].kind == Event::Kind::Sync) {
            for (; first <= i; ++first) MemoryFile::apply(durable.bytes, log[first]);
            continue;
        }
        if (random_() % 4 != 0) continue;
        MemoryFile::Medium crashed;
        crashed.bytes = durable.bytes;
        for (u64 k = first; k <= i; ++k) {
            if (log[k].kind != Event::Kind::Write) {
                if (random_() % 2 == 0) MemoryFile::apply(crashed.bytes, log[k]);
                continue;
            }
            // The file's length may be there before the data is.
            if (crashed.bytes.size() < log[k].offset + log[k].length && random_() % 2 == 0)
                crashed.bytes.resize(log[k].offset + log[k].length);
            for (u64 at = 0; at < log[k].length;) {
                const u64 part = std::min(log[k].length - at, 512 - (log[k].offset + at) % 512);
                const auto bytes = std::span(log[k].bytes).subspan(at, part);
                if (random_() % 2 == 0)
                    MemoryFile::apply(crashed.bytes, {.kind = Event::Kind::Write,
                                                      .offset = log[k].offset + at,
                                                      .length = part,
                                                      .bytes = {bytes.begin(), bytes.end()}});
                at += part;
            }
        }
        ASSERT_NO_FATAL_FAILURE(examine(crashed, i + 1));
    }
}

// Between two syncs the host may write in any order, and a write of several sectors in parts.
TEST_P(EachCrash, AnySubsetOfWhatWasNotDurableIsAGoodImage) {
    for (u32 seed = 0; seed < 5; ++seed) ASSERT_NO_FATAL_FAILURE(subsets(seed, 0));
}

// A commit that failed half way, and a crash in the next one.
TEST_P(EachCrash, AnySubsetIsAGoodImageAfterWritesThatFailed) {
    for (u32 seed = 0; seed < 3; ++seed) ASSERT_NO_FATAL_FAILURE(subsets(seed + 100, 12));
}

// Each change of the file is refused once, by turns with EIO and ENOSPC, and everything from it on for ever.
TEST_P(EachCrash, AFailureOfAnyWriteLeavesAGoodImage) {
    for (const bool for_ever : {false, true}) {
        for (u64 fails_at = 0;; fails_at += for_ever ? 7 : 3) {
            memory_.medium.bytes.clear();
            memory_.medium.refuse = nullptr;
            make(static_cast<u32>(fails_at));
            u64 calls = 0;
            memory_.medium.refuse = [&](const Event& event) {
                const u64 call = calls++;
                if (call < fails_at || (!for_ever && call > fails_at)) return BlockStatus::Ok;
                if (event.kind == Event::Kind::Sync) return BlockStatus::IoError;
                return fails_at % 2 == 0 ? BlockStatus::IoError : BlockStatus::NoSpace;
            };
            {
                auto image = memory_.open({.l2_cache_bytes = 1, .refcount_cache_bytes = 1}, backing());
                for (int i = 0; i < 40; ++i) step(*image);
            }
            memory_.medium.refuse = nullptr;
            // The log is not kept here: the last flush that was acknowledged counts, and all that was tried
            // since.
            MemoryFile file(memory_.medium, true);
            const auto report = check(file, Repair::No);
            ASSERT_TRUE(report.has_value()) << report.error().message;
            ASSERT_EQ(report->corruptions, 0U)
                << "refused from call " << fails_at << ": " << ::testing::PrintToString(report->messages);
            if (calls <= fails_at) break;  // nothing was refused
        }
    }
}

// The process is killed in place of a flush that fails: what was acknowledged before is there.
TEST_P(EachCrash, WhatWasFlushedBeforeAFailureIsThere) {
    for (u64 fails_at = 20; fails_at < 200; fails_at += 9) {
        memory_.medium.bytes.clear();
        memory_.medium.log.clear();
        memory_.medium.refuse = nullptr;
        make(static_cast<u32>(fails_at));
        memory_.medium.logging = true;
        memory_.medium.refuse = [&](const Event&) {
            return memory_.medium.log.size() >= fails_at ? BlockStatus::IoError : BlockStatus::Ok;
        };
        {
            auto image = memory_.open({}, backing());
            for (int i = 0; i < 60; ++i) step(*image);
        }
        memory_.medium.refuse = nullptr;
        memory_.medium.logging = false;
        ASSERT_NO_FATAL_FAILURE(examine(memory_.medium, memory_.medium.log.size()));
    }
}

std::string text_of(const Crash& crash) {
    return fmt::format("V{}Cluster{}Refcount{}Size{}K{}", crash.version, crash.cluster, crash.refcount_bits,
                       crash.size / kKiB, crash.backing ? "Backing" : "");
}
// Found by the test framework, which prints bytes otherwise.
void PrintTo(const Crash& crash, std::ostream* out) {  // NOLINT(readability-identifier-naming)
    *out << text_of(crash);
}
std::string name_of(const ::testing::TestParamInfo<Crash>& crash) {
    return text_of(crash.param);
}

INSTANTIATE_TEST_SUITE_P(Qcow2, EachCrash,
                         ::testing::Values(Crash{512, 64, 3, false}, Crash{512, 16, 3, true},
                                           Crash{1024, 1, 3, false}, Crash{4096, 16, 3, true},
                                           Crash{512, 16, 2, false}, Crash{1024, 16, 2, true},
                                           Crash{512, 64, 3, false, 3 * kMiB, 60}),
                         name_of);

}  // namespace
}  // namespace tessera::block::qcow2
