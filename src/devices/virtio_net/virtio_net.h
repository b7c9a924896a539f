// virtio network card [VIRTIO-1.2 5.1] over a NetBackend: checksum and segmentation offloads both ways,
// merged receive buffers, several pairs of queues, the control queue. Frames are sent from and received into
// the guest's memory; of each only the headers are copied. Leaves out receive-side scaling, hash reports,
// notification coalescing.
#pragma once

#include <array>
#include <atomic>
#include <limits>
#include <memory>
#include <span>
#include <vector>

#include "backends/net/net_backend.h"
#include "base/clock.h"
#include "base/types.h"
#include "devices/virtio/chain.h"
#include "devices/virtio/core.h"
#include "devices/virtio/device.h"
#include "devices/virtio_net/rx_filter.h"
#include "devices/virtio_net/virtio_net_regs.h"

namespace tessera::virtio_net {

inline constexpr u16 kQueueSize = 256;
inline constexpr u16 kMostPairs = 16;

class VirtioNet final : public virtio::Device, public NetPeer {
public:
    struct Config {
        Mac mac{0x52, 0x54, 0x00, 0x12, 0x34, 0x56};
        u16 pairs = 1;       // of queues, up to kMostPairs and what the backend has
        u16 mtu = 0;         // 0: nothing is said about it
        u32 speed = 10'000;  // Mbit/s, as it is told
    };
    // A frame for which there never is enough room is thrown away after this.
    static constexpr u64 kPatienceNs = 1'000'000'000;

    VirtioNet(const Config& config, NetBackend& backend, Clock& clock, TimerQueue& timers);
    // With a transport around the card and nobody using it yet; and before they part.
    void plug_in() { backend_.connect(this); }
    void unplug() { backend_.connect(nullptr); }

    [[nodiscard]] virtio::DeviceType type() const override { return virtio::DeviceType::Network; }
    [[nodiscard]] u64 features() const override;
    [[nodiscard]] bool accepts(u64 features) const override;
    [[nodiscard]] std::span<const u16> queue_sizes() const override { return queue_sizes_; }
    [[nodiscard]] u32 config_size() const override { return kConfigSize; }
    void read_config(u32 offset, std::span<std::byte> out) override;
    void start() override;
    [[nodiscard]] bool stop() override;
    [[nodiscard]] bool service(unsigned queue) override;
    void run_backend() override;
    void visit_state(StateVisitor& v) override;
    Status load(StateVisitor& v) override;

    // The backend's side, on any thread.
    void frames_waiting() override;
    void transmit_ready() override;
    void link_changed(bool up) override;

    // Asks the driver to tell the network where it is now (after a move). With the device's lock held.
    void announce();

private:
    static constexpr unsigned kTxBatch = 64;
    static constexpr unsigned kRxBudget = 64;    // frames in a turn
    static constexpr unsigned kMostMerged = 64;  // buffers for a frame
    static constexpr unsigned kMostPieces = 1024;
    static constexpr std::size_t kPeek = 18;  // of a frame: addresses, type, VLAN tag
    static constexpr unsigned kFilterFields = kFirstField + 32;
    static constexpr u64 kNotStuck = std::numeric_limits<u64>::max();

    // What is received is looked at here before the driver gets it.
    struct Head {
        NetHeader header;
        std::array<u8, kPeek> frame{};
        std::array<u8, 2> unused{};
    };
    static constexpr std::size_t kHeadSize = sizeof(NetHeader) + kPeek;

    struct State {
        Mac mac{};
        u16 pairs = 1;           // in use
        u64 guest_offloads = 0;  // feature bits, of those agreed on
        u8 announce = 0;
        u8 link_up = 1;  // as the driver was told
        // Since when a frame waits for more buffers than there are, for each pair.
        std::array<u64, kMostPairs> stuck_since_ns = [] {
            std::array<u64, kMostPairs> none{};
            none.fill(kNotStuck);
            return none;
        }();
    };
    struct TxSlot {
        explicit TxSlot(virtio::ChainRoom& room) : chain(room) {}
        virtio::Chain chain;
        NetHeader header;
        bool is_frame = false;  // else it is to be forgotten
    };
    struct Role {
        enum class Kind : u8 { Receive, Transmit, Control, Nothing } kind;
        unsigned pair;
    };

    static void visit(StateVisitor& v, State& s);
    [[nodiscard]] Role role_of(unsigned queue) const;
    [[nodiscard]] u64 agreed_guest_offloads() const;
    [[nodiscard]] State reset_state() const;
    void tell_backend();

    // Sending.
    [[nodiscard]] bool send(unsigned queue, unsigned pair);
    [[nodiscard]] bool transmit(unsigned queue, unsigned pair, unsigned count);
    [[nodiscard]] bool take_frame(TxSlot& slot) const;
    [[nodiscard]] bool header_fits(const NetHeader& header, u64 frame) const;

    // Receiving.
    enum class Received : u8 { Frame, Dropped, NoRoom };
    [[nodiscard]] bool receive(unsigned queue, unsigned pair);
    [[nodiscard]] Received receive_one(unsigned queue, unsigned pair, std::size_t size);
    [[nodiscard]] unsigned gather(unsigned queue, std::size_t size, u64& room);
    [[nodiscard]] bool pieces_behind_head(unsigned chains);
    [[nodiscard]] bool keeps(const Head& head, std::size_t size) const;
    void put_back(unsigned queue, unsigned from, unsigned to);
    [[nodiscard]] bool stuck_for_too_long(unsigned pair) const;
    void arm_patience();
    void on_patience();

    // The control queue.
    [[nodiscard]] bool control(unsigned queue);
    [[nodiscard]] ControlAck command(virtio::Chain& chain);
    [[nodiscard]] ControlAck rx_command(u8 which, virtio::Chain& chain);
    [[nodiscard]] ControlAck mac_command(u8 which, virtio::Chain& chain);
    [[nodiscard]] ControlAck vlan_command(u8 which, virtio::Chain& chain);
    [[nodiscard]] ControlAck pairs_command(u8 which, virtio::Chain& chain);
    [[nodiscard]] ControlAck offloads_command(u8 which, virtio::Chain& chain);

    const Config config_;
    NetBackend& backend_;
    Clock& clock_;
    const NetOffloads host_can_;
    const u16 most_pairs_;
    std::vector<u16> queue_sizes_;
    virtio::ChainRoom chain_room_;
    std::vector<std::unique_ptr<TxSlot>> tx_;         // kTxBatch: the frames being sent
    std::vector<std::unique_ptr<virtio::Chain>> rx_;  // kMostMerged: the frame being received
    std::unique_ptr<iovec[]> rx_pieces_;
    std::size_t rx_piece_count_ = 0;
    Head head_;
    virtio::Chain control_chain_;
    RxFilter filter_;
    State state_;
    MemberTimer<VirtioNet, &VirtioNet::on_patience> patience_timer_;

    std::atomic<bool> frames_waiting_ = false;
    std::atomic<bool> transmit_ready_ = false;
    std::atomic<bool> link_is_up_;
};

}  // namespace tessera::virtio_net
