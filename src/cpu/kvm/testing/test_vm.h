// A VM of the host's KVM with one CPU and some memory at address 0, for tests of what a CPU holds and does.
#pragma once

#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <vector>

#include "base/file.h"
#include "cpu/kvm/cpuid.h"
#include "cpu/kvm/host.h"

namespace tessera::kvm {

class TestVm {
public:
    enum class Chips : u8 { None, Kernel };

    static constexpr u64 kMemory = 4 * kMiB;

    // Null with the reason in `why` where this host has no KVM for us: the caller skips. `prepare` sees the
    // VM before it gets its CPU.
    static std::unique_ptr<TestVm> create(Chips chips, std::string& why,
                                          Status (*prepare)(const TestVm&) = nullptr) {
        auto host = Host::open();
        if (!host) {
            why = host.error().message;
            return nullptr;
        }
        std::unique_ptr<TestVm> made(new TestVm(*std::move(host)));
        if (const Status status = made->set_up(chips, prepare); !status) {
            why = status.error().message;
            return nullptr;
        }
        return made;
    }
    TestVm(const TestVm&) = delete;
    TestVm& operator=(const TestVm&) = delete;
    ~TestVm() {
        if (run != nullptr) (void)munmap(run, host.run_size());
        if (memory != nullptr) (void)munmap(memory, kMemory);
    }

    // All that the host supports, unless the test gives something else before the CPU has run.
    Status set_cpuid(std::span<const kvm_cpuid_entry2> entries) const {
        return kvm::set_cpuid(vcpu.get(), entries);
    }
    // Its only memory slot.
    [[nodiscard]] kvm_userspace_memory_region region() const {
        kvm_userspace_memory_region slot{};
        slot.memory_size = kMemory;
        slot.userspace_addr = reinterpret_cast<u64>(memory);
        return slot;
    }
    void put(u64 address, std::span<const u8> bytes) const {
        std::memcpy(memory + address, bytes.data(), bytes.size());
    }

    Host host;
    File vm;
    File vcpu;
    u8* memory = nullptr;
    kvm_run* run = nullptr;

private:
    explicit TestVm(Host opened) : host(std::move(opened)) {}

    Status set_up(Chips chips, Status (*prepare)(const TestVm&)) {
        vm = File(ioctl(host.device(), KVM_CREATE_VM, 0));
        if (!vm.is_open()) return call_failed("KVM_CREATE_VM");
        constexpr u64 kTssAddress = 0xfffb'd000;  // three pages that Intel's real mode needs
        if (ioctl(vm.get(), KVM_SET_TSS_ADDR, kTssAddress) < 0) return call_failed("KVM_SET_TSS_ADDR");
        if (chips == Chips::Kernel && ioctl(vm.get(), KVM_CREATE_IRQCHIP, 0) < 0)
            return call_failed("KVM_CREATE_IRQCHIP");
        void* mapped = mmap(nullptr, kMemory, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (mapped == MAP_FAILED) return call_failed("mmap");
        memory = static_cast<u8*>(mapped);
        const kvm_userspace_memory_region slot = region();
        if (ioctl(vm.get(), KVM_SET_USER_MEMORY_REGION, &slot) < 0)
            return call_failed("KVM_SET_USER_MEMORY_REGION");
        if (prepare != nullptr)
            if (const Status prepared = prepare(*this); !prepared) return prepared;
        vcpu = File(ioctl(vm.get(), KVM_CREATE_VCPU, 0));
        if (!vcpu.is_open()) return call_failed("KVM_CREATE_VCPU");
        mapped = mmap(nullptr, host.run_size(), PROT_READ | PROT_WRITE, MAP_SHARED, vcpu.get(), 0);
        if (mapped == MAP_FAILED) return call_failed("mmap of a vCPU");
        run = static_cast<kvm_run*>(mapped);
        return set_cpuid(host.supported_cpuid());
    }
};

}  // namespace tessera::kvm
