// The software x86-64 CPU: what the rest of Tessera sees of it.
#pragma once

#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include "cpu/cpu.h"
#include "cpu/x86/cpuid.h"

namespace tessera::soft {

// What the guest's CPUID reports. All models are AuthenticAMD family 19h; X86_64_V3 and Max differ in the
// extras listed in docs/cpu.md. V2 hides AVX, BMI, FMA, F16C, LZCNT, MOVBE and XSAVE.
enum class CpuModel : u8 { X86_64_V2, X86_64_V3, Max };

// "x86-64-v2", "x86-64-v3", "max".
[[nodiscard]] std::optional<CpuModel> cpu_model_of(std::string_view name);
// Which rows of CPUID's feature table a model has.
[[nodiscard]] x86::FeatureLevel feature_level(CpuModel model);

// How much translated code a CPU may keep, in bytes. Decoded code, which it is made from, may take up to
// twice as much. Both take memory as they grow, and start anew when they are full.
inline constexpr u64 kLeastCodeCache = kMiB;
inline constexpr u64 kMostCodeCache = kGiB;

struct SoftCpuConfig {
    CpuModel model = CpuModel::Max;
    unsigned cpus = 1;
    bool jit = true;              // translate to host code where the host allows that; else interpret
    u64 translate_after = 8;      // runs of a block before it is translated, at least 1
    u64 code_cache = 128 * kMiB;  // bytes of translated code, from kLeastCodeCache to kMostCodeCache
    u64 check = 0;                // every n-th block is compared with the interpreter; 0: none. One CPU only
    bool hear_of_writes = true;   // by devices, from the memory map, which tells one engine only
    bool mistranslate = false;    // to see `check` find it: INC of a register adds 2
    // Translated code counts what it does, for statistics, and is slower by it. Unset: no, but a front may
    // choose.
    std::optional<bool> count = std::nullopt;
    bool strict_flags = false;  // status flags are exact also where only a fault handler could see them
};

// How Cpu::failure() begins when `check` has found a difference; the rest are both states and the block.
inline constexpr std::string_view kCheckFailure = "translator and interpreter differ";

// The CPUs of one VM. They share the record of which pages hold decoded code, hence one object.
class SoftEngine final : public CpuEngine {
public:
    SoftEngine(const CpuWorld& world, const SoftCpuConfig& config);
    SoftEngine(const SoftEngine&) = delete;
    SoftEngine& operator=(const SoftEngine&) = delete;
    ~SoftEngine() override;

    [[nodiscard]] unsigned count() const override;
    [[nodiscard]] Cpu& cpu(unsigned index) override;
    void connect(unsigned index, CpuInterrupts& interrupts) override;
    // Somebody else's CPU wrote to memory: what this CPU has decoded of it is stale. On the CPU's thread.
    void forget_code(unsigned index);
    // Before a CPU's state goes to another engine: ends what has begun and has no place there. The guest's
    // offer to end an interrupt in memory is taken back (or what it did is passed on), and a #DB that the
    // last instruction left is an event to be delivered. On the CPU's thread.
    void prepare_to_leave(unsigned index);

private:
    class Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace tessera::soft
