#include "machines/machine.h"

#include "machines/board/board.h"

namespace tessera {

Status build_machine(Vm& vm, const MachineConfig& config) {
    auto description =
        config.kind == MachineKind::Pc ? boot::pc_board(config.cpus) : boot::microvm_board(config.cpus);
    auto board = Board::create(vm, config, std::move(description));
    if (!board) return std::unexpected(std::move(board.error()));
    return vm.install(std::move(*board));
}

}  // namespace tessera
