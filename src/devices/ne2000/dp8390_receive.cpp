// The chip as the cable sees it: which frames are taken, and the ring they are stored in.
#include <algorithm>
#include <array>

#include "devices/ne2000/dp8390.h"
#include "devices/ne2000/frame_check.h"

namespace tessera::ne2000 {

namespace {

constexpr std::size_t kAddressSize = 6;
// [DP8390D 10.0] ATD: another station turns the transmitter off and on by these.
constexpr unsigned kMutingHash = 62;
constexpr unsigned kUnmutingHash = 63;

constexpr std::array<u8, kFrameCheckSize> bytes_of(u32 check) {
    return {static_cast<u8>(check), static_cast<u8>(check >> 8), static_cast<u8>(check >> 16),
            static_cast<u8>(check >> 24)};
}

}  // namespace

bool Dp8390::listening() const {
    return online() && loopback() == 0;
}

void Dp8390::count(Tally which) {
    u8& tally = state_.tallies[static_cast<unsigned>(which)];
    if (tally < kTallyLimit) ++tally;
    if (tally >= kTallyWarning) state_.interrupts.set(Interrupt::CounterOverflow);
}

// [DP8390D 9.0]
Dp8390::Recognised Dp8390::recognise(std::span<const u8> address) const {
    const auto config = state_.receive_config;
    if ((address[0] & 1) != 0) {
        const bool broadcast = std::ranges::all_of(address, [](u8 byte) { return byte == 0xff; });
        const bool wanted =
            config.has(ReceiveConfig::Multicast) && (state_.multicast >> multicast_hash(address) & 1) != 0;
        return {.accepted = (broadcast && config.has(ReceiveConfig::Broadcast)) || wanted, .group = true};
    }
    u64 number = 0;
    for (std::size_t n = kAddressSize; n > 0; --n) number = number << 8 | address[n - 1];
    return {.accepted = config.has(ReceiveConfig::Promiscuous) || number == state_.physical, .group = false};
}

void Dp8390::obey_muting(std::span<const u8> address) {
    if (!state_.transmit_config.has(TransmitConfig::AutoDisable) || (address[0] & 1) == 0) return;
    const unsigned hash = multicast_hash(address);
    if (hash == kMutingHash) state_.muted = 1;
    if (hash == kUnmutingHash) {
        state_.muted = 0;
        board_.work_wanted();
    }
}

// --- The ring ---

u8 Dp8390::page_behind(u8 page) const {
    const auto next = static_cast<u8>(page + 1);
    return next == state_.page_stop ? state_.page_start : next;
}

// [DP8390D 7.0] No page is written on the way to which the boundary is met. Neither does the next packet
// begin there: a full ring would look like an empty one.
std::optional<u8> Dp8390::page_after(std::size_t bytes) const {
    const std::size_t pages = (kPacketHeader + bytes + kPageSize - 1) / kPageSize;
    u8 page = state_.current;
    for (std::size_t n = 0; n < pages; ++n) {
        page = page_behind(page);
        if (page == state_.boundary) return std::nullopt;
    }
    return page;
}

bool Dp8390::has_room(std::size_t bytes) const {
    return state_.receive_config.has(ReceiveConfig::Monitor) ||
           page_after(bytes + kFrameCheckSize).has_value();
}

u16 Dp8390::write_ring(u16 at, std::span<const u8> bytes) {
    for (auto rest = bytes; !rest.empty();) {
        const std::size_t here = std::min(rest.size(), kPageSize - at % kPageSize);
        if (swapped()) {
            for (std::size_t n = 0; n < here; ++n)
                board_.write_memory(static_cast<u16>((at + n) ^ 1), rest.subspan(n, 1));
        } else {
            board_.write_memory(at, rest.first(here));
        }
        rest = rest.subspan(here);
        at = static_cast<u16>(at + here);
        if (at % kPageSize == 0) at = static_cast<u16>(page_behind(static_cast<u8>((at >> 8) - 1)) << 8);
    }
    return at;
}

// [DP8390D 7.0] Header, frame, and always the check sequence that came with it.
void Dp8390::store(std::span<const u8> frame, u32 check, Flags<ReceiveStatus> status) {
    State& s = state_;
    const std::size_t bytes = frame.size() + kFrameCheckSize;
    const auto next = page_after(bytes);
    if (!next) {
        missed();
        return;
    }
    u16 at = static_cast<u16>(s.current << 8);
    const auto low = static_cast<u8>(bytes);
    const auto high = static_cast<u8>(bytes >> 8);
    // The count is a word like the data's, status and page are in their places in either order.
    const std::array<u8, kPacketHeader> header = {status.raw(), *next, swapped() ? high : low,
                                                  swapped() ? low : high};
    board_.write_memory(at, header);
    at = static_cast<u16>(at + header.size());
    at = write_ring(at, frame);
    s.local_address = write_ring(at, bytes_of(check));
    s.local_next = *next;
    s.current = *next;
    s.receive_status = status;
    s.interrupts.set(status.has(ReceiveStatus::Intact) ? Interrupt::Received : Interrupt::ReceiveError);
}

// --- Frames ---

void Dp8390::receive(std::span<const u8> frame, Damage damage) {
    if (!listening() || frame.size() < kAddressSize) return;
    State& s = state_;
    const auto address = frame.first(kAddressSize);
    const Recognised who = recognise(address);
    const bool runt = frame.size() + kFrameCheckSize < kLeastPacket;
    if (!who.accepted || (runt && !s.receive_config.has(ReceiveConfig::Runts))) return;

    Flags<ReceiveStatus> status;
    status.set(ReceiveStatus::Group, who.group);
    if (damage != Damage::None) {
        // [DP8390D 10.0] A misaligned frame has a wrong check sequence too.
        status.set(ReceiveStatus::CrcError);
        count(Tally::Crc);
        if (damage == Damage::Misaligned) {
            status.set(ReceiveStatus::AlignmentError);
            count(Tally::Alignment);
        }
        s.interrupts.set(Interrupt::ReceiveError);
        s.receive_status = status;
        if (!s.receive_config.has(ReceiveConfig::SaveErrors)) {
            sync();
            return;
        }
    } else {
        obey_muting(address);
    }
    if (s.receive_config.has(ReceiveConfig::Monitor)) {
        // [DP8390D 10.0] Looked at, counted, not buffered.
        status.set(ReceiveStatus::Missed);
        status.set(ReceiveStatus::Disabled);
        s.receive_status = status;
        count(Tally::Missed);
        sync();
        return;
    }
    const u32 check = check_sequence(check_add(kCheckStart, frame));
    if (damage == Damage::None) status.set(ReceiveStatus::Intact);
    store(frame, damage == Damage::None ? check : ~check, status);
    sync();
}

// [DP8390D 7.0] The ring is full: the frame is lost, what is in the ring is kept.
void Dp8390::missed() {
    state_.interrupts.set(Interrupt::Overwrite);
    state_.overflowed = 1;
    state_.receive_status.set(ReceiveStatus::Missed);
    count(Tally::Missed);
    sync();
}

}  // namespace tessera::ne2000
