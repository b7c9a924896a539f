#include "boot/mp_table/mp_table.h"

#include "boot/bytes.h"

namespace tessera::boot {

namespace {

enum class Entry : u8 { Processor = 0, Bus = 1, IoApic = 2, IoInterrupt = 3, LocalInterrupt = 4 };
enum class InterruptType : u8 { Int = 0, Nmi = 1, Smi = 2, ExtInt = 3 };

constexpr u8 kSpecRevision = 4;
constexpr u8 kLocalApicVersion = 0x14;  // integrated
constexpr u8 kIoApicVersion = 0x20;
constexpr u8 kEnabled = 1 << 0;
constexpr u8 kBootstrap = 1 << 1;
// [MP 1.4 table 4-5]: what a table says of CPUs it does not know.
constexpr u32 kUnknownSignature = 0xf11;           // family 15 or above
constexpr u32 kUnknownFeatures = 1 << 0 | 1 << 9;  // FPU, APIC
constexpr u32 kSignatureMask = 0xfff;              // the specification knows no extended family and model
// PCI buses have the numbers they have on PCI, the others come behind.
constexpr u8 kPciBus = 0;
constexpr u8 kAllApics = 0xff;
constexpr u16 kBusDefault = 0;
constexpr u16 kActiveHighLevel = 0x1 | 0x3 << 2;
constexpr std::size_t kFloatingPointerSize = 16;

class Table {
public:
    Table(const BoardDescription& board, u32 io_apic_address)
        : board_(board), io_apic_(io_apic_id(board)), isa_bus_(board.pci ? kPciBus + 1 : 0) {
        entries_processors();
        if (board.pci) begin(Entry::Bus).put(kPciBus).fixed_text("PCI", 6);
        begin(Entry::Bus).put(isa_bus_).fixed_text("ISA", 6);
        begin(Entry::IoApic).put(io_apic_).put(kIoApicVersion).put(kEnabled).put(io_apic_address);
        entries_interrupts();
    }
    [[nodiscard]] u16 count() const { return count_; }
    [[nodiscard]] std::span<const std::byte> bytes() const { return out_.bytes(); }

private:
    ByteWriter& begin(Entry type) {
        ++count_;
        return out_.put(type);
    }

    void entries_processors() {
        for (std::size_t n = 0; n < board_.apic_ids.size(); ++n) {
            if (board_.apic_ids[n] >= kAllApics) continue;
            const unsigned flags = kEnabled | (n == 0 ? kBootstrap : 0U);
            begin(Entry::Processor).put8(board_.apic_ids[n]).put(kLocalApicVersion).put8(flags);
            const bool known = board_.cpu_signature != 0;
            out_.put32(known ? board_.cpu_signature & kSignatureMask : kUnknownSignature);
            out_.put32(known ? board_.cpu_features : kUnknownFeatures).zeros(8);
        }
    }

    void entries_interrupts() {
        constexpr u8 kIsaInterrupts = 16;
        constexpr u8 kCascade = 2;
        for (u8 irq = 0; irq < kIsaInterrupts; ++irq) {
            if (irq == kCascade || (irq == 0 && !board_.has_pit)) continue;
            const bool is_sci = board_.acpi_pm && board_.acpi_pm->sci_irq == irq;
            begin(Entry::IoInterrupt).put(InterruptType::Int).put(is_sci ? kActiveHighLevel : kBusDefault);
            out_.put(isa_bus_).put(irq).put(io_apic_).put8(irq == 0 ? kCascade : irq);
        }
        if (board_.pci) entries_pci_interrupts();
        // Virtual wire mode: the 8259A pair interrupts the bootstrap CPU by its LINT0 [MP 1.4 3.6.2.2].
        const u32 bootstrap = board_.apic_ids.front();
        if (board_.has_pic && bootstrap < kAllApics) local_interrupt(InterruptType::ExtInt, bootstrap, 0);
        local_interrupt(InterruptType::Nmi, kAllApics, 1);
    }

    // [MP 1.4 D.3]: device and pin are one number on the bus. That the pins are low and level triggered is
    // the bus's default.
    void entries_pci_interrupts() {
        constexpr u8 kDevices = 32;
        constexpr u8 kPins = 4;
        for (u8 device = 0; device < kDevices; ++device)
            for (u8 pin = 0; pin < kPins; ++pin) {
                begin(Entry::IoInterrupt).put(InterruptType::Int).put(kBusDefault);
                out_.put(kPciBus).put8(device * 4U + pin).put(io_apic_);
                out_.put8(kPciFirstPin + pci_interrupt_line(device, pin));
            }
    }

    void local_interrupt(InterruptType type, u32 apic, unsigned pin) {
        begin(Entry::LocalInterrupt).put(type).put(kBusDefault).put(isa_bus_).put8(0).put8(apic).put8(pin);
    }

    const BoardDescription& board_;
    u8 io_apic_;
    u8 isa_bus_;
    ByteWriter out_;
    u16 count_ = 0;
};

}  // namespace

std::vector<std::byte> make_mp_table(const BoardDescription& board, u64 address) {
    if (!board.io_apic) return {};
    const Table table(board, board.io_apic->address);

    ByteWriter out;
    out.text("_MP_").put32(address + kFloatingPointerSize).put8(kFloatingPointerSize / 16).put(kSpecRevision);
    out.put8(0).zeros(5);  // a configuration table is present; virtual wire mode
    constexpr std::size_t kFloatingChecksum = 10;
    out.fix_checksum(kFloatingChecksum);

    constexpr std::size_t kHeaderSize = 44, kHeaderChecksum = 7;
    ByteWriter config;
    config.text("PCMP")
        .put16(static_cast<unsigned>(kHeaderSize + table.bytes().size()))
        .put(kSpecRevision)
        .put8(0);
    config.fixed_text("TESSERA", 8).fixed_text("TESSERA PC", 12).put32(0).put16(0);
    config.put(table.count()).put(board.local_apic_address).put16(0).put8(0).put8(0);
    config.append(table.bytes());
    config.fix_checksum(kHeaderChecksum);
    return out.append(config.bytes()).take();
}

}  // namespace tessera::boot
