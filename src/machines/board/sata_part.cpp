#include "machines/board/sata_part.h"

#include <algorithm>
#include <fmt/format.h>
#include <span>
#include <utility>

#include "devices/ata/ata_disk.h"
#include "devices/ata/atapi_cdrom.h"
#include "devices/pci/board_bridges.h"

namespace tessera {

unsigned sata_drive_count(const MachineConfig& config) {
    const auto disks = std::ranges::count(config.disks, DiskInterface::Ahci, &DiskConfig::interface);
    return static_cast<unsigned>(disks + std::ssize(config.cdroms));
}

std::unique_ptr<SataPart> SataPart::create(MemoryMap& memory, EventLoop& loop, const MachineConfig& config) {
    std::unique_ptr<SataPart> part(new SataPart(loop));
    part->add_drives(config);
    part->add_controllers(memory);
    return part;
}

void SataPart::add_drives(const MachineConfig& config) {
    for (const DiskConfig& disk : config.disks) {
        if (disk.interface != DiskInterface::Ahci) continue;
        // Systems name disks after it.
        const std::string serial =
            disk.serial.empty() ? fmt::format("TESSERA{:04}", drives_.size() + 1) : disk.serial;
        drives_.push_back(std::make_unique<ata::AtaDisk>(
            ata::AtaDisk::Config{.serial = serial, .write_cache = disk.writeback}, *disk.backend));
    }
    for (const CdromConfig& cdrom : config.cdroms) {
        const std::string serial =
            cdrom.serial.empty() ? fmt::format("TESSERA{:04}", drives_.size() + 1) : cdrom.serial;
        drives_.push_back(std::make_unique<ata::AtapiCdrom>(serial, cdrom.disc));
    }
}

void SataPart::add_controllers(MemoryMap& memory) {
    std::vector<ata::Drive*> all;
    all.reserve(drives_.size());
    for (const auto& drive : drives_) all.push_back(drive.get());
    for (std::span<ata::Drive* const> rest = all; !rest.empty();) {
        const auto mine = rest.first(std::min(rest.size(), kPorts));
        rest = rest.subspan(mine.size());
        Controller& controller = *controllers_.emplace_back(std::make_unique<Controller>(loop_));
        controller.chip = std::make_unique<ahci::Ahci>(
            ahci::Ahci::Ids{.vendor = pci::kTesseraVendor, .device = pci::kAhciId}, mine, memory,
            controller.worker);
        controller.worker.connect(*controller.chip);
    }
}

std::vector<SataPart::Function> SataPart::functions() {
    std::vector<Function> functions;
    functions.reserve(controllers_.size());
    for (const auto& controller : controllers_)
        functions.push_back({.name = fmt::format("AHCI {}", functions.size()),
                             .function = controller->chip.get(),
                             .lock = &controller->lock});
    return functions;
}

void SataPart::reset() {
    for (const auto& controller : controllers_) {
        {
            const LockGuard guard(controller->lock);
            controller->chip->reset();
        }
        controller->worker.wait_until_drained();
    }
}

// First nothing is in flight any more, then nothing is on its way to the workers.
SataPart::~SataPart() {
    reset();
    for (const auto& controller : controllers_) controller->worker.wait_until_idle();
}

}  // namespace tessera
