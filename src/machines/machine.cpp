#include "machines/machine.h"

#include <algorithm>
#include <fmt/format.h>

#include "cpu/kvm/cpuid.h"
#include "cpu/kvm/host.h"
#include "machines/board/board.h"
#include "machines/choose_engine.h"
#include "vm/guest_ram.h"

namespace tessera {

namespace {

Result<CpuidOfGuest> kvm_cpuid(const MachineConfig& config) {
    const auto host = kvm::Host::open(config.kvm.device);
    if (!host) return std::unexpected(host.error());
    const auto cpuid = kvm::guest_cpuid(*host, {.level = config.kvm.level, .cpus = config.cpus});
    if (!cpuid) return std::unexpected(cpuid.error());
    return [entries = cpuid->entries](u32 leaf) {
        const auto entry = std::ranges::find_if(
            entries, [leaf](const kvm_cpuid_entry2& e) { return e.function == leaf && e.index == 0; });
        if (entry == entries.end()) return x86::CpuidResult{};
        return x86::CpuidResult{.eax = entry->eax, .ebx = entry->ebx, .ecx = entry->ecx, .edx = entry->edx};
    };
}

}  // namespace

Status build_machine(Vm& vm, const MachineConfig& config) {
    MachineConfig settled = config;
    const auto engine = choose_engine(settled);
    if (!engine) return std::unexpected(engine.error());
    if (const u64 available = host_memory_available(); config.memory > available)
        return fail(Errc::HostFailure,
                    fmt::format("not enough host memory: the guest is to have {} MiB, the host has {} MiB "
                                "available; use a smaller --memory",
                                config.memory / kMiB, available / kMiB));
    const auto cpuid = *engine == EngineKind::Kvm ? kvm_cpuid(settled) : soft_cpuid(settled);
    if (!cpuid) return std::unexpected(cpuid.error());
    auto board = Board::create(vm, settled, describe_board(settled, *cpuid), *engine);
    if (!board) return std::unexpected(std::move(board.error()));
    return vm.install(std::move(*board));
}

}  // namespace tessera
