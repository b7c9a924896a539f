#include "devices/ahci/region_list.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

#include "devices/ahci/ahci_regs.h"

namespace tessera::ahci {

void RegionList::start(u64 address, u32 entries) {
    *this = {};
    next_ = address;
    entries_ = entries;
}

bool RegionList::take_interrupt() {
    const bool was = interrupt_;
    interrupt_ = false;
    return was;
}

void RegionList::consume(u64 bytes) {
    address_ += bytes;
    left_ -= bytes;
    if (left_ == 0 && asks_) interrupt_ = true;
}

RegionList::Trouble RegionList::advance(const MemoryMap& memory) {
    if (left_ != 0) return Trouble::None;
    if (entries_ == 0) return Trouble::Ended;
    std::array<u32, 4> entry{};
    if (!memory.read(next_, std::as_writable_bytes(std::span(entry)))) return Trouble::BadAddress;
    next_ += kRegionSize;
    --entries_;
    // [AHCI 4.2.3.3] Addresses and lengths are even.
    address_ = (entry[0] & ~u32{1}) | u64{entry[1]} << 32;
    left_ = u64{(entry[3] & kRegionBytes) | 1} + 1;
    asks_ = (entry[3] & kRegionInterrupt) != 0;
    return Trouble::None;
}

RegionList::Trouble RegionList::copy_out(MemoryMap& memory, std::span<const u8> bytes) {
    while (!bytes.empty()) {
        if (const Trouble trouble = advance(memory); trouble != Trouble::None) return trouble;
        const u64 now = std::min<u64>(bytes.size(), left_);
        if (!memory.write(address_, std::as_bytes(bytes.first(now)))) return Trouble::BadAddress;
        bytes = bytes.subspan(now);
        consume(now);
    }
    return Trouble::None;
}

RegionList::Trouble RegionList::copy_in(const MemoryMap& memory, std::span<u8> bytes) {
    while (!bytes.empty()) {
        if (const Trouble trouble = advance(memory); trouble != Trouble::None) return trouble;
        const u64 now = std::min<u64>(bytes.size(), left_);
        if (!memory.read(address_, std::as_writable_bytes(bytes.first(now)))) return Trouble::BadAddress;
        bytes = bytes.subspan(now);
        consume(now);
    }
    return Trouble::None;
}

RegionList::Trouble RegionList::collect(const MemoryMap& memory, u64 most, u64 multiple, Pieces& pieces) {
    std::size_t count = 0;
    u64 bytes = 0;
    // As it is after the last whole multiple: what is behind it comes again.
    RegionList whole = *this;
    u64 last_length = 0;
    pieces.count = 0;
    pieces.bytes = 0;
    Trouble trouble = Trouble::None;
    while (bytes < most && count < pieces.host.size()) {
        trouble = advance(memory);
        if (trouble != Trouble::None) break;
        const std::span<std::byte> host = memory.ram_at(address_, std::min(most - bytes, left_));
        if (host.empty()) {
            trouble = Trouble::BadAddress;
            break;
        }
        pieces.host[count] = {.iov_base = host.data(), .iov_len = host.size()};
        pieces.guest[count] = address_;
        ++count;
        bytes += host.size();
        if (const u64 over = bytes % multiple; over < host.size()) {
            whole = *this;
            last_length = host.size() - over;
            whole.consume(last_length);
            pieces.count = count;
            pieces.bytes = bytes - over;
        }
        consume(host.size());
    }
    if (pieces.count == 0) return trouble;
    pieces.host[pieces.count - 1].iov_len = last_length;
    *this = whole;
    return Trouble::None;
}

}  // namespace tessera::ahci
