#include "devices/i8042/ps2_keyboard.h"

#include <algorithm>

namespace tessera::i8042 {

namespace {

// [PS2-TRM] "Commands from the system".
enum Command : u8 {
    SetLeds = 0xed,
    Echo = 0xee,
    SelectScanSet = 0xf0,
    Identify = 0xf2,
    SetTypematic = 0xf3,
    Enable = 0xf4,
    DefaultDisable = 0xf5,
    SetDefault = 0xf6,
    AllTypematic = 0xf7,
    AllMakeBreak = 0xf8,
    AllMake = 0xf9,
    AllTypematicMakeBreak = 0xfa,
    KeyTypematic = 0xfb,
    KeyMakeBreak = 0xfc,
    KeyMake = 0xfd,
    Resend = 0xfe,
    Reset = 0xff,
};
constexpr u8 kLowestCommand = SetLeds;

// [PS2-TRM] "Commands to the system".
constexpr u8 kAck = 0xfa;
constexpr u8 kAskAgain = 0xfe;
constexpr u8 kBatPassed = 0xaa;
constexpr u8 kId[2] = {0xab, 0x83};
constexpr u8 kBreak3 = 0xf0;

constexpr u8 overrun_code(u8 scan_set) {
    return scan_set == static_cast<u8>(ScanSet::One) ? 0xff : 0x00;
}

}  // namespace

void Ps2Keyboard::command(u8 byte) {
    State& s = state_;
    const u8 pending = s.pending;
    if (pending != 0 && byte < kLowestCommand && take_argument(pending, byte)) return;
    // [PS2-TRM] A command in place of an argument ends the first command.
    s.pending = 0;
    start_command(byte);
}

void Ps2Keyboard::start_command(u8 byte) {
    State& s = state_;
    // Unread answers belong to commands the system has given up.
    if (byte != Resend) s.replies.clear();
    switch (byte) {
        case Echo: s.replies.push(Echo); return;
        case Resend: s.replies.push(s.last_sent); return;
        case SetLeds:
        case SelectScanSet:
        case SetTypematic:
        case KeyTypematic:
        case KeyMakeBreak:
        case KeyMake: s.pending = byte; break;
        case Identify:
            s.replies.push(kAck);
            s.replies.push(kId);
            return;
        case Enable:
            clear_codes();
            s.scanning = 1;
            break;
        case DefaultDisable:
            set_default();
            s.scanning = 0;
            break;
        case SetDefault: set_default(); break;
        case AllTypematic: s.types3.fill(static_cast<u8>(KeyType::Typematic)); break;
        case AllMakeBreak: s.types3.fill(static_cast<u8>(KeyType::MakeBreak)); break;
        case AllMake: s.types3.fill(static_cast<u8>(KeyType::MakeOnly)); break;
        case AllTypematicMakeBreak: s.types3.fill(static_cast<u8>(KeyType::TypematicMakeBreak)); break;
        case Reset:
            s = State{};
            s.replies.push(kAck);
            s.replies.push(kBatPassed);
            return;
        default: s.replies.push(kAskAgain); return;
    }
    s.replies.push(kAck);
}

// True when the byte was the argument; an argument out of range is asked for again.
bool Ps2Keyboard::take_argument(u8 command, u8 byte) {
    State& s = state_;
    switch (command) {
        case SetLeds: s.leds = byte & 0x07; break;
        case SetTypematic: s.typematic = byte & 0x7f; break;
        case SelectScanSet:
            if (byte > static_cast<u8>(ScanSet::Three)) {
                s.replies.push(kAskAgain);
                return true;
            }
            if (byte == 0) {
                s.pending = 0;
                s.replies.push(kAck);
                s.replies.push(s.scan_set);
                return true;
            }
            s.scan_set = byte;
            clear_codes();
            stop_repeat();
            break;
        case KeyTypematic:
        case KeyMakeBreak:
        case KeyMake: {
            // A list of keys, ended by the next command.
            constexpr KeyType kTypes[] = {KeyType::Typematic, KeyType::MakeBreak, KeyType::MakeOnly};
            if (byte < kSet3Codes) s.types3[byte] = static_cast<u8>(kTypes[command - KeyTypematic]);
            s.replies.push(kAck);
            return true;
        }
        default: return false;
    }
    s.pending = 0;
    s.replies.push(kAck);
    return true;
}

void Ps2Keyboard::set_default() {
    State& s = state_;
    clear_codes();
    s.typematic = kDefaultTypematic;
    s.types3 = default_set3_types();
    s.pressed = {};
    stop_repeat();
}

void Ps2Keyboard::clear_codes() {
    state_.codes.clear();
    state_.overrun_queued = 0;
}

void Ps2Keyboard::stop_repeat() {
    state_.repeat_usage = 0;
    state_.repeat_ns = Timer::kIdle;
}

std::optional<u8> Ps2Keyboard::take() {
    State& s = state_;
    const auto byte = s.replies.empty() ? s.codes.pop() : s.replies.pop();
    if (s.codes.empty()) clear_codes();
    // [PS2-TRM] Resend repeats the last byte that was not itself a Resend.
    if (byte && *byte != kAskAgain) s.last_sent = *byte;
    return byte;
}

bool Ps2Keyboard::is_pressed(u8 usage) const {
    return (state_.pressed[usage / 8] >> (usage % 8) & 1) != 0;
}

void Ps2Keyboard::set_pressed(u8 usage, bool on) {
    u8& bits = state_.pressed[usage / 8];
    const u8 bit = static_cast<u8>(1U << (usage % 8));
    bits = static_cast<u8>(on ? bits | bit : bits & ~bit);
}

Modifiers Ps2Keyboard::modifiers() const {
    return {.control = is_pressed(kUsageLeftControl) || is_pressed(kUsageRightControl),
            .alt = is_pressed(kUsageLeftAlt) || is_pressed(kUsageRightAlt)};
}

// [PS2-TRM] "Keyboard buffer": what does not fit is lost and replaced by one overrun code.
void Ps2Keyboard::send(std::span<const u8> codes) {
    State& s = state_;
    if (codes.empty()) return;
    if (s.codes.size() + codes.size() <= kCodeDepth && s.overrun_queued == 0) {
        s.codes.push(codes);
        return;
    }
    if (s.overrun_queued == 0 && s.codes.push(overrun_code(s.scan_set))) s.overrun_queued = 1;
}

void Ps2Keyboard::send_make(const Key& key) {
    const auto set = static_cast<ScanSet>(state_.scan_set);
    if (set != ScanSet::Three)
        send(make_sequence(key, set, modifiers()).span());
    else if (key.set3 != 0)
        send(std::span(&key.set3, 1));
}

void Ps2Keyboard::send_break(const Key& key) {
    const auto set = static_cast<ScanSet>(state_.scan_set);
    if (set != ScanSet::Three) {
        send(break_sequence(key, set, modifiers()).span());
        return;
    }
    const KeyType type = type3(key);
    if (key.set3 == 0 || (type != KeyType::MakeBreak && type != KeyType::TypematicMakeBreak)) return;
    const std::array<u8, 2> codes = {kBreak3, key.set3};
    send(codes);
}

bool Ps2Keyboard::repeats(const Key& key) const {
    if (static_cast<ScanSet>(state_.scan_set) != ScanSet::Three) return key.usage != kUsagePause;
    const KeyType type = type3(key);
    return key.set3 != 0 && (type == KeyType::Typematic || type == KeyType::TypematicMakeBreak);
}

bool Ps2Keyboard::key(u8 usage, KeyAction action, u64 now_ns) {
    State& s = state_;
    const Key* key = find_key(usage);
    if (key == nullptr) return false;
    if (s.scanning == 0) return true;
    const bool press = action == KeyAction::Press;
    // The host repeats held keys too; repeating is this keyboard's own business.
    if (press == is_pressed(usage)) return true;
    if (press) {
        send_make(*key);
        set_pressed(usage, true);
        stop_repeat();
        if (repeats(*key)) {
            s.repeat_usage = usage;
            s.repeat_ns = now_ns + repeat_delay_ns();
        }
        return true;
    }
    set_pressed(usage, false);
    send_break(*key);
    if (s.repeat_usage == usage) stop_repeat();
    return true;
}

// [PS2-TRM] "Set Typematic Rate/Delay".
u64 Ps2Keyboard::repeat_delay_ns() const {
    return ((state_.typematic >> 5 & 3) + u64{1}) * 250'000'000;
}

u64 Ps2Keyboard::repeat_period_ns() const {
    const u64 mantissa = 8 + (state_.typematic & 7);
    const unsigned exponent = state_.typematic >> 3 & 3;
    return (mantissa << exponent) * 4'170'000;
}

void Ps2Keyboard::repeat(u64 now_ns) {
    State& s = state_;
    if (s.repeat_ns == Timer::kIdle || now_ns < s.repeat_ns) return;
    const Key* key = find_key(s.repeat_usage);
    if (key == nullptr) {
        stop_repeat();
        return;
    }
    // A guest that does not read gets no backlog of repeats.
    if (s.codes.empty()) send_make(*key);
    s.repeat_ns = std::max(s.repeat_ns, now_ns) + repeat_period_ns();
}

bool Ps2Keyboard::visit(StateVisitor& v, State& s) {
    auto& [leds, scan_set, typematic, scanning, pending, last_sent, repeat_usage, overrun_queued, repeat_ns,
           replies, codes, pressed, types3] = s;
    constexpr unsigned kId0 = kFirstFieldId;
    v.field(kId0 + 0, "kbd_leds", leds);
    v.field(kId0 + 1, "kbd_scan_set", scan_set);
    v.field(kId0 + 2, "kbd_typematic", typematic);
    v.field(kId0 + 3, "kbd_scanning", scanning);
    v.field(kId0 + 4, "kbd_pending", pending);
    v.field(kId0 + 5, "kbd_last_sent", last_sent);
    v.field(kId0 + 6, "kbd_repeat_usage", repeat_usage);
    v.field(kId0 + 7, "kbd_overrun_queued", overrun_queued);
    v.field(kId0 + 8, "kbd_repeat_ns", repeat_ns);
    bool good = replies.visit(v, kId0 + 9, "kbd_replies");
    good = codes.visit(v, kId0 + 10, "kbd_codes") && good;
    good = visit_array(v, kId0 + 11, "kbd_pressed", pressed) && good;
    good = visit_array(v, kId0 + 12, "kbd_types3", types3) && good;
    return good;
}

bool Ps2Keyboard::plausible() const {
    const State& s = state_;
    return s.leds <= 7 && s.scan_set >= 1 && s.scan_set <= 3 && s.typematic <= 0x7f && s.scanning <= 1 &&
           s.overrun_queued <= 1 && std::ranges::all_of(s.types3, [](u8 t) {
               return t <= static_cast<u8>(KeyType::TypematicMakeBreak);
           });
}

}  // namespace tessera::i8042
