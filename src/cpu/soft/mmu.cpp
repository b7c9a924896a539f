// Everything the inline access path of access.h cannot do: misses, page crossings, ROM, MMIO, the
// local APIC's page, decoded code, data breakpoints, alignment checks.
#include "cpu/soft/mmu.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "bus/apic_page.h"
#include "cpu/soft/exits.h"
#include "cpu/soft/jit/checker.h"
#include "cpu/soft/paravirt.h"
#include "cpu/soft/segment.h"
#include "cpu/soft/soft_system.h"
#include "cpu/soft/system.h"
#include "cpu/soft/x86_names.h"

namespace tessera::soft {

namespace {

// Copies as the fast paths do: aligned 1, 2, 4 and 8 byte pieces are single host accesses.
TESSERA_GUEST_RACES void copy_guest(void* to, const void* from, unsigned size) {
    switch (size) {
        case 1: __builtin_memcpy(to, from, 1); return;
        case 2: __builtin_memcpy(to, from, 2); return;
        case 4: __builtin_memcpy(to, from, 4); return;
        case 8: __builtin_memcpy(to, from, 8); return;
        default: break;
    }
    auto* out = static_cast<u8*>(to);
    const auto* in = static_cast<const u8*>(from);
    const auto piece = [&]<unsigned Size>() {
        __builtin_memcpy(out, in, Size);
        out += Size, in += Size;
    };
    for (; size >= 16; size -= 16) piece.operator()<16>();
    if ((size & 8) != 0) piece.operator()<8>();
    if ((size & 4) != 0) piece.operator()<4>();
    if ((size & 2) != 0) piece.operator()<2>();
    if ((size & 1) != 0) piece.operator()<1>();
}

[[nodiscard]] bool is_apic_page(const Vcpu& c, u64 physical) {
    return c.interrupts->owns_page(physical & ~kPageMask);
}

// The 64-byte granules of a page that [offset, +size) touches, as bits.
[[nodiscard]] u64 granules(u64 physical, unsigned size) {
    const u64 first = (physical & kPageMask) / 64;
    const u64 last = ((physical & kPageMask) + size - 1) / 64;
    return (~u64{0} << first) & (~u64{0} >> (63 - last));
}

// After a store to RAM: whoever has decoded these bytes must learn of it. The fence orders the store before
// the look, as mark_code orders its mark before reading the bytes.
void after_ram_write(Vcpu& c, const MemoryRegion& region, u64 physical, unsigned size) {
    std::atomic_thread_fence(std::memory_order_seq_cst);
    if ((region.code_word(physical).load(std::memory_order_relaxed) & granules(physical, size)) != 0)
        c.system->code_written(c, physical, size);
}

void apic_read(Vcpu& c, u64 physical, void* out, unsigned size) {
    if (c.paravirt_eoi_offered) poll_paravirt_eoi(c);
    read_apic_page(*c.interrupts, physical, {static_cast<std::byte*>(out), size});
}
void apic_write(Vcpu& c, u64 physical, const void* in, unsigned size) {
    if (c.paravirt_eoi_offered) end_paravirt_eoi(c);
    // An EOI or a lower TPR may let an interrupt through.
    if (write_apic_page(*c.interrupts, physical, {static_cast<const std::byte*>(in), size}))
        c.attention.fetch_or(kAttendInterrupts);
}

[[nodiscard]] TlbSet set_of(const Vcpu& c, Privilege privilege) {
    if (privilege == Privilege::Current && c.cpl == 3)
        return static_cast<TlbSet>(kTlbUser + c.spaces.current);
    const bool lifted = (c.cr4 & cr4::kSmap) != 0 && (c.eflags & eflags::kAc) != 0;
    return lifted && privilege != Privilege::System ? kTlbSupervisorAc : kTlbSupervisor;
}

// One access, resolved: its bytes are in one page, or in two.
struct Target {
    std::array<u64, 2> physical{};
    std::array<HostPage, 2> page{};
    unsigned first_size = 0;  // == size when the page is not crossed
};

[[noreturn]] void raise_not_canonical(Vcpu& c, u8 seg) {
    raise_error(c, seg == Ss ? kSs : kGp, external_bit(c));
}

// [SDM 3A table 6-7] 10-byte operands want 8-byte alignment, vectors their own size (at most 16). What else
// is probed as a whole (far pointers, PUSHA's frame) is checked piece by piece when it is accessed.
void check_alignment(Vcpu& c, u64 lin, unsigned size) {
    const unsigned alignment = size == 10 ? 8 : std::has_single_bit(size) ? std::min(size, 16u) : 1;
    if ((lin & (alignment - 1)) != 0) raise_error(c, kAc, 0);
}

[[nodiscard]] bool alignment_checked(const Vcpu& c, Privilege privilege) {
    return privilege == Privilege::Current && c.tlb == c.tlb_sets[kTlbNone].data();
}

// An access that may have to be undone: to RAM (or from ROM), and not to decoded code.
void record(Vcpu& c, const Target& t, unsigned size, Access access) {
    const std::array<unsigned, 2> sizes{t.first_size, size - t.first_size};
    for (unsigned i = 0; i < 2; ++i) {
        if (sizes[i] == 0) continue;
        const HostPage& page = t.page[i];
        if (page.host == nullptr) c.checker->give_up(c);
        if (access != Access::Write) continue;
        if (!is_ram(page) || page.region->code_word(t.physical[i]).load(std::memory_order_relaxed) != 0)
            c.checker->give_up(c);
        c.checker->note_write(reinterpret_cast<u8*>(page.host + (t.physical[i] & kPageMask)), sizes[i]);
    }
}

// Translates and checks all of an access; fills the TLB.
Target resolve(Vcpu& c, u64 lin, unsigned size, Access access, Privilege privilege, u8 seg) {
    const bool wide = c.long_mode();
    if (!wide) lin = static_cast<u32>(lin);
    u64 last = lin + (size - 1);
    if (!wide) last = static_cast<u32>(last);
    if (wide && (!is_canonical(lin) || !is_canonical(last))) [[unlikely]]
        raise_not_canonical(c, seg);
    const TlbSet set = set_of(c, privilege);
    Target target;
    const Translation t = translate(c, lin, access, privilege);
    target.physical[0] = t.page | (lin & kPageMask);
    target.page[0] = host_page(c, t.page);
    target.first_size = size;
    if (((lin ^ last) & ~kPageMask) == 0) [[likely]] {
        fill_tlb(c, set, lin, t, target.page[0]);
    } else {
        target.first_size = static_cast<unsigned>(kPageSize - (lin & kPageMask));
        const u64 next = last & ~kPageMask;
        const Translation t2 = translate(c, next, access, privilege);
        target.physical[1] = t2.page;
        target.page[1] = host_page(c, t2.page);
        fill_tlb(c, set, lin, t, target.page[0]);
        fill_tlb(c, set, next, t2, target.page[1]);
    }
    if (alignment_checked(c, privilege)) [[unlikely]]
        check_alignment(c, lin, size);
    if (breakpoints_enabled(c)) [[unlikely]]
        note_data_access(c, lin, size, access);
    if (c.recording) [[unlikely]]
        record(c, target, size, access);
    return target;
}

void read_piece(Vcpu& c, const HostPage& page, u64 physical, void* out, unsigned size) {
    if (page.host != nullptr)
        copy_guest(out, page.host + (physical & kPageMask), size);
    else
        physical_read(c, physical, out, size);
}
void write_piece(Vcpu& c, const HostPage& page, u64 physical, const void* in, unsigned size) {
    if (is_ram(page)) {
        copy_guest(page.host + (physical & kPageMask), in, size);
        after_ram_write(c, *page.region, physical, size);
    } else {
        physical_write(c, physical, in, size);
    }
}
void read_target(Vcpu& c, const Target& t, void* out, unsigned size) {
    read_piece(c, t.page[0], t.physical[0], out, t.first_size);
    if (t.first_size < size)
        read_piece(c, t.page[1], t.physical[1], static_cast<u8*>(out) + t.first_size, size - t.first_size);
}
void write_target(Vcpu& c, const Target& t, const void* in, unsigned size) {
    write_piece(c, t.page[0], t.physical[0], in, t.first_size);
    if (t.first_size < size)
        write_piece(c, t.page[1], t.physical[1], static_cast<const u8*>(in) + t.first_size,
                    size - t.first_size);
}

// Writes RAM, the APIC, or a device. A write to ROM has no taker on the bus either: it goes nowhere, and is
// counted.
void write_without_notice(Vcpu& c, u64 physical, const void* in, unsigned size) {
    if (is_apic_page(c, physical)) {
        const u64 begun = exit_begin(c);
        apic_write(c, physical, in, size);
        exit_end(c, ExitCause::ApicWrite, begun);
        return;
    }
    const MemoryRegion* region = c.system->world().memory.find(physical);
    if (region != nullptr && region->kind == RegionKind::Ram) {
        copy_guest(region->at(physical), in, size);
        return;
    }
    const u64 begun = exit_begin(c);
    c.system->world().mmio.write(physical, {static_cast<const std::byte*>(in), size});
    exit_end(c, ExitCause::MmioWrite, begun);
}
void notice_write(Vcpu& c, u64 physical, unsigned size) {
    const HostPage page = host_page(c, physical & ~kPageMask);
    if (is_ram(page)) after_ram_write(c, *page.region, physical, size);
}

}  // namespace

HostPage host_page(const Vcpu& c, u64 physical_page) {
    if (is_apic_page(c, physical_page)) return {};
    const MemoryRegion* region = c.system->world().memory.find(physical_page);
    if (region == nullptr) return {};
    return {.region = region, .host = region->at(physical_page)};
}

void physical_read(Vcpu& c, u64 physical, void* out, unsigned size) {
    if (is_apic_page(c, physical)) {
        const u64 begun = exit_begin(c);
        apic_read(c, physical, out, size);
        exit_end(c, ExitCause::ApicRead, begun);
        return;
    }
    if (const MemoryRegion* region = c.system->world().memory.find(physical); region != nullptr) {
        copy_guest(out, region->at(physical), size);
        return;
    }
    const u64 begun = exit_begin(c);
    c.system->world().mmio.read(physical, {static_cast<std::byte*>(out), size});
    exit_end(c, ExitCause::MmioRead, begun);
}

void physical_write(Vcpu& c, u64 physical, const void* in, unsigned size) {
    write_without_notice(c, physical, in, size);
    notice_write(c, physical, size);
}

// Descriptors' accessed and busy bits: atomic against other CPUs where the table is in RAM.
u8 change_system_byte(Vcpu& c, u64 lin, u8 and_mask, u8 or_mask) {
    const Target t = resolve(c, lin, 1, Access::Write, Privilege::System, Ds);
    u8 before = 0;
    if (!is_ram(t.page[0])) {
        physical_read(c, t.physical[0], &before, 1);
        const auto after = static_cast<u8>((before & and_mask) | or_mask);
        physical_write(c, t.physical[0], &after, 1);
        return before;
    }
    auto* byte = reinterpret_cast<u8*>(t.page[0].host + (t.physical[0] & kPageMask));
    before = __atomic_load_n(byte, __ATOMIC_RELAXED);
    while (!__atomic_compare_exchange_n(byte, &before, static_cast<u8>((before & and_mask) | or_mask), false,
                                        __ATOMIC_SEQ_CST, __ATOMIC_RELAXED)) {
    }
    after_ram_write(c, *t.page[0].region, t.physical[0], 1);
    return before;
}

// --- data

void read_pieces(const HostPieces& from, void* out, unsigned size) {
    copy_guest(out, from.first, from.first_size);
    if (from.first_size < size)
        copy_guest(static_cast<u8*>(out) + from.first_size, from.second, size - from.first_size);
}

namespace {

// The running code's access must pass `resolve`, also if the translation is at hand.
[[nodiscard]] bool looked_at(const Vcpu& c) {
    return c.recording || alignment_checked(c, Privilege::Current);
}
[[nodiscard]] u8* remembered_current(Vcpu& c, u64 lin, unsigned size, Access access) {
    if (looked_at(c)) [[unlikely]]
        return nullptr;
    return remembered(c, set_of(c, Privilege::Current), lin, size, access);
}

// Also across two pages. Descriptor tables and kernel stacks are nearly always there already.
[[nodiscard]] HostPieces pieces_as(Vcpu& c, u64 lin, unsigned size, Access access, Privilege privilege) {
    if (privilege == Privilege::Current && looked_at(c)) [[unlikely]]
        return {};
    return remembered_pieces(c, set_of(c, privilege), lin, size, access);
}

// Nobody has decoded code there, or a write would not have been found.
void write_pieces(const HostPieces& to, const void* in, unsigned size) {
    copy_guest(to.first, in, to.first_size);
    if (to.first_size < size)
        copy_guest(to.second, static_cast<const u8*>(in) + to.first_size, size - to.first_size);
}

void store_resolved(Vcpu& c, u64 lin, const void* in, unsigned size, Privilege privilege, u8 seg) {
    const Target t = resolve(c, lin, size, Access::Write, privilege, seg);
    // What can be stored without a look at decoded code is, as the inline path does it.
    const TlbEntry& e = c.tlb_sets[set_of(c, privilege)][(lin >> 12) & (kTlbEntries - 1)];
    if (((lin + (size - 1)) & ~kPageMask) == e.tag_w)
        copy_guest(reinterpret_cast<void*>(lin + static_cast<u64>(e.addend)), in, size);
    else
        write_target(c, t, in, size);
}

}  // namespace

u64 load_slow(Vcpu& c, u64 lin, unsigned size, u8 seg) {
    return load_as(c, lin, size, Privilege::Current, seg);
}
void store_slow(Vcpu& c, u64 lin, unsigned size, u64 value, u8 seg) {
    store_as(c, lin, size, value, Privilege::Current, seg);
}

u64 load_as(Vcpu& c, u64 lin, unsigned size, Privilege privilege, u8 seg) {
    u64 value = 0;
    if (const HostPieces host = pieces_as(c, lin, size, Access::Read, privilege); host.first != nullptr) {
        read_pieces(host, &value, size);
        return value;
    }
    const Target t = resolve(c, lin, size, Access::Read, privilege, seg);
    read_target(c, t, &value, size);
    return value;
}

void store_as(Vcpu& c, u64 lin, unsigned size, u64 value, Privilege privilege, u8 seg) {
    if (const HostPieces host = pieces_as(c, lin, size, Access::Write, privilege); host.first != nullptr)
        write_pieces(host, &value, size);
    else
        store_resolved(c, lin, &value, size, privilege, seg);
}

void load_bytes_slow(Vcpu& c, u64 lin, void* out, unsigned size, u8 seg) {
    if (const HostPieces host = pieces_as(c, lin, size, Access::Read, Privilege::Current);
        host.first != nullptr) {
        read_pieces(host, out, size);
        return;
    }
    const Target t = resolve(c, lin, size, Access::Read, Privilege::Current, seg);
    read_target(c, t, out, size);
}
void store_bytes_slow(Vcpu& c, u64 lin, const void* in, unsigned size, u8 seg) {
    if (const HostPieces host = pieces_as(c, lin, size, Access::Write, Privilege::Current);
        host.first != nullptr)
        write_pieces(host, in, size);
    else
        store_resolved(c, lin, in, size, Privilege::Current, seg);
}

u64 load_system(Vcpu& c, u64 lin, unsigned size) {
    return load_as(c, lin, size, Privilege::System);
}
void store_system(Vcpu& c, u64 lin, unsigned size, u64 value) {
    store_as(c, lin, size, value, Privilege::System);
}

void probe_as(Vcpu& c, u64 lin, unsigned size, Access access, Privilege privilege, u8 seg) {
    if (access != Access::Execute && !alignment_checked(c, privilege) &&
        remembered_pieces(c, set_of(c, privilege), lin, size, access).first != nullptr)
        return;
    const u64 pending = c.pending_db;
    constexpr unsigned kLargestOperand = 8;
    if (size > kLargestOperand && alignment_checked(c, privilege)) {
        // Many operands, each checked when it is accessed: here only the two ends' pages count.
        resolve(c, lin, 1, access, privilege, seg);
        resolve(c, lin + (size - 1), 1, access, privilege, seg);
    } else {
        resolve(c, lin, size, access, privilege, seg);
    }
    c.pending_db = pending;  // the access itself will count as the breakpoint's hit
}
void probe(Vcpu& c, u64 lin, unsigned size, Access access, u8 seg) {
    probe_as(c, lin, size, access, Privilege::Current, seg);
}

u8* host_span(Vcpu& c, u64 lin, Access access, u8 seg, u64* available) {
    const bool write = access == Access::Write;
    *available = kPageSize - (lin & kPageMask);
    const u64 tag = lin & ~kPageMask;
    TlbEntry& e = tlb_entry(c, lin);
    if (tag != (write ? e.tag_w : e.tag_r)) {
        if (u8* host = remembered_current(c, lin, 1, access)) return host;
        resolve(c, lin, 1, access, Privilege::Current, seg);
        if (tag != (write ? e.tag_w : e.tag_r)) return nullptr;
    }
    return reinterpret_cast<u8*>(lin + static_cast<u64>(e.addend));
}

// --- read-modify-write

void* rmw_begin_slow(Vcpu& c, u64 lin, unsigned size, u8 seg, bool locked) {
    if (u8* host = remembered_current(c, lin, size, Access::Write)) return host;
    const Target t = resolve(c, lin, size, Access::Write, Privilege::Current, seg);
    Vcpu::Rmw& rmw = c.rmw;
    rmw.physical = t.physical;
    rmw.size = size;
    rmw.first_size = t.first_size;
    rmw.exclusive = false;
    if (t.first_size == size && is_ram(t.page[0])) {
        c.rmw_slow = t.page[0].region->code_word(t.physical[0]).load(std::memory_order_relaxed) != 0;
        rmw.notify_only = true;
        return t.page[0].host + (t.physical[0] & kPageMask);
    }
    // Crosses a page, or is not RAM: by way of a buffer. What the bus or two pages cannot do in one go is
    // made atomic by stopping the other CPUs, as hardware locks the bus.
    if (locked) {
        c.system->exclusive_begin(c);
        rmw.exclusive = true;
    }
    rmw.notify_only = false;
    c.rmw_slow = true;
    read_target(c, t, rmw.buffer.data(), size);
    return rmw.buffer.data();
}

void rmw_end_slow(Vcpu& c) {
    Vcpu::Rmw& rmw = c.rmw;
    c.rmw_slow = false;
    if (rmw.notify_only) {
        notice_write(c, rmw.physical[0], rmw.size);
        return;
    }
    const unsigned second_size = rmw.size - rmw.first_size;
    write_without_notice(c, rmw.physical[0], rmw.buffer.data(), rmw.first_size);
    if (second_size > 0)
        write_without_notice(c, rmw.physical[1], rmw.buffer.data() + rmw.first_size, second_size);
    // code_written stops the other CPUs itself, which does not nest.
    if (rmw.exclusive) c.system->exclusive_end(c);
    rmw.exclusive = false;
    notice_write(c, rmw.physical[0], rmw.first_size);
    if (second_size > 0) notice_write(c, rmw.physical[1], second_size);
}

}  // namespace tessera::soft
