// The PS/2 keyboard controller's ports and commands, as [PS2-TRM] "Keyboard/Auxiliary Device Controller"
// prints them. Nothing but the specification.
#pragma once

#include "base/types.h"

namespace tessera::i8042 {

// Port 0x64, read.
enum class StatusBit : u8 {
    OutputFull = 1 << 0,
    InputFull = 1 << 1,
    SystemFlag = 1 << 2,
    CommandLast = 1 << 3,  // the last write went to port 0x64
    NotLocked = 1 << 4,
    AuxOutputFull = 1 << 5,
    TimeOut = 1 << 6,
    ParityError = 1 << 7,
};

// Controller command byte: byte 0 of the controller's RAM.
enum class CommandByte : u8 {
    KeyboardInterrupt = 1 << 0,
    AuxInterrupt = 1 << 1,
    SystemFlag = 1 << 2,
    DisableKeyboard = 1 << 4,
    DisableAux = 1 << 5,
    Translate = 1 << 6,
};
inline constexpr u8 kCommandByteMask = 0x77;

// Port 0x64, write.
inline constexpr u8 kReadRam = 0x20;   // to 0x3f
inline constexpr u8 kWriteRam = 0x60;  // to 0x7f
inline constexpr u8 kRamMask = 0x1f;
inline constexpr u8 kTestPassword = 0xa4;
inline constexpr u8 kLoadPassword = 0xa5;
inline constexpr u8 kEnablePassword = 0xa6;
inline constexpr u8 kDisableAux = 0xa7;
inline constexpr u8 kEnableAux = 0xa8;
inline constexpr u8 kTestAux = 0xa9;
inline constexpr u8 kSelfTest = 0xaa;
inline constexpr u8 kTestKeyboard = 0xab;
inline constexpr u8 kDisableKeyboard = 0xad;
inline constexpr u8 kEnableKeyboard = 0xae;
inline constexpr u8 kReadInputPort = 0xc0;
inline constexpr u8 kPollInputLow = 0xc1;
inline constexpr u8 kPollInputHigh = 0xc2;
inline constexpr u8 kReadOutputPort = 0xd0;
inline constexpr u8 kWriteOutputPort = 0xd1;
inline constexpr u8 kWriteKeyboardOutput = 0xd2;
inline constexpr u8 kWriteAuxOutput = 0xd3;
inline constexpr u8 kWriteAuxDevice = 0xd4;
inline constexpr u8 kDisableA20 = 0xdd;  // not IBM's, but every chip set's
inline constexpr u8 kEnableA20 = 0xdf;
inline constexpr u8 kReadTestInputs = 0xe0;
inline constexpr u8 kPulseOutput = 0xf0;  // to 0xff: a zero in bits 0-3 pulses that line low

inline constexpr u8 kSelfTestPassed = 0x55;
inline constexpr u8 kInterfaceTestPassed = 0x00;
inline constexpr u8 kNoPassword = 0xf1;

enum class OutputPort : u8 {
    NotReset = 1 << 0,
    A20 = 1 << 1,
    AuxClock = 1 << 2,
    AuxData = 1 << 3,
    KeyboardInterrupt = 1 << 4,
    AuxInterrupt = 1 << 5,
    KeyboardClock = 1 << 6,
    KeyboardData = 1 << 7,
};
// Not locked, no manufacturing jumper, both data lines idle high.
inline constexpr u8 kInputPort = 0xa3;

}  // namespace tessera::i8042
