// What a CPU remembers of the guest's page tables: the tables the inline paths look at, and to which address
// space (PCID) their entries belong [SDM 3A 4.10]. Filled and flushed by tlb.cpp.
#pragma once

#include <array>

#include "base/types.h"

namespace tessera::soft {

// [soft-cpu.md 5.1] A tag is the page's linear address; any low bit set never matches, which forces the slow
// path.
struct TlbEntry {
    u64 tag_r = 1;
    u64 tag_w = 1;
    s64 addend = 0;  // host address - linear address
    u64 aux = 0;     // guest physical page; low bits belong to the MMU (kTlb*)
};
inline constexpr u64 kTlbGlobal = 1;  // in TlbEntry::aux: of every address space
// Of an address space's user set, or of every address space and with SMAP in force: what page slots of
// translated code are filled from.
inline constexpr u64 kTlbFillsSlots = 1 << 6;
inline constexpr unsigned kTlbEntries = 1024;

// How many PCIDs are remembered at a time; Linux uses seven on each CPU. The least recently used one goes.
inline constexpr unsigned kAddressSpaces = 8;

// Sets of entries by the rights they were checked for. The supervisor's serve all address spaces: they hold
// global pages, and other pages of the current space only. User sets are one per address space (kTlbUser +
// its number). kTlbNone is always empty.
enum TlbSet : u8 {
    kTlbSupervisor,
    kTlbSupervisorAc,
    kTlbUser,
    kTlbNone = kTlbUser + kAddressSpaces,
    kTlbSets
};

// Which slots of a set have been filled, so that a flush costs what was filled. In user sets all entries are
// `local`.
struct TlbLog {
    static constexpr unsigned kBuckets = 512;

    std::array<u16, kTlbEntries> local{}, global{};
    u16 locals = 0, globals = 0;
    // How many entries allow writing to physical pages of a bucket.
    std::array<u16, kBuckets> writers{};

    [[nodiscard]] u16& writers_of(u64 physical) { return writers[(physical >> 12) & (kBuckets - 1)]; }
};

struct FetchEntry {
    u64 tag = 1;       // linear page
    u64 physical = 0;  // guest physical page
    const u8* host = nullptr;
    bool global = false;
    u8 shift = 12;  // of the page the guest's tables describe
};
inline constexpr unsigned kFetchEntries = 1024;
inline constexpr unsigned kFetchSets = 1 + kAddressSpaces;  // supervisor, then user by address space

// A set of pages of any size that may say yes too often, but never no wrongly.
class PageFilter {
public:
    void add(u64 lin, unsigned shift) {
        const unsigned size = size_of(shift);
        sizes_ |= 1u << size;
        const unsigned bit = bit_of(lin, size);
        bits_[bit / 64] |= u64{1} << (bit % 64);
    }
    // Whether a page that `lin` is in, of at least 1 << shift bytes, may have been added.
    [[nodiscard]] bool may_hold(u64 lin, unsigned shift = 12) const {
        for (unsigned size = size_of(shift); size < kShifts.size(); ++size) {
            if ((sizes_ >> size & 1) == 0) continue;
            const unsigned bit = bit_of(lin, size);
            if ((bits_[bit / 64] >> (bit % 64) & 1) != 0) return true;
        }
        return false;
    }
    [[nodiscard]] bool empty() const { return sizes_ == 0; }
    void clear() {
        if (sizes_ != 0) *this = {};
    }

private:
    static constexpr std::array<u8, 4> kShifts{12, 21, 22, 30};
    static constexpr unsigned kLogBits = 12;

    [[nodiscard]] static unsigned size_of(unsigned shift) {
        unsigned size = 0;
        while (kShifts[size] < shift) ++size;
        return size;
    }
    [[nodiscard]] static unsigned bit_of(u64 lin, unsigned size) {
        constexpr u64 kGolden = 0x9e37'79b9'7f4a'7c15;
        return static_cast<unsigned>(((lin >> kShifts[size]) + size) * kGolden >> (64 - kLogBits));
    }

    std::array<u64, (1u << kLogBits) / 64> bits_{};
    u32 sizes_ = 0;
};

// What one owner has in the second table: a bit for each size of pages, in the lower and in the upper half of
// the linear addresses.
struct SecondTlbShare {
    u32 id = 0;
    u32 sizes = 0;
    std::array<u8, 2> found_last{};  // which size it was, in either half
};

// What is remembered of one PCID's translations.
struct AddressSpace {
    static constexpr u32 kUnbound = ~u32{0};

    u32 pcid = kUnbound;  // 0 while CR4.PCIDE = 0
    u32 exec_gen = 0;     // what Vcpu::exec_gen_user is while this space is the current one
    u64 last_used = 0;
    bool has_globals = false;  // its user set may hold global pages
    PageFilter large;          // pages that are not global and larger than 4 KiB
    PageFilter code;           // user pages that instructions were fetched from since exec_gen was given
    SecondTlbShare second;     // its pages that are not global
};

struct AddressSpaces {
    std::array<AddressSpace, kAddressSpaces> space{};
    u8 current = 0;
    bool local_kernel_code = false;  // fetch set 0 was given pages that are not global
    u32 last_exec_gen = 0;
    u64 clock = 0;
    PageFilter large_globals;  // global pages larger than 4 KiB
    PageFilter kernel_code;    // pages that supervisor code was fetched from
    SecondTlbShare second_globals;
    u32 last_second_id = 0;

    AddressSpaces() {
        space[0].pcid = 0;
        renew_second_ids();
    }
    void renew_second_ids() {
        last_second_id = 0;
        for (AddressSpace& s : space) s.second = {.id = ++last_second_id};
        second_globals = {.id = ++last_second_id};
    }
};

}  // namespace tessera::soft
