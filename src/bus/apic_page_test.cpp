#include "bus/apic_page.h"

#include <array>
#include <gtest/gtest.h>
#include <utility>
#include <vector>

namespace tessera {
namespace {

// Registers hold their own offset, twice.
class Recorder final : public CpuInterrupts {
public:
    u32 read_register(u32 offset) override {
        reads.push_back(offset);
        return offset << 16 | offset;
    }
    void write_register(u32 offset, u32 value) override { writes.emplace_back(offset, value); }
    Events take_events() override { return {}; }
    [[nodiscard]] bool interrupt_pending() override { return false; }
    std::optional<u8> acknowledge() override { return std::nullopt; }
    [[nodiscard]] u8 cr8() override { return 0; }
    void set_cr8(u8 /*value*/) override {}
    MsrResult read_msr(u32 /*index*/, u64& /*value*/) override { return MsrResult::NotMine; }
    MsrResult write_msr(u32 /*index*/, u64 /*value*/) override { return MsrResult::NotMine; }
    [[nodiscard]] bool owns_page(u64 /*page*/) const override { return true; }
    [[nodiscard]] u32 apic_id() const override { return 0; }
    [[nodiscard]] bool is_bootstrap() const override { return true; }
    [[nodiscard]] bool globally_enabled() const override { return true; }
    void set_tsc_offset(s64 /*offset*/) override {}
    void init_reset() override {}

    std::vector<u32> reads;
    std::vector<std::pair<u32, u32>> writes;
};

constexpr u64 kPage = 0xfee0'0000;

u64 read(Recorder& apic, u64 address, std::size_t size) {
    std::array<std::byte, 8> bytes{};
    read_apic_page(apic, address, std::span(bytes).first(size));
    u64 value = 0;
    std::memcpy(&value, bytes.data(), sizeof value);
    return value;
}

bool write(Recorder& apic, u64 address, u64 value, std::size_t size) {
    std::array<std::byte, 8> bytes{};
    std::memcpy(bytes.data(), &value, sizeof value);
    return write_apic_page(apic, address, std::span(bytes).first(size));
}

TEST(ApicPageTest, ReadsGiveTheBytesOfTheRegister) {
    Recorder apic;
    EXPECT_EQ(read(apic, kPage + 0x320, 4), 0x0320'0320u);
    EXPECT_EQ(read(apic, kPage + 0x320, 1), 0x20u);
    EXPECT_EQ(read(apic, kPage + 0x321, 1), 0x03u);
    EXPECT_EQ(read(apic, kPage + 0x322, 2), 0x0320u);
    EXPECT_EQ(apic.reads, (std::vector<u32>{0x320, 0x320, 0x320, 0x320}));
}

TEST(ApicPageTest, WideReadsTakeEachRegisterOnce) {
    Recorder apic;
    EXPECT_EQ(read(apic, kPage + 0x80, 8), 0x0084'0084'0080'0080u);
    EXPECT_EQ(read(apic, kPage + 0x82, 4), 0x0084'0080u);
    EXPECT_EQ(apic.reads, (std::vector<u32>{0x80, 0x84, 0x80, 0x84}));
}

TEST(ApicPageTest, OnlyAlignedDoublewordWritesArrive) {
    Recorder apic;
    EXPECT_TRUE(write(apic, kPage + 0xb0, 0x1234'5678, 4));
    EXPECT_FALSE(write(apic, kPage + 0xb2, 1, 4));
    EXPECT_FALSE(write(apic, kPage + 0xb0, 1, 1));
    EXPECT_FALSE(write(apic, kPage + 0xb0, 1, 2));
    EXPECT_FALSE(write(apic, kPage + 0xb0, 1, 8));
    EXPECT_EQ(apic.writes, (std::vector<std::pair<u32, u32>>{{0xb0, 0x1234'5678}}));
}

}  // namespace
}  // namespace tessera
