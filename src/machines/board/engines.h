// What executes a board's CPUs: the host's KVM or the software CPU, one at a time. Both are given the same
// buses and the same local APICs, and a CPU's state moves between them whole.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "base/result.h"
#include "cpu/cpu.h"
#include "cpu/kvm/kvm_engine.h"
#include "cpu/soft/soft_cpu.h"
#include "machines/board/kernel_chips.h"
#include "machines/machine.h"

namespace tessera {

class Engines {
public:
    struct Around {
        CpuWorld world;
        const MachineConfig& config;  // stays longer
        std::vector<u32> apic_ids;
        OwnChips chips;  // likewise
        kvm::SplitBoard& split;
    };
    [[nodiscard]] static Result<std::unique_ptr<Engines>> create(Around around, EngineKind engine);

    [[nodiscard]] EngineKind engine() const { return engine_; }
    [[nodiscard]] std::span<Cpu* const> cpus() const { return cpus_; }
    // While every CPU stands still. An engine once used stays, so that a wake-up on its way to one of its
    // CPUs does no harm. Fails with nothing changed.
    [[nodiscard]] Status use(EngineKind engine);

    // Of the engine that is in use; null: it has none.
    [[nodiscard]] DoorbellHost* doorbells();

    // While the CPUs run, chips may stand in the kernel; while they stand still the chips are ours.
    [[nodiscard]] Status take_chips();
    [[nodiscard]] Status give_chips();
    // Nobody has programmed the chips yet.
    void chips_are_fresh() { start_ = KernelChips::Start::PowerOn; }
    // See KernelChips.
    void select_hpet(bool hpet);

private:
    explicit Engines(Around around) : around_(std::move(around)) {}
    [[nodiscard]] std::optional<x86::FeatureLevel> level_under_kvm() const;
    // Makes the engine if it is not there yet.
    [[nodiscard]] Result<CpuEngine*> need(EngineKind engine);
    [[nodiscard]] Status add_kernel_chips(const kvm::KvmEngine& kvm);
    void run_on(CpuEngine& engine, EngineKind kind);

    Around around_;
    std::unique_ptr<soft::SoftEngine> soft_;
    std::unique_ptr<kvm::KvmEngine> kvm_;
    std::unique_ptr<KernelChips> kernel_chips_;  // of kvm_, if it has any
    KernelChips::Start start_ = KernelChips::Start::PowerOn;
    EngineKind engine_ = EngineKind::Soft;
    std::vector<Cpu*> cpus_;
};

}  // namespace tessera
