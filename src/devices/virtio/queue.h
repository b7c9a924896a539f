// A virtqueue, split or packed [VIRTIO-1.2 2.7, 2.8]: takes buffers the driver made available, gives them
// back used. Every number in a ring is hostile; what makes no sense breaks the queue, which its device
// reports. Leaves out in-order use and queue reset.
#pragma once

#include <memory>
#include <span>

#include "base/types.h"
#include "devices/virtio/chain.h"
#include "devices/virtio/ring_memory.h"
#include "devices/virtio/virtio_regs.h"
#include "memory/memory_map.h"
#include "snapshot/state_visitor.h"

namespace tessera::virtio {

class Queue {
public:
    // What the driver sets before it enables the queue.
    struct Setup {
        u16 size = 0;
        u64 descriptors = 0;  // guest physical
        u64 driver = 0;       // available ring, or driver event suppression
        u64 device = 0;       // used ring, or device event suppression
        u8 enabled = 0;
    };
    // What was agreed on for all queues of the device.
    struct Features {
        bool packed = false;
        bool indirect = false;
        bool event_index = false;
    };

    Queue(MemoryMap& memory, u16 most) : memory_(memory), most_(most) { reset(); }

    [[nodiscard]] u16 most() const { return most_; }  // entries, a power of two
    // How many descriptors a chain can have: a Chain for this queue has room for as many.
    [[nodiscard]] unsigned longest_chain() const { return longest_chain(most_); }
    // A descriptor may cross from one piece of host memory into the next one.
    [[nodiscard]] static unsigned longest_chain(u16 most) { return most + 32U; }

    // --- Setting up. What is written while the queue is enabled has no effect.
    [[nodiscard]] const Setup& setup() const { return state_.setup; }
    void set_size(u16 size);
    enum class Area : u8 { Descriptors, Driver, Device };
    enum class Half : u8 { Low, High };
    void set_address(Area area, Half half, u32 value);
    // False: the rings are not where they can be; the queue is broken.
    [[nodiscard]] bool enable(Features features);
    void disable();
    void reset();

    // --- Work. Only while enabled.
    enum class Pop : u8 { Taken, Empty, Broken };
    [[nodiscard]] Pop pop(Chain& chain);
    // The device is done with a chain and wrote `written` bytes from its first writable byte on (0: none).
    void push(const Chain& chain, u32 written) {
        const Done done{.chain = &chain, .written = written};
        push_together({&done, 1});
    }
    // Several that the driver is to see all at once. Each was taken, none given back.
    struct Done {
        const Chain* chain;
        u32 written;
    };
    void push_together(std::span<const Done> chains);
    // As if the chain taken last, not given back yet, had not been taken.
    void put_back(const Chain& chain);
    // Whether the driver wants an interrupt for what was pushed since the last call.
    [[nodiscard]] bool interrupt_due();
    // Asks the driver not to kick.
    void stop_kicks();
    // Asks for kicks again. True: there is something now, for which no kick may come.
    [[nodiscard]] bool want_kicks();
    [[nodiscard]] bool enabled() const { return state_.setup.enabled != 0; }
    [[nodiscard]] bool broken() const { return state_.broken != 0; }
    [[nodiscard]] u16 in_flight() const { return in_flight_; }  // entries of the ring

    // --- Snapshots. Field ids from `base` to base + kFields - 1.
    static constexpr unsigned kFields = 16;
    void visit_state(StateVisitor& v, unsigned base) { visit(v, base, state_); }
    struct State {
        Setup setup;
        u8 broken = 0;
        u16 next_available = 0;  // split: free-running; packed: a place in the ring
        u8 available_wrap = 1;   // packed
        u16 next_used = 0;       // as next_available
        u8 used_wrap = 1;        // packed
        u16 signalled = 0;       // next_used (packed: with the wrap) when interrupts were last considered
        u8 pushed = 0;           // since then
    };
    static void visit(StateVisitor& v, unsigned base, State& s);
    // A state that passed valid() can be taken over; the rings are looked up again.
    [[nodiscard]] bool valid(const State& s, Features features) const;
    void restore(const State& s, Features features);
    [[nodiscard]] State fresh_state() const;

private:
    struct Descriptor {
        u64 address;
        u32 length;
        u16 low;   // flags, or id
        u16 high;  // next, or flags
    };
    // A table of descriptors in guest memory that is read once, indirect ones.
    class Table;

    [[nodiscard]] static bool map_areas(const MemoryMap& memory, const Setup& setup, Features features,
                                        RingArea& descriptors, RingArea& driver, RingArea& device);
    [[nodiscard]] bool setup_fits(const Setup& setup, Features features) const;
    [[nodiscard]] Descriptor descriptor(u16 index) const;
    [[nodiscard]] Pop pop_split(Chain& chain);
    [[nodiscard]] Pop pop_packed(Chain& chain);
    [[nodiscard]] bool add_split_chain(Chain& chain, u16 head) const;
    [[nodiscard]] bool add_packed_chain(Chain& chain);
    [[nodiscard]] bool add_indirect(Chain& chain, const Descriptor& table) const;
    [[nodiscard]] bool packed_available() const;
    [[nodiscard]] bool anything_available() const;
    void push_split(std::span<const Done> chains);
    void push_packed(std::span<const Done> chains);
    void move_used(u16 slots);
    [[nodiscard]] u16 used_position() const;
    [[nodiscard]] bool interrupt_wanted_split(u16 from, u16 to) const;
    [[nodiscard]] bool interrupt_wanted_packed(u16 from, u16 to) const;

    MemoryMap& memory_;
    const u16 most_;
    Features features_;
    State state_;
    u16 in_flight_ = 0;  // none when a snapshot is taken
    RingArea descriptors_;
    RingArea driver_;
    RingArea device_;
};

}  // namespace tessera::virtio
