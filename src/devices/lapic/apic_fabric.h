// What travels between I/O APICs, MSI-capable devices and local APICs, and the doors it travels through.
#pragma once

#include <optional>

#include "base/types.h"

namespace tessera {

// [SDM 3A 11.6.1], [SDM 3A 11.11.2], [82093AA 3.2.4]: the same three bits everywhere.
enum class DeliveryMode : u8 {
    Fixed = 0,
    LowestPriority = 1,
    Smi = 2,
    Reserved = 3,  // delivered to nobody
    Nmi = 4,
    Init = 5,
    StartUp = 6,  // only in inter-processor interrupts
    ExtInt = 7,   // the 8259A supplies the vector; only from I/O APICs and LVTs
};

enum class DestinationMode : u8 { Physical, Logical };
enum class TriggerMode : u8 { Edge, Level };

struct ApicMessage {
    // All ones in either mode; senders whose field has 8 bits widen 0xFF to it.
    static constexpr u32 kBroadcast = 0xffff'ffff;
    static constexpr u32 kNobody = 0xffff'ffff;

    u32 destination = 0;  // APIC ID, or a logical destination
    DestinationMode destination_mode = DestinationMode::Physical;
    DeliveryMode delivery_mode = DeliveryMode::Fixed;
    u8 vector = 0;
    TriggerMode trigger = TriggerMode::Edge;
    u32 except = kNobody;  // an APIC ID that does not receive it ("all excluding self")

    friend bool operator==(const ApicMessage&, const ApicMessage&) = default;
};

// Widens a destination of 8 bits.
[[nodiscard]] constexpr u32 wide_destination(u8 narrow) {
    return narrow == 0xff ? ApicMessage::kBroadcast : u32{narrow};
}

// Carries messages to the local APICs.
class ApicFabric {
public:
    ApicFabric() = default;
    ApicFabric(const ApicFabric&) = delete;
    ApicFabric& operator=(const ApicFabric&) = delete;
    virtual ~ApicFabric() = default;
    // Thread-safe, takes no lock, never calls back into the sender.
    virtual void deliver(const ApicMessage& message) = 0;
};

// Hears of the end of level-triggered interrupts: the I/O APIC behind its lock.
class EoiSink {
public:
    EoiSink() = default;
    EoiSink(const EoiSink&) = delete;
    EoiSink& operator=(const EoiSink&) = delete;
    virtual ~EoiSink() = default;
    // Called on the CPU's thread without any lock held; the implementation takes its own.
    virtual void end_of_interrupt(u8 vector) = 0;
};

// The acknowledge cycle that fetches a vector from the 8259A pair behind its lock.
class PicAcknowledge {
public:
    PicAcknowledge() = default;
    PicAcknowledge(const PicAcknowledge&) = delete;
    PicAcknowledge& operator=(const PicAcknowledge&) = delete;
    virtual ~PicAcknowledge() = default;
    // Called on the CPU's thread without any lock held. Nothing: there is no 8259A, or its request is gone.
    virtual std::optional<u8> acknowledge_interrupt() = 0;
};

// Whether a write to this address is a message signalled interrupt [SDM 3A 11.11.1].
[[nodiscard]] constexpr bool is_msi_address(u64 address) {
    return (address >> 20) == 0xfee;
}

// Decodes a message signalled interrupt [SDM 3A 11.11]. `address` has passed is_msi_address().
// GAP: the 15-bit destination ID some hypervisors agree on with their guests (address bits 11:5).
[[nodiscard]] ApicMessage message_of_msi(u64 address, u32 data);

}  // namespace tessera
