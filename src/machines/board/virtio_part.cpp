#include "machines/board/virtio_part.h"

#include <algorithm>
#include <array>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <utility>
#include <vector>

#include "devices/virtio_blk/virtio_blk.h"
#include "devices/virtio_net/virtio_net.h"
#include "devices/virtio_vsock/virtio_vsock.h"

namespace tessera {

unsigned virtio_device_count(const MachineConfig& config) {
    const auto disks = std::ranges::count(config.disks, DiskInterface::Virtio, &DiskConfig::interface);
    const auto nets = std::ranges::count(config.nets, NetModel::Virtio, &NetConfig::model);
    return static_cast<unsigned>(disks + nets) + (config.rng ? 1 : 0) + (config.balloon ? 1 : 0) +
           (config.console != nullptr ? 1 : 0) + (config.ports.empty() ? 0 : 1) +
           (config.vsock.backend != nullptr ? 1 : 0);
}

std::size_t HostEntropy::fill(std::span<std::byte> out) {
    // Longer requests may be interrupted.
    constexpr std::size_t kAtOnce = 256;
    std::size_t done = 0;
    while (done < out.size()) {
        const std::span<std::byte> rest = out.subspan(done);
        const ssize_t got = getrandom(rest.data(), std::min(rest.size(), kAtOnce), GRND_NONBLOCK);
        if (got <= 0) break;
        done += static_cast<std::size_t>(got);
    }
    return done;
}

void HostPageReleaser::release(std::span<std::byte> pages) {
    // A host that does not want them loses nothing but the memory.
    if (!pages.empty()) (void)madvise(pages.data(), pages.size(), MADV_DONTNEED);
}

VirtioPart::Item& VirtioPart::add(std::string name) {
    items_.push_back(std::make_unique<Item>(std::move(name), around_.loop));
    return *items_.back();
}

Result<std::unique_ptr<VirtioPart>> VirtioPart::create(const Around& around, const MachineConfig& config) {
    std::unique_ptr<VirtioPart> part(new VirtioPart(around));
    if (auto status = part->add_disks(config); !status) return std::unexpected(std::move(status.error()));
    part->add_nets(config);
    if (auto status = part->add_ports(config); !status) return std::unexpected(std::move(status.error()));
    if (auto status = part->add_vsock(config.vsock); !status)
        return std::unexpected(std::move(status.error()));
    if (config.rng) {
        Item& item = part->add("rng");
        HostTimers& timers = around.vm.add_timers(item.lock);
        item.device = std::make_unique<virtio_rng::VirtioRng>(virtio_rng::VirtioRng::Config{}, part->entropy_,
                                                              around.vm.clock(), timers);
    }
    if (config.balloon)
        part->add("balloon").device = std::make_unique<virtio_balloon::VirtioBalloon>(
            virtio_balloon::VirtioBalloon::Config{.target = config.balloon->target,
                                                  .deflate_on_oom = config.balloon->deflate_on_oom,
                                                  .reporting = config.balloon->free_page_reporting},
            around.memory, part->page_releaser_);
    return part;
}

Status VirtioPart::add_disks(const MachineConfig& config) {
    for (const DiskConfig& disk : config.disks) {
        if (disk.interface != DiskInterface::Virtio) continue;
        if (disk.queues == 0 || disk.queues > virtio_blk::kMostQueues)
            return fail(Errc::InvalidArgument,
                        fmt::format("disk {}: {} queues; it can have 1 to {}", disk.backend->info().name,
                                    disk.queues, virtio_blk::kMostQueues));
        Item& item = add(fmt::format("disk {}", disk.backend->info().name));
        item.device = std::make_unique<virtio_blk::VirtioBlk>(
            virtio_blk::VirtioBlk::Config{
                .serial = disk.serial, .queues = static_cast<u16>(disk.queues), .writeback = disk.writeback},
            *disk.backend);
    }
    return {};
}

void VirtioPart::add_nets(const MachineConfig& config) {
    unsigned number = 0;
    for (const NetConfig& net : config.nets) {
        const unsigned place = number++;
        if (net.model != NetModel::Virtio) continue;
        Item& item = add(fmt::format("net {}", place));
        HostTimers& timers = around_.vm.add_timers(item.lock);
        auto card = std::make_unique<virtio_net::VirtioNet>(
            virtio_net::VirtioNet::Config{
                .mac = net.mac,
                .pairs = static_cast<u16>(std::min<unsigned>(net.pairs, virtio_net::kMostPairs)),
                .mtu = net.mtu},
            *net.backend, around_.vm.clock(), timers);
        item.plug_in = [card = card.get()] { card->plug_in(); };
        item.unplug = [card = card.get()] { card->unplug(); };
        item.device = std::move(card);
    }
}

// The terminal has a device of its own, which tells of its size in a way that all drivers understand; that of
// the ports has no terminal, and with it no port 0.
Status VirtioPart::add_ports(const MachineConfig& config) {
    using virtio_console::VirtioConsole;
    if (config.console != nullptr)
        add_console("console", VirtioConsole::Kind::Terminal,
                    std::array{PortConfig{.backend = config.console, .name = {}}});
    if (config.ports.size() >= virtio_console::kMostPorts)
        return fail(Errc::InvalidArgument, fmt::format("{} ports; a machine can have {}", config.ports.size(),
                                                       virtio_console::kMostPorts - 1));
    for (const PortConfig& port : config.ports)
        if (port.name.empty() || port.name.size() > virtio_console::kLongestName)
            return fail(Errc::InvalidArgument, fmt::format("port '{}': a name has 1 to {} bytes", port.name,
                                                           virtio_console::kLongestName));
    if (!config.ports.empty()) add_console("ports", VirtioConsole::Kind::Stream, config.ports);
    return {};
}

void VirtioPart::add_console(std::string name, virtio_console::VirtioConsole::Kind kind,
                             std::span<const PortConfig> ports) {
    using virtio_console::VirtioConsole;
    Item& item = add(std::move(name));
    std::vector<VirtioConsole::Port> all;
    if (kind == VirtioConsole::Kind::Stream) all.emplace_back();
    const auto first = static_cast<unsigned>(all.size());
    for (const PortConfig& port : ports) {
        auto& cable = item.cables.emplace_back(std::make_unique<ConsoleCable>(*port.backend));
        all.push_back({.kind = kind, .name = port.name, .wire = cable.get()});
    }
    auto device = std::make_unique<VirtioConsole>(std::move(all));
    item.plug_in = [&item, console = device.get(), first] {
        for (unsigned i = 0; i < item.cables.size(); ++i) item.cables[i]->plug_in(*console, first + i);
    };
    item.unplug = [&item] {
        for (const auto& cable : item.cables) cable->unplug();
    };
    item.device = std::move(device);
}

Status VirtioPart::add_vsock(const VsockConfig& config) {
    if (config.backend == nullptr) return {};
    if (config.cid < virtio_vsock::kLeastGuestCid || config.cid > virtio_vsock::kMostGuestCid)
        return fail(Errc::InvalidArgument,
                    fmt::format("{} is no number for a guest's sockets; it can have {} to {}", config.cid,
                                virtio_vsock::kLeastGuestCid, virtio_vsock::kMostGuestCid));
    Item& item = add("vsock");
    auto device = std::make_unique<virtio_vsock::VirtioVsock>(config.cid, *config.backend);
    item.plug_in = [vsock = device.get()] { vsock->plug_in(); };
    item.unplug = [vsock = device.get()] { vsock->unplug(); };
    item.device = std::move(device);
    return {};
}

void VirtioPart::plug_in() {
    for (const auto& item : items_)
        if (item->plug_in) item->plug_in();
}

void VirtioPart::add_bells(Item& item, unsigned queues, QueueBells::DoorbellOf doorbell_of) const {
    if (around_.doorbells == Around::Doorbells::ByBus) return;
    item.bells = std::make_unique<QueueBells>(around_.loop, queues, doorbell_of,
                                              [&item](unsigned queue) { item.worker.ring(queue); });
    item.worker.connect_bells(item.bells.get());
}

void VirtioPart::use_doorbells(DoorbellHost* host) {
    doorbells_used_ = host != nullptr;
    for (const auto& item : items_)
        if (item->bells != nullptr) item->bells->use(host);
}

void VirtioPart::settle_doorbells() {
    if (!doorbells_used_) return;
    (void)around_.loop.run([this] {
        for (const auto& item : items_)
            if (item->bells != nullptr) item->bells->listen();
    });
}

Status VirtioPart::attach_mmio(IoBus& bus, IrqSink& pins) {
    if (items_.size() > kMostVirtioMmio)
        return fail(Errc::InvalidArgument,
                    fmt::format("the machine microvm has room for {} disks and other devices, not for {}; "
                                "the machine pc has more",
                                kMostVirtioMmio, items_.size()));
    unsigned place = 0;
    for (const auto& item : items_) {
        item->mmio = std::make_unique<virtio::Mmio>(*item->device, around_.memory, item->worker,
                                                    IrqLine(pins, kVirtioMmioFirstPin + place));
        item->worker.connect(item->mmio->core());
        const u64 base = kVirtioMmioBase + place * kVirtioMmioStep;
        if (auto status = bus.add("virtio " + item->name, base, virtio::Mmio::kSize, *item->mmio, item->lock);
            !status)
            return status;
        add_bells(*item, item->mmio->core().queue_count(), &virtio::Mmio::doorbell);
        if (item->bells != nullptr) item->bells->on_place(base);
        ++place;
    }
    plug_in();
    return {};
}

std::vector<VirtioPart::Function> VirtioPart::make_functions() {
    std::vector<Function> functions;
    for (const auto& item : items_) {
        item->pci = std::make_unique<virtio::Pci>(*item->device, around_.memory, item->worker);
        item->worker.connect(item->pci->core());
        add_bells(*item, item->pci->core().queue_count(), &virtio::Pci::doorbell);
        functions.push_back({.name = "virtio " + item->name,
                             .function = item->pci.get(),
                             .lock = &item->lock,
                             .place_watcher = item->bells.get()});
    }
    plug_in();
    return functions;
}

void VirtioPart::reset() {
    for (const auto& item : items_) {
        {
            const LockGuard guard(item->lock);
            if (item->mmio != nullptr) item->mmio->reset();
            // PCI functions are reset by their bus, but what is in flight has to be gone.
            if (item->pci != nullptr) item->pci->core().reset();
        }
        if (item->mmio != nullptr || item->pci != nullptr) item->worker.wait_until_drained();
    }
}

// Backends and doorbells go quiet first; then nobody asks for work, and what was asked for is done.
VirtioPart::~VirtioPart() {
    for (const auto& item : items_)
        if (item->bells != nullptr) item->bells->end();
    for (const auto& item : items_)
        if (item->unplug && (item->mmio != nullptr || item->pci != nullptr)) item->unplug();
    reset();
    for (const auto& item : items_) item->worker.wait_until_idle();
}

}  // namespace tessera
