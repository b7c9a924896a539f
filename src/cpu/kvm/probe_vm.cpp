#include "cpu/kvm/probe_vm.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <fmt/format.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include "cpu/kvm/host.h"

namespace tessera::kvm {

namespace {

constexpr size_t kMemorySize = 0x1'0000;
// Where what is: page tables for the first 2 MiB, the two programs, their data.
constexpr u64 kPml4 = 0x1000, kPdpt = 0x2000, kPd = 0x3000;
constexpr u64 kLoop = 0x8000, kVectors = 0x8100, kData = 0xa000;

constexpr std::array<u8, 6> kLoopCode{0x48, 0xff, 0xc9,  // dec rcx
                                      0x75, 0xfb,        // jnz to it
                                      0xf4};             // hlt
constexpr std::array<u8, 21> kVectorCode{
    0x0f, 0x10, 0x04, 0x25, 0x00, 0xa0, 0x00, 0x00,  // movups xmm0, [0xa000]
    0x66, 0x0f, 0xfe, 0xc0,                          // paddd xmm0, xmm0
    0x0f, 0x11, 0x04, 0x25, 0x10, 0xa0, 0x00, 0x00,  // movups [0xa010], xmm0
    0xf4};                                           // hlt

}  // namespace

void ProbeVm::Unmap::operator()(void* address) const {
    (void)munmap(address, size);
}

Result<ProbeVm> ProbeVm::create(int device) {
    File vm(ioctl(device, KVM_CREATE_VM, 0));
    if (!vm.is_open()) return call_failed("KVM_CREATE_VM");
    constexpr u64 kTssAddress = 0xfffb'd000;  // three pages that Intel's real mode needs
    if (ioctl(vm.get(), KVM_SET_TSS_ADDR, kTssAddress) < 0) return call_failed("KVM_SET_TSS_ADDR");
    void* memory = mmap(nullptr, kMemorySize, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) return call_failed("mmap");
    Mapping memory_mapping(memory, Unmap{kMemorySize});
    const kvm_userspace_memory_region region{.slot = 0,
                                             .flags = 0,
                                             .guest_phys_addr = 0,
                                             .memory_size = kMemorySize,
                                             .userspace_addr = reinterpret_cast<u64>(memory)};
    if (ioctl(vm.get(), KVM_SET_USER_MEMORY_REGION, &region) < 0)
        return call_failed("KVM_SET_USER_MEMORY_REGION");
    File vcpu(ioctl(vm.get(), KVM_CREATE_VCPU, 0));
    if (!vcpu.is_open()) return call_failed("KVM_CREATE_VCPU");
    const int run_size = ioctl(device, KVM_GET_VCPU_MMAP_SIZE, 0);
    if (run_size < static_cast<int>(sizeof(kvm_run))) return call_failed("KVM_GET_VCPU_MMAP_SIZE");
    void* run =
        mmap(nullptr, static_cast<size_t>(run_size), PROT_READ | PROT_WRITE, MAP_SHARED, vcpu.get(), 0);
    if (run == MAP_FAILED) return call_failed("mmap of a vCPU");
    Mapping run_mapping(run, Unmap{static_cast<size_t>(run_size)});
    ProbeVm probe(std::move(vm), std::move(vcpu), std::move(memory_mapping), std::move(run_mapping));
    if (const Status entered = probe.enter_long_mode(); !entered) return std::unexpected(entered.error());
    return probe;
}

Status ProbeVm::enter_long_mode() {
    constexpr u64 kPresentWritable = 3, kLarge = 0x80;
    const auto put = [this](u64 at, u64 value) { std::memcpy(memory() + at, &value, sizeof value); };
    put(kPml4, kPdpt | kPresentWritable);
    put(kPdpt, kPd | kPresentWritable);
    put(kPd, kPresentWritable | kLarge);
    std::ranges::copy(kLoopCode, memory() + kLoop);
    std::ranges::copy(kVectorCode, memory() + kVectors);

    kvm_sregs sregs{};
    if (ioctl(vcpu_.get(), KVM_GET_SREGS, &sregs) < 0) return call_failed("KVM_GET_SREGS");
    // [SDM 3A 2.5, 2.2.1] PE MP ET NE WP PG; PAE OSFXSR OSXMMEXCPT; LME LMA.
    sregs.cr0 = 0x8001'0033;
    sregs.cr3 = kPml4;
    sregs.cr4 = 0x620;
    sregs.efer = 0x500;
    const kvm_segment data{.base = 0,
                           .limit = 0xffff'ffff,
                           .selector = 0x10,
                           .type = 3,
                           .present = 1,
                           .dpl = 0,
                           .db = 1,
                           .s = 1,
                           .l = 0,
                           .g = 1,
                           .avl = 0,
                           .unusable = 0,
                           .padding = 0};
    sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = data;
    sregs.cs = data;
    sregs.cs.selector = 8;
    sregs.cs.type = 11;
    sregs.cs.db = 0;
    sregs.cs.l = 1;
    if (ioctl(vcpu_.get(), KVM_SET_SREGS, &sregs) < 0) return call_failed("KVM_SET_SREGS");
    return {};
}

Result<u32> ProbeVm::execute(u64 rip, u64 rcx) {
    kvm_regs regs{};
    regs.rip = rip;
    regs.rcx = rcx;
    regs.rflags = 2;
    if (ioctl(vcpu_.get(), KVM_SET_REGS, &regs) < 0) return call_failed("KVM_SET_REGS");
    while (ioctl(vcpu_.get(), KVM_RUN, 0) < 0)
        if (errno != EINTR && errno != EAGAIN) return call_failed("KVM_RUN");
    return static_cast<const kvm_run*>(run_.get())->exit_reason;
}

Result<std::chrono::nanoseconds> ProbeVm::time_loop(u64 rounds) {
    const auto begin = std::chrono::steady_clock::now();
    const Result<u32> reason = execute(kLoop, rounds);
    const auto end = std::chrono::steady_clock::now();
    if (!reason) return std::unexpected(reason.error());
    if (*reason != KVM_EXIT_HLT)
        return fail(Errc::Unsupported, fmt::format("a loop at CPL 0 ends with KVM's exit {}", *reason));
    return end - begin;
}

Result<bool> ProbeVm::try_vectors() {
    constexpr std::array<u32, 4> kBefore{1, 2, 3, 4}, kAfter{2, 4, 6, 8};
    std::memcpy(memory() + kData, kBefore.data(), sizeof kBefore);
    const Result<u32> reason = execute(kVectors, 0);
    if (!reason) return std::unexpected(reason.error());
    return *reason == KVM_EXIT_HLT &&
           std::memcmp(memory() + kData + sizeof kBefore, kAfter.data(), sizeof kAfter) == 0;
}

}  // namespace tessera::kvm
