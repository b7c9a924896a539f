#include "machines/board/engines.h"

#include <fmt/format.h>
#include <utility>

#include "cpu/x86/host_cpu.h"

namespace tessera {

Result<std::unique_ptr<Engines>> Engines::create(Around around, EngineKind engine) {
    std::unique_ptr<Engines> engines(new Engines(std::move(around)));
    const auto first = engines->need(engine);
    if (!first) return std::unexpected(first.error());
    engines->run_on(**first, engine);
    return engines;
}

// None: the host's. A guest that begins in the software CPU keeps what CPUID told it there.
std::optional<x86::FeatureLevel> Engines::level_under_kvm() const {
    return soft_ != nullptr ? soft::feature_level(around_.config.soft.model) : around_.config.kvm.level;
}

Result<CpuEngine*> Engines::need(EngineKind engine) {
    const MachineConfig& config = around_.config;
    CpuEngine* made = nullptr;
    if (engine == EngineKind::Soft) {
        if (soft_ != nullptr) return soft_.get();
        if (kvm_ != nullptr && !config.kvm.level)
            return fail(Errc::InvalidArgument,
                        "this guest has the host's processor, which the software CPU is not; start it with "
                        "--cpu x86-64-v2, x86-64-v3 or max");
        if (const std::string missing = missing_host_features(); !missing.empty())
            return fail(Errc::HostFailure,
                        fmt::format("this processor lacks {}: the software CPU needs an x86-64-v3 "
                                    "processor (AVX2, BMI2, FMA)",
                                    missing));
        soft::SoftCpuConfig soft = config.soft;
        soft.cpus = config.cpus;
        soft_ = std::make_unique<soft::SoftEngine>(around_.world, soft);
        made = soft_.get();
    } else {
        if (kvm_ != nullptr) return kvm_.get();
        kvm::SplitBoard* split = config.kvm.irqchip == kvm::Irqchip::Split ? &around_.split : nullptr;
        auto kvm = kvm::KvmEngine::create(around_.world, {.cpus = config.cpus,
                                                          .apic_ids = around_.apic_ids,
                                                          .irqchip = config.kvm.irqchip,
                                                          .level = level_under_kvm(),
                                                          .nested = config.kvm.nested,
                                                          .hypercalls = config.kvm.hypercalls,
                                                          .device = config.kvm.device,
                                                          .time_exits = config.soft.count.value_or(false),
                                                          .split = split});
        if (!kvm) return std::unexpected(std::move(kvm.error()));
        if (auto status = add_kernel_chips(**kvm); !status) return std::unexpected(std::move(status.error()));
        kvm_ = *std::move(kvm);
        made = kvm_.get();
    }
    for (unsigned i = 0; i < config.cpus; ++i) made->connect(i, *around_.chips.local_apics[i]);
    return made;
}

Status Engines::add_kernel_chips(const kvm::KvmEngine& kvm) {
    const kvm::KernelIrqchip* chips = kvm.vm().chips();
    if (chips == nullptr) return {};
    std::vector<int> vcpus;
    vcpus.reserve(kvm.count());
    for (unsigned i = 0; i < kvm.count(); ++i) vcpus.push_back(kvm.vcpu_fd(i));
    auto made = KernelChips::create(*chips, vcpus, around_.chips);
    if (!made) return std::unexpected(std::move(made.error()));
    kernel_chips_ = *std::move(made);
    return {};
}

DoorbellHost* Engines::doorbells() {
    return engine_ == EngineKind::Kvm ? &kvm_->doorbells() : nullptr;
}

Status Engines::take_chips() {
    if (kernel_chips_ == nullptr || !kernel_chips_->in_kernel()) return {};
    std::vector<s64> tsc_offsets;
    tsc_offsets.reserve(kvm_->count());
    for (unsigned i = 0; i < kvm_->count(); ++i) tsc_offsets.push_back(kvm_->tsc_offset(i));
    return kernel_chips_->leave(tsc_offsets);
}

Status Engines::give_chips() {
    const auto start = std::exchange(start_, KernelChips::Start::Running);
    if (engine_ != EngineKind::Kvm) return {};
    // Also for a vCPU that leaves again before it has entered its guest: on a host that does not move the TSC
    // its state would tell another one.
    kvm_->follow_time();
    return kernel_chips_ == nullptr ? Status() : kernel_chips_->enter(start);
}

void Engines::select_hpet(bool hpet) {
    if (kernel_chips_ != nullptr) kernel_chips_->select_hpet(hpet);
}

void Engines::run_on(CpuEngine& engine, EngineKind kind) {
    engine_ = kind;
    cpus_.clear();
    for (unsigned i = 0; i < engine.count(); ++i) cpus_.push_back(&engine.cpu(i));
}

Status Engines::use(EngineKind engine) {
    if (engine == engine_) return {};
    const auto next = need(engine);
    if (!next) return std::unexpected(next.error());
    for (unsigned i = 0; i < cpus_.size(); ++i) {
        // Since it was last here the guest has changed its memory without a word.
        if (engine == EngineKind::Soft) soft_->forget_code(i);
        if (engine_ == EngineKind::Soft) soft_->prepare_to_leave(i);
        Cpu& cpu = (*next)->cpu(i);
        cpu.set_state(cpus_[i]->state());
        for (const Cpu* side : {cpus_[i], &cpu})
            if (std::string why = side->failure(); !why.empty())
                return fail(Errc::HostFailure, std::move(why));
    }
    run_on(**next, engine);
    return {};
}

}  // namespace tessera
