// Rows of a disk: sequential and random requests, on a device past the page cache of the machine this runs
// on, one at a time with pread and pwrite or many with the kernel's asynchronous I/O. Every block carries its
// number, and is looked at.
#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <vector>

#include "io.h"

namespace tessera::iobench {
namespace {

constexpr u64 kBlock = 4096;
constexpr u64 kLarge = 1 << 20;

struct Load {
    const char* name;
    bool write;
    bool random;
    u64 length;
    unsigned depth;
};
constexpr std::array kLoads{
    Load{"seq_write", true, false, kLarge, 4}, Load{"seq_read", false, false, kLarge, 4},
    Load{"read_4k_1", false, true, kBlock, 1}, Load{"read_4k_32", false, true, kBlock, 32},
    Load{"write_4k_1", true, true, kBlock, 1}, Load{"write_4k_32", true, true, kBlock, 32},
};

struct Disk {
    int file = -1;
    u64 size = 0;
};

Disk open_disk(const std::string& path) {
    Disk disk;
    struct stat about{};
    if (stat(path.c_str(), &about) != 0) fail(path);
    // A file is what a monitor's disk is at best: in the page cache of its host.
    disk.file = open(path.c_str(), S_ISBLK(about.st_mode) ? O_RDWR | O_DIRECT : O_RDWR);
    if (disk.file < 0) fail(path);
    const off_t end = lseek(disk.file, 0, SEEK_END);
    if (end < off_t{kLarge}) fail(path + " is too small");
    disk.size = static_cast<u64>(end) / kLarge * kLarge;
    return disk;
}

class Places {
public:
    Places(const Load& load, u64 size) : load_(load), count_(size / load.length) {}
    u64 next() {
        if (!load_.random) return at_++ % count_ * load_.length;
        state_ = state_ * 6364136223846793005 + 1442695040888963407;
        return (state_ >> 33) % count_ * load_.length;
    }

private:
    const Load& load_;
    const u64 count_;
    u64 at_ = 0;
    u64 state_ = 7;
};

struct Request {
    iocb block{};
    u8* bytes = nullptr;
    u64 offset = 0;
};

void mark(u8* bytes, u64 offset, u64 length) {
    for (u64 at = 0; at < length; at += kBlock) {
        const u64 number = (offset + at) / kBlock;
        std::memcpy(bytes + at, &number, sizeof(number));
    }
}

void look(const Load& load, const u8* bytes, u64 offset) {
    for (u64 at = 0; at < load.length; at += kBlock) {
        u64 number = 0;
        std::memcpy(&number, bytes + at, sizeof(number));
        if (number == (offset + at) / kBlock) continue;
        const unsigned long long where = offset + at;
        std::printf("%s\tWRONG\tblock\t%llu\n", load.name, where);
        std::exit(1);
    }
}

// Requests of one load, `depth` of them in flight until the time is over.
class Runner {
public:
    Runner(const Disk& disk, const Load& load)
        : disk_(disk), load_(load), places_(load, disk.size), requests_(load.depth) {
        for (Request& request : requests_) {
            request.bytes = static_cast<u8*>(std::aligned_alloc(kBlock, load.length));
            if (request.bytes == nullptr) fail("memory");
            std::memset(request.bytes, 0x5a, load.length);
        }
    }
    Runner(const Runner&) = delete;
    Runner& operator=(const Runner&) = delete;
    ~Runner() {
        for (const Request& request : requests_) std::free(request.bytes);
    }

    // Returns the number of requests: all that fit into `seconds`, and at least `least`.
    u64 run(double seconds, u64 least) {
        return load_.depth == 1 ? one_by_one(seconds, least) : many(seconds, least);
    }

private:
    u64 one_by_one(double seconds, u64 least) {
        Request& request = requests_.front();
        u64 done = 0;
        for (const double begin = now(); done < least || now() - begin < seconds; ++done) {
            prepare(request);
            const ssize_t moved =
                load_.write
                    ? pwrite(disk_.file, request.bytes, load_.length, static_cast<off_t>(request.offset))
                    : pread(disk_.file, request.bytes, load_.length, static_cast<off_t>(request.offset));
            finish(request, moved);
        }
        return done;
    }

    u64 many(double seconds, u64 least) {
        aio_context_t context = 0;
        if (syscall(SYS_io_setup, load_.depth, &context) != 0) fail("io_setup");
        std::vector<io_event> events(load_.depth);
        std::vector<iocb*> ready;
        for (Request& request : requests_) ready.push_back(begin_request(request));
        u64 done = 0, flying = 0;
        for (const double begin = now(); !ready.empty() || flying != 0;) {
            submit(context, ready);
            flying += ready.size();
            ready.clear();
            const long count = syscall(SYS_io_getevents, context, 1L, static_cast<long>(events.size()),
                                       events.data(), nullptr);
            if (count < 1) fail("io_getevents");
            const bool more = done + flying < least || now() - begin < seconds;
            for (long i = 0; i < count; ++i) {
                const io_event& event = events[static_cast<std::size_t>(i)];
                Request& request = requests_[event.data];
                finish(request, static_cast<ssize_t>(event.res));
                ++done;
                --flying;
                if (more) ready.push_back(begin_request(request));
            }
        }
        (void)syscall(SYS_io_destroy, context);
        return done;
    }

    void prepare(Request& request) {
        request.offset = places_.next();
        if (load_.write) mark(request.bytes, request.offset, load_.length);
    }
    void finish(const Request& request, ssize_t moved) const {
        if (moved != static_cast<ssize_t>(load_.length)) fail(load_.name);
        if (!load_.write) look(load_, request.bytes, request.offset);
    }
    iocb* begin_request(Request& request) {
        prepare(request);
        request.block = {};
        request.block.aio_data = static_cast<u64>(&request - requests_.data());
        request.block.aio_lio_opcode = load_.write ? IOCB_CMD_PWRITE : IOCB_CMD_PREAD;
        request.block.aio_fildes = static_cast<u32>(disk_.file);
        request.block.aio_buf = reinterpret_cast<u64>(request.bytes);
        request.block.aio_nbytes = load_.length;
        request.block.aio_offset = static_cast<std::int64_t>(request.offset);
        return &request.block;
    }
    static void submit(aio_context_t context, std::vector<iocb*>& ready) {
        for (std::size_t at = 0; at < ready.size();) {
            const long count =
                syscall(SYS_io_submit, context, static_cast<long>(ready.size() - at), &ready[at]);
            if (count < 1) fail("io_submit");
            at += static_cast<std::size_t>(count);
        }
    }

    const Disk& disk_;
    const Load& load_;
    Places places_;
    std::vector<Request> requests_;
};

}  // namespace

void disk_rows(const std::string& path, const Wanted& wanted) {
    const Disk disk = open_disk(path);
    // So that every block is there and carries its number.
    (void)Runner(disk, kLoads[0]).run(0, disk.size / kLarge);
    if (fsync(disk.file) != 0) fail("fsync");
    for (const Load& load : kLoads) {
        if (!wanted.has(load.name)) continue;
        Runner runner(disk, load);
        const bool large = load.length == kLarge;
        const Row row(wanted.prefix + load.name, large ? "byte" : "request");
        const u64 done = runner.run(wanted.seconds, 1);
        row.print(static_cast<double>(large ? done * load.length : done), done);
    }
    (void)close(disk.file);
}

}  // namespace tessera::iobench
