// MSI-X: a table of messages and their pending bits, both in a BAR, and the capability that points to them
// [PCI 6.8.2].
#pragma once

#include <optional>
#include <span>
#include <vector>

#include "base/types.h"
#include "bus/io_device.h"
#include "devices/pci/config_space.h"
#include "snapshot/state_visitor.h"

namespace tessera::pci {

// As an IoDevice: the table from 0, the pending bits at pending_offset(), size() bytes in all. It can be a
// BAR of its own, or a part of one: the device then passes on accesses from Config::offset on.
class Msix final : public IoDevice, private ConfigWatcher {
public:
    struct Config {
        unsigned vectors = 1;  // at most 2048
        unsigned bar = 0;
        u32 offset = 0;  // in the BAR, a multiple of 8
    };
    Msix(ConfigSpace& config, const Config& what);

    [[nodiscard]] u64 size() const { return size_; }  // a power of two, at least 4 KiB
    [[nodiscard]] u64 pending_offset() const { return pending_offset_; }
    [[nodiscard]] unsigned vectors() const { return vectors_; }

    // Double and quad words at their natural places [PCI 6.8.2]; anything else is refused.
    IoStatus read(u64 offset, std::span<std::byte> out) override;
    IoStatus write(u64 offset, std::span<const std::byte> in) override;

    // The guest uses MSI-X instead of the pin.
    [[nodiscard]] bool enabled() const;
    // Sends the vector's message, or remembers it while masked. Ignored when not enabled, or for a vector
    // there is not.
    void signal(unsigned vector);
    [[nodiscard]] bool pending(unsigned vector) const;

    // All vectors masked, nothing pending. The capability's bits are configuration space's.
    void reset() { state_ = initial_state(); }

    // Under the ids `id` and `id + 1`; used as ConfigSpace::State is.
    struct State {
        std::vector<u8> table;
        std::vector<u8> pending;
    };
    static void visit(StateVisitor& v, unsigned id, State& s) {
        v.field(id, "msix_table", s.table);
        v.field(id + 1, "msix_pending", s.pending);
    }
    [[nodiscard]] State state() const { return state_; }
    [[nodiscard]] State initial_state() const;
    [[nodiscard]] bool valid(const State& s) const;
    void restore(State s) { state_ = std::move(s); }

private:
    void config_written() override { send_pending(); }
    [[nodiscard]] u32 word(unsigned vector, unsigned index) const;
    [[nodiscard]] bool masked(unsigned vector) const;
    void set_pending(unsigned vector, bool on);
    void send_or_hold(unsigned vector);
    void send_pending();
    void write_word(u64 offset, u32 value);
    [[nodiscard]] u32 read_word(u64 offset) const;

    ConfigSpace& config_;
    unsigned vectors_;
    u64 pending_offset_;
    u64 size_;
    u16 control_ = 0;  // where the message control register is
    State state_;
};

}  // namespace tessera::pci
