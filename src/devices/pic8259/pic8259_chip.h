// One 8259A: its command words, its priorities and its answer to an acknowledge. The pair is in pic8259.h.
#pragma once

#include <optional>

#include "base/flags.h"
#include "base/types.h"
#include "devices/pic8259/pic8259_regs.h"
#include "snapshot/state_visitor.h"

namespace tessera::pic8259 {

class Chip {
public:
    // What write(1, ...) is next.
    enum class Step : u8 { Operation, Icw2, Icw3, Icw4 };

    struct State {
        u8 step = 0;
        Flags<Icw1> icw1;
        u8 icw2 = 0;
        u8 icw3 = 0;
        Flags<Icw4> icw4;
        u8 imr = 0xff;  // undefined at power-on; masked is the quiet choice
        u8 isr = 0;
        u8 latched = 0;       // edges seen and not yet acknowledged
        u8 lowest = 7;        // level with the lowest priority
        u8 special_mask = 0;  // SMM
        u8 rotate_in_aeoi = 0;
        u8 read_isr = 0;      // what a read of address 0 shows
        u8 poll = 0;          // the next read is a poll
        u8 level_inputs = 0;  // ELCR
    };

    // `address` is A0.
    u8 read(unsigned address, u8 lines);
    void write(unsigned address, u8 value);
    // The inputs were `before`, are `now`.
    void inputs_changed(u8 before, u8 now);

    // INT: an unmasked request with priority over what is in service.
    [[nodiscard]] bool interrupt_output(u8 lines) const { return request(lines).has_value(); }
    // First INTA: the level that is answered for; nothing when the request is gone, which is answered as IR7
    // and not put in service.
    std::optional<unsigned> acknowledge(u8 lines);
    [[nodiscard]] u8 vector(unsigned level) const { return static_cast<u8>((state_.icw2 & 0xf8) | level); }
    // Whether a slave is to answer for this level of a master.
    [[nodiscard]] bool has_slave(unsigned level) const {
        return !state_.icw1.has(Icw1::SNGL) && (state_.icw3 >> level & 1) != 0;
    }
    // Of a slave: whether the cascade lines name it.
    [[nodiscard]] bool is_slave(unsigned id) const {
        return !state_.icw1.has(Icw1::SNGL) && (state_.icw3 & 7) == id;
    }
    [[nodiscard]] const State& state() const { return state_; }
    void set_level_inputs(u8 elcr) { state_.level_inputs = elcr; }

    void reset() { state_ = State{}; }
    static void visit(StateVisitor& v, unsigned first_id, State& s);
    [[nodiscard]] static bool valid(const State& s);
    void restore(const State& s) { state_ = s; }

private:
    [[nodiscard]] u8 irr(u8 lines) const;
    [[nodiscard]] std::optional<unsigned> request(u8 lines) const;
    // 0 is the highest.
    [[nodiscard]] unsigned rank(unsigned level) const { return (level + 7u - state_.lowest) & 7u; }
    [[nodiscard]] std::optional<unsigned> first(u8 levels) const;
    void write_command(u8 value);
    void write_icw1(u8 value);
    void write_ocw2(u8 value);
    void write_ocw3(u8 value);
    void write_data(u8 value);
    void rotate_to_bottom(unsigned level) { state_.lowest = static_cast<u8>(level); }

    State state_;
};

}  // namespace tessera::pic8259
