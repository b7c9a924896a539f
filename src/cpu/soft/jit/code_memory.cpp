#include "cpu/soft/jit/code_memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

namespace tessera::soft::jit {

namespace {

// The file's `size` bytes, executable, and memory behind them.
void* map_to_run(int file, u64 size, u64 whole) {
    void* all =
        mmap(nullptr, whole, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (all == MAP_FAILED) return MAP_FAILED;
    (void)madvise(all, whole, MADV_NOHUGEPAGE);  // little of it may ever be used
    if (mmap(all, size, PROT_READ | PROT_EXEC, MAP_SHARED | MAP_FIXED, file, 0) != MAP_FAILED) return all;
    munmap(all, whole);
    return MAP_FAILED;
}

}  // namespace

std::unique_ptr<CodeMemory> CodeMemory::create(u64 size) {
    const int file = memfd_create("tessera-code", MFD_CLOEXEC);
    if (file < 0) return nullptr;
    void* write = MAP_FAILED;
    void* run = MAP_FAILED;
    if (ftruncate(file, static_cast<off_t>(size)) == 0) {
        write = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
        run = map_to_run(file, size, size + data_size(size));
    }
    if (write == MAP_FAILED || run == MAP_FAILED) {
        if (write != MAP_FAILED) munmap(write, size);
        if (run != MAP_FAILED) munmap(run, size + data_size(size));
        close(file);
        return nullptr;
    }
    return std::unique_ptr<CodeMemory>(
        new CodeMemory(static_cast<u8*>(write), static_cast<u8*>(run), size, file));
}

CodeMemory::~CodeMemory() {
    munmap(write_, size_);
    munmap(run_, size_ + data_size(size_));
    close(file_);
}

}  // namespace tessera::soft::jit
