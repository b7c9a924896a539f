// Tells an initrd from another file, and a whole one from a truncated one as far as that shows without
// decompressing it: a wrong file should fail here with its name, not as a kernel panic. [LINUX-INITRAMFS]
#pragma once

#include <span>
#include <string_view>

#include "base/result.h"
#include "base/types.h"

namespace tessera::boot {

// Accepts what Linux does: cpio archives (newc), one after the other, or compressed, or a file system image
// for a RAM disk. `name` is the file's, for messages.
[[nodiscard]] Status check_initrd(std::string_view name, std::span<const std::byte> file);

}  // namespace tessera::boot
