// Availability of MMX and vector instructions, and their unmasked floating-point exceptions.
#include "cpu/soft/fp/vector_access.h"

#include <bit>
#include <cstring>

#include "cpu/soft/fp/range.h"
#include "cpu/soft/fp/vector_float.h"

namespace tessera::soft {

namespace {

using x86::Mnemonic;

constexpr u32 kPreComputation = 0x7;  // IE DE ZE
constexpr u32 kUnderflow = 0x10;
constexpr u32 kOverflow = 0x08, kPrecision = 0x20;
constexpr u32 kUnderflowMask = kUnderflow << 7;
constexpr u32 kFlushToZero = 1 << 15;

const Row* row_among(std::span<const Row> rows, u64 fn) {
    for (const Row& row : rows) {
        const u64 size = (row.flags & kRowImm) != 0 ? 256 * kImmStride : 1;
        if (fn - reinterpret_cast<u64>(row.fn128) < size || fn - reinterpret_cast<u64>(row.fn256) < size)
            return &row;
    }
    return nullptr;
}

const Row* float_row_of(u64 fn) {
    const Row* row = row_among(float_rows(), fn);
    if (row == nullptr) row = row_among(immediate_rows(), fn);
    return row != nullptr && (row->flags & kRowFloat) != 0 ? row : nullptr;
}

// Elements of T among `bytes` that are denormal and not zero.
template <typename T>
bool any_denormal(const u8* values, unsigned bytes, unsigned fraction_bits) {
    for (unsigned i = 0; i < bytes; i += sizeof(T)) {
        T v = 0;
        std::memcpy(&v, values + i, sizeof(T));
        const T magnitude = static_cast<T>(v << 1) >> 1;
        if (magnitude != 0 && (magnitude >> fraction_bits) == 0) return true;
    }
    return false;
}

bool has_tiny(const u8* result, unsigned bytes, u16 flags) {
    const bool scalar = (flags & kRowScalar) != 0;
    if ((flags & kRowTiny32) != 0) return any_denormal<u32>(result, scalar ? 4 : bytes, 23);
    if ((flags & kRowTiny64) != 0) return any_denormal<u64>(result, scalar ? 8 : bytes, 52);
    if ((flags & kRowTiny16) != 0) return any_denormal<u16>(result, bytes / 2, 10);
    return false;
}

}  // namespace

void check_available(Vcpu& c, u16 traps) {
    if ((c.fp_traps & traps) == 0) [[likely]]
        return;
    const bool em = (c.cr0 & x86::cr0::kEm) != 0;
    if ((traps & kTrapSse) != 0 && (em || (c.cr4 & x86::cr4::kOsfxsr) == 0)) raise_ud(c);
    if ((traps & kTrapAvx) != 0 && !avx_offered(c)) raise_ud(c);
    if ((traps & kTrapMmx) != 0 && em) raise_ud(c);
    raise(c, x86::kNm);
}

void begin_unmasked(Vcpu& c) {
    sync_mxcsr(c);
    u32 value = (c.mxcsr | kMxcsrMasks) & ~kMxcsrFlags;
    // With underflow unmasked a tiny result is reported, not flushed [SDM 1 10.2.3.3].
    if ((c.mxcsr & kUnderflowMask) == 0) value &= ~kFlushToZero;
    set_host_mxcsr(value);
}

namespace {

void finish(Vcpu& c, u32 raised, bool tiny) {
    const u32 masks = (c.mxcsr >> 7) & kMxcsrFlags;
    if (tiny && (c.mxcsr & kUnderflowMask) == 0) raised |= kUnderflow;
    // An unmasked exception of the operands keeps the result from being computed [SDM 1 11.5.3.2].
    if ((raised & ~masks & kPreComputation) != 0) raised &= kPreComputation;
    c.mxcsr |= raised;
    load_mxcsr(c);
    if ((raised & ~masks) == 0) return;
    if ((c.cr4 & x86::cr4::kOsxmmexcpt) == 0) raise_ud(c);
    raise(c, x86::kXm);
}

void run_row(Vcpu& c, const Row& row, VectorFn fn, u8* result, const void* a, const void* b, Form form) {
    alignas(32) std::array<u8, 32> before{};
    std::memcpy(before.data(), result, before.size());
    begin_unmasked(c);
    fn(result, a, b);
    u32 raised = host_mxcsr() & kMxcsrFlags;
    const bool tiny = has_tiny(result, form == Form::Vex256 ? 32 : 16, row.flags);
    const u32 out_of_range = (raised | (tiny ? kUnderflow : 0)) & (kUnderflow | kOverflow) & ~(c.mxcsr >> 7);
    if (out_of_range != 0 && (raised & kPrecision) != 0) {
        const Operands operands{before.data(), a, b, result};
        if (!inexact_without_limits(row, fn, operands, form == Form::Vex256, c.mxcsr)) raised &= ~kPrecision;
    }
    finish(c, raised, tiny);
}

template <typename T>
T lane(const void* from, unsigned i) {
    T value = 0;
    std::memcpy(&value, static_cast<const u8*>(from) + i * sizeof(T), sizeof(T));
    return value;
}

// DPPS and DPPD. Each of their steps, in both halves, looks for unmasked exceptions before the next begins.
template <typename T>
void run_dot_product(Vcpu& c, u8 imm, u8* d, const void* a, const void* b, Form form) {
    constexpr bool kSingle = sizeof(T) == 4;
    constexpr unsigned kLanes = 16 / sizeof(T);  // in a half
    const bool wide = form == Form::Vex256;
    const unsigned halves = wide ? 2 : 1;
    const u64 multiply = reinterpret_cast<u64>(
        kSingle ? (wide ? row256<vec::Vmulps> : row128<vec::Vmulps>) : row128<vec::Vmulpd>);
    const u64 add = reinterpret_cast<u64>(
        kSingle ? (wide ? row256<vec::Vaddps> : row128<vec::Vaddps>) : row128<vec::Vaddpd>);
    using Lanes = std::array<T, 2 * kLanes>;
    const auto step = [&](u64 fn, const Lanes& x, const Lanes& y) {
        alignas(32) std::array<u8, 32> out{};
        run_row(c, *float_row_of(fn), std::bit_cast<VectorFn>(fn), out.data(), x.data(), y.data(), form);
        Lanes sum{};
        std::memcpy(sum.data(), out.data(), sizeof(sum));
        return sum;
    };
    Lanes x{}, y{};
    for (unsigned i = 0; i < halves * kLanes; ++i)
        if ((imm >> (4 + i % kLanes) & 1) != 0) x[i] = lane<T>(a, i), y[i] = lane<T>(b, i);
    Lanes sum = step(multiply, x, y);
    for (unsigned n = kLanes; n > 1; n /= 2) {
        x = y = {};
        for (unsigned h = 0; h < halves * kLanes; h += kLanes)
            for (unsigned i = 0; i < n / 2; ++i) x[h + i] = sum[h + i * 2], y[h + i] = sum[h + i * 2 + 1];
        sum = step(add, x, y);
    }
    Lanes result{};
    for (unsigned i = 0; i < halves * kLanes; ++i)
        if ((imm >> (i % kLanes) & 1) != 0) result[i] = sum[i / kLanes * kLanes];
    std::memcpy(d, result.data(), halves * 16);
}

}  // namespace

void finish_unmasked(Vcpu& c, bool tiny) {
    finish(c, host_mxcsr() & kMxcsrFlags, tiny);
}

void run_unmasked(Vcpu& c, u64 fn, void* d, const void* a, const void* b, Form form) {
    alignas(32) std::array<u8, 32> result{};
    std::memcpy(result.data(), d, result.size());
    const auto call = std::bit_cast<VectorFn>(fn);
    const Row* row = float_row_of(fn);
    if (row == nullptr) {
        call(result.data(), a, b);
    } else if (row->legacy == Mnemonic::Dpps || row->legacy == Mnemonic::Dppd) {
        const u64 first = reinterpret_cast<u64>(form == Form::Vex256 ? row->fn256 : row->fn128);
        const u8 imm = static_cast<u8>((fn - first) / kImmStride);
        row->legacy == Mnemonic::Dpps ? run_dot_product<u32>(c, imm, result.data(), a, b, form)
                                      : run_dot_product<u64>(c, imm, result.data(), a, b, form);
    } else {
        run_row(c, *row, call, result.data(), a, b, form);
    }
    if (form == Form::Vex128) std::memset(result.data() + 16, 0, 16);
    std::memcpy(d, result.data(), form == Form::Legacy ? 16 : 32);
}

}  // namespace tessera::soft
