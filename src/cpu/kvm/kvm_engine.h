// The CPUs of one VM, executed by the host's KVM.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "bus/doorbell.h"
#include "cpu/cpu.h"
#include "cpu/kvm/dirty_log.h"
#include "cpu/kvm/host.h"
#include "cpu/kvm/kernel_vm.h"
#include "cpu/kvm/split_board.h"
#include "cpu/x86/cpuid.h"

namespace tessera::kvm {

struct KvmConfig {
    unsigned cpus = 1;
    std::vector<u32> apic_ids;  // one for each CPU
    Irqchip irqchip = Irqchip::User;
    std::optional<x86::FeatureLevel> level = std::nullopt;  // of the guest's processor; none: the host's
    bool nested = false;     // VMX or SVM, where the host has it and the processor is the host's
    bool hypercalls = true;  // false: the guest is not told of features by which it would call KVM
    std::string device = kDevicePath;
    bool time_exits = false;      // for statistics: what the answers to exits cost
    SplitBoard* split = nullptr;  // with Irqchip::Split
    // What can tell which pages the guest writes; none: nothing can. It is off until it is started.
    std::optional<DirtyLogKind> dirty = std::nullopt;
    u32 dirty_ring_entries = DirtyLog::kRingEntries;  // for each CPU; a power of two
};

class KvmEngine final : public CpuEngine {
public:
    // `world` is copied; its memory map has all of its regions. The error says what the host lacks and what
    // to do about it.
    [[nodiscard]] static Result<std::unique_ptr<KvmEngine>> create(const CpuWorld& world,
                                                                   const KvmConfig& config);
    KvmEngine(const KvmEngine&) = delete;
    KvmEngine& operator=(const KvmEngine&) = delete;
    ~KvmEngine() override;

    [[nodiscard]] unsigned count() const override;
    [[nodiscard]] Cpu& cpu(unsigned index) override;
    // With Irqchip::User the local APIC; with the others it is not asked anything.
    void connect(unsigned index, CpuInterrupts& interrupts) override;

    [[nodiscard]] const KernelVm& vm() const;
    [[nodiscard]] DoorbellHost& doorbells();
    // Of a vCPU, for its chips in the kernel.
    [[nodiscard]] int vcpu_fd(unsigned index) const;
    // Gives every vCPU the TSC of now, as its run() does: for those whose deadlines the kernel keeps. While
    // nobody is in run().
    void follow_time();
    // Null without KvmConfig::dirty.
    [[nodiscard]] DirtyLog* dirty_log() const;
    // x86::Msrs::tsc_offset alone.
    [[nodiscard]] s64 tsc_offset(unsigned index) const;

private:
    class Impl;
    explicit KvmEngine(std::unique_ptr<Impl> impl);
    std::unique_ptr<Impl> impl_;
};

}  // namespace tessera::kvm
