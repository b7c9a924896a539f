// Takes from the calling process what a network helper does not need, for good. Every layer stands alone:
// what this host does not permit is reported and the rest applied.
#pragma once

#include <string>
#include <vector>

#include "base/types.h"

namespace tessera::net {

// What a helper goes on needing.
enum class Needs : u8 {
    Sockets,    // to make and connect Internet sockets, and no others
    NoSockets,  // those it has
    Waiting     // for its child; only confine() itself uses it
};

struct Layer {
    std::string name;
    bool applied = false;
    std::string detail;
};

// To be called with one thread and no child processes. Returns in a child process, which is the one to go on;
// the caller waits for it and ends as it does. The child dies with it.
[[nodiscard]] std::vector<Layer> confine(Needs needs);

// One line for each layer.
[[nodiscard]] std::string describe(const std::vector<Layer>& layers);

}  // namespace tessera::net
