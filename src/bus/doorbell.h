// Registers of which nothing counts but that they were written: "there is work in this queue". Who executes
// the guest may tell of that without asking the bus.
#pragma once

#include <optional>

#include "base/result.h"
#include "base/types.h"

namespace tessera {

struct Doorbell {
    u64 address = 0;  // in the range it is part of, or on the bus
    u32 width = 0;    // of the writes that ring it, in bytes; all others are the bus's
    std::optional<u32> value = std::nullopt;  // likewise
    friend bool operator==(const Doorbell&, const Doorbell&) = default;
};

// Answers for doorbells in the bus's place. Thread-safe.
class DoorbellHost {
public:
    DoorbellHost() = default;
    DoorbellHost(const DoorbellHost&) = delete;
    DoorbellHost& operator=(const DoorbellHost&) = delete;
    virtual ~DoorbellHost() = default;
    // From now on a guest's write to it adds one to the event descriptor `event`, and goes nowhere else.
    // Fails where the host has no room for more: then the bus goes on to have it.
    [[nodiscard]] virtual Status hang(const Doorbell& bell, int event) = 0;
    // The same as was hung. Afterwards the bus has it, and the descriptor what was rung before.
    virtual void take_down(const Doorbell& bell, int event) = 0;
};

}  // namespace tessera
