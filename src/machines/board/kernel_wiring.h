// The board's wires to interrupt chips that stand in the kernel, and the switches between those and ours.
//
// Global interrupt numbers, with all chips in the kernel: 0-15 the 8259A pair's inputs (0 is the 8254's too,
// and so also pin 2 of the I/O APIC), 16-39 the I/O APIC's pins.
#pragma once

#include <atomic>
#include <mutex>
#include <optional>
#include <shared_mutex>
#include <vector>

#include "bus/irq_line.h"
#include "cpu/kvm/kernel_irqchip.h"
#include "devices/lapic/apic_fabric.h"
#include "devices/pic8259/pic8259_regs.h"

namespace tessera {

inline constexpr u32 kPicFirstGsi = 0;
inline constexpr u32 kPicInputs = 16;
inline constexpr u32 kIoApicFirstGsi = 16;
inline constexpr u32 kTimerPin = 2;  // of the I/O APIC: ISA interrupt 0 [MP 1.4 3.6.2]

// The routes of the numbers above.
[[nodiscard]] inline std::vector<kvm::InputRoute> kernel_input_routes() {
    std::vector<kvm::InputRoute> routes;
    routes.reserve(kPicInputs + kvm::KernelIrqchip::kIoApicPins);
    for (u32 input = 0; input < kPicInputs; ++input) {
        if (input == pic8259::kCascadeLevel) continue;
        const u32 chip = input < 8 ? KVM_IRQCHIP_PIC_MASTER : KVM_IRQCHIP_PIC_SLAVE;
        routes.push_back({.gsi = kPicFirstGsi + input, .input = {.chip = chip, .pin = input % 8}});
    }
    routes.push_back({.gsi = kPicFirstGsi, .input = {.chip = KVM_IRQCHIP_IOAPIC, .pin = kTimerPin}});
    for (u32 pin = 0; pin < kvm::KernelIrqchip::kIoApicPins; ++pin)
        routes.push_back({.gsi = kIoApicFirstGsi + pin, .input = {.chip = KVM_IRQCHIP_IOAPIC, .pin = pin}});
    return routes;
}

// As KVM takes a message. Nothing: KVM's local APICs have no use for it.
// GAP: SMIs (no engine has SMM), and ExtINT from anywhere but the 8259A pair.
[[nodiscard]] inline std::optional<kvm::Msi> kernel_message(const ApicMessage& message) {
    switch (message.delivery_mode) {
        case DeliveryMode::Smi:
        case DeliveryMode::Reserved:
        case DeliveryMode::ExtInt: return std::nullopt;
        case DeliveryMode::Fixed:
        case DeliveryMode::LowestPriority:
        case DeliveryMode::Nmi:
        case DeliveryMode::Init:
        case DeliveryMode::StartUp: break;
    }
    // KVM knows the broadcast of 8 bits in every mode.
    const u32 destination = message.destination == ApicMessage::kBroadcast ? u32{0xff} : message.destination;
    // [SDM 3A 11.11.1], [SDM 3A 11.11.2]
    constexpr u64 kAddress = 0xfee0'0000;
    const u64 logical = message.destination_mode == DestinationMode::Logical ? 1 << 2 : 0;
    const u32 level = message.trigger == TriggerMode::Level ? u32{3} << 14 : 0;
    return kvm::Msi{
        .address = kAddress | u64{destination & 0xff} << 12 | logical | u64{destination & ~u32{0xff}} << 32,
        .data = u32{message.vector} | u32{static_cast<u8>(message.delivery_mode)} << 8 | level};
}

// A chip's inputs in the kernel.
class KernelPins final : public IrqSink {
public:
    KernelPins(const kvm::KernelIrqchip& chips, u32 first_gsi, u32 count)
        : chips_(chips), first_gsi_(first_gsi), count_(count) {}
    void set_level(unsigned pin, bool high) override {
        // The kernel knows every number that has a route, and takes any level.
        if (pin < count_) (void)chips_.set_level(first_gsi_ + pin, high);
    }

private:
    const kvm::KernelIrqchip& chips_;
    const u32 first_gsi_;
    const u32 count_;
};

// The local APICs in the kernel. Messages from devices and I/O APICs; CPUs' own never come by here.
class KernelFabric final : public ApicFabric {
public:
    explicit KernelFabric(const kvm::KernelIrqchip& chips) : chips_(chips) {}
    void deliver(const ApicMessage& message) override {
        if (const auto kernel = kernel_message(message)) (void)chips_.send(*kernel);
    }

private:
    const kvm::KernelIrqchip& chips_;
};

// The wires of one chip, to ours or to the one in the kernel that stands in its place. All under the board's
// lock.
class SwitchedPins final : public IrqSink {
public:
    explicit SwitchedPins(IrqSink& ours) : ours_(ours) {}
    void set_level(unsigned pin, bool high) override {
        if (pin >= kPins) return;
        levels_ = high ? levels_ | u32{1} << pin : levels_ & ~(u32{1} << pin);
        (kernel_ != nullptr ? *kernel_ : ours_).set_level(pin, high);
    }
    // Null: to ours. The chip has been told the levels.
    void use_kernel(IrqSink* kernel) { kernel_ = kernel; }
    [[nodiscard]] u32 levels() const { return levels_; }

private:
    static constexpr unsigned kPins = 32;

    IrqSink& ours_;
    IrqSink* kernel_ = nullptr;
    u32 levels_ = 0;
};

// The way of devices' and the I/O APIC's messages. Devices' workers send at any time; while the chips' states
// move, they wait.
class SwitchedFabric final : public ApicFabric {
public:
    explicit SwitchedFabric(ApicFabric& ours) : ours_(ours) {}
    void deliver(const ApicMessage& message) override {
        const std::shared_lock guard(mutex_);
        (kernel_ != nullptr ? *kernel_ : ours_).deliver(message);
    }

    // While it lives nothing is delivered.
    [[nodiscard]] std::unique_lock<std::shared_mutex> hold() { return std::unique_lock(mutex_); }
    // Null: to ours. While held.
    void use_kernel(ApicFabric* kernel) { kernel_ = kernel; }

private:
    ApicFabric& ours_;
    ApicFabric* kernel_ = nullptr;
    std::shared_mutex mutex_;
};

}  // namespace tessera
