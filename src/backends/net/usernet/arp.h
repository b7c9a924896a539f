// The address resolution protocol [RFC 826]: answers for the gateway and the resolver, asks for the guest.
#pragma once

#include "backends/net/usernet/output.h"

namespace tessera::usernet {

// `content` is what follows the Ethernet header, copied.
void answer_arp(Output& output, Bytes content);
void ask_arp(Output& output, const IpAddress& address);

}  // namespace tessera::usernet
