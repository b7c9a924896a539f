#include "devices/i8042/i8042.h"

#include <array>
#include <gtest/gtest.h>
#include <vector>

#include "devices/i8042/i8042_rig.h"
#include "devices/testing/device_suite.h"

TESSERA_JOIN_DEVICE_SUITE(I8042, tessera::i8042::I8042Rig);

namespace tessera::i8042 {
namespace {

using Bytes = std::vector<u8>;
constexpr u8 kObf = 0x01, kSys = 0x04, kCmd = 0x08, kAux = 0x20;
constexpr u64 kMs = 1'000'000;

// USB HID usages.
constexpr u8 kA = 0x04, kB = 0x05, kF7 = 0x40, kPrintScreen = 0x46, kPause = 0x48, kHome = 0x4a, kUp = 0x52,
             kKpEnter = 0x58, kLeftCtrl = 0xe0, kLeftShift = 0xe1, kLeftAlt = 0xe2, kRightAlt = 0xe6,
             kHangul = 0x90;

class I8042Test : public testing::Test {
protected:
    static u8 in(IoDevice& port) {
        std::array<std::byte, 1> buffer{std::byte{0xff}};
        EXPECT_EQ(port.read(0, buffer), IoStatus::Ok);
        return std::to_integer<u8>(buffer[0]);
    }
    static void out(IoDevice& port, u8 value) {
        const std::array<std::byte, 1> buffer{std::byte{value}};
        EXPECT_EQ(port.write(0, buffer), IoStatus::Ok);
    }
    u8 status() { return in(kbc.command_port()); }
    u8 data() { return in(kbc.data_port()); }
    void command(u8 value) { out(kbc.command_port(), value); }
    void send(u8 value) { out(kbc.data_port(), value); }
    void send_mouse(u8 value) {
        command(0xd4);
        send(value);
    }
    // All that waits, whoever it is from.
    Bytes read_all() {
        Bytes bytes;
        while ((status() & kObf) != 0 && bytes.size() < 100) bytes.push_back(data());
        return bytes;
    }
    Bytes keyboard(std::initializer_list<u8> bytes) {
        for (const u8 byte : bytes) send(byte);
        return read_all();
    }
    Bytes mouse(std::initializer_list<u8> bytes) {
        Bytes answers;
        for (const u8 byte : bytes) {
            send_mouse(byte);
            for (const u8 answer : read_all()) answers.push_back(answer);
        }
        return answers;
    }
    void set_command_byte(u8 value) {
        command(0x60);
        send(value);
    }
    void press(u8 usage) { EXPECT_TRUE(kbc.key(usage, KeyAction::Press)); }
    void release(u8 usage) { EXPECT_TRUE(kbc.key(usage, KeyAction::Release)); }
    Bytes tap(u8 usage) {
        press(usage);
        Bytes bytes = read_all();
        release(usage);
        for (const u8 byte : read_all()) bytes.push_back(byte);
        return bytes;
    }
    [[nodiscard]] bool irq1() const { return rig.wires.levels[1]; }
    [[nodiscard]] bool irq12() const { return rig.wires.levels[12]; }

    I8042Rig rig;
    I8042& kbc = rig.device;
    FakeClock& clock = rig.clock;
};

// --- Controller ---

TEST_F(I8042Test, StartsAsFirmwareLeavesIt) {
    EXPECT_EQ(status(), 0x14);  // tested, not locked, nothing to read
    command(0x20);
    EXPECT_EQ(data(), 0x65);  // keyboard interrupt, system flag, mouse off, translating
    EXPECT_FALSE(irq1());
}

TEST_F(I8042Test, SelfAndInterfaceTestsPassAtOnce) {
    command(0xaa);
    EXPECT_EQ(status() & (kObf | kCmd | kSys), kObf | kCmd | kSys);
    EXPECT_EQ(data(), 0x55);
    command(0xab);
    EXPECT_EQ(data(), 0x00);
    command(0xa9);
    EXPECT_EQ(data(), 0x00);
    command(0xa4);
    EXPECT_EQ(data(), 0xf1);
}

TEST_F(I8042Test, CommandByteAndRamReadBack) {
    set_command_byte(0xff);
    command(0x20);
    EXPECT_EQ(data(), 0x77);
    command(0x7f);
    send(0xa5);
    command(0x3f);
    EXPECT_EQ(data(), 0xa5);
}

TEST_F(I8042Test, StatusSaysWhichPortWasWrittenLast) {
    command(0xae);
    EXPECT_EQ(status() & kCmd, kCmd);
    send(0xf4);
    EXPECT_EQ(status() & kCmd, 0);
}

TEST_F(I8042Test, DisableAndEnableCommandsShowInTheCommandByte) {
    command(0xad);
    command(0xa8);
    command(0x20);
    EXPECT_EQ(data(), 0x55);
    command(0xae);
    command(0xa7);
    command(0x20);
    EXPECT_EQ(data(), 0x65);
}

TEST_F(I8042Test, KeyboardBytesInterruptOncePerByte) {
    rig.wires.edges.clear();
    press(kUp);  // two bytes
    EXPECT_TRUE(irq1());
    EXPECT_EQ(data(), 0xe0);
    EXPECT_TRUE(irq1());
    EXPECT_EQ(data(), 0x48);
    EXPECT_FALSE(irq1());
    const std::vector<testing_rig::RecordingSink::Edge> expected = {
        {1, true}, {1, false}, {1, true}, {1, false}};
    EXPECT_EQ(rig.wires.edges, expected);
}

TEST_F(I8042Test, InterruptsFollowTheCommandByte) {
    set_command_byte(0x40);
    press(kA);
    EXPECT_FALSE(irq1());
    EXPECT_EQ(status() & kObf, kObf);
    set_command_byte(0x41);
    EXPECT_TRUE(irq1());
}

TEST_F(I8042Test, DisabledKeyboardKeepsItsBytes) {
    command(0xad);
    press(kA);
    EXPECT_EQ(status() & kObf, 0);
    command(0xae);
    EXPECT_EQ(read_all(), Bytes{0x1e});
}

TEST_F(I8042Test, SendingToTheKeyboardEnablesIt) {
    command(0xad);
    send(0xee);
    EXPECT_EQ(data(), 0xee);
    command(0x20);
    EXPECT_EQ(data() & 0x10, 0);
}

TEST_F(I8042Test, LoopedBytesAppearAsTheirDevices) {
    set_command_byte(0x47);
    command(0xd2);
    send(0x5a);
    EXPECT_TRUE(irq1());
    EXPECT_EQ(status() & (kObf | kAux), kObf);
    EXPECT_EQ(data(), 0x5a);
    // What Linux checks a mouse port with.
    command(0xd3);
    send(0xa5);
    EXPECT_TRUE(irq12());
    EXPECT_FALSE(irq1());
    EXPECT_EQ(status() & (kObf | kAux), kObf | kAux);
    EXPECT_EQ(data(), 0xa5);
    EXPECT_FALSE(irq12());
}

TEST_F(I8042Test, InputPortCanBeReadAndPolled) {
    command(0xc0);
    const u8 port = data();
    EXPECT_EQ(port & 0x80, 0x80);  // not locked
    command(0xc1);
    EXPECT_EQ(status() & 0xf0, (port << 4) & 0xf0);
    command(0xc2);
    EXPECT_EQ(status() & 0xf0, port & 0xf0);
    command(0xae);
    EXPECT_EQ(status() & 0xf0, 0x10);
}

TEST_F(I8042Test, OutputPortCarriesA20AndBufferState) {
    rig.a20.set_a20(A20Driver::Port92, false);
    command(0xd0);
    EXPECT_EQ(data() & 0x03, 0x03);
    command(0xd1);
    send(0xdd);
    EXPECT_FALSE(rig.a20.enabled());
    command(0xd0);
    EXPECT_EQ(data() & 0x03, 0x01);
    command(0xdf);
    EXPECT_TRUE(rig.a20.enabled());
    command(0xdd);
    EXPECT_FALSE(rig.a20.enabled());
    command(0xd1);
    send(0xdf);
    EXPECT_TRUE(rig.a20.enabled());
    EXPECT_TRUE(rig.machine.resets.empty());
}

TEST_F(I8042Test, PulsingLineZeroResetsTheMachine) {
    command(0xfe);
    EXPECT_EQ(rig.machine.resets, std::vector{ResetSource::KeyboardController});
    command(0xff);  // pulses nothing
    command(0xfd);
    EXPECT_EQ(rig.machine.resets.size(), 1U);
}

TEST_F(I8042Test, DrivingTheResetBitLowResetsTheMachine) {
    command(0xd1);
    send(0xde);
    EXPECT_EQ(rig.machine.resets, std::vector{ResetSource::KeyboardController});
}

TEST_F(I8042Test, PasswordIsTakenUpToItsZero) {
    command(0xa5);
    for (const u8 byte : {u8{0x1e}, u8{0x30}, u8{0}}) send(byte);
    EXPECT_EQ(read_all(), Bytes{});
    EXPECT_EQ(keyboard({0xee}), Bytes{0xee});
}

TEST_F(I8042Test, EmptyBufferShowsItsLastByte) {
    command(0xaa);
    EXPECT_EQ(data(), 0x55);
    EXPECT_EQ(data(), 0x55);
}

TEST_F(I8042Test, WiderAccessesAreRefused) {
    std::array<std::byte, 2> buffer{};
    EXPECT_EQ(kbc.data_port().read(0, buffer), IoStatus::BadWidth);
    EXPECT_EQ(kbc.command_port().write(0, buffer), IoStatus::BadWidth);
    EXPECT_EQ(kbc.data_port().read(1, std::span(buffer).first(1)), IoStatus::NoRegister);
}

// --- Keyboard commands ---

TEST_F(I8042Test, KeyboardResetsWithItsSelfTestResult) {
    EXPECT_EQ(keyboard({0xff}), (Bytes{0xfa, 0xaa}));
}

TEST_F(I8042Test, KeyboardIdentifiesItself) {
    EXPECT_EQ(keyboard({0xf2}), (Bytes{0xfa, 0xab, 0x41}));  // 83 through the translation
    set_command_byte(0x01);
    EXPECT_EQ(keyboard({0xf2}), (Bytes{0xfa, 0xab, 0x83}));
}

TEST_F(I8042Test, KeyboardEchoesAndAsksAgain) {
    EXPECT_EQ(keyboard({0xee}), Bytes{0xee});
    EXPECT_EQ(keyboard({0xf1}), Bytes{0xfe});  // no such command
    EXPECT_EQ(keyboard({0x12}), Bytes{0xfe});
}

TEST_F(I8042Test, ResendRepeatsTheLastByte) {
    EXPECT_EQ(tap(kA), (Bytes{0x1e, 0x9e}));
    set_command_byte(0x01);
    EXPECT_EQ(keyboard({0xfe}), Bytes{0x1c});
}

TEST_F(I8042Test, LedsAreSetInTwoSteps) {
    EXPECT_EQ(keyboard({0xed, 0x05}), (Bytes{0xfa, 0xfa}));
    EXPECT_EQ(kbc.leds(), 0x05);
}

TEST_F(I8042Test, CommandInPlaceOfAnArgumentStartsAnew) {
    EXPECT_EQ(keyboard({0xed}), Bytes{0xfa});
    EXPECT_EQ(keyboard({0xf4}), Bytes{0xfa});
    EXPECT_EQ(kbc.leds(), 0);
}

TEST_F(I8042Test, ScanSetCanBeAskedAndChosen) {
    set_command_byte(0x01);
    EXPECT_EQ(keyboard({0xf0, 0x00}), (Bytes{0xfa, 0xfa, 0x02}));
    EXPECT_EQ(keyboard({0xf0, 0x03}), (Bytes{0xfa, 0xfa}));
    EXPECT_EQ(keyboard({0xf0, 0x00}), (Bytes{0xfa, 0xfa, 0x03}));
    EXPECT_EQ(keyboard({0xf0, 0x04}), (Bytes{0xfa, 0xfe}));
}

TEST_F(I8042Test, DisabledScanningSendsNothing) {
    EXPECT_EQ(keyboard({0xf5}), Bytes{0xfa});
    EXPECT_EQ(tap(kA), Bytes{});
    EXPECT_EQ(keyboard({0xf4}), Bytes{0xfa});
    EXPECT_EQ(tap(kA), (Bytes{0x1e, 0x9e}));
}

// --- Scan codes ---

TEST_F(I8042Test, TranslatedKeysAreSetOne) {
    EXPECT_EQ(tap(kA), (Bytes{0x1e, 0x9e}));
    EXPECT_EQ(tap(kF7), (Bytes{0x41, 0xc1}));
    EXPECT_EQ(tap(kHome), (Bytes{0xe0, 0x47, 0xe0, 0xc7}));
    EXPECT_EQ(tap(kKpEnter), (Bytes{0xe0, 0x1c, 0xe0, 0x9c}));
    EXPECT_EQ(tap(kRightAlt), (Bytes{0xe0, 0x38, 0xe0, 0xb8}));
    EXPECT_EQ(tap(kLeftShift), (Bytes{0x2a, 0xaa}));
    EXPECT_EQ(tap(kPause), (Bytes{0xe1, 0x1d, 0x45, 0xe1, 0x9d, 0xc5}));
    EXPECT_EQ(tap(kPrintScreen), (Bytes{0xe0, 0x2a, 0xe0, 0x37, 0xe0, 0xb7, 0xe0, 0xaa}));
    EXPECT_EQ(tap(kHangul), Bytes{0xf2});
}

TEST_F(I8042Test, UntranslatedKeysAreSetTwo) {
    set_command_byte(0x01);
    EXPECT_EQ(tap(kA), (Bytes{0x1c, 0xf0, 0x1c}));
    EXPECT_EQ(tap(kF7), (Bytes{0x83, 0xf0, 0x83}));
    EXPECT_EQ(tap(kHome), (Bytes{0xe0, 0x6c, 0xe0, 0xf0, 0x6c}));
    EXPECT_EQ(tap(kPause), (Bytes{0xe1, 0x14, 0x77, 0xe1, 0xf0, 0x14, 0xf0, 0x77}));
    EXPECT_EQ(tap(kPrintScreen), (Bytes{0xe0, 0x12, 0xe0, 0x7c, 0xe0, 0xf0, 0x7c, 0xe0, 0xf0, 0x12}));
}

TEST_F(I8042Test, SetOneFromTheKeyboardEqualsTheTranslation) {
    std::vector<Bytes> translated;
    for (unsigned usage = 0; usage < 256; ++usage)
        if (find_key(static_cast<u8>(usage)) != nullptr) translated.push_back(tap(static_cast<u8>(usage)));
    set_command_byte(0x01);
    EXPECT_EQ(keyboard({0xf0, 0x01}), (Bytes{0xfa, 0xfa}));
    std::size_t i = 0;
    for (unsigned usage = 0; usage < 256; ++usage)
        if (find_key(static_cast<u8>(usage)) != nullptr)
            EXPECT_EQ(tap(static_cast<u8>(usage)), translated[i++]) << usage;
}

TEST_F(I8042Test, SetThreeKeysBehaveByTheirType) {
    set_command_byte(0x01);
    (void)keyboard({0xf0, 0x03});
    EXPECT_EQ(tap(kA), Bytes{0x1c});
    EXPECT_EQ(tap(kLeftShift), (Bytes{0x12, 0xf0, 0x12}));
    EXPECT_EQ(tap(kUp), Bytes{0x63});
    EXPECT_EQ(keyboard({0xfa}), Bytes{0xfa});  // all keys typematic, make and break
    EXPECT_EQ(tap(kA), (Bytes{0x1c, 0xf0, 0x1c}));
    EXPECT_EQ(keyboard({0xfd, 0x1c, 0xf4}),
              (Bytes{0xfa, 0xfa}));  // only A: make; Enable drops an unread answer
    EXPECT_EQ(tap(kA), Bytes{0x1c});
    EXPECT_EQ(tap(kB), (Bytes{0x32, 0xf0, 0x32}));
}

TEST_F(I8042Test, ModifiersChangePrintScreenAndPause) {
    press(kLeftAlt);
    (void)read_all();
    EXPECT_EQ(tap(kPrintScreen), (Bytes{0x54, 0xd4}));
    release(kLeftAlt);
    (void)read_all();
    press(kLeftCtrl);
    (void)read_all();
    EXPECT_EQ(tap(kPrintScreen), (Bytes{0xe0, 0x37, 0xe0, 0xb7}));
    EXPECT_EQ(tap(kPause), (Bytes{0xe0, 0x46, 0xe0, 0xc6}));
}

TEST_F(I8042Test, UnknownKeysAreRefused) {
    EXPECT_FALSE(kbc.key(0x00, KeyAction::Press));
    EXPECT_FALSE(kbc.key(0xff, KeyAction::Press));
    EXPECT_EQ(read_all(), Bytes{});
}

TEST_F(I8042Test, HeldKeyRepeatsByTheTypematicSetting) {
    press(kA);
    EXPECT_EQ(read_all(), Bytes{0x1e});
    clock.advance(499 * kMs);
    EXPECT_EQ(read_all(), Bytes{});
    clock.advance(1 * kMs);
    EXPECT_EQ(read_all(), Bytes{0x1e});
    clock.advance(91 * kMs);
    EXPECT_EQ(read_all(), Bytes{});
    clock.advance(1 * kMs);
    EXPECT_EQ(read_all(), Bytes{0x1e});
    release(kA);
    EXPECT_EQ(read_all(), Bytes{0x9e});
    clock.advance(2000 * kMs);
    EXPECT_EQ(read_all(), Bytes{});
}

TEST_F(I8042Test, FastestTypematicSettingIs250MsAnd30ASecond) {
    EXPECT_EQ(keyboard({0xf3, 0x00}), (Bytes{0xfa, 0xfa}));
    press(kA);
    EXPECT_EQ(read_all(), Bytes{0x1e});
    unsigned repeats = 0;
    for (unsigned ms = 0; ms < 1250; ++ms) {
        clock.advance(kMs);
        repeats += static_cast<unsigned>(read_all().size());
    }
    EXPECT_NEAR(repeats, 30, 1);
}

TEST_F(I8042Test, HostRepeatsAreNotSentTwice) {
    press(kA);
    press(kA);
    press(kA);
    EXPECT_EQ(read_all(), Bytes{0x1e});
    release(kA);
    release(kA);
    EXPECT_EQ(read_all(), Bytes{0x9e});
}

TEST_F(I8042Test, RepeatsDoNotPileUpForAGuestThatDoesNotRead) {
    press(kA);
    clock.advance(60'000 * kMs);
    EXPECT_LE(read_all().size(), 3U);
}

TEST_F(I8042Test, OverrunIsMarkedOnce) {
    set_command_byte(0x01);
    for (u8 usage = 0x04; usage < 0x1e; ++usage) press(usage);  // 26 letters
    const Bytes bytes = read_all();
    EXPECT_EQ(bytes.size(), 18U);  // one in the controller, sixteen in the keyboard, the mark
    EXPECT_EQ(bytes.back(), 0x00);
    EXPECT_EQ(tap(0x27), (Bytes{0x45, 0xf0, 0x45}));
}

// --- Mouse ---

class I8042MouseTest : public I8042Test {
protected:
    void SetUp() override { set_command_byte(0x47); }
    void enable() { EXPECT_EQ(mouse({0xf4}), Bytes{0xfa}); }
    void unlock_wheel() { (void)mouse({0xf3, 200, 0xf3, 100, 0xf3, 80}); }
};

TEST_F(I8042MouseTest, ResetAnswersSelfTestAndId) {
    EXPECT_EQ(mouse({0xff}), (Bytes{0xfa, 0xaa, 0x00}));
    EXPECT_EQ(mouse({0xf2}), (Bytes{0xfa, 0x00}));
}

TEST_F(I8042MouseTest, AnswersComeAsMouseBytesWithIrq12) {
    send_mouse(0xf4);
    EXPECT_TRUE(irq12());
    EXPECT_FALSE(irq1());
    EXPECT_EQ(status() & (kObf | kAux), kObf | kAux);
}

TEST_F(I8042MouseTest, StatusShowsSettingsAndButtons) {
    EXPECT_EQ(mouse({0xe9}), (Bytes{0xfa, 0x00, 0x02, 100}));
    (void)mouse({0xe7, 0xe8, 0x03, 0xf3, 40, 0xf4});
    kbc.mouse_buttons(0x01);
    (void)read_all();
    EXPECT_EQ(mouse({0xe9}), (Bytes{0xfa, 0x34, 0x03, 40}));
}

TEST_F(I8042MouseTest, MovementMakesPackets) {
    enable();
    kbc.mouse_move(5, 3, 0);  // right and down
    EXPECT_EQ(read_all(), (Bytes{0x28, 5, 0xfd}));
    kbc.mouse_move(-5, -3, 0);
    EXPECT_EQ(read_all(), (Bytes{0x18, 0xfb, 3}));
}

TEST_F(I8042MouseTest, ButtonsMakePackets) {
    enable();
    kbc.mouse_buttons(0x05);
    EXPECT_EQ(read_all(), (Bytes{0x0d, 0, 0}));
    kbc.mouse_buttons(0x05);
    EXPECT_EQ(read_all(), Bytes{});
    kbc.mouse_buttons(0);
    EXPECT_EQ(read_all(), (Bytes{0x08, 0, 0}));
}

TEST_F(I8042MouseTest, MovementAddsUpWhileNobodyReadsAndLosesNothing) {
    enable();
    kbc.mouse_move(1, 0, 0);  // this one is on its way
    for (unsigned i = 0; i < 100; ++i) kbc.mouse_move(6, 0, 0);
    const Bytes bytes = read_all();
    ASSERT_EQ(bytes.size() % 3, 0U);
    int x = 0;
    for (std::size_t i = 0; i < bytes.size(); i += 3) {
        EXPECT_EQ(bytes[i] & 0xc0, 0) << "overflow";
        x += bytes[i + 1] - ((bytes[i] & 0x10) != 0 ? 256 : 0);
    }
    EXPECT_EQ(x, 601);
    EXPECT_LE(bytes.size(), 12U);
}

TEST_F(I8042MouseTest, NothingIsReportedBeforeEnable) {
    kbc.mouse_move(5, 5, 0);
    kbc.mouse_buttons(1);
    EXPECT_EQ(read_all(), Bytes{});
    enable();
    EXPECT_EQ(read_all(), Bytes{});
}

TEST_F(I8042MouseTest, WheelIsUnlockedByThreeRates) {
    unlock_wheel();
    EXPECT_EQ(mouse({0xf2}), (Bytes{0xfa, 0x03}));
    enable();
    kbc.mouse_move(0, 0, 1);  // away from the user
    EXPECT_EQ(read_all(), (Bytes{0x08, 0, 0, 0xff}));
    kbc.mouse_move(0, 0, -2);
    EXPECT_EQ(read_all(), (Bytes{0x08, 0, 0, 2}));
}

TEST_F(I8042MouseTest, FiveButtonsAreUnlockedAfterTheWheel) {
    unlock_wheel();
    (void)mouse({0xf3, 200, 0xf3, 200, 0xf3, 80});
    EXPECT_EQ(mouse({0xf2}), (Bytes{0xfa, 0x04}));
    enable();
    kbc.mouse_buttons(0x18);
    EXPECT_EQ(read_all(), (Bytes{0x08, 0, 0, 0x30}));
    kbc.mouse_move(0, 0, 1);
    EXPECT_EQ(read_all(), (Bytes{0x08, 0, 0, 0x3f}));
}

TEST_F(I8042MouseTest, FiveButtonsAreNotUnlockedFromAPlainMouse) {
    (void)mouse({0xf3, 200, 0xf3, 200, 0xf3, 80});
    EXPECT_EQ(mouse({0xf2}), (Bytes{0xfa, 0x00}));
}

TEST_F(I8042MouseTest, ResetLocksTheWheelAgain) {
    unlock_wheel();
    EXPECT_EQ(mouse({0xff}), (Bytes{0xfa, 0xaa, 0x00}));
    EXPECT_EQ(mouse({0xf2}), (Bytes{0xfa, 0x00}));
}

TEST_F(I8042MouseTest, RemoteModeReportsOnlyWhenAsked) {
    (void)mouse({0xf0, 0xf4});
    kbc.mouse_move(7, 0, 0);
    EXPECT_EQ(read_all(), Bytes{});
    EXPECT_EQ(mouse({0xeb}), (Bytes{0xfa, 0x08, 7, 0}));
    EXPECT_EQ(mouse({0xeb}), (Bytes{0xfa, 0x08, 0, 0}));
}

TEST_F(I8042MouseTest, WrapModeEchoesAllButItsEndAndReset) {
    EXPECT_EQ(mouse({0xee}), Bytes{0xfa});
    EXPECT_EQ(mouse({0x12, 0xf4}), (Bytes{0x12, 0xf4}));
    EXPECT_EQ(mouse({0xec}), Bytes{0xfa});
    EXPECT_EQ(mouse({0xf2}), (Bytes{0xfa, 0x00}));
}

TEST_F(I8042MouseTest, ScalingDoublesByItsTable) {
    (void)mouse({0xe7, 0xf4});
    const std::array<std::pair<int, u8>, 7> table = {
        {{1, 1}, {2, 1}, {3, 3}, {4, 6}, {5, 9}, {6, 12}, {100, 200}}};
    for (const auto& [counts, shown] : table) {
        kbc.mouse_move(counts, 0, 0);
        EXPECT_EQ(read_all(), (Bytes{0x08, shown, 0})) << counts;
    }
}

TEST_F(I8042MouseTest, BadBytesAreAskedForAgainThenRefused) {
    EXPECT_EQ(mouse({0x12, 0x12}), (Bytes{0xfe, 0xfc}));
    EXPECT_EQ(mouse({0xe8, 0x09, 0x01}), (Bytes{0xfa, 0xfe, 0xfa}));
    EXPECT_EQ(mouse({0xe9}), (Bytes{0xfa, 0x00, 0x01, 100}));
}

TEST_F(I8042MouseTest, ResendRepeatsTheWholeAnswer) {
    EXPECT_EQ(mouse({0xe9}), (Bytes{0xfa, 0x00, 0x02, 100}));
    EXPECT_EQ(mouse({0xfe}), (Bytes{0xfa, 0x00, 0x02, 100}));
}

TEST_F(I8042MouseTest, DisabledPortKeepsPackets) {
    enable();
    command(0xa7);
    kbc.mouse_move(5, 0, 0);
    EXPECT_EQ(status() & kObf, 0);
    command(0xa8);
    EXPECT_EQ(read_all(), (Bytes{0x08, 5, 0}));
}

TEST_F(I8042MouseTest, ExtremeMovementIsBounded) {
    enable();
    for (unsigned i = 0; i < 10; ++i) kbc.mouse_move(INT32_MIN, INT32_MIN, INT32_MIN);
    kbc.mouse_move(INT32_MAX, INT32_MAX, INT32_MAX);
    EXPECT_FALSE(read_all().empty());
}

// --- Snapshots ---

TEST_F(I8042Test, HostileSnapshotsAreRefused) {
    const auto good = testing_rig::saved(rig);
    const auto refused = [&](auto change) {
        auto bad = good;
        change(bad);
        return !testing_rig::load(rig, bad).has_value();
    };
    EXPECT_TRUE(refused([](auto& s) { s.blobs[1].resize(31); }));
    EXPECT_TRUE(refused([](auto& s) { s.blobs[1][0] = 0x88; }));
    EXPECT_TRUE(refused([](auto& s) { s.numbers[3] = 4; }));
    EXPECT_TRUE(refused([](auto& s) { s.numbers[101] = 0; }));
    EXPECT_TRUE(refused([](auto& s) { s.blobs[109].resize(9); }));
    EXPECT_TRUE(refused([](auto& s) { s.blobs[112][0] = 4; }));
    EXPECT_TRUE(refused([](auto& s) { s.numbers[206] = 1; }));
    EXPECT_TRUE(refused([](auto& s) { s.numbers[211] = 0x7fff'ffff; }));
    EXPECT_EQ(good, testing_rig::saved(rig));
}

}  // namespace
}  // namespace tessera::i8042
