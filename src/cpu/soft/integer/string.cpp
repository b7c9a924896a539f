// MOVS CMPS STOS LODS SCAS INS OUTS with and without REP.
//
// A repeated instruction works in pieces of up to a page. After each piece the registers show how far it has
// come, so a fault, an interrupt or another CPU's request can come in between and the instruction is taken up
// again where it was.
#include <algorithm>
#include <limits>
#include <type_traits>

#include "cpu/soft/integer/handlers.h"
#include "cpu/soft/system.h"

namespace tessera::soft {
namespace {

using x86::Mnemonic;

// --- rSI, rDI and rCX, of the address size

[[nodiscard]] u64 address_mask(const Op& op) {
    if ((op.flags & kAddress64) != 0) return ~u64{0};
    return (op.flags & kAddress32) != 0 ? 0xffff'ffff : 0xffff;
}
void set_masked(Vcpu& c, unsigned reg, u64 value, u64 mask) {
    c.reg[reg] = mask == 0xffff ? (c.reg[reg] & ~mask) | (value & mask) : value & mask;
}

// One side of the instruction: where its next element is.
struct Side {
    unsigned reg;  // x86::Rsi or Rdi
    u8 seg;
    Access access;
};
[[nodiscard]] Side source_side(const Op& op) {
    return {x86::Rsi, op.seg, Access::Read};
}
[[nodiscard]] Side read_side() {
    return {x86::Rdi, x86::Es, Access::Read};
}
[[nodiscard]] Side write_side() {
    return {x86::Rdi, x86::Es, Access::Write};
}

[[nodiscard]] u64 side_linear(Vcpu& c, const Op& op, const Side& side, unsigned size) {
    return linear_of(c, side.seg, c.reg[side.reg] & address_mask(op), size, side.access);
}

void advance(Vcpu& c, const Op& op, const Side& side, s64 bytes) {
    const bool down = (c.eflags & x86::eflags::kDf) != 0;
    set_masked(c, side.reg, c.reg[side.reg] + static_cast<u64>(down ? -bytes : bytes), address_mask(op));
}

// The host bytes of the side's next elements: at most *bytes, which is lowered to what is in one page, inside
// the segment and below the wrap of the address. Null: not to be had at once. Raises what the first byte
// would.
[[nodiscard]] u8* side_span(Vcpu& c, const Op& op, const Side& side, u64* bytes) {
    const u64 mask = address_mask(op);
    const u64 offset = c.reg[side.reg] & mask;
    if (mask != ~u64{0}) *bytes = std::min(*bytes, mask - offset + 1);
    if (!c.code64()) {
        const u64 end = side.access == Access::Write ? c.write_end[side.seg] : c.read_end[side.seg];
        if (offset >= end) return nullptr;
        *bytes = std::min(*bytes, end - offset);
    }
    const u64 lin = linear_of(c, side.seg, offset, 1, side.access);
    const TlbEntry& e = tlb_entry(c, lin);
    if ((lin & ~kPageMask) == (side.access == Access::Write ? e.tag_w : e.tag_r)) [[likely]] {
        *bytes = std::min(*bytes, kPageSize - (lin & kPageMask));
        return reinterpret_cast<u8*>(lin + static_cast<u64>(e.addend));
    }
    u64 available = 0;
    u8* host = host_span(c, lin, side.access, side.seg, &available);
    *bytes = std::min(*bytes, available);
    return host;
}

// --- the instructions. once(): one element, all of it or a fault. bulk(): up to `count` elements upwards,
// returns how many (0: none could be done this way). Both leave rCX alone.

template <typename T>
void compare(T a, T b, u16& status) {
    asm("cmp %[b], %[a]" TESSERA_SAVE_FLAGS : "=a"(status) : [a] "r"(a), [b] "r"(b) : "cc");
}

// Copies and fills in pieces of 16, 8, 4, 2 and 1 bytes, each byte once: a second store could undo what
// another CPU has written since. (Up to a page this is as fast as the host's own REP, which takes longer to
// start.)
using Piece = u64 __attribute__((vector_size(16)));

template <typename T>
TESSERA_GUEST_RACES inline void copy_piece(u8*& to, const u8*& from) {
    T value;
    __builtin_memcpy(&value, from, sizeof(T));
    __builtin_memcpy(to, &value, sizeof(T));
    to += sizeof(T);
    from += sizeof(T);
}
template <typename T>
TESSERA_GUEST_RACES inline void fill_piece(u8*& to, const Piece& pattern) {
    __builtin_memcpy(to, &pattern, sizeof(T));
    to += sizeof(T);
}

// Not for a target that begins inside the source.
TESSERA_GUEST_RACES inline void copy_upwards(u8* to, const u8* from, u64 bytes) {
    for (; bytes >= 64; bytes -= 64) {
        copy_piece<Piece>(to, from);
        copy_piece<Piece>(to, from);
        copy_piece<Piece>(to, from);
        copy_piece<Piece>(to, from);
    }
    for (; bytes >= 16; bytes -= 16) copy_piece<Piece>(to, from);
    if ((bytes & 8) != 0) copy_piece<u64>(to, from);
    if ((bytes & 4) != 0) copy_piece<u32>(to, from);
    if ((bytes & 2) != 0) copy_piece<u16>(to, from);
    if ((bytes & 1) != 0) copy_piece<u8>(to, from);
}

// Elements one after the other, as the instruction defines it: what was just written may be read again.
template <typename T>
TESSERA_GUEST_RACES void copy_overlapping(u8* to, const u8* from, u64 count) {
    for (; count != 0; --count) {
        copy_piece<T>(to, from);
        asm volatile("" : : : "memory");
    }
}

template <typename T>
inline void host_move(u8* to, const u8* from, u64 count) {
    const u64 distance = reinterpret_cast<u64>(to) - reinterpret_cast<u64>(from);
    if (distance != 0 && distance < count * sizeof(T)) [[unlikely]]
        copy_overlapping<T>(to, from, count);
    else
        copy_upwards(to, from, count * sizeof(T));
}

template <typename T>
TESSERA_GUEST_RACES inline void host_fill(u8* to, T value, u64 count) {
    constexpr u64 kOnes = ~u64{0} / std::numeric_limits<T>::max();  // 0x0101... for bytes
    const Piece pattern = {value * kOnes, value * kOnes};
    u64 bytes = count * sizeof(T);
    for (; bytes >= 16; bytes -= 16) fill_piece<Piece>(to, pattern);
    if ((bytes & 8) != 0) fill_piece<u64>(to, pattern);
    if ((bytes & 4) != 0) fill_piece<u32>(to, pattern);
    if ((bytes & 2) != 0) fill_piece<u16>(to, pattern);
    if ((bytes & 1) != 0) fill_piece<u8>(to, pattern);
}

struct Movs {
    static constexpr bool kCompares = false;
    template <typename T>
    static void once(Vcpu& c, const Op& op, u16&) {
        const Side from = source_side(op);
        const Side to = write_side();
        const T value = load<T>(c, side_linear(c, op, from, sizeof(T)), from.seg);
        store<T>(c, side_linear(c, op, to, sizeof(T)), value, to.seg);
        advance(c, op, from, sizeof(T));
        advance(c, op, to, sizeof(T));
    }
    template <typename T>
    static u64 bulk(Vcpu& c, const Op& op, u64 count, u16&) {
        const Side from = source_side(op);
        const Side to = write_side();
        u64 bytes = std::min(count, kPageSize) * sizeof(T);
        const u8* source = side_span(c, op, from, &bytes);
        if (source == nullptr || bytes < sizeof(T)) return 0;
        u8* target = side_span(c, op, to, &bytes);
        const u64 n = bytes / sizeof(T);
        if (target == nullptr || n == 0) return 0;
        host_move<T>(target, source, n);
        advance(c, op, from, static_cast<s64>(n * sizeof(T)));
        advance(c, op, to, static_cast<s64>(n * sizeof(T)));
        return n;
    }
};

struct Stos {
    static constexpr bool kCompares = false;
    template <typename T>
    static void once(Vcpu& c, const Op& op, u16&) {
        const Side to = write_side();
        store<T>(c, side_linear(c, op, to, sizeof(T)), get_gpr<T>(c, 8 * x86::Rax), to.seg);
        advance(c, op, to, sizeof(T));
    }
    template <typename T>
    static u64 bulk(Vcpu& c, const Op& op, u64 count, u16&) {
        const Side to = write_side();
        u64 bytes = std::min(count, kPageSize) * sizeof(T);
        u8* target = side_span(c, op, to, &bytes);
        const u64 n = bytes / sizeof(T);
        if (target == nullptr || n == 0) return 0;
        host_fill<T>(target, get_gpr<T>(c, 8 * x86::Rax), n);
        advance(c, op, to, static_cast<s64>(n * sizeof(T)));
        return n;
    }
};

struct Lods {
    static constexpr bool kCompares = false;
    template <typename T>
    static void once(Vcpu& c, const Op& op, u16&) {
        const Side from = source_side(op);
        set_gpr<T>(c, 8 * x86::Rax, load<T>(c, side_linear(c, op, from, sizeof(T)), from.seg));
        advance(c, op, from, sizeof(T));
    }
    template <typename T>
    static u64 bulk(Vcpu& c, const Op& op, u64 count, u16&) {
        const Side from = source_side(op);
        u64 bytes = std::min(count, kPageSize) * sizeof(T);
        const u8* source = side_span(c, op, from, &bytes);
        const u64 n = bytes / sizeof(T);
        if (source == nullptr || n == 0) return 0;
        set_gpr<T>(c, 8 * x86::Rax, host_load<T>(reinterpret_cast<u64>(source) + (n - 1) * sizeof(T)));
        advance(c, op, from, static_cast<s64>(n * sizeof(T)));
        return n;
    }
};

// How many of n elements are compared until one pair's equality is not `go_on` (that one counts).
template <typename T, typename First>
TESSERA_GUEST_RACES [[nodiscard]] u64 compare_run(First first, const u8* second, u64 n, bool go_on) {
    u64 i = 0;
    while (i < n && (first(i) == host_load<T>(reinterpret_cast<u64>(second) + i * sizeof(T))) == go_on) ++i;
    return std::min(i + 1, n);
}

// ES:rDI is read first: it decides which fault comes of two (seen on AMD processors).
struct Cmps {
    static constexpr bool kCompares = true;
    template <typename T>
    static void once(Vcpu& c, const Op& op, u16& status) {
        const Side first = source_side(op);
        const Side second = read_side();
        const T b = load<T>(c, side_linear(c, op, second, sizeof(T)), second.seg);
        const T a = load<T>(c, side_linear(c, op, first, sizeof(T)), first.seg);
        compare<T>(a, b, status);
        advance(c, op, first, sizeof(T));
        advance(c, op, second, sizeof(T));
    }
    template <typename T>
    static u64 bulk(Vcpu& c, const Op& op, u64 count, u16& status) {
        const Side first = source_side(op);
        const Side second = read_side();
        u64 bytes = std::min(count, kPageSize) * sizeof(T);
        const u8* b = side_span(c, op, second, &bytes);
        if (b == nullptr || bytes < sizeof(T)) return 0;
        const u8* a = side_span(c, op, first, &bytes);
        u64 n = bytes / sizeof(T);
        if (a == nullptr || n == 0) return 0;
        const auto at = [a](u64 i) { return host_load<T>(reinterpret_cast<u64>(a) + i * sizeof(T)); };
        n = compare_run<T>(at, b, n, (op.flags & kRep) != 0);
        compare<T>(at(n - 1), host_load<T>(reinterpret_cast<u64>(b) + (n - 1) * sizeof(T)), status);
        advance(c, op, first, static_cast<s64>(n * sizeof(T)));
        advance(c, op, second, static_cast<s64>(n * sizeof(T)));
        return n;
    }
};

struct Scas {
    static constexpr bool kCompares = true;
    template <typename T>
    static void once(Vcpu& c, const Op& op, u16& status) {
        const Side side = read_side();
        compare<T>(get_gpr<T>(c, 8 * x86::Rax), load<T>(c, side_linear(c, op, side, sizeof(T)), side.seg),
                   status);
        advance(c, op, side, sizeof(T));
    }
    template <typename T>
    static u64 bulk(Vcpu& c, const Op& op, u64 count, u16& status) {
        const Side side = read_side();
        u64 bytes = std::min(count, kPageSize) * sizeof(T);
        const u8* b = side_span(c, op, side, &bytes);
        u64 n = bytes / sizeof(T);
        if (b == nullptr || n == 0) return 0;
        const T a = get_gpr<T>(c, 8 * x86::Rax);
        n = compare_run<T>([a](u64) { return a; }, b, n, (op.flags & kRep) != 0);
        compare<T>(a, host_load<T>(reinterpret_cast<u64>(b) + (n - 1) * sizeof(T)), status);
        advance(c, op, side, static_cast<s64>(n * sizeof(T)));
        return n;
    }
};

// INS and OUTS go element by element: each is an access to a device. Memory is checked before the port is
// read, since that cannot be taken back.
struct Ins {
    static constexpr bool kCompares = false;
    template <typename T>
    static void once(Vcpu& c, const Op& op, u16&) {
        const u16 port = get_gpr<u16>(c, 8 * x86::Rdx);
        check_io(c, port, sizeof(T));
        const Side to = write_side();
        const u64 lin = side_linear(c, op, to, sizeof(T));
        probe(c, lin, sizeof(T), Access::Write, to.seg);
        store<T>(c, lin, static_cast<T>(port_in(c, port, sizeof(T))), to.seg);
        advance(c, op, to, sizeof(T));
    }
    template <typename T>
    static u64 bulk(Vcpu&, const Op&, u64, u16&) {
        return 0;
    }
};

struct Outs {
    static constexpr bool kCompares = false;
    template <typename T>
    static void once(Vcpu& c, const Op& op, u16&) {
        const u16 port = get_gpr<u16>(c, 8 * x86::Rdx);
        check_io(c, port, sizeof(T));
        const Side from = source_side(op);
        port_out(c, port, sizeof(T), load<T>(c, side_linear(c, op, from, sizeof(T)), from.seg));
        advance(c, op, from, sizeof(T));
    }
    template <typename T>
    static u64 bulk(Vcpu&, const Op&, u64, u16&) {
        return 0;
    }
};

// --- repetition

enum class Progress : u8 { Done, Interrupted };

// A fault in the middle of REP CMPS or SCAS finds the flags of the last comparison, as on AMD processors
// (Intel's put back those from before [SDM 2B REP]).
template <typename I, typename T>
[[gnu::noinline]] Progress repeat(Vcpu& c, const Op& op) {
    const u64 mask = address_mask(op);
    const bool up = (c.eflags & x86::eflags::kDf) == 0;
    const bool by_one = (c.eflags & x86::eflags::kTf) != 0;  // the trap comes after each element
    u16 status = c.status;
    u64 count = c.reg[x86::Rcx] & mask;
    while (count != 0) {
        u64 done = up && !by_one ? I::template bulk<T>(c, op, count, status) : 0;
        if (done == 0) {
            I::template once<T>(c, op, status);
            done = 1;
        }
        count -= done;
        c.status = status;
        set_masked(c, x86::Rcx, count, mask);
        if constexpr (I::kCompares) {
            if (((status & kStatusZf) != 0) != ((op.flags & kRep) != 0)) break;
        }
        if (count == 0) break;
        if (by_one || (c.attention.load(std::memory_order_relaxed) & ~u32{kAttendSingle}) != 0)
            return Progress::Interrupted;
    }
    return Progress::Done;
}

template <typename I, typename T>
[[gnu::noinline]] void run_once(Vcpu& c, const Op& op) {
    u16 status = c.status;
    I::template once<T>(c, op, status);
    c.status = status;
}

// Interrupted: back to the dispatcher, which comes here again after it has seen to what is wanted. RF, so
// that events save it and an instruction breakpoint here is not reported twice [SDM 3B 17.3.1.1].
template <typename I, typename T>
TESSERA_HANDLER void string_repeated(Vcpu& c, const Op* op) {
    c.cur = op;
    if (repeat<I, T>(c, *op) == Progress::Done) [[likely]]
        TESSERA_NEXT(c, op);
    c.rip = insn_rip(c, *op);
    c.eflags |= x86::eflags::kRf;
    c.instructions += op->n - 1;
}

// --- REP MOVS and REP STOS as most often met: flat addresses, upwards, all in pages the TLB has. Else, all
// the rest.

// The TLB's host address for [lin, +bytes), if those lie in one page.
template <Access A>
[[nodiscard, gnu::always_inline]] inline bool span_hit(Vcpu& c, u64 lin, u64 bytes, u64* host) {
    const TlbEntry& e = tlb_entry(c, lin);
    *host = lin + static_cast<u64>(e.addend);
    return ((lin + (bytes - 1)) & ~kPageMask) == (A == Access::Write ? e.tag_w : e.tag_r) &&
           (lin & ~kPageMask) == ((lin + (bytes - 1)) & ~kPageMask);
}

[[nodiscard]] inline bool is_plain_repeat(const Vcpu& c, u64 count, unsigned size) {
    return count - 1 < kPageSize / size && (c.eflags & (x86::eflags::kDf | x86::eflags::kTf)) == 0;
}

template <typename T>
TESSERA_HANDLER void movs_repeated_flat(Vcpu& c, const Op* op) {
    const u64 count = c.reg[x86::Rcx];
    const u64 bytes = count * sizeof(T);
    u64 from = 0;
    u64 to = 0;
    if (!is_plain_repeat(c, count, sizeof(T)) || !span_hit<Access::Read>(c, c.reg[x86::Rsi], bytes, &from) ||
        !span_hit<Access::Write>(c, c.reg[x86::Rdi], bytes, &to))
        TESSERA_MUSTTAIL return string_repeated<Movs, T>(c, op);
    host_move<T>(reinterpret_cast<u8*>(to), reinterpret_cast<const u8*>(from), count);
    c.reg[x86::Rcx] = 0;
    c.reg[x86::Rsi] += bytes;
    c.reg[x86::Rdi] += bytes;
    TESSERA_NEXT(c, op);
}

template <typename T>
TESSERA_HANDLER void stos_repeated_flat(Vcpu& c, const Op* op) {
    const u64 count = c.reg[x86::Rcx];
    const u64 bytes = count * sizeof(T);
    u64 to = 0;
    if (!is_plain_repeat(c, count, sizeof(T)) || !span_hit<Access::Write>(c, c.reg[x86::Rdi], bytes, &to))
        TESSERA_MUSTTAIL return string_repeated<Stos, T>(c, op);
    host_fill<T>(reinterpret_cast<u8*>(to), get_gpr<T>(c, 8 * x86::Rax), count);
    c.reg[x86::Rcx] = 0;
    c.reg[x86::Rdi] += bytes;
    TESSERA_NEXT(c, op);
}

template <typename I>
bool lower_one(const x86::Insn& in, Op& op) {
    op.seg = in.segment;
    if ((op.flags & (kRep | kRepne)) != 0) {
        if constexpr (std::is_same_v<I, Movs>) {
            if (is_flat64(op)) return use(op, TESSERA_SIZED(in.operand_size, movs_repeated_flat<T>));
        }
        if constexpr (std::is_same_v<I, Stos>) {
            if (is_flat64(op)) return use(op, TESSERA_SIZED(in.operand_size, stos_repeated_flat<T>));
        }
        return use(op, TESSERA_SIZED(in.operand_size, string_repeated<I, T>));
    }
    return use(op, TESSERA_SIZED(in.operand_size, continue_with<run_once<I, T>>));
}

// Ports have no 64-bit width.
template <typename I>
bool lower_port(const x86::Insn& in, Op& op) {
    op.seg = in.segment;
    const bool repeated = (op.flags & (kRep | kRepne)) != 0;
    switch (in.operand_size) {
        case 1: return use(op, repeated ? string_repeated<I, u8> : continue_with<run_once<I, u8>>);
        case 2: return use(op, repeated ? string_repeated<I, u16> : continue_with<run_once<I, u16>>);
        default: return use(op, repeated ? string_repeated<I, u32> : continue_with<run_once<I, u32>>);
    }
}

}  // namespace

bool lower_string(const x86::Insn& in, Op& op, bool* /*ends_block*/) {
    switch (in.mnemonic) {
        case Mnemonic::Movs: return lower_one<Movs>(in, op);
        case Mnemonic::Cmps: return lower_one<Cmps>(in, op);
        case Mnemonic::Stos: return lower_one<Stos>(in, op);
        case Mnemonic::Lods: return lower_one<Lods>(in, op);
        case Mnemonic::Scas: return lower_one<Scas>(in, op);
        case Mnemonic::Ins: return lower_port<Ins>(in, op);
        case Mnemonic::Outs: return lower_port<Outs>(in, op);
        default: return false;
    }
}

}  // namespace tessera::soft
