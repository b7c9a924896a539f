// The card's frames: from the transmit queues to the backend, from the backend to the receive queues.
#include <algorithm>
#include <bit>
#include <cstring>

#include "devices/virtio_net/virtio_net.h"

namespace tessera::virtio_net {

namespace {

constexpr u64 kLeastFrame = 14;  // addresses and type
constexpr u8 kKnownFlags = NetHeader::kNeedsChecksum | NetHeader::kDataValid;

constexpr std::span<std::byte> bytes_of(NetHeader& header) {
    return std::as_writable_bytes(std::span(&header, 1));
}

// Whether `frame` bytes hold what the header says about them, given what may be said.
bool header_makes_sense(const NetHeader& header, u64 frame, bool checksum, bool tso4, bool tso6, bool ecn,
                        bool ufo, bool uso) {
    if ((header.flags & ~kKnownFlags) != 0) return false;
    const bool partial = (header.flags & NetHeader::kNeedsChecksum) != 0;
    if (partial && (!checksum || u64{header.checksum_start} + header.checksum_offset + 2 > frame))
        return false;
    const u8 kind = header.gso_type & static_cast<u8>(~NetHeader::kGsoEcn);
    if (kind == NetHeader::kGsoNone) return (header.gso_type & NetHeader::kGsoEcn) == 0;
    // [VIRTIO-1.2 5.1.6.2.1] A segmented frame's checksums are to be completed.
    if (!partial || header.gso_size == 0) return false;
    const bool with_ecn = (header.gso_type & NetHeader::kGsoEcn) != 0;
    switch (kind) {
        case NetHeader::kGsoTcp4: return tso4 && (!with_ecn || ecn);
        case NetHeader::kGsoTcp6: return tso6 && (!with_ecn || ecn);
        case NetHeader::kGsoUdp: return ufo && !with_ecn;
        case NetHeader::kGsoUdpL4: return uso && !with_ecn;
        default: return false;
    }
}

}  // namespace

// --- Sending ---

bool VirtioNet::header_fits(const NetHeader& header, u64 frame) const {
    const auto agreed = [this](unsigned feature) { return core().negotiated(feature); };
    return header_makes_sense(header, frame, agreed(kFeatureChecksum), agreed(kFeatureHostTso4),
                              agreed(kFeatureHostTso6), agreed(kFeatureHostEcn), agreed(kFeatureHostUfo),
                              agreed(kFeatureHostUso));
}

// Copies the header; what the backend gets is the copy. False: no frame, to be forgotten.
bool VirtioNet::take_frame(TxSlot& slot) const {
    if (slot.chain.read(bytes_of(slot.header)) != sizeof(NetHeader)) return false;
    slot.header.buffers = 0;
    // [VIRTIO-1.2 5.1.6.2.1] A driver sets no DATA_VALID.
    slot.header.flags &= static_cast<u8>(~NetHeader::kDataValid);
    const u64 frame = slot.chain.readable_bytes();
    if (frame < kLeastFrame || frame > kMaxFrame || !header_fits(slot.header, frame)) return false;
    slot.chain.put_before_readable(bytes_of(slot.header));
    return true;
}

// Offers the frames of the first `count` slots. What the backend has no room for goes back into the ring,
// with all behind it, so that nothing is in flight between turns. False: there was something.
bool VirtioNet::transmit(unsigned queue, unsigned pair, unsigned count) {
    std::array<NetBackend::Frame, kTxBatch> frames{};
    std::size_t offered = 0;
    for (unsigned i = 0; i < count; ++i)
        if (tx_[i]->is_frame) frames[offered++] = {.pieces = tx_[i]->chain.readable()};
    const std::size_t took =
        offered == 0 ? 0 : backend_.transmit(pair, std::span<const NetBackend::Frame>(frames).first(offered));
    unsigned done = 0;
    for (std::size_t sent = 0; done < count; ++done) {
        if (tx_[done]->is_frame && sent++ >= took) break;
        core().push(queue, tx_[done]->chain, 0);
    }
    for (unsigned i = count; i > done; --i) core().queue(queue).put_back(tx_[i - 1]->chain);
    return done == count;
}

bool VirtioNet::send(unsigned queue, unsigned pair) {
    virtio::Queue& ring = core().queue(queue);
    ring.stop_kicks();
    unsigned count = 0;
    for (; count < kTxBatch && core().pop(queue, tx_[count]->chain); ++count)
        tx_[count]->is_frame = take_frame(*tx_[count]);
    const bool room = transmit(queue, pair, count);
    core().signal(queue);
    // Without room there is no use in kicks: transmit_ready() calls again.
    return room && (count == kTxBatch || ring.want_kicks());
}

// --- Receiving ---

bool VirtioNet::keeps(const Head& head, std::size_t size) const {
    const auto has = [this](unsigned feature) {
        return (state_.guest_offloads & virtio::feature_bit(feature)) != 0;
    };
    const u64 frame = size - sizeof(NetHeader);
    if (!header_makes_sense(head.header, frame, has(kFeatureGuestChecksum), has(kFeatureGuestTso4),
                            has(kFeatureGuestTso6), has(kFeatureGuestEcn), has(kFeatureGuestUfo),
                            has(kFeatureGuestUso4) && has(kFeatureGuestUso6)))
        return false;
    return filter_.keeps(std::span(head.frame).first(std::min<u64>(frame, kPeek)), state_.mac);
}

// Takes buffers until a frame of `size` bytes fits, or there are no more, and then the driver is asked to
// tell of the next one; returns how many.
unsigned VirtioNet::gather(unsigned queue, std::size_t size, u64& room) {
    const unsigned most = core().negotiated(kFeatureMergedBuffers) ? kMostMerged : 1;
    unsigned chains = 0;
    room = 0;
    // A guest that makes and takes back while this looks gets no more of it than one that gives buffers.
    for (unsigned looks = 0; room < size && chains < most && looks < 2 * kMostMerged; ++looks) {
        if (core().pop(queue, *rx_[chains]))
            room += rx_[chains++]->writable_bytes();
        else if (!core().queue(queue).want_kicks())
            break;
    }
    return chains;
}

// The room of the chains but for the first bytes, which are written when they have been looked at.
bool VirtioNet::pieces_behind_head(unsigned chains) {
    rx_pieces_[0] = {.iov_base = &head_, .iov_len = kHeadSize};
    rx_piece_count_ = 1;
    std::size_t skip = kHeadSize;
    for (unsigned i = 0; i < chains; ++i)
        for (const iovec& piece : rx_[i]->writable()) {
            const std::size_t skipped = std::min(skip, piece.iov_len);
            skip -= skipped;
            if (skipped == piece.iov_len) continue;
            if (rx_piece_count_ == kMostPieces) return false;
            rx_pieces_[rx_piece_count_++] = {.iov_base = static_cast<std::byte*>(piece.iov_base) + skipped,
                                             .iov_len = piece.iov_len - skipped};
        }
    return true;
}

// Last first, as if they had never been taken.
void VirtioNet::put_back(unsigned queue, unsigned from, unsigned to) {
    while (to > from) core().queue(queue).put_back(*rx_[--to]);
}

VirtioNet::Received VirtioNet::receive_one(unsigned queue, unsigned pair_index, std::size_t size) {
    u64 room = 0;
    const unsigned chains = gather(queue, size, room);
    if (!core().running()) return Received::NoRoom;
    if (room < size) {
        // More will come if these are merged and can be more; else this frame never fits.
        const bool hopeless =
            chains == kMostMerged || (chains != 0 && !core().negotiated(kFeatureMergedBuffers));
        put_back(queue, 0, chains);
        return hopeless ? Received::Dropped : Received::NoRoom;
    }
    head_ = {};
    if (!pieces_behind_head(chains)) {
        put_back(queue, 0, chains);
        return Received::Dropped;
    }
    const std::span<const iovec> pieces(rx_pieces_.get(), rx_piece_count_);
    const std::size_t got = backend_.receive(pair_index, pieces);
    const bool good = got > sizeof(NetHeader) && got <= size && keeps(head_, got);
    if (!good) {
        put_back(queue, 0, chains);
        return got == 0 ? Received::NoRoom : Received::Frame;
    }
    std::array<virtio::Queue::Done, kMostMerged> done{};
    u64 rest = got;
    unsigned used = 0;
    for (; used < chains && (rest != 0 || used == 0); ++used) {
        const u64 here = std::min(rest, rx_[used]->writable_bytes());
        done[used] = {.chain = rx_[used].get(), .written = static_cast<u32>(here)};
        rest -= here;
    }
    // [VIRTIO-1.2 5.1.6.4.1] 1 if nothing is merged.
    head_.header.buffers = static_cast<u16>(used);
    auto head = std::as_bytes(std::span(&head_, 1)).first(std::min(kHeadSize, got));
    for (unsigned i = 0; i < used && !head.empty(); ++i) head = head.subspan(rx_[i]->write(head));
    put_back(queue, used, chains);
    core().queue(queue).push_together(std::span<const virtio::Queue::Done>(done).first(used));
    return Received::Frame;
}

bool VirtioNet::receive(unsigned queue, unsigned pair) {
    u64& stuck_since_ns = state_.stuck_since_ns[pair];
    const bool was_stuck = stuck_since_ns != kNotStuck;
    virtio::Queue& ring = core().queue(queue);
    ring.stop_kicks();
    bool more = true;
    for (unsigned frames = 0; more && frames < kRxBudget; ++frames) {
        const std::size_t size = backend_.next_size(pair);
        if (size == 0) {
            stuck_since_ns = kNotStuck;
            more = false;  // frames_waiting() calls again
            continue;
        }
        const bool impossible = size <= sizeof(NetHeader) || size > sizeof(NetHeader) + kMaxFrame;
        const Received received = impossible ? Received::Dropped : receive_one(queue, pair, size);
        if (received == Received::NoRoom && !stuck_for_too_long(pair)) {
            if (stuck_since_ns == kNotStuck) stuck_since_ns = clock_.now_ns();
            more = false;  // a kick or the timer calls again
            continue;
        }
        if (received != Received::Frame) backend_.drop(pair);
        stuck_since_ns = kNotStuck;
    }
    if (was_stuck || stuck_since_ns != kNotStuck) arm_patience();
    core().signal(queue);
    return more;
}

bool VirtioNet::stuck_for_too_long(unsigned pair) const {
    const u64 since = state_.stuck_since_ns[pair];
    return since != kNotStuck && clock_.now_ns() - since >= kPatienceNs;
}

// For the pair that has waited longest.
void VirtioNet::arm_patience() {
    const u64 first = *std::ranges::min_element(state_.stuck_since_ns);
    if (first == kNotStuck)
        patience_timer_.cancel();
    else
        patience_timer_.arm(first + kPatienceNs);
}

// A guest that has stopped taking frames, or gives too little room for one of them, gets the later ones all
// the same.
void VirtioNet::on_patience() {
    for (unsigned queue = 0; queue < core().queue_count(); ++queue)
        if (const Role role = role_of(queue);
            role.kind == Role::Kind::Receive && state_.stuck_since_ns[role.pair] != kNotStuck)
            core().kicker().kick(queue);
}

}  // namespace tessera::virtio_net
