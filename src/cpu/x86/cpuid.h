// What CPUID says: one table of features for all models, and the leaves made from it.
// The processor is an AMD family 19h by name and habits; see cpuid.cpp for what it claims about speculation.
#pragma once

#include <array>

#include "base/types.h"

namespace tessera::x86 {

// Each level includes the ones before it. V2 and V3 are the x86-64 psABI's levels (plus the privileged
// features every model has); Max adds AES, PCLMULQDQ, SHA, ADX, RDRAND, RDSEED, CLFLUSHOPT, CLWB, CLZERO,
// ERMS, FSRM.
enum class FeatureLevel : u8 { V2, V3, Max };

// [APM 3 appendix E]. Ids are names for has_feature; positions are in the table.
enum class Feature : u8 {
    Sse3,
    Pclmulqdq,
    Monitor,
    Ssse3,
    Fma,
    Cmpxchg16b,
    Pcid,
    Sse41,
    Sse42,
    X2apic,
    Movbe,
    Popcnt,
    TscDeadline,
    Aes,
    Xsave,
    Avx,
    F16c,
    Rdrand,
    Hypervisor,
    Fpu,
    Vme,
    De,
    Pse,
    Tsc,
    Msr,
    Pae,
    Mce,
    Cmpxchg8b,
    Sysenter,
    Mtrr,
    Pge,
    Mca,
    Cmov,
    Pat,
    Pse36,
    Clflush,
    Mmx,
    Fxsr,
    Sse,
    Sse2,
    Arat,
    Fsgsbase,
    TscAdjust,
    Bmi1,
    Avx2,
    Smep,
    Bmi2,
    Erms,
    Invpcid,
    Rdseed,
    Adx,
    Smap,
    Clflushopt,
    Clwb,
    Sha,
    Umip,
    Rdpid,
    Fsrm,
    Xsaveopt,
    Xsavec,
    Xgetbv1,
    Xsaves,
    LahfLong,
    AltMovCr8,
    Lzcnt,
    Prefetchw,
    TopologyExtensions,
    Syscall,
    Nx,
    MmxExt,
    Page1G,
    Rdtscp,
    LongMode,
    InvariantTsc,
    Clzero,
    XsaveErrorPointers,
    SsbNo,
    BtcNo,
    NoNestedDataBp,
    LfenceSerializing,
    NullSelectorClearsBase,
    AutomaticIbrs,
    NoSmmCtlMsr,
    SrsoNo,
    TsaSqNo,
    TsaL1No,
    Count_,
};

[[nodiscard]] bool has_feature(FeatureLevel level, Feature feature);

inline constexpr unsigned kPhysicalAddressBits = 48, kLinearAddressBits = 48;
inline constexpr u64 kXcr0Supported = 7;  // x87, SSE, AVX
inline constexpr unsigned kMonitorLineBytes = 64;

// What the answer depends on besides the model: the machine and the CPU's present state.
struct CpuidContext {
    FeatureLevel level = FeatureLevel::Max;
    unsigned cpus = 1;
    u32 apic_id = 0;
    bool apic_enabled = true;
    bool osxsave = false;  // CR4.OSXSAVE
    u64 xcr0 = 1;
    u64 tsc_khz = 0;
    bool paravirt_clock = false;  // KVM's clock is among what leaf 0x40000101 offers
};

struct CpuidResult {
    u32 eax = 0, ebx = 0, ecx = 0, edx = 0;
    friend bool operator==(const CpuidResult&, const CpuidResult&) = default;
};

// CPUID for any leaf and subleaf. Leaves above the maximum of their range are all zeros [APM 3 E.2].
[[nodiscard]] CpuidResult cpuid(const CpuidContext& context, u32 leaf, u32 subleaf);

}  // namespace tessera::x86
