#include "machines/board/ne2000_part.h"

#include <algorithm>
#include <fmt/format.h>

namespace tessera {

Result<std::unique_ptr<Ne2000Part>> Ne2000Part::create(const Around& around, const MachineConfig& config) {
    std::unique_ptr<Ne2000Part> part(new Ne2000Part(around));
    unsigned number = 0;
    for (const NetConfig& net : config.nets) {
        const std::string name = fmt::format("NE2000 net {}", number++);
        if (net.model == NetModel::Virtio) continue;
        if (auto status = part->add(name, net); !status) return std::unexpected(std::move(status.error()));
    }
    return part;
}

Status Ne2000Part::add(const std::string& name, const NetConfig& net) {
    auto item = std::make_unique<Item>(around_.loop);
    const ne2000::Ne2000::Around around{.backend = *net.backend,
                                        .worker = item->worker,
                                        .clock = around_.vm.clock(),
                                        .timers = around_.vm.add_timers(item->lock)};
    if (net.model == NetModel::Ne2000Pci) {
        item->pci = std::make_unique<ne2000::Ne2000Pci>(net.mac, around);
        if (auto status = around_.pci.attach(name, *item->pci, item->lock); !status) return status;
    } else {
        const auto wire = static_cast<u16>(1U << net.isa.interrupt);
        if (std::ranges::find(kIsaCardInterrupts, net.isa.interrupt) == kIsaCardInterrupts.end() ||
            (taken_interrupts_ & wire) != 0)
            return fail(Errc::InvalidArgument,
                        fmt::format("{}: ISA interrupt {} is not free; 3, 5, 7 and 15 are, for a card each",
                                    name, net.isa.interrupt));
        taken_interrupts_ = static_cast<u16>(taken_interrupts_ | wire);
        item->isa = std::make_unique<ne2000::Ne2000>(ne2000::Ne2000::Config{.mac = net.mac}, around,
                                                     IrqLine(isa_pins_, net.isa.interrupt));
        if (auto status = around_.ports.add(name, net.isa.port, ne2000::kPortCount, *item->isa, item->lock);
            !status)
            return status;
    }
    item->worker.connect(item->card());
    item->card().plug_in();
    items_.push_back(std::move(item));
    return {};
}

void Ne2000Part::reset() {
    for (const auto& item : items_)
        if (item->isa != nullptr) {
            const LockGuard guard(item->lock);
            item->isa->reset();
        }
}

Ne2000Part::~Ne2000Part() {
    for (const auto& item : items_) {
        item->card().unplug();
        const LockGuard guard(item->lock);
        item->card().reset();
    }
    for (const auto& item : items_) item->worker.wait_until_idle();
}

}  // namespace tessera
