// A PCI function on the bench, with one of everything: BARs of all kinds, ROM, power management, MSI or
// MSI-X.
#pragma once

#include <array>
#include <bit>
#include <optional>
#include <utility>
#include <vector>

#include "base/assert.h"
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
        card.registers.value = 0x3333'3333;
        far_card.registers.value = 0x4444'4444;
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
        switch (choices.below(16)) {
            case 0:
            case 1: return aim(choices);
            case 2: set_up(choices); return 0;
            case 3: world.far_card.msix.signal(static_cast<unsigned>(choices.below(70))); break;
            case 4: world.card.config().set_interrupt(choices.coin()); break;
            case 5: {
                u64 seen = 0;
                for (const u32 word : seen_at_bars()) seen = seen * 257 + word;
                return seen;
            }
            default: return testing_rig::poke_io(device, kConfigPortCount, choices);
        }
        return world.messages.messages.size();
    }

    // Functions are saved on their own.
    void copy_surroundings(ConfigPortsRig& from) {
        copy(from.world.host_bridge, world.host_bridge);
        copy(from.world.card, world.card);
        copy(from.world.far_card, world.far_card);
        copy(from.world.port, world.port);
        for (const auto& [here, there] :
             {std::pair(&world.card, &from.world.card), std::pair(&world.far_card, &from.world.far_card)}) {
            here->resets = there->resets;
            here->registers.value = there->registers.value;
            here->registers.writes = there->registers.writes;
        }
        world.reset_register.last = from.world.reset_register.last;
        world.messages.messages = from.world.messages.messages;
        world.wires.edges = from.world.wires.edges;
        world.wires.levels = from.world.wires.levels;
    }
    [[nodiscard]] bool same_surroundings(ConfigPortsRig& other) {
        return saved(world.host_bridge) == saved(other.world.host_bridge) &&
               saved(world.card) == saved(other.world.card) && saved(world.port) == saved(other.world.port) &&
               saved(world.far_card) == saved(other.world.far_card) &&
               world.card.resets == other.world.card.resets &&
               world.far_card.resets == other.world.far_card.resets &&
               world.reset_register.last == other.world.reset_register.last &&
               world.messages.messages == other.world.messages.messages &&
               world.wires.edges == other.world.wires.edges && seen_at_bars() == other.seen_at_bars();
    }

private:
    void put(u64 offset, u32 value) {
        (void)device.write(offset, std::bit_cast<std::array<std::byte, 4>>(value));
    }
    void configure(u32 slot, u16 offset, u32 value) {
        put(0, kAddressEnable | slot | offset);
        put(kConfigDataOffset, value);
    }
    // What firmware and a driver do to the far card: its bus gets a number, the bridge forwards everything,
    // BARs get places, and a vector is set up.
    void set_up(testing_rig::Choices& choices) {
        constexpr u32 kPort = 4U << 11;
        constexpr u32 kFarCard = 1U << 16;
        configure(kPort, kPrimaryBus, 0x0001'0100);
        configure(kPort, kMemoryBase, 0xfff0'0000);
        for (const u32 slot : {kPort, kFarCard}) configure(slot, kCommand, 0x0007);
        for (u16 bar = 0; bar < 2; ++bar)
            configure(kFarCard, static_cast<u16>(0x10 + 4 * bar), static_cast<u32>(choices.bits()));
        ConfigSpace& config = world.far_card.config();
        for (u16 at = config.get8(kCapabilities); at != 0; at = config.get8(static_cast<u16>(at + 1)))
            if (config.get8(at) == static_cast<u8>(CapabilityId::Msix)) configure(kFarCard, at, 0x8000'0000);
        (void)world.far_card.msix.write(kMsixEntrySize * choices.below(70) + 12, std::array<std::byte, 4>{});
    }
    // At the registers of a function there is, or at its neighbour's.
    u64 aim(testing_rig::Choices& choices) {
        constexpr std::array<u32, 3> kDevices = {0, 3, 4};
        const bool far = choices.below(4) == 0;
        const u32 slot = far ? 1U << 16 : kDevices[choices.below(kDevices.size())] << 11;
        const u32 function = choices.below(8) == 0 ? 1U << 8 : 0;
        put(0, kAddressEnable | slot | function | static_cast<u32>(choices.below(0x40) * 4));
        return 0;
    }
    template <typename Function>
    static testing_rig::Saved saved(Function& function) {
        Saver saver;
        function.visit_state(saver);
        return {std::move(saver.numbers), std::move(saver.blobs)};
    }
    template <typename Function>
    static void copy(Function& from, Function& to) {
        Saver saver;
        from.visit_state(saver);
        Loader loader(saver);
        TESSERA_ASSERT(to.load(loader), "a function's own state is one it can have");
    }
    // What a CPU reads where the cards' BARs say they are.
    [[nodiscard]] std::vector<u32> seen_at_bars() {
        std::vector<u32> seen;
        for (TestCard* card : {&world.card, &world.far_card})
            for (unsigned bar = 0; bar <= kRomBarIndex; ++bar) {
                const auto address = card->config().bar_address(bar);
                if (!address) continue;
                std::array<std::byte, 4> data{};
                const bool is_port = card->config().bars()[bar].kind == BarKind::Io;
                (is_port ? world.ports : world.memory).read(*address, data);
                seen.push_back(std::bit_cast<u32>(data));
            }
        return seen;
    }
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
