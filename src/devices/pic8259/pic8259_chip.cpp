#include "devices/pic8259/pic8259_chip.h"

namespace tessera::pic8259 {

namespace {
constexpr u8 bit(unsigned level) {
    return static_cast<u8>(1u << level);
}
}  // namespace

// [8259A "Edge and level triggered modes"] In edge mode a request is a latched rise that must stay high until
// the acknowledge; in level mode it is the level.
u8 Chip::irr(u8 lines) const {
    const u8 level = state_.icw1.has(Icw1::LTIM) ? u8{0xff} : state_.level_inputs;
    return static_cast<u8>(lines & (level | state_.latched));
}

void Chip::inputs_changed(u8 before, u8 now) {
    state_.latched = static_cast<u8>((state_.latched | (now & ~before)) & now);
}

std::optional<unsigned> Chip::first(u8 levels) const {
    for (unsigned i = 1; i <= 8; ++i) {
        const unsigned level = (state_.lowest + i) & 7u;
        if ((levels & bit(level)) != 0) return level;
    }
    return std::nullopt;
}

std::optional<unsigned> Chip::request(u8 lines) const {
    if (static_cast<Step>(state_.step) != Step::Operation) return std::nullopt;
    const State& s = state_;
    const auto wanted = first(static_cast<u8>(irr(lines) & ~s.imr));
    if (!wanted) return std::nullopt;
    // [8259A "Special mask mode"] A level in service that is masked holds nobody back.
    const auto serving = first(static_cast<u8>(s.special_mask != 0 ? s.isr & ~s.imr : s.isr));
    if (!serving || rank(*wanted) < rank(*serving)) return wanted;
    // [8259A "The special fully nested mode"] A slave's level in service does not lock that slave out.
    if (*wanted == *serving && s.icw4.has(Icw4::SFNM) && has_slave(*wanted)) return wanted;
    return std::nullopt;
}

std::optional<unsigned> Chip::acknowledge(u8 lines) {
    const auto level = request(lines);
    if (!level) return std::nullopt;
    state_.latched &= static_cast<u8>(~bit(*level));
    if (!state_.icw4.has(Icw4::AEOI)) {
        state_.isr |= bit(*level);
    } else if (state_.rotate_in_aeoi != 0) {
        rotate_to_bottom(*level);  // the end of interrupt comes with the last INTA
    }
    return level;
}

u8 Chip::read(unsigned address, u8 lines) {
    if (state_.poll != 0) {
        // [8259A "Poll command"] The read stands for the acknowledge.
        state_.poll = 0;
        const auto level = acknowledge(lines);
        return level ? static_cast<u8>(kPollRequest | *level) : u8{0};
    }
    if (address != 0) return state_.imr;
    return state_.read_isr != 0 ? state_.isr : irr(lines);
}

void Chip::write(unsigned address, u8 value) {
    if (address != 0)
        write_data(value);
    else
        write_command(value);
}

void Chip::write_command(u8 value) {
    if (Flags<Icw1>(value).has(Icw1::Select))
        write_icw1(value);
    else if ((value & kOcw3Select) != 0)
        write_ocw3(value);
    else
        write_ocw2(value);
}

// [8259A "Initialization command words 1 and 2"]
void Chip::write_icw1(u8 value) {
    const u8 elcr = state_.level_inputs;
    const u8 icw2 = state_.icw2;
    const u8 icw3 = state_.icw3;
    const auto icw4 = state_.icw4;
    state_ = State{};
    state_.icw1 = Flags<Icw1>(static_cast<u8>(value & 0x0f));
    state_.step = static_cast<u8>(Step::Icw2);
    state_.imr = 0;
    state_.level_inputs = elcr;
    state_.icw2 = icw2;
    state_.icw3 = icw3;
    if (state_.icw1.has(Icw1::IC4)) state_.icw4 = icw4;
}

void Chip::write_data(u8 value) {
    State& s = state_;
    const Step after_icw3 = s.icw1.has(Icw1::IC4) ? Step::Icw4 : Step::Operation;
    switch (static_cast<Step>(s.step)) {
        case Step::Operation: s.imr = value; break;
        case Step::Icw2:
            s.icw2 = value;
            s.step = static_cast<u8>(s.icw1.has(Icw1::SNGL) ? after_icw3 : Step::Icw3);
            break;
        case Step::Icw3:
            s.icw3 = value;
            s.step = static_cast<u8>(after_icw3);
            break;
        case Step::Icw4:
            // GAP: MCS-80/85 mode (UPM clear) answers an acknowledge with a CALL, which no x86 understands;
            // the vector is given as in 8086 mode. Buffered mode is about pins this chip does not have.
            s.icw4 = Flags<Icw4>(static_cast<u8>(value & kIcw4Bits));
            s.step = static_cast<u8>(Step::Operation);
            break;
    }
}

// [8259A "Operation control word 2"]
void Chip::write_ocw2(u8 value) {
    State& s = state_;
    const unsigned named = value & 7u;
    // In special mask mode a non-specific end does not see levels that are masked.
    const auto highest = first(static_cast<u8>(s.special_mask != 0 ? s.isr & ~s.imr : s.isr));
    switch (static_cast<Ocw2>(value >> 5)) {
        case Ocw2::RotateInAutoEoiClear: s.rotate_in_aeoi = 0; break;
        case Ocw2::RotateInAutoEoiSet: s.rotate_in_aeoi = 1; break;
        case Ocw2::NonSpecificEoi:
            if (highest) s.isr &= static_cast<u8>(~bit(*highest));
            break;
        case Ocw2::RotateOnNonSpecificEoi:
            if (highest) {
                s.isr &= static_cast<u8>(~bit(*highest));
                rotate_to_bottom(*highest);
            }
            break;
        case Ocw2::SpecificEoi: s.isr &= static_cast<u8>(~bit(named)); break;
        case Ocw2::RotateOnSpecificEoi:
            s.isr &= static_cast<u8>(~bit(named));
            rotate_to_bottom(named);
            break;
        case Ocw2::SetPriority: rotate_to_bottom(named); break;
        case Ocw2::NoOperation: break;
    }
}

// [8259A "Operation control word 3"]
void Chip::write_ocw3(u8 value) {
    const Flags<Ocw3> word(value);
    if (word.has(Ocw3::ESMM)) state_.special_mask = word.has(Ocw3::SMM) ? 1 : 0;
    // Poll overrides a register read asked for at the same time.
    if (word.has(Ocw3::Poll))
        state_.poll = 1;
    else if (word.has(Ocw3::RR))
        state_.read_isr = word.has(Ocw3::RIS) ? 1 : 0;
}

void Chip::visit(StateVisitor& v, unsigned first_id, State& s) {
    auto& [step, icw1, icw2, icw3, icw4, imr, isr, latched, lowest, special_mask, rotate_in_aeoi, read_isr,
           poll, level_inputs] = s;
    v.field(first_id + 0, "step", step);
    v.field(first_id + 1, "icw1", icw1);
    v.field(first_id + 2, "icw2", icw2);
    v.field(first_id + 3, "icw3", icw3);
    v.field(first_id + 4, "icw4", icw4);
    v.field(first_id + 5, "imr", imr);
    v.field(first_id + 6, "isr", isr);
    v.field(first_id + 7, "latched", latched);
    v.field(first_id + 8, "lowest", lowest);
    v.field(first_id + 9, "special_mask", special_mask);
    v.field(first_id + 10, "rotate_in_aeoi", rotate_in_aeoi);
    v.field(first_id + 11, "read_isr", read_isr);
    v.field(first_id + 12, "poll", poll);
    v.field(first_id + 13, "level_inputs", level_inputs);
}

bool Chip::valid(const State& s) {
    return s.step <= static_cast<u8>(Step::Icw4) && s.icw1.raw() <= 0x0f && s.icw4.raw() <= kIcw4Bits &&
           s.lowest < 8 && s.special_mask < 2 && s.rotate_in_aeoi < 2 && s.read_isr < 2 && s.poll < 2;
}

}  // namespace tessera::pic8259
