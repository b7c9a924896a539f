// A VM of the host's KVM with chips in the kernel and hardly any memory, for tests of the chips' states.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <vector>

#include "base/file.h"
#include "cpu/kvm/cpuid.h"
#include "cpu/kvm/host.h"
#include "cpu/kvm/kernel_irqchip.h"

namespace tessera::kvm {

struct ChipVm {
    struct Cpu {
        File file;
        kvm_run* run = nullptr;
    };

    // Null with the reason in `why` where this host has no KVM for us: the caller skips.
    static std::unique_ptr<ChipVm> create(KernelIrqchip::Kind kind, unsigned cpus, std::string& why) {
        auto host = Host::open();
        if (!host) {
            why = host.error().message;
            return nullptr;
        }
        File vm(ioctl(host->device(), KVM_CREATE_VM, 0));
        if (!vm.is_open()) {
            why = "KVM_CREATE_VM fails";
            return nullptr;
        }
        auto chips = KernelIrqchip::create(vm.get(), kind);
        if (!chips) {
            why = chips.error().message;
            return nullptr;
        }
        std::unique_ptr<ChipVm> made(new ChipVm(*std::move(host), std::move(vm), *chips));
        if (!made->add_memory()) {
            why = "KVM_SET_USER_MEMORY_REGION fails";
            return nullptr;
        }
        for (unsigned i = 0; i < cpus; ++i)
            if (!made->add_cpu(i)) {
                why = "KVM_CREATE_VCPU fails";
                return nullptr;
            }
        return made;
    }
    ChipVm(const ChipVm&) = delete;
    ChipVm& operator=(const ChipVm&) = delete;
    ~ChipVm() {
        for (const Cpu& cpu : cpus) (void)munmap(cpu.run, host.run_size());
        if (memory_ != nullptr) (void)munmap(memory_, kMemorySize);
    }

    Host host;
    File vm;
    KernelIrqchip chips;
    std::vector<Cpu> cpus;
    // From address 0 on.
    [[nodiscard]] std::span<u8> memory() const { return {static_cast<u8*>(memory_), kMemorySize}; }

private:
    ChipVm(Host h, File v, KernelIrqchip c) : host(std::move(h)), vm(std::move(v)), chips(c) {}

    static constexpr u64 kMemorySize = 0x1'0000;

    // KVM has no room for page tables of a VM without memory, and then refuses KVM_RUN.
    bool add_memory() {
        constexpr u64 kTssAddress = 0xfffb'd000;  // three pages that Intel's real mode needs
        if (ioctl(vm.get(), KVM_SET_TSS_ADDR, kTssAddress) < 0) return false;
        void* memory = mmap(nullptr, kMemorySize, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (memory == MAP_FAILED) return false;
        memory_ = memory;
        kvm_userspace_memory_region region{};
        region.memory_size = kMemorySize;
        region.userspace_addr = reinterpret_cast<u64>(memory);
        return ioctl(vm.get(), KVM_SET_USER_MEMORY_REGION, &region) == 0;
    }
    bool add_cpu(unsigned id) {
        File file(ioctl(vm.get(), KVM_CREATE_VCPU, id));
        if (!file.is_open() || !offer_all(file.get())) return false;
        void* run = mmap(nullptr, host.run_size(), PROT_READ | PROT_WRITE, MAP_SHARED, file.get(), 0);
        if (run == MAP_FAILED) return false;
        cpus.push_back({std::move(file), static_cast<kvm_run*>(run)});
        return true;
    }
    // The guest may use x2APIC and the TSC deadline when its CPUID says so.
    [[nodiscard]] bool offer_all(int vcpu) const {
        const auto supported = host.supported_cpuid();
        std::vector<kvm_cpuid_entry2> entries(supported.begin(), supported.end());
        for (kvm_cpuid_entry2& entry : entries)
            if (entry.function == 1) entry.ecx |= u32{1} << 21 | u32{1} << 24;
        return set_cpuid(vcpu, entries).has_value();
    }

    void* memory_ = nullptr;
};

}  // namespace tessera::kvm
