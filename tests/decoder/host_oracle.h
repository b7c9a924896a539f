// Asks the processor under us whether bytes are an instruction, and of what length, by executing them at the
// very end of a page whose successor cannot be executed. 64-bit user mode only. Not thread-safe: there is one
// page and one set of signal handlers.
#pragma once

#include <span>

#include "base/types.h"

namespace tessera::x86::test {

enum class HostVerdict : u8 {
    Undefined,   // #UD
    Incomplete,  // the processor wanted bytes beyond those given
    Accepted,    // executed, or failed with another exception than #UD
};

class HostOracle {
public:
    // Whether this processor can be asked: an AMD one with FSGSBASE, whose choices are those of our decoder.
    static bool available();

    HostOracle();
    ~HostOracle();
    HostOracle(const HostOracle&) = delete;
    HostOracle& operator=(const HostOracle&) = delete;

    // All general registers hold a non-canonical number, so memory accesses through a register fault.
    // Bytes that make a system call must not be given.
    HostVerdict probe(std::span<const u8> bytes);

    // Of the last probe: where it stopped, and the signal.
    [[nodiscard]] u64 stop_address() const;
    [[nodiscard]] int stop_signal() const;
    [[nodiscard]] u64 fault_address() const;
    [[nodiscard]] u64 code_address() const;

private:
    u8* page_ = nullptr;
    u8* signal_stack_ = nullptr;
    size_t start_ = 0;
};

}  // namespace tessera::x86::test
