// An allow-list of system calls for the calling process [seccomp(2)].
#pragma once

#include "backends/net/confine/confine.h"

namespace tessera::net {

// False with errno if the host does not permit filters.
bool filter_system_calls(Needs needs);

}  // namespace tessera::net
