// CPUID against the layout the manuals give, bit by bit where guests depend on it.
#include "cpu/x86/cpuid.h"

#include <cstring>
#include <gtest/gtest.h>
#include <string>

namespace tessera::x86 {
namespace {

std::string text(std::initializer_list<u32> registers) {
    std::string s;
    for (const u32 r : registers) {
        char four[4];
        std::memcpy(four, &r, 4);
        s.append(four, 4);
    }
    return s;
}

TEST(Cpuid, NamesVendorBrandAndHypervisor) {
    const CpuidContext c;
    const CpuidResult vendor = cpuid(c, 0, 0);
    EXPECT_EQ(text({vendor.ebx, vendor.edx, vendor.ecx}), "AuthenticAMD");
    const CpuidResult extended = cpuid(c, 0x8000'0000, 0);
    EXPECT_EQ(extended.eax, 0x8000'0021u);
    const CpuidResult hypervisor = cpuid(c, 0x4000'0000, 0);
    EXPECT_EQ(text({hypervisor.ebx, hypervisor.ecx, hypervisor.edx}), "TesseraTessr");
    std::string brand;
    for (u32 leaf = 0x8000'0002; leaf <= 0x8000'0004; ++leaf) {
        const CpuidResult r = cpuid(c, leaf, 0);
        brand += text({r.eax, r.ebx, r.ecx, r.edx});
    }
    EXPECT_STREQ(brand.c_str(), "Tessera Software CPU");
}

// [LINUX-KVM cpuid]
TEST(Cpuid, KvmsSignatureIsTheSecondHypervisor) {
    CpuidContext c;
    const CpuidResult signature = cpuid(c, 0x4000'0100, 0);
    EXPECT_EQ(signature.eax, 0x4000'0101u);
    EXPECT_EQ(text({signature.ebx, signature.ecx, signature.edx}), std::string("KVMKVMKVM\0\0\0", 12));
    constexpr u32 kClock = 1 << 3 | 1 << 24;
    EXPECT_EQ(cpuid(c, 0x4000'0101, 0).eax & kClock, 0u);
    c.paravirt_clock = true;
    EXPECT_EQ(cpuid(c, 0x4000'0101, 0).eax, kClock | 1u << 1 | 1u << 6 | 1u << 11 | 1u << 13);
    EXPECT_EQ(cpuid(c, 0x4000'0102, 0), CpuidResult{});
    c.tsc_khz = 2'445'430;
    EXPECT_EQ(cpuid(c, 0x4000'0010, 0).eax, 2'445'430u);
    EXPECT_EQ(cpuid(c, 0x4000'0011, 0), CpuidResult{});
}

TEST(Cpuid, SignatureIsFamily19h) {
    const u32 eax = cpuid({}, 1, 0).eax;
    EXPECT_EQ(((eax >> 8) & 15) + ((eax >> 20) & 0xff), 0x19u);
    EXPECT_EQ(cpuid({}, 0x8000'0001, 0).eax, eax);
}

TEST(Cpuid, LevelsDifferInWhatTheAbiSays) {
    // The bits of x86-64-v3 beyond v2: FMA, MOVBE, XSAVE, AVX, F16C in 1.ECX; BMI1, AVX2, BMI2 in 7.EBX;
    // LZCNT.
    constexpr u32 kV3Ecx = 1u << 12 | 1u << 22 | 1u << 26 | 1u << 28 | 1u << 29;
    constexpr u32 kV3Ebx = 1u << 3 | 1u << 5 | 1u << 8;
    // SSE3, SSSE3, CX16, SSE4.1, SSE4.2, POPCNT.
    constexpr u32 kV2Ecx = 1u << 0 | 1u << 9 | 1u << 13 | 1u << 19 | 1u << 20 | 1u << 23;
    const CpuidContext v2{.level = FeatureLevel::V2};
    const CpuidContext v3{.level = FeatureLevel::V3};
    EXPECT_EQ(cpuid(v2, 1, 0).ecx & (kV3Ecx | kV2Ecx), kV2Ecx);
    EXPECT_EQ(cpuid(v2, 7, 0).ebx & kV3Ebx, 0u);
    EXPECT_EQ(cpuid(v2, 0xd, 0), CpuidResult{});
    EXPECT_EQ(cpuid(v3, 1, 0).ecx & (kV3Ecx | kV2Ecx), kV3Ecx | kV2Ecx);
    EXPECT_EQ(cpuid(v3, 7, 0).ebx & kV3Ebx, kV3Ebx);
    EXPECT_EQ(cpuid(v3, 0x8000'0001, 0).ecx & (1 << 5), 1u << 5);
    EXPECT_EQ(cpuid(v3, 1, 0).ecx & (1 << 25), 0u) << "AES is an extra";
    EXPECT_NE(cpuid({}, 1, 0).ecx & (1 << 25), 0u);
}

TEST(Cpuid, NothingIsClaimedThatIsNotThere) {
    const u32 ebx7 = cpuid({}, 7, 0).ebx;
    EXPECT_EQ(ebx7 & (1u << 16 | 1u << 17 | 1u << 30 | 1u << 31), 0u) << "AVX-512";
    EXPECT_EQ(ebx7 & (1u << 4 | 1u << 11), 0u) << "TSX";
    EXPECT_EQ(cpuid({}, 7, 0).ecx & (1u << 3 | 1u << 16), 0u) << "protection keys, 5-level paging";
    EXPECT_EQ(cpuid({}, 0x8000'0001, 0).ecx & (1u << 2 | 1u << 6 | 1u << 11), 0u) << "SVM, SSE4A, XOP";
    EXPECT_EQ(cpuid({}, 0x8000'0001, 0).edx & (1u << 30 | 1u << 31), 0u) << "3DNow!";
    EXPECT_EQ(cpuid({}, 0x8000'000a, 0), CpuidResult{});
}

TEST(Cpuid, FollowsTheProcessorsState) {
    CpuidContext c{.apic_id = 3, .apic_enabled = false, .osxsave = true, .xcr0 = 7};
    EXPECT_NE(cpuid(c, 1, 0).ecx & (1 << 27), 0u);
    EXPECT_EQ(cpuid(c, 1, 0).edx & (1 << 9), 0u);
    EXPECT_EQ(cpuid(c, 1, 0).ebx >> 24, 3u);
    EXPECT_EQ(cpuid(c, 0xd, 0).ebx, 832u);
    c.xcr0 = 3;
    EXPECT_EQ(cpuid(c, 0xd, 0).ebx, 576u);
    EXPECT_EQ(cpuid(c, 0xd, 0).ecx, 832u);
}

TEST(Cpuid, TopologyIsCoresOfOnePackage) {
    const CpuidContext c{.cpus = 6, .apic_id = 5};
    EXPECT_EQ(cpuid(c, 1, 0).ebx >> 16 & 0xff, 6u);
    EXPECT_NE(cpuid(c, 1, 0).edx & (1 << 28), 0u);
    const CpuidResult threads = cpuid(c, 0xb, 0);
    EXPECT_EQ(threads.eax, 0u);
    EXPECT_EQ(threads.ebx, 1u);
    EXPECT_EQ(threads.ecx, 0x100u);
    const CpuidResult cores = cpuid(c, 0xb, 1);
    EXPECT_EQ(cores.eax, 3u);
    EXPECT_EQ(cores.ebx, 6u);
    EXPECT_EQ(cores.ecx, 0x201u);
    EXPECT_EQ(cores.edx, 5u);
    EXPECT_EQ(cpuid(c, 0xb, 2).ebx, 0u);
    EXPECT_EQ(cpuid(c, 0x8000'0008, 0).ecx & 0xff, 5u);
    EXPECT_EQ(cpuid(c, 0x8000'0008, 0).ecx >> 12 & 15, 3u);
    EXPECT_EQ(cpuid(c, 0x8000'001e, 0).eax, 5u);
}

TEST(Cpuid, CacheLeavesAgree) {
    // EBX+1 fields times ECX+1 is the size; leaf 0x8000001D against 0x80000005 and 6.
    const auto size = [](u32 subleaf) {
        const CpuidResult r = cpuid({}, 0x8000'001d, subleaf);
        return u64{(r.ebx & 0xfff) + 1} * ((r.ebx >> 12 & 0x3ff) + 1) * ((r.ebx >> 22) + 1) *
               (u64{r.ecx} + 1);
    };
    EXPECT_EQ(size(0), u64{cpuid({}, 0x8000'0005, 0).ecx >> 24} * 1024);
    EXPECT_EQ(size(1), u64{cpuid({}, 0x8000'0005, 0).edx >> 24} * 1024);
    EXPECT_EQ(size(2), u64{cpuid({}, 0x8000'0006, 0).ecx >> 16} * 1024);
    EXPECT_EQ(size(3), u64{cpuid({}, 0x8000'0006, 0).edx >> 18} * 512 * 1024);
    EXPECT_EQ(cpuid({}, 0x8000'001d, 4).eax & 0x1f, 0u);
}

TEST(Cpuid, LeavesOutsideTheRangesAreZero) {
    for (const u32 leaf : {0x0eu, 0x1000u, 0x3fff'ffffu, 0x4000'0011u, 0x8000'0022u, 0xffff'ffffu})
        EXPECT_EQ(cpuid({}, leaf, 0), CpuidResult{}) << leaf;
}

}  // namespace
}  // namespace tessera::x86
