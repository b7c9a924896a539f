// The row "avx2_fma": polynomials of degree eight, eight floats at a time. Compiled for x86-64-v3: nothing
// here runs before `fma_prepare` has seen that the processor has it.
#include <array>
#include <bit>
#include <immintrin.h>

#include "row.h"

namespace tessera::guestbench {
namespace {

constexpr std::size_t kFloats = 2048;
constexpr int kPasses = 8;
constexpr std::size_t kDegree = 8;
alignas(32) std::array<float, kFloats> values, results;

bool fma_prepare() {
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") == 0 || __builtin_cpu_supports("fma") == 0) return false;
    for (std::size_t i = 0; i < kFloats; ++i) values[i] = static_cast<float>(i % 1000) / 1000.0F - 0.5F;
    return true;
}

u64 fma_round() {
    for (int pass = 0; pass < kPasses; ++pass) {
        std::array<__m256, kDegree + 1> factor{};
        for (std::size_t k = 0; k <= kDegree; ++k)
            factor[k] = _mm256_set1_ps(static_cast<float>(pass + 1) / static_cast<float>(k + 2));
        for (std::size_t i = 0; i < kFloats; i += 32) {
            const __m256 x0 = _mm256_load_ps(&values[i]), x1 = _mm256_load_ps(&values[i + 8]);
            const __m256 x2 = _mm256_load_ps(&values[i + 16]), x3 = _mm256_load_ps(&values[i + 24]);
            __m256 y0 = factor[kDegree], y1 = y0, y2 = y0, y3 = y0;
            for (std::size_t k = kDegree; k-- > 0;) {
                y0 = _mm256_fmadd_ps(y0, x0, factor[k]);
                y1 = _mm256_fmadd_ps(y1, x1, factor[k]);
                y2 = _mm256_fmadd_ps(y2, x2, factor[k]);
                y3 = _mm256_fmadd_ps(y3, x3, factor[k]);
            }
            _mm256_store_ps(&results[i], y0);
            _mm256_store_ps(&results[i + 8], y1);
            _mm256_store_ps(&results[i + 16], y2);
            _mm256_store_ps(&results[i + 24], y3);
        }
        __asm__ volatile("" ::: "memory");
    }
    u64 sum = 0;
    for (std::size_t i = 0; i < kFloats; i += 61) sum = mix(sum, std::bit_cast<u32>(results[i]));
    return sum;
}

constexpr Row kRows[] = {
    {"avx2_fma", "flop", 2.0 * kDegree* kFloats* kPasses, 0x10e4eb55a35b729b, fma_round, fma_prepare},
};

}  // namespace

std::span<const Row> fma_rows() {
    return kRows;
}

}  // namespace tessera::guestbench
