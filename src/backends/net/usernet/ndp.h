// Neighbour discovery [RFC 4861] of the gateway: solicitations answered, the network's prefix advertised.
#pragma once

#include "backends/net/usernet/output.h"

namespace tessera::usernet {

// True if the message was one of neighbour discovery.
bool answer_ndp(Output& output, const Packet& packet);
void ask_ndp(Output& output, const IpAddress& address);

}  // namespace tessera::usernet
