#include "devices/i8042/ps2_mouse.h"

#include <algorithm>
#include <cstdlib>
#include <utility>

namespace tessera::i8042 {

namespace {

// [PS2-TRM] "Mouse commands".
enum Command : u8 {
    Scaling1to1 = 0xe6,
    Scaling2to1 = 0xe7,
    SetResolution = 0xe8,
    StatusRequest = 0xe9,
    SetStream = 0xea,
    ReadData = 0xeb,
    ResetWrap = 0xec,
    SetWrap = 0xee,
    SetRemote = 0xf0,
    ReadId = 0xf2,
    SetSampleRate = 0xf3,
    Enable = 0xf4,
    Disable = 0xf5,
    SetDefault = 0xf6,
    Resend = 0xfe,
    Reset = 0xff,
};

constexpr u8 kAck = 0xfa;
constexpr u8 kAskAgain = 0xfe;
constexpr u8 kError = 0xfc;
constexpr u8 kBatPassed = 0xaa;

constexpr u8 kIdPlain = 0;
constexpr u8 kIdWheel = 3;
constexpr u8 kIdFiveButtons = 4;

constexpr u8 kStatusRemote = 1 << 6;
constexpr u8 kStatusReporting = 1 << 5;
constexpr u8 kStatusScaling = 1 << 4;

constexpr u8 kPacketAlwaysOne = 1 << 3;
constexpr u8 kPacketXSign = 1 << 4;
constexpr u8 kPacketYSign = 1 << 5;

// Movement that no guest collects is kept up to here.
constexpr s32 kMostCounts = 1 << 20;

void add(u32& sum, s32 counts) {
    const s64 total = s64{static_cast<s32>(sum)} + counts;
    sum = static_cast<u32>(static_cast<s32>(std::clamp<s64>(total, -kMostCounts, kMostCounts)));
}

// Takes as much as fits [low, high] out of a sum.
s32 take_part(u32& sum, s32 low, s32 high) {
    const s32 part = std::clamp(static_cast<s32>(sum), low, high);
    sum -= static_cast<u32>(part);
    return part;
}

// [PS2-TRM] "2:1 scaling": in stream mode only.
s32 scale_2to1(s32 counts) {
    constexpr s32 kSmall[] = {0, 1, 1, 3, 6, 9};
    const s32 size = std::abs(counts);
    const s32 scaled = size < 6 ? kSmall[size] : 2 * size;
    return counts < 0 ? -scaled : scaled;
}

}  // namespace

void Ps2Mouse::command(u8 byte) {
    State& s = state_;
    // [PS2-TRM] In wrap mode all but two commands come back as they are.
    if (s.wrap != 0 && byte != Reset && byte != ResetWrap) {
        s.output.clear();
        s.output.push(byte);
        return;
    }
    // Reset always gets through, even as an argument.
    if (const u8 pending = std::exchange(s.pending, u8{0}); pending != 0 && byte != Reset)
        take_argument(pending, byte);
    else
        start_command(byte);
}

void Ps2Mouse::start_command(u8 byte) {
    State& s = state_;
    const u8 bad_before = std::exchange(s.bad_commands, u8{0});
    switch (byte) {
        case Scaling1to1: s.scaling_2to1 = 0; break;
        case Scaling2to1: s.scaling_2to1 = 1; break;
        case SetResolution:
        case SetSampleRate: s.pending = byte; break;
        case StatusRequest: send_status(); return;
        case SetStream:
            s.mode = static_cast<u8>(Mode::Stream);
            forget_movement();
            break;
        case ReadData:
            answer(kAck);
            send_packet();
            return;
        case ResetWrap: s.wrap = 0; break;
        case SetWrap: s.wrap = 1; break;
        case SetRemote:
            s.mode = static_cast<u8>(Mode::Remote);
            forget_movement();
            break;
        case ReadId: {
            const std::array<u8, 2> id = {kAck, s.id};
            answer(id);
            return;
        }
        case Enable:
            s.reporting = 1;
            forget_movement();
            break;
        case Disable: s.reporting = 0; break;
        case SetDefault: set_default(); break;
        case Resend: {
            const ByteQueue<8> last = s.last;
            s.output = last;
            return;
        }
        case Reset: {
            const u8 down = s.buttons;
            s = State{};
            s.buttons = s.buttons_sent = down;
            constexpr std::array<u8, 3> kDone = {kAck, kBatPassed, kIdPlain};
            answer(kDone);
            return;
        }
        default:
            // [PS2-TRM] The second bad byte in a row is answered with an error.
            s.bad_commands = 1;
            answer(bad_before != 0 ? kError : kAskAgain);
            return;
    }
    answer(kAck);
}

void Ps2Mouse::take_argument(u8 command, u8 byte) {
    State& s = state_;
    const bool good = command == SetResolution ? byte <= 3 : byte >= 1 && byte <= 200;
    if (!good) {
        // The command goes on waiting; the second bad byte in a row ends it.
        const bool again = s.bad_commands == 0;
        s.bad_commands = again ? 1 : 0;
        if (again) s.pending = command;
        answer(again ? kAskAgain : kError);
        return;
    }
    s.bad_commands = 0;
    if (command == SetResolution)
        s.resolution = byte;
    else
        set_sample_rate(byte);
    answer(kAck);
}

// [MS-WHEEL] Rates 200, 100, 80 unlock the wheel; 200, 200, 80 after that the fourth and fifth button.
void Ps2Mouse::set_sample_rate(u8 rate) {
    State& s = state_;
    const auto& before = s.rates_before;
    if (rate == 80 && before[1] == 200) {
        if (before[0] == 100 && s.id == kIdPlain) s.id = kIdWheel;
        if (before[0] == 200 && s.id == kIdWheel) s.id = kIdFiveButtons;
    }
    s.rates_before = {rate, before[0]};
    s.sample_rate = rate;
}

void Ps2Mouse::set_default() {
    State& s = state_;
    const State fresh;
    s.mode = fresh.mode;
    s.reporting = fresh.reporting;
    s.scaling_2to1 = fresh.scaling_2to1;
    s.resolution = fresh.resolution;
    s.sample_rate = fresh.sample_rate;
    forget_movement();
}

// A new answer takes the place of whatever the system has not read: it gave up on that when it sent a
// command.
void Ps2Mouse::answer(std::span<const u8> bytes) {
    State& s = state_;
    s.output.clear();
    s.output.push(bytes);
    s.last = s.output;
}

void Ps2Mouse::send_status() {
    const State& s = state_;
    const auto bit = [](bool on, u8 mask) { return on ? mask : u8{0}; };
    const auto down = [&](MouseButton b) { return (s.buttons & static_cast<u8>(b)) != 0; };
    u8 first = bit(s.mode == static_cast<u8>(Mode::Remote), kStatusRemote);
    first |= bit(s.reporting != 0, kStatusReporting);
    first |= bit(s.scaling_2to1 != 0, kStatusScaling);
    // The status has its buttons in another order than the packets.
    first |= bit(down(MouseButton::Left), 1 << 2);
    first |= bit(down(MouseButton::Middle), 1 << 1);
    first |= bit(down(MouseButton::Right), 1 << 0);
    const std::array<u8, 4> status = {kAck, first, s.resolution, s.sample_rate};
    answer(status);
}

void Ps2Mouse::forget_movement() {
    State& s = state_;
    s.dx = s.dy = s.dz = 0;
    s.buttons_sent = s.buttons;
}

bool Ps2Mouse::packet_due() const {
    const State& s = state_;
    if (s.reporting == 0 || s.wrap != 0 || s.mode != static_cast<u8>(Mode::Stream) || s.pending != 0)
        return false;
    const u8 shown = s.id == kIdFiveButtons ? 0x1f : 0x07;
    return s.dx != 0 || s.dy != 0 || (s.dz != 0 && s.id != kIdPlain) ||
           ((s.buttons ^ s.buttons_sent) & shown) != 0;
}

// Appends a movement packet. Movement beyond one packet stays for the next, so the overflow bits are never
// needed.
void Ps2Mouse::send_packet() {
    State& s = state_;
    // Doubling must not leave the nine bits either.
    const bool doubled = s.scaling_2to1 != 0 && s.mode == static_cast<u8>(Mode::Stream);
    const s32 most = doubled ? 127 : 255;
    s32 x = take_part(s.dx, -most, most);
    s32 y = take_part(s.dy, -most, most);
    if (doubled) {
        x = scale_2to1(x);
        y = scale_2to1(y);
    }
    u8 first = kPacketAlwaysOne | (s.buttons & 0x07);
    if (x < 0) first |= kPacketXSign;
    if (y < 0) first |= kPacketYSign;
    std::array<u8, 4> packet = {first, static_cast<u8>(x), static_cast<u8>(y), 0};
    std::size_t length = 3;
    if (s.id == kIdPlain) {
        s.dz = 0;
    } else {
        const auto z = static_cast<u8>(take_part(s.dz, -8, 7));
        packet[3] = s.id == kIdWheel ? z : static_cast<u8>((z & 0x0f) | (s.buttons & 0x18) << 1);
        length = 4;
    }
    s.buttons_sent = s.buttons;
    s.output.push(std::span(packet).first(length));
    s.last.clear();
    s.last.push(std::span(packet).first(length));
}

std::optional<u8> Ps2Mouse::take() {
    if (state_.output.empty() && packet_due()) send_packet();
    return state_.output.pop();
}

void Ps2Mouse::move(s32 x, s32 y, s32 wheel) {
    State& s = state_;
    if (s.reporting == 0 && s.mode == static_cast<u8>(Mode::Stream)) return;
    // Bounded first, because the least s32 has no negative.
    const auto bounded = [](s32 counts) { return std::clamp(counts, -kMostCounts, kMostCounts); };
    add(s.dx, bounded(x));
    add(s.dy, -bounded(y));
    add(s.dz, -bounded(wheel));
}

void Ps2Mouse::buttons(u8 down) {
    state_.buttons = down & 0x1f;
}

bool Ps2Mouse::visit(StateVisitor& v, State& s) {
    auto& [mode, wrap, reporting, scaling_2to1, resolution, sample_rate, id, rates_before, pending,
           bad_commands, down, buttons_sent, dx, dy, dz, output, last] = s;
    constexpr unsigned kId0 = kFirstFieldId;
    v.field(kId0 + 0, "mouse_mode", mode);
    v.field(kId0 + 1, "mouse_wrap", wrap);
    v.field(kId0 + 2, "mouse_reporting", reporting);
    v.field(kId0 + 3, "mouse_scaling_2to1", scaling_2to1);
    v.field(kId0 + 4, "mouse_resolution", resolution);
    v.field(kId0 + 5, "mouse_sample_rate", sample_rate);
    v.field(kId0 + 6, "mouse_id", id);
    v.field(kId0 + 7, "mouse_pending", pending);
    v.field(kId0 + 8, "mouse_bad_commands", bad_commands);
    v.field(kId0 + 9, "mouse_buttons", down);
    v.field(kId0 + 10, "mouse_buttons_sent", buttons_sent);
    v.field(kId0 + 11, "mouse_dx", dx);
    v.field(kId0 + 12, "mouse_dy", dy);
    v.field(kId0 + 13, "mouse_dz", dz);
    bool good = visit_array(v, kId0 + 14, "mouse_rates_before", rates_before);
    good = output.visit(v, kId0 + 15, "mouse_output") && good;
    good = last.visit(v, kId0 + 16, "mouse_last") && good;
    return good;
}

bool Ps2Mouse::plausible() const {
    const State& s = state_;
    const auto bounded = [](u32 sum) { return std::abs(s64{static_cast<s32>(sum)}) <= kMostCounts; };
    return s.mode <= 1 && s.wrap <= 1 && s.reporting <= 1 && s.scaling_2to1 <= 1 && s.resolution <= 3 &&
           s.sample_rate >= 1 && s.sample_rate <= 200 &&
           (s.id == kIdPlain || s.id == kIdWheel || s.id == kIdFiveButtons) &&
           (s.pending == 0 || s.pending == SetResolution || s.pending == SetSampleRate) &&
           s.bad_commands <= 1 && s.buttons <= 0x1f && s.buttons_sent <= 0x1f && bounded(s.dx) &&
           bounded(s.dy) && bounded(s.dz);
}

}  // namespace tessera::i8042
