#include "devices/ne2000/ne2000_pci.h"

#include <utility>

namespace tessera::ne2000 {

Ne2000Pci::Ne2000Pci(const Mac& mac, const Ne2000::Around& around)
    : card_({.mac = mac, .model = Model::Rtl8029As}, around, IrqLine(*this, 0)) {
    config_.add_bar(0, pci::BarKind::Io, kPortCount, card_);
}

// The card first, so that its line is low before the register forgets it.
void Ne2000Pci::reset() {
    card_.reset();
    config_.reset();
}

void Ne2000Pci::visit_state(StateVisitor& v) {
    card_.visit_state(v);
    auto config = config_.state();
    pci::ConfigSpace::visit(v, kConfigField, config);
}

Status Ne2000Pci::load(StateVisitor& v) {
    auto config = config_.initial_state();
    pci::ConfigSpace::visit(v, kConfigField, config);
    if (!config_.valid(config))
        return fail(Errc::CorruptState, "RTL8029AS: configuration registers no guest could have made");
    if (auto status = card_.load(v); !status) return status;
    config_.restore(std::move(config));
    return {};
}

}  // namespace tessera::ne2000
