#include "cpu/soft/exits.h"

#include <string_view>

namespace tessera::soft {

namespace {

constexpr std::array<std::string_view, kExitCauses> kNames{
    "port read",
    "port write",
    "MMIO read",
    "MMIO write",
    "APIC read",
    "APIC write",
    "MSR read",
    "MSR write",
    "CPUID",
    "hypercall",
    "HLT",
    "interrupt",
    "NMI",
    "exception",
    "software interrupt",
    "page table walk",
    "decoding",
    "translation",
    "code written to",
};
static_assert(!kNames.back().empty());

}  // namespace

void exit_statistics(const Vcpu& c, std::vector<Statistic>& out) {
    const u64 hz = c.system->world().tsc.hz();
    for (std::size_t cause = 0; cause < kExitCauses; ++cause) {
        const ExitTally::One& one = c.exits.of[cause];
        constexpr u64 kNsPerSecond = 1'000'000'000;
        out.push_back({.name = kNames[cause],
                       .value = one.count,
                       .unit = Statistic::Unit::Exits,
                       .whole = static_cast<u64>(u128{one.ticks} * kNsPerSecond / hz)});
    }
}

}  // namespace tessera::soft
