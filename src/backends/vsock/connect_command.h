// What a program says first to a guest's sockets, "CONNECT PORT\n" [FIRECRACKER-VSOCK]. Programs are not
// trusted.
#pragma once

#include <cstddef>
#include <string_view>

#include "base/types.h"

namespace tessera {

struct ConnectCommand {
    enum class Verdict : u8 { Incomplete, Command, Nonsense };
    // More bytes than any command has.
    static constexpr std::size_t kLongest = 32;

    Verdict verdict = Verdict::Incomplete;
    u32 port = 0;
    std::size_t size = 0;  // the bytes it takes; what follows is the guest's

    // `text` is what has arrived so far, or the first kLongest bytes of it.
    [[nodiscard]] static ConnectCommand parse(std::string_view text);
};

}  // namespace tessera
