// CPUID's table and leaves. [APM 3 appendix E], [SDM 2A CPUID].
//
// Speculation. Guests choose costly workarounds by what is said here, so each claim must be true of this
// processor:
//  - it executes one instruction after the other and never on a guess of its own: there is no store it
//  bypasses
//    (SSB_NO), no return address it predicts (SRSO_NO), no branch type confusion (BTC_NO), no store queue or
//    L1 data that leaks by scheduling (TSA_SQ_NO, TSA_L1_NO);
//  - what the host's own predictors learn from the interpreter's jumps depends on all guest code alike and is
//  beyond
//    what a guest's retpoline or IBPB could change: indirect branches of the guest are loads and compares of
//    the interpreter. Hence AutomaticIBRS, whose promise (user code does not steer the kernel's indirect
//    branches) holds;
//  - LFENCE does nothing that the end of every instruction does not do anyway (LfenceSerializing).
#include "cpu/x86/cpuid.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace tessera::x86 {

namespace {

enum Register : u8 { Eax, Ebx, Ecx, Edx };

struct Entry {
    Feature feature;
    u32 leaf;
    u8 subleaf;
    Register reg;
    u8 bit;
    FeatureLevel level;
};

using enum FeatureLevel;
using F = Feature;

constexpr Entry kTable[] = {
    {F::Sse3, 1, 0, Ecx, 0, V2},
    {F::Pclmulqdq, 1, 0, Ecx, 1, Max},
    {F::Monitor, 1, 0, Ecx, 3, V2},
    {F::Ssse3, 1, 0, Ecx, 9, V2},
    {F::Fma, 1, 0, Ecx, 12, V3},
    {F::Cmpxchg16b, 1, 0, Ecx, 13, V2},
    {F::Pcid, 1, 0, Ecx, 17, V2},
    {F::Sse41, 1, 0, Ecx, 19, V2},
    {F::Sse42, 1, 0, Ecx, 20, V2},
    {F::X2apic, 1, 0, Ecx, 21, V2},
    {F::Movbe, 1, 0, Ecx, 22, V3},
    {F::Popcnt, 1, 0, Ecx, 23, V2},
    {F::TscDeadline, 1, 0, Ecx, 24, V2},
    {F::Aes, 1, 0, Ecx, 25, Max},
    {F::Xsave, 1, 0, Ecx, 26, V3},
    {F::Avx, 1, 0, Ecx, 28, V3},
    {F::F16c, 1, 0, Ecx, 29, V3},
    {F::Rdrand, 1, 0, Ecx, 30, Max},
    {F::Hypervisor, 1, 0, Ecx, 31, V2},

    {F::Fpu, 1, 0, Edx, 0, V2},
    {F::Vme, 1, 0, Edx, 1, V2},
    {F::De, 1, 0, Edx, 2, V2},
    {F::Pse, 1, 0, Edx, 3, V2},
    {F::Tsc, 1, 0, Edx, 4, V2},
    {F::Msr, 1, 0, Edx, 5, V2},
    {F::Pae, 1, 0, Edx, 6, V2},
    {F::Mce, 1, 0, Edx, 7, V2},
    {F::Cmpxchg8b, 1, 0, Edx, 8, V2},
    {F::Sysenter, 1, 0, Edx, 11, V2},
    {F::Mtrr, 1, 0, Edx, 12, V2},
    {F::Pge, 1, 0, Edx, 13, V2},
    {F::Mca, 1, 0, Edx, 14, V2},
    {F::Cmov, 1, 0, Edx, 15, V2},
    {F::Pat, 1, 0, Edx, 16, V2},
    {F::Pse36, 1, 0, Edx, 17, V2},
    {F::Clflush, 1, 0, Edx, 19, V2},
    {F::Mmx, 1, 0, Edx, 23, V2},
    {F::Fxsr, 1, 0, Edx, 24, V2},
    {F::Sse, 1, 0, Edx, 25, V2},
    {F::Sse2, 1, 0, Edx, 26, V2},

    {F::Arat, 6, 0, Eax, 2, V2},

    {F::Fsgsbase, 7, 0, Ebx, 0, V2},
    {F::TscAdjust, 7, 0, Ebx, 1, V2},
    {F::Bmi1, 7, 0, Ebx, 3, V3},
    {F::Avx2, 7, 0, Ebx, 5, V3},
    {F::Smep, 7, 0, Ebx, 7, V2},
    {F::Bmi2, 7, 0, Ebx, 8, V3},
    {F::Erms, 7, 0, Ebx, 9, Max},
    {F::Invpcid, 7, 0, Ebx, 10, V2},
    {F::Rdseed, 7, 0, Ebx, 18, Max},
    {F::Adx, 7, 0, Ebx, 19, Max},
    {F::Smap, 7, 0, Ebx, 20, V2},
    {F::Clflushopt, 7, 0, Ebx, 23, Max},
    {F::Clwb, 7, 0, Ebx, 24, Max},
    {F::Sha, 7, 0, Ebx, 29, Max},
    {F::Umip, 7, 0, Ecx, 2, V2},
    {F::Rdpid, 7, 0, Ecx, 22, V2},
    {F::Fsrm, 7, 0, Edx, 4, Max},

    {F::Xsaveopt, 0xd, 1, Eax, 0, V3},
    {F::Xsavec, 0xd, 1, Eax, 1, V3},
    {F::Xgetbv1, 0xd, 1, Eax, 2, V3},
    {F::Xsaves, 0xd, 1, Eax, 3, V3},

    {F::LahfLong, 0x8000'0001, 0, Ecx, 0, V2},
    {F::AltMovCr8, 0x8000'0001, 0, Ecx, 4, V2},
    {F::Lzcnt, 0x8000'0001, 0, Ecx, 5, V3},
    {F::Prefetchw, 0x8000'0001, 0, Ecx, 8, V2},
    {F::TopologyExtensions, 0x8000'0001, 0, Ecx, 22, V2},
    {F::Syscall, 0x8000'0001, 0, Edx, 11, V2},
    {F::Nx, 0x8000'0001, 0, Edx, 20, V2},
    {F::MmxExt, 0x8000'0001, 0, Edx, 22, V2},
    {F::Page1G, 0x8000'0001, 0, Edx, 26, V2},
    {F::Rdtscp, 0x8000'0001, 0, Edx, 27, V2},
    {F::LongMode, 0x8000'0001, 0, Edx, 29, V2},

    {F::InvariantTsc, 0x8000'0007, 0, Edx, 8, V2},

    {F::Clzero, 0x8000'0008, 0, Ebx, 0, Max},
    {F::XsaveErrorPointers, 0x8000'0008, 0, Ebx, 2, V2},
    {F::SsbNo, 0x8000'0008, 0, Ebx, 26, V2},
    {F::BtcNo, 0x8000'0008, 0, Ebx, 29, V2},

    {F::NoNestedDataBp, 0x8000'0021, 0, Eax, 0, V2},
    {F::LfenceSerializing, 0x8000'0021, 0, Eax, 2, V2},
    {F::NullSelectorClearsBase, 0x8000'0021, 0, Eax, 6, V2},
    {F::AutomaticIbrs, 0x8000'0021, 0, Eax, 8, V2},
    {F::NoSmmCtlMsr, 0x8000'0021, 0, Eax, 9, V2},
    {F::SrsoNo, 0x8000'0021, 0, Eax, 29, V2},
    {F::TsaSqNo, 0x8000'0021, 0, Ecx, 1, V2},
    {F::TsaL1No, 0x8000'0021, 0, Ecx, 2, V2},
};
static_assert(std::size(kTable) == static_cast<std::size_t>(Feature::Count_), "every feature has its place");

constexpr u32 kSignature = 0x00a0'0f11;  // family 19h, model 1, stepping 1
constexpr u32 kMaxStandard = 0xd, kMaxExtended = 0x8000'0021, kMaxHypervisor = 0x4000'0010;
constexpr char kVendor[] = "AuthenticAMD";
constexpr char kHypervisorVendor[] = "TesseraTessr";
// Linux looks for this signature at 0x40000000, 0x40000100, ... [LINUX-KVM cpuid]
constexpr char kKvmVendor[13] = "KVMKVMKVM\0\0";
constexpr u32 kKvmBase = 0x4000'0100, kKvmFeatures = kKvmBase + 1;
constexpr char kBrand[48] = "Tessera Software CPU";

u32 four(const char* text) {
    u32 value = 0;
    std::memcpy(&value, text, 4);
    return value;
}

// The feature bits of one leaf.
CpuidResult features(FeatureLevel level, u32 leaf, u32 subleaf) {
    std::array<u32, 4> r{};
    for (const Entry& e : kTable)
        if (e.leaf == leaf && e.subleaf == subleaf && e.level <= level) r[e.reg] |= 1u << e.bit;
    return {r[Eax], r[Ebx], r[Ecx], r[Edx]};
}

// Bits an APIC ID needs for the CPUs of the package: they are all cores of one, one thread each.
unsigned core_bits(const CpuidContext& c) {
    return static_cast<unsigned>(std::bit_width(c.cpus - 1));
}

// The bits of EDX that 0x80000001 repeats from leaf 1.
constexpr u32 kSharedWithLeaf1 = 0x0183'f3ff;

CpuidResult leaf_1(const CpuidContext& c) {
    CpuidResult r = features(c.level, 1, 0);
    r.eax = kSignature;
    const u32 logical = std::min(c.cpus, 255u);
    r.ebx = (c.apic_id << 24) | (logical << 16) | (8 << 8);  // CLFLUSH line in quadwords
    if (c.osxsave) r.ecx |= 1u << 27;
    if (c.apic_enabled) r.edx |= 1 << 9;
    if (c.cpus > 1) r.edx |= 1 << 28;
    return r;
}

// [SDM 2A CPUID leaf 0BH]
CpuidResult leaf_topology(const CpuidContext& c, u32 subleaf) {
    CpuidResult r{.ecx = subleaf & 0xff, .edx = c.apic_id};
    constexpr u32 kThreads = 1 << 8, kCores = 2 << 8;
    if (subleaf == 0) {
        r.ebx = 1;
        r.ecx |= kThreads;
    } else if (subleaf == 1) {
        r.eax = core_bits(c);
        r.ebx = c.cpus;
        r.ecx |= kCores;
    }
    return r;
}

// Sizes of the XSAVE area [SDM 1 13.4]: legacy 512 and header 64, then AVX's 256 at 576.
CpuidResult leaf_xsave(const CpuidContext& c, u32 subleaf) {
    constexpr u32 kBase = 512 + 64, kAvxSize = 256;
    if (!has_feature(c.level, Feature::Xsave)) return {};
    const u32 enabled = kBase + ((c.xcr0 & 4) != 0 ? kAvxSize : 0);
    switch (subleaf) {
        case 0: return {.eax = static_cast<u32>(kXcr0Supported), .ebx = enabled, .ecx = kBase + kAvxSize};
        case 1: {
            CpuidResult r = features(c.level, 0xd, 1);
            r.ebx = enabled;  // the compacted form is no smaller with these three components; no supervisor
                              // states
            return r;
        }
        case 2: return {.eax = kAvxSize, .ebx = kBase};
        default: return {};
    }
}

CpuidResult leaf_extended_1(const CpuidContext& c) {
    CpuidResult r = features(c.level, 0x8000'0001, 0);
    r.eax = kSignature;
    r.edx |= leaf_1(c).edx & kSharedWithLeaf1;
    if (c.cpus > 1) r.ecx |= 1 << 1;  // CmpLegacy: "logical processors" of leaf 1 are cores
    return r;
}

CpuidResult brand(u32 leaf) {
    const char* text = kBrand + std::size_t{leaf - 0x8000'0002} * 16;
    return {four(text), four(text + 4), four(text + 8), four(text + 12)};
}

// Caches as family 19h has them, so that software sizing its work by them behaves as usual; the host's real
// ones are behind, of whatever size. 32 KiB + 32 KiB + 512 KiB per core, 32 MiB shared.
struct Cache {
    u8 level, type;  // type: 1 data, 2 instruction, 3 unified
    u32 kib, ways;
    bool shared;
};
constexpr Cache kCaches[] = {
    {1, 1, 32, 8, false}, {1, 2, 32, 8, false}, {2, 3, 512, 8, false}, {3, 3, 32768, 16, true}};
constexpr u32 kLine = 64;

// [APM 3 E.4.15]
CpuidResult leaf_cache(const CpuidContext& c, u32 subleaf) {
    if (subleaf >= std::size(kCaches)) return {};
    const Cache& cache = kCaches[subleaf];
    const u32 sharing = cache.shared ? c.cpus - 1 : 0;
    const u32 sets = cache.kib * 1024 / (kLine * cache.ways);
    constexpr u32 kSelfInitialising = 1 << 8;
    return {.eax = cache.type | (cache.level << 5) | kSelfInitialising | (std::min(sharing, 0xfffu) << 14),
            .ebx = (kLine - 1) | ((cache.ways - 1) << 22),
            .ecx = sets - 1,
            .edx = 0};
}

CpuidResult leaf_address_sizes(const CpuidContext& c) {
    CpuidResult r = features(c.level, 0x8000'0008, 0);
    r.eax = kPhysicalAddressBits | (kLinearAddressBits << 8);
    r.ecx = std::min(c.cpus - 1, 0xffu) | (core_bits(c) << 12);  // NC, ApicIdSize
    return r;
}

CpuidResult standard(const CpuidContext& c, u32 leaf, u32 subleaf) {
    switch (leaf) {
        case 0: return {kMaxStandard, four(kVendor), four(kVendor + 8), four(kVendor + 4)};
        case 1: return leaf_1(c);
        // Extensions are enumerated, interrupts break MWAIT also with IF = 0, and there are no C-states:
        // MWAIT does not sleep here, and software that wants to sleep takes HLT.
        case 5: return {.eax = kMonitorLineBytes, .ebx = kMonitorLineBytes, .ecx = 3, .edx = 0};
        case 0xb: return leaf_topology(c, subleaf);
        case 0xd: return leaf_xsave(c, subleaf);
        default: return features(c.level, leaf, subleaf);
    }
}

CpuidResult extended(const CpuidContext& c, u32 leaf, u32 subleaf) {
    switch (leaf) {
        case 0x8000'0000: return {kMaxExtended, four(kVendor), four(kVendor + 8), four(kVendor + 4)};
        case 0x8000'0001: return leaf_extended_1(c);
        case 0x8000'0002:
        case 0x8000'0003:
        case 0x8000'0004: return brand(leaf);
        // [APM 3 E.4.4]: TLBs of 64 fully associative entries, then L1 data and instruction cache.
        case 0x8000'0005: return {0xff40'ff40, 0xff40'ff40, 0x2008'0140, 0x2008'0140};
        // [APM 3 E.4.5]: L2 TLBs; L2 512 KiB 8 ways; L3 in units of 512 KiB, 16 ways.
        case 0x8000'0006: return {0x4800'4200, 0x6800'4200, 0x0200'6140, (64 << 18) | (8 << 12) | 0x140};
        case 0x8000'0008: return leaf_address_sizes(c);
        case 0x8000'0019: return {0xf040'f040, 0xf040'0000, 0, 0};
        case 0x8000'001d: return leaf_cache(c, subleaf);
        // One thread per core, one node.
        case 0x8000'001e: return {c.apic_id, c.apic_id & 0xff, 0, 0};
        default: return features(c.level, leaf, 0);
    }
}

// [LINUX-KVM cpuid] What soft/paravirt.cpp does. Port 0x80 is not needed for delays either.
u32 kvm_features(const CpuidContext& c) {
    constexpr u32 kNoIoDelay = 1 << 1, kClocksource2 = 1 << 3, kPvEoi = 1 << 6, kSendIpi = 1 << 11,
                  kSchedYield = 1 << 13, kClocksourceStable = 1 << 24;
    return kNoIoDelay | kPvEoi | kSendIpi | kSchedYield |
           (c.paravirt_clock ? kClocksource2 | kClocksourceStable : 0);
}

CpuidResult hypervisor(const CpuidContext& c, u32 leaf) {
    if (leaf == 0x4000'0000)
        return {kMaxHypervisor, four(kHypervisorVendor), four(kHypervisorVendor + 4),
                four(kHypervisorVendor + 8)};
    if (leaf == kKvmBase) return {kKvmFeatures, four(kKvmVendor), four(kKvmVendor + 4), four(kKvmVendor + 8)};
    if (leaf == kKvmFeatures) return {.eax = kvm_features(c)};
    // The widespread convention for the TSC's frequency in kHz.
    if (leaf == kMaxHypervisor) return {.eax = static_cast<u32>(c.tsc_khz)};
    return {};
}

}  // namespace

bool has_feature(FeatureLevel level, Feature feature) {
    for (const Entry& e : kTable)
        if (e.feature == feature) return e.level <= level;
    return false;
}

CpuidResult cpuid(const CpuidContext& context, u32 leaf, u32 subleaf) {
    if (leaf <= kMaxStandard) return standard(context, leaf, subleaf);
    if (leaf >= 0x4000'0000 && leaf <= kKvmFeatures) return hypervisor(context, leaf);
    if (leaf >= 0x8000'0000 && leaf <= kMaxExtended) return extended(context, leaf, subleaf);
    return {};
}

}  // namespace tessera::x86
