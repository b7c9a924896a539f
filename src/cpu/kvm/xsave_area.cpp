#include "cpu/kvm/xsave_area.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <fmt/format.h>

#include "cpu/x86/x87_tags.h"

namespace tessera::kvm {

namespace {

// [SDM 1 table 13-1, 13.4.2]
constexpr u64 kControl = 0, kStatus = 2, kTag = 4, kOpcode = 6, kIp = 8, kDp = 16, kMxcsr = 24, kSt = 32,
              kXmm = 160, kHeader = 512;
constexpr u64 kSlot = 16;  // bytes between registers
constexpr u8 kX87 = 0, kSse = 1, kAvx = 2, kPkru = 9;
constexpr u64 kX87Bit = 1 << kX87, kSseBit = 1 << kSse, kAvxBit = 1 << kAvx;

template <typename T>
T get(std::span<const u8> area, u64 offset) {
    T value{};
    std::memcpy(&value, area.subspan(offset, sizeof value).data(), sizeof value);
    return value;
}
template <typename T>
void put(std::span<u8> area, u64 offset, T value) {
    std::memcpy(area.subspan(offset, sizeof value).data(), &value, sizeof value);
}

[[nodiscard]] u64 present(std::span<const u8> area) {
    return get<u64>(area, kHeader);
}
void set_present(std::span<u8> area, u64 components, bool value) {
    put<u64>(area, kHeader, value ? present(area) | components : present(area) & ~components);
}

void take_x87(std::span<const u8> area, x86::Fpu& out) {
    out = x86::Fpu{.control = 0x037f, .tag = 0xffff};  // the initial state [SDM 1 13.6]
    if ((present(area) & kX87Bit) == 0) return;
    out.control = get<u16>(area, kControl);
    out.status = get<u16>(area, kStatus);
    out.opcode = get<u16>(area, kOpcode);
    out.ip = get<u64>(area, kIp);
    out.dp = get<u64>(area, kDp);
    for (unsigned i = 0; i < out.st.size(); ++i)
        std::ranges::copy(area.subspan(kSt + kSlot * i, out.st[i].size()), out.st[i].begin());
    out.tag = x86::x87_tags(area[kTag], out.status, out.st);
}

void put_x87(const x86::Fpu& in, std::span<u8> area) {
    std::ranges::fill(area.first(kMxcsr), u8{0});
    put(area, kControl, in.control);
    put(area, kStatus, in.status);
    put(area, kTag, x86::abridged_x87_tags(in.tag));
    put(area, kOpcode, in.opcode);
    put(area, kIp, in.ip);
    put(area, kDp, in.dp);
    for (unsigned i = 0; i < in.st.size(); ++i) {
        const std::span<u8> slot = area.subspan(kSt + kSlot * i, kSlot);
        std::ranges::fill(slot, u8{0});
        std::ranges::copy(in.st[i], slot.begin());
    }
}

}  // namespace

XsaveArea::XsaveArea(u64 size, std::span<const kvm_cpuid_entry2> leaves) : size_(size) {
    // [SDM 2A CPUID leaf 0DH]
    constexpr u32 kLeaf = 0xd, kSupervisor = 1 << 0;
    u64 offered = 0;
    for (const kvm_cpuid_entry2& leaf : leaves)
        if (leaf.function == kLeaf && leaf.index == 0) offered = u64{leaf.edx} << 32 | leaf.eax;
    components_.reserve(leaves.size());
    for (const kvm_cpuid_entry2& leaf : leaves)
        if (leaf.function == kLeaf && leaf.index >= kAvx && leaf.index < 63 &&
            (offered >> leaf.index & 1) != 0 && (leaf.ecx & kSupervisor) == 0 &&
            u64{leaf.ebx} + leaf.eax <= size_)
            components_.push_back(
                {.number = static_cast<u8>(leaf.index), .offset = leaf.ebx, .size = leaf.eax});
    std::ranges::sort(components_, {}, &Component::number);
}

const XsaveArea::Component* XsaveArea::find(u8 number) const {
    const auto found = std::ranges::find(components_, number, &Component::number);
    return found == components_.end() ? nullptr : &*found;
}

void XsaveArea::take_registers(std::span<const u8> area, x86::State& out) const {
    take_x87(area, out.fpu);
    out.mxcsr = get<u32>(area, kMxcsr);
    const bool sse = (present(area) & kSseBit) != 0;
    const Component* avx = (present(area) & kAvxBit) != 0 ? find(kAvx) : nullptr;
    for (unsigned i = 0; i < out.ymm.size(); ++i) {
        out.ymm[i] = {};
        if (sse) std::memcpy(out.ymm[i].data(), area.subspan(kXmm + kSlot * i, kSlot).data(), kSlot);
        if (avx != nullptr)
            std::memcpy(&out.ymm[i][2], area.subspan(avx->offset + kSlot * i, kSlot).data(), kSlot);
    }
}

Status XsaveArea::put_registers(const x86::State& in, std::span<u8> area) const {
    const Component* avx = find(kAvx);
    const auto uses_avx = [](const std::array<u64, 4>& reg) { return (reg[2] | reg[3]) != 0; };
    if (avx == nullptr && std::ranges::any_of(in.ymm, uses_avx))
        return fail(Errc::Unsupported, "the guest uses AVX, which this host's KVM does not have");
    put_x87(in.fpu, area);
    put(area, kMxcsr, in.mxcsr);
    for (unsigned i = 0; i < in.ymm.size(); ++i) {
        std::memcpy(area.subspan(kXmm + kSlot * i, kSlot).data(), in.ymm[i].data(), kSlot);
        if (avx != nullptr)
            std::memcpy(area.subspan(avx->offset + kSlot * i, kSlot).data(), &in.ymm[i][2], kSlot);
    }
    set_present(area, kX87Bit | kSseBit | (avx != nullptr ? kAvxBit : 0), true);
    return {};
}

void XsaveArea::take_others(std::span<const u8> area, x86::State& out) const {
    out.other_components.clear();
    for (const Component& component : components_) {
        if (component.number == kAvx) continue;
        const std::span<const u8> bytes = area.subspan(component.offset, component.size);
        // KVM keeps PKRU elsewhere, and need not say in the header that it is there.
        const bool used = component.number == kPkru
                              ? std::ranges::any_of(bytes, [](u8 byte) { return byte != 0; })
                              : (present(area) >> component.number & 1) != 0;
        if (used)
            out.other_components.push_back(
                {.number = component.number, .bytes = std::vector<u8>(bytes.begin(), bytes.end())});
    }
}

Status XsaveArea::put_others(const x86::State& in, std::span<u8> area) const {
    for (const Component& component : components_) {
        if (component.number == kAvx) continue;
        std::ranges::fill(area.subspan(component.offset, component.size), u8{0});
        // KVM leaves PKRU as it is, where the header does not name it.
        set_present(area, u64{1} << component.number, component.number == kPkru);
    }
    for (const x86::XsaveComponent& carried : in.other_components) {
        const Component* component = carried.number == kAvx ? nullptr : find(carried.number);
        if (component == nullptr || component->size != carried.bytes.size())
            return fail(Errc::Unsupported,
                        fmt::format("the guest uses component {} of the XSAVE area ({} bytes), which this "
                                    "host's KVM does not have",
                                    carried.number, carried.bytes.size()));
        std::ranges::copy(carried.bytes, area.subspan(component->offset, component->size).begin());
        set_present(area, u64{1} << component->number, true);
    }
    return {};
}

}  // namespace tessera::kvm
