#include "boot/acpi/pci_root.h"

#include <fmt/format.h>

#include "boot/bytes.h"

namespace tessera::boot {

namespace {

using aml::Aml;
using aml::Resources;

constexpr unsigned kDevices = 32;
constexpr unsigned kPins = 4;
constexpr u16 kConfigPorts = 0xcf8;
constexpr u8 kConfigPortCount = 8;
// The ISA bridge's routing registers, and what is in them [ICH9 13.1.17].
constexpr u64 kRouteRegisters = 0x60;
constexpr u64 kRouteRegistersSize = 0x0c;
constexpr u64 kRouteDisabled = 0x80;
constexpr u64 kRouteInterrupt = 0x0f;
// ISA interrupts no chip of the board has.
constexpr u16 kPossibleInterrupts = 1U << 5 | 1U << 10 | 1U << 11;
constexpr auto kLevel = Resources::Trigger::Level;
constexpr auto kLow = Resources::Polarity::Low;
constexpr auto kShared = Resources::Sharing::Shared;

std::string link_name(unsigned line) {
    return fmt::format("LNK{:c}", 'A' + line);
}
std::string route_name(unsigned line) {
    return fmt::format("PRQ{:c}", 'A' + line);
}

Resources windows(const PciDescription& pci) {
    Resources resources;
    resources.bus_window(0, pci.last_bus);
    resources.io(kConfigPorts, kConfigPortCount);
    resources.io_window(0, kConfigPorts - 1).io_window(kConfigPorts + kConfigPortCount, 0xffff);
    resources.memory_window(kBaseMemoryEnd, 0xb'ffff);  // display memory
    resources.memory_window(static_cast<u32>(pci.memory.first), static_cast<u32>(pci.memory.last));
    if (pci.memory64) resources.memory_window64(pci.memory64->first, pci.memory64->last);
    return resources;
}

// [ACPI 6.5 6.2.13]: every pin of every device, straight to the I/O APIC, or by a link device to the 8259s.
Aml routing(std::string_view name, bool by_links) {
    std::vector<Aml> entries;
    entries.reserve(std::size_t{kDevices} * kPins);
    for (u32 device = 0; device < kDevices; ++device)
        for (u32 pin = 0; pin < kPins; ++pin) {
            const unsigned line = pci_interrupt_line(device, pin);
            entries.push_back(
                aml::package({aml::integer(device << 16 | 0xffff), aml::integer(pin),
                              by_links ? aml::path("\\_SB." + link_name(line)) : aml::integer(0),
                              aml::integer(by_links ? 0 : kPciFirstPin + line)}));
        }
    return aml::name(name, aml::package(entries));
}

// [PCI-FW 4.5.1]: the operating system may have what it asks for; there is no firmware that uses any of it.
Aml osc_method() {
    constexpr u64 kUnrecognizedUuid = 4;
    return aml::method(
        "_OSC", 4, aml::Serialize::Yes,
        {aml::create_dword_field(aml::arg(3), aml::integer(0), "CDW1"),
         aml::if_then(aml::equal(aml::arg(0), aml::uuid("33db4d5b-1ff7-401c-9657-7441c03dd766")),
                      {aml::return_value(aml::arg(3))}),
         aml::or_into(aml::path("CDW1"), aml::integer(kUnrecognizedUuid), aml::path("CDW1")),
         aml::return_value(aml::arg(3))});
}

Aml isa_bridge(const PciDescription& pci) {
    return aml::device(
        "ISA", {aml::name("_ADR", aml::integer(u64{pci.isa_bridge} << 16)),
                aml::operation_region("PIRQ", aml::Space::PciConfig, kRouteRegisters, kRouteRegistersSize),
                aml::field("PIRQ", aml::Access::Byte,
                           {{"PRQA", 8},
                            {"PRQB", 8},
                            {"PRQC", 8},
                            {"PRQD", 8},
                            {"", 32},
                            {"PRQE", 8},
                            {"PRQF", 8},
                            {"PRQG", 8},
                            {"PRQH", 8}})});
}

// [ACPI 6.5 6.2.14], a PCI interrupt link device.
Aml link_device(unsigned line) {
    const Aml route = aml::path("\\_SB.PCI0.ISA." + route_name(line));
    const Aml disabled = aml::and_into(route, aml::integer(kRouteDisabled), {std::byte{0}});
    constexpr u64 kPresent = 0x09;  // functions, not decoding
    constexpr u64 kEnabled = 0x0b;
    const auto possible = Resources().irqs(kPossibleInterrupts, kLevel, kLow, kShared);
    const auto none = Resources().irqs(0, kLevel, kLow, kShared);
    return aml::device(
        link_name(line),
        {aml::name("_HID", aml::eisa_id("PNP0C0F")), aml::name("_UID", aml::integer(line)),
         aml::name("_PRS", possible.finish()), aml::name("BUF", none.finish()),
         aml::method("_STA", 0, aml::Serialize::No,
                     {aml::if_then(disabled, {aml::return_value(aml::integer(kPresent))}),
                      aml::return_value(aml::integer(kEnabled))}),
         aml::method("_DIS", 0, aml::Serialize::No,
                     {aml::or_into(route, aml::integer(kRouteDisabled), route)}),
         aml::method("_CRS", 0, aml::Serialize::Yes,
                     {aml::create_word_field(aml::path("BUF"), aml::integer(1), "IRQM"),
                      aml::store(aml::integer(0), aml::path("IRQM")),
                      aml::if_then(aml::logical_not(disabled),
                                   {aml::shift_left(
                                       aml::integer(1),
                                       aml::and_into(route, aml::integer(kRouteInterrupt), {std::byte{0}}),
                                       aml::path("IRQM"))}),
                      aml::return_value(aml::path("BUF"))}),
         aml::method("_SRS", 1, aml::Serialize::Yes,
                     {aml::create_word_field(aml::arg(0), aml::integer(1), "IRQM"),
                      aml::find_set_right_bit(aml::path("IRQM"), aml::local(0)),
                      aml::if_then(aml::local(0),
                                   {aml::decrement(aml::local(0)), aml::store(aml::local(0), route)})})});
}

}  // namespace

Aml interrupt_model_method() {
    ByteWriter out;
    out.append(aml::name("PICF", aml::integer(0)));
    out.append(aml::method("_PIC", 1, aml::Serialize::No, {aml::store(aml::arg(0), aml::path("PICF"))}));
    return out.take();
}

void add_pci_root(std::vector<Aml>& system, const PciDescription& pci) {
    system.push_back(aml::device(
        "PCI0", {aml::name("_HID", aml::eisa_id("PNP0A08")), aml::name("_CID", aml::eisa_id("PNP0A03")),
                 aml::name("_UID", aml::integer(0)), aml::name("_SEG", aml::integer(0)),
                 aml::name("_BBN", aml::integer(0)), aml::name("_CRS", windows(pci).finish()), osc_method(),
                 isa_bridge(pci), routing("PRTA", false), routing("PRTP", true),
                 aml::method("_PRT", 0, aml::Serialize::No,
                             {aml::if_then(aml::path("\\PICF"), {aml::return_value(aml::path("PRTA"))}),
                              aml::return_value(aml::path("PRTP"))})}));
    for (unsigned line = 0; line < kPciInterruptLines; ++line) system.push_back(link_device(line));
}

}  // namespace tessera::boot
