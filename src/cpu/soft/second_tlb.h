// The table behind the first one: translations of pages of all sizes with their rights, whoever asks. What
// the first table has no room for, or what was dropped from it although it is still good, is found here
// without a walk of the guest's tables.
#pragma once

#include <array>

#include "base/types.h"

namespace tessera::soft {

// What the tables say about a page, all levels together [SDM 3A 4.6.1]. The accessed bits are set.
struct PageRights {
    bool writable = true, user = true, nx = false;
    bool dirty = false;  // the dirty bit is set already
    bool global = false;
};

class SecondTlb {
public:
    // Whose pages an entry is about: an id of an address space, or the one that global pages have. Another id
    // forgets all entries at once.
    static constexpr u32 kLastId = (1u << 26) - 1;  // 0 is nobody's

    struct Found {
        u64 page = 0;  // physical, of the 4 KiB page
        u8 shift = 0;
        bool in_memory = false;  // RAM or ROM, and not the local APIC's page; not said of 1 GiB pages
        PageRights rights;
    };

    [[nodiscard]] bool find(u64 lin, unsigned shift, u32 id, Found& out) const {
        const u64 key = key_of(lin, shift, id);
        for (const Entry& e : set_of(key, id)) {
            if (e.key != key) continue;
            out.page = (e.value & kAddress) | (lin & ((u64{1} << shift) - 1) & ~u64{0xfff});
            out.in_memory = (e.value & kInMemory) != 0;
            out.shift = static_cast<u8>((e.value & k4M) != 0 ? 22 : shift);
            out.rights = {.writable = (e.value & kWritable) != 0,
                          .user = (e.value & kUser) != 0,
                          .nx = (e.value & kNx) != 0,
                          .dirty = (e.value & kDirty) != 0,
                          .global = (e.value & kGlobal) != 0};
            return true;
        }
        return false;
    }
    // `page` is the physical address of the 4 KiB page at `lin`. Pages of 4 MiB are kept by their halves.
    // `in_memory` is about all that is kept.
    void insert(u64 lin, u64 page, unsigned shift, const PageRights& rights, bool in_memory, u32 id) {
        const unsigned kept = kept_shift(shift);
        const u64 key = key_of(lin, kept, id);
        u64 value = page & kAddress & ~((u64{1} << kept) - 1);
        if (rights.writable) value |= kWritable;
        if (rights.user) value |= kUser;
        if (rights.nx) value |= kNx;
        if (rights.dirty) value |= kDirty;
        if (rights.global) value |= kGlobal;
        if (shift == 22) value |= k4M;
        if (in_memory) value |= kInMemory;
        Set& set = set_of(key, id);
        for (Entry& e : set)
            if (e.key == key) {
                e.value = value;
                return;
            }
        set[next_++ % kWays] = {key, value};
    }
    // Forgets the pages of this size that `lin` is in.
    void erase(u64 lin, unsigned shift, u32 id) {
        const u64 key = key_of(lin, shift, id);
        for (Entry& e : set_of(key, id))
            if (e.key == key) e = {};
    }
    void clear() { sets_.fill({}); }

    [[nodiscard]] static constexpr unsigned kept_shift(unsigned shift) { return shift == 22 ? 21 : shift; }

private:
    static constexpr unsigned kWays = 4, kSets = 4096;
    enum Value : u64 {
        kWritable = 1 << 0,
        kUser = 1 << 1,
        kNx = 1 << 2,
        kDirty = 1 << 3,
        kGlobal = 1 << 4,
        k4M = 1 << 5,
        kInMemory = 1 << 6,
    };
    static constexpr u64 kAddress = 0x0000'ffff'ffff'f000;

    struct Entry {
        u64 key = 0;  // id 63:38, size 37:36, number of the linear page 35:0
        u64 value = 0;
    };
    using Set = std::array<Entry, kWays>;  // a cache line

    [[nodiscard]] static u64 key_of(u64 lin, unsigned shift, u32 id) {
        const u64 size = shift == 12 ? 0 : shift == 21 ? 1 : 2;
        return (u64{id} << 38) | (size << 36) | ((lin & 0x0000'ffff'ffff'ffff) >> shift);
    }
    // Neighbours go to neighbouring sets; address spaces begin at different places.
    [[nodiscard]] static u64 index_of(u64 key, u32 id) {
        return (key ^ (key >> 11) ^ (key >> 31) ^ (u64{id} * 0x9e5)) & (kSets - 1);
    }
    [[nodiscard]] Set& set_of(u64 key, u32 id) { return sets_[index_of(key, id)]; }
    [[nodiscard]] const Set& set_of(u64 key, u32 id) const { return sets_[index_of(key, id)]; }

    alignas(64) std::array<Set, kSets> sets_{};
    u32 next_ = 0;
};

}  // namespace tessera::soft
