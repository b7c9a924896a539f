// Where message signalled interrupts go.
#pragma once

#include "base/types.h"

namespace tessera {

// Thread-safe; called with the sender's lock held.
class MessageSink {
public:
    MessageSink() = default;
    MessageSink(const MessageSink&) = delete;
    MessageSink& operator=(const MessageSink&) = delete;
    virtual ~MessageSink() = default;
    // A memory write of four bytes.
    virtual void send(u64 address, u32 data) = 0;
};

}  // namespace tessera
