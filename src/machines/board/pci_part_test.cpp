#include "machines/board/pci_part.h"

#include <atomic>
#include <cstring>
#include <gtest/gtest.h>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "devices/pci/pci_rig.h"

namespace tessera {
namespace {

struct PciPartTest : testing::Test {
    Status build() {
        part = std::make_unique<PciPart>(description, PciPart::Around{.ports = ports,
                                                                      .mmio = mmio,
                                                                      .messages = messages,
                                                                      .io_apic = io_apic,
                                                                      .pic = pic,
                                                                      .board = board,
                                                                      .reset_register = reset_register});
        return part->add();
    }
    void config_write(u32 device, u32 offset, u32 value) {
        put(0xcf8, 0x8000'0000 | device << 11 | offset);
        put(0xcfc, value);
    }
    void put(u64 port, u32 value) {
        std::array<std::byte, 4> data{};
        std::memcpy(data.data(), &value, sizeof value);
        ports.write(port, data);
    }

    boot::PciDescription description;
    IoBus ports;
    IoBus mmio;
    pci::RecordingMessages messages;
    testing_rig::RecordingSink io_apic;
    testing_rig::RecordingSink pic;
    MutexLock board;
    NullLock lock;
    pci::OneByte reset_register;
    pci::TestCard card;
    pci::TestCard other;
    std::unique_ptr<PciPart> part;
};

TEST_F(PciPartTest, FunctionsTakeTheNextFreeSlotOrTheirOwn) {
    ASSERT_TRUE(build());
    ASSERT_TRUE(part->attach("card", card, lock));
    ASSERT_TRUE(part->attach("other", other, lock, u8{9}));
    EXPECT_EQ(part->root().free_device(1), 2);
    pci::TestCard third;
    const Status clash = part->attach("third", third, lock, u8{9});
    ASSERT_FALSE(clash);
    EXPECT_NE(clash.error().message.find("other"), std::string::npos);
    EXPECT_NE(clash.error().message.find("third"), std::string::npos);
}

TEST_F(PciPartTest, ThereAreThirtySlotsAndNoMore) {
    ASSERT_TRUE(build());
    std::vector<std::unique_ptr<pci::TestCard>> cards;
    cards.reserve(30);
    for (unsigned n = 0; n < 30; ++n) {
        cards.push_back(std::make_unique<pci::TestCard>());
        ASSERT_TRUE(part->attach("card", *cards.back(), lock)) << n;
    }
    const Status full = part->attach("the last straw", card, lock);
    ASSERT_FALSE(full);
    EXPECT_NE(full.error().message.find("the last straw"), std::string::npos);
    ASSERT_TRUE(part->power_on());
}

TEST_F(PciPartTest, PowerOnPlacesAndEnablesTheSameWayEveryTime) {
    ASSERT_TRUE(build());
    ASSERT_TRUE(part->attach("card", card, lock));
    ASSERT_TRUE(part->attach_behind_port("other", other, lock));
    ASSERT_TRUE(part->power_on());
    const auto near = card.config().bar_address(0);
    const auto far = other.config().bar_address(0);
    ASSERT_TRUE(near && far);
    other.registers.value = 0x5a;
    std::array<std::byte, 1> data{};
    mmio.read(far.value_or(0), data);
    EXPECT_EQ(data[0], std::byte{0x5a}) << "through the root port";
    config_write(1, 0x10, 0xd123'4000);
    ASSERT_TRUE(part->power_on());
    EXPECT_EQ(card.config().bar_address(0), near);
    EXPECT_EQ(other.config().bar_address(0), far);
}

TEST_F(PciPartTest, ABarIsWatchedWhereverItsFunctionIs) {
    struct Watcher final : PlaceWatcher {
        void on_place(std::optional<u64> base) override { at = base; }
        std::optional<u64> at;
    };
    ASSERT_TRUE(build());
    ASSERT_TRUE(part->attach("card", card, lock));
    ASSERT_TRUE(part->attach_behind_port("other", other, lock));
    Watcher near;
    Watcher far;
    part->watch_bar(card, 0, near);
    part->watch_bar(other, 0, far);
    EXPECT_FALSE(near.at || far.at);
    ASSERT_TRUE(part->power_on());
    EXPECT_EQ(near.at, card.config().bar_address(0));
    EXPECT_EQ(far.at, other.config().bar_address(0));
    EXPECT_TRUE(far.at);
    // The root port decodes no memory, and what is behind it is nowhere, whatever its own registers say.
    config_write(2, 4, 0);
    EXPECT_FALSE(far.at);
    EXPECT_TRUE(other.config().bar_address(0));
    config_write(2, 4, 6);
    EXPECT_EQ(far.at, other.config().bar_address(0));
    config_write(1, 0x10, 0xd123'4000);
    EXPECT_EQ(near.at, 0xd123'4000U);
    config_write(1, 4, 0);
    EXPECT_FALSE(near.at);
}

TEST_F(PciPartTest, BarsCanBeLeftToFirmware) {
    description.place_bars = false;
    ASSERT_TRUE(build());
    ASSERT_TRUE(part->attach("card", card, lock));
    ASSERT_TRUE(part->power_on());
    EXPECT_EQ(card.config().get32(pci::kBars), 0U);
    EXPECT_EQ(card.config().command().raw(), 0U);
}

TEST_F(PciPartTest, InterruptsGoToTheIoApicAndToTheInputsFirmwareChose) {
    ASSERT_TRUE(build());
    ASSERT_TRUE(part->attach("card", card, lock));
    ASSERT_TRUE(part->power_on());
    card.config().set_interrupt(true);
    EXPECT_TRUE(io_apic.levels[17]) << "device 1, INTA#";
    EXPECT_TRUE(pic.levels[11]);
    EXPECT_EQ(card.config().get8(pci::kInterruptLine), 11);
    config_write(31, 0x60, 0x0b05'0b0a);
    EXPECT_TRUE(pic.levels[11]) << "line 1 is the second byte";
    config_write(31, 0x60, 0x0b05'050a);
    EXPECT_TRUE(pic.levels[5]);
    EXPECT_FALSE(pic.levels[11]);
    ASSERT_TRUE(part->power_on());
    EXPECT_FALSE(io_apic.levels[17]);
    EXPECT_FALSE(pic.levels[5]);
}

TEST_F(PciPartTest, EcamOnTopOfAnotherRangeIsRefusedWithBothNames) {
    ASSERT_TRUE(mmio.reserve("memory above 3 GiB", 0xc000'0000, 0x3000'0000));
    const Status clash = build();
    ASSERT_FALSE(clash);
    EXPECT_NE(clash.error().message.find("memory above 3 GiB"), std::string::npos) << clash.error().message;
    EXPECT_NE(clash.error().message.find("ECAM"), std::string::npos);
}

// One CPU moves BARs and turns interrupts off and on, another uses the BARs, a worker signals: every access
// arrives or finds nobody, and in the end the pin is as the card wants it.
TEST_F(PciPartTest, CpusAndWorkersDoNotDisturbEachOther) {
    constexpr unsigned kRounds = 3000;
    MutexLock card_lock;
    ASSERT_TRUE(build());
    ASSERT_TRUE(part->attach("card", card, card_lock));
    ASSERT_TRUE(part->power_on());
    card.registers.value = 0x5a;
    std::atomic<bool> stop = false;
    std::atomic<u64> wrong = 0;
    std::thread user([&] {
        std::array<std::byte, 1> data{};
        for (u64 n = 0; !stop.load(); ++n) {
            mmio.read(0xc100'0000 + n % 4 * 0x10'0000, data);
            if (data[0] != std::byte{0x5a} && data[0] != std::byte{0xff}) ++wrong;
        }
    });
    std::thread worker([&] {
        for (unsigned n = 0; !stop.load(); ++n) {
            const LockGuard guard(card_lock);
            card.config().set_interrupt(n % 2 == 0);
            card.msix.signal(n % 70);
        }
    });
    for (u32 n = 0; n < kRounds; ++n) {
        config_write(1, 0x10, 0xc100'0000 + n % 4 * 0x10'0000);
        config_write(1, 0x04, n % 3 == 0 ? 0x405 : 7);
    }
    stop = true;
    user.join();
    worker.join();
    EXPECT_EQ(wrong, 0U);
    config_write(1, 0x04, 7);
    card.config().set_interrupt(true);
    EXPECT_TRUE(io_apic.levels[17]);
    card.config().set_interrupt(false);
    EXPECT_FALSE(io_apic.levels[17]);
}

TEST(MessagesToMemoryTest, InterruptsGoToTheApicsAndOthersToMemoryOrNowhere) {
    struct Fabric final : ApicFabric {
        void deliver(const ApicMessage& message) override { delivered.push_back(message); }
        std::vector<ApicMessage> delivered;
    } fabric;
    std::vector<std::byte> ram(kPageSize);
    MemoryMap memory;
    ASSERT_TRUE(memory.add("memory", RegionKind::Ram, 0x1000, ram));
    MessagesToMemory messages(fabric, memory);
    messages.send(0xfee0'3000, 0x41);
    ASSERT_EQ(fabric.delivered.size(), 1U);
    EXPECT_EQ(fabric.delivered[0].destination, 3U);
    EXPECT_EQ(fabric.delivered[0].vector, 0x41);
    messages.send(0x1010, 0x1234'5678);
    EXPECT_EQ(ram[0x10], std::byte{0x78});
    EXPECT_EQ(ram[0x13], std::byte{0x12});
    messages.send(0x1ffe, 1);
    messages.send(0xe000'0000, 1);
    messages.send(~u64{0}, 1);
    EXPECT_EQ(ram[0xffe], std::byte{0}) << "all of it or nothing";
}

}  // namespace
}  // namespace tessera
