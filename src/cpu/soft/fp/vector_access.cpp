// Availability of MMX and vector instructions, and their unmasked floating-point exceptions.
#include "cpu/soft/fp/vector_access.h"

#include <cstring>

#include "cpu/soft/fp/vector_row.h"

namespace tessera::soft {

namespace {

constexpr u32 kPreComputation = 0x7;  // IE DE ZE
constexpr u32 kUnderflow = 0x10;
constexpr u32 kUnderflowMask = kUnderflow << 7;
constexpr u32 kFlushToZero = 1 << 15;

void set_host_mxcsr(u32 value) {
    asm volatile("ldmxcsr %0" : : "m"(value));
}

u32 host_mxcsr() {
    u32 value = 0;
    asm volatile("stmxcsr %0" : "=m"(value));
    return value;
}

const Row* row_among(std::span<const Row> rows, u64 fn) {
    for (const Row& row : rows) {
        const u64 size = (row.flags & kRowImm) != 0 ? 256 * kImmStride : 1;
        if (fn - reinterpret_cast<u64>(row.fn128) < size || fn - reinterpret_cast<u64>(row.fn256) < size)
            return &row;
    }
    return nullptr;
}

u16 flags_of(u64 fn) {
    const Row* row = row_among(kFloatRows, fn);
    if (row == nullptr) row = row_among(kImmediateRows, fn);
    return row != nullptr ? row->flags : 0;
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

void finish_unmasked(Vcpu& c, bool tiny) {
    u32 raised = host_mxcsr() & kMxcsrFlags;
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

void run_unmasked(Vcpu& c, u64 fn, void* d, const void* a, const void* b, Form form) {
    alignas(32) std::array<u8, 32> result{};
    std::memcpy(result.data(), d, result.size());
    const u16 flags = flags_of(fn);
    const unsigned bytes = form == Form::Vex256 ? 32 : 16;
    if ((flags & kRowFloat) == 0) {
        reinterpret_cast<VectorFn>(fn)(result.data(), a, b);
    } else {
        begin_unmasked(c);
        reinterpret_cast<VectorFn>(fn)(result.data(), a, b);
        finish_unmasked(c, has_tiny(result.data(), bytes, flags));
    }
    if (form == Form::Vex128) std::memset(result.data() + 16, 0, 16);
    std::memcpy(d, result.data(), form == Form::Legacy ? 16 : 32);
}

}  // namespace tessera::soft
