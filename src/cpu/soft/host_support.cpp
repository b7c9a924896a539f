#include "cpu/soft/host_support.h"

#include <array>
#include <cerrno>
#include <cstring>
#include <fmt/format.h>
#include <sys/mman.h>
#include <system_error>
#include <unistd.h>

#include "base/types.h"

namespace tessera::soft {

namespace {

constexpr std::size_t kSize = 4096;

std::unexpected<Error> refused(const char* step, int error) {
    return fail(Errc::HostFailure, fmt::format("{}: {}", step, std::generic_category().message(error)));
}

class Mapping {
public:
    Mapping(int fd, int protection) : address_(mmap(nullptr, kSize, protection, MAP_SHARED, fd, 0)) {
        if (address_ == MAP_FAILED) error_ = errno;
    }
    Mapping(const Mapping&) = delete;
    Mapping& operator=(const Mapping&) = delete;
    ~Mapping() {
        if (address_ != MAP_FAILED) (void)munmap(address_, kSize);
    }
    [[nodiscard]] void* address() const { return address_; }
    [[nodiscard]] int error() const { return error_; }

private:
    void* address_;
    int error_ = 0;
};

Status try_code(int fd) {
    if (ftruncate(fd, kSize) < 0) return refused("ftruncate of a memfd", errno);
    const Mapping writable(fd, PROT_READ | PROT_WRITE);
    if (writable.error() != 0) return refused("a writable mapping of a memfd", writable.error());
    const Mapping runnable(fd, PROT_READ | PROT_EXEC);
    if (runnable.error() != 0) return refused("an executable mapping of a memfd", runnable.error());
    // mov eax, 0x7e55e2a1; ret
    constexpr std::array<u8, 6> kCode{0xb8, 0xa1, 0xe2, 0x55, 0x7e, 0xc3};
    // Not at the mapping's first byte: sanitizers read what is before a function they do not know.
    constexpr std::size_t kAt = 64;
    std::memcpy(static_cast<u8*>(writable.address()) + kAt, kCode.data(), kCode.size());
    const auto function = reinterpret_cast<unsigned (*)()>(static_cast<u8*>(runnable.address()) + kAt);
    if (function() != 0x7e55'e2a1) return fail(Errc::HostFailure, "code written is not the code that runs");
    return {};
}

}  // namespace

Status probe_code_memory() {
    const int fd = memfd_create("tessera-probe", MFD_CLOEXEC);
    if (fd < 0) return refused("memfd_create", errno);
    Status status = try_code(fd);
    (void)close(fd);
    return status;
}

}  // namespace tessera::soft
