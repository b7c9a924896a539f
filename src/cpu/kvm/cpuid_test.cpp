// CPUID under KVM, with hosts of the test's own and with the real one.
#include "cpu/kvm/cpuid.h"

#include <algorithm>
#include <gtest/gtest.h>
#include <string>

#include "cpu/kvm/testing/test_vm.h"

namespace tessera::kvm {
namespace {

using x86::FeatureLevel;

constexpr u32 bit(unsigned number) {
    return u32{1} << number;
}

kvm_cpuid_entry2 leaf(u32 function, u32 index, u32 eax, u32 ebx, u32 ecx, u32 edx) {
    kvm_cpuid_entry2 entry{};
    entry.function = function;
    entry.index = index;
    entry.eax = eax;
    entry.ebx = ebx;
    entry.ecx = ecx;
    entry.edx = edx;
    return entry;
}

// Everything of x86-64-v3 in leaf 1, and AES (25), VMX (5), PCLMULQDQ (1).
constexpr u32 kEcx1 = bit(0) | bit(1) | bit(5) | bit(9) | bit(12) | bit(13) | bit(19) | bit(20) | bit(22) |
                      bit(23) | bit(25) | bit(26) | bit(28) | bit(29);
constexpr u32 kEdx1 = 0x078b'fbff & ~bit(9);
// FSGSBASE, SGX, BMI1, AVX2, BMI2, AVX512F.
constexpr u32 kEbx7 = bit(0) | bit(2) | bit(3) | bit(5) | bit(8) | bit(16);
constexpr u32 kSpecCtrl = bit(26);

std::vector<kvm_cpuid_entry2> intel() {
    return {leaf(0, 0, 0x1f, 0x756e'6547, 0x6c65'746e, 0x4965'6e69),
            leaf(1, 0, 0x0006'06a6, 0x0710'0800, kEcx1, kEdx1),
            // Two threads share L1 and L2, sixteen the L3; up to 32 cores.
            leaf(4, 0, 0x7c00'4121, 0x02c0'003f, 0x3f, 0), leaf(4, 2, 0x7c00'4143, 0x04c0'003f, 0x3ff, 0),
            leaf(4, 3, 0x7c03'c163, 0x02c0'003f, 0xefff, 4), leaf(6, 0, 0, 0, 0, 0),
            leaf(7, 0, 1, kEbx7, bit(4) | bit(16), kSpecCtrl), leaf(7, 1, bit(4), 0, 0, 0),
            leaf(0xa, 0, 0x0830'0805, 0, 0, 0x603), leaf(0xb, 0, 1, 2, 0x100, 9),
            leaf(0xb, 1, 4, 16, 0x201, 9), leaf(0xd, 0, 0xe7, 0x340, 0xa80, 0),
            leaf(0xd, 1, 0xf, 0x340, 0x900, 0), leaf(0xd, 2, 256, 576, 0, 0), leaf(0xd, 5, 64, 1088, 0, 0),
            leaf(0x12, 0, 1, 0, 0, 0), leaf(0x1f, 0, 1, 2, 0x100, 9),
            leaf(0x8000'0000, 0, 0x8000'0008, 0, 0, 0),
            leaf(0x8000'0001, 0, 0, 0, bit(0) | bit(5) | bit(8), 0x2c10'0800),
            leaf(0x8000'0007, 0, 0, 0, 0, bit(8)), leaf(0x8000'0008, 0, 0x0000'392e, 0, 0, 0),
            leaf(0x4000'0000, 0, 0x4000'0001, 0x4b4d'564b, 0x564b'4d56, 0x4d),
            leaf(0x4000'0001, 0, 0x0100'7efb | bit(15) | bit(17), 0, 0, 0)};
}
std::vector<kvm_cpuid_entry2> amd() {
    auto leaves = intel();
    std::erase_if(leaves, [](const kvm_cpuid_entry2& e) {
        return e.function == 4 || e.function == 0x1f || e.function == 0x12 || e.function == 0xa;
    });
    for (auto& entry : leaves) {
        if (entry.function == 0) entry = leaf(0, 0, 0xd, 0x6874'7541, 0x444d'4163, 0x6974'6e65);
        if (entry.function == 1) entry.ecx &= ~bit(5);
        // SVM, topology extensions.
        if (entry.function == 0x8000'0001) entry.ecx |= bit(2) | bit(22);
        if (entry.function == 0x8000'0000) entry.eax = 0x8000'0021;
    }
    leaves.push_back(leaf(0x8000'000a, 0, 1, 8, 0, 0xff));
    leaves.push_back(leaf(0x8000'001d, 0, 0x4121, 0x01c0'003f, 0x3f, 0));
    leaves.push_back(leaf(0x8000'001d, 3, 0x0003'c163, 0x03c0'003f, 0x7fff, 1));
    leaves.push_back(leaf(0x8000'001e, 0, 9, 0x104, 0, 0));
    leaves.push_back(leaf(0x8000'001f, 0, 2, 0x16f, 15, 1));
    leaves.push_back(leaf(0x8000'0021, 0, bit(2) | bit(8) | bit(18), 0, 0, 0));
    return leaves;
}

class Answer {
public:
    Answer(std::span<const kvm_cpuid_entry2> host, const CpuidRequest& request) {
        auto made = guest_cpuid(host, request);
        EXPECT_TRUE(made) << made.error().message;
        if (made) guest = *std::move(made);
    }
    [[nodiscard]] kvm_cpuid_entry2 at(u32 function, u32 index = 0) const {
        for (const kvm_cpuid_entry2& entry : guest.entries)
            if (entry.function == function && entry.index == index) return entry;
        return {};
    }
    [[nodiscard]] bool has(u32 function, u32 index = 0) const {
        return std::ranges::any_of(guest.entries, [&](const kvm_cpuid_entry2& entry) {
            return entry.function == function && entry.index == index;
        });
    }

    GuestCpuid guest;
};

TEST(KvmCpuidTest, HostModelHasWhatTheHostHas) {
    const Answer answer(intel(), {});
    EXPECT_EQ(answer.at(1).eax, 0x0006'06a6u);
    EXPECT_EQ(answer.at(1).ecx & kEcx1, kEcx1 & ~bit(5)) << "all but VMX";
    EXPECT_EQ(answer.at(7).ebx, kEbx7 & ~bit(2)) << "all but SGX";
    EXPECT_EQ(answer.at(7).edx, kSpecCtrl);
    EXPECT_EQ(answer.at(7, 1).eax, bit(4));
    EXPECT_EQ(answer.at(0xa).eax, 0x0830'0805u);
    EXPECT_EQ(answer.at(0xd).eax, 0xe7u);
    EXPECT_TRUE(answer.has(0xd, 5));
    EXPECT_FALSE(answer.has(0x12));
    EXPECT_EQ(answer.guest.physical_address_bits, 46u);
    EXPECT_FALSE(Answer(amd(), {}).has(0x8000'001f)) << "memory encryption";
}

TEST(KvmCpuidTest, HypervisorX2apicAndDeadlineTimerAreAlwaysThere) {
    // 31 hypervisor, 24 TSC deadline, 21 x2APIC; EDX 9 APIC; leaf 6 EAX 2 ARAT.
    for (const std::optional<FeatureLevel> level :
         {std::optional<FeatureLevel>{}, std::optional{FeatureLevel::V2}})
        for (const LocalApics apics : {LocalApics::Kernel, LocalApics::User}) {
            const Answer answer(amd(), {.level = level, .apics = apics});
            EXPECT_EQ(~answer.at(1).ecx & (bit(31) | bit(24) | bit(21)), 0u);
            EXPECT_EQ(answer.at(1).ecx & bit(27), 0u) << "OSXSAVE follows CR4";
            EXPECT_NE(answer.at(1).edx & bit(9), 0u);
            EXPECT_EQ(answer.at(6).eax, bit(2));
        }
}

TEST(KvmCpuidTest, NestedVirtualizationOnlyWhenAskedFor) {
    EXPECT_EQ(Answer(intel(), {}).at(1).ecx & bit(5), 0u);
    EXPECT_NE(Answer(intel(), {.nested = true}).at(1).ecx & bit(5), 0u);
    EXPECT_EQ(Answer(amd(), {}).at(0x8000'0001).ecx & bit(2), 0u);
    EXPECT_FALSE(Answer(amd(), {}).has(0x8000'000a));
    EXPECT_NE(Answer(amd(), {.nested = true}).at(0x8000'0001).ecx & bit(2), 0u);
    EXPECT_TRUE(Answer(amd(), {.nested = true}).has(0x8000'000a));
    const Answer named(amd(), {.level = FeatureLevel::Max, .nested = true});
    EXPECT_EQ(named.at(0x8000'0001).ecx & bit(2), 0u) << "no named model has it";
    EXPECT_FALSE(named.has(0x8000'000a));
}

// --- named models

TEST(KvmCpuidTest, NamedModelsAreTheirFeaturesAndTheHosts) {
    const Answer v2(intel(), {.level = FeatureLevel::V2});
    const Answer v3(intel(), {.level = FeatureLevel::V3});
    const Answer max(intel(), {.level = FeatureLevel::Max});
    constexpr u32 kV2 = bit(0) | bit(9) | bit(13) | bit(19) | bit(20) | bit(23);
    constexpr u32 kV3 = bit(12) | bit(22) | bit(26) | bit(28) | bit(29), kAes = bit(25);
    EXPECT_EQ(v2.at(1).ecx & (kV2 | kV3 | kAes), kV2);
    EXPECT_EQ(v3.at(1).ecx & (kV2 | kV3 | kAes), kV2 | kV3);
    EXPECT_EQ(max.at(1).ecx & (kV2 | kV3 | kAes), kV2 | kV3 | kAes);
    EXPECT_EQ(max.at(1).ecx & bit(30), 0u) << "RDRAND is the model's and not the host's";
    EXPECT_EQ(v2.at(7).ebx, bit(0));
    EXPECT_EQ(v3.at(7).ebx, bit(0) | bit(3) | bit(5) | bit(8));
    EXPECT_EQ(max.at(7).ebx & bit(16), 0u) << "AVX-512 is the host's and not the model's";
    EXPECT_EQ(max.at(7).edx & kSpecCtrl, 0u);
    EXPECT_FALSE(max.has(7, 1));
    EXPECT_FALSE(max.has(0xa));
    EXPECT_FALSE(v2.has(0xd));
    EXPECT_EQ(v3.at(0xd).eax, 7u);
    EXPECT_EQ(v3.at(0xd).ecx, 832u);
    EXPECT_TRUE(v3.has(0xd, 2));
    EXPECT_FALSE(v3.has(0xd, 5));
    EXPECT_EQ(v3.at(0xd, 1).ecx, 0u) << "no supervisor states";
    EXPECT_EQ(v3.at(0x8000'0007).edx, bit(8));
    EXPECT_EQ(v3.at(0x8000'0008).eax, 0x302eu) << "46 bits, and 48 linear";
}

// What a guest defends itself against is the host's processor.
TEST(KvmCpuidTest, NamedModelsKeepTheHostsName) {
    for (const auto& host : {intel(), amd()}) {
        const Answer named(host, {.level = FeatureLevel::V3});
        const Answer whole(host, {});
        EXPECT_EQ(named.at(0).ebx, whole.at(0).ebx);
        EXPECT_EQ(named.at(1).eax, whole.at(1).eax);
    }
}

TEST(KvmCpuidTest, LevelsThatTheHostLacksAreRefusedByFeature) {
    auto host = intel();
    for (auto& entry : host) {
        if (entry.function == 1) entry.ecx &= ~(bit(0) | bit(12));
        if (entry.function == 7 && entry.index == 0) entry.ebx &= ~bit(5);
    }
    const auto v2 = guest_cpuid(host, {.level = FeatureLevel::V2});
    ASSERT_FALSE(v2);
    EXPECT_EQ(
        v2.error().message,
        "this host's KVM cannot be an x86-64-v2: it lacks SSE3; --cpu host and --cpu max take what there is");
    const auto v3 = guest_cpuid(host, {.level = FeatureLevel::V3});
    ASSERT_FALSE(v3);
    EXPECT_NE(v3.error().message.find("lacks SSE3, FMA, AVX2;"), std::string::npos) << v3.error().message;
    EXPECT_EQ(Answer(host, {.level = FeatureLevel::Max}).at(1).ecx & bit(12), 0u);
}

TEST(KvmCpuidTest, WithoutXsaveThereIsNoAvxEither) {
    auto host = intel();
    for (auto& entry : host)
        if (entry.function == 1) entry.ecx &= ~bit(26);
    const Answer max(host, {.level = FeatureLevel::Max});
    EXPECT_EQ(max.at(1).ecx & (bit(12) | bit(26) | bit(28) | bit(29)), 0u);
    EXPECT_EQ(max.at(7).ebx & bit(5), 0u);
    EXPECT_FALSE(max.has(0xd));
}

// --- topology

struct Topology {
    unsigned cpus;
    unsigned bits;  // of the APIC ID
};

TEST(KvmCpuidTest, TopologyIsCoresOfOnePackage) {
    for (const Topology t : {Topology{1, 0}, Topology{3, 2}, Topology{4, 2}, Topology{16, 4}}) {
        SCOPED_TRACE(t.cpus);
        const u32 id = t.cpus - 1;
        for (const auto& host : {intel(), amd()}) {
            const Answer answer(host, {.cpus = t.cpus, .apic_id = id});
            EXPECT_EQ(answer.at(1).ebx, id << 24 | t.cpus << 16 | 0x0800) << "ID, count, 64-byte lines";
            EXPECT_EQ(answer.at(1).edx >> 28 & 1, t.cpus > 1 ? 1u : 0u);
            EXPECT_EQ(answer.at(0xb, 0).ebx, 1u);
            EXPECT_EQ(answer.at(0xb, 0).ecx, 0x100u);
            EXPECT_EQ(answer.at(0xb, 0).edx, id);
            EXPECT_EQ(answer.at(0xb, 1).eax, t.bits);
            EXPECT_EQ(answer.at(0xb, 1).ebx, t.cpus);
            EXPECT_EQ(answer.at(0xb, 1).ecx, 0x201u);
            EXPECT_EQ(answer.at(0xb, 1).edx, id);
            EXPECT_EQ(answer.at(0xb, 2).ecx, 2u) << "the end";
            EXPECT_EQ(answer.at(0xb, 0).flags, u32{KVM_CPUID_FLAG_SIGNIFCANT_INDEX});
        }
        const Answer intels(intel(), {.cpus = t.cpus, .apic_id = id});
        const u32 ids = (1U << t.bits) - 1;
        EXPECT_EQ(intels.at(4, 0).eax, ids << 26 | 0x121u) << "L1 is a core's own";
        EXPECT_EQ(intels.at(4, 3).eax, ids << 26 | ids << 14 | 0x163u);
        EXPECT_EQ(intels.at(4, 3).ecx, 0xefffu) << "of the host's size";
        EXPECT_EQ(intels.at(0x1f, 1).ebx, t.cpus);
        EXPECT_EQ(intels.at(0x8000'0008).ecx, 0u);

        const Answer amds(amd(), {.cpus = t.cpus, .apic_id = id});
        EXPECT_EQ(amds.at(0x8000'001d, 0).eax, 0x121u);
        EXPECT_EQ(amds.at(0x8000'001d, 3).eax, (t.cpus - 1) << 14 | 0x163u);
        EXPECT_EQ(amds.at(0x8000'001e).eax, id);
        EXPECT_EQ(amds.at(0x8000'001e).ebx, id) << "core ID, one thread";
        EXPECT_EQ(amds.at(0x8000'0008).ecx, (t.cpus - 1) | t.bits << 12);
        EXPECT_EQ(amds.at(0x8000'0001).ecx >> 1 & 1, t.cpus > 1 ? 1u : 0u) << "CmpLegacy";
        EXPECT_FALSE(amds.has(0x1f));
    }
}

// --- KVM's own leaves, frequencies, ranges

TEST(KvmCpuidTest, KvmsOffersDependOnWhereTheApicIs) {
    const Answer kernel(intel(), {});
    EXPECT_EQ(kernel.at(0x4000'0000).ebx, 0x4b4d'564bu);
    EXPECT_EQ(kernel.at(0x4000'0000).edx, 0x4du);
    EXPECT_EQ(kernel.at(0x4000'0000).eax, 0x4000'0001u);
    // Clock 3 and 24, steal time 5, EOI 6, unhalt 7, TLB 9, IPI 11, poll 12, yield 13, async PF 4, 10, 14.
    EXPECT_EQ(kernel.at(0x4000'0001).eax, 0x0100'7efau);
    const Answer user(intel(), {.apics = LocalApics::User});
    EXPECT_EQ(user.at(0x4000'0001).eax, bit(1) | bit(3) | bit(5) | bit(9) | bit(12) | bit(24));
    const Answer named(intel(), {.level = FeatureLevel::V3});
    EXPECT_EQ(named.at(0x4000'0001).eax, 0x0100'7efau & ~(bit(4) | bit(7) | bit(9) | bit(10) | bit(14)));
    const Answer silent(intel(), {.hypercalls = false});
    EXPECT_EQ(silent.at(0x4000'0001).eax, 0x0100'7efau & ~(bit(7) | bit(11) | bit(13)));
}

TEST(KvmCpuidTest, FrequenciesAreToldWhereTheyAreKnown) {
    const Answer unknown(intel(), {});
    EXPECT_FALSE(unknown.has(0x15));
    EXPECT_FALSE(unknown.has(0x4000'0010));
    const Answer known(intel(), {.level = FeatureLevel::V2, .tsc_khz = 2'445'430});
    const kvm_cpuid_entry2 tsc = known.at(0x15);
    EXPECT_EQ(u64{tsc.ecx} * tsc.ebx / tsc.eax, 2'445'430'000u);
    EXPECT_EQ(tsc.ecx, 1'000'000'000u) << "the local APIC's clock";
    EXPECT_EQ(known.at(0x16).eax, 2445u);
    EXPECT_EQ(known.at(0x4000'0010).eax, 2'445'430u);
    EXPECT_EQ(known.at(0x4000'0010).ebx, 1'000'000u);
    EXPECT_EQ(known.at(0x4000'0000).eax, 0x4000'0010u);
    EXPECT_EQ(known.at(0).eax, 0x16u);
}

TEST(KvmCpuidTest, RangesEndWithTheirLastLeaf) {
    EXPECT_EQ(Answer(intel(), {}).at(0).eax, 0x1fu);
    EXPECT_EQ(Answer(intel(), {.level = FeatureLevel::V2}).at(0).eax, 0xdu);
    EXPECT_EQ(Answer(intel(), {}).at(0x8000'0000).eax, 0x8000'0008u);
    EXPECT_EQ(Answer(amd(), {.level = FeatureLevel::Max}).at(0x8000'0000).eax, 0x8000'0021u);
    const Answer max(amd(), {.level = FeatureLevel::Max});
    EXPECT_EQ(max.at(0x8000'0021).eax, bit(2) | bit(8));
}

// --- the real one

TEST(KvmCpuidTest, ThisHostTakesWhatIsMadeForIt) {
    std::string why;
    const auto vm = TestVm::create(TestVm::Chips::Kernel, why);
    if (vm == nullptr) GTEST_SKIP() << why;
    for (const std::optional<FeatureLevel> level :
         {std::optional<FeatureLevel>{}, std::optional{FeatureLevel::Max}, std::optional{FeatureLevel::V2}}) {
        const auto made =
            guest_cpuid(vm->host, {.level = level, .cpus = 4, .apic_id = 0, .tsc_khz = 2'000'000});
        if (!made) {
            EXPECT_EQ(level, FeatureLevel::V2) << "only a level may be out of reach";
            continue;
        }
        const Status set = set_cpuid(vm->vcpu.get(), made->entries);
        EXPECT_TRUE(set) << set.error().message;
        EXPECT_GE(made->physical_address_bits, 32u);
        EXPECT_LE(made->entries.size(), 80u) << "what old kernels take";
    }
}

}  // namespace
}  // namespace tessera::kvm
