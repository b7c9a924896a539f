// What firmware tells an operating system about the board: addresses, interrupts, which devices there are.
// The machines wire their chips from the same description, so that tables and hardware cannot disagree.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <vector>

#include "base/types.h"

namespace tessera::boot {

// Fixed places of every PC below 1 MiB.
inline constexpr u64 kEbdaBase = 0x9'fc00;       // extended BIOS data area: the last KiB of base memory
inline constexpr u64 kBaseMemoryEnd = 0xa'0000;  // 640 KiB
inline constexpr u64 kTablesBase = 0xe'0000;  // ACPI, MP and SMBIOS tables; must be RAM (the FACS is written)
inline constexpr u64 kTablesEnd = 0x10'0000;
inline constexpr u64 kHighMemoryBase = 0x10'0000;
// Between these two only devices live.
inline constexpr u64 kPciHoleBase = 0xc000'0000;
inline constexpr u64 kPciHoleEnd = 0x1'0000'0000;

// Where `total` bytes of RAM go: [0, below_4g) and [4 GiB, 4 GiB + above_4g).
struct RamSplit {
    u64 below_4g;
    u64 above_4g;
};
[[nodiscard]] constexpr RamSplit split_ram(u64 total) {
    if (total <= kPciHoleBase) return {.below_4g = total, .above_4g = 0};
    return {.below_4g = kPciHoleBase, .above_4g = total - kPciHoleBase};
}

// A device with one block of I/O ports and one ISA interrupt.
struct IsaDevice {
    u16 port;
    u8 irq;
};

// The ACPI fixed hardware [ACPI 6.5 4.8]. Lengths follow from the specification: PM1 events 4 bytes, control
// 2, timer 4.
struct AcpiPmDescription {
    u16 pm1_event = 0x600;
    u16 pm1_control = 0x604;
    u16 pm_timer = 0x608;
    u8 pm_timer_bits = 32;  // 24 or 32
    u16 gpe0 = 0x620;
    u8 gpe0_length = 4;    // bytes, half status and half enable; 0: no GPE block
    u8 sci_irq = 9;        // ISA number and I/O APIC pin; level triggered, active high
    u8 s5_sleep_type = 5;  // what \_S5 says and PM1a_CNT.SLP_TYP must hold for power off
};

struct ResetRegister {
    u16 port = 0xcf9;
    u8 value = 0x06;
};

struct IoApicDescription {
    u32 address = 0xfec0'0000;
    u32 gsi_base = 0;
    u8 pins = 24;
};

struct KeyboardController {
    u16 data_port = 0x60;
    u16 command_port = 0x64;
    u8 keyboard_irq = 1;
    u8 mouse_irq = 12;
};

// A host bridge with its bus 0, and what it decodes. Everything of it is outside RAM.
struct PciDescription {
    struct Window {
        u64 first;
        u64 last;
    };
    u64 ecam = 0xe000'0000;  // 256 buses, one MiB each
    u8 last_bus = 255;
    Window memory = {.first = kPciHoleBase, .last = 0xdfff'ffff};
    std::optional<Window> memory64{};  // above RAM; NOLINT(readability-redundant-member-init)
    // Ports for BARs; below are the board's own. The host bridge decodes all.
    Window io = {.first = 0x1000, .last = 0xffff};
    bool place_bars = true;  // false: firmware in the guest does
    u8 isa_bridge = 31;      // its device number; function 0
    // The ISA interrupts firmware routes the interrupt lines to, for systems that use the 8259s.
    std::array<u8, 8> isa_interrupts = {10, 11, 10, 11, 10, 11, 10, 11};
};
inline constexpr u64 kEcamSize = 256 * kMiB;

// How the root bus's interrupt pins are wired: INTA# of device d is line d, INTB# line d + 1, and so on round
// the eight lines. Line n is pin kPciFirstPin + n of the I/O APIC, level triggered and active low; `pin` is
// 0-3.
inline constexpr unsigned kPciInterruptLines = 8;
inline constexpr unsigned kPciFirstPin = 16;
[[nodiscard]] constexpr unsigned pci_interrupt_line(unsigned device, unsigned pin) {
    return (device + pin) % kPciInterruptLines;
}

// A virtio device behind MMIO registers; its interrupt is level triggered and active high.
struct VirtioMmioDescription {
    u32 address;
    u32 size;
    u32 gsi;
};

// The high precision event timer [HPET]: three 64-bit timers.
struct HpetDescription {
    u32 address = 0xfed0'0000;
    u16 vendor = 0x7e55;  // in its capabilities; the board's own PCI vendor
};

// Text for SMBIOS; what a guest shows as its maker and model.
struct SystemIdentity {
    std::string manufacturer = "Tessera";
    std::string product = "PC";
    std::string version = "1";
    std::string serial;                 // empty: not given
    std::array<u8, 16> uuid{};          // RFC 4122 byte order; all zero: not given
    std::string processor = "Tessera";  // SMBIOS type 4
};

// The defaults are the board named "pc". An empty optional is a device the board does not have.
struct BoardDescription {
    std::string name = "pc";
    std::vector<u32> apic_ids = {0};  // one per CPU, the bootstrap CPU first; ids >= 255 need x2APIC
    // The CPU model's CPUID leaf 1 EAX and EDX, for MP table and SMBIOS; 0: not given.
    u32 cpu_signature = 0;
    u32 cpu_features = 0;
    u32 local_apic_address = 0xfee0'0000;
    std::optional<IoApicDescription> io_apic = IoApicDescription{};
    bool has_pic = true;  // the 8259A pair at 0x20, 0xa0, and ELCR at 0x4d0
    bool has_pit = true;  // the 8254 at 0x40 with port 0x61; its IRQ 0 is I/O APIC pin 2
    std::optional<AcpiPmDescription> acpi_pm = AcpiPmDescription{};
    std::optional<ResetRegister> reset = ResetRegister{};
    std::optional<IsaDevice> rtc = IsaDevice{.port = 0x70, .irq = 8};
    u8 rtc_century = 0x32;                                              // CMOS index
    std::vector<IsaDevice> serial_ports = {{.port = 0x3f8, .irq = 4}};  // COM1 first, 8 ports each
    std::optional<KeyboardController> keyboard = KeyboardController{};
    std::optional<PciDescription> pci = PciDescription{};
    std::vector<VirtioMmioDescription> virtio_mmio;
    std::optional<HpetDescription> hpet = HpetDescription{};
    bool has_port92 = true;  // fast A20 and reset
    bool has_vga = false;
    SystemIdentity identity{};
    // MAXPHYADDR of the CPU model (CPUID 0x80000008). When given, a variable MTRR makes the PCI hole
    // uncached; 0: unknown, the default memory type covers all.
    u8 physical_address_bits = 0;

    [[nodiscard]] u32 cpu_count() const { return static_cast<u32>(apic_ids.size()); }
};

// The parts list of a board with `cpus` CPUs whose APIC ids are 0, 1, 2, ...
[[nodiscard]] inline BoardDescription pc_board(u32 cpus) {
    BoardDescription board;
    board.apic_ids.clear();
    for (u32 id = 0; id < cpus; ++id) board.apic_ids.push_back(id);
    return board;
}
// The least that boots Linux fast. The i8042 stays: without one, Linux looks for it for half a second.
[[nodiscard]] inline BoardDescription microvm_board(u32 cpus) {
    BoardDescription board = pc_board(cpus);
    board.name = "microvm";
    board.identity.product = "microvm";
    board.has_port92 = false;
    board.pci.reset();
    board.hpet.reset();
    return board;
}

// The I/O APIC's id: the first one a CPU does not have, as its register holds four bits; 0 when there is none
// left (ids of I/O APICs and CPUs are separate since the xAPIC).
[[nodiscard]] constexpr u8 io_apic_id(const BoardDescription& board) {
    for (u8 id = 0; id < 16; ++id) {
        bool used = false;
        for (const u32 apic_id : board.apic_ids) used = used || apic_id == id;
        if (!used) return id;
    }
    return 0;
}

}  // namespace tessera::boot
