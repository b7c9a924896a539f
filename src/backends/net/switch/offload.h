// What a card would do for its guest's frames, in software: for receivers that do not take them unfinished.
#pragma once

#include <functional>
#include <span>

#include "backends/net/net_backend.h"

namespace tessera::net {

using FrameSink = std::function<void(std::span<const u8> frame)>;

// Gives `frame` (an Ethernet frame in memory of our own, which is written to) to the sink as one or several
// complete frames: checksum filled in, large TCP segments cut. A frame that does not have what its header
// claims is dropped. The header has passed header_is_sane.
void complete_frame(const NetHeader& header, std::span<u8> frame, const FrameSink& sink);

// What the receiver takes as it is.
[[nodiscard]] bool takes_as_is(const NetHeader& header, const NetOffloads& receiver);

}  // namespace tessera::net
