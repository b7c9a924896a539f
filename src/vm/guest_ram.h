// A piece of guest memory in the host: anonymous memory in huge pages, or a memfd that other processes can
// map too (docs/adr/0004).
#pragma once

#include <memory>
#include <span>
#include <string>

#include "base/result.h"
#include "base/types.h"

namespace tessera {

// Who else may map the memory.
enum class RamSharing : u8 { Private, Shared };

class GuestRam {
public:
    // Zeroed, allocated by the host as it is touched. `size` is a multiple of the page size, > 0. Refuses
    // more than the host has available now, because the host's answer to that comes much later and kills
    // processes. `name` is what a memfd shows as in /proc.
    static Result<std::unique_ptr<GuestRam>> create(const std::string& name, u64 size,
                                                    RamSharing sharing = RamSharing::Private);
    GuestRam(const GuestRam&) = delete;
    GuestRam& operator=(const GuestRam&) = delete;
    ~GuestRam();

    [[nodiscard]] std::span<std::byte> bytes() const { return bytes_; }
    [[nodiscard]] int fd() const { return fd_; }  // -1: private
    // All zeros again; the pages go back to the host.
    Status clear();

private:
    GuestRam(int fd, std::span<std::byte> bytes) : fd_(fd), bytes_(bytes) {}

    int fd_;  // -1: anonymous
    std::span<std::byte> bytes_;
};

// Bytes of memory the host can give out now: MemAvailable, and the cgroup's limit if that is less.
[[nodiscard]] u64 host_memory_available();

}  // namespace tessera
