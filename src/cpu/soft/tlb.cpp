// Filling and flushing what a CPU remembers of the page tables. [SDM 3A 4.10]
#include "cpu/soft/tlb.h"

#include <algorithm>
#include <atomic>
#include <bit>

#include "cpu/soft/jit/slots.h"
#include "cpu/soft/mmu.h"
#include "cpu/soft/soft_system.h"
#include "cpu/soft/system.h"

namespace tessera::soft {

namespace {

// Further low bits of TlbEntry::aux.
enum TlbAux : u64 {
    kTlb2M = 1 << 1,  // part of a page of this size
    kTlb4M = 1 << 2,
    kTlb1G = 1 << 3,
    kTlbInLocalLog = 1 << 4,  // the slot is in TlbLog::local, whatever it holds now
    kTlbInGlobalLog = 1 << 5,
};
constexpr u64 kNoTag = 1;

// Which entries of a page a flush is about.
enum class Scope : u8 { Locals, Globals, Both };
[[nodiscard]] bool concerns(Scope scope, bool global) {
    return scope == Scope::Both || (scope == Scope::Globals) == global;
}

[[nodiscard]] constexpr u64 size_bit(unsigned shift) {
    return shift == 30 ? kTlb1G : shift == 22 ? kTlb4M : shift == 21 ? kTlb2M : 0;
}
[[nodiscard]] constexpr unsigned shift_of(u64 aux) {
    return (aux & kTlb1G) != 0 ? 30 : (aux & kTlb4M) != 0 ? 22 : (aux & kTlb2M) != 0 ? 21 : 12;
}
[[nodiscard]] bool same_page(u64 a, u64 b, unsigned shift) {
    return (a ^ b) >> shift == 0;
}

void forbid_writes(TlbLog& log, TlbEntry& e) {
    if (e.tag_w == kNoTag) return;
    --log.writers_of(e.aux);
    e.tag_w = kNoTag;
}
void clear(TlbLog& log, TlbEntry& e) {
    forbid_writes(log, e);
    e.tag_r = kNoTag;
}

// Calls visit(entry) for every slot of a set that was ever filled.
template <typename Visit>
void for_each_filled(Vcpu& c, unsigned set, const Visit& visit) {
    TlbLog& log = c.tlb_logs[set];
    for (unsigned i = 0; i < log.locals; ++i) visit(log, c.tlb_sets[set][log.local[i]]);
    for (unsigned i = 0; i < log.globals; ++i) visit(log, c.tlb_sets[set][log.global[i]]);
}

// Forgets the entries of one log of a set; a slot of the local log may hold a global page by now.
void drop_locals(Vcpu& c, unsigned set) {
    TlbLog& log = c.tlb_logs[set];
    for (unsigned i = 0; i < log.locals; ++i) {
        TlbEntry& e = c.tlb_sets[set][log.local[i]];
        if ((e.aux & kTlbGlobal) == 0 || set >= kTlbUser) clear(log, e);
        e.aux &= ~u64{kTlbInLocalLog};
    }
    log.locals = 0;
}
void drop_globals(Vcpu& c, unsigned set) {
    TlbLog& log = c.tlb_logs[set];
    for (unsigned i = 0; i < log.globals; ++i) {
        TlbEntry& e = c.tlb_sets[set][log.global[i]];
        clear(log, e);
        e.aux &= ~u64{kTlbInGlobalLog};
    }
    log.globals = 0;
}

template <typename Drop>
void drop_fetches(Vcpu& c, unsigned set, const Drop& drop) {
    for (unsigned word = 0; word < c.fetch_filled[set].size(); ++word) {
        u64& filled = c.fetch_filled[set][word];
        for (u64 left = filled; left != 0; left &= left - 1) {
            const unsigned bit = static_cast<unsigned>(std::countr_zero(left));
            FetchEntry& e = c.fetch_sets[set][word * 64 + bit];
            if (!drop(e)) continue;
            e.tag = kNoTag;
            filled &= ~(u64{1} << bit);
        }
    }
}

[[nodiscard]] u32 next_exec_gen(Vcpu& c) {
    // Numbers from here on have been given before: nothing may be left that remembers them.
    if (++c.spaces.last_exec_gen == 0) c.system->drop_all_code(c);
    return c.spaces.last_exec_gen;
}
void renew_kernel_code(Vcpu& c) {
    c.exec_gen_kernel = next_exec_gen(c);
}
void renew_user_code(Vcpu& c, AddressSpace& space) {
    space.exec_gen = next_exec_gen(c);
    if (&space == &c.spaces.space[c.spaces.current]) c.exec_gen_user = space.exec_gen;
}

// --- the second table

constexpr std::array<u8, 3> kSecondShifts{12, 21, 30};

constexpr u32 kSizesOfHalf = (1U << kSecondShifts.size()) - 1;  // in SecondTlbShare::sizes

[[nodiscard]] bool in_upper_half(const Vcpu& c, u64 lin) {
    return ((lin >> (c.long_mode() ? 47 : 31)) & 1) != 0;
}
// Where the bits of the half that `lin` is in begin in SecondTlbShare::sizes.
[[nodiscard]] unsigned half_of(const Vcpu& c, u64 lin) {
    return in_upper_half(c, lin) ? kSecondShifts.size() : 0;
}

// A look for a size that is not there costs a cache line: the size that was found last goes first.
[[nodiscard]] bool look_in_share(const SecondTlb& tlb, SecondTlbShare& share, bool upper, u64 lin,
                                 SecondTlb::Found& found) {
    const u32 sizes = share.sizes >> (upper ? kSecondShifts.size() : 0);
    u8& last = share.found_last[upper ? 1 : 0];
    if ((sizes >> last & 1) != 0 && tlb.find(lin, kSecondShifts[last], share.id, found)) return true;
    for (unsigned i = 0; i < kSecondShifts.size(); ++i) {
        if (i == last || (sizes >> i & 1) == 0) continue;
        if (tlb.find(lin, kSecondShifts[i], share.id, found)) {
            last = static_cast<u8>(i);
            return true;
        }
    }
    return false;
}

[[nodiscard]] inline bool look_second(Vcpu& c, u64 lin, SecondTlb::Found& found) {
    const bool upper = in_upper_half(c, lin);
    return look_in_share(c.second_tlb, c.spaces.space[c.spaces.current].second, upper, lin, found) ||
           look_in_share(c.second_tlb, c.spaces.second_globals, upper, lin, found);
}

// Whether all that the second table keeps of a page of this size is RAM or ROM, and not where the local APIC
// is. The APIC's page may be anywhere, and when it moves all translations are flushed.
[[nodiscard]] bool kept_in_memory(const Vcpu& c, u64 page, unsigned shift) {
    if (shift == 12) return host_page(c, page).host != nullptr;
    if (shift == 30) return false;
    constexpr u64 kKept = u64{1} << 21;
    constexpr u32 kApicBase = 0x1b;
    const u64 first = page & ~(kKept - 1);
    const MemoryRegion* region = c.system->world().memory.find(first);
    if (region == nullptr || region->size - (first - region->base) < kKept) return false;
    u64 apic = 0;
    return c.interrupts->read_msr(kApicBase, apic) == MsrResult::Ok && (apic & ~(kKept - 1)) != first;
}

void renew_second(Vcpu& c, SecondTlbShare& share) {
    if (share.sizes == 0) return;
    AddressSpaces& spaces = c.spaces;
    if (spaces.last_second_id == SecondTlb::kLastId) {
        c.second_tlb.clear();
        spaces.renew_second_ids();
    } else {
        share = {.id = ++spaces.last_second_id};
    }
}

void drop_second_page(Vcpu& c, const SecondTlbShare& share, u64 lin) {
    const u32 sizes = share.sizes >> half_of(c, lin);
    for (unsigned i = 0; i < kSecondShifts.size(); ++i) {
        if ((sizes >> i & 1) == 0) continue;
        c.second_tlb.erase(lin, kSecondShifts[i], share.id);
        // It may be the half of a page of 4 MiB.
        if (kSecondShifts[i] == 21) c.second_tlb.erase(lin ^ (u64{1} << 21), 21, share.id);
    }
}

void empty_page_slots(Vcpu& c, u64 lin, bool large) {
    if (large) {
        jit::empty_all_slots(c);
        return;
    }
    // Supervisor slots hold global pages only: of the user's half there mostly are none.
    const bool globals = (c.spaces.second_globals.sizes >> half_of(c, lin) & kSizesOfHalf) != 0;
    jit::empty_page_slots(c, lin, globals);
}

// What the supervisor's sets hold of the current address space.
void drop_supervisor_locals(Vcpu& c) {
    drop_locals(c, kTlbSupervisor);
    drop_locals(c, kTlbSupervisorAc);
    if (!c.spaces.local_kernel_code) return;
    c.spaces.local_kernel_code = false;
    drop_fetches(c, 0, [](const FetchEntry& e) { return !e.global; });
    renew_kernel_code(c);
}

// Everything of one address space but the supervisor's global pages.
void flush_space(Vcpu& c, unsigned number) {
    AddressSpace& space = c.spaces.space[number];
    drop_locals(c, kTlbUser + number);
    drop_fetches(c, 1 + number, [](const FetchEntry&) { return true; });
    space.has_globals = false;
    space.large.clear();
    renew_second(c, space.second);
    if (!space.code.empty()) {
        space.code.clear();
        renew_user_code(c, space);
    }
    if (number != c.spaces.current) return;
    drop_supervisor_locals(c);
    jit::empty_user_slots(c);
}

// The number of the space that holds this PCID's translations, or kAddressSpaces.
[[nodiscard]] unsigned space_of(const Vcpu& c, u32 pcid) {
    unsigned number = 0;
    while (number < kAddressSpaces && c.spaces.space[number].pcid != pcid) ++number;
    return number;
}

void drop_page(Vcpu& c, unsigned set, u64 lin, Scope scope, bool maybe_large) {
    TlbEntry& e = c.tlb_sets[set][(lin >> 12) & (kTlbEntries - 1)];
    if (e.tag_r == (lin & ~kPageMask) && concerns(scope, (e.aux & kTlbGlobal) != 0))
        clear(c.tlb_logs[set], e);
    if (!maybe_large) return;
    // The sets hold 4 KiB pieces of large pages: all pieces go [SDM 3A 4.10.2.3].
    for_each_filled(c, set, [&](TlbLog& log, TlbEntry& piece) {
        if (same_page(piece.tag_r, lin, shift_of(piece.aux)) &&
            concerns(scope, (piece.aux & kTlbGlobal) != 0))
            clear(log, piece);
    });
}

void drop_fetch_page(Vcpu& c, unsigned set, u64 lin, Scope scope) {
    drop_fetches(c, set, [&](const FetchEntry& e) {
        return same_page(e.tag, lin, e.shift) && concerns(scope, e.global);
    });
}

void drop_kernel_code(Vcpu& c, u64 lin, Scope scope) {
    if (!c.spaces.kernel_code.may_hold(lin)) return;
    drop_fetch_page(c, 0, lin, scope);
    renew_kernel_code(c);
}
void drop_user_code(Vcpu& c, unsigned number, u64 lin, Scope scope) {
    AddressSpace& space = c.spaces.space[number];
    if (!space.code.may_hold(lin)) return;
    drop_fetch_page(c, 1 + number, lin, scope);
    renew_user_code(c, space);
}

// Enters a page of RAM or ROM.
inline void fill_first(Vcpu& c, TlbSet set, u64 lin, const Translation& t, const HostPage& page) {
    const u64 tag = lin & ~kPageMask;
    const u64 slot = (lin >> 12) & (kTlbEntries - 1);
    TlbEntry& e = c.tlb_sets[set][slot];
    TlbLog& log = c.tlb_logs[set];
    const bool user = set >= kTlbUser;
    u64 aux = t.page | size_bit(t.shift) | (e.aux & (kTlbInLocalLog | kTlbInGlobalLog));
    if (t.global) aux |= kTlbGlobal;
    if (user || (t.global && set == kTlbSupervisor)) aux |= kTlbFillsSlots;
    if (t.global && !user) {
        if ((aux & kTlbInGlobalLog) == 0) log.global[log.globals++] = static_cast<u16>(slot);
        aux |= kTlbInGlobalLog;
    } else {
        if ((aux & kTlbInLocalLog) == 0) log.local[log.locals++] = static_cast<u16>(slot);
        aux |= kTlbInLocalLog;
    }
    if (user && t.global) c.spaces.space[c.spaces.current].has_globals = true;
    forbid_writes(log, e);
    e.tag_r = tag;
    e.addend = static_cast<s64>(reinterpret_cast<u64>(page.host) - tag);
    e.aux = aux;
    // Stores to pages with decoded code take the slow path.
    if (t.write_ok && is_ram(page) && page.region->code_word(t.page).load(std::memory_order_relaxed) == 0) {
        e.tag_w = tag;
        ++log.writers_of(t.page);
    }
}

}  // namespace

bool find_second(Vcpu& c, u64 lin, SecondTlb::Found& found) {
    return look_second(c, lin, found);
}

void fill_second(Vcpu& c, u64 lin, u64 page, unsigned shift, const PageRights& rights) {
    AddressSpaces& spaces = c.spaces;
    AddressSpace& space = spaces.space[spaces.current];
    SecondTlbShare& share = rights.global ? spaces.second_globals : space.second;
    if (shift > 12) (rights.global ? spaces.large_globals : space.large).add(lin, shift);
    const auto* kept = std::ranges::find(kSecondShifts, SecondTlb::kept_shift(shift));
    share.sizes |= 1u << (half_of(c, lin) + static_cast<unsigned>(kept - kSecondShifts.begin()));
    c.second_tlb.insert(lin, page, shift, rights, kept_in_memory(c, page, shift), share.id);
}

void fill_tlb(Vcpu& c, TlbSet set, u64 lin, const Translation& t, const HostPage& page) {
    if (page.host == nullptr) return;
    if (breakpoints_enabled(c) && data_breakpoint_in_page(c, lin & ~kPageMask)) return;
    fill_first(c, set, lin, t, page);
}

u8* remembered(Vcpu& c, TlbSet set, u64 lin, unsigned size, Access access) {
    const u64 tag = lin & ~kPageMask;
    TlbEntry& e = c.tlb_sets[set][(lin >> 12) & (kTlbEntries - 1)];
    const u64& wanted = access == Access::Write ? e.tag_w : e.tag_r;
    const auto host = [&] { return reinterpret_cast<u8*>(lin + static_cast<u64>(e.addend)); };
    if (((lin + (size - 1)) & ~kPageMask) == wanted) return host();
    if ((lin & kPageMask) + size > kPageSize || breakpoints_enabled(c)) return nullptr;
    if (c.long_mode() ? !is_canonical(lin) : lin >> 32 != 0) return nullptr;
    SecondTlb::Found found;
    if (!look_second(c, lin, found)) return nullptr;
    // Whom a set belongs to says all about the accesses it serves.
    const bool user = set >= kTlbUser;
    const bool forbidden = user
                               ? !found.rights.user
                               : found.rights.user && set == kTlbSupervisor && (c.cr4 & x86::cr4::kSmap) != 0;
    if (forbidden) return nullptr;
    const bool write_ok =
        found.rights.dirty && (found.rights.writable || (!user && (c.cr0 & x86::cr0::kWp) == 0));
    if (access == Access::Write && !write_ok) return nullptr;
    HostPage page;
    if (found.in_memory) {
        page.region = c.system->world().memory.find(found.page);
        page.host = page.region->at(found.page);
    } else {
        page = host_page(c, found.page);
        if (page.host == nullptr) return nullptr;
    }
    fill_first(
        c, set, lin,
        {.page = found.page, .shift = found.shift, .write_ok = write_ok, .global = found.rights.global},
        page);
    return wanted == tag ? host() : nullptr;
}

HostPieces remembered_pieces(Vcpu& c, TlbSet set, u64 lin, unsigned size, Access access) {
    const auto to_boundary = static_cast<unsigned>(kPageSize - (lin & kPageMask));
    if (size <= to_boundary) return {.first = remembered(c, set, lin, size, access), .first_size = size};
    u8* first = remembered(c, set, lin, to_boundary, access);
    if (first == nullptr) return {};
    u64 next = lin + to_boundary;
    if (!c.long_mode()) next = static_cast<u32>(next);
    // The two pages are neighbours in the table: the second does not displace the first.
    u8* second = remembered(c, set, next, size - to_boundary, access);
    if (second == nullptr) return {};
    return {.first = first, .second = second, .first_size = to_boundary};
}

const FetchEntry& fetch_page(Vcpu& c, u64 lin) {
    if (!c.long_mode()) lin = static_cast<u32>(lin);
    const u64 index = (lin >> 12) & (kFetchEntries - 1);
    const u64 tag = lin & ~kPageMask;
    FetchEntry& e = c.fetch[index];
    if (e.tag == tag) return e;
    if (!is_canonical(lin)) raise_gp0(c);
    const Translation t = translate(c, lin, Access::Execute, Privilege::Current);
    const unsigned set = c.cpl == 3 ? 1u + c.spaces.current : 0;
    AddressSpace& space = c.spaces.space[c.spaces.current];
    if (set == 0) {
        c.spaces.kernel_code.add(lin, t.shift);
        c.spaces.local_kernel_code = c.spaces.local_kernel_code || !t.global;
    } else {
        space.code.add(lin, t.shift);
        space.has_globals = space.has_globals || t.global;
    }
    c.fetch_filled[set][index / 64] |= u64{1} << (index % 64);
    e = {.tag = tag,
         .physical = t.page,
         .host = reinterpret_cast<const u8*>(host_page(c, t.page).host),
         .global = t.global,
         .shift = t.shift};
    return e;
}

void purge_write_tags(Vcpu& c, u64 physical_page) {
    if (const HostPage page = host_page(c, physical_page); page.host != nullptr)
        jit::empty_host_slots(c, reinterpret_cast<const u8*>(page.host));
    for (unsigned set = 0; set < kTlbNone; ++set) {
        if (c.tlb_logs[set].writers_of(physical_page) == 0) continue;
        for_each_filled(c, set, [physical_page](TlbLog& log, TlbEntry& e) {
            if ((e.aux & ~kPageMask) == physical_page) forbid_writes(log, e);
        });
    }
}

// --- flushes

void flush_tlb(Vcpu& c, bool globals_too) {
    AddressSpaces& spaces = c.spaces;
    if (!globals_too) {
        flush_space(c, spaces.current);
        return;
    }
    for (unsigned i = 0; i < kAddressSpaces; ++i) {
        flush_space(c, i);
        if (i == spaces.current) continue;
        spaces.space[i].pcid = AddressSpace::kUnbound;
        spaces.space[i].last_used = 0;
    }
    jit::empty_all_slots(c);
    drop_globals(c, kTlbSupervisor);
    drop_globals(c, kTlbSupervisorAc);
    drop_fetches(c, 0, [](const FetchEntry&) { return true; });
    spaces.large_globals.clear();
    renew_second(c, spaces.second_globals);
    spaces.kernel_code.clear();
    renew_kernel_code(c);
    renew_user_code(c, spaces.space[spaces.current]);
}

void flush_tlb_page(Vcpu& c, u64 lin) {
    AddressSpaces& spaces = c.spaces;
    const unsigned current = spaces.current;
    const bool large_global = spaces.large_globals.may_hold(lin);
    const bool large = large_global || spaces.space[current].large.may_hold(lin);
    empty_page_slots(c, lin, large);
    drop_page(c, kTlbSupervisor, lin, Scope::Both, large);
    drop_page(c, kTlbSupervisorAc, lin, Scope::Both, large);
    drop_page(c, kTlbUser + current, lin, Scope::Both, large);
    drop_second_page(c, spaces.second_globals, lin);
    drop_second_page(c, spaces.space[current].second, lin);
    drop_kernel_code(c, lin, Scope::Both);
    drop_user_code(c, current, lin, Scope::Both);
    // Global pages that other spaces' user code has used.
    for (unsigned i = 0; i < kAddressSpaces; ++i) {
        if (i == current || !spaces.space[i].has_globals) continue;
        drop_page(c, kTlbUser + i, lin, Scope::Globals, large_global);
        drop_user_code(c, i, lin, Scope::Globals);
    }
}

void flush_pcid_page(Vcpu& c, u16 pcid, u64 lin) {
    const unsigned number = space_of(c, pcid);
    if (number == kAddressSpaces) return;
    const bool large = c.spaces.space[number].large.may_hold(lin);
    drop_page(c, kTlbUser + number, lin, Scope::Locals, large);
    drop_second_page(c, c.spaces.space[number].second, lin);
    drop_user_code(c, number, lin, Scope::Locals);
    if (number != c.spaces.current) return;
    empty_page_slots(c, lin, large);
    drop_page(c, kTlbSupervisor, lin, Scope::Locals, large);
    drop_page(c, kTlbSupervisorAc, lin, Scope::Locals, large);
    if (c.spaces.local_kernel_code) drop_kernel_code(c, lin, Scope::Locals);
}

void flush_pcid(Vcpu& c, u16 pcid) {
    if (const unsigned number = space_of(c, pcid); number < kAddressSpaces) flush_space(c, number);
}

void flush_all_pcids(Vcpu& c) {
    for (unsigned i = 0; i < kAddressSpaces; ++i)
        if (c.spaces.space[i].pcid != AddressSpace::kUnbound) flush_space(c, i);
}

void switch_address_space(Vcpu& c, u16 pcid, Translations translations) {
    AddressSpaces& spaces = c.spaces;
    unsigned number = spaces.current;
    if (spaces.space[number].pcid != pcid) {
        drop_supervisor_locals(c);
        jit::empty_user_slots(c);
        number = space_of(c, pcid);
        if (number == kAddressSpaces) {
            const auto* oldest = std::ranges::min_element(spaces.space, {}, &AddressSpace::last_used);
            number = static_cast<unsigned>(oldest - spaces.space.data());
            spaces.space[number].pcid = pcid;
            spaces.space[number].exec_gen = next_exec_gen(c);
            translations = Translations::Flush;
        }
        spaces.current = static_cast<u8>(number);
    }
    AddressSpace& space = spaces.space[number];
    space.last_used = ++spaces.clock;
    if (translations == Translations::Flush) flush_space(c, number);
    c.exec_gen_user = space.exec_gen;
    update_tlb_set(c);
}

}  // namespace tessera::soft
