// `tessera disk ...`: the options of its commands, read and checked, and what they do.
#pragma once

#include <optional>
#include <string>

#include "app/exit_code.h"
#include "app/progress.h"
#include "backends/block/disk_options.h"
#include "backends/block/transfer/transfer.h"

namespace CLI {  // NOLINT(readability-identifier-naming): the library's name
class App;
}

namespace tessera::app {

enum class DiskAction : u8 { None, Create, Info, Convert, Check, Resize, Commit };
enum class Output : u8 { Text, Json };

struct DiskCommand {
    DiskAction action = DiskAction::None;
    DiskOptions disk;  // what is looked at, changed or read from
    block::NewDisk made;
    std::string size;  // of resize, as it was typed
    block::qcow2::Repair repair = block::qcow2::Repair::No;
    ProgressKind progress = ProgressKind::Auto;
    Output output = Output::Text;
    bool compress = false;
    bool shrink = false;
    bool preallocate = false;
};

// As they were typed; lives until they have been checked.
struct TypedDisk {
    std::string path, size, to, format, from_format, backing_file, backing_format,
        backing = "auto", cluster, compression, refcount_bits, version, repair, progress = "auto";
    bool json = false, compress = false, lazy_refcounts = false, preallocate = false, shrink = false;
};

// Adds the command to the command line's description.
CLI::App* add_disk(CLI::App& app, TypedDisk& typed);
// What is wrong with the options, empty if nothing is; fills `command`.
[[nodiscard]] std::string check_disk_options(const CLI::App& app, const TypedDisk& typed,
                                             DiskCommand& command);

[[nodiscard]] ExitCode run_disk(const DiskCommand& command);

// "10G", "512M", "+2G" (from `now`), "4096B". Whole sectors; nothing if it is no size.
[[nodiscard]] std::optional<u64> disk_size_of(std::string_view text, u64 now);

}  // namespace tessera::app
