// The physical regions of a command table [AHCI 4.2.3.3]: where in guest memory a command's data is. Each
// entry is read once, when the transfer gets there.
#pragma once

#include <span>
#include <sys/uio.h>

#include "base/types.h"
#include "memory/memory_map.h"

namespace tessera::ahci {

class RegionList {
public:
    // The guest's list: `entries` of them from `address` on.
    void start(u64 address, u32 entries);

    // What a list could not do.
    enum class Trouble : u8 { None, Ended, BadAddress };

    // Copies all of `bytes` to or from what comes next.
    [[nodiscard]] Trouble copy_out(MemoryMap& memory, std::span<const u8> bytes);
    [[nodiscard]] Trouble copy_in(const MemoryMap& memory, std::span<u8> bytes);

    // Host memory for what comes next: up to `most` bytes, which is a multiple of `multiple`, and in as many
    // pieces as there is room for; whole multiples only. Room for `multiple` pieces is always enough for one.
    struct Pieces {
        std::span<iovec> host;
        std::span<u64> guest;  // where each is
        std::size_t count = 0;
        u64 bytes = 0;
    };
    [[nodiscard]] Trouble collect(const MemoryMap& memory, u64 most, u64 multiple, Pieces& pieces);

    // Since the last call: an entry was used up that asks for an interrupt.
    [[nodiscard]] bool take_interrupt();

private:
    // Makes the current entry one with bytes left.
    [[nodiscard]] Trouble advance(const MemoryMap& memory);
    void consume(u64 bytes);

    u64 next_ = 0;  // of the table, and how many entries are left from there
    u32 entries_ = 0;
    u64 address_ = 0;  // of the current entry, and how much of it is left
    u64 left_ = 0;
    bool asks_ = false;
    bool interrupt_ = false;
};

}  // namespace tessera::ahci
