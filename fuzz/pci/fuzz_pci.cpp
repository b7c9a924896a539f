// A hostile guest against a PCI bus with a card, a root port and a card behind it: by the configuration
// ports, by ECAM, and wherever it moves the BARs to; and corrupt snapshots of each part.
#include "devices/pci/pci_rig.h"
#include "devices/testing/device_fuzz.h"

namespace tessera {
namespace {

// Mostly where something is, sometimes anywhere.
u64 any_address(testing_rig::Choices& choices) {
    switch (choices.below(4)) {
        case 0: return pci::PciWorld::kEcamBase + choices.below(0x30'0000);
        case 1: return 0xcf0 + choices.below(0x20);
        case 2: return choices.below(0x1'0000) << choices.below(16);
        default: return choices.bits();
    }
}

void access(IoBus& bus, u64 address, testing_rig::Choices& choices) {
    std::array<std::byte, 8> data{};
    const auto part = std::span(data).first(std::size_t{1} << choices.below(4));
    if (choices.coin()) {
        bus.read(address, part);
        return;
    }
    u64 value = choices.bits();
    for (std::byte& b : part) {
        b = static_cast<std::byte>(value);
        value >>= 8;
    }
    bus.write(address, part);
}

void attack(std::span<const u8> input) {
    testing_rig::FuzzedChoices choices(input);
    pci::PciWorld world;
    if (!world.built) std::abort();
    while (!choices.done()) {
        switch (choices.below(16)) {
            case 0: world.card.msix.signal(static_cast<unsigned>(choices.below(80))); break;
            case 1: world.far_card.msi.signal(static_cast<unsigned>(choices.below(40))); break;
            case 2: world.far_card.config().set_interrupt(choices.coin()); break;
            case 3: world.root.reset_functions(); break;
            case 4:
            case 5:
            case 6: access(world.ports, any_address(choices), choices); break;
            default: access(world.memory, any_address(choices), choices); break;
        }
    }
}

}  // namespace
}  // namespace tessera

// NOLINTNEXTLINE(readability-identifier-naming): libFuzzer fixes this name.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace tessera;  // NOLINT(google-build-using-namespace): a few lines
    if (size == 0) return 0;
    const u8* const rest = data + 1;
    switch (data[0] % 8) {
        case 0: return testing_rig::fuzz_device<pci::PciFunctionRig>(rest, size - 1);
        case 1: return testing_rig::fuzz_device<pci::RootPortRig>(rest, size - 1);
        case 2: return testing_rig::fuzz_device<pci::IsaBridgeRig>(rest, size - 1);
        case 3: return testing_rig::fuzz_device<pci::ConfigPortsRig>(rest, size - 1);
        default: attack(std::span(data, size).subspan(1)); return 0;
    }
}
