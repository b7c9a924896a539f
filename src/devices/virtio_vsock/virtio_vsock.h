// virtio socket device [VIRTIO-1.2 5.10] over a VsockBackend: stream connections between programs of the
// guest and of the host, either way. Leaves out sequenced packets.
#pragma once

#include <array>
#include <atomic>
#include <memory>
#include <span>

#include "backends/vsock/vsock_backend.h"
#include "base/flags.h"
#include "base/types.h"
#include "devices/virtio/chain.h"
#include "devices/virtio/core.h"
#include "devices/virtio/device.h"
#include "devices/virtio_vsock/virtio_vsock_regs.h"

namespace tessera::virtio_vsock {

inline constexpr unsigned kMostConnections = 256;

class VirtioVsock final : public virtio::Device, public VsockPeer {
public:
    VirtioVsock(u64 guest_cid, VsockBackend& backend) : guest_cid_(guest_cid), backend_(backend) {}
    // With a transport around the device and nobody using it yet; and before they part.
    void plug_in() { backend_.connect(this); }
    void unplug() { backend_.connect(nullptr); }

    [[nodiscard]] virtio::DeviceType type() const override { return virtio::DeviceType::Socket; }
    [[nodiscard]] u64 features() const override { return virtio::feature_bit(kFeatureStream); }
    [[nodiscard]] std::span<const u16> queue_sizes() const override { return kQueueSizes; }
    [[nodiscard]] u32 config_size() const override { return kConfigSize; }
    void read_config(u32 offset, std::span<std::byte> out) override;
    [[nodiscard]] bool stop() override;
    [[nodiscard]] bool service(unsigned queue) override;
    void run_backend() override { take_events(); }
    void visit_state(StateVisitor& v) override;
    Status load(StateVisitor& v) override;

    // The backend's side, on any thread.
    void events_waiting() override { core().kicker().wake(); }

    [[nodiscard]] unsigned connections() const;
    // Ends all connections, and the guest is told to forget them: what a snapshot does to them. With the
    // device's lock held; Core::resume() follows.
    void forget_connections();

private:
    static constexpr u16 kQueueSize = 256;
    static constexpr u16 kEventQueueSize = 16;
    static constexpr std::array<u16, 3> kQueueSizes = {kQueueSize, kQueueSize, kEventQueueSize};
    static constexpr unsigned kChainsPerTurn = 64;
    static constexpr std::size_t kLongestPacket = 64 * kKiB;
    static constexpr unsigned kMostRefusals = 64;
    // Ports the host connects from.
    static constexpr u32 kFirstHostPort = 1U << 30;

    enum class Phase : u8 {
        Free,
        Opening,    // the guest asked; the host's side is at it
        Requested,  // the host asked; the guest has not answered
        Open,
        Dying,  // all that is left is a Reset for the guest
    };
    // What the guest has to be told of a connection, in this order.
    enum class Say : u8 {
        Request = 1,
        Response = 2,
        CreditUpdate = 4,
        CreditRequest = 8,
        Shutdown = 16,
        Reset = 32
    };

    // Counters are free-running, as the specification's.
    struct Connection {
        Phase phase = Phase::Free;
        Flags<Say> say;
        Flags<ShutdownFlag> guest_shut;  // what the guest has said
        Flags<ShutdownFlag> host_shut;   // what the guest has to be told, or was
        bool readable = false;           // at the host
        bool asked_for_credit = false;
        u32 guest_port = 0;
        u32 host_port = 0;
        VsockId id = 0;
        u32 guest_buffer = 0;     // how much the guest keeps for us
        u32 guest_forwarded = 0;  // of `sent`
        u32 sent = 0;             // bytes to the guest
        u32 received = 0;         // bytes from the guest
        u32 forwarded = 0;        // of these
        u32 told = 0;             // of these, as the guest knows
    };
    // A Reset for a packet that belongs to no connection.
    struct Refusal {
        u64 cid = 0;
        u32 guest_port = 0;
        u32 port = 0;
        u16 type = 0;
    };
    struct State {
        u32 next_host_port = kFirstHostPort;
        u8 reset_due = 0;  // the guest is to forget its connections
        u8 refusal_count = 0;
        std::array<Refusal, kMostRefusals> refusals{};
    };

    static void visit(StateVisitor& v, State& s);
    [[nodiscard]] State without_connections() const;
    static void add_refusal(State& s, const Refusal& refusal);
    [[nodiscard]] Connection* find(u32 guest_port, u32 host_port);
    [[nodiscard]] Connection* find(VsockId id);
    [[nodiscard]] Connection* free_connection();
    [[nodiscard]] u32 choose_host_port(u32 guest_port);
    [[nodiscard]] static u32 credit(const Connection& connection);

    // From the guest.
    [[nodiscard]] bool transmit(unsigned queue);
    void take_packet();
    void refuse(const Header& header);
    void request(const Header& header);
    void packet(Connection& connection, const Header& header);
    void data(Connection& connection, const Header& header);
    void shutdown(Connection& connection, Flags<ShutdownFlag> flags);
    void end(Connection& connection);
    void abandon(Connection& connection);

    // From the host.
    void take_events();
    void on_event(const VsockEvent& event);
    void on_request(const VsockEvent& event);
    void on_forwarded(Connection& connection, u32 bytes);

    // To the guest.
    void say(Connection& connection, Say what);
    [[nodiscard]] bool receive(unsigned queue);
    [[nodiscard]] static bool has_data(const Connection& connection);
    [[nodiscard]] Connection* next_speaker();
    [[nodiscard]] u32 speak(Connection& connection);
    [[nodiscard]] u32 speak_data(Connection& connection);
    [[nodiscard]] u32 write(const Header& header, std::span<const u8> payload);
    [[nodiscard]] Header header_of(Connection& connection, Operation operation);
    [[nodiscard]] bool tell_event(unsigned queue);

    const u64 guest_cid_;
    VsockBackend& backend_;
    std::unique_ptr<std::array<Connection, kMostConnections>> connections_ =
        std::make_unique<std::array<Connection, kMostConnections>>();
    unsigned speaker_ = 0;  // who spoke last
    VsockId next_id_ = 2;
    virtio::Chain chain_{virtio::Queue::longest_chain(kQueueSize)};
    std::unique_ptr<std::array<u8, kLongestPacket>> payload_ =
        std::make_unique<std::array<u8, kLongestPacket>>();
    State state_;
};

}  // namespace tessera::virtio_vsock
