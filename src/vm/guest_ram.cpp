#include "vm/guest_ram.h"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <fcntl.h>
#include <fmt/format.h>
#include <fstream>
#include <limits>
#include <sys/mman.h>
#include <system_error>
#include <unistd.h>

#include "vm/host_pages.h"

namespace tessera {

namespace {

std::unexpected<Error> host_failure(std::string_view what, int error) {
    return fail(Errc::HostFailure, fmt::format("{}: {}", what, std::generic_category().message(error)));
}

// A number alone in a file, as cgroups have them; `otherwise` if there is none ("max").
u64 number_in(const std::string& path, u64 otherwise) {
    std::ifstream file(path);
    std::string text;
    u64 value = 0;
    if (!(file >> text)) return otherwise;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    return error == std::errc{} ? value : otherwise;
}

}  // namespace

u64 host_memory_available() {
    constexpr u64 kUnlimited = std::numeric_limits<u64>::max();
    u64 available = kUnlimited;
    std::ifstream meminfo("/proc/meminfo");
    for (std::string key, unit; meminfo >> key;) {
        u64 kib = 0;
        if (!(meminfo >> kib)) break;
        std::getline(meminfo, unit);
        if (key == "MemAvailable:") available = kib * kKiB;
    }
    const u64 limit = number_in("/sys/fs/cgroup/memory.max", kUnlimited);
    const u64 used = number_in("/sys/fs/cgroup/memory.current", 0);
    return limit == kUnlimited ? available : std::min(available, limit - std::min(used, limit));
}

Result<std::unique_ptr<GuestRam>> GuestRam::create(const std::string& name, u64 size, RamSharing sharing) {
    const u64 available = host_memory_available();
    if (size > available)
        return fail(Errc::HostFailure,
                    fmt::format("not enough host memory: the guest is to have {} MiB, the host has "
                                "{} MiB available; use a smaller --memory",
                                size / kMiB, available / kMiB));
    const int fd = sharing == RamSharing::Shared ? memfd_create(name.c_str(), MFD_CLOEXEC) : -1;
    if (sharing == RamSharing::Shared && fd < 0) return host_failure("cannot create guest memory", errno);
    void* address = MAP_FAILED;
    if (fd < 0 || ftruncate(fd, static_cast<off_t>(size)) == 0) address = map_host_pages(fd, size);
    if (address == MAP_FAILED) {
        const int error = errno;
        if (fd >= 0) (void)close(fd);
        return host_failure(fmt::format("cannot map {} MiB of guest memory", size / kMiB), error);
    }
    // A wish: no guest memory in core files.
    (void)madvise(address, size, MADV_DONTDUMP);
    return std::unique_ptr<GuestRam>(new GuestRam(fd, {static_cast<std::byte*>(address), size}));
}

GuestRam::~GuestRam() {
    (void)munmap(bytes_.data(), bytes_.size());
    if (fd_ >= 0) (void)close(fd_);
}

Status GuestRam::clear() {
    const bool given_back = fd_ < 0 ? madvise(bytes_.data(), bytes_.size(), MADV_DONTNEED) == 0
                                    : fallocate(fd_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
                                                static_cast<off_t>(bytes_.size())) == 0;
    if (given_back) return {};
    // Memory that is locked, or a host without holes.
    if (errno != EINVAL && errno != EOPNOTSUPP && errno != ENOSYS)
        return host_failure("cannot clear guest memory", errno);
    std::ranges::fill(bytes_, std::byte{0});
    return {};
}

}  // namespace tessera
