// One counter of the 8254: modes 0 to 5, binary and BCD, latches and flip-flops. It has no clock: every call
// says at which tick of the input clock it happens, and what the counting element holds is worked out from
// that when asked.
#pragma once

#include <limits>
#include <optional>

#include "base/types.h"
#include "devices/pit8254/pit8254_regs.h"
#include "snapshot/state_visitor.h"

namespace tessera::pit8254 {

class Counter {
public:
    // Input clock pulses since power-on.
    using Tick = s64;
    static constexpr Tick kNever = std::numeric_limits<Tick>::max();

    // What the counting element does.
    enum class Phase : u8 {
        Idle,     // not counting; shows `held`, OUT as after the control word
        Running,  // held `length` at tick `base`
        Held,     // by GATE, `held` ticks after it was loaded
    };

    struct State {
        u8 mode = 0;
        u8 access = static_cast<u8>(Access::LowThenHigh);
        u8 bcd = 0;
        u8 gate = 1;
        u8 phase = 0;
        u8 null_count = 1;
        u8 write_high_next = 0;
        u8 read_high_next = 0;
        u8 count_latched = 0;
        u8 status_latched = 0;
        u8 latched_status = 0;
        u8 low_byte = 0;  // written, its high byte still to come
        u16 latched_count = 0;
        u16 count = 0;   // count register, as written
        u32 length = 1;  // what it meant when it was last loaded: 1 to 65536
        u64 held = 0;
        Tick base = 0;
        Tick load_at = kNever;  // when the count register goes to the counting element
        Tick seen = 0;          // rises of OUT up to here have been reported
        u8 rose = 0;            // OUT rose and nobody asked yet
    };

    void write_control(Access access, u8 mode, bool bcd, Tick now);
    void write(u8 value, Tick now);
    u8 read(Tick now);
    void latch_count(Tick now);
    void latch_status(Tick now);
    void set_gate(bool high, Tick now);

    // OUT, now.
    [[nodiscard]] bool output(Tick now);
    // Whether OUT rose since the last call, however short it was low.
    bool take_rise(Tick now);
    // The next time OUT rises by counting, kNever if it does not.
    [[nodiscard]] Tick next_rise(Tick now);

    void reset(bool gate, Tick now);
    static void visit(StateVisitor& v, unsigned first_id, State& s);
    [[nodiscard]] static bool valid(const State& s);
    [[nodiscard]] const State& state() const { return state_; }
    void restore(const State& s) { state_ = s; }

private:
    [[nodiscard]] Mode mode() const { return static_cast<Mode>(state_.mode); }
    [[nodiscard]] Phase phase() const { return static_cast<Phase>(state_.phase); }
    void set_phase(Phase next) { state_.phase = static_cast<u8>(next); }
    [[nodiscard]] bool periodic() const {
        return mode() == Mode::RateGenerator || mode() == Mode::SquareWave;
    }
    [[nodiscard]] bool hardware_triggered() const {
        return mode() == Mode::HardwareRetriggerableOneShot || mode() == Mode::HardwareTriggeredStrobe;
    }
    // Ticks since the counting element was loaded.
    [[nodiscard]] u64 elapsed(Tick now) const;
    [[nodiscard]] u64 high_ticks() const { return (u64{state_.length} + 1) / 2; }
    [[nodiscard]] u16 current_count(Tick now) const;
    [[nodiscard]] bool output_settled(Tick now) const;
    // The last and the next rise of the running count, up to and after `now`.
    [[nodiscard]] std::optional<Tick> last_rise_settled(Tick now) const;
    [[nodiscard]] Tick next_rise_settled(Tick now) const;

    // Brings the state to `now`: the load that fell due, and the rises on the way.
    void settle(Tick now);
    void note_rises(Tick now);
    void load(Tick at);
    void count_written(Tick now);
    void stop(Tick now);
    [[nodiscard]] u32 modulus() const { return state_.bcd != 0 ? 10'000 : 0x1'0000; }
    [[nodiscard]] u32 meaning(u16 count) const;
    [[nodiscard]] u16 spelling(u32 value) const;

    State state_;
};

}  // namespace tessera::pit8254
