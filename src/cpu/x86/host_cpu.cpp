#include "cpu/x86/host_cpu.h"

#include <array>
#include <cpuid.h>
#include <cstdint>
#include <immintrin.h>

namespace tessera {

namespace {

enum class Register : std::uint8_t { Ebx, Ecx, Edx };

// [SDM 2A CPUID], [APM 3 appendix E].
struct Feature {
    const char* name;
    unsigned leaf;
    Register reg;
    unsigned bit;
};

// [x86-64 psABI 3.1.1 "Processor Architecture"]: the levels up to x86-64-v3.
constexpr std::array kRequired{
    Feature{"cx16", 1, Register::Ecx, 13},   Feature{"lahf", 0x8000'0001, Register::Ecx, 0},
    Feature{"popcnt", 1, Register::Ecx, 23}, Feature{"sse3", 1, Register::Ecx, 0},
    Feature{"ssse3", 1, Register::Ecx, 9},   Feature{"sse4.1", 1, Register::Ecx, 19},
    Feature{"sse4.2", 1, Register::Ecx, 20}, Feature{"avx", 1, Register::Ecx, 28},
    Feature{"f16c", 1, Register::Ecx, 29},   Feature{"fma", 1, Register::Ecx, 12},
    Feature{"movbe", 1, Register::Ecx, 22},  Feature{"osxsave", 1, Register::Ecx, 27},
    Feature{"avx2", 7, Register::Ebx, 5},    Feature{"bmi1", 7, Register::Ebx, 3},
    Feature{"bmi2", 7, Register::Ebx, 8},    Feature{"lzcnt", 0x8000'0001, Register::Ecx, 5},
};
constexpr std::array kOptional{
    Feature{"aes", 1, Register::Ecx, 25},    Feature{"pclmulqdq", 1, Register::Ecx, 1},
    Feature{"sha", 7, Register::Ebx, 29},    Feature{"adx", 7, Register::Ebx, 19},
    Feature{"rdrand", 1, Register::Ecx, 30}, Feature{"rdseed", 7, Register::Ebx, 18},
};

bool has(const Feature& feature) {
    unsigned eax = 0;
    unsigned ebx = 0;
    unsigned ecx = 0;
    unsigned edx = 0;
    if (__get_cpuid_count(feature.leaf, 0, &eax, &ebx, &ecx, &edx) == 0) return false;
    const unsigned value = feature.reg == Register::Ebx ? ebx : feature.reg == Register::Ecx ? ecx : edx;
    return (value >> feature.bit & 1) != 0;
}

// Whether the operating system keeps XMM and YMM registers [SDM 1 13.2].
__attribute__((target("xsave"))) bool keeps_vector_state() {
    constexpr unsigned long long kSseAndAvx = 6;
    return (_xgetbv(0) & kSseAndAvx) == kSseAndAvx;
}

void append(std::string& names, const char* name) {
    if (!names.empty()) names += ", ";
    names += name;
}

}  // namespace

std::string missing_host_features() {
    std::string missing;
    for (const Feature& feature : kRequired)
        if (!has(feature)) append(missing, feature.name);
    if (missing.empty() && !keeps_vector_state()) append(missing, "AVX state kept by the operating system");
    return missing;
}

std::string optional_host_features() {
    std::string found;
    for (const Feature& feature : kOptional)
        if (has(feature)) append(found, feature.name);
    return found;
}

}  // namespace tessera
