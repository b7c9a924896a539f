// Message signalled interrupts, decoded.
#include "devices/lapic/apic_fabric.h"

namespace tessera {

// [SDM 3A 11.11.1], [SDM 3A 11.11.2]
ApicMessage message_of_msi(u64 address, u32 data) {
    const bool redirection_hint = (address >> 3 & 1) != 0;
    const bool logical = (address >> 2 & 1) != 0;
    ApicMessage message;
    message.destination = wide_destination(static_cast<u8>(address >> 12));
    message.destination_mode = logical ? DestinationMode::Logical : DestinationMode::Physical;
    message.delivery_mode = static_cast<DeliveryMode>(data >> 8 & 7);
    message.vector = static_cast<u8>(data);
    message.trigger = (data >> 15 & 1) != 0 ? TriggerMode::Level : TriggerMode::Edge;
    // 110b is reserved in a message; a device cannot send SIPI.
    if (message.delivery_mode == DeliveryMode::StartUp) message.delivery_mode = DeliveryMode::Reserved;
    // With the hint set, one CPU of the logical destination is chosen.
    if (redirection_hint && logical && message.delivery_mode == DeliveryMode::Fixed)
        message.delivery_mode = DeliveryMode::LowestPriority;
    return message;
}

}  // namespace tessera
