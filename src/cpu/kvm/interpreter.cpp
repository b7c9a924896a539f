#include "cpu/kvm/interpreter.h"

#include <utility>

namespace tessera::kvm {

bool Interpreter::step(unsigned index, x86::State& state, CpuInterrupts& interrupts) {
    std::call_once(built_, [this] {
        engine_ = std::make_unique<soft::SoftEngine>(
            world_, soft::SoftCpuConfig{
                        .model = soft::CpuModel::Max, .cpus = cpus_, .jit = false, .hear_of_writes = false});
    });
    // The kernel keeps the paravirtual clock's page, that of steal time, and the interrupt whose end may be
    // told by memory; the software CPU would begin its own.
    x86::Msrs& msrs = state.msr;
    const u64 clock = std::exchange(msrs.kvm_system_time, 0);
    const u64 end_of_interrupt = std::exchange(msrs.kvm_pv_eoi, 0);
    const u64 steal_time = std::exchange(msrs.kvm_steal_time, 0);
    engine_->connect(index, interrupts);
    Cpu& cpu = engine_->cpu(index);
    // Since it was last here the guest has changed its code without a word.
    engine_->forget_code(index);
    cpu.set_state(state);
    (void)cpu.step(1);
    state = cpu.state();
    msrs.kvm_system_time = clock;
    msrs.kvm_pv_eoi = end_of_interrupt;
    msrs.kvm_steal_time = steal_time;
    return state.activity != x86::Activity::Shutdown;
}

}  // namespace tessera::kvm
