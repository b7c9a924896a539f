#include "devices/pci/board_bridges.h"

#include <utility>

namespace tessera::pci {

void HostBridge::visit_state(StateVisitor& v) {
    auto config = config_.state();
    ConfigSpace::visit(v, 1, config);
}

Status HostBridge::load(StateVisitor& v) {
    auto config = config_.initial_state();
    ConfigSpace::visit(v, 1, config);
    if (!config_.valid(config))
        return fail(Errc::CorruptState, "host bridge: registers no guest could have made");
    config_.restore(std::move(config));
    return {};
}

IsaBridge::IsaBridge(PirqRouter& router) : router_(router) {
    for (unsigned line = 0; line < kInterruptLines; ++line)
        config_.define(route_register(line), PirqRouter::kDisabled, PirqRouter::kRouteBits);
    config_.watch(kRoutes, kUpperRoutes + 4 - kRoutes, *this);
}

void IsaBridge::config_written() {
    for (unsigned line = 0; line < kInterruptLines; ++line)
        router_.set_route(line, config_.get8(route_register(line)));
}

void IsaBridge::reset() {
    config_.reset();
    config_written();
}

void IsaBridge::route(unsigned line, u8 irq) {
    config_.put8(route_register(line), irq & 0xf);
    config_written();
}

void IsaBridge::visit_state(StateVisitor& v) {
    auto config = config_.state();
    auto lines = router_.state();
    ConfigSpace::visit(v, 1, config);
    PirqRouter::visit(v, 10, lines);
}

Status IsaBridge::load(StateVisitor& v) {
    auto config = config_.initial_state();
    PirqRouter::State lines;
    ConfigSpace::visit(v, 1, config);
    PirqRouter::visit(v, 10, lines);
    if (v.corrupt() || !config_.valid(config) || !PirqRouter::valid(lines))
        return fail(Errc::CorruptState, "ISA bridge: registers no guest could have made");
    config_.restore(std::move(config));
    std::array<u8, kInterruptLines> routes{};
    for (unsigned line = 0; line < kInterruptLines; ++line) routes[line] = config_.get8(route_register(line));
    router_.restore(lines, routes);
    return {};
}

}  // namespace tessera::pci
