// The values of `--disk` and `--cdrom`.
//
// `--disk`: FILE[,SETTING...]. A comma in the file's name is written twice. The settings:
//   if=virtio|ahci              what it is in the guest (virtio)
//   ro                          read only
//   serial=TEXT                 up to 20 bytes, what the guest sees as the serial number
//   queues=N                    1 to 16 (1), virtio only
//   format=raw|qcow2            by the file's name unless it is said
//   cache=writeback|none|directsync|unsafe
//   snapshot                    writes are thrown away at the end
//   backing=auto|on|off         whether an image may name a backing file
//   backing_format=raw|qcow2    of an image that does not say it
//   engine=auto|io_uring|threads
#pragma once

#include <expected>
#include <string>
#include <string_view>

#include "backends/block/disk_options.h"
#include "machines/machine.h"

namespace tessera::app {

struct DiskOption {
    DiskOptions file;
    DiskInterface interface = DiskInterface::Virtio;
    std::string serial;
    unsigned queues = 1;
};

// The value of `--cdrom`: FILE[,SETTING...], or `none` for an empty drive. The settings: serial, format,
// engine, as above.
struct CdromOption {
    DiskOptions file;  // read only
    bool empty = false;
    std::string serial;
};

// The error names the option, the part that is wrong, and what is possible.
[[nodiscard]] std::expected<DiskOption, std::string> parse_disk(std::string_view text);
[[nodiscard]] std::expected<CdromOption, std::string> parse_cdrom(std::string_view text);

}  // namespace tessera::app
