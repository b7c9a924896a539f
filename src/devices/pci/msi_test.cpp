// MSI and MSI-X: the messages a function sends, and when.
#include "devices/pci/msi.h"

#include <cstring>
#include <gtest/gtest.h>

#include "devices/pci/pci_rig.h"

namespace tessera::pci {
namespace {

struct MessageTest : testing::Test {
    void out(u16 offset, u32 value, std::size_t width) {
        std::array<std::byte, 4> buffer{};
        std::memcpy(buffer.data(), &value, sizeof value);
        rig.device.write_config(offset, std::span(buffer).first(width));
    }
    u32 in(u16 offset) {
        std::array<std::byte, 4> buffer{};
        rig.device.read_config(offset, buffer);
        u32 value = 0;
        std::memcpy(&value, buffer.data(), sizeof value);
        return value;
    }
    u16 capability(u8 id) {
        u32 at = in(0x34) & 0xff;
        while (at != 0 && (in(static_cast<u16>(at)) & 0xff) != id) at = in(static_cast<u16>(at)) >> 8 & 0xff;
        return static_cast<u16>(at);
    }
    template <typename T>
    IoStatus table(u64 offset, T value) {
        std::array<std::byte, sizeof(T)> buffer{};
        std::memcpy(buffer.data(), &value, sizeof value);
        return rig.device.msix.write(offset, buffer);
    }
    template <typename T>
    T table(u64 offset) {
        std::array<std::byte, sizeof(T)> buffer{};
        EXPECT_EQ(rig.device.msix.read(offset, buffer), IoStatus::Ok);
        T value = 0;
        std::memcpy(&value, buffer.data(), sizeof value);
        return value;
    }
    void entry(unsigned vector, u64 address, u32 data, u32 control) {
        table<u64>(u64{vector} * 16, address);
        table<u32>(u64{vector} * 16 + 8, data);
        table<u32>(u64{vector} * 16 + 12, control);
    }
    void msix_control(u32 bits) { out(static_cast<u16>(msix + 2), bits, 2); }
    using Message = RecordingUplink::Message;

    PciFunctionRig rig;
    Msix& chip = rig.device.msix;
    std::vector<Message>& sent = rig.uplink.messages;
    u16 msix = capability(0x11);
    u16 msi = capability(0x05);
    MessageTest() { out(0x04, 4, 2); }
};

TEST_F(MessageTest, TheMsixCapabilityNamesTableAndPendingBits) {
    EXPECT_EQ(in(msix) >> 16, 69U) << "table size is one less";
    EXPECT_EQ(in(static_cast<u16>(msix + 4)), 1U) << "offset 0 in BAR 1";
    EXPECT_EQ(in(static_cast<u16>(msix + 8)), 0x801U);
    EXPECT_EQ(chip.size(), 0x1000U);
}

TEST_F(MessageTest, AnEntryIsMaskedUntilSoftwareSaysOtherwise) {
    EXPECT_EQ(table<u32>(12), 1U);
    msix_control(0x8000);
    entry(3, 0xfee0'1000, 0x4031, 0);
    chip.signal(3);
    chip.signal(2);
    EXPECT_EQ(sent, (std::vector<Message>{{0xfee0'1000, 0x4031}}));
    EXPECT_TRUE(chip.pending(2));
    EXPECT_EQ(table<u64>(0x800), 4U);
}

TEST_F(MessageTest, UnmaskingSendsWhatIsPendingOnce) {
    msix_control(0x8000);
    entry(65, 0xfee0'0000, 0x77, 1);
    chip.signal(65);
    chip.signal(65);
    EXPECT_EQ(table<u64>(0x808), 2U);
    EXPECT_TRUE(sent.empty());
    table<u32>(65 * 16 + 12, 0);
    EXPECT_EQ(sent, (std::vector<Message>{{0xfee0'0000, 0x77}}));
    EXPECT_EQ(table<u64>(0x808), 0U);
    table<u32>(65 * 16 + 12, 1);
    table<u32>(65 * 16 + 12, 0);
    EXPECT_EQ(sent.size(), 1U);
}

TEST_F(MessageTest, TheFunctionMaskHoldsAllVectors) {
    msix_control(0xc000);
    for (unsigned v = 0; v < 70; ++v) entry(v, 0xfee0'0000, v, 0);
    for (unsigned v = 0; v < 70; ++v) chip.signal(v);
    EXPECT_TRUE(sent.empty());
    msix_control(0x8000);
    EXPECT_EQ(sent.size(), 70U);
}

TEST_F(MessageTest, AFunctionThatIsNoBusMasterWaits) {
    msix_control(0x8000);
    entry(0, 0xfee0'0000, 5, 0);
    out(0x04, 0, 2);
    chip.signal(0);
    EXPECT_TRUE(sent.empty());
    out(0x04, 4, 2);
    EXPECT_EQ(sent.size(), 1U);
}

TEST_F(MessageTest, DisabledOrUnknownVectorsDoNothing) {
    entry(0, 0xfee0'0000, 5, 0);
    chip.signal(0);
    EXPECT_FALSE(chip.pending(0));
    msix_control(0x8000);
    for (const unsigned v : {70U, 71U, 2047U, 0xffffU, ~0U}) chip.signal(v);
    EXPECT_TRUE(sent.empty());
}

TEST_F(MessageTest, TheAddressMayBeAnyAlignedAddress) {
    msix_control(0x8000);
    entry(0, 0x1234'5678'9abc'def3, 0xffff'ffff, 0);
    chip.signal(0);
    EXPECT_EQ(sent, (std::vector<Message>{{0x1234'5678'9abc'def0, 0xffff'ffff}}));
}

TEST_F(MessageTest, TheTableTakesDoubleAndQuadWordsOnly) {
    EXPECT_EQ(table<u8>(0, 1), IoStatus::BadWidth);
    EXPECT_EQ(table<u16>(0, 1), IoStatus::BadWidth);
    EXPECT_EQ(table<u32>(2, 1), IoStatus::Unaligned);
    EXPECT_EQ(table<u64>(4, 1), IoStatus::Unaligned);
    EXPECT_EQ(table<u64>(0x1000, 1), IoStatus::NoRegister);
    EXPECT_EQ(table<u64>(~u64{7}, 1), IoStatus::NoRegister);
    EXPECT_EQ(table<u64>(0x460, ~u64{0}), IoStatus::Ok) << "between the last entry and the pending bits";
    EXPECT_EQ(table<u64>(0x460), 0U);
    EXPECT_EQ(table<u64>(0x800, ~u64{0}), IoStatus::Ok);
    EXPECT_EQ(table<u64>(0x800), 0U) << "pending bits are read only";
}

TEST_F(MessageTest, MsiPutsTheMessageNumberIntoTheGrantedBits) {
    out(static_cast<u16>(msi + 4), 0xfee0'2000, 4);
    out(static_cast<u16>(msi + 12), 0x4057, 2);
    EXPECT_EQ(in(msi) >> 16, 0x0186U) << "64-bit, masks, eight messages wanted";
    out(static_cast<u16>(msi + 2), 1 | 2 << 4, 2);
    rig.device.msi.signal(1);
    rig.device.msi.signal(6);
    EXPECT_EQ(sent, (std::vector<Message>{{0xfee0'2000, 0x4055}, {0xfee0'2000, 0x4056}}));
}

TEST_F(MessageTest, MsiGrantsAreAtMostWhatWasAskedFor) {
    out(static_cast<u16>(msi + 2), 1 | 7 << 4, 2);
    EXPECT_EQ(rig.device.msi.granted(), 8U);
}

TEST_F(MessageTest, MaskedMsiIsPendingUntilUnmasked) {
    out(static_cast<u16>(msi + 12), 0x30, 2);
    out(static_cast<u16>(msi + 2), 1 | 3 << 4, 2);
    out(static_cast<u16>(msi + 16), 0xffff'ffff, 4);
    EXPECT_EQ(in(static_cast<u16>(msi + 16)), 0xffU) << "as many masks as messages";
    rig.device.msi.signal(5);
    EXPECT_EQ(in(static_cast<u16>(msi + 20)), 0x20U);
    out(static_cast<u16>(msi + 20), 0, 4);
    EXPECT_EQ(in(static_cast<u16>(msi + 20)), 0x20U) << "read only";
    out(static_cast<u16>(msi + 16), 0, 1);
    EXPECT_EQ(sent, (std::vector<Message>{{0, 0x35}}));
    EXPECT_EQ(in(static_cast<u16>(msi + 20)), 0U);
}

}  // namespace
}  // namespace tessera::pci
