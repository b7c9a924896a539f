#include "boot/acpi/acpi_tables.h"

#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <map>
#include <span>
#include <sstream>
#include <string>
#include <sys/wait.h>
#include <unistd.h>

namespace tessera::boot {
namespace {

constexpr u64 kBase = 0xe0000, kEnd = 0xf0000;

template <typename T>
T at(std::span<const std::byte> bytes, std::size_t offset) {
    T value{};
    std::memcpy(&value, bytes.subspan(offset, sizeof value).data(), sizeof value);
    return value;
}
std::string text(std::span<const std::byte> bytes, std::size_t offset, std::size_t size) {
    const auto part = bytes.subspan(offset, size);
    return {reinterpret_cast<const char*>(part.data()), part.size()};
}
unsigned sum(std::span<const std::byte> bytes) {
    unsigned total = 0;
    for (const std::byte b : bytes) total += std::to_integer<unsigned>(b);
    return total & 0xff;
}

// Follows the pointers as an operating system does.
class Reader {
public:
    explicit Reader(const AcpiTables& tables) : tables_(tables) {}
    std::span<const std::byte> from(u64 address) { return std::span(tables_.bytes).subspan(address - kBase); }
    std::span<const std::byte> table(u64 address) { return from(address).first(at<u32>(from(address), 4)); }
    // What the XSDT lists.
    std::map<std::string, std::span<const std::byte>> listed() {
        std::map<std::string, std::span<const std::byte>> out;
        const auto xsdt = table(at<u64>(from(tables_.rsdp), 24));
        for (std::size_t n = 36; n < xsdt.size(); n += 8) {
            const auto found = table(at<u64>(xsdt, n));
            out[text(found, 0, 4)] = found;
        }
        return out;
    }

private:
    const AcpiTables& tables_;
};

TEST(AcpiTablesTest, RootPointerLeadsToCheckedTables) {
    const auto tables = make_acpi_tables(pc_board(2), kBase, kEnd);
    ASSERT_TRUE(tables);
    Reader reader(*tables);
    const auto rsdp = reader.from(tables->rsdp);
    EXPECT_EQ(tables->rsdp % 16, 0U);
    EXPECT_EQ(text(rsdp, 0, 8), "RSD PTR ");
    EXPECT_EQ(sum(rsdp.first(20)), 0U);
    EXPECT_EQ(sum(rsdp.first(36)), 0U);
    EXPECT_EQ(at<u8>(rsdp, 15), 2);
    const auto rsdt = reader.table(at<u32>(rsdp, 16));
    const auto xsdt = reader.table(at<u64>(rsdp, 24));
    EXPECT_EQ(text(rsdt, 0, 4), "RSDT");
    EXPECT_EQ(text(xsdt, 0, 4), "XSDT");
    EXPECT_EQ(sum(rsdt), 0U);
    EXPECT_EQ(sum(xsdt), 0U);
    ASSERT_EQ((rsdt.size() - 36) / 4, (xsdt.size() - 36) / 8);
    for (std::size_t n = 0; n < (rsdt.size() - 36) / 4; ++n)
        EXPECT_EQ(at<u32>(rsdt, 36 + n * 4), at<u64>(xsdt, 36 + n * 8));
    const auto listed = reader.listed();
    ASSERT_TRUE(listed.contains("FACP"));
    ASSERT_TRUE(listed.contains("APIC"));
    for (const auto& [name, table] : listed) EXPECT_EQ(sum(table), 0U) << name;

    const auto fadt = listed.at("FACP");
    const auto facs = reader.table(at<u32>(fadt, 36));
    EXPECT_EQ(text(facs, 0, 4), "FACS");
    EXPECT_EQ(facs.size(), 64U);
    EXPECT_EQ(at<u32>(fadt, 36) % 64, 0U);
    const auto dsdt = reader.table(at<u32>(fadt, 40));
    EXPECT_EQ(text(dsdt, 0, 4), "DSDT");
    EXPECT_EQ(sum(dsdt), 0U);
    EXPECT_EQ(at<u64>(fadt, 140), at<u32>(fadt, 40));
}

TEST(AcpiTablesTest, FadtDescribesTheFixedHardware) {
    const auto fadt = make_fadt(pc_board(1), 0x1000, 0x2000);
    ASSERT_EQ(fadt.size(), 276U);
    EXPECT_EQ(at<u8>(fadt, 8), 6);  // FADT 6.5
    EXPECT_EQ(at<u8>(fadt, 131), 5);
    EXPECT_EQ(at<u16>(fadt, 46), 9);             // SCI_INT
    EXPECT_EQ(at<u32>(fadt, 48), 0U);            // SMI_CMD: always in ACPI mode
    EXPECT_EQ(at<u32>(fadt, 56), 0x600U);        // PM1a_EVT_BLK
    EXPECT_EQ(at<u32>(fadt, 64), 0x604U);        // PM1a_CNT_BLK
    EXPECT_EQ(at<u32>(fadt, 76), 0x608U);        // PM_TMR_BLK
    EXPECT_EQ(at<u32>(fadt, 80), 0x620U);        // GPE0_BLK
    EXPECT_EQ(at<u32>(fadt, 88), 0x0400'0204U);  // lengths: events, control, PM2, timer
    EXPECT_EQ(at<u8>(fadt, 92), 4);              // GPE0_BLK_LEN
    EXPECT_EQ(at<u8>(fadt, 108), 0x32);          // CENTURY
    EXPECT_EQ(at<u16>(fadt, 109), 0x0007);       // legacy devices, 8042, no VGA
    const auto flags = at<u32>(fadt, 112);
    EXPECT_EQ(flags & 1 << 8, 1U << 8);    // 32-bit timer
    EXPECT_EQ(flags & 1 << 10, 1U << 10);  // reset register
    EXPECT_EQ(flags & 1 << 4, 0U);         // the power button is a fixed one
    EXPECT_EQ(at<u64>(fadt, 120), 0xcf9U);
    EXPECT_EQ(at<u8>(fadt, 128), 6);
    // The 64-bit addresses say the same: system I/O, width in bits.
    const std::pair<std::size_t, std::pair<u64, unsigned>> extended[] = {
        {148, {0x600, 32}}, {172, {0x604, 16}}, {208, {0x608, 32}}, {220, {0x620, 32}}};
    for (const auto& [offset, expected] : extended) {
        EXPECT_EQ(at<u8>(fadt, offset), 1) << offset;
        EXPECT_EQ(at<u8>(fadt, offset + 1), expected.second) << offset;
        EXPECT_EQ(at<u64>(fadt, offset + 4), expected.first) << offset;
    }
}

TEST(AcpiTablesTest, FadtSaysWhatIsMissing) {
    BoardDescription board;
    board.keyboard.reset();
    board.rtc.reset();
    board.reset.reset();
    board.serial_ports.clear();
    board.has_vga = true;
    auto fadt = make_fadt(board, 0x1000, 0x2000);
    EXPECT_EQ(at<u16>(fadt, 109), 1 << 5);  // no RTC
    EXPECT_EQ(at<u8>(fadt, 108), 0);
    EXPECT_EQ(at<u32>(fadt, 112) & 1 << 10, 0U);
    EXPECT_EQ(at<u64>(fadt, 120), 0U);
    board.acpi_pm.reset();
    fadt = make_fadt(board, 0x1000, 0x2000);
    EXPECT_EQ(at<u32>(fadt, 112) & 1 << 20, 1U << 20);  // hardware-reduced
    EXPECT_EQ(at<u32>(fadt, 56), 0U);
    EXPECT_EQ(at<u64>(fadt, 148 + 4), 0U);
}

TEST(AcpiTablesTest, McfgSaysWhereEcamIs) {
    const auto tables = make_acpi_tables(pc_board(1), kBase, kEnd);
    const auto listed = Reader(*tables).listed();
    ASSERT_TRUE(listed.contains("MCFG"));
    const auto mcfg = listed.at("MCFG");
    ASSERT_EQ(mcfg.size(), 60U);
    EXPECT_EQ(sum(mcfg), 0U);
    EXPECT_EQ(at<u64>(mcfg, 44), 0xe000'0000U);
    EXPECT_EQ(at<u16>(mcfg, 52), 0) << "segment group";
    EXPECT_EQ(at<u8>(mcfg, 54), 0);
    EXPECT_EQ(at<u8>(mcfg, 55), 255);
    const auto none = make_acpi_tables(microvm_board(1), kBase, kEnd);
    EXPECT_FALSE(Reader(*none).listed().contains("MCFG"));
}

TEST(AcpiTablesTest, TheHpetTableSaysWhereAndWhatItIs) {
    const auto tables = make_acpi_tables(pc_board(1), kBase, kEnd);
    const auto listed = Reader(*tables).listed();
    ASSERT_TRUE(listed.contains("HPET"));
    const auto hpet = listed.at("HPET");
    ASSERT_EQ(hpet.size(), 56U);
    EXPECT_EQ(sum(hpet), 0U);
    EXPECT_EQ(at<u32>(hpet, 36), 0x7e55'a201U) << "as the chip's capabilities read";
    EXPECT_EQ(at<u8>(hpet, 40), 0) << "memory";
    EXPECT_EQ(at<u64>(hpet, 44), 0xfed0'0000U);
    EXPECT_EQ(at<u8>(hpet, 52), 0) << "the first one";
}

struct Entry {
    u8 type;
    std::span<const std::byte> bytes;
};
std::vector<Entry> entries(std::span<const std::byte> madt) {
    std::vector<Entry> out;
    for (std::size_t n = 44; n < madt.size();) {
        const u8 length = at<u8>(madt, n + 1);
        out.push_back({at<u8>(madt, n), madt.subspan(n, length)});
        n += length;
    }
    return out;
}

TEST(AcpiTablesTest, MadtListsCpusIoApicAndOverrides) {
    const auto madt = make_madt(pc_board(2));
    EXPECT_EQ(at<u32>(madt, 36), 0xfee00000U);
    EXPECT_EQ(at<u32>(madt, 40), 1U);  // PCAT_COMPAT
    const auto list = entries(madt);
    ASSERT_EQ(list.size(), 6U);
    for (u8 n = 0; n < 2; ++n) {
        EXPECT_EQ(list[n].type, 0);
        EXPECT_EQ(at<u8>(list[n].bytes, 2), n);
        EXPECT_EQ(at<u8>(list[n].bytes, 3), n);
        EXPECT_EQ(at<u32>(list[n].bytes, 4), 1U);
    }
    EXPECT_EQ(list[2].type, 1);
    EXPECT_EQ(at<u8>(list[2].bytes, 2), 2);  // an id no CPU has
    EXPECT_EQ(at<u32>(list[2].bytes, 4), 0xfec00000U);
    EXPECT_EQ(at<u32>(list[2].bytes, 8), 0U);
    EXPECT_EQ(list[3].type, 2);  // timer: IRQ 0 is pin 2
    EXPECT_EQ(at<u8>(list[3].bytes, 3), 0);
    EXPECT_EQ(at<u32>(list[3].bytes, 4), 2U);
    EXPECT_EQ(at<u16>(list[3].bytes, 8), 0);
    EXPECT_EQ(list[4].type, 2);  // SCI: level, active high
    EXPECT_EQ(at<u8>(list[4].bytes, 3), 9);
    EXPECT_EQ(at<u32>(list[4].bytes, 4), 9U);
    EXPECT_EQ(at<u16>(list[4].bytes, 8), 0x0d);
    EXPECT_EQ(list[5].type, 4);  // NMI on LINT1 of all
    EXPECT_EQ(at<u8>(list[5].bytes, 2), 0xff);
    EXPECT_EQ(at<u8>(list[5].bytes, 5), 1);
}

TEST(AcpiTablesTest, MadtUsesX2ApicEntriesFromId255On) {
    BoardDescription board;
    board.apic_ids = {0, 254, 255, 0x1234};
    const auto madt = make_madt(board);
    const auto list = entries(madt);
    EXPECT_EQ(list[1].type, 0);
    EXPECT_EQ(list[2].type, 9);
    EXPECT_EQ(at<u32>(list[2].bytes, 4), 255U);
    EXPECT_EQ(at<u32>(list[2].bytes, 12), 2U);  // UID
    EXPECT_EQ(at<u32>(list[3].bytes, 4), 0x1234U);
    EXPECT_EQ(list.back().type, 10);
    EXPECT_EQ(at<u32>(list.back().bytes, 4), 0xffffffffU);
}

TEST(AcpiTablesTest, RoomFor1024CpusAndARefusalBeyond) {
    EXPECT_TRUE(make_acpi_tables(pc_board(1024), kBase, kEnd));
    const auto none = make_acpi_tables(pc_board(1024), kBase, kBase + 0x4000);
    ASSERT_FALSE(none);
    EXPECT_THAT(none.error().message, testing::HasSubstr("1024 CPUs"));
}

// The windows, links and routes are looked at in the disassembly below; here, that they are there at all.
TEST(AcpiTablesTest, DsdtDescribesThePciRoot) {
    const auto dsdt = make_dsdt(pc_board(1));
    const std::string all = text(dsdt, 0, dsdt.size());
    for (const char* object : {"PCI0", "_PRT", "_OSC", "_PIC", "PRTA", "PRTP", "LNKA", "LNKH"})
        EXPECT_NE(all.find(object), std::string::npos) << object;
    const auto small = make_dsdt(microvm_board(1));
    EXPECT_EQ(text(small, 0, small.size()).find("PCI0"), std::string::npos);
}

// Intel's compiler takes every table apart and puts it together again.
class IaslTest : public testing::Test {
protected:
    void SetUp() override {
        std::string name = (std::filesystem::temp_directory_path() / "acpi_tables_test.XXXXXX").string();
        ASSERT_NE(mkdtemp(name.data()), nullptr);
        folder_ = name;
    }
    void TearDown() override { std::filesystem::remove_all(folder_); }

    // Runs iasl with `arguments` in the folder; its output goes to `log`.
    int iasl(const std::string& arguments) {
        const std::string command = "cd '" + folder_.string() + "' && iasl " + arguments + " > log 2>&1";
        // NOLINTNEXTLINE(concurrency-mt-unsafe): the test has one thread.
        const int status = std::system(command.c_str());
        std::ifstream file(folder_ / "log");
        std::stringstream all;
        all << file.rdbuf();
        log = all.str();
        return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    }
    void write(const std::string& name, std::span<const std::byte> bytes) {
        std::ofstream file(folder_ / name, std::ios::binary);
        file.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
    }
    void expect_clean_round_trip(const std::string& name, std::span<const std::byte> table) {
        write(name + ".dat", table);
        ASSERT_EQ(iasl("-d " + name + ".dat"), 0) << log;
        EXPECT_THAT(log, testing::Not(
                             testing::ContainsRegex("[Ww]arning|[Ee]rror|[Rr]emark|[Ii]nvalid|[Ii]ncorrect")))
            << name;
        ASSERT_EQ(iasl(name + ".dsl"), 0) << log;
        EXPECT_THAT(log, testing::HasSubstr("0 Errors, 0 Warnings, 0 Remarks")) << name;
    }
    void expect_clean(const BoardDescription& board) {
        expect_clean_round_trip("fadt", make_fadt(board, 0xe0200, 0xe0240));
        expect_clean_round_trip("madt", make_madt(board));
        expect_clean_round_trip("dsdt", make_dsdt(board));
        if (board.pci) expect_clean_round_trip("mcfg", make_mcfg(*board.pci));
        if (board.hpet) expect_clean_round_trip("hpet", make_hpet(*board.hpet));
    }

    std::filesystem::path folder_;
    std::string log;
};

TEST_F(IaslTest, TakesThePcsTables) {
    expect_clean(pc_board(2));
}
TEST_F(IaslTest, TakesAWindowAbove4GiB) {
    auto board = pc_board(1);
    board.pci->memory64 = {.first = 0x8'0000'0000, .last = 0xf'ffff'ffff};
    write("dsdt.dat", make_dsdt(board));
    ASSERT_EQ(iasl("-d dsdt.dat"), 0) << log;
    std::ifstream file(folder_ / "dsdt.dsl");
    std::stringstream source;
    source << file.rdbuf();
    for (const char* text : {"0x0000000800000000, // Range Minimum", "0x0000000FFFFFFFFF, // Range Maximum",
                             "0xC0000000,         // Range Minimum", "0xDFFFFFFF,         // Range Maximum"})
        EXPECT_THAT(source.str(), testing::HasSubstr(text));
    expect_clean(board);
}
TEST_F(IaslTest, TakesTheMicrovmsTables) {
    expect_clean(microvm_board(1));
}
TEST_F(IaslTest, TakesVirtioDevicesBehindMmio) {
    BoardDescription board = microvm_board(1);
    board.virtio_mmio = {{.address = 0xfeb0'0000, .size = 0x200, .gsi = 16},
                         {.address = 0xfeb0'1000, .size = 0x200, .gsi = 17}};
    expect_clean(board);
}
TEST_F(IaslTest, TakesTheTablesOf300Cpus) {
    expect_clean(pc_board(300));
}
TEST_F(IaslTest, TakesTheTablesOfABareBoard) {
    BoardDescription board;
    board.io_apic.reset();
    board.pci.reset();
    board.hpet.reset();
    board.has_pic = board.has_pit = board.has_port92 = false;
    board.acpi_pm.reset();
    board.reset.reset();
    board.rtc.reset();
    board.serial_ports.clear();
    board.keyboard.reset();
    expect_clean(board);
}
TEST_F(IaslTest, TakesEveryTableInPlace) {
    const auto tables = make_acpi_tables(pc_board(4), kBase, kEnd);
    Reader reader(*tables);
    expect_clean_round_trip("xsdt", reader.table(at<u64>(reader.from(tables->rsdp), 24)));
    expect_clean_round_trip("rsdt", reader.table(at<u32>(reader.from(tables->rsdp), 16)));
    expect_clean_round_trip("facs", reader.table(at<u32>(reader.listed().at("FACP"), 36)));
}

}  // namespace
}  // namespace tessera::boot
