#include "cpu/kvm/cpuid.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <fmt/format.h>
#include <string>
#include <string_view>
#include <sys/ioctl.h>

namespace tessera::kvm {

namespace {

using Entry = kvm_cpuid_entry2;
using x86::CpuidContext;
using x86::CpuidResult;
using x86::FeatureLevel;

constexpr u32 bit(unsigned number) {
    return u32{1} << number;
}

// Leaf 1.
constexpr u32 kVmx = bit(5), kFma = bit(12), kX2apic = bit(21), kTscDeadline = bit(24), kXsave = bit(26),
              kOsxsave = bit(27), kAvx = bit(28), kF16c = bit(29), kHypervisor = bit(31);
constexpr u32 kApic = bit(9), kHtt = bit(28);  // EDX
constexpr u32 kArat = bit(2);                  // leaf 6 EAX
// Leaf 7.
constexpr u32 kSgx = bit(2), kAvx2 = bit(5);                 // EBX
constexpr u32 kOspke = bit(4), kSgxLaunchControl = bit(30);  // ECX
// Leaf 0x80000001 ECX.
constexpr u32 kCmpLegacy = bit(1), kSvm = bit(2), kTopologyExtensions = bit(22);
constexpr u32 kXcr0Avx = bit(2);

// --- what the psABI's levels ask for beyond the first processors of 64 bits [ELF psABI table 3.1]

struct Wanted {
    FeatureLevel level;
    u32 leaf;
    u32 Entry::* reg;
    unsigned number;
    std::string_view name;
};
using enum FeatureLevel;
constexpr u32 kExtended1 = 0x8000'0001;
constexpr std::array kWanted{
    Wanted{V2, 1, &Entry::ecx, 0, "SSE3"},          Wanted{V2, 1, &Entry::ecx, 9, "SSSE3"},
    Wanted{V2, 1, &Entry::ecx, 13, "CMPXCHG16B"},   Wanted{V2, 1, &Entry::ecx, 19, "SSE4.1"},
    Wanted{V2, 1, &Entry::ecx, 20, "SSE4.2"},       Wanted{V2, 1, &Entry::ecx, 23, "POPCNT"},
    Wanted{V2, kExtended1, &Entry::ecx, 0, "LAHF"}, Wanted{V3, 1, &Entry::ecx, 12, "FMA"},
    Wanted{V3, 1, &Entry::ecx, 22, "MOVBE"},        Wanted{V3, 1, &Entry::ecx, 26, "XSAVE"},
    Wanted{V3, 1, &Entry::ecx, 28, "AVX"},          Wanted{V3, 1, &Entry::ecx, 29, "F16C"},
    Wanted{V3, 7, &Entry::ebx, 3, "BMI1"},          Wanted{V3, 7, &Entry::ebx, 5, "AVX2"},
    Wanted{V3, 7, &Entry::ebx, 8, "BMI2"},          Wanted{V3, kExtended1, &Entry::ecx, 5, "LZCNT"}};

// --- the leaves being made

class Leaves {
public:
    Leaves(std::span<const Entry> supported, const CpuidRequest& request)
        : entries_(supported.begin(), supported.end()),
          request_(request),
          context_{.level = request.level.value_or(FeatureLevel::Max),
                   .cpus = std::max(request.cpus, 1U),
                   .apic_id = request.apic_id} {
        entries_.reserve(entries_.size() + 16);
    }

    [[nodiscard]] std::string missing() const;
    // The model: features and leaves that it does not have.
    void leave_out_foreign();
    void restrict_to_level();
    // The board.
    void put_processor();
    void put_topology();
    void put_frequencies();
    void put_kvm();
    // Greatest leaves, and no leaf that says nothing.
    void finish();
    [[nodiscard]] GuestCpuid result() &&;

private:
    [[nodiscard]] const Entry* find(u32 function, u32 index = 0) const {
        const auto found = std::ranges::find_if(
            entries_, [&](const Entry& e) { return e.function == function && e.index == index; });
        return found == entries_.end() ? nullptr : &*found;
    }
    [[nodiscard]] Entry* find(u32 function, u32 index = 0) {
        return const_cast<Entry*>(std::as_const(*this).find(function, index));
    }
    void remove(u32 function) {
        std::erase_if(entries_, [&](const Entry& e) { return e.function == function; });
    }
    void put(u32 function, const CpuidResult& value) { put_at(function, 0, value, 0); }
    void put(u32 function, u32 index, const CpuidResult& value) {
        put_at(function, index, value, KVM_CPUID_FLAG_SIGNIFCANT_INDEX);
    }
    void put_at(u32 function, u32 index, const CpuidResult& value, u32 flags) {
        Entry* entry = find(function, index);
        if (entry == nullptr) entry = &entries_.emplace_back();
        *entry = {.function = function,
                  .index = index,
                  .flags = flags,
                  .eax = value.eax,
                  .ebx = value.ebx,
                  .ecx = value.ecx,
                  .edx = value.edx,
                  .padding = {}};
    }
    // By leaf 0 [APM 3 E.3.1]; Hygon's are AMD's.
    [[nodiscard]] bool is_amd() const {
        constexpr u32 kAuth = 0x6874'7541, kHygo = 0x6f67'7948;
        const Entry* vendor = find(0);
        return vendor != nullptr && (vendor->ebx == kAuth || vendor->ebx == kHygo);
    }
    [[nodiscard]] unsigned core_bits() const {
        return static_cast<unsigned>(std::bit_width(context_.cpus - 1));
    }
    // False: the model has no such leaf.
    bool restrict_leaf(Entry& entry) const;
    void restrict_avx();

    std::vector<Entry> entries_;
    CpuidRequest request_;
    CpuidContext context_;
    unsigned physical_address_bits_ = 36;  // without leaf 0x80000008 [SDM 3A 4.1.4]
};

std::string Leaves::missing() const {
    std::string names;
    for (const Wanted& wanted : kWanted) {
        if (wanted.level > context_.level) continue;
        const Entry* entry = find(wanted.leaf);
        if (entry != nullptr && (entry->*wanted.reg & bit(wanted.number)) != 0) continue;
        names += names.empty() ? "" : ", ";
        names += wanted.name;
    }
    return names;
}

void Leaves::leave_out_foreign() {
    // SGX wants memory of its own, encryption another kind of VM.
    constexpr u32 kSgxLeaf = 0x12, kEncryption = 0x8000'001f, kSvmLeaf = 0x8000'000a;
    remove(kSgxLeaf);
    remove(kEncryption);
    if (Entry* entry = find(7)) {
        entry->ebx &= ~kSgx;
        entry->ecx &= ~(kSgxLaunchControl | kOspke);
    }
    if (request_.nested && !request_.level) return;
    remove(kSvmLeaf);
    if (Entry* entry = find(1)) entry->ecx &= ~kVmx;
    if (Entry* entry = find(kExtended1)) entry->ecx &= ~kSvm;
}

bool Leaves::restrict_leaf(Entry& entry) const {
    const CpuidResult model = x86::cpuid(context_, entry.function, entry.index);
    switch (entry.function) {
        // KVM's (put_kvm), the host's names, its caches and TLBs.
        case 0x4000'0001:
        case 0:
        case 2:
        case 4:
        case 0x8000'0000:
        case 0x8000'0002:
        case 0x8000'0003:
        case 0x8000'0004:
        case 0x8000'0005:
        case 0x8000'0006:
        case 0x8000'001d:
        case 0x8000'001e: return true;
        case 1:
            entry.ecx &= model.ecx;
            entry.edx &= model.edx;
            return true;
        case 0xd:
            if (entry.index > 2) return false;
            if (entry.index == 2) return (model.eax | model.ebx) != 0;
            entry.eax &= model.eax;
            entry.ebx = entry.ecx = entry.edx = 0;  // KVM fills in the sizes that depend on XCR0
            if (entry.index == 0) entry.ecx = model.ecx;
            return true;
        case 0x8000'0001:
            entry.ecx &= model.ecx;
            entry.edx &= model.edx;
            return true;
        case 0x8000'0008: {
            const u32 bits = std::min<u32>(entry.eax & 0xff, x86::kPhysicalAddressBits);
            entry.eax = bits | x86::kLinearAddressBits << 8;
            entry.ebx &= model.ebx;
            entry.edx = 0;
            return true;
        }
        case 6:
        case 7:
        case 0x8000'0007:
        case 0x8000'0021:
            if (entry.index != 0) return false;
            entry.eax &= model.eax;
            entry.ebx &= model.ebx;
            entry.ecx &= model.ecx;
            entry.edx &= model.edx;
            return true;
        default: return false;
    }
}

// AVX and what is built on it need XSAVE and its place in XCR0 [SDM 1 14.3].
void Leaves::restrict_avx() {
    Entry* basic = find(1);
    const Entry* areas = find(0xd);
    if (basic == nullptr) return;
    const bool xsave = (basic->ecx & kXsave) != 0 && areas != nullptr && areas->eax != 0;
    if (xsave && (areas->eax & kXcr0Avx) != 0) return;
    basic->ecx &= ~(kAvx | kFma | kF16c);
    if (Entry* entry = find(7)) entry->ebx &= ~kAvx2;
    if (xsave) return;
    basic->ecx &= ~kXsave;
    remove(0xd);
}

void Leaves::restrict_to_level() {
    if (!request_.level) return;
    std::erase_if(entries_, [&](Entry& entry) { return !restrict_leaf(entry); });
    restrict_avx();
}

void Leaves::put_processor() {
    if (Entry* entry = find(1)) {
        // KVM's local APIC has both, and so has ours.
        entry->ecx |= kHypervisor | kX2apic | kTscDeadline;
        entry->ecx &= ~kOsxsave;  // follows CR4
        entry->edx |= kApic;
    }
    // Local APIC timers go on in every sleep.
    CpuidResult power;
    if (const Entry* entry = find(6)) power = {entry->eax, entry->ebx, entry->ecx, entry->edx};
    power.eax |= kArat;
    put(6, power);
    if (const Entry* entry = find(0x8000'0008); entry != nullptr && (entry->eax & 0xff) != 0)
        physical_address_bits_ = entry->eax & 0xff;
}

// Cores of one package, one thread each, as x86::cpuid() has it.
void Leaves::put_topology() {
    const u32 cpus = context_.cpus;
    const bool amd = is_amd();
    if (Entry* entry = find(1)) {
        const u32 logical = std::min(cpus, 255U);
        const u32 brand_and_line = entry->ebx & 0xffff;
        entry->ebx = context_.apic_id << 24 | logical << 16 | brand_and_line;
        entry->edx = cpus > 1 ? entry->edx | kHtt : entry->edx & ~kHtt;
    }
    // [SDM 2A CPUID leaf 04H] Both counts are those of APIC IDs, so powers of two.
    const u32 ids = (u32{1} << core_bits()) - 1;
    for (Entry& entry : entries_) {
        constexpr u32 kDescription = 0x3fff;
        const bool any = (entry.eax & 0x1f) != 0;
        const bool shared = (entry.eax >> 5 & 7) >= 3;
        if (entry.function == 4 && any)
            entry.eax = (entry.eax & kDescription) | (shared ? std::min(ids, 0xfffU) : 0) << 14 |
                        std::min(ids, 63U) << 26;
        if (entry.function == 0x8000'001d && any)
            entry.eax = (entry.eax & kDescription) | (shared ? std::min(cpus - 1, 0xfffU) : 0) << 14;
    }
    constexpr u32 kTopology = 0xb, kTopologyV2 = 0x1f;
    const bool v2 = find(kTopologyV2) != nullptr;
    remove(kTopology);
    remove(kTopologyV2);
    for (u32 index = 0; index < 3; ++index) {
        const CpuidResult level = x86::cpuid(context_, kTopology, index);
        put(kTopology, index, level);
        if (v2) put(kTopologyV2, index, level);
    }
    if (Entry* entry = find(0x8000'0008)) entry->ecx = amd ? x86::cpuid(context_, 0x8000'0008, 0).ecx : 0;
    Entry* extended = find(kExtended1);
    if (extended == nullptr || !amd) return;
    extended->ecx = cpus > 1 ? extended->ecx | kCmpLegacy : extended->ecx & ~kCmpLegacy;
    if ((extended->ecx & kTopologyExtensions) != 0) put(0x8000'001e, x86::cpuid(context_, 0x8000'001e, 0));
}

// [SDM 2A CPUID leaves 15H, 16H] TSC = crystal * EBX / EAX. The crystal feeds the local APIC's timer, which
// counts at 1 GHz in KVM and in our own.
void Leaves::put_frequencies() {
    constexpr u32 kTscLeaf = 0x15, kMhzLeaf = 0x16, kCrystalHz = 1'000'000'000;
    remove(kTscLeaf);
    remove(kMhzLeaf);
    if (request_.tsc_khz == 0 || request_.tsc_khz > 0xffff'ffff) return;
    const auto khz = static_cast<u32>(request_.tsc_khz);
    put(kTscLeaf, {.eax = kCrystalHz / 1000, .ebx = khz, .ecx = kCrystalHz, .edx = 0});
    constexpr u32 kBusMhz = 100;
    put(kMhzLeaf, {.eax = khz / 1000, .ebx = khz / 1000, .ecx = kBusMhz, .edx = 0});
}

// [LINUX-KVM cpuid]
void Leaves::put_kvm() {
    constexpr u32 kBase = 0x4000'0000, kFeatures = kBase + 1, kFrequencies = kBase + 0x10;
    enum : u32 {
        kNoIoDelay = bit(1),
        kClocksource2 = bit(3),
        kAsyncPf = bit(4),
        kStealTime = bit(5),
        kPvEoi = bit(6),
        kUnhalt = bit(7),
        kTlbFlush = bit(9),
        kAsyncPfVmexit = bit(10),
        kSendIpi = bit(11),
        kPollControl = bit(12),
        kSchedYield = bit(13),
        kAsyncPfInt = bit(14),
        kStableClock = bit(24),
    };
    // Everything that a vCPU does alone. The clock's first MSRs (bit 0) are other names for the second ones.
    u32 offered = kNoIoDelay | kClocksource2 | kStealTime | kTlbFlush | kPollControl | kStableClock;
    if (request_.apics == LocalApics::Kernel)
        offered |= kAsyncPf | kPvEoi | kUnhalt | kAsyncPfVmexit | kSendIpi | kSchedYield | kAsyncPfInt;
    // Who waits for these would wait for ever in the software CPU.
    if (request_.level) offered &= ~(kUnhalt | kTlbFlush | kAsyncPf | kAsyncPfVmexit | kAsyncPfInt);
    if (!request_.hypercalls) offered &= ~(kUnhalt | kSendIpi | kSchedYield);
    const Entry* features = find(kFeatures);
    const CpuidResult ours{.eax = features != nullptr ? features->eax & offered : 0};

    std::erase_if(entries_, [](const Entry& e) { return e.function >> 28 == 4; });
    std::array<u32, 3> name{};
    std::memcpy(name.data(), "KVMKVMKVM\0\0", 12);
    const bool frequencies = request_.tsc_khz != 0 && request_.tsc_khz <= 0xffff'ffff;
    put(kBase,
        {.eax = frequencies ? kFrequencies : kFeatures, .ebx = name[0], .ecx = name[1], .edx = name[2]});
    put(kFeatures, ours);
    // The widespread convention: kHz of TSC and APIC bus.
    if (frequencies)
        put(kFrequencies, {.eax = static_cast<u32>(request_.tsc_khz), .ebx = 1'000'000, .ecx = 0, .edx = 0});
}

void Leaves::finish() {
    std::erase_if(entries_, [](const Entry& e) {
        return (e.eax | e.ebx | e.ecx | e.edx) == 0 && e.function != 0x4000'0001;
    });
    const auto greatest = [&](u32 range) {
        u32 most = range;
        for (const Entry& entry : entries_)
            if (entry.function >> 16 == range >> 16) most = std::max(most, entry.function);
        return most;
    };
    if (Entry* entry = find(0)) entry->eax = std::max(greatest(0), 0xdU);
    if (Entry* entry = find(0x8000'0000)) entry->eax = greatest(0x8000'0000);
}

GuestCpuid Leaves::result() && {
    return {.entries = std::move(entries_), .physical_address_bits = physical_address_bits_};
}

}  // namespace

Result<GuestCpuid> guest_cpuid(std::span<const kvm_cpuid_entry2> supported, const CpuidRequest& request) {
    Leaves leaves(supported, request);
    if (request.level && *request.level != FeatureLevel::Max) {
        const std::string missing = leaves.missing();
        if (!missing.empty())
            return fail(Errc::Unsupported,
                        fmt::format("this host's KVM cannot be an x86-64-v{}: it lacks {}; --cpu host and "
                                    "--cpu max take what there is",
                                    *request.level == FeatureLevel::V2 ? 2 : 3, missing));
    }
    leaves.leave_out_foreign();
    leaves.restrict_to_level();
    leaves.put_processor();
    leaves.put_topology();
    leaves.put_frequencies();
    leaves.put_kvm();
    leaves.finish();
    return std::move(leaves).result();
}

Result<GuestCpuid> guest_cpuid(const Host& host, const CpuidRequest& request) {
    return guest_cpuid(host.supported_cpuid(), request);
}

Status set_cpuid(int vcpu, std::span<const kvm_cpuid_entry2> entries) {
    std::vector<u64> buffer((sizeof(kvm_cpuid2) + entries.size_bytes()) / sizeof(u64) + 1);
    auto* list = reinterpret_cast<kvm_cpuid2*>(buffer.data());
    list->nent = static_cast<u32>(entries.size());
    std::memcpy(&list->entries[0], entries.data(), entries.size_bytes());
    if (ioctl(vcpu, KVM_SET_CPUID2, list) < 0) return call_failed("KVM_SET_CPUID2");
    return {};
}

}  // namespace tessera::kvm
