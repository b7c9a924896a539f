#include "machines/board/serial_port.h"

#include <array>
#include <gtest/gtest.h>
#include <string>

#include "base/fake_clock.h"

namespace tessera {
namespace {

constexpr u64 kData = 0;
constexpr u64 kFifoControl = 2;
constexpr u64 kModemControl = 4;
constexpr u64 kLineStatus = 5;
constexpr u8 kFifosOn = 0x01;
constexpr u8 kLoopback = 0x10;
constexpr u8 kDataReady = 0x01;

class RecordingBackend final : public CharBackend {
public:
    bool put(u8 byte) override {
        if (full) return false;
        text += static_cast<char>(byte);
        return true;
    }
    void receive_ready() override { ++ready_calls; }
    void connect(CharPeer* /*peer*/) override {}
    std::string text;
    bool full = false;
    int ready_calls = 0;
};

struct SerialPortTest : testing::Test {
    void out(u64 offset, u8 value) {
        const std::array<std::byte, 1> data{std::byte{value}};
        EXPECT_EQ(port.write(offset, data), IoStatus::Ok);
    }
    u8 in(u64 offset) {
        std::array<std::byte, 1> data{};
        EXPECT_EQ(port.read(offset, data), IoStatus::Ok);
        return std::to_integer<u8>(data[0]);
    }
    std::size_t receive(const std::string& text) {
        return port.receive({reinterpret_cast<const u8*>(text.data()), text.size()});
    }
    FakeClock clock;
    NullLock lock;
    RecordingBackend backend;
    SerialPort port{IrqLine::detached(), backend, lock, clock, clock};
};

TEST_F(SerialPortTest, BytesGoBothWays) {
    out(kData, 'a');
    EXPECT_EQ(backend.text, "a");
    EXPECT_EQ(receive("b"), 1U);
    EXPECT_EQ(in(kLineStatus)&kDataReady, kDataReady);
    EXPECT_EQ(in(kData), 'b');
}

TEST_F(SerialPortTest, TellsTheBackendOnceWhenTheGuestHasMadeRoom) {
    out(kFifoControl, kFifosOn);
    const std::string twenty = "0123456789abcdefghij";
    EXPECT_EQ(receive(twenty), 16U);
    EXPECT_EQ(backend.ready_calls, 0);
    EXPECT_EQ(in(kLineStatus)&kDataReady, kDataReady);
    EXPECT_EQ(backend.ready_calls, 0) << "reading the status makes no room";
    EXPECT_EQ(in(kData), '0');
    EXPECT_EQ(backend.ready_calls, 1);
    EXPECT_EQ(in(kData), '1');
    EXPECT_EQ(backend.ready_calls, 1);
    EXPECT_EQ(receive(twenty.substr(16)), 2U);
}

TEST_F(SerialPortTest, RoomAlsoComesFromLeavingLoopback) {
    out(kModemControl, kLoopback);
    EXPECT_EQ(receive("x"), 0U);
    out(kModemControl, 0);
    EXPECT_EQ(backend.ready_calls, 1);
    EXPECT_EQ(receive("x"), 1U);
}

TEST_F(SerialPortTest, AResetMakesRoom) {
    EXPECT_EQ(receive("xy"), 1U);
    port.reset();
    EXPECT_EQ(backend.ready_calls, 1);
}

TEST_F(SerialPortTest, AFullBackendLosesNothing) {
    backend.full = true;
    out(kData, 'a');
    EXPECT_EQ(backend.text, "");
    backend.full = false;
    port.transmit_ready();
    EXPECT_EQ(backend.text, "a");
}

}  // namespace
}  // namespace tessera
