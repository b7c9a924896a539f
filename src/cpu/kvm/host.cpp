#include "cpu/kvm/host.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <fmt/format.h>
#include <string_view>
#include <sys/ioctl.h>
#include <system_error>
#include <utility>

namespace tessera::kvm {

namespace {

struct Capability {
    long number;
    std::string_view name;
};
// [LINUX-KVM api 8]. All are in Linux 5.4.
constexpr std::array kNeeded{
    Capability{KVM_CAP_USER_MEMORY, "KVM_CAP_USER_MEMORY"},
    Capability{KVM_CAP_IRQCHIP, "KVM_CAP_IRQCHIP"},
    Capability{KVM_CAP_IRQFD, "KVM_CAP_IRQFD"},
    Capability{KVM_CAP_IOEVENTFD, "KVM_CAP_IOEVENTFD"},
    Capability{KVM_CAP_READONLY_MEM, "KVM_CAP_READONLY_MEM"},
    Capability{KVM_CAP_EXT_CPUID, "KVM_CAP_EXT_CPUID"},
    Capability{KVM_CAP_XSAVE, "KVM_CAP_XSAVE"},
    Capability{KVM_CAP_XCRS, "KVM_CAP_XCRS"},
    Capability{KVM_CAP_IMMEDIATE_EXIT, "KVM_CAP_IMMEDIATE_EXIT"},
};
constexpr int kApiVersion = 12;

Result<std::vector<kvm_cpuid_entry2>> read_supported_cpuid(int device) {
    // The kernel says E2BIG until there is room for all.
    for (u32 count = 128; count <= 4096; count *= 2) {
        std::vector<u64> buffer((sizeof(kvm_cpuid2) + u64{count} * sizeof(kvm_cpuid_entry2)) / sizeof(u64) +
                                1);
        auto* list = reinterpret_cast<kvm_cpuid2*>(buffer.data());
        list->nent = count;
        if (ioctl(device, KVM_GET_SUPPORTED_CPUID, list) == 0) {
            std::vector<kvm_cpuid_entry2> entries(list->nent);
            std::memcpy(entries.data(), &list->entries[0], entries.size() * sizeof(kvm_cpuid_entry2));
            return entries;
        }
        if (errno != E2BIG) break;
    }
    return call_failed("KVM_GET_SUPPORTED_CPUID");
}

}  // namespace

std::unexpected<Error> call_failed(const char* call) {
    return fail(Errc::HostFailure, fmt::format("{}: {}", call, std::generic_category().message(errno)));
}

std::string missing_capabilities(int device) {
    std::string missing;
    for (const Capability& needed : kNeeded) {
        if (ioctl(device, KVM_CHECK_EXTENSION, needed.number) > 0) continue;
        missing += missing.empty() ? "" : ", ";
        missing += needed.name;
    }
    return missing;
}

Status enable_capability(int vm, u32 capability, u64 argument, const char* name) {
    kvm_enable_cap call{};
    call.cap = capability;
    call.args[0] = argument;
    if (ioctl(vm, KVM_ENABLE_CAP, &call) < 0) return call_failed(name);
    return {};
}

Result<Host> Host::open(const std::string& path) {
    File device(::open(path.c_str(), O_RDWR | O_CLOEXEC));
    if (!device.is_open())
        return fail(Errc::HostFailure,
                    fmt::format("cannot open {}: {}", path, std::generic_category().message(errno)));
    const int version = ioctl(device.get(), KVM_GET_API_VERSION, 0);
    if (version != kApiVersion)
        return fail(Errc::HostFailure,
                    fmt::format("{} does not speak KVM's interface {}", path, kApiVersion));
    if (const std::string missing = missing_capabilities(device.get()); !missing.empty())
        return fail(Errc::HostFailure,
                    fmt::format("{} lacks {}; Linux 5.4 and later have all of it", path, missing));
    const int run_size = ioctl(device.get(), KVM_GET_VCPU_MMAP_SIZE, 0);
    if (run_size < static_cast<int>(sizeof(kvm_run))) return call_failed("KVM_GET_VCPU_MMAP_SIZE");
    auto cpuid = read_supported_cpuid(device.get());
    if (!cpuid) return std::unexpected(std::move(cpuid.error()));
    return Host(std::move(device), static_cast<u64>(run_size), *std::move(cpuid));
}

int Host::capability(long number) const {
    return std::max(ioctl(device_.get(), KVM_CHECK_EXTENSION, number), 0);
}

unsigned Host::most_cpus() const {
    const int most = capability(KVM_CAP_MAX_VCPUS);
    return static_cast<unsigned>(most > 0 ? most : std::max(capability(KVM_CAP_NR_VCPUS), 1));
}

Result<std::vector<u32>> Host::msr_indices() const {
    kvm_msr_list size{};
    (void)ioctl(device_.get(), KVM_GET_MSR_INDEX_LIST, &size);  // says E2BIG, and how many there are
    std::vector<u32> buffer(size.nmsrs + 1);
    auto* list = reinterpret_cast<kvm_msr_list*>(buffer.data());
    list->nmsrs = size.nmsrs;
    if (ioctl(device_.get(), KVM_GET_MSR_INDEX_LIST, list) < 0) return call_failed("KVM_GET_MSR_INDEX_LIST");
    buffer.erase(buffer.begin());
    buffer.resize(size.nmsrs);
    return buffer;
}

}  // namespace tessera::kvm
