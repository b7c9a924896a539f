// The registers of the local APIC as the guest sees them: the xAPIC page and the x2APIC MSRs.
#include <algorithm>

#include "base/flags.h"
#include "devices/lapic/lapic.h"

namespace tessera::lapic {

namespace {

constexpr u32 bit(LvtBit b) {
    return static_cast<u32>(b);
}

// What software may write into an entry [SDM 3A Figure 11-8].
constexpr u32 lvt_writable(Lvt entry) {
    switch (entry) {
        case Lvt::Timer: return 0x700ff;
        case Lvt::Lint0:
        case Lvt::Lint1: return 0x1a7ff;
        case Lvt::Error: return 0x100ff;
        case Lvt::Cmci:
        case Lvt::Thermal:
        case Lvt::Performance: break;
    }
    return 0x107ff;
}

constexpr u32 lvt_read_only(Lvt entry) {
    const bool pin = entry == Lvt::Lint0 || entry == Lvt::Lint1;
    return bit(LvtBit::DeliveryStatus) | (pin ? bit(LvtBit::RemoteIrr) : 0);
}

constexpr std::optional<Lvt> lvt_of(Register reg) {
    switch (reg) {
        case Register::LvtCmci: return Lvt::Cmci;
        case Register::LvtTimer: return Lvt::Timer;
        case Register::LvtThermal: return Lvt::Thermal;
        case Register::LvtPerformance: return Lvt::Performance;
        case Register::LvtLint0: return Lvt::Lint0;
        case Register::LvtLint1: return Lvt::Lint1;
        case Register::LvtError: return Lvt::Error;
        default: return std::nullopt;
    }
}

constexpr bool in_bank(Register reg, Register first) {
    return reg >= first && static_cast<u8>(reg) < static_cast<u8>(first) + 8;
}
constexpr unsigned bank_index(Register reg, Register first) {
    return static_cast<unsigned>(reg) - static_cast<unsigned>(first);
}

// [SDM 3A Table 11-6] In x2APIC mode everything not listed, and every bit not listed, faults.
struct MsrRule {
    bool readable = false;
    bool writable = false;
    u64 bits = 0;  // that may be set in a write
};

constexpr MsrRule msr_rule(Register reg) {
    if (in_bank(reg, Register::Isr0) || in_bank(reg, Register::Tmr0) || in_bank(reg, Register::Irr0))
        return {.readable = true};
    if (const auto entry = lvt_of(reg))
        return {.readable = true, .writable = true, .bits = lvt_writable(*entry) | lvt_read_only(*entry)};
    switch (reg) {
        case Register::Id:
        case Register::Version:
        case Register::Ppr:
        case Register::Ldr:
        case Register::CurrentCount: return {.readable = true};
        case Register::Tpr: return {.readable = true, .writable = true, .bits = 0xff};
        case Register::Eoi: return {.writable = true};
        case Register::Svr: return {.readable = true, .writable = true, .bits = kSvrBits};
        case Register::Esr: return {.readable = true, .writable = true};
        case Register::Icr:
            // The busy bit is gone, but software of xAPIC times writes back what it read.
            return {.readable = true, .writable = true, .bits = u64{0xffff'ffff} << 32 | kIcrBits};
        case Register::InitialCount: return {.readable = true, .writable = true, .bits = 0xffff'ffff};
        case Register::DivideConfiguration: return {.readable = true, .writable = true, .bits = 0x0b};
        case Register::SelfIpi: return {.writable = true, .bits = 0xff};
        default: return {};
    }
}

constexpr u32 kMaxLvtEntry = 6;
// [SDM 3A Figure 11-7] A current version, with suppression of EOI broadcasts.
constexpr u32 kVersion = 0x15 | kMaxLvtEntry << 16 | 1u << 24;

}  // namespace

std::optional<u32> Lapic::read(Register reg) {
    if (!inbox_.empty()) merge_inbox();
    if (in_bank(reg, Register::Isr0)) return state_.isr.part(bank_index(reg, Register::Isr0));
    if (in_bank(reg, Register::Tmr0)) return state_.tmr.part(bank_index(reg, Register::Tmr0));
    if (in_bank(reg, Register::Irr0)) return state_.irr.part(bank_index(reg, Register::Irr0));
    if (const auto entry = lvt_of(reg)) return lvt(*entry);
    const bool x2apic = mode() == Mode::X2apic;
    switch (reg) {
        case Register::Id: return x2apic ? config_.apic_id : config_.apic_id << 24;
        case Register::Version: return kVersion;
        case Register::Tpr: return state_.tpr;
        case Register::Apr: return arbitration_priority();
        case Register::Ppr: return ppr();
        case Register::Eoi:  // write only; reads of the page have no fault
        case Register::Rrd: return 0;
        case Register::Ldr: return x2apic ? logical_id() : state_.ldr;
        case Register::Dfr: return state_.dfr;
        case Register::Svr: return state_.svr;
        case Register::Esr: return state_.esr;
        case Register::Icr: return static_cast<u32>(state_.icr);
        case Register::IcrHigh: return static_cast<u32>(state_.icr >> 32);
        case Register::InitialCount: return timer_.initial_count();
        case Register::CurrentCount: return timer_.current_count();
        case Register::DivideConfiguration: return timer_.divide();
        default: return std::nullopt;
    }
}

// [SDM 3A 11.6.2.4] Used by lowest-priority arbitration on the P6's serial bus; kept readable.
u8 Lapic::arbitration_priority() const {
    const unsigned tpr = state_.tpr;
    const unsigned requested = static_cast<unsigned>(std::max(state_.irr.highest(), 0));
    const unsigned in_service = static_cast<unsigned>(std::max(state_.isr.highest(), 0));
    if (tpr >> 4 >= requested >> 4 && tpr >> 4 > in_service >> 4) return static_cast<u8>(tpr);
    return static_cast<u8>(std::max({tpr >> 4 & in_service >> 4, requested >> 4, in_service >> 4}) << 4);
}

// Values have passed the x2APIC checks, or come from the xAPIC page where unknown bits are dropped.
bool Lapic::write(Register reg, u32 value) {
    if (!inbox_.empty()) merge_inbox();
    if (reg == Register::Eoi) {
        end_of_interrupt();
        return true;
    }
    const bool before = deliverable_;
    if (const auto entry = lvt_of(reg)) {
        write_lvt(*entry, value);
    } else {
        switch (reg) {
            case Register::Tpr: state_.tpr = static_cast<u8>(value); break;
            case Register::Ldr: state_.ldr = value & 0xff00'0000; break;
            case Register::Dfr: state_.dfr = value | 0x0fff'ffff; break;
            case Register::Svr: write_svr(value); break;
            case Register::Esr:
                // [SDM 3A 11.5.3] A write shows what was logged since the last one and re-arms the error
                // interrupt.
                state_.esr = state_.esr_pending;
                state_.esr_pending = 0;
                break;
            case Register::Icr: {
                const u32 low = value & kIcrBits & ~static_cast<u32>(Icr::Busy);
                state_.icr = (state_.icr & ~u64{0xffff'ffff}) | low;
                send_ipi(low, wide_destination(static_cast<u8>(state_.icr >> 56)));
                break;
            }
            case Register::IcrHigh:
                state_.icr = (state_.icr & 0xffff'ffff) | u64{value & 0xff00'0000} << 32;
                break;
            case Register::InitialCount:
                timer_.set_initial_count(value);
                run_timer();
                break;
            case Register::DivideConfiguration: timer_.set_divide(value); break;
            // Read only: writes are dropped. The APIC ID is fixed, as on current processors.
            case Register::Id:
            case Register::Version:
            case Register::Apr:
            case Register::Ppr:
            case Register::Rrd:
            case Register::CurrentCount: return true;
            default:
                return in_bank(reg, Register::Isr0) || in_bank(reg, Register::Tmr0) ||
                       in_bank(reg, Register::Irr0);
        }
    }
    publish();
    refresh();
    wake_if_news(before);
    return true;
}

void Lapic::write_lvt(Lvt entry, u32 value) {
    const u32 writable = lvt_writable(entry);
    u32 next = value & writable;
    // [SDM 3A 11.4.7.2] While disabled by software the masks stay set.
    if (!software_enabled()) next |= bit(LvtBit::Masked);
    const bool pin = entry == Lvt::Lint0 || entry == Lvt::Lint1;
    const bool level = (next & bit(LvtBit::Level)) != 0 && (next >> 8 & 7) == 0;
    if (pin && level) next |= lvt(entry) & bit(LvtBit::RemoteIrr);
    lvt(entry) = next;
    if (entry == Lvt::Timer) {
        timer_.set_mode(static_cast<TimerMode>(next >> 17 & 3));
        run_timer();
    }
    if (pin) deliver_pin(entry, false, false);
}

void Lapic::write_svr(u32 value) {
    state_.svr = value & kSvrBits;
    if (!software_enabled())
        for (u32& entry : state_.lvt) entry |= bit(LvtBit::Masked);
    publish();
}

void Lapic::send_self(u8 vector) {
    if (software_enabled()) accept_vector(vector, TriggerMode::Edge);
}

bool Lapic::send_physical(u32 icr_low, u32 apic_id) {
    constexpr u32 kVectorAndMode = 0x7ff;
    if (mode() == Mode::Disabled || !software_enabled()) return false;
    const bool before = deliverable_;
    send_ipi(icr_low & kVectorAndMode, apic_id);
    refresh();
    wake_if_news(before);
    return true;
}

// [SDM 3A 11.6.1], valid combinations in [SDM 3A Table 11-3]; the invalid ones are not sent.
void Lapic::send_ipi(u32 low, u32 destination) {
    const auto delivery = static_cast<DeliveryMode>(low >> 8 & 7);
    const auto shorthand = static_cast<Shorthand>(low >> 18 & 3);
    const auto vector = static_cast<u8>(low);
    const Flags<Icr> flags(low);
    const bool vectored = delivery == DeliveryMode::Fixed || delivery == DeliveryMode::LowestPriority;
    if (delivery == DeliveryMode::Reserved || delivery == DeliveryMode::ExtInt) return;
    // "INIT level de-assert" is of the 82489DX and no CPU since the Pentium 4 sends it.
    if (delivery == DeliveryMode::Init && flags.has(Icr::Level) && !flags.has(Icr::Assert)) return;
    if (vectored && vector < kFirstLegalVector) return log_error(Esr::SendIllegalVector);

    ApicMessage message;
    message.destination = destination;
    message.destination_mode = flags.has(Icr::Logical) ? DestinationMode::Logical : DestinationMode::Physical;
    message.delivery_mode = delivery;
    message.vector = vector;
    message.trigger = TriggerMode::Edge;  // [SDM 3A 11.6.1] the trigger bit is ignored but for INIT
    switch (shorthand) {
        case Shorthand::None:
            if (delivery == DeliveryMode::Fixed && message.destination_mode == DestinationMode::Physical &&
                destination == config_.apic_id)
                return send_self(vector);
            break;
        case Shorthand::Self:
            if (delivery == DeliveryMode::Fixed) send_self(vector);
            return;
        case Shorthand::AllIncludingSelf:
            if (delivery != DeliveryMode::Fixed) return;
            message.destination_mode = DestinationMode::Physical;
            message.destination = ApicMessage::kBroadcast;
            break;
        case Shorthand::AllExcludingSelf:
            message.destination_mode = DestinationMode::Physical;
            message.destination = ApicMessage::kBroadcast;
            message.except = config_.apic_id;
            break;
    }
    fabric_.deliver(message);
}

// --- The xAPIC page.

bool Lapic::owns_page(u64 page) const {
    return mode() == Mode::Xapic && (page ^ state_.apic_base) >> 12 == 0;
}

u32 Lapic::read_register(u32 offset) {
    // [SDM 3A 11.4.1] Registers stand at multiples of 16; what lies between reads as nothing.
    if (mode() != Mode::Xapic || offset > 0xff0 || (offset & 0xf) != 0) return 0;
    const auto value = read(static_cast<Register>(offset >> 4));
    if (!value) illegal_register();
    return value.value_or(0);
}

void Lapic::write_register(u32 offset, u32 value) {
    if (mode() != Mode::Xapic || offset > 0xff0 || (offset & 0xf) != 0) return;
    if (!write(static_cast<Register>(offset >> 4), value)) illegal_register();
}

void Lapic::illegal_register() {
    const bool before = deliverable_;
    log_error(Esr::IllegalRegister);
    refresh();
    wake_if_news(before);
}

// --- MSRs.

// [SDM 3A 11.12.5] Legal transitions only. EXTD without EN, x2APIC from disabled, and x2APIC straight to
// xAPIC fault.
MsrResult Lapic::write_apic_base(u64 value) {
    State next = state_;
    next.apic_base = value;
    if (!valid(next)) return MsrResult::GeneralProtection;
    const Mode from = mode();
    const Flags<ApicBase> flags(value);
    const Mode to = !flags.has(ApicBase::EN)    ? Mode::Disabled
                    : flags.has(ApicBase::EXTD) ? Mode::X2apic
                                                : Mode::Xapic;
    if (from == Mode::Disabled && to == Mode::X2apic) return MsrResult::GeneralProtection;
    if (from == Mode::X2apic && to == Mode::Xapic) return MsrResult::GeneralProtection;
    const bool before = deliverable_;
    state_.apic_base = value;
    if (from != Mode::Disabled && to == Mode::Disabled) {
        // [SDM 3A 11.4.3] Re-enabling finds it as after power-up. NMI and its like are the CPU's already.
        const u32 events = state_.events & ~static_cast<u32>(Post::ExtInt);
        state_ = initial_state(value);
        state_.events = events;
        state_.pins = inbox_.pins();
        timer_.reset();
    }
    if (from == Mode::Xapic && to == Mode::X2apic) state_.icr &= 0xffff'ffff;
    publish();
    refresh();
    wake_if_news(before);
    return MsrResult::Ok;
}

MsrResult Lapic::read_x2apic(Register reg, u64& value) {
    if (!msr_rule(reg).readable) return MsrResult::GeneralProtection;
    if (reg == Register::Icr) {
        value = state_.icr;
        return MsrResult::Ok;
    }
    value = read(reg).value_or(0);
    return MsrResult::Ok;
}

MsrResult Lapic::write_x2apic(Register reg, u64 value) {
    const MsrRule rule = msr_rule(reg);
    if (!rule.writable || (value & ~rule.bits) != 0) return MsrResult::GeneralProtection;
    if (reg == Register::Icr || reg == Register::SelfIpi) {
        if (!inbox_.empty()) merge_inbox();
        const bool before = deliverable_;
        if (reg == Register::Icr) {
            state_.icr = value & ~static_cast<u64>(Icr::Busy);
            send_ipi(static_cast<u32>(state_.icr), static_cast<u32>(value >> 32));
        } else {
            send_self(static_cast<u8>(value));
        }
        refresh();
        wake_if_news(before);
        return MsrResult::Ok;
    }
    (void)write(reg, static_cast<u32>(value));
    return MsrResult::Ok;
}

MsrResult Lapic::read_msr(u32 index, u64& value) {
    if (index == kMsrApicBase) {
        value = state_.apic_base;
        return MsrResult::Ok;
    }
    if (index == kMsrTscDeadline) {
        // What fell due but was not seen yet reads as disarmed.
        run_timer_and_refresh();
        value = timer_.deadline();
        return MsrResult::Ok;
    }
    if (index < kMsrX2apicFirst || index > kMsrX2apicLast) return MsrResult::NotMine;
    if (mode() != Mode::X2apic) return MsrResult::GeneralProtection;
    return read_x2apic(static_cast<Register>(index - kMsrX2apicFirst), value);
}

MsrResult Lapic::write_msr(u32 index, u64 value) {
    if (index == kMsrApicBase) {
        if (!inbox_.empty()) merge_inbox();
        return write_apic_base(value);
    }
    if (index == kMsrTscDeadline) {
        timer_.set_deadline(value);
        run_timer_and_refresh();
        return MsrResult::Ok;
    }
    if (index < kMsrX2apicFirst || index > kMsrX2apicLast) return MsrResult::NotMine;
    if (mode() != Mode::X2apic) return MsrResult::GeneralProtection;
    return write_x2apic(static_cast<Register>(index - kMsrX2apicFirst), value);
}

}  // namespace tessera::lapic
