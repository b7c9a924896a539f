#include "devices/virtio/queue.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

namespace tessera::virtio {

namespace {

constexpr u64 kDescriptorAlignment = 16;    // [VIRTIO-1.2 2.7], [VIRTIO-1.2 2.8.10.1]
constexpr u64 kAvailableRingAlignment = 2;  // [VIRTIO-1.2 2.7]
constexpr u64 kUsedRingAlignment = 4;       // [VIRTIO-1.2 2.7]
constexpr u64 kEventAlignment = 4;          // [VIRTIO-1.2 2.8.10.1]
constexpr u64 kEventIndexSize = 2;          // behind either ring of a split queue

constexpr bool has(u16 flags, DescriptorFlag flag) {
    return (flags & static_cast<u16>(flag)) != 0;
}

constexpr Chain::Access access_of(u16 flags) {
    return has(flags, DescriptorFlag::Write) ? Chain::Access::DeviceWrites : Chain::Access::DeviceReads;
}

constexpr void replace_half(u64& address, Queue::Half half, u32 value) {
    address = half == Queue::Half::Low ? (address & ~u64{0xffff'ffff}) | value
                                       : (address & 0xffff'ffff) | u64{value} << 32;
}

}  // namespace

// --- Setting up ---

void Queue::set_size(u16 size) {
    if (!enabled()) state_.setup.size = size;
}

void Queue::set_address(Area area, Half half, u32 value) {
    if (enabled()) return;
    switch (area) {
        case Area::Descriptors: replace_half(state_.setup.descriptors, half, value); break;
        case Area::Driver: replace_half(state_.setup.driver, half, value); break;
        case Area::Device: replace_half(state_.setup.device, half, value); break;
    }
}

bool Queue::setup_fits(const Setup& setup, Features features) const {
    // [VIRTIO-1.2 2.7] A split queue's size is a power of two; [VIRTIO-1.2 2.8.10.1] a packed one's need not
    // be.
    return setup.size != 0 && setup.size <= most_ && (features.packed || std::has_single_bit(setup.size));
}

bool Queue::map_areas(const MemoryMap& memory, const Setup& setup, Features features, RingArea& descriptors,
                      RingArea& driver, RingArea& device) {
    const u64 size = setup.size;
    if (!descriptors.map(memory, setup.descriptors, size * kDescriptorSize, kDescriptorAlignment))
        return false;
    if (features.packed)
        return driver.map(memory, setup.driver, kEventSize, kEventAlignment) &&
               device.map(memory, setup.device, kEventSize, kEventAlignment);
    return driver.map(memory, setup.driver, kRingEntries + size * kAvailableEntrySize + kEventIndexSize,
                      kAvailableRingAlignment) &&
           device.map(memory, setup.device, kRingEntries + size * kUsedEntrySize + kEventIndexSize,
                      kUsedRingAlignment);
}

bool Queue::enable(Features features) {
    if (enabled()) return !broken();
    features_ = features;
    state_.setup.enabled = 1;
    if (!setup_fits(state_.setup, features) ||
        !map_areas(memory_, state_.setup, features, descriptors_, driver_, device_))
        state_.broken = 1;
    return !broken();
}

void Queue::disable() {
    const Setup kept = state_.setup;
    reset();
    state_.setup = kept;
    state_.setup.enabled = 0;
}

Queue::State Queue::fresh_state() const {
    State fresh;
    fresh.setup.size = most_;
    return fresh;
}

void Queue::reset() {
    state_ = fresh_state();
    features_ = {};
    in_flight_ = 0;
    descriptors_.unmap();
    driver_.unmap();
    device_.unmap();
}

// --- Taking ---

Queue::Pop Queue::pop(Chain& chain) {
    if (!enabled() || broken()) return Pop::Empty;
    chain.clear();
    const Pop result = features_.packed ? pop_packed(chain) : pop_split(chain);
    if (result == Pop::Broken) state_.broken = 1;
    if (result == Pop::Taken) in_flight_ = static_cast<u16>(in_flight_ + chain.slots);
    return result;
}

Queue::Pop Queue::pop_split(Chain& chain) {
    const u16 size = state_.setup.size;
    const u16 index = driver_.load<u16>(kRingIndex, std::memory_order_acquire);
    if (index == state_.next_available) return Pop::Empty;
    // More than the ring has room for, or more than it has descriptors for.
    if (static_cast<u16>(index - state_.next_available) > size || in_flight_ >= size) return Pop::Broken;
    const u64 place = state_.next_available & (size - 1U);
    const u16 head = driver_.load<u16>(kRingEntries + place * kAvailableEntrySize);
    if (head >= size || !add_split_chain(chain, head)) return Pop::Broken;
    chain.id = head;
    chain.slots = 1;
    ++state_.next_available;
    return Pop::Taken;
}

Queue::Descriptor Queue::descriptor(u16 index) const {
    const u64 at = index * kDescriptorSize;
    const u64 rest = descriptors_.load<u64>(at + kDescriptorLength);
    return {.address = descriptors_.load<u64>(at + kDescriptorAddress),
            .length = static_cast<u32>(rest),
            .low = static_cast<u16>(rest >> 32),
            .high = static_cast<u16>(rest >> 48)};
}

bool Queue::add_split_chain(Chain& chain, u16 head) const {
    u16 index = head;
    // [VIRTIO-1.2 2.7.4.2] A chain visits no descriptor twice, hence no more than there are.
    for (unsigned count = 0; count < state_.setup.size; ++count) {
        const Descriptor d = descriptor(index);
        const u16 flags = d.low;
        if (has(flags, DescriptorFlag::Indirect)) {
            // [VIRTIO-1.2 2.7.5.3.1] Only the last descriptor of a chain can point to a table.
            return !has(flags, DescriptorFlag::Next) && add_indirect(chain, d);
        }
        if (!chain.add(memory_, d.address, d.length, access_of(flags))) return false;
        if (!has(flags, DescriptorFlag::Next)) return true;
        index = d.high;
        if (index >= state_.setup.size) return false;
    }
    return false;
}

// An indirect table: at hand if it is one piece of host memory, else read entry by entry.
class Queue::Table {
public:
    Table(const MemoryMap& memory, u64 address, u64 bytes)
        : memory_(memory), address_(address), at_hand_(memory.ram_at(address, bytes)), bytes_(bytes) {}

    [[nodiscard]] bool read(u64 index, Descriptor& descriptor) const {
        std::array<std::byte, kDescriptorSize> copy{};
        const u64 at = index * kDescriptorSize;
        if (at_hand_.size() == bytes_)
            std::memcpy(copy.data(), at_hand_.subspan(at).data(), copy.size());
        else if (address_ + at < address_ || !memory_.read(address_ + at, copy))
            return false;
        const auto words = std::bit_cast<std::array<u64, 2>>(copy);
        descriptor = {.address = words[0],
                      .length = static_cast<u32>(words[1]),
                      .low = static_cast<u16>(words[1] >> 32),
                      .high = static_cast<u16>(words[1] >> 48)};
        return true;
    }

private:
    const MemoryMap& memory_;
    u64 address_;
    std::span<const std::byte> at_hand_;
    u64 bytes_;
};

bool Queue::add_indirect(Chain& chain, const Descriptor& table) const {
    if (!features_.indirect || table.length == 0 || table.length % kDescriptorSize != 0) return false;
    const u64 entries = table.length / kDescriptorSize;
    // Drivers may use longer tables than the queue they set up, not than the one we offered.
    if (entries > most_) return false;
    const Table descriptors(memory_, table.address, table.length);
    u64 index = 0;
    for (u64 count = 0; count < entries; ++count) {
        Descriptor d{};
        if (!descriptors.read(index, d)) return false;
        const u16 flags = features_.packed ? d.high : d.low;
        // [VIRTIO-1.2 2.7.5.3.1] No table within a table. [VIRTIO-1.2 2.8.21.1] Of a packed queue's flags
        // only one counts here.
        if (!features_.packed && has(flags, DescriptorFlag::Indirect)) return false;
        if (!chain.add(memory_, d.address, d.length, access_of(flags))) return false;
        if (features_.packed) {
            ++index;
            continue;
        }
        if (!has(flags, DescriptorFlag::Next)) return true;
        index = d.high;
        if (index >= entries) return false;
    }
    return features_.packed;
}

bool Queue::packed_available() const {
    const u16 flags = descriptors_.load<u16>(state_.next_available * kDescriptorSize + kPackedDescriptorFlags,
                                             std::memory_order_acquire);
    // [VIRTIO-1.2 2.8.1] Available: bit 7 equals the wrap counter, bit 15 does not.
    const bool wrap = state_.available_wrap != 0;
    return has(flags, DescriptorFlag::Available) == wrap && has(flags, DescriptorFlag::Used) != wrap;
}

Queue::Pop Queue::pop_packed(Chain& chain) {
    if (!packed_available()) return Pop::Empty;
    return add_packed_chain(chain) ? Pop::Taken : Pop::Broken;
}

bool Queue::add_packed_chain(Chain& chain) {
    const u16 size = state_.setup.size;
    u16 index = state_.next_available;
    u8 wrap = state_.available_wrap;
    // A driver that overtakes what is in flight would take entries twice.
    for (unsigned count = 1; count + in_flight_ <= size; ++count) {
        const Descriptor d = descriptor(index);
        const u16 flags = d.high;
        if (++index == size) {
            index = 0;
            wrap ^= 1U;
        }
        if (has(flags, DescriptorFlag::Indirect)) {
            // [VIRTIO-1.2 2.8.21.1] A table stands alone.
            if (count != 1 || has(flags, DescriptorFlag::Next) || !add_indirect(chain, d)) return false;
        } else if (!chain.add(memory_, d.address, d.length, access_of(flags))) {
            return false;
        }
        if (has(flags, DescriptorFlag::Next)) continue;
        // [VIRTIO-1.2 2.8.6] The last descriptor has the buffer's id.
        chain.id = d.low;
        chain.slots = static_cast<u16>(count);
        state_.next_available = index;
        state_.available_wrap = wrap;
        return true;
    }
    return false;
}

bool Queue::anything_available() const {
    if (!enabled() || broken()) return false;
    if (features_.packed) return packed_available();
    return driver_.load<u16>(kRingIndex, std::memory_order_acquire) != state_.next_available;
}

// --- Giving back ---

void Queue::push_together(std::span<const Done> chains) {
    if (!enabled() || broken() || chains.empty()) return;
    for (const Done& done : chains) {
        if (done.written != 0) done.chain->tell_written(memory_);
        in_flight_ = static_cast<u16>(in_flight_ - std::min(in_flight_, done.chain->slots));
    }
    state_.pushed = 1;
    if (features_.packed)
        push_packed(chains);
    else
        push_split(chains);
}

void Queue::push_split(std::span<const Done> chains) {
    for (const Done& done : chains) {
        const u64 entry = kRingEntries + (state_.next_used & (state_.setup.size - 1U)) * kUsedEntrySize;
        device_.store<u32>(entry, done.chain->id);
        device_.store<u32>(entry + 4, done.written);
        ++state_.next_used;
    }
    device_.store<u16>(kRingIndex, state_.next_used, std::memory_order_release);
}

// A driver looks at one place after the other: as long as it does not see the first, it sees none.
void Queue::push_packed(std::span<const Done> chains) {
    const u64 first = state_.next_used * kDescriptorSize;
    u16 first_flags = 0;
    for (std::size_t i = 0; i < chains.size(); ++i) {
        const Done& done = chains[i];
        const u64 entry = state_.next_used * kDescriptorSize;
        descriptors_.store<u32>(entry + kDescriptorLength, done.written);
        descriptors_.store<u16>(entry + kPackedDescriptorId, done.chain->id);
        // [VIRTIO-1.2 2.8.1] Used: both bits equal the wrap counter. [VIRTIO-1.2 2.8.2] Write: length counts.
        u16 flags = done.written != 0 ? static_cast<u16>(DescriptorFlag::Write) : u16{0};
        if (state_.used_wrap != 0)
            flags |= static_cast<u16>(DescriptorFlag::Available) | static_cast<u16>(DescriptorFlag::Used);
        if (i == 0)
            first_flags = flags;
        else
            descriptors_.store<u16>(entry + kPackedDescriptorFlags, flags, std::memory_order_release);
        move_used(done.chain->slots);
    }
    descriptors_.store<u16>(first + kPackedDescriptorFlags, first_flags, std::memory_order_release);
}

void Queue::move_used(u16 slots) {
    unsigned next = unsigned{state_.next_used} + slots;
    if (next >= state_.setup.size) {
        next -= state_.setup.size;
        state_.used_wrap ^= 1U;
    }
    state_.next_used = static_cast<u16>(next);
}

void Queue::put_back(const Chain& chain) {
    if (!enabled() || broken()) return;
    in_flight_ = static_cast<u16>(in_flight_ - std::min(in_flight_, chain.slots));
    if (!features_.packed) {
        --state_.next_available;
        return;
    }
    unsigned next = state_.next_available;
    if (next < chain.slots) {
        next += state_.setup.size;
        state_.available_wrap ^= 1U;
    }
    state_.next_available = static_cast<u16>(next - chain.slots);
}

// --- Interrupts and kicks ---

// Packed: the place counted over two rounds, of which the second has the wrap counter clear.
u16 Queue::used_position() const {
    if (!features_.packed) return state_.next_used;
    return static_cast<u16>(state_.next_used + (state_.used_wrap != 0 ? 0 : state_.setup.size));
}

bool Queue::interrupt_due() {
    if (state_.pushed == 0 || !enabled() || broken()) return false;
    const u16 from = state_.signalled;
    const u16 to = used_position();
    state_.signalled = to;
    state_.pushed = 0;
    // What was pushed, then this look: the driver does it the other way round.
    std::atomic_thread_fence(std::memory_order_seq_cst);
    return features_.packed ? interrupt_wanted_packed(from, to) : interrupt_wanted_split(from, to);
}

// [VIRTIO-1.2 2.7.7.2] Without event index the flag decides; with it, whether the index was passed.
bool Queue::interrupt_wanted_split(u16 from, u16 to) const {
    if (!features_.event_index) return (driver_.load<u16>(kRingFlags) & kAvailableNoInterrupt) == 0;
    const u16 event = driver_.load<u16>(kRingEntries + state_.setup.size * kAvailableEntrySize);
    return static_cast<u16>(event - from) < static_cast<u16>(to - from);
}

// [VIRTIO-1.2 2.8.14] Off, on, or when the descriptor named is used.
bool Queue::interrupt_wanted_packed(u16 from, u16 to) const {
    const u16 flags = driver_.load<u16>(kEventFlags, std::memory_order_acquire) & 3;
    if (flags == static_cast<u16>(EventFlags::Disable)) return false;
    if (flags != static_cast<u16>(EventFlags::AtDescriptor) || !features_.event_index) return true;
    const u16 event = driver_.load<u16>(kEventOffset);
    const unsigned size = state_.setup.size;
    const unsigned rounds = 2 * size;
    const unsigned offset = event & kEventOffsetMask;
    const bool second = event >> kEventWrapShift == 0;
    // A place that does not exist is never passed.
    if (offset >= size) return false;
    const unsigned position = offset + (second ? size : 0);
    return (position + rounds - from) % rounds < (to + rounds - from) % rounds;
}

void Queue::stop_kicks() {
    if (!enabled() || broken()) return;
    if (features_.packed)
        device_.store<u16>(kEventFlags, static_cast<u16>(EventFlags::Disable));
    else if (!features_.event_index)
        device_.store<u16>(kRingFlags, kUsedNoNotify);
    // With an event index, a split queue's driver is silent until the index moves on.
}

bool Queue::want_kicks() {
    if (!enabled() || broken()) return false;
    if (features_.packed) {
        if (features_.event_index) {
            const unsigned wrap = unsigned{state_.available_wrap} << kEventWrapShift;
            device_.store<u16>(kEventOffset, static_cast<u16>(state_.next_available | wrap));
            device_.store<u16>(kEventFlags, static_cast<u16>(EventFlags::AtDescriptor),
                               std::memory_order_release);
        } else {
            device_.store<u16>(kEventFlags, static_cast<u16>(EventFlags::Enable));
        }
    } else if (features_.event_index) {
        device_.store<u16>(kRingEntries + state_.setup.size * kUsedEntrySize, state_.next_available);
    } else {
        device_.store<u16>(kRingFlags, 0);
    }
    // Kicks on, then this look: the driver makes available first and looks whether to kick then.
    std::atomic_thread_fence(std::memory_order_seq_cst);
    return anything_available();
}

// --- Snapshots ---

void Queue::visit(StateVisitor& v, unsigned base, State& s) {
    auto& [setup, broken, next_available, available_wrap, next_used, used_wrap, signalled, pushed] = s;
    auto& [size, descriptors, driver, device, enabled] = setup;
    v.field(base + 0, "size", size);
    v.field(base + 1, "descriptors", descriptors);
    v.field(base + 2, "driver", driver);
    v.field(base + 3, "device", device);
    v.field(base + 4, "enabled", enabled);
    v.field(base + 5, "broken", broken);
    v.field(base + 6, "next available", next_available);
    v.field(base + 7, "available wrap", available_wrap);
    v.field(base + 8, "next used", next_used);
    v.field(base + 9, "used wrap", used_wrap);
    v.field(base + 10, "signalled", signalled);
    v.field(base + 11, "pushed", pushed);
}

bool Queue::valid(const State& s, Features features) const {
    if (s.setup.enabled > 1 || s.broken > 1 || s.available_wrap > 1 || s.used_wrap > 1 || s.pushed > 1)
        return false;
    if (s.setup.enabled == 0 || s.broken != 0) return true;
    if (features.packed &&
        (s.next_available >= s.setup.size || s.next_used >= s.setup.size || s.signalled >= 2 * s.setup.size))
        return false;
    RingArea descriptors;
    RingArea driver;
    RingArea device;
    return setup_fits(s.setup, features) &&
           map_areas(memory_, s.setup, features, descriptors, driver, device);
}

void Queue::restore(const State& s, Features features) {
    reset();
    state_ = s;
    if (!enabled()) return;
    features_ = features;
    if (!broken()) (void)map_areas(memory_, s.setup, features, descriptors_, driver_, device_);
}

}  // namespace tessera::virtio
