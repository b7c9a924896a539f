// The values of `--port`, `--serial` and `--vsock`: what programs of the host reach by a Unix socket we
// listen at.
// --port name=NAME,path=SOCKET      /dev/virtio-ports/NAME in the guest
// --serial path=SOCKET[,place=bus|root-port]   a serial port on a PCI card
// --vsock cid=N,path=SOCKET         sockets of the family AF_VSOCK in the guest
// A comma in a path or a name is written twice.
#pragma once

#include <expected>
#include <string>
#include <string_view>

#include "base/types.h"
#include "machines/machine.h"

namespace tessera::app {

struct PortOption {
    std::string name;
    std::string path;
};

struct SerialOption {
    std::string path;
    PciPlace place = PciPlace::Bus0;
};

struct VsockOption {
    u32 cid = 0;  // the guest's
    std::string path;
};

// The error names the option, the part that is wrong, and what is possible.
[[nodiscard]] std::expected<PortOption, std::string> parse_port(std::string_view text);
[[nodiscard]] std::expected<SerialOption, std::string> parse_serial(std::string_view text);
[[nodiscard]] std::expected<VsockOption, std::string> parse_vsock(std::string_view text);

}  // namespace tessera::app
