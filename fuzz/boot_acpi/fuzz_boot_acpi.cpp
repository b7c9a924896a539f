// Boards of every shape: their ACPI, MP and SMBIOS tables must be built within bounds and sum to zero.
#include <cstdlib>
#include <fuzzer/FuzzedDataProvider.h>

#include "boot/acpi/acpi_tables.h"
#include "boot/board.h"
#include "boot/bytes.h"
#include "boot/mp_table/mp_table.h"
#include "boot/smbios/smbios.h"

namespace {

using namespace tessera;        // NOLINT(google-build-using-namespace)
using namespace tessera::boot;  // NOLINT(google-build-using-namespace)

IsaDevice any_device(FuzzedDataProvider& input) {
    return {.port = input.ConsumeIntegral<u16>(), .irq = input.ConsumeIntegralInRange<u8>(0, 15)};
}

BoardDescription any_board(FuzzedDataProvider& input) {
    BoardDescription board;
    board.apic_ids.clear();
    const bool large = input.ConsumeIntegral<u8>() < 8;  // these take long
    const auto cpus = input.ConsumeIntegralInRange<u32>(1, large ? 300 : 8);
    const auto step = input.ConsumeIntegralInRange<u32>(1, 1000);
    for (u32 n = 0; n < cpus; ++n) board.apic_ids.push_back(n * step);
    if (input.ConsumeBool()) board.io_apic.reset();
    board.has_pic = input.ConsumeBool();
    board.has_pit = input.ConsumeBool();
    board.has_port92 = input.ConsumeBool();
    board.has_vga = input.ConsumeBool();
    if (input.ConsumeBool()) board.acpi_pm.reset();
    if (input.ConsumeBool()) board.hpet.reset();
    if (input.ConsumeBool()) board.pci.reset();
    if (board.pci && input.ConsumeBool()) {
        const u64 first = input.ConsumeIntegral<u64>() / 2;
        board.pci->memory64 = {.first = first, .last = first + input.ConsumeIntegral<u64>() / 2};
        board.pci->isa_bridge = input.ConsumeIntegralInRange<u8>(0, 31);
    }
    if (board.acpi_pm) board.acpi_pm->sci_irq = input.ConsumeIntegralInRange<u8>(0, 15);
    if (input.ConsumeBool()) board.reset.reset();
    board.rtc.reset();
    if (input.ConsumeBool()) board.rtc = any_device(input);
    if (input.ConsumeBool()) board.keyboard.reset();
    board.serial_ports.clear();
    while (board.serial_ports.size() < 6 && input.ConsumeBool())
        board.serial_ports.push_back(any_device(input));
    board.identity.product = input.ConsumeRandomLengthString(80);
    board.identity.serial = input.ConsumeRandomLengthString(80);
    return board;
}

void expect_zero_sum(std::span<const std::byte> table) {
    if (byte_sum(table) != 0) std::abort();
}

}  // namespace

// NOLINTNEXTLINE(readability-identifier-naming): libFuzzer fixes this name.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    FuzzedDataProvider input(data, size);
    const BoardDescription board = any_board(input);
    const auto tables = make_acpi_tables(board, kTablesBase, 0xf'0000);
    if (tables && tables->bytes.size() > 0x1'0000) std::abort();
    expect_zero_sum(make_madt(board));
    expect_zero_sum(make_dsdt(board));
    expect_zero_sum(make_fadt(board, 0x1000, 0x2000));
    if (board.pci) expect_zero_sum(make_mcfg(*board.pci));
    if (board.hpet) expect_zero_sum(make_hpet(*board.hpet));
    const auto mp_table = make_mp_table(board, 0xf'2000);
    if (mp_table.size() > 0x6000) std::abort();
    if (!mp_table.empty()) expect_zero_sum(std::span(mp_table).subspan(16));
    const u64 memory = input.ConsumeIntegral<u64>() >> 8;
    const auto smbios = make_smbios(board, split_ram(memory), 0xf'0000);
    if (smbios && smbios->size() > 0x2000) std::abort();
    return 0;
}
