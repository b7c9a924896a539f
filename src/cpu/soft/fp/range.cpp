// Recomputes elements that are out of range with other exponents: the significands alone decide whether a
// result is exact.
#include "cpu/soft/fp/range.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <string_view>

#include "cpu/soft/fp/fp_state.h"

namespace tessera::soft {

namespace {

constexpr u32 kPrecision = 0x20;
constexpr u32 kOverflowMask = 1 << 10, kUnderflowMask = 1 << 11;
constexpr u32 kDenormalsAreZero = 1 << 6;
constexpr u32 kFlushToZero = 1 << 15;

enum class Operation : u8 { Multiply, Divide, Narrow, Sum, Fused132, Fused213, Fused231, Other };

Operation operation_of(const Row& row) {
    const std::string_view name = x86::name(row.vex);
    if (name.starts_with("vmul")) return Operation::Multiply;
    if (name.starts_with("vdiv")) return Operation::Divide;
    if (name.starts_with("vcvt")) return Operation::Narrow;
    if (name.find("132") != name.npos) return Operation::Fused132;
    if (name.find("213") != name.npos) return Operation::Fused213;
    if (name.find("231") != name.npos) return Operation::Fused231;
    if (name.starts_with("vadd") || name.starts_with("vsub")) return Operation::Sum;
    // GAP: HADD and HSUB with overflow unmasked report a loss of precision that there may not have been.
    return Operation::Other;
}

// A float, double or (as result) half, taken apart.
template <typename T>
struct Layout;
template <>
struct Layout<u16> {
    static constexpr unsigned kFraction = 10;
};
template <>
struct Layout<u32> {
    static constexpr unsigned kFraction = 23;
    static constexpr int kBias = 127;
};
template <>
struct Layout<u64> {
    static constexpr unsigned kFraction = 52;
    static constexpr int kBias = 1023;
};

template <typename T>
struct Number {
    bool zero = true;
    T sign = 0;
    T fraction = 0;  // without the leading one
    int exponent = 0;
};

template <typename T>
constexpr T kSign = static_cast<T>(T{1} << (8 * sizeof(T) - 1));
template <typename T>
constexpr T kFractionMask = static_cast<T>((T{1} << Layout<T>::kFraction) - 1);

template <typename T>
Number<T> number_of(T bits, bool denormals_are_zero) {
    Number<T> n;
    n.sign = bits & kSign<T>;
    const T magnitude = bits & static_cast<T>(~kSign<T>);
    n.exponent = static_cast<int>(magnitude >> Layout<T>::kFraction) - Layout<T>::kBias;
    n.fraction = magnitude & kFractionMask<T>;
    if (magnitude >> Layout<T>::kFraction != 0) {
        n.zero = false;
    } else if (n.fraction != 0 && !denormals_are_zero) {
        n.zero = false;
        const int shift =
            std::countl_zero(n.fraction) - static_cast<int>(8 * sizeof(T) - 1 - Layout<T>::kFraction);
        n.fraction = static_cast<T>(n.fraction << shift) & kFractionMask<T>;
        n.exponent = 1 - Layout<T>::kBias - shift;
    }
    return n;
}

template <typename T>
T with_exponent(const Number<T>& n, int exponent) {
    if (n.zero) return n.sign;
    return n.sign | static_cast<T>(static_cast<T>(exponent + Layout<T>::kBias) << Layout<T>::kFraction) |
           n.fraction;
}

// Where MXCSR unmasks underflow: tiny, or rounded to zero or up from it. Where it unmasks overflow: infinite,
// or rounded down from it.
template <typename T>
bool out_of_range(T bits, u32 mxcsr) {
    const T magnitude = bits & static_cast<T>(~kSign<T>);
    constexpr T kMinimum = T{1} << Layout<T>::kFraction;
    constexpr T kInfinity = static_cast<T>((kSign<T> - 1) & ~kFractionMask<T>);
    if ((mxcsr & kUnderflowMask) == 0 && magnitude <= kMinimum) return true;
    return (mxcsr & kOverflowMask) == 0 && (magnitude == kInfinity || magnitude == kInfinity - 1);
}

struct Vectors {
    alignas(32) std::array<u8, 32> d{}, a{}, b{};
};

template <typename T>
T lane(const void* from, unsigned i) {
    T value = 0;
    std::memcpy(&value, static_cast<const u8*>(from) + i * sizeof(T), sizeof(T));
    return value;
}
template <typename T>
void set_lane(std::array<u8, 32>& to, unsigned i, T value) {
    std::memcpy(to.data() + i * sizeof(T), &value, sizeof(T));
}

// So far below the larger term (near 2^20) that the sum is inexact, wherever below; and in range.
template <typename T>
constexpr int kNegligible = sizeof(T) == 4 ? -100 : -400;

// x * y + z with the larger of the two terms near 2^20: then even what is left of a cancellation is in range.
template <typename T>
void rescale_sum(T& x, T& y, T& z, bool daz) {
    const Number<T> p = number_of(x, daz), q = number_of(y, daz), r = number_of(z, daz);
    int product = p.exponent + q.exponent;
    const bool no_product = p.zero || q.zero;
    int largest = no_product ? r.exponent : product;
    if (!no_product && !r.zero) largest = std::max(product, r.exponent);
    const int shift = 20 - largest;
    product = no_product ? 0 : std::max(product + shift, kNegligible<T>);
    x = with_exponent(p, product / 2);
    y = with_exponent(q, product - product / 2);
    z = with_exponent(r, std::max(r.exponent + shift, kNegligible<T>));
}

template <typename T>
void rescale_terms(T& x, T& y, bool daz) {
    const Number<T> p = number_of(x, daz), q = number_of(y, daz);
    const int shift = 20 - (p.zero ? q.exponent : q.zero ? p.exponent : std::max(p.exponent, q.exponent));
    x = with_exponent(p, std::max(p.exponent + shift, kNegligible<T>));
    y = with_exponent(q, std::max(q.exponent + shift, kNegligible<T>));
}

template <typename T>
void rescale(Operation operation, unsigned i, Vectors& v, bool daz) {
    T d = lane<T>(v.d.data(), i), a = lane<T>(v.a.data(), i), b = lane<T>(v.b.data(), i);
    switch (operation) {
        case Operation::Multiply:
        case Operation::Divide:
            a = with_exponent(number_of(a, daz), 0);
            b = with_exponent(number_of(b, daz), 0);
            break;
        case Operation::Narrow: b = with_exponent(number_of(b, daz), 0); break;
        case Operation::Sum: rescale_terms(a, b, daz); break;
        case Operation::Fused132: rescale_sum(d, b, a, daz); break;
        case Operation::Fused213: rescale_sum(a, d, b, daz); break;
        case Operation::Fused231: rescale_sum(a, b, d, daz); break;
        case Operation::Other: break;
    }
    set_lane(v.d, i, d);
    set_lane(v.a, i, a);
    set_lane(v.b, i, b);
}

// From is the sources' element, To the result's.
template <typename From, typename To>
bool any_inexact(Operation operation, VectorFn fn, const Operands& in, unsigned lanes, u32 mxcsr) {
    const bool daz = (mxcsr & kDenormalsAreZero) != 0;
    const From one = static_cast<From>(static_cast<From>(Layout<From>::kBias) << Layout<From>::kFraction);
    for (unsigned i = 0; i < lanes; ++i) {
        Vectors v;
        // The other elements must raise nothing: zeros, divided by one.
        if (operation == Operation::Divide)
            for (unsigned j = 0; j < 32 / sizeof(From); ++j) set_lane(v.b, j, one);
        set_lane(v.b, i, lane<From>(in.b, i));
        if (operation != Operation::Narrow) {
            set_lane(v.d, i, lane<From>(in.d, i));
            set_lane(v.a, i, lane<From>(in.a, i));
        }
        if (out_of_range(lane<To>(in.result, i), mxcsr)) rescale<From>(operation, i, v, daz);
        set_host_mxcsr((mxcsr | kMxcsrMasks) & ~(kMxcsrFlags | kFlushToZero));
        fn(v.d.data(), v.a.data(), v.b.data());
        if ((host_mxcsr() & kPrecision) != 0) return true;
    }
    return false;
}

}  // namespace

bool inexact_without_limits(const Row& row, VectorFn fn, const Operands& operands, bool wide, u32 mxcsr) {
    const Operation operation = operation_of(row);
    if (operation == Operation::Other) return true;
    const unsigned bytes = wide ? row.memory256 : row.memory128;
    const auto lanes = [&](unsigned size) { return (row.flags & kRowScalar) != 0 ? 1U : bytes / size; };
    if (operation == Operation::Narrow) {
        if ((row.flags & kRowTiny16) != 0)
            return any_inexact<u32, u16>(operation, fn, operands, wide ? 8 : 4, mxcsr);
        return any_inexact<u64, u32>(operation, fn, operands, lanes(8), mxcsr);
    }
    if ((row.flags & kRowTiny64) != 0) return any_inexact<u64, u64>(operation, fn, operands, lanes(8), mxcsr);
    return any_inexact<u32, u32>(operation, fn, operands, lanes(4), mxcsr);
}

}  // namespace tessera::soft
