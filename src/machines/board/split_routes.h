// Our I/O APIC in front of local APICs in the kernel: KVM tells the end of an interrupt only for vectors that
// it has been given as routes, so the level-triggered entries of the table are always there as routes too.
#pragma once

#include <span>
#include <utility>
#include <vector>

#include "bus/io_device.h"
#include "cpu/kvm/kernel_irqchip.h"
#include "devices/ioapic/ioapic.h"
#include "machines/board/kernel_wiring.h"

namespace tessera {

// The I/O APIC's page as the bus sees it, under the board's lock.
class SplitRoutes final : public IoDevice {
public:
    explicit SplitRoutes(ioapic::IoApic& chip) : chip_(chip) {}

    // Null: the local APICs are ours.
    void use_kernel(const kvm::KernelIrqchip* chips) {
        kernel_ = chips;
        routes_.clear();
        if (kernel_ != nullptr) update(chip_.state());
    }

    IoStatus read(u64 offset, std::span<std::byte> out) override { return chip_.read(offset, out); }
    IoStatus write(u64 offset, std::span<const std::byte> in) override {
        if (kernel_ != nullptr) {
            // The routes come first: what the chip sends while it is written may be ended by another CPU
            // before the write returns.
            if (ahead_.restore(chip_.state())) (void)ahead_.write(offset, in);
            update(ahead_.state());
        }
        return chip_.write(offset, in);
    }

private:
    struct Nowhere final : ApicFabric {
        void deliver(const ApicMessage& /*message*/) override {}
    };

    void update(const ioapic::IoApic::State& state) {
        std::vector<kvm::MessageRoute> routes;
        routes.reserve(ioapic::kPins);
        for (u32 pin = 0; pin < ioapic::kPins; ++pin) {
            const ioapic::IoApic::Entry entry = state.table[pin];
            if (!entry.has(ioapic::Redirection::Level)) continue;
            const ApicMessage message{
                .destination = wide_destination(static_cast<u8>(entry.raw() >> ioapic::kDestinationShift)),
                .destination_mode = entry.has(ioapic::Redirection::LogicalDestination)
                                        ? DestinationMode::Logical
                                        : DestinationMode::Physical,
                .delivery_mode = static_cast<DeliveryMode>(entry.raw() >> ioapic::kDeliveryModeShift & 7),
                .vector = static_cast<u8>(entry.raw()),
                .trigger = TriggerMode::Level};
            if (const auto kernel = kernel_message(message))
                routes.push_back({.gsi = pin, .message = *kernel});
        }
        if (routes == routes_) return;
        if (kernel_->set_routes({}, routes)) routes_ = std::move(routes);
    }

    ioapic::IoApic& chip_;
    const kvm::KernelIrqchip* kernel_ = nullptr;
    std::vector<kvm::MessageRoute> routes_;  // as the kernel has them
    Nowhere nowhere_;
    ioapic::IoApic ahead_{{}, nowhere_};  // what the chip will be after a write
};

}  // namespace tessera
