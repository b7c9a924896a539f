// The virtio devices of a board: chips, locks, workers, and what stands behind them. Wiring only.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "backends/event_loop/event_loop.h"
#include "base/result.h"
#include "bus/doorbell.h"
#include "bus/io_bus.h"
#include "bus/irq_line.h"
#include "devices/virtio/mmio.h"
#include "devices/virtio/pci.h"
#include "devices/virtio_balloon/virtio_balloon.h"
#include "devices/virtio_console/virtio_console.h"
#include "devices/virtio_rng/virtio_rng.h"
#include "machines/board/console_cable.h"
#include "machines/board/device_worker.h"
#include "machines/board/queue_bells.h"
#include "machines/machine.h"
#include "memory/memory_map.h"
#include "vm/host_timers.h"
#include "vm/vm.h"

namespace tessera {

// Where MMIO devices are: one page each, and an interrupt of the I/O APIC each, level triggered, active high.
inline constexpr u32 kVirtioMmioBase = 0xfeb0'0000;
inline constexpr u32 kVirtioMmioStep = 0x1000;
inline constexpr unsigned kVirtioMmioFirstPin = 16;
inline constexpr unsigned kMostVirtioMmio = 8;

// How many virtio devices a configuration asks for.
[[nodiscard]] unsigned virtio_device_count(const MachineConfig& config);

// The host's own generator. Cannot run dry once the host has booted.
class HostEntropy final : public virtio_rng::EntropySource {
public:
    std::size_t fill(std::span<std::byte> out) override;
};

// Anonymous memory in the host, private to this process, is thrown away where it is.
class HostPageReleaser final : public virtio_balloon::PageReleaser {
public:
    void release(std::span<std::byte> pages) override;
};

class VirtioPart {
public:
    struct Around {
        Vm& vm;
        MemoryMap& memory;
        EventLoop& loop;  // of the workers
        enum class Doorbells : u8 { ByBus, ByEngine };
        Doorbells doorbells = Doorbells::ByEngine;  // who answers them, if the engine can
    };
    // Devices in the order in which a guest is to find them.
    static Result<std::unique_ptr<VirtioPart>> create(const Around& around, const MachineConfig& config);
    VirtioPart(const VirtioPart&) = delete;
    VirtioPart& operator=(const VirtioPart&) = delete;
    // Waits for what is in flight; the guest's memory is still there.
    ~VirtioPart();

    // One of these two, once. `pins` takes its own lock.
    Status attach_mmio(IoBus& bus, IrqSink& pins);
    struct Function {
        std::string name;
        virtio::Pci* function;
        Lock* lock;
        // Is to be told where BAR virtio::Pci::kRegistersBar is; null: nobody.
        PlaceWatcher* place_watcher;
    };
    [[nodiscard]] std::vector<Function> make_functions();

    // Who answers the devices' doorbells; null: the bus. While no CPU runs.
    void use_doorbells(DoorbellHost* host);
    // Carries out what the guest has rung. No CPU runs; not on the loop's thread with a lock held.
    void settle_doorbells();

    // Power-on. Waits for what is in flight, so that nothing writes to memory afterwards. No CPU runs, no
    // lock is held.
    void reset();

private:
    struct Item {
        Item(std::string called, EventLoop& loop) : name(std::move(called)), worker(loop, lock) {}
        std::string name;
        MutexLock lock;
        DeviceWorker worker;
        std::vector<std::unique_ptr<ConsoleCable>> cables;  // of a console
        std::unique_ptr<virtio::Device> device;
        std::unique_ptr<virtio::Mmio> mmio;
        std::unique_ptr<virtio::Pci> pci;
        std::unique_ptr<QueueBells> bells;
        std::function<void()> plug_in;  // to what is behind it, if that calls the device; and apart again
        std::function<void()> unplug;
    };

    explicit VirtioPart(const Around& around) : around_(around) {}
    Status add_disks(const MachineConfig& config);
    void add_nets(const MachineConfig& config);
    Status add_vsock(const VsockConfig& config);
    Status add_ports(const MachineConfig& config);
    void add_console(std::string name, virtio_console::VirtioConsole::Kind kind,
                     std::span<const PortConfig> ports);
    // Once there is a transport around them.
    void plug_in();
    void add_bells(Item& item, unsigned queues, QueueBells::DoorbellOf doorbell_of) const;
    Item& add(std::string name);

    Around around_;
    HostEntropy entropy_;
    HostPageReleaser page_releaser_;
    std::vector<std::unique_ptr<Item>> items_;
    bool doorbells_used_ = false;
};

}  // namespace tessera
