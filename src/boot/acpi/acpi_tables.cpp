#include "boot/acpi/acpi_tables.h"

#include <algorithm>
#include <fmt/format.h>

#include "base/assert.h"
#include "boot/acpi/table.h"
#include "boot/bytes.h"

namespace tessera::boot {

namespace {

constexpr u64 kFacsSize = 64;
constexpr u64 kFacsAlignment = 64;
constexpr u64 kTableAlignment = 16;

// [ACPI 6.5 5.2.5.3]
void put_rsdp(ByteWriter& out, u32 rsdt, u64 xsdt) {
    constexpr std::size_t kChecksum = 8, kFirstPart = 20, kExtendedChecksum = 32, kSize = 36;
    ByteWriter rsdp;
    rsdp.text("RSD PTR ").put8(0).fixed_text(kAcpiOemId, 6).put8(2).put(rsdt);
    rsdp.fix_checksum(kChecksum);
    TESSERA_ASSERT(rsdp.size() == kFirstPart, "a fixed layout");
    rsdp.put32(kSize).put(xsdt).put8(0).zeros(3);
    rsdp.fix_checksum(kExtendedChecksum);
    out.append(rsdp.bytes());
}

// [ACPI 6.5 5.2.10]: no checksum, and the operating system writes to it.
void put_facs(ByteWriter& out) {
    constexpr u8 kVersion = 2;
    out.text("FACS").put32(kFacsSize).zeros(4 + 4 + 4 + 4 + 8).put8(kVersion).zeros(3 + 4 + 24);
}

// RSDT [ACPI 6.5 5.2.7] and XSDT [ACPI 6.5 5.2.8] differ in their pointers' width.
template <typename Pointer>
std::vector<std::byte> make_root(std::string_view signature, const std::vector<u64>& tables) {
    ByteWriter body;
    for (const u64 table : tables) body.put(static_cast<Pointer>(table));
    return finish_acpi_table(signature, 1, body);
}

}  // namespace

// [PCI-FW 4.1.2]: one segment group, all its buses.
std::vector<std::byte> make_mcfg(const PciDescription& pci) {
    ByteWriter body;
    body.zeros(8).put(pci.ecam).put16(0).put8(0).put(pci.last_bus).zeros(4);
    return finish_acpi_table("MCFG", 1, body);
}

// [HPET 3.2.4]: the low half of its capabilities register, its address, and no promise about its page.
std::vector<std::byte> make_hpet(const HpetDescription& hpet) {
    constexpr u32 kRevision = 1, kLastTimer = 2U << 8, kCounter64 = 1U << 13, kLegacyCapable = 1U << 15;
    constexpr u8 kSystemMemory = 0, kWidth = 64;
    // The shortest period Linux and others are to use in periodic mode, in ticks: the chip serves 50 kHz.
    constexpr u16 kShortestPeriod = 2000;
    ByteWriter body;
    body.put(kRevision | kLastTimer | kCounter64 | kLegacyCapable | u32{hpet.vendor} << 16);
    body.put(kSystemMemory).put(kWidth).put8(0).put8(0).put(u64{hpet.address});
    body.put8(0).put(kShortestPeriod).put8(0);
    return finish_acpi_table("HPET", 1, body);
}

Result<AcpiTables> make_acpi_tables(const BoardDescription& board, u64 base, u64 end) {
    constexpr u64 kRoots = 512;  // RSDP, RSDT and XSDT, which are written last
    ByteWriter out;
    out.zeros(kRoots);
    const auto here = [&] { return base + out.size(); };

    out.align(kFacsAlignment);
    const u64 facs = here();
    put_facs(out);
    TESSERA_ASSERT(here() - facs == kFacsSize, "a fixed layout");
    const u64 dsdt = here();
    out.append(make_dsdt(board)).align(kTableAlignment);

    // The tables the roots list; the FADT comes first.
    std::vector<u64> listed;
    const auto list = [&](std::span<const std::byte> table) {
        listed.push_back(here());
        out.append(table).align(kTableAlignment);
    };
    list(make_fadt(board, static_cast<u32>(facs), static_cast<u32>(dsdt)));
    list(make_madt(board));
    if (board.pci) list(make_mcfg(*board.pci));
    if (board.hpet) list(make_hpet(*board.hpet));
    if (here() > end)
        return fail(Errc::InvalidArgument,
                    fmt::format("the ACPI tables of {} CPUs take {} bytes, there is room for {}",
                                board.cpu_count(), out.size(), end - base));

    ByteWriter roots;
    const auto rsdt = make_root<u32>("RSDT", listed);
    const auto xsdt = make_root<u64>("XSDT", listed);
    constexpr u64 kRsdpRoom = 48;
    const u64 rsdt_address = base + kRsdpRoom;
    const u64 xsdt_address = (rsdt_address + rsdt.size() + kTableAlignment - 1) & ~(kTableAlignment - 1);
    put_rsdp(roots, static_cast<u32>(rsdt_address), xsdt_address);
    roots.zeros(rsdt_address - base - roots.size()).append(rsdt);
    roots.zeros(xsdt_address - base - roots.size()).append(xsdt);
    TESSERA_ASSERT(roots.size() <= kRoots, "a handful of tables");

    AcpiTables tables{.bytes = out.take(), .rsdp = base};
    std::ranges::copy(roots.bytes(), tables.bytes.begin());
    return tables;
}

}  // namespace tessera::boot
