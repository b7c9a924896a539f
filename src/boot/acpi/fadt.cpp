// The Fixed ACPI Description Table [ACPI 6.5 5.2.9]: where the fixed hardware is.
#include "base/assert.h"
#include "base/flags.h"
#include "boot/acpi/acpi_tables.h"
#include "boot/acpi/table.h"
#include "boot/bytes.h"

namespace tessera::boot {

namespace {

constexpr u8 kMajorRevision = 6;
constexpr u8 kMinorRevision = 5;
constexpr std::size_t kFadtSize = 276;

// [ACPI 6.5 table 5.10]
enum class FadtFlag : u32 {
    WBINVD = 1 << 0,
    PROC_C1 = 1 << 2,
    PWR_BUTTON = 1 << 4,  // set: no fixed power button
    SLP_BUTTON = 1 << 5,  // set: no fixed sleep button
    FIX_RTC = 1 << 6,     // set: no fixed RTC wake status
    TMR_VAL_EXT = 1 << 8,
    RESET_REG_SUP = 1 << 10,
    HW_REDUCED_ACPI = 1 << 20,
};
// [ACPI 6.5 table 5.11]
enum class BootArch : u16 {
    LEGACY_DEVICES = 1 << 0,
    IA8042 = 1 << 1,
    VGA_NOT_PRESENT = 1 << 2,
    CMOS_RTC_NOT_PRESENT = 1 << 5,
};

// [ACPI 6.5 5.2.3.2] Generic Address Structure
enum class AccessSize : u8 { Undefined = 0, Byte = 1, Word = 2, Dword = 3 };
constexpr u8 kSystemIo = 1;
constexpr std::size_t kAddressSize = 12;

void put_io_address(ByteWriter& out, u16 port, u8 bytes, AccessSize access) {
    if (bytes == 0) {
        out.zeros(kAddressSize);
        return;
    }
    out.put8(kSystemIo).put8(bytes * 8U).put8(0).put(access).put(u64{port});
}

Flags<FadtFlag> flags_of(const BoardDescription& board) {
    Flags<FadtFlag> flags;
    flags.set(FadtFlag::WBINVD);
    flags.set(FadtFlag::PROC_C1);
    flags.set(FadtFlag::SLP_BUTTON);
    flags.set(FadtFlag::PWR_BUTTON, !board.acpi_pm);
    flags.set(FadtFlag::FIX_RTC, !board.acpi_pm || !board.rtc);
    flags.set(FadtFlag::TMR_VAL_EXT, board.acpi_pm && board.acpi_pm->pm_timer_bits == 32);
    flags.set(FadtFlag::RESET_REG_SUP, board.reset.has_value());
    flags.set(FadtFlag::HW_REDUCED_ACPI, !board.acpi_pm);
    return flags;
}

Flags<BootArch> boot_arch_of(const BoardDescription& board) {
    Flags<BootArch> arch;
    arch.set(BootArch::LEGACY_DEVICES, !board.serial_ports.empty() || board.keyboard.has_value());
    arch.set(BootArch::IA8042, board.keyboard.has_value());
    arch.set(BootArch::VGA_NOT_PRESENT, !board.has_vga);
    arch.set(BootArch::CMOS_RTC_NOT_PRESENT, !board.rtc);
    return arch;
}

struct PmLengths {
    u8 event = 0, control = 0, timer = 0, gpe0 = 0;
};

}  // namespace

std::vector<std::byte> make_fadt(const BoardDescription& board, u32 facs, u32 dsdt) {
    const AcpiPmDescription none{
        .pm1_event = 0, .pm1_control = 0, .pm_timer = 0, .gpe0 = 0, .gpe0_length = 0, .sci_irq = 0};
    const AcpiPmDescription& pm = board.acpi_pm ? *board.acpi_pm : none;
    const PmLengths length =
        board.acpi_pm ? PmLengths{.event = 4, .control = 2, .timer = 4, .gpe0 = pm.gpe0_length} : PmLengths{};
    const ResetRegister reset = board.reset.value_or(ResetRegister{.port = 0, .value = 0});
    constexpr unsigned kNoC2 = 101, kNoC3 = 1001;  // latencies that say "not supported"

    ByteWriter body;
    body.put(facs).put(dsdt).put8(0).put8(0);  // interrupt model (ACPI 1.0), preferred profile: unspecified
    body.put16(pm.sci_irq).put32(0).zeros(4);  // no SMI command: always in ACPI mode
    body.put32(pm.pm1_event).put32(0).put32(pm.pm1_control).put32(0).put32(0);
    body.put32(pm.pm_timer).put32(pm.gpe0_length != 0 ? pm.gpe0 : 0).put32(0);
    body.put(length.event).put(length.control).put8(0).put(length.timer).put(length.gpe0).zeros(3);
    body.put16(kNoC2).put16(kNoC3).zeros(2 + 2 + 1 + 1);  // WBINVD works: no flush sizes; no duty cycle
    body.put8(0).put8(0).put8(board.rtc ? board.rtc_century : 0);  // no day and month alarm
    body.put(boot_arch_of(board).raw()).put8(0).put(flags_of(board).raw());
    put_io_address(body, reset.port, board.reset ? 1 : 0, AccessSize::Byte);
    body.put(reset.value).put16(0).put8(kMinorRevision);
    // The FACS lies below 4 GiB: only one of its two pointers may be set [ACPI 6.5 table 5.9
    // X_FIRMWARE_CTRL].
    body.put64(0).put64(dsdt);
    put_io_address(body, pm.pm1_event, length.event, AccessSize::Word);
    put_io_address(body, 0, 0, AccessSize::Undefined);
    put_io_address(body, pm.pm1_control, length.control, AccessSize::Word);
    put_io_address(body, 0, 0, AccessSize::Undefined);
    put_io_address(body, 0, 0, AccessSize::Undefined);
    put_io_address(body, pm.pm_timer, length.timer, AccessSize::Dword);
    put_io_address(body, pm.gpe0, length.gpe0, AccessSize::Byte);
    put_io_address(body, 0, 0, AccessSize::Undefined);
    body.zeros(2 * kAddressSize)
        .text("TESSERA")
        .put8(0);  // sleep registers (hardware-reduced), hypervisor vendor
    TESSERA_ASSERT(body.size() + kAcpiHeaderSize == kFadtSize, "a fixed layout");
    return finish_acpi_table("FACP", kMajorRevision, body);
}

}  // namespace tessera::boot
