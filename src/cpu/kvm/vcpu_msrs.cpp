#include "cpu/kvm/vcpu_msrs.h"

#include <algorithm>
#include <array>
#include <fmt/format.h>
#include <optional>
#include <sys/ioctl.h>

#include "cpu/kvm/msr_index.h"

namespace tessera::kvm {

namespace {

enum Index : u32 {
    kOldWallClock = 0x11,
    kOldSystemTime = 0x12,
    kMcgCap = 0x179,
    kMiscEnable = 0x1a0,
    kMtrrVariable = 0x200,
    kFirstBank = 0x400,
    kAsyncPfAck = 0x4b56'4d07,
};

constexpr u64 kMostNamed = 64;

// Calls visit(index, field) for every MSR that has a field. [SDM 4 table 2-2], [LINUX-KVM msr]
template <typename Msrs, typename Visit>
void visit_msrs(Msrs& msrs, Visit visit) {
    visit(kMsrTscAdjust, msrs.tsc_adjust);
    visit(0x048, msrs.spec_ctrl);
    visit(0x174, msrs.sysenter_cs);
    visit(0x175, msrs.sysenter_esp);
    visit(0x176, msrs.sysenter_eip);
    visit(0x17a, msrs.mcg_status);
    visit(kMiscEnable, msrs.misc_enable);
    for (u32 i = 0; i < msrs.mtrr_variable.size(); ++i) visit(kMtrrVariable + i, msrs.mtrr_variable[i]);
    constexpr std::array<u32, 11> kFixed{0x250, 0x258, 0x259, 0x268, 0x269, 0x26a,
                                         0x26b, 0x26c, 0x26d, 0x26e, 0x26f};
    for (unsigned i = 0; i < kFixed.size(); ++i) visit(kFixed[i], msrs.mtrr_fixed[i]);
    visit(0x277, msrs.pat);
    visit(0x2ff, msrs.mtrr_def_type);
    visit(0xda0, msrs.xss);
    visit(0xc000'0081, msrs.star);
    visit(0xc000'0082, msrs.lstar);
    visit(0xc000'0083, msrs.cstar);
    visit(0xc000'0084, msrs.fmask);
    visit(0xc000'0102, msrs.kernel_gs_base);
    visit(0xc000'0103, msrs.tsc_aux);
    visit(0x4b56'4d00, msrs.kvm_wall_clock);
    visit(0x4b56'4d01, msrs.kvm_system_time);
    visit(0x4b56'4d03, msrs.kvm_steal_time);
    visit(0x4b56'4d04, msrs.kvm_pv_eoi);
    visit(0x4b56'4d05, msrs.kvm_poll_control);
    // Enabled last, when the vector is there.
    visit(0x4b56'4d06, msrs.kvm_async_pf_vector);
    visit(0x4b56'4d02, msrs.kvm_async_pf);
}

[[nodiscard]] std::optional<u64> value_of(std::span<const kvm_msr_entry> entries, u32 index) {
    const auto found = std::ranges::find(entries, index, &kvm_msr_entry::index);
    if (found == entries.end()) return std::nullopt;
    return found->data;
}

// Bits that say what the processor lacks, and no guest can write [SDM 4 table 2-2].
[[nodiscard]] u64 read_only_bits(u32 index) {
    constexpr u64 kPerformanceMonitoring = 1 << 7, kNoBranchTrace = 1 << 11, kNoSampling = 1 << 12;
    return index == kMiscEnable ? kPerformanceMonitoring | kNoBranchTrace | kNoSampling : 0;
}

[[nodiscard]] bool is_hyper_v(u32 index) {
    return index >= 0x4000'0000 && index < 0x4000'0200;
}
[[nodiscard]] bool is_bank(u32 index) {
    constexpr u32 kBankEnd = kFirstBank + 4 * 32;
    return index >= kFirstBank && index < kBankEnd;
}

// Has no field, and is no other part's either.
[[nodiscard]] bool is_carried(u32 index, std::span<const u32> named) {
    constexpr std::array<u32, 6> kElsewhere{kMsrTsc,      kOldWallClock,   kOldSystemTime,
                                            kMsrApicBase, kMsrTscDeadline, kAsyncPfAck};
    constexpr std::array<u32, 3> kSpecialRegisters{0xc000'0080, 0xc000'0100, 0xc000'0101};
    const auto is = [index](u32 other) { return index == other; };
    return !std::ranges::any_of(kElsewhere, is) && !std::ranges::any_of(kSpecialRegisters, is) &&
           !std::ranges::any_of(named, is) && !is_hyper_v(index) &&
           !(index >= kMsrX2apicFirst && index <= kMsrX2apicLast);
}

// One call's worth.
struct Block {
    static constexpr u32 kEntries = 128;

    kvm_msrs header{};
    std::array<kvm_msr_entry, kEntries> entries{};
};
static_assert(offsetof(Block, entries) == sizeof(kvm_msrs));

}  // namespace

Result<std::vector<kvm_msr_entry>> get_msrs(int vcpu, std::span<const u32> indices) {
    std::vector<kvm_msr_entry> values;
    values.reserve(indices.size());
    while (!indices.empty()) {
        Block block;
        const u64 count = std::min<u64>(indices.size(), Block::kEntries);
        for (u64 i = 0; i < count; ++i) block.entries[i].index = indices[i];
        block.header.nmsrs = static_cast<u32>(count);
        // The answer is how many it got through before one it cannot read.
        const int done = ioctl(vcpu, KVM_GET_MSRS, &block.header);
        if (done < 0) return call_failed("KVM_GET_MSRS");
        const u64 read = std::min(static_cast<u64>(done), count);
        values.insert(values.end(), block.entries.begin(), block.entries.begin() + static_cast<s64>(read));
        indices = indices.subspan(std::min<u64>(read < count ? read + 1 : read, indices.size()));
    }
    return values;
}

Status set_msrs(int vcpu, std::span<const kvm_msr_entry> entries) {
    while (!entries.empty()) {
        Block block;
        const u64 count = std::min<u64>(entries.size(), Block::kEntries);
        std::ranges::copy(entries.first(count), block.entries.begin());
        block.header.nmsrs = static_cast<u32>(count);
        const int done = ioctl(vcpu, KVM_SET_MSRS, &block.header);
        if (done < 0) return call_failed("KVM_SET_MSRS");
        if (static_cast<u64>(done) < count) {
            const kvm_msr_entry& refused = entries[static_cast<u64>(done)];
            return fail(Errc::Unsupported, fmt::format("this host's KVM refuses {:#x} for the MSR {:#x}",
                                                       refused.data, refused.index));
        }
        entries = entries.subspan(count);
    }
    return {};
}

Result<VcpuMsrs> VcpuMsrs::create(const Host& host, int vcpu) {
    const Result<std::vector<u32>> listed = host.msr_indices();
    if (!listed) return std::unexpected(listed.error());
    std::vector<u32> named;
    named.reserve(kMostNamed);
    x86::Msrs fields;
    visit_msrs(fields, [&](u32 index, u64& /*field*/) { named.push_back(index); });

    std::vector<u32> others;
    constexpr u64 kMostBanked = 128;
    others.reserve(listed->size() + kMostBanked);
    for (const u32 index : *listed)
        if (is_carried(index, named) && !is_bank(index)) others.push_back(index);
    // The banks of machine-check registers are not in the list.
    const auto capabilities = get_msrs(vcpu, std::array{u32{kMcgCap}});
    if (!capabilities) return std::unexpected(capabilities.error());
    const u64 banks = value_of(*capabilities, kMcgCap).value_or(0) & 0xff;
    for (u32 i = 0; i < 4 * std::min<u64>(banks, 32); ++i) others.push_back(kFirstBank + i);
    std::ranges::sort(others);

    VcpuMsrs msrs;
    const auto readable = get_msrs(vcpu, named);
    if (!readable) return std::unexpected(readable.error());
    msrs.named_.reserve(readable->size());
    for (const kvm_msr_entry& entry : *readable) msrs.named_.push_back(entry.index);
    auto at_power_on = get_msrs(vcpu, others);
    if (!at_power_on) return std::unexpected(at_power_on.error());
    msrs.others_ = std::move(*at_power_on);
    return msrs;
}

Status VcpuMsrs::read(int vcpu, x86::State& out, Extent extent) const {
    const auto values = get_msrs(vcpu, named_);
    if (!values) return std::unexpected(values.error());
    visit_msrs(out.msr, [&](u32 index, u64& field) { field = value_of(*values, index).value_or(field); });

    out.other_msrs.clear();
    if (extent == Extent::Registers) return {};
    std::vector<u32> indices;
    indices.reserve(others_.size());
    for (const kvm_msr_entry& entry : others_) indices.push_back(entry.index);
    const auto others = get_msrs(vcpu, indices);
    if (!others) return std::unexpected(others.error());
    // Of the machine-check banks only what happened there: they are many.
    for (const kvm_msr_entry& entry : *others)
        if (!is_bank(entry.index) || value_of(others_, entry.index) != entry.data)
            out.other_msrs.push_back({.index = entry.index, .value = entry.data});
    return {};
}

Status VcpuMsrs::write(int vcpu, const x86::State& in, Extent extent) const {
    std::vector<kvm_msr_entry> wanted;
    wanted.reserve(named_.size() + others_.size());
    std::optional<kvm_msr_entry> missing;
    const auto want = [&](u32 index, u64 value, u64 at_power_on, bool there) {
        if (there)
            wanted.push_back({.index = index, .reserved = 0, .data = value});
        else if (value != at_power_on)
            missing = kvm_msr_entry{.index = index, .reserved = 0, .data = value};
    };
    std::vector<u64> defaults;
    defaults.reserve(wanted.capacity());
    const x86::Msrs power_on;
    visit_msrs(power_on, [&](u32 /*index*/, u64 value) { defaults.push_back(value); });
    unsigned place = 0;
    visit_msrs(in.msr, [&](u32 index, u64 value) {
        want(index, value, defaults[place++], std::ranges::find(named_, index) != named_.end());
    });
    if (extent == Extent::Whole) {
        for (const kvm_msr_entry& entry : others_) wanted.push_back(entry);
        for (const x86::MsrValue& carried : in.other_msrs) {
            const auto found = std::ranges::find(wanted, carried.index, &kvm_msr_entry::index);
            if (found != wanted.end())
                found->data = carried.value;
            else
                want(carried.index, carried.value, 0, false);
        }
    }
    if (missing)
        return fail(Errc::Unsupported, fmt::format("the guest has {:#x} in the MSR {:#x}, which this host's "
                                                   "KVM does not have",
                                                   missing->data, missing->index));

    std::vector<u32> indices;
    indices.reserve(wanted.size());
    for (const kvm_msr_entry& entry : wanted) indices.push_back(entry.index);
    const auto present = get_msrs(vcpu, indices);
    if (!present) return std::unexpected(present.error());
    // Many writes do more than to store a value, and would move the guest's clock or write to its memory.
    std::vector<kvm_msr_entry> changed;
    changed.reserve(wanted.size());
    for (const kvm_msr_entry& entry : wanted) {
        kvm_msr_entry next = entry;
        const std::optional<u64> now = value_of(*present, entry.index);
        const u64 kept = read_only_bits(entry.index);
        next.data = (next.data & ~kept) | (now.value_or(0) & kept);
        if (now != next.data) changed.push_back(next);
    }
    return set_msrs(vcpu, changed);
}

Status VcpuMsrs::update(int vcpu, const x86::Msrs& before, const x86::Msrs& after) {
    std::vector<u64> values;
    values.reserve(kMostNamed);
    visit_msrs(before, [&](u32 /*index*/, u64 value) { values.push_back(value); });
    std::vector<kvm_msr_entry> changed;
    unsigned place = 0;
    visit_msrs(after, [&](u32 index, u64 value) {
        if (values[place++] != value) changed.push_back({.index = index, .reserved = 0, .data = value});
    });
    return set_msrs(vcpu, changed);
}

}  // namespace tessera::kvm
