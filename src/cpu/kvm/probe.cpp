#include "cpu/kvm/probe.h"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cpuid.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/ioctl.h>
#include <system_error>
#include <thread>
#include <utility>

#include "base/file.h"
#include "cpu/kvm/host.h"
#include "cpu/kvm/linux_kvm.h"
#include "cpu/kvm/probe_vm.h"

namespace tessera::kvm {

namespace {

using std::chrono::nanoseconds;

[[nodiscard]] bool in_virtual_machine() {
    constexpr u32 kHypervisor = 1U << 31;  // [SDM 2A CPUID] ECX of leaf 1, which hypervisors set
    u32 a = 0, b = 0, c = 0, d = 0;
    return __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & kHypervisor) != 0;
}

// Hardware does these in microseconds, an interpreter in milliseconds. The best of a few: others may run
// meanwhile.
constexpr u64 kRounds = 250;
constexpr double kInstructions = 2.0 * kRounds;
constexpr double kSlowestHardware = 50e6;  // instructions a second
constexpr int kTries = 3;

[[nodiscard]] Result<double> measure_rate(ProbeVm& vm) {
    double best = 0;
    for (int i = 0; i < kTries && best < kSlowestHardware; ++i) {
        // The way in and out is not what is asked.
        const auto way = vm.time_loop(1);
        if (!way) return std::unexpected(way.error());
        const auto whole = vm.time_loop(kRounds);
        if (!whole) return std::unexpected(whole.error());
        constexpr nanoseconds kLeast{100};
        const nanoseconds spent = std::max(*whole - *way, kLeast);
        best = std::max(best, kInstructions / std::chrono::duration<double>(spent).count());
    }
    return best;
}

void judge(const File& device, ProbeDepth depth, Finding& finding) {
    constexpr int kApiVersion = 12;
    const int version = ioctl(device.get(), KVM_GET_API_VERSION, 0);
    if (version < 0) {
        finding.verdict = Verdict::NotKvm;
        finding.detail =
            fmt::format("it does not answer as KVM does: {}", std::generic_category().message(errno));
        return;
    }
    finding.verdict = Verdict::TooOld;
    if (version != kApiVersion) {
        finding.detail = fmt::format("its interface is version {}, not {}", version, kApiVersion);
        return;
    }
    if (const std::string missing = missing_capabilities(device.get()); !missing.empty()) {
        finding.detail = "it lacks " + missing;
        return;
    }

    finding.verdict = Verdict::Refused;
    auto vm = ProbeVm::create(device.get());
    if (!vm) {
        finding.detail = vm.error().message;
        return;
    }
    const Result<double> rate = measure_rate(*vm);
    if (!rate) {
        finding.detail = rate.error().message;
        return;
    }
    finding.rate = *rate;
    const bool fast = *rate >= kSlowestHardware;
    if (fast || depth == ProbeDepth::Whole) {
        const Result<bool> vectors = vm->try_vectors();
        finding.vectors = vectors && *vectors;
    }
    finding.verdict = fast && finding.vectors.value_or(false) ? Verdict::Hardware : Verdict::Interpreted;
    // The kernel takes some milliseconds to take a VM down.
    if (depth == ProbeDepth::Verdict) std::thread([gone = *std::move(vm)] {}).detach();
}

}  // namespace

Finding probe(const char* device_path, ProbeDepth depth) {
    Finding finding;
    finding.nested = in_virtual_machine();
    const File device(open(device_path, O_RDWR | O_CLOEXEC));
    if (device.is_open()) {
        judge(device, depth, finding);
    } else {
        const int error = errno;
        finding.verdict = error == EACCES || error == EPERM     ? Verdict::NotPermitted
                          : error == ENOENT || error == ENOTDIR ? Verdict::Missing
                                                                : Verdict::Refused;
        finding.detail = fmt::format("open: {}", std::generic_category().message(error));
    }
    return finding;
}

std::string describe(const Finding& finding) {
    const std::string_view where = finding.nested ? ", in this virtual machine" : "";
    switch (finding.verdict) {
        case Verdict::Hardware: return fmt::format("hardware virtualization{}", where);
        case Verdict::Missing:
            return finding.nested
                       ? "no /dev/kvm: this host is a virtual machine, whose owner would have to turn "
                         "nested virtualization on"
                       : "no /dev/kvm: turn virtualization (VT-x, SVM) on in the firmware's setup, "
                         "then modprobe kvm_intel or kvm_amd";
        case Verdict::NotPermitted:
            return fmt::format(
                "/dev/kvm is not for this user ({}): add yourself to the group kvm, then log in "
                "again",
                finding.detail);
        case Verdict::NotKvm: return fmt::format("/dev/kvm is something else: {}", finding.detail);
        case Verdict::TooOld:
            return fmt::format("too old: {}; Linux 5.4 and later have all of it", finding.detail);
        case Verdict::Refused:
            return fmt::format("does not work ({}): does another hypervisor use the processor?",
                               finding.detail);
        case Verdict::Interpreted:
            return fmt::format(
                "not hardware{}: {:.1f} million instructions a second at CPL 0{}", where,
                finding.rate.value_or(0) / 1e6,
                finding.vectors.value_or(true) ? "" : ", vector instructions there do not work");
    }
    return {};
}

}  // namespace tessera::kvm
