// Segment registers: descriptors, loads, limits, and what the hot path derives from them.
#include "cpu/soft/segment.h"

#include <algorithm>

#include "cpu/soft/system.h"
#include "cpu/soft/x86_names.h"

namespace tessera::soft {

namespace {

constexpr u32 kRealRights = rights::kPresent | rights::kS | rights::kWritable | rights::kAccessed;
constexpr u32 kVirtualRights = kRealRights | (3 << rights::kDplShift);

[[nodiscard]] bool real_or_virtual(const Vcpu& c) {
    return !c.protected_mode() || c.v8086();
}

// [SDM 3A 5.3] An expand-down segment allows what lies above its limit, up to 64 KiB or 4 GiB.
[[nodiscard]] bool within_limit(const Segment& s, u64 offset, unsigned size) {
    const u64 last = offset + (size - 1);
    const bool expand_down = (s.rights & (rights::kCode | rights::kExpandDown)) == rights::kExpandDown;
    if (!expand_down) return last <= s.limit;
    return offset > s.limit && last <= ((s.rights & rights::kDb) != 0 ? 0xffff'ffff : 0xffff);
}

[[nodiscard]] bool allows(const Segment& s, Access access) {
    if ((s.rights & rights::kUnusable) != 0) return false;
    const bool code = (s.rights & rights::kCode) != 0;
    switch (access) {
        case Access::Read: return !code || (s.rights & rights::kReadable) != 0;
        case Access::Write: return !code && (s.rights & rights::kWritable) != 0;
        case Access::Execute: return code;
    }
    return false;
}

}  // namespace

u32 external_bit(const Vcpu& c) {
    if (!c.delivering) return 0;
    return c.delivering_kind == EventKind::SoftwareInterrupt ||
                   c.delivering_kind == EventKind::SoftwareException
               ? 0
               : 1;
}

void raise_selector(Vcpu& c, u8 vector, u16 selector) {
    raise_error(c, vector, (selector & 0xfffcu) | external_bit(c));
}

u64 segment_check(Vcpu& c, u8 seg, u64 offset, unsigned size, Access access) {
    const Segment& s = c.seg[seg];
    const bool allowed = real_or_virtual(c) || allows(s, access);
    if (!allowed || !within_limit(s, offset, size)) raise_error(c, seg == Ss ? kSs : kGp, 0);
    return static_cast<u32>(s.base + offset);
}

u64 linear_slow(Vcpu& c, const Op& op, unsigned size, Access access) {
    return linear_of(c, op.seg, effective_address(c, op), size, access);
}

namespace {

bool is_flat32(const Vcpu& c) {
    constexpr u64 kWhole = u64{1} << 32;
    if (c.code_size != CodeSize::Bits32 || c.sp_mask != 0xffff'ffff || c.code_end < kWhole ||
        c.seg_base[Cs] != 0)
        return false;
    return std::ranges::all_of(std::array{Es, Ss, Ds}, [&](Seg seg) {
        return c.seg_base[seg] == 0 && c.read_end[seg] >= kWhole && c.write_end[seg] >= kWhole;
    });
}

}  // namespace

void update_segments(Vcpu& c) {
    const bool real = real_or_virtual(c);
    c.cpl = static_cast<u8>(!c.protected_mode() ? 0
                            : c.v8086()         ? 3
                                                : (c.seg[Ss].rights & rights::kDpl) >> rights::kDplShift);
    const u32 cs = c.seg[Cs].rights;
    if (c.long_mode() && (cs & rights::kLong) != 0)
        c.code_size = CodeSize::Bits64;
    else
        c.code_size = (cs & rights::kDb) != 0 ? CodeSize::Bits32 : CodeSize::Bits16;
    const bool wide = c.code_size == CodeSize::Bits64;
    c.sp_mask = wide ? ~u64{0} : (c.seg[Ss].rights & rights::kDb) != 0 ? 0xffff'ffff : 0xffff;
    c.code_end = u64{c.seg[Cs].limit} + 1;
    for (unsigned i = 0; i < 6; ++i) {
        const Segment& s = c.seg[i];
        c.seg_base[i] = wide && i != Fs && i != Gs ? 0 : s.base;
        const bool expand_down = (s.rights & (rights::kCode | rights::kExpandDown)) == rights::kExpandDown;
        const u64 end = expand_down ? 0 : u64{s.limit} + 1;
        c.read_end[i] = real || allows(s, Access::Read) ? end : 0;
        c.write_end[i] = real || allows(s, Access::Write) ? end : 0;
    }
    c.flat32 = is_flat32(c);
    update_tlb_set(c);
}

// --- descriptors

bool read_descriptor(Vcpu& c, u16 selector, Descriptor& out) {
    const u32 offset = selector & 0xfff8u;
    const bool local = (selector & 4) != 0;
    if (local && (c.ldtr.rights & rights::kUnusable) != 0) return false;
    const u64 base = local ? c.ldtr.base : c.gdtr.base;
    const u32 limit = local ? c.ldtr.limit : c.gdtr.limit;
    if (offset + 7 > limit) return false;
    out.address = base + offset;
    out.raw = load_system(c, out.address, 8);
    return true;
}

bool fits_upper_half(const Vcpu& c, u16 selector) {
    const u32 limit = (selector & 4) != 0 ? c.ldtr.limit : c.gdtr.limit;
    return (selector & 0xfff8u) + 15 <= limit;
}
u64 read_descriptor_upper(Vcpu& c, const Descriptor& d) {
    return load_system(c, d.address + 8, 8);
}

void mark_accessed(Vcpu& c, Descriptor& d) {
    if (d.accessed()) return;
    change_system_byte(c, d.address + 5, 0xff, 1);
    d.raw |= u64{1} << 40;
}

Segment segment_of(u16 selector, const Descriptor& d) {
    return {.selector = selector, .base = d.base(), .limit = d.limit(), .rights = d.access_rights()};
}

Segment system_segment_of(Vcpu& c, u16 selector, const Descriptor& d) {
    Segment s = segment_of(selector, d);
    if (c.long_mode()) s.base |= read_descriptor_upper(c, d) << 32;
    return s;
}

void set_code_segment(Vcpu& c, u16 selector, Descriptor& d, unsigned cpl) {
    mark_accessed(c, d);
    c.seg[Cs] = segment_of(static_cast<u16>((selector & ~3) | cpl), d);
}

void set_real_segment(Vcpu& c, Seg seg, u16 selector) {
    Segment& s = c.seg[seg];
    s.selector = selector;
    s.base = u64{selector} << 4;
    if (c.v8086()) {
        s.limit = 0xffff;
        s.rights = kVirtualRights;
        return;
    }
    // Limit, B/D and G stay as they are: that is what "unreal mode" lives on.
    s.rights =
        (s.rights & (rights::kDb | rights::kGranularity)) | kRealRights | (seg == Cs ? rights::kCode : 0);
}

Segment null_segment(u16 selector) {
    return {.selector = selector, .rights = rights::kUnusable};
}

Segment null_stack_segment(u16 selector, unsigned cpl) {
    return {.selector = selector, .rights = rights::kUnusable | (cpl << rights::kDplShift)};
}

Segment checked_stack_segment(Vcpu& c, u16 selector, unsigned cpl, u8 vector) {
    if (is_null(selector)) raise_selector(c, vector, 0);
    Descriptor d;
    if (!read_descriptor(c, selector, d) || rpl_of(selector) != cpl || !d.is_writable() || d.dpl() != cpl)
        raise_selector(c, vector, selector);
    if (!d.present()) raise_selector(c, kSs, selector);
    mark_accessed(c, d);
    return segment_of(selector, d);
}

namespace {

void load_stack_segment(Vcpu& c, u16 selector) {
    if (is_null(selector)) {
        // [APM 2 4.5.1] Only 64-bit code above CPL 3 may run with a null SS.
        if (!c.code64() || c.cpl == 3 || rpl_of(selector) != c.cpl) raise_selector(c, kGp, 0);
        c.seg[Ss] = null_stack_segment(selector, c.cpl);
    } else {
        c.seg[Ss] = checked_stack_segment(c, selector, c.cpl, kGp);
    }
}

void load_data_segment(Vcpu& c, Seg seg, u16 selector) {
    if (is_null(selector)) {
        c.seg[seg] = null_segment(selector);  // clears the base too: CPUID 0x80000021 EAX[6]
        return;
    }
    Descriptor d;
    if (!read_descriptor(c, selector, d) || d.is_system() || !d.is_readable())
        raise_selector(c, kGp, selector);
    if (!d.is_conforming() && (rpl_of(selector) > d.dpl() || c.cpl > d.dpl()))
        raise_selector(c, kGp, selector);
    if (!d.present()) raise_selector(c, kNp, selector);
    mark_accessed(c, d);
    c.seg[seg] = segment_of(selector, d);
}

}  // namespace

void load_segment(Vcpu& c, Seg seg, u16 selector) {
    if (real_or_virtual(c))
        set_real_segment(c, seg, selector);
    else if (seg == Ss)
        load_stack_segment(c, selector);
    else
        load_data_segment(c, seg, selector);
    update_segments(c);
    if (!c.code64() && !c.flat32) c.jit_stale = true;
}

void drop_inner_segments(Vcpu& c) {
    for (const Seg seg : {Es, Ds, Fs, Gs}) {
        Segment& s = c.seg[seg];
        if ((s.rights & rights::kUnusable) != 0) continue;
        const bool conforming =
            (s.rights & (rights::kCode | rights::kConforming)) == (rights::kCode | rights::kConforming);
        const unsigned dpl = (s.rights & rights::kDpl) >> rights::kDplShift;
        if (!conforming && dpl < c.cpl) s = null_segment(0);
    }
}

}  // namespace tessera::soft
