#include "devices/virtio_net/virtio_net.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

namespace tessera::virtio_net {

namespace {

constexpr u64 bit(unsigned feature) {
    return virtio::feature_bit(feature);
}

constexpr u64 kGuestOffloads = bit(kFeatureGuestChecksum) | bit(kFeatureGuestTso4) | bit(kFeatureGuestTso6) |
                               bit(kFeatureGuestEcn) | bit(kFeatureGuestUfo) | bit(kFeatureGuestUso4) |
                               bit(kFeatureGuestUso6);
constexpr u64 kControl = bit(kFeatureControlQueue) | bit(kFeatureControlRx) | bit(kFeatureControlVlan) |
                         bit(kFeatureControlRxExtra) | bit(kFeatureControlMac) |
                         bit(kFeatureControlGuestOffloads) | bit(kFeatureGuestAnnounce);

// [VIRTIO-1.2 5.1.3.1] What a feature asks for besides itself: one of `any`.
struct Need {
    unsigned feature;
    u64 any;
};
constexpr std::array<Need, 17> kNeeds = {{
    {kFeatureGuestTso4, bit(kFeatureGuestChecksum)},
    {kFeatureGuestTso6, bit(kFeatureGuestChecksum)},
    {kFeatureGuestUfo, bit(kFeatureGuestChecksum)},
    {kFeatureGuestUso4, bit(kFeatureGuestChecksum)},
    {kFeatureGuestUso6, bit(kFeatureGuestChecksum)},
    {kFeatureGuestEcn, bit(kFeatureGuestTso4) | bit(kFeatureGuestTso6)},
    {kFeatureHostTso4, bit(kFeatureChecksum)},
    {kFeatureHostTso6, bit(kFeatureChecksum)},
    {kFeatureHostUfo, bit(kFeatureChecksum)},
    {kFeatureHostUso, bit(kFeatureChecksum)},
    {kFeatureHostEcn, bit(kFeatureHostTso4) | bit(kFeatureHostTso6)},
    {kFeatureControlRx, bit(kFeatureControlQueue)},
    {kFeatureControlVlan, bit(kFeatureControlQueue)},
    {kFeatureGuestAnnounce, bit(kFeatureControlQueue)},
    {kFeatureMultiQueue, bit(kFeatureControlQueue)},
    {kFeatureControlMac, bit(kFeatureControlQueue)},
    {kFeatureControlGuestOffloads, bit(kFeatureControlQueue)},
}};

}  // namespace

VirtioNet::VirtioNet(const Config& config, NetBackend& backend, Clock& clock, TimerQueue& timers)
    : config_(config),
      backend_(backend),
      clock_(clock),
      host_can_(backend.can_take()),
      most_pairs_(static_cast<u16>(
          std::clamp<unsigned>(std::min<unsigned>(config.pairs, backend.max_queues()), 1, kMostPairs))),
      queue_sizes_(2U * most_pairs_ + 1, kQueueSize),
      chain_room_(kTxBatch + kMostMerged, virtio::Queue::longest_chain(kQueueSize)),
      rx_pieces_(std::make_unique_for_overwrite<iovec[]>(kMostPieces)),
      control_chain_(virtio::Queue::longest_chain(kQueueSize)),
      patience_timer_(timers, *this),
      link_is_up_(backend.link_up()) {
    tx_.reserve(kTxBatch);
    for (unsigned i = 0; i < kTxBatch; ++i) tx_.push_back(std::make_unique<TxSlot>(chain_room_));
    rx_.reserve(kMostMerged);
    for (unsigned i = 0; i < kMostMerged; ++i) rx_.push_back(std::make_unique<virtio::Chain>(chain_room_));
    state_ = reset_state();
}

// --- Features and registers ---

u64 VirtioNet::features() const {
    u64 features = bit(kFeatureMac) | bit(kFeatureStatus) | bit(kFeatureMergedBuffers) |
                   bit(kFeatureSpeedDuplex) | kGuestOffloads | kControl;
    if (config_.mtu != 0) features |= bit(kFeatureMtu);
    if (most_pairs_ > 1) features |= bit(kFeatureMultiQueue);
    if (!host_can_.checksum) return features;
    features |= bit(kFeatureChecksum);
    if (host_can_.tso4) features |= bit(kFeatureHostTso4);
    if (host_can_.tso6) features |= bit(kFeatureHostTso6);
    if (host_can_.ecn && (host_can_.tso4 || host_can_.tso6)) features |= bit(kFeatureHostEcn);
    if (host_can_.ufo) features |= bit(kFeatureHostUfo);
    if (host_can_.uso) features |= bit(kFeatureHostUso);
    return features;
}

bool VirtioNet::accepts(u64 features) const {
    return std::ranges::all_of(kNeeds, [features](const Need& need) {
        return (features & bit(need.feature)) == 0 || (features & need.any) != 0;
    });
}

void VirtioNet::read_config(u32 offset, std::span<std::byte> out) {
    ConfigSpace config;
    std::ranges::copy(state_.mac, config.mac);
    config.status = static_cast<u16>((state_.link_up != 0 ? static_cast<u16>(LinkStatus::Up) : 0) |
                                     (state_.announce != 0 ? static_cast<u16>(LinkStatus::Announce) : 0));
    config.max_virtqueue_pairs = most_pairs_;
    config.mtu = config_.mtu;
    config.speed = config_.speed;
    config.duplex = 1;  // full
    const auto bytes = std::bit_cast<std::array<std::byte, sizeof(ConfigSpace)>>(config);
    std::memcpy(out.data(), std::span(bytes).subspan(offset).data(), out.size());
}

// [VIRTIO-1.2 5.1.2] Where the control queue is depends on what was agreed on.
VirtioNet::Role VirtioNet::role_of(unsigned queue) const {
    const unsigned pairs = core().negotiated(kFeatureMultiQueue) ? most_pairs_ : 1;
    if (queue < 2 * pairs)
        return {.kind = queue % 2 == 0 ? Role::Kind::Receive : Role::Kind::Transmit, .pair = queue / 2};
    if (queue == 2 * pairs && core().negotiated(kFeatureControlQueue))
        return {.kind = Role::Kind::Control, .pair = 0};
    return {.kind = Role::Kind::Nothing, .pair = 0};
}

u64 VirtioNet::agreed_guest_offloads() const {
    u64 agreed = 0;
    for (unsigned feature = 0; feature < 64; ++feature)
        if ((kGuestOffloads & bit(feature)) != 0 && core().negotiated(feature)) agreed |= bit(feature);
    return agreed;
}

void VirtioNet::tell_backend() {
    const auto has = [this](unsigned feature) { return (state_.guest_offloads & bit(feature)) != 0; };
    backend_.guest_takes({.checksum = has(kFeatureGuestChecksum),
                          .tso4 = has(kFeatureGuestTso4),
                          .tso6 = has(kFeatureGuestTso6),
                          .ecn = has(kFeatureGuestEcn),
                          .ufo = has(kFeatureGuestUfo),
                          .uso = has(kFeatureGuestUso4) && has(kFeatureGuestUso6)});
    backend_.use_queues(state_.pairs);
}

void VirtioNet::start() {
    state_.guest_offloads = agreed_guest_offloads();
    filter_.filter_vlans(core().negotiated(kFeatureControlVlan));
    tell_backend();
}

// A driver that begins anew reads the link's state, and is told of what changes later.
VirtioNet::State VirtioNet::reset_state() const {
    State state;
    state.mac = config_.mac;
    state.link_up = link_is_up_.load() ? 1 : 0;
    return state;
}

bool VirtioNet::stop() {
    state_ = reset_state();
    filter_.reset();
    patience_timer_.cancel();
    tell_backend();
    // What the backend has no room for stays in the ring: nothing is in flight.
    return true;
}

bool VirtioNet::service(unsigned queue) {
    const Role role = role_of(queue);
    switch (role.kind) {
        case Role::Kind::Receive: return receive(queue, role.pair);
        case Role::Kind::Transmit: return send(queue, role.pair);
        case Role::Kind::Control: return control(queue);
        case Role::Kind::Nothing: break;
    }
    return false;
}

// --- The backend's side ---

void VirtioNet::frames_waiting() {
    if (!frames_waiting_.exchange(true)) core().kicker().wake();
}

void VirtioNet::transmit_ready() {
    if (!transmit_ready_.exchange(true)) core().kicker().wake();
}

void VirtioNet::link_changed(bool up) {
    link_is_up_.store(up);
    core().kicker().wake();
}

void VirtioNet::run_backend() {
    const bool receive = frames_waiting_.exchange(false);
    const bool send = transmit_ready_.exchange(false);
    for (unsigned queue = 0; queue < core().queue_count(); ++queue) {
        const Role::Kind kind = role_of(queue).kind;
        if ((receive && kind == Role::Kind::Receive) || (send && kind == Role::Kind::Transmit))
            core().kicker().kick(queue);
    }
    if (const u8 up = link_is_up_.load() ? 1 : 0; up != state_.link_up) {
        state_.link_up = up;
        core().config_changed();
    }
}

void VirtioNet::announce() {
    if (!core().negotiated(kFeatureGuestAnnounce)) return;
    state_.announce = 1;
    core().config_changed();
}

// --- Snapshots ---

void VirtioNet::visit(StateVisitor& v, State& s) {
    auto& [mac, pairs, guest_offloads, announce, link_up, stuck_since_ns] = s;
    for (unsigned i = 0; i < mac.size(); ++i) v.field(kFirstField + i, "MAC", mac[i]);
    v.field(kFirstField + 6, "pairs", pairs);
    v.field(kFirstField + 7, "guest offloads", guest_offloads);
    v.field(kFirstField + 8, "announce", announce);
    v.field(kFirstField + 9, "link up", link_up);
    for (unsigned i = 0; i < stuck_since_ns.size(); ++i)
        v.field(kFirstField + 10 + i, "stuck since", stuck_since_ns[i]);
}

void VirtioNet::visit_state(StateVisitor& v) {
    visit(v, state_);
    filter_.visit_state(v, kFilterFields);
}

Status VirtioNet::load(StateVisitor& v) {
    State next;
    RxFilter::State filter;
    visit(v, next);
    RxFilter::visit(v, kFilterFields, filter);
    const bool stuck_elsewhere =
        std::ranges::any_of(std::span<const u64>(next.stuck_since_ns).subspan(most_pairs_),
                            [](u64 since) { return since != kNotStuck; });
    if (v.corrupt() || stuck_elsewhere || next.pairs == 0 || next.pairs > most_pairs_ ||
        (next.guest_offloads & ~kGuestOffloads) != 0 || next.announce > 1 || next.link_up > 1 ||
        !RxFilter::valid(filter))
        return fail(Errc::CorruptState, "virtio network: the saved state holds values no card can have");
    state_ = next;
    filter_.restore(std::move(filter));
    tell_backend();
    arm_patience();
    return {};
}

}  // namespace tessera::virtio_net
