// The contract between a virtual machine and whatever executes its CPUs (software CPU, KVM, SVM/VMX).
// A backend is given the buses and calls them itself; what run() returns are control events only.
#pragma once

#include <memory>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "bus/cpu_interrupts.h"
#include "bus/io_bus.h"
#include "cpu/x86/state.h"
#include "memory/memory_map.h"

namespace tessera {

enum class ExitReason : u8 {
    Kicked,       // kick() was called
    Halted,       // HLT (or MWAIT) with nothing to wake it; call run() again after CpuWaker::wake()
    WaitForSipi,  // after INIT, or an application processor at power-on; likewise
    Shutdown,     // triple fault
    Debug,        // single step done or breakpoint reached, when the caller asked for it
    Failed,       // the backend cannot go on; see failure()
};

inline constexpr unsigned kExitReasons = 6;

struct Exit {
    ExitReason reason;
};

// A figure about a CPU's work, for people. The same figures of several CPUs add up.
struct Statistic {
    // Exits: occasions on which the CPU stopped executing the guest's instructions as it does best, to have
    // something done. They are shown with their cost.
    enum class Unit : u8 { Count, Bytes, Ratio, Exits };

    std::string_view name;  // a literal, the same for every CPU
    u64 value = 0;
    Unit unit = Unit::Count;
    u64 whole = 0;  // with Ratio: what `value` is a part of; with Exits: nanoseconds, 0 if not measured
};

// One virtual CPU. run(), state() and set_state() are called by one thread at a time; kick() by any.
class Cpu {
public:
    Cpu() = default;
    Cpu(const Cpu&) = delete;
    Cpu& operator=(const Cpu&) = delete;
    virtual ~Cpu() = default;

    // Executes until something that is not the CPU's own business happens.
    virtual Exit run() = 0;
    // Executes exactly `count` instructions (fewer if an exit comes first; a REP iteration counts as one part
    // of its instruction, not as one). For tests, debuggers and oracles. Debug is returned when the count is
    // reached.
    virtual Exit step(u64 count) = 0;
    // Makes run() return Kicked soon, also when it is called later. Thread-safe.
    virtual void kick() = 0;
    // Its side of the local APIC's wake-up wire.
    virtual CpuWaker& waker() = 0;

    [[nodiscard]] virtual x86::State state() const = 0;
    virtual void set_state(const x86::State& state) = 0;
    // Instructions executed since power-on, for statistics; may lag while running.
    [[nodiscard]] virtual u64 instructions() const = 0;
    // Whether instructions() counts all of them; translated code may not count its own.
    [[nodiscard]] virtual bool counts_all_instructions() const { return true; }
    // Appends what its engine counts beyond instructions, in the order it is to be shown. While nobody is in
    // run().
    virtual void statistics(std::vector<Statistic>& /*out*/) const {}
    [[nodiscard]] virtual std::string failure() const { return {}; }
};

// What executes CPUs.
enum class EngineKind : u8 { Soft, Kvm };

// The CPUs of one VM, all executed in the same way.
class CpuEngine {
public:
    CpuEngine() = default;
    CpuEngine(const CpuEngine&) = delete;
    CpuEngine& operator=(const CpuEngine&) = delete;
    virtual ~CpuEngine() = default;

    [[nodiscard]] virtual unsigned count() const = 0;
    // CPU 0 is the bootstrap processor. Each starts in its reset state (others waiting for SIPI).
    [[nodiscard]] virtual Cpu& cpu(unsigned index) = 0;
    // Must be called for each CPU before its first run(): its local APIC. Not owned.
    virtual void connect(unsigned index, CpuInterrupts& interrupts) = 0;
};

// What the guest does, for --trace. Called on the CPU's thread.
class CpuTracer {
public:
    CpuTracer() = default;
    CpuTracer(const CpuTracer&) = delete;
    CpuTracer& operator=(const CpuTracer&) = delete;
    virtual ~CpuTracer() = default;
    // Before an instruction executes. `bits` is 16, 32 or 64.
    virtual void on_instruction(unsigned cpu, const x86::State& state, std::span<const u8> bytes,
                                unsigned bits) = 0;
    enum class Cause : u8 { Exception, Interrupt, Nmi, Software };
    virtual void on_interrupt(unsigned cpu, Cause cause, u8 vector, u32 error, u64 cs, u64 rip) = 0;
    virtual void on_msr(unsigned cpu, bool write, u32 index, u64 value, bool fault) = 0;

    // Which of these are wanted; read once when the engine is built.
    bool instructions = false;
    bool interrupts = false;
    bool msrs = false;
};

// Everything a CPU may touch.
struct CpuWorld {
    MemoryMap& memory;
    IoBus& ports;
    IoBus& mmio;
    const TscSource& tsc;
    CpuTracer* tracer = nullptr;
    // Gives the rest of the host a chance while one CPU waits for another. Thread-safe. May be null.
    void (*yield)() = nullptr;
    // The time of day, for guests that use the paravirtual clock. Null: that is not offered.
    const Clock* clock = nullptr;
};

}  // namespace tessera
