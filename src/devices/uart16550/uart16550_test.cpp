#include "devices/uart16550/uart16550.h"

#include <array>
#include <gtest/gtest.h>
#include <numeric>
#include <string>
#include <vector>

#include "devices/testing/device_suite.h"
#include "devices/uart16550/uart16550_rig.h"

TESSERA_JOIN_DEVICE_SUITE(Uart16550, tessera::uart16550::UartRig);

namespace tessera::uart16550 {
namespace {

// Restated from the data sheet on purpose: the test is a second reader of the specification and does not use
// the values of uart16550_regs.h.
enum Offset : u8 {
    RBR = 0,
    THR = 0,
    DLL = 0,
    IER = 1,
    DLM = 1,
    IIR = 2,
    FCR = 2,
    LCR = 3,
    MCR = 4,
    LSR = 5,
    MSR = 6,
    SCR = 7
};
constexpr u8 kErbfi = 0x01, kEtbei = 0x02, kElsi = 0x04, kEdssi = 0x08;
constexpr u8 kOut2 = 0x08, kLoop = 0x10;
constexpr u8 kIirNone = 0x01, kIirModem = 0x00, kIirThre = 0x02, kIirData = 0x04, kIirLine = 0x06,
             kIirTimeout = 0x0c;
constexpr u8 kFifosOn = 0xc0;  // as IIR says it
constexpr u8 kDr = 0x01, kOe = 0x02, kBi = 0x10, kThre = 0x20, kTemt = 0x40, kFifoError = 0x80;
using Edges = std::vector<testing_rig::RecordingSink::Edge>;

class Uart16550Test : public testing::Test {
protected:
    u8 in(u64 offset) {
        std::array<std::byte, 1> buffer{std::byte{0xff}};
        EXPECT_EQ(uart.read(offset, buffer), IoStatus::Ok);
        return std::to_integer<u8>(buffer[0]);
    }
    void out(u64 offset, u8 value) {
        const std::array<std::byte, 1> buffer{std::byte{value}};
        EXPECT_EQ(uart.write(offset, buffer), IoStatus::Ok);
    }
    void receive(std::string_view text) {
        for (const char c : text) EXPECT_TRUE(uart.receive(static_cast<u8>(c)));
    }
    [[nodiscard]] bool irq() const { return rig.wires.levels[4]; }
    [[nodiscard]] std::string sent() const { return {rig.wire.bytes.begin(), rig.wire.bytes.end()}; }
    void set_divisor(u16 divisor, u8 lcr) {
        out(LCR, lcr | 0x80);
        out(DLL, divisor & 0xff);
        out(DLM, static_cast<u8>(divisor >> 8));
        out(LCR, lcr);
    }

    UartRig rig;
    Uart16550& uart = rig.device;
    FakeClock& clock = rig.clock;
};

TEST_F(Uart16550Test, ResetValuesMatchDataSheetTable1) {
    EXPECT_EQ(in(IER), 0x00);
    EXPECT_EQ(in(IIR), 0x01);
    EXPECT_EQ(in(LCR), 0x00);
    EXPECT_EQ(in(MCR), 0x00);
    EXPECT_EQ(in(LSR), 0x60);
    EXPECT_EQ(in(MSR), 0xb0);  // a cable with a ready far end
    EXPECT_FALSE(irq());
}

TEST_F(Uart16550Test, IerAndMcrKeepOnlyTheirBits) {
    out(IER, 0xff);
    EXPECT_EQ(in(IER), 0x0f);
    out(MCR, 0xff);
    EXPECT_EQ(in(MCR), 0x1f);
    out(SCR, 0xa5);
    EXPECT_EQ(in(SCR), 0xa5);
}

TEST_F(Uart16550Test, DlabSelectsTheDivisorAndHidesTheFirstTwoRegisters) {
    out(IER, 0x05);
    out(LCR, 0x83);
    out(DLL, 0x12);
    out(DLM, 0x34);
    EXPECT_EQ(in(DLL), 0x12);
    EXPECT_EQ(in(DLM), 0x34);
    out(LCR, 0x03);
    EXPECT_EQ(in(IER), 0x05);
    EXPECT_TRUE(rig.wire.bytes.empty());
}

TEST_F(Uart16550Test, UnknownOffsetAndWidthLeaveTheFloatingBus) {
    std::array<std::byte, 2> buffer{std::byte{0xff}, std::byte{0xff}};
    EXPECT_EQ(uart.read(8, std::span(buffer).first(1)), IoStatus::NoRegister);
    EXPECT_EQ(uart.read(0, buffer), IoStatus::BadWidth);
    EXPECT_EQ(uart.write(0, buffer), IoStatus::BadWidth);
    EXPECT_EQ(buffer[0], std::byte{0xff});
    EXPECT_TRUE(rig.wire.bytes.empty());
}

TEST_F(Uart16550Test, LsrAndMsrIgnoreWrites) {
    out(LSR, 0xff);
    out(MSR, 0xff);
    EXPECT_EQ(in(LSR), 0x60);
    EXPECT_EQ(in(MSR), 0xb0);
}

// --- Transmitting ---

TEST_F(Uart16550Test, BytesLeaveAtOnceAndTheTransmitterStaysEmpty) {
    for (const char c : std::string_view("hello")) out(THR, static_cast<u8>(c));
    EXPECT_EQ(sent(), "hello");
    EXPECT_EQ(in(LSR), kThre | kTemt);
}

TEST_F(Uart16550Test, EnablingEtbeiWithAnEmptyTransmitterInterrupts) {
    out(MCR, kOut2);
    out(IER, kEtbei);
    EXPECT_TRUE(irq());
    EXPECT_EQ(in(IIR), kIirThre);
}

TEST_F(Uart16550Test, ThreInterruptClearsOnIirReadButStaysInLsr) {
    out(MCR, kOut2);
    out(IER, kEtbei);
    EXPECT_EQ(in(IIR), kIirThre);
    EXPECT_EQ(in(IIR), kIirNone);
    EXPECT_FALSE(irq());
    EXPECT_EQ(in(LSR)&kThre, kThre);
}

TEST_F(Uart16550Test, EveryByteMakesANewEdgeEvenWhenIirIsNeverRead) {
    out(MCR, kOut2);
    out(IER, kEtbei);
    rig.wires.edges.clear();
    out(THR, 'a');
    EXPECT_EQ(rig.wires.edges, (Edges{{4, false}, {4, true}}));
}

TEST_F(Uart16550Test, RefusedByteWaitsAndFollowsInOrder) {
    out(FCR, 0x01);
    rig.wire.room = 1;
    for (const char c : std::string_view("abcd")) out(THR, static_cast<u8>(c));
    EXPECT_EQ(sent(), "a");
    EXPECT_EQ(in(LSR) & (kThre | kTemt), 0);
    rig.wire.room = 2;
    uart.transmit_ready();
    EXPECT_EQ(sent(), "abc");
    EXPECT_EQ(in(LSR)&kThre, 0);
    rig.wire.room = 100;
    uart.transmit_ready();
    EXPECT_EQ(sent(), "abcd");
    EXPECT_EQ(in(LSR) & (kThre | kTemt), kThre | kTemt);
}

TEST_F(Uart16550Test, ThreInterruptComesWhenTheWaitingBytesAreGone) {
    out(MCR, kOut2);
    out(FCR, 0x01);
    out(IER, kEtbei);
    (void)in(IIR);
    rig.wire.room = 0;
    out(THR, 'x');
    EXPECT_FALSE(irq());
    rig.wire.room = 1;
    uart.transmit_ready();
    EXPECT_TRUE(irq());
    EXPECT_EQ(in(IIR), kIirThre | kFifosOn);
}

TEST_F(Uart16550Test, SixteenBytesWaitAndOneMoreIsLost) {
    out(FCR, 0x01);
    rig.wire.room = 0;
    for (u8 i = 0; i < 17; ++i) out(THR, static_cast<u8>('a' + i));
    rig.wire.room = 100;
    uart.transmit_ready();
    EXPECT_EQ(sent(), "abcdefghijklmnop");
}

TEST_F(Uart16550Test, ClearTxDropsWaitingBytes) {
    out(FCR, 0x01);
    rig.wire.room = 0;
    out(THR, 'x');
    out(FCR, 0x05);
    EXPECT_EQ(in(LSR)&kThre, kThre);
    rig.wire.room = 100;
    uart.transmit_ready();
    EXPECT_EQ(sent(), "");
}

TEST_F(Uart16550Test, BreakBitReachesTheWire) {
    out(LCR, 0x43);
    out(LCR, 0x03);
    EXPECT_EQ(rig.wire.breaks, (std::vector<bool>{true, false}));
}

// --- Receiving ---

TEST_F(Uart16550Test, WithoutFifosOneCharacterIsTakenAtATime) {
    EXPECT_EQ(uart.receive_room(), 1);
    EXPECT_TRUE(uart.receive('a'));
    EXPECT_EQ(uart.receive_room(), 0);
    EXPECT_FALSE(uart.receive('b'));
    EXPECT_EQ(in(LSR), kThre | kTemt | kDr);
    EXPECT_EQ(in(RBR), 'a');
    EXPECT_EQ(in(LSR), kThre | kTemt);
    EXPECT_TRUE(uart.receive('b'));
    EXPECT_EQ(in(RBR), 'b');
}

TEST_F(Uart16550Test, WithFifosSixteenCharactersAreTaken) {
    out(FCR, 0x01);
    std::array<u8, 20> bytes{};
    std::iota(bytes.begin(), bytes.end(), u8{0});
    EXPECT_EQ(uart.receive(bytes), 16U);
    for (u8 i = 0; i < 16; ++i) EXPECT_EQ(in(RBR), i);
    EXPECT_EQ(in(LSR)&kDr, 0);
    EXPECT_EQ(uart.receive_room(), 16);
}

TEST_F(Uart16550Test, ReadingAnEmptyReceiverGivesZero) {
    EXPECT_EQ(in(RBR), 0);
}

TEST_F(Uart16550Test, DataInterruptFollowsEachTriggerLevel) {
    const std::array<u8, 4> levels = {1, 4, 8, 14};
    for (u8 code = 0; code < 4; ++code) {
        uart.reset();
        out(MCR, kOut2);
        out(IER, kErbfi);
        out(FCR, static_cast<u8>(code << 6 | 0x01));
        for (u8 i = 0; i < levels[code] - 1; ++i) {
            receive("x");
            EXPECT_FALSE(irq()) << "level " << int{levels[code]} << " after " << i + 1;
        }
        receive("x");
        EXPECT_TRUE(irq());
        EXPECT_EQ(in(IIR), kIirData | kFifosOn);
        (void)in(RBR);  // below the level again
        EXPECT_FALSE(irq());
    }
}

TEST_F(Uart16550Test, CharacterTimeoutAfterFourCharacterTimes) {
    set_divisor(1, 0x03);  // 115200 8N1: 10 bits, so 4 characters are 347.2 us
    out(MCR, kOut2);
    out(FCR, 0xc1);
    out(IER, kErbfi);
    receive("x");
    clock.advance(347'000);
    EXPECT_FALSE(irq());
    clock.advance(1'000);
    EXPECT_TRUE(irq());
    EXPECT_EQ(in(IIR), kIirTimeout | kFifosOn);
    EXPECT_EQ(in(RBR), 'x');
    EXPECT_FALSE(irq());
    EXPECT_EQ(in(IIR), kIirNone | kFifosOn);
}

TEST_F(Uart16550Test, EveryArrivalAndEveryReadRestartsTheTimeout) {
    set_divisor(1, 0x03);
    out(MCR, kOut2);
    out(FCR, 0xc1);
    out(IER, kErbfi);
    receive("x");
    clock.advance(300'000);
    receive("y");
    clock.advance(300'000);
    EXPECT_FALSE(irq());
    EXPECT_EQ(in(RBR), 'x');
    clock.advance(300'000);
    EXPECT_FALSE(irq());
    clock.advance(50'000);
    EXPECT_TRUE(irq());
}

TEST_F(Uart16550Test, CharacterTimeoutFollowsTheBaudRateAndFrame) {
    set_divisor(96, 0x1f);  // 1200 baud, 8 bits, parity, 2 stop bits: 12 bits are 10 ms
    out(MCR, kOut2);
    out(FCR, 0xc1);
    out(IER, kErbfi);
    receive("x");
    clock.advance(39'900'000);
    EXPECT_FALSE(irq());
    clock.advance(200'000);
    EXPECT_TRUE(irq());
}

TEST_F(Uart16550Test, NoTimerRunsForAGuestThatPolls) {
    out(FCR, 0xc1);
    receive("x");
    EXPECT_EQ(clock.armed_count(), 0U);
}

TEST_F(Uart16550Test, EmptyFifoNeverTimesOut) {
    out(MCR, kOut2);
    out(FCR, 0xc1);
    out(IER, kErbfi);
    receive("x");
    (void)in(RBR);
    clock.advance(10'000'000'000);
    EXPECT_FALSE(irq());
}

TEST_F(Uart16550Test, ChangingTheModeClearsTheReceiver) {
    receive("a");
    out(FCR, 0x01);
    EXPECT_EQ(in(LSR)&kDr, 0);
    receive("bc");
    out(FCR, 0x00);
    EXPECT_EQ(in(LSR)&kDr, 0);
    EXPECT_EQ(in(IIR), kIirNone);
}

TEST_F(Uart16550Test, FcrBitsCountOnlyWhenFifosAreEnabled) {
    out(FCR, 0xc6);
    EXPECT_EQ(in(IIR), kIirNone);
    receive("a");
    out(FCR, 0x02);  // clear without enable: nothing
    EXPECT_EQ(in(LSR)&kDr, kDr);
}

TEST_F(Uart16550Test, BreakIsAZeroCharacterThatRaisesTheLineStatusInterrupt) {
    out(MCR, kOut2);
    out(IER, kElsi);
    uart.receive_break();
    EXPECT_TRUE(irq());
    EXPECT_EQ(in(IIR), kIirLine);
    EXPECT_EQ(in(LSR), kThre | kTemt | kDr | kBi);
    EXPECT_FALSE(irq());
    EXPECT_EQ(in(LSR), kThre | kTemt | kDr);
    EXPECT_EQ(in(RBR), 0);
}

TEST_F(Uart16550Test, BreakInTheFifoIsRevealedAtTheTop) {
    out(FCR, 0x01);
    receive("a");
    uart.receive_break();
    receive("b");
    EXPECT_EQ(in(LSR), kThre | kTemt | kDr | kFifoError);
    EXPECT_EQ(in(RBR), 'a');
    EXPECT_EQ(in(LSR), kThre | kTemt | kDr | kBi | kFifoError);
    EXPECT_EQ(in(LSR), kThre | kTemt | kDr);
    EXPECT_EQ(in(RBR), 0);
    EXPECT_EQ(in(RBR), 'b');
    EXPECT_EQ(in(LSR), kThre | kTemt);
}

TEST_F(Uart16550Test, BreakIntoAFullFifoIsAnOverrun) {
    out(FCR, 0x01);
    receive("0123456789abcdef");
    uart.receive_break();
    EXPECT_EQ(in(LSR), kThre | kTemt | kDr | kOe);
    EXPECT_EQ(in(LSR), kThre | kTemt | kDr);
    for (const char c : std::string_view("0123456789abcdef")) EXPECT_EQ(in(RBR), c);
}

TEST_F(Uart16550Test, RtsHoldsTheHostBackWhenFlowControlIsOn) {
    Uart16550 flowing(IrqLine::detached(), rig.wire, clock, clock, FlowControl::RtsCts);
    EXPECT_EQ(flowing.receive_room(), 0);
    EXPECT_FALSE(flowing.receive('a'));
    const std::array<std::byte, 1> rts{std::byte{0x02}};
    EXPECT_EQ(flowing.write(MCR, rts), IoStatus::Ok);
    EXPECT_EQ(flowing.receive_room(), 1);
}

// --- Interrupt priorities and gate ---

TEST_F(Uart16550Test, InterruptsAreReportedInOrderOfPriority) {
    out(MCR, kOut2);
    out(FCR, 0x01);
    out(IER, kErbfi | kEtbei | kElsi | kEdssi);
    uart.set_modem_inputs({.cts = false});
    uart.receive_break();
    EXPECT_EQ(in(IIR), kIirLine | kFifosOn);
    (void)in(LSR);
    EXPECT_EQ(in(IIR), kIirData | kFifosOn);
    (void)in(RBR);
    EXPECT_EQ(in(IIR), kIirThre | kFifosOn);
    EXPECT_EQ(in(IIR), kIirModem | kFifosOn);
    (void)in(MSR);
    EXPECT_EQ(in(IIR), kIirNone | kFifosOn);
    EXPECT_FALSE(irq());
}

TEST_F(Uart16550Test, ReadingIirClearsThreOnlyWhenItReportsThre) {
    out(IER, kErbfi | kEtbei);
    receive("a");
    EXPECT_EQ(in(IIR), kIirData);
    (void)in(RBR);
    EXPECT_EQ(in(IIR), kIirThre);
}

TEST_F(Uart16550Test, Out2GatesTheInterruptLine) {
    out(IER, kErbfi);
    receive("a");
    EXPECT_FALSE(irq());
    out(MCR, kOut2);
    EXPECT_TRUE(irq());
    out(MCR, kOut2 | kLoop);  // loopback forces the pin inactive
    EXPECT_FALSE(irq());
}

// --- Modem control ---

TEST_F(Uart16550Test, ModemInputsShowWithTheirDeltas) {
    uart.set_modem_inputs({.cts = false, .dsr = false, .ri = false, .dcd = false});
    EXPECT_EQ(in(MSR), 0x0b);
    EXPECT_EQ(in(MSR), 0x00);
    uart.set_modem_inputs({.cts = true, .dsr = false, .ri = true, .dcd = false});
    EXPECT_EQ(in(MSR), 0x51);  // RI beginning is no event
    uart.set_modem_inputs({.cts = true, .dsr = false, .ri = false, .dcd = false});
    EXPECT_EQ(in(MSR), 0x14);  // RI ending is
}

TEST_F(Uart16550Test, ModemStatusInterruptClearsOnMsrRead) {
    out(MCR, kOut2);
    out(IER, kEdssi);
    uart.set_modem_inputs({.dcd = false});
    EXPECT_TRUE(irq());
    EXPECT_EQ(in(IIR), kIirModem);
    (void)in(MSR);
    EXPECT_FALSE(irq());
}

TEST_F(Uart16550Test, DtrAndRtsReachTheWire) {
    out(MCR, 0x01);
    EXPECT_TRUE(rig.wire.dtr);
    EXPECT_FALSE(rig.wire.rts);
    out(MCR, 0x03);
    EXPECT_TRUE(rig.wire.rts);
    out(MCR, 0x13);
    EXPECT_FALSE(rig.wire.dtr);
    EXPECT_FALSE(rig.wire.rts);
}

TEST_F(Uart16550Test, ModemInputsSurviveReset) {
    uart.set_modem_inputs({.cts = false});
    uart.reset();
    EXPECT_EQ(in(MSR), 0xa0);
}

// --- Loopback ---

TEST_F(Uart16550Test, LoopbackConnectsOutputsToInputs) {
    // What Linux probes with: LOOP | OUT2 | RTS must read DCD | CTS.
    out(MCR, kLoop | 0x0a);
    EXPECT_EQ(in(MSR) & 0xf0, 0x90);
    out(MCR, kLoop | 0x05);
    EXPECT_EQ(in(MSR) & 0xf0, 0x60);
    out(MCR, kLoop);
    EXPECT_EQ(in(MSR) & 0xf4, 0x04);  // RI ended
    out(MCR, 0);
    EXPECT_EQ(in(MSR) & 0xf0, 0xb0);
}

TEST_F(Uart16550Test, LoopbackReturnsBytesAndSendsNone) {
    out(FCR, 0x01);
    out(MCR, kLoop);
    out(THR, 0xae);
    EXPECT_EQ(in(LSR), kThre | kTemt | kDr);
    EXPECT_EQ(in(RBR), 0xae);
    EXPECT_TRUE(rig.wire.bytes.empty());
    EXPECT_EQ(uart.receive_room(), 0);
}

TEST_F(Uart16550Test, LoopbackOverrunWithoutFifosKeepsTheNewCharacter) {
    out(MCR, kLoop);
    out(THR, 'a');
    out(THR, 'b');
    EXPECT_EQ(in(LSR), kThre | kTemt | kDr | kOe);
    EXPECT_EQ(in(RBR), 'b');
}

TEST_F(Uart16550Test, LoopbackOverrunWithFifosKeepsTheOldCharacters) {
    out(FCR, 0x01);
    out(MCR, kLoop);
    for (u8 i = 0; i < 17; ++i) out(THR, i);
    EXPECT_EQ(in(LSR)&kOe, kOe);
    for (u8 i = 0; i < 16; ++i) EXPECT_EQ(in(RBR), i);
    EXPECT_EQ(in(LSR)&kDr, 0);
}

TEST_F(Uart16550Test, LoopbackReturnsABreak) {
    out(MCR, kLoop);
    out(LCR, 0x43);
    EXPECT_EQ(in(LSR)&kBi, kBi);
    EXPECT_TRUE(rig.wire.breaks.empty());
}

// --- Snapshots ---

class Uart16550LoadTest : public Uart16550Test {
protected:
    Status load(const testing_rig::Saved& bad) { return testing_rig::load(rig, bad); }
    testing_rig::Saved state() { return testing_rig::saved(rig); }
};

TEST_F(Uart16550LoadTest, OversizedOrOddFifoIsRefusedAndStateKept) {
    for (const std::size_t size : {std::size_t{4}, std::size_t{34}, std::size_t{3}}) {
        auto bad = state();
        bad.blobs[14].assign(size, 0);
        EXPECT_FALSE(load(bad)) << size;
        EXPECT_EQ(in(LSR), 0x60);
    }
}

TEST_F(Uart16550LoadTest, ImpossibleErrorBitsAreRefused) {
    auto bad = state();
    bad.blobs[14] = {'a', 0x01};
    EXPECT_FALSE(load(bad));
}

TEST_F(Uart16550LoadTest, RegisterWiderThanEightBitsIsRefused) {
    auto bad = state();
    bad.numbers[8] = 0x1ff;
    EXPECT_FALSE(load(bad));
}

TEST_F(Uart16550LoadTest, PendingTimeoutGoesOnAfterALoad) {
    set_divisor(1, 0x03);
    out(MCR, kOut2);
    out(FCR, 0xc1);
    out(IER, kErbfi);
    receive("x");
    UartRig other;
    ASSERT_TRUE(testing_rig::load(other, state()));
    other.clock.advance(400'000);
    EXPECT_TRUE(other.wires.levels[4]);
}

}  // namespace
}  // namespace tessera::uart16550
