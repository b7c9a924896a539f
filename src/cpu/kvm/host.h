// The host's KVM: /dev/kvm, opened, with everything that a machine of ours needs. [LINUX-KVM api]
#pragma once

#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/file.h"
#include "base/result.h"
#include "base/types.h"
#include "cpu/kvm/linux_kvm.h"

namespace tessera::kvm {

inline constexpr const char* kDevicePath = "/dev/kvm";

// A failed call as an error of the host's: "CALL: why".
[[nodiscard]] std::unexpected<Error> call_failed(const char* call);
// KVM_ENABLE_CAP for a VM; `name` for the error.
[[nodiscard]] Status enable_capability(int vm, u32 capability, u64 argument, const char* name);

// What KVM must have for there to be a machine of ours, by name, as far as the device lacks it; empty: it has
// all.
[[nodiscard]] std::string missing_capabilities(int device);

class Host {
public:
    // The error says what the device lacks, or which call failed.
    [[nodiscard]] static Result<Host> open(const std::string& path = kDevicePath);

    [[nodiscard]] int device() const { return device_.get(); }
    // KVM_CHECK_EXTENSION: 0 if the host does not have it.
    [[nodiscard]] int capability(long number) const;
    [[nodiscard]] bool has(long number) const { return capability(number) > 0; }
    // Bytes of a vCPU's shared area (kvm_run).
    [[nodiscard]] u64 run_size() const { return run_size_; }
    // How many vCPUs a VM may have at most.
    [[nodiscard]] unsigned most_cpus() const;
    // KVM_GET_SUPPORTED_CPUID.
    [[nodiscard]] std::span<const kvm_cpuid_entry2> supported_cpuid() const { return supported_cpuid_; }
    // KVM_GET_MSR_INDEX_LIST: the MSRs that hold a vCPU's state.
    [[nodiscard]] Result<std::vector<u32>> msr_indices() const;

private:
    Host(File device, u64 run_size, std::vector<kvm_cpuid_entry2> supported_cpuid)
        : device_(std::move(device)), run_size_(run_size), supported_cpuid_(std::move(supported_cpuid)) {}

    File device_;
    u64 run_size_;
    std::vector<kvm_cpuid_entry2> supported_cpuid_;
};

}  // namespace tessera::kvm
