// The Differentiated System Description Table: the devices an operating system cannot find by itself.
// PCI's are in pci_root.cpp.
#include <fmt/format.h>

#include "boot/acpi/acpi_tables.h"
#include "boot/acpi/pci_root.h"
#include "boot/acpi/table.h"
#include "boot/aml/aml.h"
#include "boot/bytes.h"

namespace tessera::boot {

namespace {

using aml::Aml;
using aml::Resources;

constexpr u8 kRevision = 2;  // 64-bit integers
constexpr u8 kSerialPorts = 8;
constexpr u32 kHpetSize = 0x400;

Aml plug_and_play(std::string_view object, std::string_view id, u32 uid, const Resources& resources) {
    return aml::device(object, {aml::name("_HID", aml::eisa_id(id)), aml::name("_UID", aml::integer(uid)),
                                aml::name("_CRS", resources.finish())});
}

// [ACPI 6.5 8.4]: the _UID is the one in the MADT.
void add_cpus(std::vector<Aml>& system, const BoardDescription& board) {
    for (u32 uid = 0; uid < board.cpu_count(); ++uid)
        system.push_back(aml::device(fmt::format("C{:03X}", uid), {aml::name("_HID", aml::string("ACPI0007")),
                                                                   aml::name("_UID", aml::integer(uid))}));
}

// Ports that belong to the board and to no device below.
Resources motherboard(const BoardDescription& board) {
    Resources resources;
    if (board.has_pit) resources.io(0x61, 1);
    if (board.has_port92) resources.io(0x92, 1);
    if (board.acpi_pm) {
        resources.io(board.acpi_pm->pm1_event, 4, 4).io(board.acpi_pm->pm1_control, 2, 2);
        resources.io(board.acpi_pm->pm_timer, 4, 4);
        if (board.acpi_pm->gpe0_length != 0) resources.io(board.acpi_pm->gpe0, board.acpi_pm->gpe0_length, 4);
    }
    // [PCI-FW 4.1.2]: ECAM is nobody's to hand out, whichever way a system looks.
    if (board.pci) resources.memory32(static_cast<u32>(board.pci->ecam), static_cast<u32>(kEcamSize));
    return resources;
}

void add_devices(std::vector<Aml>& system, const BoardDescription& board) {
    if (board.has_pic)
        system.push_back(plug_and_play("PIC", "PNP0000", 0,
                                       Resources().io(0x20, 2, 2).io(0xa0, 2, 2).io(0x4d0, 2, 2).isa_irq(2)));
    if (board.has_pit)
        system.push_back(plug_and_play("TMR", "PNP0100", 0, Resources().io(0x40, 4, 4).isa_irq(0)));
    if (board.hpet)
        system.push_back(
            plug_and_play("HPET", "PNP0103", 0, Resources().memory32(board.hpet->address, kHpetSize)));
    if (board.rtc)
        system.push_back(plug_and_play("RTC", "PNP0B00", 0,
                                       Resources().io(board.rtc->port, 2, 2).isa_irq(board.rtc->irq)));
    for (u32 n = 0; n < board.serial_ports.size() && n < 4; ++n) {
        const IsaDevice& port = board.serial_ports[n];
        system.push_back(
            plug_and_play(fmt::format("COM{}", n + 1), "PNP0501", n + 1,
                          Resources().io(port.port, kSerialPorts, kSerialPorts).isa_irq(port.irq)));
    }
    if (board.keyboard) {
        const KeyboardController& keyboard = *board.keyboard;
        system.push_back(plug_and_play("KBD", "PNP0303", 0,
                                       Resources()
                                           .io(keyboard.data_port, 1)
                                           .io(keyboard.command_port, 1)
                                           .isa_irq(keyboard.keyboard_irq)));
        system.push_back(plug_and_play("MOU", "PNP0F13", 0, Resources().isa_irq(keyboard.mouse_irq)));
    }
    for (u32 n = 0; n < board.virtio_mmio.size(); ++n) {
        const VirtioMmioDescription& device = board.virtio_mmio[n];
        // The ID Linux and others know virtio over MMIO by; of no PNP vendor.
        system.push_back(aml::device(
            fmt::format("VR{:02X}", n),
            {aml::name("_HID", aml::string("LNRO0005")), aml::name("_UID", aml::integer(n)),
             aml::name("_CRS", Resources()
                                   .memory32(device.address, device.size)
                                   .interrupt(device.gsi, Resources::Trigger::Level,
                                              Resources::Polarity::High, Resources::Sharing::Exclusive)
                                   .finish())}));
    }
    system.push_back(plug_and_play("MBRD", "PNP0C02", 0, motherboard(board)));
}

}  // namespace

std::vector<std::byte> make_dsdt(const BoardDescription& board) {
    std::vector<Aml> system;
    add_cpus(system, board);
    add_devices(system, board);
    if (board.pci) add_pci_root(system, *board.pci);
    ByteWriter body;
    if (board.pci) body.append(interrupt_model_method());
    body.append(aml::scope("\\_SB", system));
    // [ACPI 6.5 7.4.2]: SLP_TYPa, SLP_TYPb and two reserved elements.
    if (board.acpi_pm)
        body.append(aml::name("\\_S5", aml::package({aml::integer(board.acpi_pm->s5_sleep_type),
                                                     aml::integer(0), aml::integer(0), aml::integer(0)})));
    return finish_acpi_table("DSDT", kRevision, body);
}

}  // namespace tessera::boot
