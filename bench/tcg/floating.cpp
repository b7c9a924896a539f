// Floating point and SIMD that every x86-64 has: nbody (scalar SSE2), saxpy (packed SSE), simd_int (SSE2),
// x87.
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <emmintrin.h>

#include "row.h"

namespace tessera::guestbench {
namespace {

// --- nbody: five bodies attracting each other, scalar double
// ----------------------------------------------------------

struct Body {
    std::array<double, 3> at;
    std::array<double, 3> speed;
    double mass;
};
constexpr std::array<Body, 5> kBodies{{
    {{0, 0, 0}, {0, 0, 0}, 1000},
    {{10, 0, 1}, {0, 9.5, 0}, 1},
    {{0, 20, -1}, {-7, 0, 0.5}, 2},
    {{-30, 0, 2}, {0, -5.5, 0}, 0.5},
    {{0, -40, 0}, {5, 0, -0.25}, 3},
}};
constexpr int kSteps = 200;
constexpr double kStep = 0.001;

u64 nbody_round() {
    std::array<Body, 5> bodies = kBodies;
    opaque(bodies[0].mass);
    for (int step = 0; step < kSteps; ++step) {
        for (std::size_t i = 0; i < bodies.size(); ++i)
            for (std::size_t k = i + 1; k < bodies.size(); ++k) {
                Body &a = bodies[i], &b = bodies[k];
                const double x = a.at[0] - b.at[0], y = a.at[1] - b.at[1], z = a.at[2] - b.at[2];
                const double square = x * x + y * y + z * z;
                const double pull = kStep / (square * std::sqrt(square));
                const double on_a = pull * b.mass, on_b = pull * a.mass;
                a.speed = {a.speed[0] - x * on_a, a.speed[1] - y * on_a, a.speed[2] - z * on_a};
                b.speed = {b.speed[0] + x * on_b, b.speed[1] + y * on_b, b.speed[2] + z * on_b};
            }
        for (Body& body : bodies)
            for (std::size_t axis = 0; axis < 3; ++axis) body.at[axis] += kStep * body.speed[axis];
    }
    u64 sum = 0;
    for (const Body& body : bodies)
        for (const double x : body.at) sum = mix(sum, std::bit_cast<u64>(x));
    return sum;
}

// --- saxpy: z = a * x + y, four floats at a time
// ------------------------------------------------------------------------

constexpr std::size_t kFloats = 2048;
constexpr int kSaxpyPasses = 16;
alignas(16) std::array<float, kFloats> vector_x, vector_y, vector_z;

bool saxpy_prepare() {
    Random random(11);
    for (std::size_t i = 0; i < kFloats; ++i) {
        vector_x[i] = static_cast<float>(random.next() % 100000) / 1000;
        vector_y[i] = static_cast<float>(random.next() % 100000) / 3000;
    }
    return true;
}

u64 saxpy_round() {
    for (int pass = 0; pass < kSaxpyPasses; ++pass) {
        const __m128 a = _mm_set1_ps(static_cast<float>(pass) + 0.3F);
        for (std::size_t i = 0; i < kFloats; i += 4) {
            const __m128 ax = _mm_mul_ps(a, _mm_load_ps(&vector_x[i]));
            _mm_store_ps(&vector_z[i], _mm_add_ps(ax, _mm_load_ps(&vector_y[i])));
        }
        __asm__ volatile("" ::: "memory");
    }
    u64 sum = 0;
    for (std::size_t i = 0; i < kFloats; i += 61) sum = mix(sum, std::bit_cast<u32>(vector_z[i]));
    return sum;
}

// --- simd_int: counts the bytes of a value and adds up the differences, sixteen at a time
// ----------------------------

constexpr std::size_t kBytes = 8192;
constexpr int kSimdPasses = 8;
alignas(16) std::array<u8, kBytes> bytes;

bool simd_prepare() {
    Random random(12);
    for (u8& byte : bytes) byte = static_cast<u8>(random.next());
    return true;
}

u64 simd_round() {
    u64 found = 0;
    __m128i total = _mm_setzero_si128();
    for (int pass = 0; pass < kSimdPasses; ++pass) {
        const __m128i wanted = _mm_set1_epi8(static_cast<char>(pass));
        __m128i hash = _mm_set1_epi32(pass);
        for (std::size_t i = 0; i < kBytes; i += 16) {
            const __m128i data = _mm_load_si128(reinterpret_cast<const __m128i*>(&bytes[i]));
            const int mask = _mm_movemask_epi8(_mm_cmpeq_epi8(data, wanted));
            found += static_cast<u64>(__builtin_popcount(static_cast<unsigned>(mask)));
            total = _mm_add_epi64(total, _mm_sad_epu8(data, wanted));
            hash =
                _mm_xor_si128(_mm_add_epi32(hash, data), _mm_slli_epi32(_mm_unpacklo_epi8(data, wanted), 3));
            total = _mm_add_epi64(total, _mm_srli_epi64(_mm_mullo_epi16(hash, data), 32));
        }
    }
    u64 halves[2];
    std::memcpy(halves, &total, sizeof halves);
    return mix(mix(found, halves[0]), halves[1]);
}

// --- x87: a chain of multiplications and additions with 64 bits of mantissa
// --------------------------------------------

constexpr int kX87Iterations = 10000;

u64 x87_round() {
    long double x = 1.0L, sum = 0.0L;
    u64 count = kX87Iterations;
    opaque(count);
    for (u64 i = 0; i < count; ++i) {
        x = x * 0.999L + 0.37L;
        sum += x;
    }
    struct {
        u64 mantissa = 0;
        u16 exponent = 0;
    } bits;
    std::memcpy(&bits, &sum, 10);
    return mix(bits.mantissa, bits.exponent);
}

constexpr Row kRows[] = {
    {"nbody", "step", kSteps, 0x32012ca66f5ddbf7, nbody_round},
    {"saxpy", "flop", 2.0 * kFloats* kSaxpyPasses, 0xcf9bcbeb33d3e955, saxpy_round, saxpy_prepare},
    {"simd_int", "byte", static_cast<double>(kBytes) * kSimdPasses, 0x270971d15694ad29, simd_round,
     simd_prepare},
    {"x87", "iteration", kX87Iterations, 0x1da8310f5782476b, x87_round},
};

}  // namespace

std::span<const Row> float_rows() {
    return kRows;
}

}  // namespace tessera::guestbench
