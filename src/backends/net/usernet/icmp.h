// ICMP [RFC 792] and ICMPv6 [RFC 4443] of the gateway: echo for its own addresses, and errors.
#pragma once

#include "backends/net/usernet/output.h"

namespace tessera::usernet {

// A message to an address of ours: echo requests are answered.
void answer_echo(Output& output, const Packet& packet);

enum class Unreachable : u8 { Host, Port, Prohibited };
// Tells the guest that its packet did not get through; `message` begins with the first eight bytes of what
// was in it.
void send_unreachable(Output& output, Unreachable why, const Envelope& refused, Bytes message);

}  // namespace tessera::usernet
