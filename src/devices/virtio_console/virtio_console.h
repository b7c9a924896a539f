// virtio console [VIRTIO-1.2 5.3]: a terminal, and ports with names for programs of host and guest to talk
// over. Bytes wait where they came from: in the guest's buffers until the host has room, at the host until
// the guest has buffers.
#pragma once

#include <array>
#include <atomic>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/flags.h"
#include "base/types.h"
#include "devices/virtio/chain.h"
#include "devices/virtio/core.h"
#include "devices/virtio/device.h"
#include "devices/virtio_console/virtio_console_regs.h"

namespace tessera::virtio_console {

inline constexpr unsigned kMostPorts = 16;
inline constexpr std::size_t kLongestName = 64;

// The host's end of a port. Called with the device's lock held: does not wait, does not call the device.
class PortWire {
public:
    PortWire() = default;
    PortWire(const PortWire&) = delete;
    PortWire& operator=(const PortWire&) = delete;
    virtual ~PortWire() = default;
    // Bytes from the guest; returns how many it took. If not all, VirtioConsole::room() follows.
    virtual std::size_t put(std::span<const u8> bytes) = 0;
    // Bytes for the guest; returns how many there were. If none, VirtioConsole::input() follows.
    virtual std::size_t take(std::span<u8> bytes) = 0;
};

class VirtioConsole final : public virtio::Device {
public:
    enum class Kind : u8 {
        Absent,    // a number that is not used
        Terminal,  // hvc0, hvc1, ... to Linux
        Stream,    // /dev/virtio-ports/NAME
    };
    struct Port {
        Kind kind = Kind::Absent;
        std::string name;          // of a stream, at most kLongestName bytes
        PortWire* wire = nullptr;  // unless it is absent
    };

    // At most kMostPorts. A driver that knows one port only uses the first.
    explicit VirtioConsole(std::vector<Port> ports);

    [[nodiscard]] virtio::DeviceType type() const override { return virtio::DeviceType::Console; }
    [[nodiscard]] u64 features() const override;
    [[nodiscard]] std::span<const u16> queue_sizes() const override { return queue_sizes_; }
    [[nodiscard]] u32 config_size() const override { return kConfigSize; }
    void read_config(u32 offset, std::span<std::byte> out) override;
    void write_config(u32 offset, std::span<const std::byte> in) override;
    void start() override;
    [[nodiscard]] bool stop() override;
    [[nodiscard]] bool service(unsigned queue) override;
    void run_backend() override;
    void visit_state(StateVisitor& v) override { visit(v, state_); }
    Status load(StateVisitor& v) override;

    // --- The host's side, on any thread, with or without the lock. `port` is one there is.
    // There is something to take(), or room for put() again.
    void input(unsigned port) { note(port, HostEvent::Input); }
    void room(unsigned port) { note(port, HostEvent::Room); }
    // Whether somebody holds the host's end. Ports begin held; what a guest sends to one that is not is lost.
    void set_held(unsigned port, bool held);
    // Of a terminal.
    void resize(unsigned port, u16 columns, u16 rows);
    // Takes a port away from the guest, or gives it back. All begin plugged.
    void set_plugged(unsigned port, bool plugged);

private:
    static constexpr u16 kQueueSize = 64;
    static constexpr unsigned kChainsPerTurn = 32;
    static constexpr std::size_t kBytesPerTurn = 64 * kKiB;
    static constexpr std::size_t kPiece = 4096;

    // What the host has done, which the device's own thread has yet to look at. What lasts is compared with
    // what the driver knows as well.
    enum class HostEvent : u8 { Input = 1, Room = 2, Held = 4 };
    // What the driver has to be told of a port, in this order.
    enum class News : u8 { Remove = 1, Add = 2, Terminal = 4, Name = 8, Size = 16, Open = 32 };
    static constexpr u8 kAllNews = 0x3f;

    struct PortState {
        u8 open = 0;  // the guest holds its end
        Flags<News> news;
        u64 sent = 0;  // of the first buffer in the transmit queue
        // Of the host's side, as the driver was told, or is about to be.
        u8 held = 1;
        u8 plugged = 1;
        u32 size = 0;  // columns, rows << 16; 0: not known
    };
    struct State {
        u8 ready = 0;  // the driver wants to be told of ports
        std::array<PortState, kMostPorts> ports{};
    };
    struct HostSide {
        std::atomic<u8> events = 0;
        std::atomic<bool> held = true;
        std::atomic<bool> plugged = true;
        std::atomic<u32> size = 0;  // as in PortState
    };
    struct Role {
        enum class Kind : u8 { Receive, Transmit, ControlReceive, ControlTransmit, Nothing } kind;
        unsigned port;
    };

    static void visit(StateVisitor& v, State& s);
    [[nodiscard]] bool multiport() const { return core().negotiated(kFeatureMultiport); }
    [[nodiscard]] Role role_of(unsigned queue) const;
    [[nodiscard]] static unsigned receive_queue_of(unsigned port) { return port == 0 ? 0 : 2 * port + 2; }
    [[nodiscard]] State reset_state() const;
    void note(unsigned port, HostEvent event);
    void look_at(unsigned port, Flags<HostEvent> events);
    // Whether the guest takes input.
    [[nodiscard]] bool listens(unsigned port) const;

    [[nodiscard]] bool receive(unsigned queue, unsigned port);
    [[nodiscard]] bool transmit(unsigned queue, unsigned port);
    // What is left of chain_ goes to the host.
    enum class Handed : u8 { All, InTurn, NoRoom };
    [[nodiscard]] Handed hand_over(unsigned port, std::size_t& budget);
    [[nodiscard]] bool take_control(unsigned queue);
    void command(const ControlMessage& message);
    void tell(unsigned port, Flags<News> news);
    [[nodiscard]] bool give_control(unsigned queue);
    [[nodiscard]] u32 write_news(unsigned port, News news);

    std::vector<Port> ports_;
    std::vector<u16> queue_sizes_;
    std::unique_ptr<std::array<HostSide, kMostPorts>> host_ =
        std::make_unique<std::array<HostSide, kMostPorts>>();
    virtio::Chain chain_{virtio::Queue::longest_chain(kQueueSize)};
    std::array<u8, kPiece> piece_{};
    State state_;
};

}  // namespace tessera::virtio_console
