// Register names and bits of the 16550A, as the data sheet [PC16550D] prints them. Nothing but the
// specification.
#pragma once

#include "base/types.h"

namespace tessera::uart16550 {

// [PC16550D 8.0] "Registers", Table II. The DLAB bit of LCR swaps the first two.
enum class ReadReg : u8 { RBR, IER, IIR, LCR, MCR, LSR, MSR, SCR, DLL, DLM };
enum class WriteReg : u8 { THR, IER, FCR, LCR, MCR, LSR, MSR, SCR, DLL, DLM };

enum class Ier : u8 { ERBFI = 1 << 0, ETBEI = 1 << 1, ELSI = 1 << 2, EDSSI = 1 << 3 };
inline constexpr u8 kIerMask = 0x0f;

// [PC16550D 8.5] Interrupt identification: not bits but codes, in order of priority.
enum class Iir : u8 {
    None = 0b0001,
    ModemStatus = 0b0000,
    ThrEmpty = 0b0010,
    ReceivedData = 0b0100,
    LineStatus = 0b0110,
    CharacterTimeout = 0b1100,
};
inline constexpr u8 kIirFifosEnabled = 0xc0;

// [PC16550D 8.6]; the receiver trigger level is the two highest bits.
enum class Fcr : u8 { Enable = 1 << 0, ClearRx = 1 << 1, ClearTx = 1 << 2, DmaMode = 1 << 3 };
inline constexpr u8 kFcrKept = 0xc9;  // the clear bits clear themselves
inline constexpr unsigned kFcrTriggerShift = 6;
inline constexpr u8 kRxTrigger[4] = {1, 4, 8, 14};

// [PC16550D 8.1]
enum class Lcr : u8 {
    STB = 1 << 2,
    PEN = 1 << 3,
    EPS = 1 << 4,
    StickParity = 1 << 5,
    Break = 1 << 6,
    DLAB = 1 << 7
};
inline constexpr u8 kLcrWordLength = 0x03;  // 5 bits and this many more

// [PC16550D 8.7]
enum class Mcr : u8 { DTR = 1 << 0, RTS = 1 << 1, OUT1 = 1 << 2, OUT2 = 1 << 3, LOOP = 1 << 4 };
inline constexpr u8 kMcrMask = 0x1f;

// [PC16550D 8.4]
enum class Lsr : u8 {
    DR = 1 << 0,
    OE = 1 << 1,
    PE = 1 << 2,
    FE = 1 << 3,
    BI = 1 << 4,
    THRE = 1 << 5,
    TEMT = 1 << 6,
    FifoError = 1 << 7,
};
inline constexpr u8 kLsrCharacterErrors = 0x1c;  // PE, FE, BI: travel with their character
inline constexpr u8 kLsrErrors =
    0x1e;  // these and OE: raise the line status interrupt, cleared by reading LSR

// [PC16550D 8.8]
enum class Msr : u8 {
    DCTS = 1 << 0,
    DDSR = 1 << 1,
    TERI = 1 << 2,
    DDCD = 1 << 3,
    CTS = 1 << 4,
    DSR = 1 << 5,
    RI = 1 << 6,
    DCD = 1 << 7,
};
inline constexpr u8 kMsrDeltas = 0x0f;
inline constexpr u8 kMsrInputs = 0xf0;

// [PC16550D 8.3] The crystal every PC uses; the baud rate is this / (16 * divisor).
inline constexpr u64 kCrystalHz = 1'843'200;

}  // namespace tessera::uart16550
