// One vCPU of the kernel's: the loop around KVM_RUN, and what is done about each exit.
//
// With Irqchip::User our own local APIC is the vCPU's: interrupts go in by KVM_INTERRUPT at the moments KVM
// says it can take them, HLT, INIT and SIPI end here. With the others the kernel does all that.
//
// What KVM cannot execute (its instruction emulator does not know it, on hardware without unrestricted guest
// mode, or when a vector instruction touches MMIO) the interpreter does, one instruction at a time.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <sys/types.h>

#include "base/file.h"
#include "cpu/cpu.h"
#include "cpu/kvm/exit_counts.h"
#include "cpu/kvm/host.h"
#include "cpu/kvm/interpreter.h"
#include "cpu/kvm/kernel_vm.h"
#include "cpu/kvm/split_board.h"
#include "cpu/kvm/vcpu_state.h"

namespace tessera::kvm {

class DirtyLog;

// What the vCPUs of one VM share.
struct VmParts {
    const CpuWorld& world;
    const Host& host;
    const KernelVm& vm;
    Interpreter& interpreter;
    SplitBoard* split = nullptr;  // with Irqchip::Split
    DirtyLog* dirty = nullptr;    // if the engine has one
    bool time_exits = false;      // for statistics
    // What was last subtracted from the processor's TSC to have the guest's, plus one; 0: never.
    std::atomic<u64> clock_set_for = 0;
};

class KvmCpu final : public Cpu, public CpuWaker {
public:
    [[nodiscard]] static Result<std::unique_ptr<KvmCpu>> create(VmParts& parts, unsigned index, File vcpu,
                                                                std::span<const kvm_cpuid_entry2> cpuid);
    void connect(CpuInterrupts& interrupts) { interrupts_ = &interrupts; }
    [[nodiscard]] int fd() const { return vcpu_.get(); }
    // See KvmEngine.
    void follow_time();
    [[nodiscard]] s64 tsc_offset() const;

    Exit run() override { return enter(kForever); }
    Exit step(u64 count) override { return enter(count); }
    void kick() override;
    CpuWaker& waker() override { return *this; }
    void wake() override;
    [[nodiscard]] x86::State state() const override;
    void set_state(const x86::State& state) override;
    // KVM does not count them.
    [[nodiscard]] u64 instructions() const override { return 0; }
    [[nodiscard]] bool counts_all_instructions() const override { return false; }
    void statistics(std::vector<Statistic>& out) const override { exits_.statistics(out); }
    [[nodiscard]] std::string failure() const override { return failure_; }

private:
    static constexpr u64 kForever = ~u64{0};
    struct Unmap {
        u64 size = 0;
        void operator()(kvm_run* run) const;
    };
    using Run = std::unique_ptr<kvm_run, Unmap>;

    KvmCpu(VmParts& parts, unsigned index, File vcpu, Run run, VcpuState registers);

    // kvm_cpu.cpp: the loop.
    Exit enter(u64 steps);
    std::optional<Exit> go(u64& steps);
    [[nodiscard]] bool enter_kernel();
    void settle();
    void place_tsc(u64 offset);
    void interrupt_thread();
    void single_step(bool on);
    Exit give_up(std::string why);
    // The same as state() and set_state(), for less than all of it.
    [[nodiscard]] x86::State get(Extent extent) const;
    void put(const x86::State& state, Extent extent);
    // put(), where get(Extent::Registers) said `before`.
    void put_changes(const x86::State& before, const x86::State& after);
    void say_again(const x86::State& state);
    [[nodiscard]] bool own_apic() const { return parts_.vm.irqchip() == Irqchip::User; }

    // exits.cpp: what an exit asks for.
    std::optional<Exit> answer(u64& steps);
    std::optional<Exit> answer_reason(u64& steps);
    void answer_io();
    void answer_mmio();
    void answer_rdmsr();
    void answer_wrmsr();
    std::optional<Exit> make_room();
    std::optional<Exit> interpret(u64& steps);

    // inputs.cpp: interrupts, INIT and SIPI, with our own local APIC; the 8259A pair's with Irqchip::Split.
    bool take_external();
    std::optional<Exit> take_inputs();
    void inject();
    void do_init();
    void do_sipi(u8 page);
    void move_tsc(u64 distance, u64 adjust);
    bool write_msr(u32 index, u64 value);

    VmParts& parts_;
    const unsigned index_;
    File vcpu_;
    Run run_;
    VcpuState registers_;
    CpuInterrupts* interrupts_ = nullptr;

    std::atomic<pid_t> in_guest_ = 0;  // the thread that is in KVM_RUN, or about to be
    std::atomic<bool> kicked_ = false;
    std::atomic<bool> woken_ = false;

    // The vCPU's own thread, from here on.
    bool io_pending_ = false;  // the kernel has yet to take what was read, before the state is whole
    bool stepping_ = false;
    pid_t thread_ = 0;
    std::optional<u8> external_;                       // acknowledged, and the kernel had no place for it yet
    x86::Activity activity_ = x86::Activity::Running;  // ours to know with Irqchip::User
    std::optional<u64>
        tsc_less_;  // what is subtracted from the processor's TSC beside the guest's own offset
    std::optional<u64> tsc_told_;  // to our own local APIC: the guest's TSC less guest time
    mutable std::string failure_;
    ExitCounts exits_;
};

}  // namespace tessera::kvm
