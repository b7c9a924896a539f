// The bus between the local APICs of one VM: finds whom a message is for.
#pragma once

#include <atomic>
#include <vector>

#include "bus/irq_line.h"
#include "devices/lapic/apic_fabric.h"
#include "devices/lapic/lapic.h"

namespace tessera::lapic {

class LapicFabric final : public ApicFabric {
public:
    // While the machine is put together, before any thread runs. IDs are distinct.
    void add(Lapic& lapic);

    // Thread-safe, without locks.
    void deliver(const ApicMessage& message) override;

    // The LINT pins of all CPUs in parallel, as PC boards wire them: pin 0 the 8259A's INTR, pin 1 NMI.
    // Callers of one pin are serialised by their own lock.
    [[nodiscard]] IrqSink& lint_pins() { return pins_; }

private:
    class LintPins final : public IrqSink {
    public:
        explicit LintPins(LapicFabric& fabric) : fabric_(fabric) {}
        void set_level(unsigned pin, bool high) override {
            for (Lapic* lapic : fabric_.lapics_) lapic->set_lint(pin, high);
        }

    private:
        LapicFabric& fabric_;
    };

    static constexpr u32 kIndexedIds = 4096;

    void deliver_to_one(const ApicMessage& message);

    std::vector<Lapic*> lapics_;
    std::vector<Lapic*> by_id_;  // the low IDs, so that the usual message touches one CPU's cache lines
    LintPins pins_{*this};
    std::atomic<u32> turn_ = 0;  // of lowest-priority delivery
};

}  // namespace tessera::lapic
