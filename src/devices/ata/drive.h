// A device on a serial ATA link, as the controller's port sees it: it is given commands and says, step by
// step, what is to be moved where. The port moves the data, between guest memory and the drive's buffer or
// its backend, and carries the outcome to the guest.
#pragma once

#include <array>
#include <span>

#include "backends/block/block_backend.h"
#include "base/flags.h"
#include "base/result.h"
#include "base/types.h"
#include "devices/ata/ata_regs.h"
#include "snapshot/state_visitor.h"

namespace tessera::ata {

// What a host writes into the command registers.
struct Taskfile {
    u8 command = 0;
    u8 device = 0;
    u16 features = 0;
    u16 count = 0;
    u64 lba = 0;  // 48 bits

    [[nodiscard]] Opcode opcode() const { return static_cast<Opcode>(command); }
};

// What it reads.
struct Registers {
    Flags<Status> status = Flags(Status::Ready) | Status::SeekComplete;
    Flags<Error> error;
    u8 device = 0;
    u16 count = 0;
    u64 lba = 0;
};

// How a command's data and its end cross the link.
enum class Protocol : u8 { NonData, PioIn, PioOut, DmaIn, DmaOut, PacketPio, PacketDma, Queued };

// A command from when the drive gets it until it is done.
struct Command {
    static constexpr std::size_t kPacketSize = 16;

    Taskfile taskfile;
    std::array<u8, kPacketSize> packet{};
    // Of the controller, not of the drive: other queued commands are not done.
    bool others_queued = false;

    // From the drive.
    Protocol protocol = Protocol::NonData;
    u8 tag = 0;           // Queued
    u32 block_bytes = 0;  // PIO: of a block between two interrupts
    Registers result;
    // The next step's: bytes of the drive, or a request to the backend.
    std::span<u8> buffer;
    BlockOperation operation = BlockOperation::Flush;
    u64 offset = 0;
    u64 length = 0;
    bool force_unit_access = false;
    // The drive's own notes between steps.
    u32 next_range = 0;
};

enum class Step : u8 {
    Done,      // `result` has the outcome
    ToHost,    // `buffer` goes to the guest
    FromHost,  // `buffer` is filled by the guest
    Backend,   // the backend's turn; Read and Write go to or come from the guest's memory
};

enum class ResetKind : u8 { Hardware, Software };

class Drive {
public:
    Drive() = default;
    Drive(const Drive&) = delete;
    Drive& operator=(const Drive&) = delete;
    virtual ~Drive() = default;

    // Power-on; settings too.
    virtual void power_on() = 0;
    // The host reset the link or set SRST.
    virtual void reset(ResetKind kind) = 0;
    // What the registers hold after a reset.
    [[nodiscard]] virtual Registers signature() const = 0;
    // Whether the command is one of those of which many may be under way.
    [[nodiscard]] virtual bool is_queued(const Taskfile& taskfile) const = 0;

    [[nodiscard]] virtual Step begin(Command& command) = 0;
    // The step is done.
    [[nodiscard]] virtual Step go_on(Command& command, BlockStatus status) = 0;

    // Null: none.
    [[nodiscard]] virtual BlockBackend* backend() const = 0;

    // Snapshots: fields from `first` on, at most kFields of them. Nothing is under way.
    static constexpr unsigned kFields = 40;
    virtual void visit_state(StateVisitor& v, unsigned first) = 0;
    // Reads and checks; nothing is changed before commit_load().
    [[nodiscard]] virtual bool load(StateVisitor& v, unsigned first) = 0;
    virtual void commit_load() = 0;
};

}  // namespace tessera::ata
