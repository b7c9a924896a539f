#include "devices/virtio_balloon/virtio_balloon.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>

namespace tessera::virtio_balloon {

namespace {

constexpr u64 bit(unsigned feature) {
    return virtio::feature_bit(feature);
}

constexpr u32 pages_of(u64 bytes) {
    return static_cast<u32>(std::min<u64>(bytes >> kPageShift, std::numeric_limits<u32>::max()));
}

// What of `bytes` are whole pages of the host.
std::span<std::byte> whole_pages(std::span<std::byte> bytes) {
    const auto begin = std::bit_cast<u64>(bytes.data());
    const u64 skip = (kPageSize - begin % kPageSize) % kPageSize;
    if (skip >= bytes.size()) return {};
    return bytes.subspan(skip, (bytes.size() - skip) / kPageSize * kPageSize);
}

}  // namespace

VirtioBalloon::VirtioBalloon(const Config& config, MemoryMap& memory, PageReleaser& releaser)
    : config_(config), memory_(memory), releaser_(releaser) {
    state_.pages = pages_of(config_.target);
}

u64 VirtioBalloon::features() const {
    u64 features = bit(kFeatureStatistics) | bit(kFeaturePagePoison);
    if (config_.deflate_on_oom) features |= bit(kFeatureDeflateOnOom);
    if (config_.reporting) features |= bit(kFeatureReporting);
    return features;
}

void VirtioBalloon::read_config(u32 offset, std::span<std::byte> out) {
    // The third is for hints, which are not offered.
    const std::array<u32, 4> registers = {state_.pages, state_.actual, 0, state_.poison};
    std::memcpy(out.data(), std::as_bytes(std::span(registers)).subspan(offset).data(), out.size());
}

void VirtioBalloon::write_config(u32 offset, std::span<const std::byte> in) {
    if (in.size() != sizeof(u32)) return;
    u32 value = 0;
    std::memcpy(&value, in.data(), sizeof value);
    switch (static_cast<ConfigRegister>(offset)) {
        case ConfigRegister::Actual: state_.actual = value; break;
        case ConfigRegister::PoisonValue:
            if (core().negotiated(kFeaturePagePoison)) state_.poison = value;
            break;
        case ConfigRegister::NumPages:
        case ConfigRegister::FreePageHintCommand: break;
    }
}

// DEVIATION: [VIRTIO-1.2 5.5.2] gives each queue a fixed number; drivers count only those agreed on, because
// the queues of features that are not agreed on do not exist.
VirtioBalloon::Role VirtioBalloon::role_of(unsigned queue) const {
    if (queue == 0) return Role::Inflate;
    if (queue == 1) return Role::Deflate;
    unsigned next = 2;
    if (core().negotiated(kFeatureStatistics) && queue == next++) return Role::Statistics;
    if (core().negotiated(kFeatureReporting) && queue == next) return Role::Reporting;
    return Role::Nothing;
}

std::optional<unsigned> VirtioBalloon::statistics_queue() const {
    if (!core().negotiated(kFeatureStatistics)) return std::nullopt;
    return 2;
}

bool VirtioBalloon::service(unsigned queue) {
    const Role role = role_of(queue);
    if (role == Role::Nothing) return false;
    if (role == Role::Statistics) return serve_statistics(queue);
    virtio::Queue& ring = core().queue(queue);
    ring.stop_kicks();
    bool more = true;
    for (unsigned i = 0; more && i < kChainsPerTurn; ++i) {
        if (!core().pop(queue, chain_)) {
            more = ring.want_kicks();
            continue;
        }
        u32 written = 0;
        if (role == Role::Inflate) inflate();
        if (role == Role::Reporting) {
            // Its pages read as zeroes now: whoever keeps code of them has to know.
            written =
                static_cast<u32>(std::min<u64>(chain_.writable_bytes(), std::numeric_limits<u32>::max()));
            release_reported();
        }
        core().push(queue, chain_, written);
    }
    core().signal(queue);
    return more;
}

// --- Pages ---

void VirtioBalloon::release(u64 address, u64 size) {
    if (size == 0) return;
    releaser_.release(memory_.ram_at(address, size));
    memory_.changed_in_host(address, size);
    released_ += size;
}

// Page numbers come in any order; neighbours go together.
void VirtioBalloon::inflate() {
    u64 begin = 0;
    u64 size = 0;
    for (u64 i = 0; i < kMostPages; ++i) {
        std::array<std::byte, sizeof(u32)> copy{};
        if (chain_.read(copy) != copy.size()) break;
        const u64 address = u64{std::bit_cast<u32>(copy)} << kPageShift;
        // Not RAM, or not in whole pages of the host: left alone.
        const std::span<std::byte> page = memory_.ram_at(address, kPageSize);
        if (page.size() != kPageSize || whole_pages(page).size() != kPageSize) continue;
        if (size != 0 && address == begin + size &&
            memory_.ram_at(begin, size + kPageSize).size() == size + kPageSize) {
            size += kPageSize;
            continue;
        }
        release(begin, size);
        begin = address;
        size = kPageSize;
    }
    release(begin, size);
}

void VirtioBalloon::release_reported() {
    // [VIRTIO-1.2 5.5.6.7.2] Pages that are to keep their poison are not ours to clear.
    if (core().negotiated(kFeaturePagePoison) && state_.poison != 0) return;
    for (const iovec& piece : chain_.writable()) {
        const auto pages = whole_pages({static_cast<std::byte*>(piece.iov_base), piece.iov_len});
        if (pages.empty()) continue;
        releaser_.release(pages);
        released_ += pages.size();
    }
}

void VirtioBalloon::set_target(u64 bytes) {
    state_.pages = pages_of(bytes);
    core().config_changed();
}

// --- Statistics ---

// The driver's buffer stays in the queue until new figures are wanted: giving it back is the question.
bool VirtioBalloon::serve_statistics(unsigned queue) {
    virtio::Queue& ring = core().queue(queue);
    ring.stop_kicks();
    if (state_.statistics_waiting != 0) return false;
    if (!core().pop(queue, chain_)) return ring.want_kicks();
    read_statistics();
    ring.put_back(chain_);
    state_.statistics_waiting = 1;
    return false;
}

void VirtioBalloon::read_statistics() {
    statistics_ = {};
    for (unsigned i = 0; i < 2 * kStatisticTags; ++i) {
        std::array<std::byte, kStatisticSize> copy{};
        if (chain_.read(copy) != copy.size()) break;
        u16 tag = 0;
        u64 value = 0;
        std::memcpy(&tag, copy.data(), sizeof tag);
        std::memcpy(&value, std::span(copy).subspan(kStatisticValue).data(), sizeof value);
        if (tag < kStatisticTags) statistics_[tag] = value;
    }
}

void VirtioBalloon::request_statistics() {
    const auto queue = statistics_queue();
    if (!queue || state_.statistics_waiting == 0 || !core().running() || !core().queue(*queue).enabled())
        return;
    state_.statistics_waiting = 0;
    if (!core().pop(*queue, chain_)) return;
    core().push(*queue, chain_, 0);
    core().signal(*queue);
    core().kicker().kick(*queue);  // asks for the kick of the next buffer
}

// --- Reset and snapshots ---

bool VirtioBalloon::stop() {
    const u32 wanted = state_.pages;
    state_ = {};
    state_.pages = wanted;  // the host's wish, which a reset does not change
    statistics_ = {};
    return true;
}

void VirtioBalloon::visit(StateVisitor& v, State& s) {
    auto& [pages, actual, poison, statistics_waiting] = s;
    v.field(kFirstField + 0, "pages", pages);
    v.field(kFirstField + 1, "actual", actual);
    v.field(kFirstField + 2, "poison", poison);
    v.field(kFirstField + 3, "statistics waiting", statistics_waiting);
}

Status VirtioBalloon::load(StateVisitor& v) {
    State next;
    visit(v, next);
    if (v.corrupt() || next.statistics_waiting > 1)
        return fail(Errc::CorruptState, "virtio balloon: the saved state holds values no balloon can have");
    state_ = next;
    return {};
}

}  // namespace tessera::virtio_balloon
