// What a driver can write into a descriptor ring that is no chain: a table for the hostile-driver suite, each
// with what has to become of it.
#pragma once

#include <vector>

#include "base/types.h"
#include "devices/virtio/testing/guest_queue.h"
#include "devices/virtio/testing/guest_ram.h"

namespace tessera::virtio {

inline constexpr u16 kNext = 1;
inline constexpr u16 kWrite = 2;
inline constexpr u16 kIndirect = 4;

// What has to become of a bad chain.
enum class Expected : u8 { NeedsReset, Survives };

struct BadChain {
    const char* name;
    Expected expected;
    // Writes it into the ring with raw(), and makes it available.
    void (*write)(GuestQueue& q);
    enum class Rings : u8 { Both, SplitOnly, PackedOnly } rings = Rings::Both;
};

inline constexpr u64 kBuffer = 0x10'0000;

inline void one(GuestQueue& q, u64 address, u32 length, u16 flags) {
    q.raw(0, address, length, flags);
    q.raw_available(0);
}
// An indirect table of two entries, the first of which has these flags.
inline void table(GuestQueue& q, u64 at, u16 first_flags, u16 next, u32 bytes = 32) {
    const auto entry = [&](u64 i, u16 flags, u16 link) {
        if (q.packed())
            q.write_descriptor(at + 16 * i, kBuffer, 16, link, flags);
        else
            q.write_descriptor(at + 16 * i, kBuffer, 16, flags, link);
    };
    entry(0, first_flags, next);
    entry(1, kWrite, 0);
    one(q, at, bytes, kIndirect);
}

inline const std::vector<BadChain>& bad_chains() {
    using Rings = BadChain::Rings;
    static const std::vector<BadChain> kChains = {
        {"buffer in a hole", Expected::NeedsReset,
         [](GuestQueue& q) { one(q, BenchRam::kHole, 64, kWrite); }},
        {"buffer in ROM", Expected::NeedsReset, [](GuestQueue& q) { one(q, BenchRam::kRom, 64, kWrite); }},
        {"buffer in ROM, to be read", Expected::NeedsReset,
         [](GuestQueue& q) { one(q, BenchRam::kRom, 64, 0); }},
        {"buffer runs out of RAM", Expected::NeedsReset,
         [](GuestQueue& q) { one(q, BenchRam::kSecondBase + BenchRam::kSecondSize - 8, 64, kWrite); }},
        {"buffer wraps around 2^64", Expected::NeedsReset,
         [](GuestQueue& q) { one(q, ~u64{7}, 64, kWrite); }},
        {"address all ones", Expected::NeedsReset, [](GuestQueue& q) { one(q, ~u64{0}, 1, kWrite); }},
        {"4 GiB less one", Expected::NeedsReset, [](GuestQueue& q) { one(q, 0, ~u32{0}, kWrite); }},
        {"more than 4 GiB in all", Expected::NeedsReset,
         [](GuestQueue& q) {
             q.raw(0, 0, ~u32{0}, kNext | kWrite, 1);
             q.raw(1, 0, ~u32{0}, kWrite);
             q.raw_available(0);
         }},
        {"spans two pieces of RAM", Expected::Survives,
         [](GuestQueue& q) { one(q, BenchRam::kSecondBase - 32, 64, kWrite); }},
        {"no bytes, to be written", Expected::Survives, [](GuestQueue& q) { one(q, kBuffer, 0, kWrite); }},
        {"no bytes, to be read", Expected::Survives, [](GuestQueue& q) { one(q, kBuffer, 0, 0); }},
        {"no bytes nowhere", Expected::Survives, [](GuestQueue& q) { one(q, ~u64{0}, 0, kWrite); }},
        {"nothing but a byte to read", Expected::Survives, [](GuestQueue& q) { one(q, kBuffer, 1, 0); }},
        {"nothing but a byte to write", Expected::Survives,
         [](GuestQueue& q) { one(q, kBuffer, 1, kWrite); }},
        {"read after written", Expected::NeedsReset,
         [](GuestQueue& q) {
             q.raw(0, kBuffer, 16, kWrite | kNext, 1);
             q.raw(1, kBuffer, 16, 0);
             q.raw_available(0);
         }},
        {"next beyond the table", Expected::NeedsReset,
         [](GuestQueue& q) {
             q.raw(0, kBuffer, 16, kNext, q.size());
             q.raw_available(0);
         },
         Rings::SplitOnly},
        {"next far beyond the table", Expected::NeedsReset,
         [](GuestQueue& q) {
             q.raw(0, kBuffer, 16, kNext, 0xffff);
             q.raw_available(0);
         },
         Rings::SplitOnly},
        {"a chain that is its own next", Expected::NeedsReset,
         [](GuestQueue& q) {
             q.raw(0, kBuffer, 16, kNext, 0);
             q.raw_available(0);
         },
         Rings::SplitOnly},
        {"a loop of two without bytes", Expected::NeedsReset,
         [](GuestQueue& q) {
             q.raw(0, kBuffer, 0, kNext, 1);
             q.raw(1, kBuffer, 0, kNext, 0);
             q.raw_available(0);
         },
         Rings::SplitOnly},
        {"a chain without an end", Expected::NeedsReset,
         [](GuestQueue& q) {
             for (u16 i = 0; i < q.size(); ++i) q.raw(i, kBuffer, 16, kNext);
         },
         Rings::PackedOnly},
        {"head beyond the table", Expected::NeedsReset, [](GuestQueue& q) { q.raw_available(q.size()); },
         Rings::SplitOnly},
        {"head all ones", Expected::NeedsReset, [](GuestQueue& q) { q.raw_available(0xffff); },
         Rings::SplitOnly},
        {"available index jumps", Expected::NeedsReset,
         [](GuestQueue& q) { q.store<u16>(q.driver() + 2, static_cast<u16>(q.size() + 1)); },
         Rings::SplitOnly},
        {"available index goes back", Expected::NeedsReset,
         [](GuestQueue& q) { q.store<u16>(q.driver() + 2, 0xffff); }, Rings::SplitOnly},
        {"buffer id beyond the ring", Expected::Survives,
         [](GuestQueue& q) { q.write_descriptor(q.descriptors(), kBuffer, 16, 0xffff, kWrite | 0x80); },
         Rings::PackedOnly},
        {"the same head many times", Expected::Survives,
         [](GuestQueue& q) {
             q.raw(0, kBuffer, 64, kWrite);
             for (u16 i = 0; i < q.size(); ++i) q.raw_available(0);
         }},
        {"indirect in indirect", Expected::NeedsReset,
         [](GuestQueue& q) { table(q, q.table_of(0), kIndirect, 0); }, Rings::SplitOnly},
        {"indirect with a next", Expected::NeedsReset,
         [](GuestQueue& q) {
             table(q, q.table_of(0), kNext, 1);
             q.raw(0, q.table_of(0), 32, kIndirect | kNext, 1);
         }},
        {"indirect behind a next", Expected::Survives,
         [](GuestQueue& q) {
             q.raw(1, q.table_of(0), 32, kIndirect);
             q.raw(0, kBuffer, 16, kNext, 1);
             q.raw_available(0);
         }},
        {"indirect table of no entries", Expected::NeedsReset,
         [](GuestQueue& q) { one(q, q.table_of(0), 0, kIndirect); }},
        {"indirect table of half an entry", Expected::NeedsReset,
         [](GuestQueue& q) { one(q, q.table_of(0), 24, kIndirect); }},
        {"indirect table of 4 GiB", Expected::NeedsReset,
         [](GuestQueue& q) { one(q, q.table_of(0), 0xffff'fff0, kIndirect); }},
        {"indirect table longer than any queue", Expected::NeedsReset,
         [](GuestQueue& q) { one(q, 0, 2048 * 16, kIndirect); }},
        {"indirect table in a hole", Expected::NeedsReset,
         [](GuestQueue& q) { one(q, BenchRam::kHole, 32, kIndirect); }},
        {"indirect table runs out of RAM", Expected::NeedsReset,
         [](GuestQueue& q) {
             one(q, BenchRam::kSecondBase + BenchRam::kSecondSize - 16, 32, kIndirect);
             q.write_descriptor(BenchRam::kSecondBase - 16, 0, 0, 0, 0);
         },
         Rings::PackedOnly},
        {"indirect table wraps around 2^64", Expected::NeedsReset,
         [](GuestQueue& q) { one(q, ~u64{15}, 32, kIndirect); }},
        {"indirect table is not aligned", Expected::Survives,
         [](GuestQueue& q) { one(q, kBuffer + 1, 32, kIndirect); }},
        {"indirect chain leaves its table", Expected::NeedsReset,
         [](GuestQueue& q) { table(q, q.table_of(0), kNext, 2); }, Rings::SplitOnly},
        {"indirect chain in a loop", Expected::NeedsReset,
         [](GuestQueue& q) { table(q, q.table_of(0), kNext, 0); }, Rings::SplitOnly},
        {"indirect, its buffer in a hole", Expected::NeedsReset,
         [](GuestQueue& q) {
             q.write_descriptor(q.table_of(0), BenchRam::kHole, 16, q.packed() ? u16{0} : kWrite,
                                q.packed() ? kWrite : u16{0});
             one(q, q.table_of(0), 16, kIndirect);
         }},
    };
    return kChains;
}

}  // namespace tessera::virtio
