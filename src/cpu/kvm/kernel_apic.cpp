#include "cpu/kvm/kernel_apic.h"

#include <cstring>
#include <sys/ioctl.h>

#include "cpu/kvm/kernel_irqchip.h"
#include "cpu/kvm/linux_kvm.h"
#include "cpu/kvm/msr_index.h"

namespace tessera::kvm {

namespace {

constexpr u32 kIdRegister = 0x20;
constexpr u64 kPage = ~u64{0xfff};

constexpr bool is_mine(u32 index) {
    return index == kMsrApicBase || index == kMsrTscDeadline ||
           (index >= kMsrX2apicFirst && index <= kMsrX2apicLast);
}

}  // namespace

u64 KernelApic::base() const {
    return read_vcpu_msr(vcpu_, kMsrApicBase).value_or(0);
}

u8 KernelApic::cr8() {
    kvm_sregs sregs{};
    return ioctl(vcpu_, KVM_GET_SREGS, &sregs) == 0 ? static_cast<u8>(sregs.cr8) : u8{0};
}

void KernelApic::set_cr8(u8 value) {
    kvm_sregs sregs{};
    if (ioctl(vcpu_, KVM_GET_SREGS, &sregs) < 0) return;
    sregs.cr8 = value;
    (void)ioctl(vcpu_, KVM_SET_SREGS, &sregs);
}

MsrResult KernelApic::read_msr(u32 index, u64& value) {
    if (!is_mine(index)) return MsrResult::NotMine;
    const auto read = read_vcpu_msr(vcpu_, index);
    if (!read) return MsrResult::GeneralProtection;
    value = *read;
    return MsrResult::Ok;
}

MsrResult KernelApic::write_msr(u32 index, u64 value) {
    if (!is_mine(index)) return MsrResult::NotMine;
    return write_vcpu_msr(vcpu_, index, value) ? MsrResult::Ok : MsrResult::GeneralProtection;
}

bool KernelApic::owns_page(u64 page) const {
    const u64 now = base();
    return (now & kEnabled) != 0 && (now & kX2apic) == 0 && (now & kPage) == page;
}

u32 KernelApic::read_register(u32 offset) {
    kvm_lapic_state state{};
    u32 value = 0;
    if (offset + sizeof value <= sizeof state.regs && ioctl(vcpu_, KVM_GET_LAPIC, &state) == 0)
        std::memcpy(&value, &state.regs[offset], sizeof value);
    return value;
}

u32 KernelApic::apic_id() const {
    kvm_lapic_state state{};
    u32 value = 0;
    if (ioctl(vcpu_, KVM_GET_LAPIC, &state) == 0) std::memcpy(&value, &state.regs[kIdRegister], sizeof value);
    return (base() & kX2apic) != 0 ? value : value >> 24;
}

}  // namespace tessera::kvm
