#include "machines/machine.h"

#include <fmt/format.h>

#include "machines/board/board.h"
#include "vm/guest_ram.h"
#include "vm/host_cpu.h"

namespace tessera {

Status build_machine(Vm& vm, const MachineConfig& config) {
    if (const std::string missing = missing_host_features(); !missing.empty())
        return fail(Errc::HostFailure,
                    fmt::format("this processor lacks {}: the software CPU needs an x86-64-v3 "
                                "processor (AVX2, BMI2, FMA)",
                                missing));
    if (const u64 available = host_memory_available(); config.memory > available)
        return fail(Errc::HostFailure,
                    fmt::format("not enough host memory: the guest is to have {} MiB, the host has {} MiB "
                                "available; use a smaller --memory",
                                config.memory / kMiB, available / kMiB));
    auto board = Board::create(vm, config, describe_board(config));
    if (!board) return std::unexpected(std::move(board.error()));
    return vm.install(std::move(*board));
}

}  // namespace tessera
