#include "devices/pci/msix.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

#include "base/assert.h"

namespace tessera::pci {

namespace {

constexpr u64 kSmallestRegion = 4096;
// Of the four double words of a table entry: address, upper address, data, vector control.
constexpr unsigned kAddress = 0, kUpperAddress = 1, kData = 2, kVectorControl = 3;
constexpr std::array<u32, 4> kWritableWords = {~u32{3}, ~u32{0}, ~u32{0}, kMsixEntryMasked};

constexpr u64 pending_bytes(unsigned vectors) {
    return u64{(vectors + 63) / 64} * 8;
}
// The pending bits start in the second half of the region.
constexpr u64 half_region(unsigned vectors) {
    return std::bit_ceil(std::max(u64{vectors} * kMsixEntrySize, kSmallestRegion / 2));
}

}  // namespace

Msix::Msix(ConfigSpace& config, const Config& what)
    : config_(config),
      vectors_(what.vectors),
      pending_offset_(half_region(what.vectors)),
      size_(2 * half_region(what.vectors)),
      state_(initial_state()) {
    TESSERA_ASSERT(
        vectors_ > 0 && vectors_ <= kMsixVectorsMost && what.bar < kBarCount && what.offset % 8 == 0,
        "our devices choose these");
    // [PCI 6.8.2.3] Message control; then table and pending bits, each an offset with the BAR's number in its
    // low three bits.
    std::array<u8, 10> body{};
    std::array<u8, 2> writable{};
    const u16 control = static_cast<u16>(vectors_ - 1);
    const u32 table = what.offset | what.bar;
    const u32 pending = static_cast<u32>(what.offset + pending_offset_) | what.bar;
    const u16 control_bits = (Flags(MsixControl::Enable) | MsixControl::FunctionMask).raw();
    std::memcpy(body.data(), &control, sizeof control);
    std::memcpy(body.data() + 2, &table, sizeof table);
    std::memcpy(body.data() + 6, &pending, sizeof pending);
    std::memcpy(writable.data(), &control_bits, sizeof control_bits);
    control_ = static_cast<u16>(config_.add_capability(CapabilityId::Msix, body, writable) + 2);
    config_.watch(control_, 2, *this);
    config_.watch(kCommand, 2, *this);
}

Msix::State Msix::initial_state() const {
    State s;
    s.table.resize(u64{vectors_} * kMsixEntrySize);
    for (unsigned vector = 0; vector < vectors_; ++vector)
        s.table[u64{vector} * kMsixEntrySize + u64{kVectorControl} * 4] = kMsixEntryMasked;
    s.pending.resize(pending_bytes(vectors_));
    return s;
}

u32 Msix::word(unsigned vector, unsigned index) const {
    u32 value = 0;
    std::memcpy(&value, state_.table.data() + u64{vector} * kMsixEntrySize + u64{index} * 4, sizeof value);
    return value;
}

bool Msix::enabled() const {
    return Flags<MsixControl>(config_.get16(control_)).has(MsixControl::Enable);
}

bool Msix::masked(unsigned vector) const {
    return Flags<MsixControl>(config_.get16(control_)).has(MsixControl::FunctionMask) ||
           (word(vector, kVectorControl) & kMsixEntryMasked) != 0;
}

bool Msix::pending(unsigned vector) const {
    return vector < vectors_ && (state_.pending[vector / 8] >> (vector % 8) & 1) != 0;
}

void Msix::set_pending(unsigned vector, bool on) {
    u8& byte = state_.pending[vector / 8];
    const u8 bit = static_cast<u8>(1U << (vector % 8));
    byte = static_cast<u8>(on ? byte | bit : byte & ~bit);
}

void Msix::signal(unsigned vector) {
    if (vector < vectors_ && enabled()) send_or_hold(vector);
}

// A function that is no bus master cannot write its message: it waits like a masked one.
void Msix::send_or_hold(unsigned vector) {
    const bool hold = masked(vector) || !config_.bus_master();
    set_pending(vector, hold);
    if (!hold)
        config_.send_message(word(vector, kAddress) | u64{word(vector, kUpperAddress)} << 32,
                             word(vector, kData));
}

// [PCI 6.8.3.5] When software unmasks a vector with its pending bit set, the message is sent and the bit
// cleared.
void Msix::send_pending() {
    if (!enabled()) return;
    for (unsigned byte = 0; byte < state_.pending.size(); ++byte)
        if (state_.pending[byte] != 0)
            for (unsigned vector = 8 * byte; vector < 8 * byte + 8; ++vector)
                if (pending(vector)) send_or_hold(vector);
}

u32 Msix::read_word(u64 offset) const {
    u32 value = 0;
    if (offset < state_.table.size())
        std::memcpy(&value, state_.table.data() + offset, sizeof value);
    else if (offset >= pending_offset_ && offset - pending_offset_ < state_.pending.size())
        std::memcpy(&value, state_.pending.data() + (offset - pending_offset_), sizeof value);
    return value;
}

void Msix::write_word(u64 offset, u32 value) {
    if (offset >= state_.table.size()) return;  // pending bits are read only
    value &= kWritableWords[offset % kMsixEntrySize / 4];
    std::memcpy(state_.table.data() + offset, &value, sizeof value);
}

IoStatus Msix::read(u64 offset, std::span<std::byte> out) {
    if (out.size() != 4 && out.size() != 8) return IoStatus::BadWidth;
    if (offset % out.size() != 0) return IoStatus::Unaligned;
    if (offset > size_ - out.size()) return IoStatus::NoRegister;
    for (std::size_t done = 0; done < out.size(); done += 4) {
        const u32 value = read_word(offset + done);
        std::memcpy(out.data() + done, &value, sizeof value);
    }
    return IoStatus::Ok;
}

IoStatus Msix::write(u64 offset, std::span<const std::byte> in) {
    if (in.size() != 4 && in.size() != 8) return IoStatus::BadWidth;
    if (offset % in.size() != 0) return IoStatus::Unaligned;
    if (offset > size_ - in.size()) return IoStatus::NoRegister;
    for (std::size_t done = 0; done < in.size(); done += 4) {
        u32 value = 0;
        std::memcpy(&value, in.data() + done, sizeof value);
        write_word(offset + done, value);
    }
    if (const u64 vector = offset / kMsixEntrySize; pending(static_cast<unsigned>(vector)) && enabled())
        send_or_hold(static_cast<unsigned>(vector));
    return IoStatus::Ok;
}

bool Msix::valid(const State& s) const {
    if (s.table.size() != state_.table.size() || s.pending.size() != state_.pending.size()) return false;
    for (std::size_t n = 0; n < s.table.size(); n += 4) {
        u32 value = 0;
        std::memcpy(&value, s.table.data() + n, sizeof value);
        if ((value & ~kWritableWords[n % kMsixEntrySize / 4]) != 0) return false;
    }
    for (unsigned vector = vectors_; vector < 8 * s.pending.size(); ++vector)
        if ((s.pending[vector / 8] >> (vector % 8) & 1) != 0) return false;
    return true;
}

}  // namespace tessera::pci
