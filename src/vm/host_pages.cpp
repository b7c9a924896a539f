#include "vm/host_pages.h"

#include <cerrno>
#include <cstdint>
#include <fmt/format.h>
#include <sys/mman.h>
#include <utility>

namespace tessera {

namespace {

constexpr u64 kHugePage = 2 * kMiB;
constexpr u64 kPage = 4 * kKiB;

// The last part is to be a huge page too, unless most of that would be for nothing.
constexpr u64 mapped_size(u64 size) {
    return size % kHugePage >= kHugePage / 4 ? (size + kHugePage - 1) & ~(kHugePage - 1) : size;
}

}  // namespace

void* map_host_pages(int fd, u64 size) {
    size = (size + kPage - 1) & ~(kPage - 1);
    const u64 reserved_size = size + kHugePage;
    void* reserved =
        mmap(nullptr, reserved_size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (reserved == MAP_FAILED) return MAP_FAILED;
    auto* begin = static_cast<std::byte*>(reserved);
    const u64 skip = (kHugePage - reinterpret_cast<std::uintptr_t>(begin) % kHugePage) % kHugePage;
    const int kind = fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED;
    void* address = mmap(begin + skip, size, PROT_READ | PROT_WRITE, kind | MAP_NORESERVE | MAP_FIXED, fd, 0);
    if (address == MAP_FAILED) {
        const int error = errno;
        (void)munmap(reserved, reserved_size);
        errno = error;
        return MAP_FAILED;
    }
    if (skip != 0) (void)munmap(begin, skip);
    (void)munmap(begin + skip + size, kHugePage - skip);
    (void)madvise(address, size, MADV_HUGEPAGE);  // a wish
    return address;
}

Result<HostPages> HostPages::create(u64 size) {
    void* address = map_host_pages(-1, mapped_size(size));
    if (address == MAP_FAILED)
        return fail(Errc::HostFailure, fmt::format("not enough host memory: {} MiB are not to be had",
                                                   (size + kMiB - 1) / kMiB));
    return HostPages({static_cast<std::byte*>(address), size});
}

HostPages::HostPages(HostPages&& other) noexcept : bytes_(std::exchange(other.bytes_, {})) {}

HostPages& HostPages::operator=(HostPages&& other) noexcept {
    std::swap(bytes_, other.bytes_);
    return *this;
}

HostPages::~HostPages() {
    if (!bytes_.empty()) (void)munmap(bytes_.data(), mapped_size(bytes_.size()));
}

}  // namespace tessera
