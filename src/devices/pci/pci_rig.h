// A PCI function on the bench, with one of everything: BARs of all kinds, ROM, power management, MSI or
// MSI-X.
#pragma once

#include <array>
#include <optional>
#include <utility>
#include <vector>

#include "base/result.h"
#include "bus/io_bus.h"
#include "devices/pci/board_bridges.h"
#include "devices/pci/config_access.h"
#include "devices/pci/msi.h"
#include "devices/pci/msix.h"
#include "devices/pci/pci_bus.h"
#include "devices/pci/pci_function.h"
#include "devices/pci/root_port.h"
#include "devices/testing/device_rig.h"

namespace tessera::pci {

// The bus's side: remembers what the function told it.
struct RecordingUplink final : PciUplink {
    struct Message {
        u64 address;
        u32 data;
        friend bool operator==(const Message&, const Message&) = default;
    };
    std::array<std::optional<u64>, kBarCount + 1> places;
    std::vector<Message> messages;

    void place_bar(unsigned bar, std::optional<u64> address) override { places.at(bar) = address; }
    void send_message(u64 address, u32 data) override {
        if (messages.size() < 100'000) messages.push_back({address, data});
    }
};

// Four bytes of memory, repeated.
struct OneRegister final : IoDevice {
    u32 value = 0;
    unsigned writes = 0;
    IoStatus read(u64 offset, std::span<std::byte> out) override {
        for (std::size_t n = 0; n < out.size(); ++n)
            out[n] = static_cast<std::byte>(value >> (8 * ((offset + n) % 4)));
        return IoStatus::Ok;
    }
    IoStatus write(u64 /*offset*/, std::span<const std::byte> in) override {
        value = std::to_integer<u8>(in[0]);
        ++writes;
        return IoStatus::Ok;
    }
};

inline constexpr std::array<u8, 10> kVendorBody = {12, 1, 2, 3, 4, 5, 6, 7, 8, 9};
inline constexpr std::array<u8, 3> kVendorWritable = {0, 0, 0xf0};

class TestCard final : public PciFunction {
public:
    TestCard() {
        config_.add_bar(0, BarKind::Memory32, 0x1000, registers);
        config_.add_bar(1, BarKind::Memory32, msix.size(), msix);
        config_.add_bar(2, BarKind::Io, 0x20, registers);
        config_.add_bar(4, BarKind::Prefetchable64, 2 * kMiB, registers);
        config_.add_rom(64 * kKiB, registers);
        config_.add_power_management();
        config_.add_capability(CapabilityId::Vendor, kVendorBody, kVendorWritable);
        config_.add_extended_capability(0x0b, 1, kVendorBody, kVendorWritable);
    }
    ConfigSpace& config() override { return config_; }
    void reset() override {
        ++resets;
        msix.reset();
        config_.reset();
    }

    void visit_state(StateVisitor& v) {
        auto config = config_.state();
        auto vectors = msix.state();
        ConfigSpace::visit(v, 1, config);
        Msix::visit(v, 2, vectors);
    }
    Status load(StateVisitor& v) {
        auto config = config_.initial_state();
        auto vectors = msix.initial_state();
        ConfigSpace::visit(v, 1, config);
        Msix::visit(v, 2, vectors);
        if (!config_.valid(config) || !msix.valid(vectors))
            return fail(Errc::CorruptState, "test card: registers no guest could have made");
        config_.restore(std::move(config));
        msix.restore(std::move(vectors));
        return {};
    }

    OneRegister registers;
    unsigned resets = 0;

private:
    ConfigSpace config_{{.vendor = 0x1234,
                         .device = 0x5678,
                         .class_code = 0x02'00'00,
                         .revision = 3,
                         .subsystem_vendor = 0x9abc,
                         .subsystem = 0xdef0,
                         .pin = 1,
                         .size = ConfigSize::Extended}};

public:
    Msix msix{config_, {.vectors = 70, .bar = 1}};
    Msi msi{config_, 8};
};

inline u64 poke_config(PciFunction& function, testing_rig::Choices& choices) {
    std::array<std::byte, 4> buffer{};
    const std::size_t width = std::size_t{1} << choices.below(3);
    // Mostly where the registers are.
    const u64 place = choices.below(choices.coin() ? 0x100 : 0x1000);
    const auto offset = static_cast<u16>(place & ~(width - 1));
    const auto data = std::span(buffer).first(width);
    if (choices.coin()) {
        function.read_config(offset, data);
        u64 seen = 0;
        for (const std::byte b : data) seen = seen << 8 | std::to_integer<u64>(b);
        return seen;
    }
    u64 value = choices.bits();
    for (std::byte& b : data) {
        b = static_cast<std::byte>(value);
        value >>= 8;
    }
    function.write_config(offset, data);
    return 0;
}

struct PciFunctionRig {
    testing_rig::RecordingSink wires;
    RecordingUplink uplink;
    TestCard device;
    PciFunctionRig() { device.config().connect(uplink, IrqLine(wires, 16)); }

    u64 poke(testing_rig::Choices& choices) {
        const std::size_t messages = uplink.messages.size();
        u64 seen = 0;
        switch (choices.below(8)) {
            case 0: device.msix.signal(static_cast<unsigned>(choices.below(80))); break;
            case 1: device.msi.signal(static_cast<unsigned>(choices.below(40))); break;
            case 2: device.config().set_interrupt(choices.coin()); break;
            case 3: seen = testing_rig::poke_io(device.msix, device.msix.size(), choices); break;
            case 4: return device.config().bar_address(static_cast<unsigned>(choices.below(7))).value_or(1);
            default: seen = poke_config(device, choices); break;
        }
        return seen + uplink.messages.size() - messages;
    }
};

struct RecordingMessages final : MessageSink {
    std::vector<RecordingUplink::Message> messages;
    void send(u64 address, u32 data) override {
        if (messages.size() < 100'000) messages.push_back({address, data});
    }
};

// Stands in for the reset register.
struct OneByte final : IoDevice {
    IoStatus read(u64 /*offset*/, std::span<std::byte> out) override {
        out[0] = std::byte{0x5a};
        return IoStatus::Ok;
    }
    IoStatus write(u64 /*offset*/, std::span<const std::byte> in) override {
        last = in[0];
        return IoStatus::Ok;
    }
    std::byte last{};
};

// A host bridge's whole world: the buses, a card in slot 3, one behind a root port in slot 4.
struct PciWorld {
    static constexpr u64 kEcamBase = 0xe000'0000;

    NullLock lock;
    IoBus ports;
    IoBus memory;
    RecordingMessages messages;
    testing_rig::RecordingSink wires;  // interrupt lines 0 to 7
    PciSurroundings around{.ports = ports, .memory = memory, .messages = messages, .interrupts = wires};
    PciBus root{around};
    OneByte reset_register;
    ConfigPorts config_ports{root, reset_register};
    Ecam ecam{root};
    HostBridge host_bridge;
    TestCard card;
    RootPort port{around, {.vendor = kTesseraVendor, .device = kRootPortId}, 1};
    TestCard far_card;
    bool built = false;  // false: an attachment failed

    PciWorld() {
        port.secondary().connect(root, {.device = 4}, port);
        built = ports.add("configuration", kConfigPortsBase, kConfigPortCount, config_ports, lock) &&
                memory.add("ECAM", kEcamBase, Ecam::kSize, ecam, lock) &&
                root.attach("host bridge", {.device = 0}, host_bridge, lock) &&
                root.attach("card", {.device = 3}, card, lock) &&
                root.attach("root port", {.device = 4}, port, lock, &port) &&
                port.secondary().attach("far card", {.device = 0}, far_card, lock);
    }
};

struct ConfigPortsRig {
    PciWorld world;
    ConfigPorts& device = world.config_ports;
    u64 poke(testing_rig::Choices& choices) {
        return testing_rig::poke_io(device, kConfigPortCount, choices);
    }
    // Functions are saved on their own.
    static constexpr bool kContinues = false;
};

struct RootPortRig {
    PciWorld world;
    RootPort& device = world.port;
    u64 poke(testing_rig::Choices& choices) { return poke_config(device, choices); }
};

struct IsaBridgeRig {
    testing_rig::RecordingSink wires;  // of the 8259s
    testing_rig::RecordingSink io_apic;
    PirqRouter router{io_apic, wires};
    IsaBridge device{router};
    u64 poke(testing_rig::Choices& choices) {
        if (choices.below(3) == 0) {
            const auto line = static_cast<unsigned>(choices.below(kInterruptLines));
            router.set_level(line, choices.coin());
            return router.state().holders[line];
        }
        return poke_config(device, choices);
    }
    // What the lines' devices want.
    static constexpr std::array<unsigned, 8> kKeptByReset = {10, 11, 12, 13, 14, 15, 16, 17};
};

}  // namespace tessera::pci
