#include "machines/choose_engine.h"

#include <fmt/format.h>

#include "cpu/kvm/probe.h"

namespace tessera {

namespace {

// What only the software CPU can do.
std::string_view soft_only(const MachineConfig& config) {
    if (config.tracer != nullptr &&
        (config.tracer->instructions || config.tracer->interrupts || config.tracer->msrs))
        return "a trace of the CPU";
    if (config.soft.check != 0) return "a check of the translator";
    return {};
}

}  // namespace

Result<EngineKind> choose_engine(MachineConfig& config) {
    const auto soft = [&]() -> Result<EngineKind> {
        if (!config.kvm.host_cpu) return EngineKind::Soft;
        return fail(
            Errc::HostFailure,
            "--cpu host needs a KVM that is hardware, or --engine kvm; the software CPU has x86-64-v2, "
            "x86-64-v3 and max");
    };
    if (config.engine == EngineChoice::Soft) return soft();
    const std::string_view needs_soft = soft_only(config);
    if (config.engine == EngineChoice::Auto && !needs_soft.empty()) return soft();
    if (!needs_soft.empty())
        return fail(Errc::InvalidArgument, fmt::format("{} needs --engine soft", needs_soft));

    const kvm::Finding finding = kvm::probe(config.kvm.device.c_str(), kvm::ProbeDepth::Verdict);
    if (finding.usable()) return EngineKind::Kvm;
    if (config.engine == EngineChoice::Auto) return soft();
    if (finding.verdict != kvm::Verdict::Interpreted)
        return fail(Errc::HostFailure,
                    fmt::format("--engine kvm: {}; --engine soft needs no KVM", kvm::describe(finding)));
    if (config.on_note)
        config.on_note(
            fmt::format("KVM on this host is {}; --engine soft is faster here", kvm::describe(finding)));
    // Such a KVM puts another instruction in the place of a hypercall, and begins it again without end.
    config.kvm.hypercalls = false;
    return EngineKind::Kvm;
}

}  // namespace tessera
