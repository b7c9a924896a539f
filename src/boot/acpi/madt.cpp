// The Multiple APIC Description Table [ACPI 6.5 5.2.12]: CPUs, I/O APIC, and how ISA interrupts reach it.
#include "boot/acpi/acpi_tables.h"
#include "boot/acpi/table.h"
#include "boot/bytes.h"

namespace tessera::boot {

namespace {

// [ACPI 6.5 table 5.21] and the entries' lengths
enum class Entry : u8 {
    LocalApic = 0,
    IoApic = 1,
    SourceOverride = 2,
    LocalApicNmi = 4,
    X2Apic = 9,
    X2ApicNmi = 10
};

constexpr u8 kRevision = 6;
constexpr u32 kPcatCompatible = 1;  // there are 8259s, to be disabled
constexpr u32 kEnabled = 1;
constexpr u8 kLint1 = 1;
constexpr u8 kIsaBus = 0;
// [ACPI 6.5 table 5.26] MPS INTI flags
constexpr u16 kBusDefault = 0;
constexpr u16 kActiveHighLevel = 0x1 | 0x3 << 2;

// An APIC id and a UID that the eight-bit entry can hold; 255 means "all" in both.
bool fits_local_apic(u32 apic_id, u32 uid) {
    return apic_id < 255 && uid < 255;
}

void put_override(ByteWriter& out, u8 irq, u32 gsi, u16 flags) {
    out.put(Entry::SourceOverride).put8(10).put8(kIsaBus).put(irq).put(gsi).put(flags);
}

}  // namespace

std::vector<std::byte> make_madt(const BoardDescription& board) {
    ByteWriter body;
    body.put(board.local_apic_address).put32(board.has_pic ? kPcatCompatible : 0);
    bool has_x2apic = false;
    for (u32 uid = 0; uid < board.cpu_count(); ++uid) {
        const u32 id = board.apic_ids[uid];
        if (fits_local_apic(id, uid)) {
            body.put(Entry::LocalApic).put8(8).put8(uid).put8(id).put32(kEnabled);
        } else {
            body.put(Entry::X2Apic).put8(16).put16(0).put(id).put32(kEnabled).put(uid);
            has_x2apic = true;
        }
    }
    if (board.io_apic) {
        const IoApicDescription& io_apic = *board.io_apic;
        body.put(Entry::IoApic)
            .put8(12)
            .put(io_apic_id(board))
            .put8(0)
            .put(io_apic.address)
            .put(io_apic.gsi_base);
        // Pin 0 is the PIC's; the timer is on pin 2.
        if (board.has_pit) put_override(body, 0, io_apic.gsi_base + 2, kBusDefault);
        if (board.acpi_pm)
            put_override(body, board.acpi_pm->sci_irq, io_apic.gsi_base + board.acpi_pm->sci_irq,
                         kActiveHighLevel);
    }
    body.put(Entry::LocalApicNmi).put8(6).put8(0xff).put16(kBusDefault).put(kLint1);
    if (has_x2apic)
        body.put(Entry::X2ApicNmi).put8(12).put16(kBusDefault).put32(0xffff'ffff).put(kLint1).zeros(3);
    return finish_acpi_table("APIC", kRevision, body);
}

}  // namespace tessera::boot
