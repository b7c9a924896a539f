#include "cpu/soft/jit/code_memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

namespace tessera::soft::jit {

std::unique_ptr<CodeMemory> CodeMemory::create(u64 size) {
    const int file = memfd_create("tessera-code", MFD_CLOEXEC);
    if (file < 0) return nullptr;
    void* write = MAP_FAILED;
    void* run = MAP_FAILED;
    if (ftruncate(file, static_cast<off_t>(size)) == 0) {
        write = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
        run = mmap(nullptr, size, PROT_READ | PROT_EXEC, MAP_SHARED, file, 0);
    }
    if (write == MAP_FAILED || run == MAP_FAILED) {
        if (write != MAP_FAILED) munmap(write, size);
        if (run != MAP_FAILED) munmap(run, size);
        close(file);
        return nullptr;
    }
    return std::unique_ptr<CodeMemory>(
        new CodeMemory(static_cast<u8*>(write), static_cast<u8*>(run), size, file));
}

CodeMemory::~CodeMemory() {
    munmap(write_, size_);
    munmap(run_, size_);
    close(file_);
}

}  // namespace tessera::soft::jit
