#include "app/doctor.h"

#include <fmt/format.h>
#include <fstream>
#include <sstream>
#include <string_view>
#include <thread>
#include <unistd.h>

#include "app/options.h"
#include "backends/net/open/open_net.h"
#include "cpu/kvm/probe.h"
#include "cpu/soft/host_support.h"
#include "cpu/x86/host_cpu.h"
#include "vm/guest_ram.h"
#include "vm/host_time.h"

namespace tessera::app {

namespace {

std::string processor_name() {
    std::ifstream cpuinfo("/proc/cpuinfo");
    for (std::string line; std::getline(cpuinfo, line);)
        if (line.starts_with("model name")) return line.substr(std::min(line.size(), line.find(':') + 2));
    return "unknown";
}

}  // namespace

std::string doctor_report(const std::string& helper_program) {
    const HostTsc tsc;
    const bool counter = tsc.source() == HostTsc::Source::Processor;
    std::string text = version_text();
    const auto row = [&](std::string_view what, std::string_view value) {
        text += fmt::format("{:<13} {}\n", what, value);
    };
    row("processor", processor_name());
    row("CPUs", fmt::format("{} usable", std::thread::hardware_concurrency()));
    row("memory", fmt::format("{} MiB available for guests", host_memory_available() / kMiB));
    row("time", counter
                    ? fmt::format("the processor's counter, {:.3f} MHz", static_cast<double>(tsc.hz()) / 1e6)
                    : std::string("CLOCK_MONOTONIC: the processor's counter is not invariant"));
    const kvm::Finding kvm = kvm::probe();
    row("KVM", kvm::describe(kvm));
    row("terminal", isatty(STDIN_FILENO) != 0 ? "yes: raw mode with Ctrl-a keys" : "no: plain pipe");
    const std::string missing = missing_host_features();
    row("instructions",
        missing.empty() ? "x86-64-v3 and " + optional_host_features() : "missing: " + missing);
    const Status code_memory = soft::probe_code_memory();
    row("code memory", code_memory ? "granted: one memfd mapped writable and executable"
                                   : "refused: " + code_memory.error().message);
    row("network", network_verdict(net::helper_report(helper_program)));
    row("engine", engine_verdict(kvm.usable(), missing, code_memory));
    return text;
}

std::string network_verdict(const Result<std::string>& report) {
    if (!report) return "no user-mode network: " + report.error().message;
    std::string applied;
    std::string refused;
    std::istringstream lines(*report);
    for (std::string line; std::getline(lines, line);) {
        const std::string name = line.substr(0, line.find(':'));
        if (line.find("NOT APPLIED") != std::string::npos)
            refused += fmt::format("\n{:<13} not confined by {}", "", line);
        else
            applied += (applied.empty() ? "" : ", ") + name;
    }
    return "user-mode, its helper confined by " + applied + refused;
}

std::string engine_verdict(bool kvm, const std::string& missing_features, const Status& code_memory) {
    if (kvm) return "kvm (--engine soft: the software CPU)";
    if (!missing_features.empty()) return "none: the software CPU needs an x86-64-v3 processor";
    if (!code_memory)
        return "soft, by the interpreter: much slower than the translator, which this host forbids";
    return "soft, the software CPU, with its translator (--engine soft,jit=off: its interpreter)";
}

}  // namespace tessera::app
