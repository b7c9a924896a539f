// Guest memory access of the interpreter: effective addresses, segment checks, the inline TLB path.
// Slow paths (page walks, page crossings, MMIO, decoded code, watchpoints) are in mmu.cpp.
//
// All of these raise the guest's fault and do not return if the access is not allowed. `seg` (x86::Seg) only
// chooses #SS instead of #GP for a non-canonical address.
#pragma once

#include <cstring>

#include "cpu/soft/vcpu.h"

#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define TESSERA_GUEST_RACES __attribute__((no_sanitize("thread")))
#endif
#endif
#ifndef TESSERA_GUEST_RACES
#define TESSERA_GUEST_RACES
#endif

namespace tessera::soft {

enum class Access : u8 { Read, Write, Execute };

// --- addresses

// The offset before it is cut to the address size.
[[nodiscard, gnu::always_inline]] inline u64 uncut_address(const Vcpu& c, const Op& op) {
    return c.reg[op.base] + (c.reg[op.index] << op.scale) + static_cast<u64>(static_cast<s64>(op.disp));
}
// The offset, cut to the address size.
[[nodiscard]] inline u64 effective_address(const Vcpu& c, const Op& op) {
    const u64 ea = uncut_address(c, op);
    if ((op.flags & kAddress64) != 0) [[likely]]
        return ea;
    return (op.flags & kAddress32) != 0 ? static_cast<u32>(ea) : static_cast<u16>(ea);
}

// Full check of a segmented access (expand-down, null, read-only, limits) in other than 64-bit mode: raises
// #GP(0), or #SS(0) for SS. Returns the linear address. In segment.cpp.
u64 segment_check(Vcpu& c, u8 seg, u64 offset, unsigned size, Access access);

// Linear address of [seg:offset, +size).
[[nodiscard, gnu::always_inline]] inline u64 linear_of(Vcpu& c, u8 seg, u64 offset, unsigned size,
                                                       Access access) {
    if (c.code64()) [[likely]]
        return offset + c.seg_base[seg];
    const u64 end = access == Access::Write ? c.write_end[seg] : c.read_end[seg];
    if (offset + size <= end) [[likely]]
        return static_cast<u32>(c.seg_base[seg] + offset);
    return segment_check(c, seg, offset, size, access);
}
// The same for an op's memory operand where neither of the usual cases applies. In segment.cpp.
u64 linear_slow(Vcpu& c, const Op& op, unsigned size, Access access);

// Whether the op's memory operand has a 32-bit address in other than 64-bit code.
[[nodiscard]] inline bool has_segmented32_address(const Op& op) {
    return (op.flags & (kAddress32 | kLongMode)) == kAddress32;
}
// Its linear address, if the offset is below what the segment's limit surely allows.
[[nodiscard, gnu::always_inline]] inline bool segmented32_hit(const Vcpu& c, const Op& op, unsigned size,
                                                              Access access, u64* lin) {
    const u64 offset = static_cast<u32>(uncut_address(c, op));
    const u64 end = access == Access::Write ? c.write_end[op.seg] : c.read_end[op.seg];
    *lin = static_cast<u32>(c.seg_base[op.seg] + offset);
    return offset + size <= end;
}

// Linear address of the op's memory operand.
[[nodiscard]] inline u64 linear(Vcpu& c, const Op& op, unsigned size, Access access) {
    if ((op.flags & kAddress64) != 0) [[likely]]
        return uncut_address(c, op) + c.seg_base[op.seg];
    u64 lin = 0;
    if (has_segmented32_address(op) && segmented32_hit(c, op, size, access, &lin)) return lin;
    return linear_slow(c, op, size, access);
}

// --- slow paths (mmu.cpp)

u64 load_slow(Vcpu& c, u64 lin, unsigned size, u8 seg);
void store_slow(Vcpu& c, u64 lin, unsigned size, u64 value, u8 seg);
void load_bytes_slow(Vcpu& c, u64 lin, void* out, unsigned size, u8 seg);
void store_bytes_slow(Vcpu& c, u64 lin, const void* in, unsigned size, u8 seg);
void* rmw_begin_slow(Vcpu& c, u64 lin, unsigned size, u8 seg, bool locked);
void rmw_end_slow(Vcpu& c);

// As the processor itself accesses GDT, LDT, IDT, TSS and new stacks: with supervisor rights at any CPL.
u64 load_system(Vcpu& c, u64 lin, unsigned size);
void store_system(Vcpu& c, u64 lin, unsigned size, u64 value);

// Raises what the access would raise, and does nothing else (sets A/D bits). Any size up to a page.
void probe(Vcpu& c, u64 lin, unsigned size, Access access, u8 seg);
// The host bytes behind lin, up to the end of its page (`*available`), if that is plain RAM (for writes:
// without decoded code); null if it must be done piecewise through load/store. Raises like probe for 1 byte.
u8* host_span(Vcpu& c, u64 lin, Access access, u8 seg, u64* available);

// --- fast paths. The index comes from the first byte and the compare from the last: an access that crosses
// its page never matches.

[[nodiscard]] inline TlbEntry& tlb_entry(Vcpu& c, u64 lin) {
    return c.tlb[(lin >> 12) & (kTlbEntries - 1)];
}

template <typename T>
TESSERA_GUEST_RACES [[nodiscard]] inline T load(Vcpu& c, u64 lin, u8 seg) {
    static_assert(sizeof(T) <= 8);
    const TlbEntry& e = tlb_entry(c, lin);
    if (((lin + (sizeof(T) - 1)) & ~kPageMask) == e.tag_r) [[likely]] {
        T value;
        __builtin_memcpy(&value, reinterpret_cast<const void*>(lin + static_cast<u64>(e.addend)), sizeof(T));
        return value;
    }
    return static_cast<T>(load_slow(c, lin, sizeof(T), seg));
}

template <typename T>
TESSERA_GUEST_RACES inline void store(Vcpu& c, u64 lin, T value, u8 seg) {
    static_assert(sizeof(T) <= 8);
    const TlbEntry& e = tlb_entry(c, lin);
    if (((lin + (sizeof(T) - 1)) & ~kPageMask) == e.tag_w) [[likely]] {
        __builtin_memcpy(reinterpret_cast<void*>(lin + static_cast<u64>(e.addend)), &value, sizeof(T));
        return;
    }
    store_slow(c, lin, sizeof(T), value, seg);
}

// 10, 16, 32, ... bytes at once. Faults before anything is read or written.
template <unsigned Size>
TESSERA_GUEST_RACES inline void load_bytes(Vcpu& c, u64 lin, void* out, u8 seg) {
    const TlbEntry& e = tlb_entry(c, lin);
    if (((lin + (Size - 1)) & ~kPageMask) == e.tag_r) [[likely]]
        __builtin_memcpy(out, reinterpret_cast<const void*>(lin + static_cast<u64>(e.addend)), Size);
    else
        load_bytes_slow(c, lin, out, Size, seg);
}
template <unsigned Size>
TESSERA_GUEST_RACES inline void store_bytes(Vcpu& c, u64 lin, const void* in, u8 seg) {
    const TlbEntry& e = tlb_entry(c, lin);
    if (((lin + (Size - 1)) & ~kPageMask) == e.tag_w) [[likely]]
        __builtin_memcpy(reinterpret_cast<void*>(lin + static_cast<u64>(e.addend)), in, Size);
    else
        store_bytes_slow(c, lin, in, Size, seg);
}

// Read-modify-write: operate on *rmw_begin, then call rmw_end. Write rights are checked first, so that
// nothing is left half done. With `locked`, a host LOCK instruction on the pointer is atomic against all
// other CPUs; where it would not be (page crossing, MMIO) the other CPUs are stopped until rmw_end.
template <typename T>
[[nodiscard]] inline T* rmw_begin(Vcpu& c, u64 lin, u8 seg, bool locked) {
    const TlbEntry& e = tlb_entry(c, lin);
    if (((lin + (sizeof(T) - 1)) & ~kPageMask) == e.tag_w) [[likely]]
        return reinterpret_cast<T*>(lin + static_cast<u64>(e.addend));
    return static_cast<T*>(rmw_begin_slow(c, lin, sizeof(T), seg, locked));
}
inline void rmw_end(Vcpu& c) {
    if (c.rmw_slow) [[unlikely]]
        rmw_end_slow(c);
}

}  // namespace tessera::soft
