#include "devices/ne2000/ne2000.h"

#include <algorithm>
#include <utility>

namespace tessera::ne2000 {

namespace {

constexpr u8 kMark = 0x57;  // in the last bytes of the station ROM of boards with 16-bit RAM
constexpr u8 kFloating = 0xff;

constexpr bool is_data_port(u64 first, std::size_t count) {
    return first >= kDataPort && first + count <= kResetPort;
}

}  // namespace

Ne2000::Ne2000(const Config& config, const Around& around, IrqLine interrupt)
    : model_(config.model),
      around_(around),
      chip_(*this, std::move(interrupt)),
      ram_(kRamSize),
      patience_timer_(around.timers, *this) {
    // Every byte twice: in 16-bit slots the ROM is read by words.
    for (std::size_t n = 0; n < station_rom_.size() / 2; ++n) {
        u8 value = 0;
        if (n < config.mac.size()) value = config.mac[n];
        if (n >= station_rom_.size() / 2 - 2) value = kMark;
        station_rom_[2 * n] = station_rom_[2 * n + 1] = value;
    }
}

void Ne2000::plug_in() {
    around_.backend.use_queues(1);
    around_.backend.guest_takes({});
    around_.backend.connect(this);
}

// --- The chip's local bus ---

void Ne2000::read_memory(u16 address, std::span<u8> out) {
    if (address >= kRamBase && u32{address} + out.size() <= u32{kRamBase} + kRamSize) {
        std::ranges::copy(std::span(ram_).subspan(address - kRamBase, out.size()), out.begin());
        return;
    }
    u16 at = address;
    for (u8& byte : out) {
        byte = at < kStationRomEnd        ? station_rom_[at % kStationRomSize]
               : at < kRamBase + kRamSize ? ram_[at - kRamBase]
                                          : kFloating;
        at = static_cast<u16>(at + 1);
    }
}

void Ne2000::write_memory(u16 address, std::span<const u8> in) {
    if (address >= kRamBase && u32{address} + in.size() <= u32{kRamBase} + kRamSize) {
        std::ranges::copy(in, std::span(ram_).subspan(address - kRamBase).begin());
        return;
    }
    u16 at = address;
    for (const u8 byte : in) {
        if (at >= kRamBase && at < kRamBase + kRamSize) ram_[at - kRamBase] = byte;
        at = static_cast<u16>(at + 1);
    }
}

void Ne2000::work_wanted() {
    if (held_since_ns_ || (chip_.transmission() && !waiting_for_backend_)) around_.worker.kick(kQueue);
}

// --- Ports ---

IoStatus Ne2000::read(u64 offset, std::span<std::byte> out) {
    if (out.size() != 1 && out.size() != 2 && out.size() != 4) return IoStatus::BadWidth;
    if (offset >= kPortCount || out.size() > kPortCount - offset) return IoStatus::NoRegister;
    if (is_data_port(offset, out.size())) {
        read_data(out);
    } else {
        auto port = static_cast<unsigned>(offset);
        for (std::byte& byte : out) byte = static_cast<std::byte>(read_port(port++));
    }
    return IoStatus::Ok;
}

IoStatus Ne2000::write(u64 offset, std::span<const std::byte> in) {
    if (in.size() != 1 && in.size() != 2 && in.size() != 4) return IoStatus::BadWidth;
    if (offset >= kPortCount || in.size() > kPortCount - offset) return IoStatus::NoRegister;
    if (is_data_port(offset, in.size())) {
        write_data(in);
    } else {
        auto port = static_cast<unsigned>(offset);
        for (const std::byte byte : in) write_port(port++, std::to_integer<u8>(byte));
    }
    return IoStatus::Ok;
}

// As many cycles of the data port as it takes: of a word each when the chip is set to words, whatever the
// host's width.
void Ne2000::read_data(std::span<std::byte> out) {
    const std::size_t unit = chip_.wide() ? 2 : 1;
    for (auto rest = out; !rest.empty(); rest = rest.subspan(std::min(unit, rest.size()))) {
        std::array<u8, 2> word = {kFloating, kFloating};
        if (!chip_.read_data(std::span(word).first(unit))) word = {kFloating, kFloating};
        for (std::size_t n = 0; n < std::min(unit, rest.size()); ++n)
            rest[n] = static_cast<std::byte>(word[n]);
    }
}

void Ne2000::write_data(std::span<const std::byte> in) {
    const std::size_t unit = chip_.wide() ? 2 : 1;
    for (auto rest = in; !rest.empty(); rest = rest.subspan(std::min(unit, rest.size()))) {
        std::array<u8, 2> word{};
        for (std::size_t n = 0; n < std::min(unit, rest.size()); ++n) word[n] = std::to_integer<u8>(rest[n]);
        (void)chip_.write_data(std::span(word).first(unit));
    }
}

u8 Ne2000::read_port(unsigned port) {
    if (port < kChipRegisters) {
        if (const auto own = read_own_register(port)) return *own;
        return chip_.read_register(port);
    }
    if (port < kResetPort) {
        std::array<std::byte, 1> byte{};
        read_data(byte);
        return std::to_integer<u8>(byte[0]);
    }
    // A read pulls the chip's RESET. What drivers write back afterwards ends it, which it has long.
    chip_.reset();
    registers_.eeprom_command = 0;
    return kFloating;
}

void Ne2000::write_port(unsigned port, u8 value) {
    if (port < kChipRegisters) {
        if (model_ == Model::Rtl8029As && chip_.page() == 3 && port != kCommandRegister)
            write_own_register(port, value);
        else
            chip_.write_register(port, value);
        return;
    }
    if (port < kResetPort) {
        const std::array byte = {static_cast<std::byte>(value)};
        write_data(byte);
    }
}

// --- RTL8029AS ---

std::optional<u8> Ne2000::read_own_register(unsigned number) const {
    if (model_ != Model::Rtl8029As) return std::nullopt;
    if (chip_.page() == 0) {
        if (number == static_cast<unsigned>(Read0::Id0)) return kRealtekId0;
        if (number == static_cast<unsigned>(Read0::Id1)) return kRealtekId1;
    }
    if (chip_.page() != 3 || number == kCommandRegister) return std::nullopt;
    switch (static_cast<Realtek>(number)) {
        case Realtek::EepromCommand: return registers_.eeprom_command;
        case Realtek::Config0:
        case Realtek::HaltClock: return 0;
        case Realtek::Config2: return registers_.config2;
        case Realtek::Config3: return registers_.config3;
        case Realtek::Id0: return kRealtekPciId0;
        case Realtek::Id1: return kRealtekPciId1;
    }
    return 0;
}

void Ne2000::write_own_register(unsigned number, u8 value) {
    const bool unlocked = (registers_.eeprom_command & kEepromModeMask) == kEepromModeConfig;
    const auto merge = [&](u8& target, u8 writable) {
        if (unlocked) target = static_cast<u8>((target & ~writable) | (value & writable));
    };
    switch (static_cast<Realtek>(number)) {
        case Realtek::EepromCommand:
            // GAP: no serial EEPROM hangs at the lines, its output reads as zero.
            registers_.eeprom_command = value & (kEepromModeMask | kEepromOutLines);
            // [RTL8029AS 5] Loading the configuration again is over at once.
            if ((value & kEepromModeMask) == kEepromModeLoad) registers_ = {};
            return;
        case Realtek::Config2: merge(registers_.config2, kConfig2Writable); return;
        case Realtek::Config3: merge(registers_.config3, kConfig3Writable); return;
        case Realtek::Config0:
        case Realtek::HaltClock:
        case Realtek::Id0:
        case Realtek::Id1: return;
    }
}

// --- The cable ---

bool Ne2000::service(unsigned /*queue*/) {
    send();
    return receive();
}

void Ne2000::send() {
    const auto bytes = chip_.transmission();
    if (!bytes) {
        waiting_for_backend_ = false;  // for a frame that was taken back
        return;
    }
    const std::size_t check = chip_.brings_check() ? kFrameCheckSize : 0;
    std::size_t size = *bytes;
    // Others would not take these for frames: the guest hears that they have left.
    bool good = size >= kLeastSent + check && size <= kMostFrame + check;
    if (good) {
        chip_.read_transmission(std::span(frame_).first(size));
        good = check == 0 || check_add(kCheckStart, std::span(frame_).first(size)) == kCheckGood;
        size -= check;
    }
    waiting_for_backend_ = false;
    if (good) {
        NetHeader header;
        const std::array<iovec, 2> pieces = {iovec{.iov_base = &header, .iov_len = sizeof header},
                                             iovec{.iov_base = frame_.data(), .iov_len = size}};
        const NetBackend::Frame frame{.pieces = pieces};
        waiting_for_backend_ = around_.backend.transmit(0, std::span(&frame, 1)) == 0;
    }
    if (!waiting_for_backend_) chip_.transmitted();
}

bool Ne2000::receive() {
    const bool unseen = chip_.unacknowledged();
    unsigned burst = 0;
    for (unsigned n = 0; n < kBudget; ++n) {
        const std::size_t size = around_.backend.next_size(0);
        if (size == 0) {
            held_since_ns_.reset();
            return false;  // frames_waiting() calls again
        }
        const std::size_t frame = size - std::min(size, sizeof(NetHeader));
        if (!chip_.listening() || frame < kLeastSent || frame > kMostFrame) {
            around_.backend.drop(0);
            continue;
        }
        const bool room = chip_.has_room(std::max(frame, kPaddedFrame));
        if (!room || unseen || burst == kBurst) {
            const u64 now = around_.clock.now_ns();
            if (!held_since_ns_) held_since_ns_ = now;
            if (now - *held_since_ns_ < kPatienceNs) {
                patience_timer_.arm(*held_since_ns_ + kPatienceNs);
                return false;  // the driver's next move or the timer calls again
            }
        } else {
            held_since_ns_.reset();
        }
        if (room) {
            receive_one(frame);
            if (chip_.unacknowledged()) ++burst;
        } else {
            chip_.missed();
            around_.backend.drop(0);
        }
    }
    return true;
}

void Ne2000::receive_one(std::size_t size) {
    NetHeader header;
    const std::array<iovec, 2> pieces = {iovec{.iov_base = &header, .iov_len = sizeof header},
                                         iovec{.iov_base = frame_.data(), .iov_len = size}};
    const std::size_t got = around_.backend.receive(0, pieces);
    // Nothing but whole frames was agreed on.
    if (got != sizeof header + size || (header.flags & NetHeader::kNeedsChecksum) != 0 ||
        header.gso_type != NetHeader::kGsoNone)
        return;
    const std::size_t padded = std::max(size, kPaddedFrame);
    std::ranges::fill(std::span(frame_).subspan(size, padded - size), u8{0});
    chip_.receive(std::span(frame_).first(padded));
}

// --- Life ---

void Ne2000::reset() {
    patience_timer_.cancel();
    held_since_ns_.reset();
    std::ranges::fill(ram_, u8{0});
    registers_ = {};
    chip_.reset();
}

void Ne2000::visit(StateVisitor& v, State& s) {
    auto& [chip, registers, ram, held, held_since_ns] = s;
    Dp8390::visit(v, chip);
    auto& [eeprom_command, config2, config3] = registers;
    v.field(kFirstBoardField, "eeprom_command", eeprom_command);
    v.field(kFirstBoardField + 1, "config2", config2);
    v.field(kFirstBoardField + 2, "config3", config3);
    v.field(kFirstBoardField + 3, "ram", ram);
    v.field(kFirstBoardField + 4, "held", held);
    v.field(kFirstBoardField + 5, "held since", held_since_ns);
}

void Ne2000::visit_state(StateVisitor& v) {
    State s{.chip = chip_.state(),
            .registers = registers_,
            .ram = ram_,
            .held = static_cast<u8>(held_since_ns_ ? 1 : 0),
            .held_since_ns = held_since_ns_.value_or(0)};
    visit(v, s);
}

bool Ne2000::valid(const State& s, Model model) {
    const Registers reset;
    const Registers& own = s.registers;
    if (s.ram.size() != kRamSize || !Dp8390::valid(s.chip)) return false;
    if (s.held > 1 || (s.held == 0 && s.held_since_ns != 0)) return false;
    if (model != Model::Rtl8029As)
        return own.eeprom_command == 0 && own.config2 == reset.config2 && own.config3 == reset.config3;
    const u8 mode = own.eeprom_command & kEepromModeMask;
    return (own.eeprom_command & ~(kEepromModeMask | kEepromOutLines)) == 0 && mode != kEepromModeLoad &&
           ((own.config2 ^ reset.config2) & ~kConfig2Writable) == 0 &&
           ((own.config3 ^ reset.config3) & ~kConfig3Writable) == 0;
}

Status Ne2000::load(StateVisitor& v) {
    State next;
    visit(v, next);
    if (v.corrupt() || !valid(next, model_))
        return fail(Errc::CorruptState, "NE2000: the saved state holds values no card can have");
    chip_.restore(next.chip);
    registers_ = next.registers;
    ram_ = std::move(next.ram);
    // What was under way goes on: a frame that waited for the backend is offered to the new one at once, as
    // it is in the card's memory now.
    waiting_for_backend_ = false;
    held_since_ns_.reset();
    if (next.held != 0) held_since_ns_ = std::min(next.held_since_ns, around_.clock.now_ns());
    around_.worker.kick(kQueue);
    return {};
}

}  // namespace tessera::ne2000
