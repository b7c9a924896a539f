// Memory of the host in whole pages, zero at first, at a huge page's boundary so that few page faults bring
// it.
#pragma once

#include <span>

#include "base/result.h"
#include "base/types.h"

namespace tessera {

// Maps `size` bytes of `fd` (shared), or private anonymous memory if `fd` is negative. MAP_FAILED, with
// errno, if the host refuses; else munmap() ends it. Huge pages are asked for.
[[nodiscard]] void* map_host_pages(int fd, u64 size);

// Private memory, given back at the end.
class HostPages {
public:
    // `size` > 0, in bytes.
    static Result<HostPages> create(u64 size);
    HostPages(HostPages&& other) noexcept;
    HostPages& operator=(HostPages&& other) noexcept;
    HostPages(const HostPages&) = delete;
    HostPages& operator=(const HostPages&) = delete;
    ~HostPages();

    [[nodiscard]] std::span<std::byte> bytes() const { return bytes_; }

private:
    explicit HostPages(std::span<std::byte> bytes) : bytes_(bytes) {}

    std::span<std::byte> bytes_;
};

}  // namespace tessera
