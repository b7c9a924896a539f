// Registers and messages of the virtio console [VIRTIO-1.2 5.3]. Nothing but the specification lives here.
#pragma once

#include "base/types.h"

namespace tessera::virtio_console {

// [VIRTIO-1.2 5.3.3] Bit numbers.
inline constexpr unsigned kFeatureSize = 0;
inline constexpr unsigned kFeatureMultiport = 1;
inline constexpr unsigned kFeatureEmergencyWrite = 2;

// [VIRTIO-1.2 5.3.2] Port 0 has the first two queues; those of port n, from 1 on, are 2n + 2 and 2n + 3.
inline constexpr unsigned kControlReceiveQueue = 2;
inline constexpr unsigned kControlTransmitQueue = 3;

// [VIRTIO-1.2 5.3.4]
enum class ConfigRegister : u32 { Columns = 0, Rows = 2, MostPorts = 4, EmergencyWrite = 8 };
inline constexpr u32 kConfigSize = 12;

// [VIRTIO-1.2 5.3.6.2] What is said on the control queues.
enum class ControlEvent : u16 {
    DeviceReady = 0,
    PortAdd = 1,
    PortRemove = 2,
    PortReady = 3,
    ConsolePort = 4,
    Resize = 5,
    PortOpen = 6,
    PortName = 7,
};

struct ControlMessage {
    u32 port = 0;
    u16 event = 0;
    u16 value = 0;
};
static_assert(sizeof(ControlMessage) == 8);

}  // namespace tessera::virtio_console
