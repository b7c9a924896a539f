// The header every ACPI description table starts with [ACPI 6.5 5.2.6].
#pragma once

#include <string_view>
#include <vector>

#include "base/types.h"
#include "boot/bytes.h"

namespace tessera::boot {

inline constexpr std::string_view kAcpiOemId = "TESSRA";
inline constexpr std::size_t kAcpiHeaderSize = 36;

// Header, body, and the length and checksum fields filled in.
[[nodiscard]] inline std::vector<std::byte> finish_acpi_table(std::string_view signature, u8 revision,
                                                              const ByteWriter& body) {
    ByteWriter table;
    table.text(signature).put(static_cast<u32>(kAcpiHeaderSize + body.size())).put(revision).put8(0);
    table.fixed_text(kAcpiOemId, 6).fixed_text("TESSERA", 8).put32(1);
    table.fixed_text("TSRA", 4).put32(1);
    table.append(body.bytes());
    constexpr std::size_t kChecksum = 9;
    table.fix_checksum(kChecksum);
    return table.take();
}

}  // namespace tessera::boot
