#include "cpu/soft/reserved_memory.h"

#include <algorithm>
#include <sys/mman.h>

#include "base/assert.h"

namespace tessera::soft {

ReservedBytes::ReservedBytes(u64 size, u64 least) {
    for (;; size = std::max(size / 2, least)) {
        address_ =
            mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (address_ != MAP_FAILED) break;
        TESSERA_ASSERT(size > least, "the host has address space for what little the CPU cannot do without");
    }
    size_ = size;
    (void)madvise(address_, size_, MADV_DONTDUMP);
}

ReservedBytes::~ReservedBytes() {
    if (address_ != nullptr) munmap(address_, size_);
}

}  // namespace tessera::soft
