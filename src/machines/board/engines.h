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
#include "machines/machine.h"

namespace tessera {

class Engines {
public:
    struct Around {
        CpuWorld world;
        const MachineConfig& config;  // stays longer
        std::vector<u32> apic_ids;
        std::vector<CpuInterrupts*> apics;  // likewise
    };
    [[nodiscard]] static Result<std::unique_ptr<Engines>> create(Around around, EngineKind engine);

    [[nodiscard]] EngineKind engine() const { return engine_; }
    [[nodiscard]] std::span<Cpu* const> cpus() const { return cpus_; }
    // While every CPU stands still. An engine once used stays, so that a wake-up on its way to one of its
    // CPUs does no harm. Fails with nothing changed.
    [[nodiscard]] Status use(EngineKind engine);

private:
    explicit Engines(Around around) : around_(std::move(around)) {}
    // Makes the engine if it is not there yet.
    [[nodiscard]] Result<CpuEngine*> need(EngineKind engine);
    void run_on(CpuEngine& engine, EngineKind kind);

    Around around_;
    std::unique_ptr<soft::SoftEngine> soft_;
    std::unique_ptr<kvm::KvmEngine> kvm_;
    EngineKind engine_ = EngineKind::Soft;
    std::vector<Cpu*> cpus_;
};

}  // namespace tessera
