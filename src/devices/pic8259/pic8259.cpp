#include "devices/pic8259/pic8259.h"

namespace tessera::pic8259 {

namespace {
constexpr u16 kDrivenPins = static_cast<u16>(~(1u << kCascadeLevel));
constexpr u8 kFloatingBus = 0xff;

Status refuse_state() {
    return fail(Errc::CorruptState, "8259A pair: the saved state holds values no 8259A can have");
}
}  // namespace

u8 Pic8259Pair::master_lines() const {
    return static_cast<u8>((lines_ & 0xff) | (cascade_ != 0 ? 1u << kCascadeLevel : 0));
}

void Pic8259Pair::sync() {
    const u8 before = master_lines();
    cascade_ = slave_.interrupt_output(slave_lines()) ? 1 : 0;
    if (const u8 now = master_lines(); now != before) master_.inputs_changed(before, now);
    intr_.set(master_.interrupt_output(master_lines()));
}

void Pic8259Pair::set_level(unsigned pin, bool high) {
    if (pin > 15 || pin == kCascadeLevel) return;
    const u16 bit = static_cast<u16>(1u << pin);
    const u8 master_before = master_lines();
    const u8 slave_before = slave_lines();
    lines_ = static_cast<u16>(high ? lines_ | bit : lines_ & ~bit);
    master_.inputs_changed(master_before, master_lines());
    slave_.inputs_changed(slave_before, slave_lines());
    sync();
}

// [8259A "Cascade mode"] The master names the slave on the cascade lines; the slave puts its vector on the
// bus.
u8 Pic8259Pair::acknowledge() {
    const auto level = master_.acknowledge(master_lines());
    u8 vector = master_.vector(level.value_or(kSpuriousLevel));
    if (level && master_.has_slave(*level)) {
        vector = kFloatingBus;  // a slave that was given another name stays silent
        if (slave_.is_slave(*level)) {
            vector = slave_.vector(slave_.acknowledge(slave_lines()).value_or(kSpuriousLevel));
            // INT falls with the acknowledge; a slave that still has something to say makes a new edge.
            const u8 before = master_lines();
            cascade_ = 0;
            master_.inputs_changed(before, master_lines());
        }
    }
    sync();
    return vector;
}

u8 Pic8259Pair::read_port(Range range, unsigned offset) {
    u8 value = 0;
    switch (range) {
        case Range::Master: value = master_.read(offset, master_lines()); break;
        case Range::Slave: value = slave_.read(offset, slave_lines()); break;
        case Range::Elcr: value = (offset == 0 ? master_ : slave_).state().level_inputs; break;
    }
    sync();  // a poll acknowledges
    return value;
}

void Pic8259Pair::write_port(Range range, unsigned offset, u8 value) {
    switch (range) {
        case Range::Master: master_.write(offset, value); break;
        case Range::Slave: slave_.write(offset, value); break;
        case Range::Elcr:
            if (offset == 0)
                master_.set_level_inputs(value & kElcr1Writable);
            else
                slave_.set_level_inputs(value & kElcr2Writable);
            break;
    }
    sync();
}

IoStatus Pic8259Pair::Ports::read(u64 offset, std::span<std::byte> out) {
    if (out.size() != 1) return IoStatus::BadWidth;
    if (offset >= kPortCount) return IoStatus::NoRegister;
    out[0] = std::byte{pair_.read_port(range_, static_cast<unsigned>(offset))};
    return IoStatus::Ok;
}

IoStatus Pic8259Pair::Ports::write(u64 offset, std::span<const std::byte> in) {
    if (in.size() != 1) return IoStatus::BadWidth;
    if (offset >= kPortCount) return IoStatus::NoRegister;
    pair_.write_port(range_, static_cast<unsigned>(offset), std::to_integer<u8>(in[0]));
    return IoStatus::Ok;
}

void Pic8259Pair::reset() {
    master_.reset();
    slave_.reset();
    cascade_ = 0;
    sync();
}

void Pic8259Pair::visit_state(StateVisitor& v) {
    State now = state();
    visit(v, now);
}

void Pic8259Pair::visit(StateVisitor& v, State& s) {
    auto& [master, slave, lines, cascade] = s;
    Chip::visit(v, 10, master);
    Chip::visit(v, 30, slave);
    v.field(1, "lines", lines);
    v.field(2, "cascade", cascade);
}

bool Pic8259Pair::valid(const State& s) {
    const bool latches_fit = (s.slave.latched & ~(s.lines >> 8)) == 0;
    const bool elcr_fits =
        (s.master.level_inputs & ~kElcr1Writable) == 0 && (s.slave.level_inputs & ~kElcr2Writable) == 0;
    return Chip::valid(s.master) && Chip::valid(s.slave) && (s.lines & ~kDrivenPins) == 0 && s.cascade < 2 &&
           latches_fit && elcr_fits;
}

Status Pic8259Pair::load(StateVisitor& v) {
    State next;
    visit(v, next);
    if (v.corrupt()) return refuse_state();
    return restore(next);
}

Status Pic8259Pair::restore(const State& state) {
    if (!valid(state)) return refuse_state();
    master_.restore(state.master);
    slave_.restore(state.slave);
    lines_ = state.lines;
    cascade_ = state.cascade;
    intr_.restore_level(master_.interrupt_output(master_lines()));
    return {};
}

}  // namespace tessera::pic8259
