// Disks against the host's own file: sequential 1 MiB and random 4 KiB requests, straight on the backends.
//     bench_disk [--size MIB] [--seconds S]      the file goes to $TMPDIR
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <fcntl.h>
#include <filesystem>
#include <fmt/format.h>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <string_view>
#include <unistd.h>
#include <vector>

#include "backends/block/file/pieces.h"
#include "backends/block/open/open_disk.h"
#include "backends/block/transfer/transfer.h"

namespace {

using namespace tessera;  // NOLINT(google-build-using-namespace)
using Clock = std::chrono::steady_clock;

struct Load {
    const char* name;
    BlockOperation operation;
    u64 length;
    bool random;
    unsigned depth;
};
constexpr Load kLoads[] = {
    {"sequential read 1M qd4", BlockOperation::Read, kMiB, false, 4},
    {"sequential write 1M qd4", BlockOperation::Write, kMiB, false, 4},
    {"random read 4K qd1", BlockOperation::Read, 4096, true, 1},
    {"random read 4K qd32", BlockOperation::Read, 4096, true, 32},
    {"random write 4K qd1", BlockOperation::Write, 4096, true, 1},
    {"random write 4K qd32", BlockOperation::Write, 4096, true, 32},
};

struct Settings {
    u64 size = 256 * kMiB;
    double seconds = 1;
};

double since(Clock::time_point begin) {
    return std::chrono::duration<double>(Clock::now() - begin).count();
}

// The places a load goes to, one after the other.
class Places {
public:
    Places(const Load& load, u64 size) : load_(load), count_(size / load.length) {}
    u64 next() { return (load_.random ? random_() % count_ : at_++ % count_) * load_.length; }

private:
    const Load& load_;
    u64 count_;
    u64 at_ = 0;
    std::minstd_rand random_{7};
};

// Requests in flight are kept at the load's depth until the time is over.
class Runner {
public:
    Runner(BlockBackend& disk, const Load& load, const Settings& settings)
        : disk_(disk), load_(load), settings_(settings), places_(load, settings.size) {}

    double operations_per_second() {
        std::vector<std::unique_ptr<Request>> requests;
        for (unsigned i = 0; i < load_.depth; ++i)
            requests.push_back(std::make_unique<Request>(*this, load_));
        const auto begin = Clock::now();
        std::vector<BlockRequest*> idle;
        for (const auto& request : requests) idle.push_back(request.get());
        u64 done = 0;
        unsigned flying = 0;
        for (;;) {
            const bool over = since(begin) > settings_.seconds;
            if (!over) {
                for (BlockRequest* request : idle) request->offset = places_.next();
                flying += static_cast<unsigned>(idle.size());
                disk_.submit(idle);
            }
            idle.clear();
            if (flying == 0) break;
            std::unique_lock lock(mutex_);
            ready_.wait(lock, [this] { return !completed_.empty(); });
            idle.swap(completed_);
            lock.unlock();
            flying -= static_cast<unsigned>(idle.size());
            done += idle.size();
        }
        return static_cast<double>(done) / since(begin);
    }

private:
    class Request final : public BlockRequest {
    public:
        Request(Runner& runner, const Load& load) : runner_(runner), memory_(load.length, 4096) {
            std::ranges::fill(memory_.bytes(), u8{0x5A});
            piece_ = {.iov_base = memory_.bytes().data(), .iov_len = load.length};
            operation = load.operation;
            length = load.length;
            buffers = std::span(&piece_, 1);
        }
        void done(BlockStatus status) override {
            if (status != BlockStatus::Ok) std::abort();
            const std::scoped_lock lock(runner_.mutex_);
            runner_.completed_.push_back(this);
            runner_.ready_.notify_one();
        }

    private:
        Runner& runner_;
        block::AlignedBuffer memory_;
        iovec piece_{};
    };

    BlockBackend& disk_;
    const Load& load_;
    const Settings settings_;
    Places places_;
    std::mutex mutex_;
    std::condition_variable ready_;
    std::vector<BlockRequest*> completed_;
};

// One thread that calls pread or pwrite.
double host(const std::string& path, const Load& load, const Settings& settings) {
    const int fd = open(path.c_str(), O_RDWR | O_CLOEXEC);  // NOLINT(cppcoreguidelines-pro-type-vararg)
    if (fd < 0) std::abort();
    const block::AlignedBuffer memory(load.length, 4096);
    std::ranges::fill(memory.bytes(), u8{0x5A});
    Places places(load, settings.size);
    const auto begin = Clock::now();
    u64 done = 0;
    while (since(begin) < settings.seconds) {
        const auto at = static_cast<off_t>(places.next());
        const ssize_t moved = load.operation == BlockOperation::Read
                                  ? pread(fd, memory.bytes().data(), load.length, at)
                                  : pwrite(fd, memory.bytes().data(), load.length, at);
        if (moved != static_cast<ssize_t>(load.length)) std::abort();
        ++done;
    }
    (void)close(fd);
    return static_cast<double>(done) / since(begin);
}

struct Subject {
    const char* name;
    const char* file;  // "" for the host itself
    CacheMode cache;
    DiskEngine engine;
    bool fresh;  // an image without content, to be allocated
};
constexpr Subject kSubjects[] = {
    {"host, page cache", "", CacheMode::Writeback, DiskEngine::Auto, false},
    {"raw threads", "disk.img", CacheMode::Writeback, DiskEngine::Threads, false},
    {"raw io_uring", "disk.img", CacheMode::Writeback, DiskEngine::IoUring, false},
    {"raw cache=none threads", "disk.img", CacheMode::None, DiskEngine::Threads, false},
    {"raw cache=none io_uring", "disk.img", CacheMode::None, DiskEngine::IoUring, false},
    {"qcow2", "disk.qcow2", CacheMode::Writeback, DiskEngine::Auto, false},
    {"qcow2 cache=none", "disk.qcow2", CacheMode::None, DiskEngine::Auto, false},
    {"qcow2, being allocated", "fresh.qcow2", CacheMode::Writeback, DiskEngine::Auto, true},
};

void fill(const std::string& path, const Settings& settings) {
    auto disk = open_disk({.path = path, .cache = CacheMode::Unsafe});
    if (!disk) std::abort();
    const Load write{"", BlockOperation::Write, kMiB, false, 8};
    Settings whole = settings;
    // As often as it takes to write all of it.
    for (u64 done = 0; done < settings.size;) {
        whole.seconds = 0.2;
        done += static_cast<u64>(Runner(**disk, write, whole).operations_per_second() * 0.2) * kMiB;
    }
}

void make(const std::string& path, const Settings& settings) {
    std::filesystem::remove(path);
    const bool raw = path.ends_with(".img");
    if (!block::create_disk({.path = path,
                             .format = raw ? DiskFormat::Raw : DiskFormat::Qcow2,
                             .qcow2 = {.size = settings.size}}))
        std::abort();
}

// What is read through the page cache is in it, whatever the measurement before did to it.
void warm(const std::string& path) {
    const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);  // NOLINT(cppcoreguidelines-pro-type-vararg)
    std::vector<u8> buffer(kMiB);
    while (fd >= 0 && read(fd, buffer.data(), buffer.size()) > 0) {
    }
    (void)close(fd);
}

void measure(const std::string& folder, const Settings& settings) {
    for (const char* name : {"/disk.img", "/disk.qcow2"}) {
        make(folder + name, settings);
        fill(folder + name, settings);
        sync();
    }
    for (const Load& load : kLoads) {
        fmt::print("{}\n", load.name);
        warm(folder + "/disk.img");
        const double own = host(folder + "/disk.img", load, settings);
        for (const Subject& subject : kSubjects) {
            double rate = own;
            if (*subject.file != 0) {
                const std::string path = folder + "/" + subject.file;
                if (subject.fresh) make(path, settings);
                if (subject.cache == CacheMode::Writeback) warm(path);
                const auto disk = open_disk({.path = path, .cache = subject.cache, .engine = subject.engine});
                if (!disk) {
                    fmt::print("  {:<26} {}\n", subject.name, disk.error().message);
                    continue;
                }
                rate = Runner(**disk, load, settings).operations_per_second();
            }
            fmt::print("  {:<26} {:>10.0f} per second  {:>9.1f} MiB/s  {:>5.2f} of the host\n", subject.name,
                       rate, rate * static_cast<double>(load.length) / static_cast<double>(kMiB), rate / own);
        }
    }
}

}  // namespace

int main(int argc, char** argv) {
    Settings settings;
    const std::vector<std::string_view> words(argv + 1, argv + argc);
    for (std::size_t i = 0; i + 1 < words.size(); ++i) {
        const std::string value(words[i + 1]);
        if (words[i] == "--size") settings.size = std::strtoull(value.c_str(), nullptr, 10) * kMiB;
        if (words[i] == "--seconds") settings.seconds = std::strtod(value.c_str(), nullptr);
    }
    std::string folder = (std::filesystem::temp_directory_path() / "tessera-bench-XXXXXX").string();
    if (mkdtemp(folder.data()) == nullptr) return 1;
    measure(folder, settings);
    std::filesystem::remove_all(folder);
    return 0;
}
