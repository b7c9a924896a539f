// DP8390D network interface controller: the whole chip (registers of all pages, receive ring, remote DMA,
// loopback, tallies) but for what happens on a shared cable: collisions do not.
#pragma once

#include <array>
#include <optional>
#include <span>
#include <utility>

#include "base/flags.h"
#include "base/types.h"
#include "bus/irq_line.h"
#include "devices/ne2000/dp8390_regs.h"
#include "snapshot/state_visitor.h"

namespace tessera::ne2000 {

// The board around the chip.
class ChipBoard {
public:
    ChipBoard() = default;
    ChipBoard(const ChipBoard&) = delete;
    ChipBoard& operator=(const ChipBoard&) = delete;
    virtual ~ChipBoard() = default;
    // The local bus. Any address and length up to a page; addresses wrap at 64 KiB.
    virtual void read_memory(u16 address, std::span<u8> out) = 0;
    virtual void write_memory(u16 address, std::span<const u8> in) = 0;
    // There may be something to send, or room for what arrives.
    virtual void work_wanted() = 0;
};

// What a frame has gone through on its way.
enum class Damage : u8 { None, BadCrc, Misaligned };

class Dp8390 {
public:
    Dp8390(ChipBoard& board, IrqLine interrupt) : board_(board), interrupt_(std::move(interrupt)) {}

    // --- The host's side.
    [[nodiscard]] u8 read_register(unsigned number);
    void write_register(unsigned number, u8 value);
    [[nodiscard]] unsigned page() const { return state_.command.raw() >> kPageShift; }
    // The port of remote DMA: one byte or two, as data configuration has it. False: no such transfer.
    [[nodiscard]] bool wide() const { return state_.data_config.has(DataConfig::WordTransfer); }
    [[nodiscard]] bool read_data(std::span<u8> out);
    [[nodiscard]] bool write_data(std::span<const u8> in);
    // The RESET pin.
    void reset();

    // --- The cable's side.
    // A frame is to be sent: so many bytes of it (the guest's number), as yet.
    [[nodiscard]] std::optional<u16> transmission() const;
    // The check sequence is the guest's, and among these bytes.
    [[nodiscard]] bool brings_check() const { return state_.transmit_config.has(TransmitConfig::InhibitCrc); }
    void read_transmission(std::span<u8> out) const;
    void transmitted();

    // On the network: else nothing is heard.
    [[nodiscard]] bool listening() const;
    // Whether a frame of so many bytes, without its check sequence, finds room if it is to be stored.
    [[nodiscard]] bool has_room(std::size_t bytes) const;
    // The guest wants to be interrupted for frames, and has not said yet that it saw the last one.
    [[nodiscard]] bool unacknowledged() const {
        return state_.interrupts.has(Interrupt::Received) && state_.mask.has(Interrupt::Received);
    }
    // A frame, without its check sequence. One that finds no room is missed, as the data sheet has it.
    void receive(std::span<const u8> frame, Damage damage = Damage::None);
    void missed();

    struct State {
        Flags<Command> command{static_cast<u8>(0x21)};  // stopped, no remote DMA
        Flags<Interrupt> interrupts;
        Flags<Interrupt> mask;
        Flags<DataConfig> data_config{DataConfig::LongAddress};
        Flags<TransmitConfig> transmit_config;
        Flags<ReceiveConfig> receive_config;
        Flags<TransmitStatus> transmit_status{TransmitStatus::AlwaysOne};
        Flags<ReceiveStatus> receive_status;
        u8 page_start = 0;
        u8 page_stop = 0;
        u8 boundary = 0;
        u8 current = 0;
        u8 transmit_page = 0;
        u16 transmit_count = 0;
        u16 remote_start = 0;
        u16 remote_count = 0;
        u16 remote_address = 0;
        u16 local_address = 0;
        u16 address_counter = 0;
        u8 remote_next = 0;
        u8 local_next = 0;
        u64 physical = 0;   // PAR0 in the low byte
        u64 multicast = 0;  // MAR0 in the low byte
        std::array<u8, kTallyCount> tallies{};
        u64 fifo = 0;  // location 0 in the low byte
        u8 fifo_next = 0;
        u8 overflowed = 0;  // nothing was taken from the ring since
        u8 muted = 0;       // the transmitter, by another station
        u8 remote_active = 0;
    };
    static void visit(StateVisitor& v, State& s);
    [[nodiscard]] static bool valid(const State& s);
    [[nodiscard]] const State& state() const { return state_; }
    void restore(const State& s);

private:
    enum class Tally : u8 { Alignment, Crc, Missed };
    struct Recognised {
        bool accepted;
        bool group;
    };

    [[nodiscard]] bool online() const;
    [[nodiscard]] u8 loopback() const { return state_.transmit_config.raw() & kLoopbackMask; }
    [[nodiscard]] u8 interrupt_status() const;
    // Bytes trade places in a word.
    [[nodiscard]] bool swapped() const { return wide() && state_.data_config.has(DataConfig::ByteOrder); }

    [[nodiscard]] u8 read_page0(Read0 which);
    [[nodiscard]] u8 read_page1(unsigned number) const;
    [[nodiscard]] u8 read_page2(Read2 which) const;
    void write_page0(Write0 which, u8 value);
    void write_page1(unsigned number, u8 value);
    void write_page2(unsigned number, u8 value);
    void write_command(u8 value);

    void start_remote();
    [[nodiscard]] u8 remote_operation() const { return state_.command.raw() & kRemoteMask; }
    void remote_step(u16 bytes);
    void start_transmission();
    void loop_back();
    void put_in_fifo(u64 position, u8 value);

    void count(Tally which);
    [[nodiscard]] Recognised recognise(std::span<const u8> address) const;
    void store(std::span<const u8> frame, u32 check, Flags<ReceiveStatus> status);
    void obey_muting(std::span<const u8> address);
    [[nodiscard]] u8 page_behind(u8 page) const;
    // Where the packet after one of so many bytes, with its check sequence, will begin. None: the boundary
    // is in the way.
    [[nodiscard]] std::optional<u8> page_after(std::size_t bytes) const;
    // Returns the address behind them.
    [[nodiscard]] u16 write_ring(u16 at, std::span<const u8> bytes);
    void sync();

    ChipBoard& board_;
    IrqLine interrupt_;
    State state_;
};

static_assert(kPageSize == 256, "a page is the upper byte of an address");

}  // namespace tessera::ne2000
