// Reads the header of a Linux bzImage and says where and how that kernel wants to be started; what it cannot
// start it refuses. Loading is boot_linux's. [LINUX-BOOT]
#pragma once

#include <span>
#include <string_view>

#include "base/result.h"
#include "base/types.h"

namespace tessera::boot {

struct BzImage {
    std::span<const std::byte> setup_header;    // the file's bytes 0x1f1 .. end of the header
    std::span<const std::byte> protected_mode;  // what goes to the load address
    u16 version;                                // boot protocol, major << 8 | minor
    bool has_entry64;
    bool initrd_above_4g;    // may lie anywhere
    u64 load_address;        // where it prefers to run: loaded elsewhere it would only move there itself
    u64 init_size;           // bytes the kernel needs from its load address before it reads the memory map
    u64 initrd_address_max;  // highest address of the initrd's last byte
    u64 cmdline_max;         // characters, without the terminating zero
    u64 alignment;           // of a place the kernel may be moved to, a power of two; 0: it must not be moved
    // The compressed kernel, by its place in protected_mode, unchecked; size 0: the header does not say.
    u64 payload_offset, payload_size;
};

// Whether the file has the header's magic, i.e. whether parse_bzimage's complaints would help.
[[nodiscard]] bool looks_like_bzimage(std::span<const std::byte> file);

// The result points into `file`. `name` is the file's, for messages.
[[nodiscard]] Result<BzImage> parse_bzimage(std::string_view name, std::span<const std::byte> file);

}  // namespace tessera::boot
