#include "boot/aml/aml.h"

#include <gtest/gtest.h>
#include <string>

namespace tessera::boot::aml {
namespace {

// Bytes as hexadecimal text, as the specification and disassemblers print them.
std::string hex(const Aml& aml) {
    std::string out;
    for (const std::byte b : aml) {
        constexpr char kDigits[] = "0123456789abcdef";
        if (!out.empty()) out += ' ';
        out += kDigits[std::to_integer<unsigned>(b) >> 4];
        out += kDigits[std::to_integer<unsigned>(b) & 15];
    }
    return out;
}

TEST(AmlTest, IntegersTakeTheirShortestForm) {
    EXPECT_EQ(hex(integer(0)), "00");
    EXPECT_EQ(hex(integer(1)), "01");
    EXPECT_EQ(hex(integer(2)), "0a 02");
    EXPECT_EQ(hex(integer(0xff)), "0a ff");
    EXPECT_EQ(hex(integer(0x100)), "0b 00 01");
    EXPECT_EQ(hex(integer(0x10000)), "0c 00 00 01 00");
    EXPECT_EQ(hex(integer(0x1'0000'0000)), "0e 00 00 00 00 01 00 00 00");
    EXPECT_EQ(hex(integer(~u64{0})), "ff");
}

// The compressed id as iasl encodes EisaId ("PNP0501").
TEST(AmlTest, EisaIdIsCompressed) {
    EXPECT_EQ(hex(eisa_id("PNP0501")), "0c 41 d0 05 01");
}

TEST(AmlTest, PathsCountTheirSegments) {
    EXPECT_EQ(hex(path("COM1")), "43 4f 4d 31");
    EXPECT_EQ(hex(path("\\_SB")), "5c 5f 53 42 5f");
    EXPECT_EQ(hex(path("^RTC")), "5e 52 54 43 5f");
    EXPECT_EQ(hex(path("\\_SB.C000")), "5c 2e 5f 53 42 5f 43 30 30 30");
    EXPECT_EQ(hex(path("A.B.C")), "2f 03 41 5f 5f 5f 42 5f 5f 5f 43 5f 5f 5f");
    EXPECT_EQ(hex(path("\\")), "5c 00");
}

TEST(AmlTest, LengthsGrowWithTheirBlocks) {
    // A buffer of n bytes: opcode, length, BufferSize (2 bytes from 2 on, 3 from 256 on), content.
    const auto head = [](std::size_t n) {
        Aml all = buffer(std::vector<std::byte>(n));
        all.resize(8);
        return hex(all).substr(0, 17);
    };
    EXPECT_EQ(head(60), "11 3f 0a 3c 00 00");        // 1 + 2 + 60 = 63: still one byte
    EXPECT_EQ(head(61), "11 41 04 0a 3d 00");        // 2 + 2 + 61 = 65
    EXPECT_EQ(head(4090), "11 4f ff 0b fa 0f");      // 2 + 3 + 4090 = 4095: the most for two bytes
    EXPECT_EQ(head(4091), "11 81 00 01 0b fb");      // 3 + 3 + 4091 = 4097
    EXPECT_EQ(head(0xf'fff8), "11 c1 00 00 01 0c");  // 4 + 5 + 0xffff8 = 0x100001: four bytes
}

TEST(AmlTest, DeviceNestsItsMembers) {
    EXPECT_EQ(hex(device("A", {name("_UID", integer(3))})), "5b 82 0c 41 5f 5f 5f 08 5f 55 49 44 0a 03");
}

TEST(AmlTest, PackageCountsItsElements) {
    EXPECT_EQ(hex(package({integer(5), integer(0)})), "12 05 02 0a 05 00");
}

TEST(AmlTest, MethodsAndControlFlow) {
    EXPECT_EQ(hex(method("_STA", 0, Serialize::Yes, {return_value(integer(15))})),
              "14 09 5f 53 54 41 08 a4 0a 0f");
    EXPECT_EQ(hex(if_then(equal(arg(0), integer(1)), {store(arg(1), local(0))})), "a0 07 93 68 01 70 69 60");
    EXPECT_EQ(hex(otherwise({return_value(integer(0))})), "a1 03 a4 00");
    EXPECT_EQ(hex(logical_and(logical_not(arg(0)), arg(1))), "90 92 68 69");
    EXPECT_EQ(hex(and_into(arg(0), integer(0x1f), local(1))), "7b 68 0a 1f 61");
    EXPECT_EQ(hex(or_into(arg(0), integer(1), local(1))), "7d 68 01 61");
    EXPECT_EQ(hex(notify("PWRB", 0x80)), "86 50 57 52 42 0a 80");
    EXPECT_EQ(hex(create_dword_field(arg(3), integer(0), "CDW1")), "8a 6b 00 43 44 57 31");
}

TEST(AmlTest, RegionsAndFields) {
    EXPECT_EQ(hex(operation_region("GPIO", Space::SystemIo, 0x600, 4)),
              "5b 80 47 50 49 4f 01 0b 00 06 0a 04");
    EXPECT_EQ(hex(field("GPIO", Access::Byte, {{"", 100}, {"BITS", 3}})),
              "5b 81 0e 47 50 49 4f 01 00 44 06 42 49 54 53 03");
}

TEST(AmlTest, UuidIsMixedEndian) {
    EXPECT_EQ(hex(uuid("33db4d5b-1ff7-401c-9657-7441c03dd766")),
              "11 13 0a 10 5b 4d db 33 f7 1f 1c 40 96 57 74 41 c0 3d d7 66");
}

TEST(AmlTest, ResourcesEndWithTheirTag) {
    EXPECT_EQ(hex(Resources().io(0x3f8, 8, 8).isa_irq(4).finish()),
              "11 10 0a 0d 47 01 f8 03 f8 03 08 08 22 10 00 79 00");
    using R = Resources;
    EXPECT_EQ(hex(R().irq(9, R::Trigger::Level, R::Polarity::Low, R::Sharing::Shared).finish()),
              "11 09 0a 06 23 00 02 18 79 00");
    EXPECT_EQ(hex(R().interrupt(16, R::Trigger::Level, R::Polarity::Low, R::Sharing::Shared).finish()),
              "11 0e 0a 0b 89 06 00 0d 01 10 00 00 00 79 00");
    EXPECT_EQ(hex(R().memory32(0xfed00000, 0x400).finish()),
              "11 11 0a 0e 86 09 00 01 00 00 d0 fe 00 04 00 00 79 00");
    EXPECT_EQ(hex(R().bus_window(0, 255).finish()),
              "11 15 0a 12 88 0d 00 02 0c 00 00 00 00 00 ff 00 00 00 00 01 79 00");
    EXPECT_EQ(
        hex(R().memory_window(0xc0000000, 0xfebfffff).finish()),
        "11 1f 0a 1c 87 17 00 00 0c 01 00 00 00 00 00 00 00 c0 ff ff bf fe 00 00 00 00 00 00 c0 3e 79 00");
}

}  // namespace
}  // namespace tessera::boot::aml
