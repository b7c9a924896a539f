#include "cpu/kvm/kernel_vm.h"

#include <array>
#include <cerrno>
#include <fmt/format.h>
#include <sys/ioctl.h>
#include <system_error>
#include <utility>

#include "cpu/kvm/msr_index.h"

namespace tessera::kvm {

namespace {

// Four pages below the firmware's place that Intel's real mode needs [LINUX-KVM api 4.38, 4.39].
constexpr u64 kIdentityMap = 0xfffb'c000;
constexpr u64 kTaskState = 0xfffb'd000;

}  // namespace

Result<KernelVm> KernelVm::create(const Host& host, Irqchip irqchip, const MemoryMap& memory) {
    int fd = -1;
    do fd = ioctl(host.device(), KVM_CREATE_VM, 0);
    while (fd < 0 && errno == EINTR);
    if (fd < 0) return call_failed("KVM_CREATE_VM");
    KernelVm vm(File(fd), irqchip);
    if (ioctl(fd, KVM_SET_IDENTITY_MAP_ADDR, &kIdentityMap) < 0)
        return call_failed("KVM_SET_IDENTITY_MAP_ADDR");
    if (ioctl(fd, KVM_SET_TSS_ADDR, kTaskState) < 0) return call_failed("KVM_SET_TSS_ADDR");
    if (irqchip != Irqchip::User) {
        using Kind = KernelIrqchip::Kind;
        auto chips = KernelIrqchip::create(fd, irqchip == Irqchip::Kernel ? Kind::Kernel : Kind::Split);
        if (!chips) return std::unexpected(std::move(chips.error()));
        vm.chips_ = *chips;
    }
    // Else the guest's programs would be killed for what the kernel cannot execute.
    if (host.has(KVM_CAP_EXIT_ON_EMULATION_FAILURE)) {
        Status told =
            enable_capability(fd, KVM_CAP_EXIT_ON_EMULATION_FAILURE, 1, "KVM_CAP_EXIT_ON_EMULATION_FAILURE");
        if (!told) return std::unexpected(std::move(told.error()));
    }
    if (auto status = vm.watch_msrs(host); !status) return std::unexpected(std::move(status.error()));
    if (auto status = vm.add_memory(memory); !status) return std::unexpected(std::move(status.error()));
    return vm;
}

std::vector<kvm_userspace_memory_region> memory_slots(const MemoryMap& memory) {
    std::vector<kvm_userspace_memory_region> slots;
    slots.reserve(memory.regions().size());
    for (const auto& region : memory.regions())
        slots.push_back({.slot = static_cast<u32>(slots.size()),
                         .flags = region->kind == RegionKind::Rom ? u32{KVM_MEM_READONLY} : 0,
                         .guest_phys_addr = region->base,
                         .memory_size = region->size,
                         .userspace_addr = reinterpret_cast<u64>(region->host)});
    return slots;
}

Status KernelVm::add_memory(const MemoryMap& memory) const {
    for (const kvm_userspace_memory_region& place : memory_slots(memory)) {
        const auto& region = memory.regions()[place.slot];
        if (ioctl(fd(), KVM_SET_USER_MEMORY_REGION, &place) < 0)
            return fail(
                Errc::HostFailure,
                fmt::format("KVM_SET_USER_MEMORY_REGION for {} ({:#x}, {} KiB): {}", region->name,
                            region->base, region->size / kKiB, std::generic_category().message(errno)));
    }
    return {};
}

Status KernelVm::watch_msrs(const Host& host) const {
    if (!host.has(KVM_CAP_X86_USER_SPACE_MSR) || !host.has(KVM_CAP_X86_MSR_FILTER)) {
        if (irqchip_ != Irqchip::User) return {};
        return fail(Errc::Unsupported,
                    "irqchip=user needs KVM_CAP_X86_USER_SPACE_MSR, which this host's KVM does not have "
                    "(Linux 5.10 and later do); use irqchip=kernel");
    }
    Status told = enable_capability(
        fd(), KVM_CAP_X86_USER_SPACE_MSR,
        KVM_MSR_EXIT_REASON_UNKNOWN | KVM_MSR_EXIT_REASON_INVAL | KVM_MSR_EXIT_REASON_FILTER,
        "KVM_CAP_X86_USER_SPACE_MSR");
    if (!told) return told;
    if (irqchip_ != Irqchip::User) return {};

    // A bitmap of one bit for each range: 0 denies, and so tells us.
    // Those that our own local APIC answers, and by which the TSC is moved.
    constexpr std::array kWatched{kMsrTsc, kMsrApicBase, kMsrTscAdjust, kMsrTscDeadline};
    std::array<u8, kWatched.size()> denied{};
    kvm_msr_filter filter{};
    filter.flags = KVM_MSR_FILTER_DEFAULT_ALLOW;
    for (std::size_t i = 0; i < kWatched.size(); ++i) {
        auto& range = filter.ranges[i];
        range.flags = kWatched[i] == kMsrTsc || kWatched[i] == kMsrTscAdjust
                          ? u32{KVM_MSR_FILTER_WRITE}
                          : u32{KVM_MSR_FILTER_READ | KVM_MSR_FILTER_WRITE};
        range.nmsrs = 1;
        range.base = kWatched[i];
        range.bitmap = &denied[i];
    }
    if (ioctl(fd(), KVM_X86_SET_MSR_FILTER, &filter) < 0) return call_failed("KVM_X86_SET_MSR_FILTER");
    return {};
}

Result<File> KernelVm::add_vcpu(u32 apic_id) const {
    File vcpu(ioctl(fd(), KVM_CREATE_VCPU, static_cast<unsigned long>(apic_id)));
    if (!vcpu.is_open()) return call_failed("KVM_CREATE_VCPU");
    return vcpu;
}

Status KernelVm::set_clock(u64 ns) const {
    kvm_clock_data clock{};
    clock.clock = ns;
    if (ioctl(fd(), KVM_SET_CLOCK, &clock) < 0) return call_failed("KVM_SET_CLOCK");
    return {};
}

}  // namespace tessera::kvm
