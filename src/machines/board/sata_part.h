// The serial ATA controllers of a board: drives, locks, workers. Wiring only.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "backends/event_loop/event_loop.h"
#include "base/result.h"
#include "bus/lock.h"
#include "devices/ahci/ahci.h"
#include "devices/ata/drive.h"
#include "devices/pci/pci_function.h"
#include "machines/board/device_worker.h"
#include "machines/machine.h"
#include "memory/memory_map.h"

namespace tessera {

// How many drives a configuration asks for.
[[nodiscard]] unsigned sata_drive_count(const MachineConfig& config);

class SataPart {
public:
    // Disks, then CD drives, in their order.
    static std::unique_ptr<SataPart> create(MemoryMap& memory, EventLoop& loop, const MachineConfig& config);
    SataPart(const SataPart&) = delete;
    SataPart& operator=(const SataPart&) = delete;
    // Waits for what is in flight; the guest's memory is still there.
    ~SataPart();

    struct Function {
        std::string name;
        pci::PciFunction* function;
        Lock* lock;
    };
    [[nodiscard]] std::vector<Function> functions();

    // Power-on. Waits for what is in flight. No CPU runs, no lock is held.
    void reset();

private:
    static constexpr std::size_t kPorts = 6;  // of a controller

    struct Controller {
        explicit Controller(EventLoop& loop) : worker(loop, lock) {}
        MutexLock lock;
        DeviceWorker worker;
        std::unique_ptr<ahci::Ahci> chip;
    };

    explicit SataPart(EventLoop& loop) : loop_(loop) {}
    void add_drives(const MachineConfig& config);
    void add_controllers(MemoryMap& memory);

    EventLoop& loop_;
    std::vector<std::unique_ptr<ata::Drive>> drives_;
    std::vector<std::unique_ptr<Controller>> controllers_;
};

}  // namespace tessera
