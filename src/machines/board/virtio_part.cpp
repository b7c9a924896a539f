#include "machines/board/virtio_part.h"

#include <fmt/format.h>
#include <sys/random.h>
#include <utility>

#include "devices/virtio_blk/virtio_blk.h"

namespace tessera {

unsigned virtio_device_count(const MachineConfig& config) {
    return static_cast<unsigned>(config.disks.size()) + (config.rng ? 1 : 0);
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

VirtioPart::Item& VirtioPart::add(std::string name) {
    items_.push_back(std::make_unique<Item>(std::move(name), *loop_));
    return *items_.back();
}

Result<std::unique_ptr<VirtioPart>> VirtioPart::create(const Around& around, const MachineConfig& config) {
    auto loop = EventLoop::create("tessera-io");
    if (!loop) return std::unexpected(std::move(loop.error()));
    std::unique_ptr<VirtioPart> part(new VirtioPart(around, std::move(*loop)));
    for (const DiskConfig& disk : config.disks) {
        if (disk.queues == 0 || disk.queues > virtio_blk::kMostQueues)
            return fail(Errc::InvalidArgument,
                        fmt::format("disk {}: {} queues; it can have 1 to {}", disk.backend->info().name,
                                    disk.queues, virtio_blk::kMostQueues));
        Item& item = part->add(fmt::format("disk {}", disk.backend->info().name));
        item.device = std::make_unique<virtio_blk::VirtioBlk>(
            virtio_blk::VirtioBlk::Config{
                .serial = disk.serial, .queues = static_cast<u16>(disk.queues), .writeback = disk.writeback},
            *disk.backend);
    }
    if (config.rng) {
        Item& item = part->add("rng");
        HostTimers& timers = around.vm.add_timers(item.lock);
        item.device = std::make_unique<virtio_rng::VirtioRng>(virtio_rng::VirtioRng::Config{}, part->entropy_,
                                                              around.vm.clock(), timers);
    }
    return part;
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
        if (auto status = bus.add("virtio " + item->name, kVirtioMmioBase + place * kVirtioMmioStep,
                                  virtio::Mmio::kSize, *item->mmio, item->lock);
            !status)
            return status;
        ++place;
    }
    return {};
}

std::vector<VirtioPart::Function> VirtioPart::make_functions() {
    std::vector<Function> functions;
    for (const auto& item : items_) {
        item->pci = std::make_unique<virtio::Pci>(*item->device, around_.memory, item->worker);
        item->worker.connect(item->pci->core());
        functions.push_back(
            {.name = "virtio " + item->name, .function = item->pci.get(), .lock = &item->lock});
    }
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

VirtioPart::~VirtioPart() {
    reset();
    loop_->stop();
}

}  // namespace tessera
