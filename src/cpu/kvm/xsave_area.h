// The XSAVE area of a vCPU in the standard form, as KVM's calls have it, and the registers of State in it.
// [SDM 1 13.4], [LINUX-KVM api 4.42]
#pragma once

#include <span>
#include <vector>

#include "base/result.h"
#include "base/types.h"
#include "cpu/kvm/linux_kvm.h"
#include "cpu/x86/state.h"

namespace tessera::kvm {

class XsaveArea {
public:
    // `size`: bytes that the calls transfer. `leaves`: KVM_GET_SUPPORTED_CPUID, whose leaf 0xD tells what
    // this host has, and where.
    XsaveArea(u64 size, std::span<const kvm_cpuid_entry2> leaves);

    [[nodiscard]] u64 size() const { return size_; }
    // Both expect an area of size().
    // `registers`: x87, SSE and AVX. `others`: State::other_components.
    void take_registers(std::span<const u8> area, x86::State& out) const;
    void take_others(std::span<const u8> area, x86::State& out) const;
    // What is not put stays as it is. The error names the component that this host lacks.
    [[nodiscard]] Status put_registers(const x86::State& in, std::span<u8> area) const;
    [[nodiscard]] Status put_others(const x86::State& in, std::span<u8> area) const;

private:
    struct Component {
        u8 number = 0;
        u32 offset = 0;
        u32 size = 0;
    };

    [[nodiscard]] const Component* find(u8 number) const;

    u64 size_;
    std::vector<Component> components_;  // from AVX (2) on
};

}  // namespace tessera::kvm
