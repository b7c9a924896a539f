// What a vCPU whose local APIC alone is in the kernel asks of the board (Irqchip::Split). On the vCPUs'
// threads.
#pragma once

#include <optional>

#include "base/types.h"

namespace tessera::kvm {

class SplitBoard {
public:
    SplitBoard() = default;
    SplitBoard(const SplitBoard&) = delete;
    SplitBoard& operator=(const SplitBoard&) = delete;
    virtual ~SplitBoard() = default;
    // For the I/O APIC: a level-triggered interrupt that its routes name.
    virtual void end_of_interrupt(u8 vector) = 0;
    // The 8259A pair's INTR, now. Looked at before every entry into the guest.
    [[nodiscard]] virtual bool external_interrupt() = 0;
    // Its acknowledge cycle. Nothing: the request is gone.
    virtual std::optional<u8> acknowledge() = 0;
};

}  // namespace tessera::kvm
