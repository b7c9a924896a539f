// Page table walks: 32-bit with PSE, PAE, 4-level with 2 MiB and 1 GiB pages. [SDM 3A chapter 4], [APM 2 5].
// GAP: 5-level paging, protection keys.
#include <atomic>

#include "cpu/soft/exits.h"
#include "cpu/soft/mmu.h"
#include "cpu/soft/soft_system.h"
#include "cpu/soft/system.h"
#include "cpu/soft/x86_names.h"

namespace tessera::soft {

namespace {

// Bits of a paging-structure entry [SDM 3A tables 4-4 to 4-20].
constexpr u64 kPtePresent = 1 << 0, kPteWritable = 1 << 1, kPteUser = 1 << 2, kPteAccessed = 1 << 5,
              kPteDirty = 1 << 6, kPteLarge = 1 << 7, kPteGlobal = 1 << 8, kPteNx = u64{1} << 63;
constexpr u64 kPteAddress = kPhysicalMask & ~kPageMask;

constexpr u64 bits(unsigned high, unsigned low) {
    return (~u64{0} >> (63 - high)) & (~u64{0} << low);
}

// What an access asks for and which of the optional checks are in force.
struct Request {
    Access access;
    bool user;
    bool user_pages_forbidden;  // SMAP
};

struct Outcome {
    enum Kind : u8 { Done, Fault, Again } kind = Done;
    u32 error = 0;
    Translation translation{};
};

// Where one entry of the tables is: RAM normally, but nothing stops a guest from pointing CR3 at ROM or a
// device.
struct EntrySlot {
    u64 physical = 0;
    u64 value = 0;
    std::byte* ram = nullptr;
    const MemoryRegion* region = nullptr;
};

template <typename Entry>
TESSERA_GUEST_RACES EntrySlot read_entry(Vcpu& c, u64 physical) {
    EntrySlot slot{.physical = physical};
    const MemoryRegion* region = c.system->world().memory.find(physical);
    if (region != nullptr && region->kind == RegionKind::Ram) [[likely]] {
        slot.ram = region->at(physical);
        slot.region = region;
        slot.value = __atomic_load_n(reinterpret_cast<const Entry*>(slot.ram), __ATOMIC_RELAXED);
    } else {
        physical_read(c, physical, &slot.value, sizeof(Entry));
    }
    return slot;
}

// Sets bits in an entry as the processor does: with a locked compare, so that another CPU's change is never
// lost. False if the entry is no longer what the walk has seen.
template <typename Entry>
TESSERA_GUEST_RACES bool set_bits(Vcpu& c, const EntrySlot& slot, u64 set) {
    if ((slot.value & set) == set) return true;
    auto expected = static_cast<Entry>(slot.value);
    const auto desired = static_cast<Entry>(slot.value | set);
    if (slot.ram == nullptr) {
        physical_write(c, slot.physical, &desired,
                       sizeof(Entry));  // ROM keeps its value: no reason to walk again
        return true;
    }
    if (!__atomic_compare_exchange_n(reinterpret_cast<Entry*>(slot.ram), &expected, desired, false,
                                     __ATOMIC_SEQ_CST, __ATOMIC_RELAXED))
        return false;
    const u64 granule = u64{1} << ((slot.physical & kPageMask) / 64);
    if ((slot.region->code_word(slot.physical).load(std::memory_order_relaxed) & granule) != 0) [[unlikely]]
        c.system->code_written(c, slot.physical, sizeof(Entry));
    return true;
}

u32 error_code(const Vcpu& c, const Request& request, u32 cause) {
    u32 error = cause;
    if (request.access == Access::Write) error |= pf::kWrite;
    if (request.user) error |= pf::kUser;
    const bool nx_enabled = (c.cr4 & cr4::kPae) != 0 && (c.msr.efer & efer::kNxe) != 0;
    if (request.access == Access::Execute && (nx_enabled || (c.cr4 & cr4::kSmep) != 0)) error |= pf::kFetch;
    return error;
}

// Entries of all levels are added up.
void add_entry(PageRights& rights, u64 entry) {
    rights.writable = rights.writable && (entry & kPteWritable) != 0;
    rights.user = rights.user && (entry & kPteUser) != 0;
    rights.nx = rights.nx || (entry & kPteNx) != 0;
}
[[nodiscard]] bool may_write(const Vcpu& c, const PageRights& rights, const Request& r) {
    if (r.user) return rights.writable && rights.user;
    if (rights.user && r.user_pages_forbidden) return false;
    return rights.writable || (c.cr0 & cr0::kWp) == 0;
}
[[nodiscard]] bool may(const Vcpu& c, const PageRights& rights, const Request& r) {
    switch (r.access) {
        case Access::Write: return may_write(c, rights, r);
        case Access::Read: return r.user ? rights.user : !(rights.user && r.user_pages_forbidden);
        case Access::Execute:
            if (rights.nx) return false;
            return r.user ? rights.user : !(rights.user && (c.cr4 & cr4::kSmep) != 0);
    }
    return false;
}

// The end of every walk: rights, then accessed bits on the way and the dirty bit of the leaf.
template <typename Entry>
Outcome finish(Vcpu& c, const Request& request, PageRights rights, u64 lin, const EntrySlot* path,
               unsigned levels, Translation translation) {
    if (!may(c, rights, request))
        return {.kind = Outcome::Fault, .error = error_code(c, request, pf::kPresent)};
    for (unsigned i = 0; i + 1 < levels; ++i)
        if (!set_bits<Entry>(c, path[i], kPteAccessed)) return {.kind = Outcome::Again};
    const EntrySlot& leaf = path[levels - 1];
    const bool write = request.access == Access::Write;
    if (!set_bits<Entry>(c, leaf, write ? kPteAccessed | kPteDirty : kPteAccessed))
        return {.kind = Outcome::Again};
    rights.global = (leaf.value & kPteGlobal) != 0 && (c.cr4 & cr4::kPge) != 0;
    rights.dirty = write || (leaf.value & kPteDirty) != 0;
    fill_second(c, lin, translation.page, translation.shift, rights);
    translation.global = rights.global;
    translation.write_ok = rights.dirty && may_write(c, rights, request);
    return {.kind = Outcome::Done, .translation = translation};
}

u64 reserved_bits(const Vcpu& c, unsigned level, bool leaf) {
    u64 reserved = bits(51, x86::kPhysicalAddressBits);
    if ((c.msr.efer & efer::kNxe) == 0) reserved |= kPteNx;
    if (!c.long_mode()) reserved |= bits(62, 52);
    // [APM 2 5.3.3] PML4E bits 8:7 must be zero, and bit 8 of a PDPE that points to a table.
    if (level == 4) reserved |= kPteLarge | kPteGlobal;
    if (level == 3) reserved |= leaf ? bits(29, 13) : kPteGlobal;
    if (level == 2 && leaf) reserved |= bits(20, 13);
    return reserved;
}

// PAE and 4-level: 8-byte entries, 9 bits of address per level.
Outcome walk64(Vcpu& c, u64 lin, const Request& request) {
    PageRights rights;
    EntrySlot path[4];
    unsigned level = 4;
    u64 table = c.cr3 & kPteAddress;
    if (!c.long_mode()) {
        const u64 pdpte = c.pdpte[(lin >> 30) & 3];
        if ((pdpte & kPtePresent) == 0) return {.kind = Outcome::Fault, .error = error_code(c, request, 0)};
        table = pdpte & kPteAddress;
        level = 2;
    }
    for (unsigned n = 0;; ++n, --level) {
        const unsigned shift = 12 + 9 * (level - 1);
        path[n] = read_entry<u64>(c, table + ((lin >> shift) & 511) * 8);
        const u64 entry = path[n].value;
        if ((entry & kPtePresent) == 0) return {.kind = Outcome::Fault, .error = error_code(c, request, 0)};
        const bool leaf = level == 1 || ((entry & kPteLarge) != 0 && level <= 3);
        if ((entry & reserved_bits(c, level, leaf)) != 0)
            return {.kind = Outcome::Fault, .error = error_code(c, request, pf::kPresent | pf::kReserved)};
        add_entry(rights, entry);
        if (leaf) {
            const u64 inside = bits(shift - 1, 0);
            const u64 page = ((entry & kPteAddress & ~inside) | (lin & inside)) & ~kPageMask;
            return finish<u64>(c, request, rights, lin, path, n + 1,
                               {.page = page, .shift = static_cast<u8>(shift)});
        }
        table = entry & kPteAddress;
    }
}

// 32-bit paging with 4 MiB pages and PSE-36 (40 bits of address in a 4 MiB page [SDM 3A table 4-4]).
Outcome walk32(Vcpu& c, u64 lin, const Request& request) {
    PageRights rights;
    EntrySlot path[2];
    path[0] = read_entry<u32>(c, (c.cr3 & 0xffff'f000) + ((lin >> 22) & 1023) * 4);
    const u64 pde = path[0].value;
    if ((pde & kPtePresent) == 0) return {.kind = Outcome::Fault, .error = error_code(c, request, 0)};
    add_entry(rights, pde);
    if ((pde & kPteLarge) != 0 && (c.cr4 & cr4::kPse) != 0) {
        if ((pde & bits(21, 21)) != 0)
            return {.kind = Outcome::Fault, .error = error_code(c, request, pf::kPresent | pf::kReserved)};
        const u64 page = (pde & bits(31, 22)) | ((pde & bits(20, 13)) << 19) | (lin & bits(21, 12));
        return finish<u32>(c, request, rights, lin, path, 1, {.page = page, .shift = 22});
    }
    path[1] = read_entry<u32>(c, (pde & 0xffff'f000) + ((lin >> 12) & 1023) * 4);
    const u64 pte = path[1].value;
    if ((pte & kPtePresent) == 0) return {.kind = Outcome::Fault, .error = error_code(c, request, 0)};
    add_entry(rights, pte);
    return finish<u32>(c, request, rights, lin, path, 2, {.page = pte & 0xffff'f000});
}

[[nodiscard]] Request request_of(const Vcpu& c, Access access, Privilege privilege) {
    Request r{.access = access,
              .user = privilege == Privilege::Current && c.cpl == 3,
              .user_pages_forbidden = false};
    if (!r.user && (c.cr4 & cr4::kSmap) != 0)
        r.user_pages_forbidden = privilege == Privilege::System || (c.eflags & eflags::kAc) == 0;
    return r;
}

}  // namespace

Translation translate(Vcpu& c, u64 lin, Access access, Privilege privilege) {
    if ((c.cr0 & cr0::kPg) == 0) return {.page = lin & ~kPageMask, .write_ok = true};
    const Request request = request_of(c, access, privilege);
    // What is found but does not allow the access is looked up anew: the guest may have given more rights.
    if (SecondTlb::Found found; find_second(c, lin, found) && may(c, found.rights, request) &&
                                (access != Access::Write || found.rights.dirty))
        return {.page = found.page,
                .shift = found.shift,
                .write_ok = found.rights.dirty && may_write(c, found.rights, request),
                .global = found.rights.global};
    const u64 begun = exit_begin(c);
    for (;;) {
        const Outcome outcome = (c.cr4 & cr4::kPae) != 0 ? walk64(c, lin, request) : walk32(c, lin, request);
        if (outcome.kind == Outcome::Again) continue;
        exit_end(c, ExitCause::PageWalk, begun);
        if (outcome.kind == Outcome::Done) [[likely]]
            return outcome.translation;
        c.cr2 = lin;
        raise_error(c, kPf, outcome.error);
    }
}

bool translate_quietly(Vcpu& c, u64 lin, u64* physical) {
    *physical = lin;
    if ((c.cr0 & cr0::kPg) == 0) return true;
    const bool pae = (c.cr4 & cr4::kPae) != 0;
    unsigned level = pae ? (c.long_mode() ? 4 : 2) : 2;
    u64 table = c.cr3 & (pae ? kPteAddress : u64{0xffff'f000});
    if (pae && !c.long_mode()) {
        table = c.pdpte[(lin >> 30) & 3];
        if ((table & kPtePresent) == 0) return false;
        table &= kPteAddress;
    }
    const unsigned index_bits = pae ? 9 : 10;
    for (;; --level) {
        const unsigned shift = 12 + index_bits * (level - 1);
        const u64 index = (lin >> shift) & ((1u << index_bits) - 1);
        const u64 entry =
            pae ? read_entry<u64>(c, table + index * 8).value : read_entry<u32>(c, table + index * 4).value;
        if ((entry & kPtePresent) == 0) return false;
        const bool large =
            level > 1 && level < 4 && (entry & kPteLarge) != 0 && (pae || (c.cr4 & cr4::kPse) != 0);
        if (level == 1 || large) {
            const u64 inside = bits(shift - 1, 0);
            u64 page = entry & kPteAddress & ~inside;
            if (!pae) page = (entry & bits(31, shift)) | (large ? (entry & bits(20, 13)) << 19 : 0);
            *physical = page | (lin & inside);
            return true;
        }
        table = entry & kPteAddress;
    }
}

bool load_pdptes(Vcpu& c, u64 cr3) {
    std::array<u64, 4> loaded{};
    const u64 base = cr3 & 0xffff'ffe0;
    const u64 reserved = bits(2, 1) | bits(8, 5) | bits(63, x86::kPhysicalAddressBits);
    for (unsigned i = 0; i < 4; ++i) {
        loaded[i] = read_entry<u64>(c, base + i * 8).value;
        if ((loaded[i] & kPtePresent) != 0 && (loaded[i] & reserved) != 0) return false;
    }
    c.pdpte = loaded;
    return true;
}

}  // namespace tessera::soft
