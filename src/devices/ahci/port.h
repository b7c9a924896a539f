// A port of the controller: its registers, its link to a drive, the command list. Commands run on the worker;
// those for queues side by side, all others one by one [AHCI 5.3], [AHCI 5.5].
#pragma once

#include <array>
#include <atomic>
#include <memory>
#include <span>
#include <sys/uio.h>
#include <vector>

#include "backends/block/block_backend.h"
#include "base/flags.h"
#include "base/types.h"
#include "devices/ahci/ahci_regs.h"
#include "devices/ahci/region_list.h"
#include "devices/ata/drive.h"
#include "memory/memory_map.h"
#include "snapshot/state_visitor.h"

namespace tessera::ahci {

class Port;

// A command slot, and its request to the backend.
class Slot final : public BlockRequest {
public:
    // Pieces of one request. Entries are at least two bytes, or one where RAM's pieces meet: enough for a
    // sector.
    static constexpr std::size_t kPieces = kSectorSize;

    Slot(Port& owner, u8 number) : owner_(owner), number_(number), pieces_(kPieces), places_(kPieces) {}
    void done(BlockStatus status) override;

private:
    friend class Port;
    friend class Completions;

    Port& owner_;
    const u8 number_;
    ata::Command command_;
    RegionList regions_;
    u64 table_ = 0;   // guest address of the command table
    u64 header_ = 0;  // and of the command header
    u64 left_ = 0;    // bytes the backend has not been asked for
    u64 moved_ = 0;   // bytes moved, for the guest
    std::vector<iovec> pieces_;
    std::vector<u64> places_;
    std::size_t piece_count_ = 0;
    bool dropped_ = false;  // nobody waits for it any more
    BlockStatus outcome_ = BlockStatus::Ok;
    Slot* next_ = nullptr;
};

// What backends have done, on whatever thread.
class Completions {
public:
    // True if there was nothing before.
    [[nodiscard]] bool push(Slot& slot);
    // Oldest first.
    [[nodiscard]] Slot* take();
    static Slot* next(const Slot& slot) { return slot.next_; }
    static Port& owner(const Slot& slot) { return slot.owner_; }

private:
    std::atomic<Slot*> newest_ = nullptr;
};

// The controller, as its ports see it.
class PortHost {
public:
    PortHost() = default;
    PortHost(const PortHost&) = delete;
    PortHost& operator=(const PortHost&) = delete;
    virtual ~PortHost() = default;
    [[nodiscard]] virtual bool may_access_memory() const = 0;
    // Commands are to be looked at, on the worker.
    virtual void kick(const Port& port) = 0;
    // Thread-safe.
    virtual void completed(Slot& slot) = 0;
    // All requests whose outcome nobody waits for are gone.
    virtual void drained() = 0;
};

class Port {
public:
    Port(PortHost& host, MemoryMap& memory, ata::Drive& drive);
    Port(const Port&) = delete;
    Port& operator=(const Port&) = delete;
    ~Port() = default;

    [[nodiscard]] u32 read(u64 reg) const;
    void write(u64 reg, u32 value);
    // Whether the port wants an interrupt [AHCI 3.3.5].
    [[nodiscard]] bool interrupt() const { return (is() & state_.ie) != 0; }

    // Takes what is in the command list; kicks if there is more.
    void service();
    // A request of one of the slots is done; settle() follows after the last one, and kicks as above.
    void request_done(Slot& slot);
    void settle();
    // Commands may have been left lying.
    void resume();

    // HBA reset [AHCI 10.4.3]; power-on.
    void reset();
    void power_on();
    // Whether requests are in flight that nobody waits for.
    [[nodiscard]] bool draining() const { return dropped_ != 0; }
    [[nodiscard]] unsigned in_flight() const { return in_flight_; }
    // The controller has come out of reset: the link may come up.
    void connect_link();

    // Snapshots: fields from `first` on, at most kFields of them, the drive's too. Nothing is in flight.
    static constexpr unsigned kFields = 40 + ata::Drive::kFields;
    void visit_state(StateVisitor& v, unsigned first);
    [[nodiscard]] bool load(StateVisitor& v, unsigned first);
    void commit_load();

private:
    friend class Slot;

    enum class Link : u8 { Down, Resetting, Up, Offline };

    struct State {
        u64 clb = 0;
        u64 fb = 0;
        u32 is = 0;  // without the bits that mirror PxSERR
        u32 ie = 0;
        Flags<PxCmd> cmd = Flags(PxCmd::SpinUp) | PxCmd::PowerOn;
        u8 current = kSlots - 1;  // the slot the drive was given last
        u32 sctl = 0;
        u32 serr = 0;
        u32 sact = 0;
        u32 ci = 0;
        u32 sig = 0xffff'ffff;
        u8 status = kTfdNothing;
        u8 error = 0;
        u8 link = static_cast<u8>(Link::Down);
        u8 power = 1;            // of the link [AHCI 3.3.10]
        u8 signature_waits = 0;  // for FIS reception
        u8 soft_reset = 0;       // SRST is set
        u8 halted = 0;           // by an error, until ST is cleared [AHCI 6.2.2]
    };

    static void visit(StateVisitor& v, unsigned first, State& s);
    [[nodiscard]] static bool valid(const State& s);

    // port.cpp
    [[nodiscard]] u32 is() const;
    [[nodiscard]] u32 ssts() const;
    [[nodiscard]] u32 cmd() const;
    void write_cmd(u32 value);
    void write_sctl(u32 value);
    void change_power(u32 state);
    void start();
    void stop();
    void drop_requests();
    void send_signature();
    void raise(PxIs cause) { state_.is |= static_cast<u32>(cause); }
    void halt(PxIs cause);
    [[nodiscard]] bool ready() const;

    // port_commands.cpp
    [[nodiscard]] bool next_slot(u8& number) const;
    void fetch(Slot& slot);
    void begin(Slot& slot);
    void control(Slot& slot, u8 control, Flags<Header> header);
    void refuse_fis();
    void perform(Slot& slot, ata::Step step);
    void ask_backend(Slot& slot);
    void trouble(RegionList::Trouble what);
    void finish(Slot& slot);
    void finish_queued(Slot& slot);
    void flush_batch();
    void flush_queue_results();
    void receive(u64 place, std::span<const u8> fis);
    void take_registers(const ata::Registers& registers);
    void send_registers(const ata::Registers& registers, bool interrupt);
    void send_pio_setup(const Slot& slot);
    void send_dma_setup(const Slot& slot);
    void send_device_bits(const ata::Registers& registers, u32 tags);

    PortHost& host_;
    MemoryMap& memory_;
    ata::Drive& drive_;
    State state_;
    State loaded_;
    std::vector<std::unique_ptr<Slot>> slots_;
    // Empty between calls once nothing is in flight.
    u32 active_ = 0;         // slots the drive works on
    u32 active_queued_ = 0;  // those of them whose command is for queues
    u32 queue_done_ = 0;     // tags the guest was not told of
    unsigned in_flight_ = 0;
    unsigned dropped_ = 0;  // of those in flight
    std::array<BlockRequest*, kSlots> batch_{};
    std::size_t batched_ = 0;
};

}  // namespace tessera::ahci
