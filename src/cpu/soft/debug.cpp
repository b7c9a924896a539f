// Debug registers and breakpoints. While any is armed the dispatcher runs instruction by instruction, and
// pages with data breakpoints never enter the TLB, so that every access to them comes by here.
#include "cpu/soft/debug.h"

#include "cpu/soft/mmu.h"
#include "cpu/soft/system.h"
#include "cpu/soft/x86_names.h"

namespace tessera::soft {

namespace {

// DR7's R/Wn field.
enum class Watch : u8 { Execute = 0, Write = 1, Io = 2, Access = 3 };

struct Breakpoint {
    Watch watch;
    u64 first, last;  // inclusive
};

[[nodiscard]] bool enabled(const Vcpu& c, unsigned n) {
    return (c.dr7 >> (2 * n) & 3) != 0;
}

[[nodiscard]] Breakpoint breakpoint(const Vcpu& c, unsigned n) {
    static constexpr u64 kLengths[4] = {1, 2, 8, 4};  // LENn
    const u64 control = c.dr7 >> (16 + 4 * n);
    const u64 length = kLengths[control >> 2 & 3];
    const u64 first = c.dr[n] & ~(length - 1);  // [SDM 3B 17.2.5] low address bits are ignored
    return {.watch = static_cast<Watch>(control & 3), .first = first, .last = first + (length - 1)};
}

[[nodiscard]] bool overlaps(const Breakpoint& b, u64 address, unsigned size) {
    return address <= b.last && address + (size - 1) >= b.first;
}

}  // namespace

bool needs_single_step(const Vcpu& c) {
    return (c.eflags & eflags::kTf) != 0 || breakpoints_enabled(c);
}

void check_instruction_breakpoints(Vcpu& c) {
    if (!breakpoints_enabled(c) || (c.eflags & eflags::kRf) != 0) return;
    const u64 lin = c.code64() ? c.rip : static_cast<u32>(c.seg[Cs].base + c.rip);
    u64 hits = 0;
    for (unsigned n = 0; n < 4; ++n) {
        if (enabled(c, n) && breakpoint(c, n).watch == Watch::Execute && c.dr[n] == lin) hits |= 1u << n;
    }
    if (hits == 0) return;
    report_debug(c, hits);
    raise(c, kDb);
}

bool data_breakpoint_in_page(const Vcpu& c, u64 lin) {
    for (unsigned n = 0; n < 4; ++n) {
        if (!enabled(c, n)) continue;
        const Breakpoint b = breakpoint(c, n);
        const bool data = b.watch == Watch::Write || b.watch == Watch::Access;
        if (data && ((b.first ^ lin) & ~kPageMask) == 0) return true;
    }
    return false;
}

void note_data_access(Vcpu& c, u64 lin, unsigned size, Access access) {
    for (unsigned n = 0; n < 4; ++n) {
        if (!enabled(c, n)) continue;
        const Breakpoint b = breakpoint(c, n);
        const bool watched = b.watch == Watch::Access || (b.watch == Watch::Write && access == Access::Write);
        if (watched && access != Access::Execute && overlaps(b, lin, size)) c.pending_db |= 1u << n;
    }
    if (c.pending_db != 0) c.attention.fetch_or(kAttendDebug);
}

void note_io_access(Vcpu& c, u16 port, unsigned size) {
    if (!breakpoints_enabled(c) || (c.cr4 & cr4::kDe) == 0) return;
    for (unsigned n = 0; n < 4; ++n) {
        if (!enabled(c, n)) continue;
        const Breakpoint b = breakpoint(c, n);
        if (b.watch == Watch::Io && overlaps(b, port, size)) c.pending_db |= 1u << n;
    }
    if (c.pending_db != 0) c.attention.fetch_or(kAttendDebug);
}

void report_debug(Vcpu& c, u64 causes) {
    // [SDM 3B 17.2.3] B0-B3 tell of this exception only; the others are left for software to clear.
    c.dr6 = (c.dr6 & ~dr6::kHits) | causes;
    c.dr7 &= ~dr7::kGd;
    c.pending_db = 0;
}

namespace {

// The register a number means, after the checks MOV DR makes.
unsigned checked_number(Vcpu& c, unsigned number) {
    if (number > 7) raise_ud(c);
    if (number == 4 || number == 5) {
        if ((c.cr4 & cr4::kDe) != 0) raise_ud(c);
        number += 2;
    }
    if (c.cpl != 0) raise_gp0(c);
    if ((c.dr7 & dr7::kGd) != 0) {
        report_debug(c, dr6::kBd);
        raise(c, kDb);
    }
    return number;
}

}  // namespace

u64 read_debug_register(Vcpu& c, unsigned number) {
    number = checked_number(c, number);
    return number == 6 ? c.dr6 : number == 7 ? c.dr7 : c.dr[number];
}

void write_debug_register(Vcpu& c, unsigned number, u64 value) {
    number = checked_number(c, number);
    if (number >= 6 && value >> 32 != 0) raise_gp0(c);
    if (number == 6) {
        c.dr6 = (value & (dr6::kHits | dr6::kBd | dr6::kBs | dr6::kBt)) | dr6::kFixedOnes;
        return;
    }
    if (number == 7)
        c.dr7 = (value & dr7::kWritable) | dr7::kFixedOnes;
    else
        c.dr[number] = value;
    if (breakpoints_enabled(c)) flush_tlb(c, true);  // watched pages must leave the TLB
}

}  // namespace tessera::soft
