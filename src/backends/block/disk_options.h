// How a user says which disk is meant and how it is to be opened; `open_disk` (backends/block/open) reads it.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "base/types.h"

namespace tessera {

enum class DiskFormat : u8 { Raw, Qcow2 };

// Where a write is when the guest is told that it is complete.
enum class CacheMode : u8 {
    Writeback,   // in the host's page cache; the guest's flushes make it durable
    None,        // past the host's page cache (O_DIRECT); the guest's flushes make it durable
    DirectSync,  // past the host's page cache, and durable
    Unsafe,      // anywhere: flushes are not honoured. For disks that are thrown away
};

// Whether an image may name another file as its backing file.
enum class BackingPolicy : u8 {
    Auto,  // a qcow2 image in the same directory: see docs/adr/0016
    On,    // any file the user may read
    Off,
};

enum class DiskEngine : u8 {
    Auto,     // io_uring if the host allows it and it is the better one, threads if not
    IoUring,  // refused if the host does not allow it
    Threads,
};

// NOLINTBEGIN(readability-redundant-member-init): so that a list that names some members is complete
struct DiskOptions {
    std::string path{};
    std::optional<DiskFormat> format{};  // nothing: by the file's name, see docs/adr/0016
    bool read_only = false;
    bool snapshot = false;  // writes go to an unnamed file and are lost at the end
    CacheMode cache = CacheMode::Writeback;
    BackingPolicy backing = BackingPolicy::Auto;
    std::optional<DiskFormat> backing_format{};  // for images that do not say it
    DiskEngine engine = DiskEngine::Auto;
    // Gets a line for what went wrong on the host while a VM runs (rate-limited); nothing: standard error.
    // Any thread.
    std::function<void(const std::string&)> report{};
};
// NOLINTEND(readability-redundant-member-init)

}  // namespace tessera
