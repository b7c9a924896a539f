#include "machines/machine.h"

#include <fmt/format.h>

#include "machines/board/board.h"
#include "machines/choose_engine.h"
#include "vm/guest_ram.h"

namespace tessera {

Status build_machine(Vm& vm, const MachineConfig& config) {
    const auto engine = choose_engine(config);
    if (!engine) return std::unexpected(engine.error());
    if (const u64 available = host_memory_available(); config.memory > available)
        return fail(Errc::HostFailure,
                    fmt::format("not enough host memory: the guest is to have {} MiB, the host has {} MiB "
                                "available; use a smaller --memory",
                                config.memory / kMiB, available / kMiB));
    auto board = Board::create(vm, config, describe_board(config), *engine);
    if (!board) return std::unexpected(std::move(board.error()));
    return vm.install(std::move(*board));
}

}  // namespace tessera
