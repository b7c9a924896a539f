// NE2000 network board: a DP8390D, 16 KiB of RAM, the station address ROM, the reset port, at one end of a
// cable. As the RTL8029AS it has that chip's identity and page 3 registers as well. Leaves out the boot ROM
// and the serial EEPROM.
#pragma once

#include <array>
#include <atomic>
#include <optional>
#include <span>
#include <vector>

#include "backends/net/net_backend.h"
#include "base/clock.h"
#include "base/result.h"
#include "bus/io_device.h"
#include "bus/irq_line.h"
#include "bus/queued_device.h"
#include "devices/ne2000/dp8390.h"
#include "devices/ne2000/frame_check.h"
#include "snapshot/state_visitor.h"

namespace tessera::ne2000 {

using Mac = std::array<u8, 6>;

enum class Model : u8 { Ne2000, Rtl8029As };

class Ne2000 final : public IoDevice, public QueuedDevice, public NetPeer, private ChipBoard {
public:
    struct Config {
        Mac mac{0x52, 0x54, 0x00, 0x12, 0x34, 0x56};
        Model model = Model::Ne2000;
    };
    struct Around {
        NetBackend& backend;
        QueueKicker& worker;
        Clock& clock;
        TimerQueue& timers;
    };
    // A frame that finds no room, or a driver that has not seen earlier ones, waits this long; real cards
    // lose frames at once when there is no room.
    static constexpr u64 kPatienceNs = 1'000'000'000;

    Ne2000(const Config& config, const Around& around, IrqLine interrupt);
    // When the worker can call; and before it is gone: then a reset, and nobody calls the worker any more.
    // Without the lock.
    void plug_in();
    void unplug() { around_.backend.connect(nullptr); }

    // kPortCount ports. Several bytes at once are several cycles, but for the data port.
    IoStatus read(u64 offset, std::span<std::byte> out) override;
    IoStatus write(u64 offset, std::span<const std::byte> in) override;

    // Sends what is to be sent and receives a bounded number of frames: true if there may be more.
    [[nodiscard]] bool service(unsigned queue) override;
    void run_backend() override {
        if (service(kQueue)) around_.worker.kick(kQueue);
    }
    [[nodiscard]] bool draining() const override { return false; }

    void frames_waiting() override { around_.worker.wake(); }
    void transmit_ready() override { around_.worker.wake(); }
    // Neither chip knows of the cable's other end.
    void link_changed(bool /*up*/) override {}

    void reset();
    void visit_state(StateVisitor& v);
    Status load(StateVisitor& v);

private:
    static constexpr unsigned kQueue = 0;    // there is one
    static constexpr unsigned kBudget = 32;  // frames in a turn
    // Drivers see to so many frames at least, then acknowledge the interrupt for however many there are. What
    // came in between they would not hear of, if nothing came afterwards; on a cable something does.
    static constexpr unsigned kBurst = 8;
    static constexpr std::size_t kLeastSent = 14;    // addresses and type
    static constexpr std::size_t kMostFrame = 1518;  // with a VLAN tag
    static constexpr std::size_t kPaddedFrame = 60;  // as cards put them on a cable
    static constexpr unsigned kFirstBoardField = 64;

    struct Registers {  // the RTL8029AS's own
        u8 eeprom_command = 0;
        u8 config2 = kConfig2Reset;
        u8 config3 = kConfig3Reset;
    };
    struct State {
        Dp8390::State chip;
        Registers registers;
        std::vector<u8> ram = std::vector<u8>(kRamSize);
        u8 held = 0;            // a frame waits
        u64 held_since_ns = 0;  // 0 if none does
    };
    static void visit(StateVisitor& v, State& s);
    [[nodiscard]] static bool valid(const State& s, Model model);

    void read_memory(u16 address, std::span<u8> out) override;
    void write_memory(u16 address, std::span<const u8> in) override;
    void work_wanted() override;

    [[nodiscard]] u8 read_port(unsigned port);
    void write_port(unsigned port, u8 value);
    [[nodiscard]] std::optional<u8> read_own_register(unsigned number) const;
    void write_own_register(unsigned number, u8 value);
    void read_data(std::span<std::byte> out);
    void write_data(std::span<const std::byte> in);

    void send();
    [[nodiscard]] bool receive();
    void receive_one(std::size_t size);
    void on_patience() { around_.worker.kick(kQueue); }

    const Model model_;
    Around around_;
    std::array<u8, kStationRomSize> station_rom_{};
    Dp8390 chip_;
    Registers registers_;
    std::vector<u8> ram_;
    std::array<u8, kMostFrame + kFrameCheckSize> frame_{};  // on its way
    bool waiting_for_backend_ = false;
    std::optional<u64> held_since_ns_;  // a frame waits
    MemberTimer<Ne2000, &Ne2000::on_patience> patience_timer_;
};

static_assert(Snapshotable<Ne2000>);

}  // namespace tessera::ne2000
