// Executes for a vCPU of the kernel's what KVM cannot: one instruction, by the software CPU's interpreter, on
// a host that lacks nothing it needs (x86/host_cpu.h).
#pragma once

#include <memory>
#include <mutex>

#include "cpu/cpu.h"
#include "cpu/soft/soft_cpu.h"

namespace tessera::kvm {

class Interpreter {
public:
    // `world` stays longer. Nothing is built before it is needed.
    Interpreter(const CpuWorld& world, unsigned cpus) : world_(world), cpus_(cpus) {}

    // One instruction of CPU `index`, or an interrupt or exception in its place. On the CPU's own thread.
    // False: the CPU shut down.
    [[nodiscard]] bool step(unsigned index, x86::State& state, CpuInterrupts& interrupts);

private:
    const CpuWorld& world_;
    unsigned cpus_;
    std::once_flag built_;
    std::unique_ptr<soft::SoftEngine> engine_;
};

}  // namespace tessera::kvm
