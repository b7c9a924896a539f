#include "boot/smbios/smbios.h"

#include <algorithm>
#include <fmt/format.h>
#include <string_view>

#include "boot/bytes.h"

namespace tessera::boot {

namespace {

constexpr u8 kMajor = 3;
constexpr u8 kMinor = 6;
constexpr std::size_t kLongestText = 64;
constexpr u64 kEntryPoints = 64;  // 2.1 at 0, 3.0 at 32, structures behind

// [SMBIOS 3.6 7]
enum class Type : u8 {
    Firmware = 0,
    System = 1,
    Chassis = 3,
    Processor = 4,
    MemoryArray = 16,
    MemoryDevice = 17,
    MappedAddress = 19,
    SystemBoot = 32,
    EndOfTable = 127,
};
constexpr u16 kNoHandle = 0xffff;
constexpr u16 kNoErrorInformation = 0xfffe;
constexpr u8 kOther = 1;
constexpr u8 kUnknown = 2;

// One structure: fixed part first, its strings behind it, which it names by number.
class Structure {
public:
    Structure(Type type, u16 handle) { out.put(type).put8(0).put(handle); }

    Structure& text(std::string_view value) {
        if (value.empty()) {
            out.put8(0);
            return *this;
        }
        strings_.text(value).put8(0);
        out.put8(++count_);
        return *this;
    }
    [[nodiscard]] std::vector<std::byte> finish() {
        out.patch<u8>(1, static_cast<u8>(out.size()));
        out.append(strings_.bytes());
        // The set of strings ends with a zero; without strings there are two [SMBIOS 3.6 6.1.3].
        out.zeros(count_ == 0 ? 2 : 1);
        return out.take();
    }

    ByteWriter out;

private:
    ByteWriter strings_;
    u8 count_ = 0;
};

class Table {
public:
    void add(Structure& structure) {
        const auto bytes = structure.finish();
        largest_ = std::max(largest_, bytes.size());
        ++count_;
        out_.append(bytes);
    }
    [[nodiscard]] u16 next_handle() const { return count_; }
    [[nodiscard]] u16 count() const { return count_; }
    [[nodiscard]] std::size_t largest() const { return largest_; }
    [[nodiscard]] std::span<const std::byte> bytes() const { return out_.bytes(); }

private:
    ByteWriter out_;
    u16 count_ = 0;
    std::size_t largest_ = 0;
};

u8 capped(u32 count) {
    return static_cast<u8>(std::min<u32>(count, 0xff));
}

void add_firmware(Table& table) {
    constexpr u64 kCharacteristicsNotSupported = 1 << 3;
    constexpr u8 kAcpi = 1 << 0, kVirtualMachine = 1 << 4;
    Structure s(Type::Firmware, table.next_handle());
    s.text("Tessera").text("1.0");
    s.out.put16(kTablesBase >> 4);
    s.text("01/01/2026");
    s.out.put8((kTablesEnd - kTablesBase) / (64 * kKiB) - 1).put(kCharacteristicsNotSupported);
    s.out.put(kAcpi).put(kVirtualMachine).put8(1).put8(0).put8(0xff).put8(0xff).put16(0);
    table.add(s);
}

void add_system(Table& table, const SystemIdentity& id) {
    constexpr u8 kPowerSwitch = 6;
    Structure s(Type::System, table.next_handle());
    s.text(id.manufacturer).text(id.product).text(id.version).text(id.serial);
    // The first three fields of a UUID are little-endian [SMBIOS 3.6 7.2.1].
    constexpr u8 kOrder[] = {3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15};
    for (const u8 n : kOrder) s.out.put8(id.uuid[n]);
    s.out.put(kPowerSwitch);
    s.text("").text("");
    table.add(s);
}

void add_chassis(Table& table, const SystemIdentity& id) {
    constexpr u8 kStateSafe = 3, kSecurityNone = 3;
    Structure s(Type::Chassis, table.next_handle());
    s.text(id.manufacturer);
    s.out.put(kOther);
    s.text(id.version).text(id.serial).text("");
    s.out.put(kStateSafe)
        .put(kStateSafe)
        .put(kStateSafe)
        .put(kSecurityNone)
        .put32(0)
        .put8(0)
        .put8(0)
        .put8(0)
        .put8(0);
    s.text("");
    table.add(s);
}

// One socket with all cores.
void add_processor(Table& table, const BoardDescription& board) {
    constexpr u8 kCentral = 3, kPopulatedEnabled = 0x41, kUpgradeUnknown = 2;
    constexpr u16 k64Bit = 1 << 2, kMultiCore = 1 << 3, kExecuteProtection = 1 << 5;
    const u32 cores = board.cpu_count();
    Structure s(Type::Processor, table.next_handle());
    s.text("CPU 0");
    s.out.put(kCentral).put(kOther);
    s.text(board.identity.manufacturer);
    s.out.put(board.cpu_signature).put(board.cpu_features);
    s.text(board.identity.processor);
    s.out.put8(0).put16(0).put16(0).put16(0).put(kPopulatedEnabled).put(kUpgradeUnknown);
    s.out.put(kNoHandle).put(kNoHandle).put(kNoHandle);
    s.text("").text("").text("");
    s.out.put(capped(cores)).put(capped(cores)).put(capped(cores));
    s.out.put16(k64Bit | kExecuteProtection | (cores > 1 ? kMultiCore : 0U)).put16(kOther);
    for (int n = 0; n < 4; ++n) s.out.put16(cores);  // cores, enabled cores, threads, enabled threads
    table.add(s);
}

u16 add_memory_array(Table& table, u64 size) {
    constexpr u8 kSystemBoard = 3, kSystemMemory = 3, kNoCorrection = 3;
    constexpr u32 kSeeExtended = 0x8000'0000;
    const u16 handle = table.next_handle();
    const u64 kib = size / kKiB;
    Structure s(Type::MemoryArray, handle);
    s.out.put(kSystemBoard).put(kSystemMemory).put(kNoCorrection);
    s.out.put(kib < kSeeExtended ? static_cast<u32>(kib) : kSeeExtended).put(kNoErrorInformation).put16(1);
    s.out.put64(kib < kSeeExtended ? 0 : size);
    table.add(s);
    return handle;
}

void add_memory_device(Table& table, u16 array, u64 size) {
    constexpr u16 kWidthUnknown = 0xffff, kSeeExtended = 0x7fff, kInKiB = 0x8000;
    constexpr u8 kDimm = 9, kRam = 7;
    constexpr u16 kDetailOther = 1 << 1, kModeUnknown = 1 << 2;
    const u64 mib = size / kMiB;
    u16 short_size = static_cast<u16>(std::min<u64>(mib, kSeeExtended));
    if (mib == 0) short_size = static_cast<u16>(kInKiB | (size / kKiB));
    Structure s(Type::MemoryDevice, table.next_handle());
    s.out.put(array).put(kNoErrorInformation).put(kWidthUnknown).put(kWidthUnknown).put(short_size);
    s.out.put(kDimm).put8(0);
    s.text("DIMM 0").text("");
    s.out.put(kRam).put(kDetailOther).put16(0);
    s.text("Tessera").text("").text("").text("");
    s.out.put8(0).put32(short_size == kSeeExtended ? mib : 0).put16(0).put16(0).put16(0).put16(0);
    s.out.put(kUnknown).put(kModeUnknown);
    s.text("");
    s.out.put16(0).put16(0).put16(0).put16(0).put64(0).put64(size).put64(0).put64(0).put32(0).put32(0);
    table.add(s);
}

void add_mapped_address(Table& table, u16 array, u64 base, u64 size) {
    if (size == 0) return;
    constexpr u32 kSeeExtended = 0xffff'ffff;
    const u64 last = base + size - 1;
    const bool extended = last / kKiB >= kSeeExtended;
    Structure s(Type::MappedAddress, table.next_handle());
    s.out.put32(extended ? kSeeExtended : base / kKiB).put32(extended ? kSeeExtended : last / kKiB);
    s.out.put(array).put8(1).put64(extended ? base : 0).put64(extended ? last : 0);
    table.add(s);
}

void add_end(Table& table) {
    Structure boot(Type::SystemBoot, table.next_handle());
    boot.out.zeros(6).put8(0);  // no errors
    table.add(boot);
    Structure end(Type::EndOfTable, table.next_handle());
    table.add(end);
}

// [SMBIOS 3.6 5.2.1]
void put_entry_point_21(ByteWriter& out, const Table& table, u64 address) {
    constexpr std::size_t kSize = 0x1f, kChecksum = 4, kIntermediate = 0x10, kIntermediateChecksum = 0x15;
    ByteWriter entry;
    entry.text("_SM_").put8(0).put8(kSize).put(kMajor).put(kMinor).put16(
        static_cast<unsigned>(table.largest()));
    entry.put8(0).zeros(5).text("_DMI_").put8(0);
    entry.put16(static_cast<unsigned>(table.bytes().size())).put32(address).put(table.count());
    entry.put8(kMajor << 4 | kMinor);
    entry.fix_checksum(kIntermediateChecksum, kIntermediate);
    entry.fix_checksum(kChecksum);
    out.append(entry.bytes());
}

// [SMBIOS 3.6 5.2.2]
void put_entry_point_30(ByteWriter& out, const Table& table, u64 address) {
    constexpr std::size_t kSize = 0x18, kChecksum = 5;
    constexpr u8 kRevision = 1;
    ByteWriter entry;
    entry.text("_SM3_").put8(0).put8(kSize).put(kMajor).put(kMinor).put8(0).put(kRevision).put8(0);
    entry.put32(table.bytes().size()).put64(address);
    entry.fix_checksum(kChecksum);
    out.append(entry.bytes());
}

Status check_text(std::string_view what, std::string_view text) {
    const bool printable = std::ranges::all_of(text, [](char c) { return c >= 0x20 && c < 0x7f; });
    if (text.size() <= kLongestText && printable) return {};
    return fail(
        Errc::InvalidArgument,
        fmt::format("the system's {} must be at most {} printable ASCII characters", what, kLongestText));
}

}  // namespace

Result<std::vector<std::byte>> make_smbios(const BoardDescription& board, RamSplit ram, u64 address) {
    const SystemIdentity& id = board.identity;
    const std::pair<std::string_view, std::string_view> texts[] = {{"manufacturer", id.manufacturer},
                                                                   {"product name", id.product},
                                                                   {"version", id.version},
                                                                   {"serial number", id.serial},
                                                                   {"processor name", id.processor}};
    for (const auto& [what, text] : texts)
        if (auto status = check_text(what, text); !status) return std::unexpected(status.error());

    const u64 total = ram.below_4g + ram.above_4g;
    Table table;
    add_firmware(table);
    add_system(table, id);
    add_chassis(table, id);
    add_processor(table, board);
    const u16 array = add_memory_array(table, total);
    add_memory_device(table, array, total);
    add_mapped_address(table, array, 0, ram.below_4g);
    add_mapped_address(table, array, kPciHoleEnd, ram.above_4g);
    add_end(table);

    ByteWriter out;
    put_entry_point_21(out, table, address + kEntryPoints);
    out.align(32);
    put_entry_point_30(out, table, address + kEntryPoints);
    out.align(kEntryPoints);
    return out.append(table.bytes()).take();
}

}  // namespace tessera::boot
