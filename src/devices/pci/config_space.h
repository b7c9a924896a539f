// A function's configuration space: header, base address registers, interrupt pin, capability lists. It is
// the bytes with their write masks; a write that changes what the function decodes or requests is carried on
// to the bus. Leaves out: error reporting (parity, SERR), built-in self test, CardBus headers.
#pragma once

#include <array>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/flags.h"
#include "base/types.h"
#include "bus/io_device.h"
#include "bus/irq_line.h"
#include "devices/pci/pci_regs.h"
#include "snapshot/state_visitor.h"

namespace tessera::pci {

enum class BarKind : u8 { Io, Memory32, Memory64, Prefetchable64 };

// Base address registers by number; the expansion ROM's is the last one.
inline constexpr unsigned kBarCount = 6;
inline constexpr unsigned kRomBarIndex = 6;

struct Bar {
    BarKind kind = BarKind::Memory32;
    u64 size = 0;  // 0: there is none
    IoDevice* region = nullptr;
};

// The bus as a function sees it. Called with the function's lock held.
class PciUplink {
public:
    PciUplink() = default;
    PciUplink(const PciUplink&) = delete;
    PciUplink& operator=(const PciUplink&) = delete;
    virtual ~PciUplink() = default;
    // The region of a BAR (or kRomBarIndex) is decoded at this address now, or nowhere.
    virtual void place_bar(unsigned bar, std::optional<u64> address) = 0;
    // A message signalled interrupt: a memory write of four bytes.
    virtual void send_message(u64 address, u32 data) = 0;
};

// Hears of writes to registers it has asked for, after they took effect.
class ConfigWatcher {
public:
    ConfigWatcher() = default;
    ConfigWatcher(const ConfigWatcher&) = delete;
    ConfigWatcher& operator=(const ConfigWatcher&) = delete;
    virtual ~ConfigWatcher() = default;
    virtual void config_written() = 0;
};

enum class HeaderKind : u8 { Endpoint = 0, Bridge = 1 };
enum class ConfigSize : u8 { Conventional, Extended };  // 256 bytes; 4096

class ConfigSpace {
public:
    struct Identity {
        u16 vendor = 0;
        u16 device = 0;
        u32 class_code = 0;  // 24 bits: class, subclass, interface
        u8 revision = 0;
        u16 subsystem_vendor = 0;
        u16 subsystem = 0;
        u8 pin = 0;  // INTA# is 1, INTD# 4; 0: none
        HeaderKind header = HeaderKind::Endpoint;
        ConfigSize size = ConfigSize::Conventional;
    };
    explicit ConfigSpace(const Identity& identity);

    // --- Building, before the function is attached. Arguments are ours: mistakes assert.

    // `size` is a power of two, at least 16 bytes (4 for I/O, at most 256). A 64-bit BAR takes two numbers.
    // `region` stays the caller's.
    void add_bar(unsigned bar, BarKind kind, u64 size, IoDevice& region);
    // At least 2 KiB; the region refuses writes.
    void add_rom(u64 size, IoDevice& region);
    // Appends to the capability list and returns where it lies. `body` follows the two bytes of ID and next
    // pointer; `writable` has the bits a guest can change (missing bytes: none).
    u8 add_capability(CapabilityId id, std::span<const u8> body, std::span<const u8> writable = {});
    // Likewise from 0x100 up; `body` follows the four bytes of the header. [PCIE 7.6]
    u16 add_extended_capability(u16 id, u8 version, std::span<const u8> body,
                                std::span<const u8> writable = {});
    // D0 and D3hot, no PME. In D3hot the function decodes nothing and is silent. [PCI-PM 3.2]
    void add_power_management();
    // Registers of the device's own.
    void define(u16 offset, u8 value, u8 writable);
    // The watcher is called after writes that touch [offset, offset + size).
    void watch(u16 offset, u16 size, ConfigWatcher& watcher);
    void set_multifunction();
    // Makes function level reset available by this writable bit, which reads as zero.
    void set_reset_bit(u16 offset, u8 bit);

    // --- For the bus.
    // The line is the interrupt pin's; detached when the function has none.
    void connect(PciUplink& uplink, IrqLine intx);
    void read(u16 offset, std::span<std::byte> out) const;
    void write(u16 offset, std::span<const std::byte> in);
    [[nodiscard]] const std::array<Bar, kBarCount + 1>& bars() const { return bars_; }
    // Where the registers say the BAR's region is now; nothing if it is not decoded: disabled, being sized
    // (all ones or zero), or beyond the end of its space.
    [[nodiscard]] std::optional<u64> bar_address(unsigned bar) const;
    // What firmware does: puts an address into the register, without enabling it.
    void program_bar(unsigned bar, u64 address);
    void enable(Flags<Command> bits);
    // Tells the bus again where the regions are: the way there has changed.
    void place_bars_again();
    // Whether a function level reset was asked for since the last call.
    [[nodiscard]] bool take_reset_request();

    // --- For the device.
    // The interrupt as the device wants it; the pin follows unless it is disabled or messages are on.
    void set_interrupt(bool asserted);
    [[nodiscard]] bool interrupt() const;
    // Not in D3hot.
    [[nodiscard]] bool powered() const;
    // False: no DMA, no messages.
    [[nodiscard]] bool bus_master() const;
    [[nodiscard]] Flags<Command> command() const { return Flags<Command>(get16(kCommand)); }
    [[nodiscard]] u8 pin() const { return state_.bytes[kInterruptPin]; }
    void send_message(u64 address, u32 data);
    // Raw registers, for what the device itself changes or looks up. Bits that change must be writable, or
    // declared with set_volatile while building.
    [[nodiscard]] u8 get8(u16 offset) const { return state_.bytes[offset]; }
    [[nodiscard]] u16 get16(u16 offset) const;
    [[nodiscard]] u32 get32(u16 offset) const;
    void put8(u16 offset, u8 value) { state_.bytes[offset] = value; }
    void put16(u16 offset, u16 value);
    void put32(u16 offset, u32 value);
    void set_volatile(u16 offset, u8 bits) { volatile_[offset] |= bits; }
    // All registers as built. Moves BARs away and lowers the pin.
    void reset();

    // --- Snapshots: a device saves `state()` by visit() under ids of its own choosing (one is used), and
    // loads by visiting a copy of initial_state(), checking it with valid(), and restore().
    struct State {
        std::vector<u8> bytes;
    };
    static void visit(StateVisitor& v, unsigned id, State& s) { v.field(id, "pci_config", s.bytes); }
    [[nodiscard]] State state() const { return state_; }
    [[nodiscard]] State initial_state() const { return State{initial_}; }
    [[nodiscard]] bool valid(const State& s) const;
    // Moves BARs, and no wire.
    void restore(State s);

private:
    struct Watch {
        u16 offset;
        u16 size;
        ConfigWatcher* watcher;
    };
    struct ResetBit {
        u16 offset;
        u8 bit;
    };

    void put_bar_masks(unsigned bar, u32 type, u64 size);
    [[nodiscard]] u16 bar_offset(unsigned bar) const;
    [[nodiscard]] u16 end() const { return static_cast<u16>(state_.bytes.size()); }
    [[nodiscard]] bool intx_level() const;
    [[nodiscard]] bool messages_enabled() const;
    // Copies what was built in last to what reset brings back.
    void built() { initial_ = state_.bytes; }
    void update_bars();
    // Outputs are a function of state: BARs and the interrupt pin.
    void sync();

    State state_;
    std::vector<u8> initial_;
    std::vector<u8> writable_;
    std::vector<u8> volatile_;  // besides
    HeaderKind header_;
    std::array<Bar, kBarCount + 1> bars_{};
    std::array<std::optional<u64>, kBarCount + 1> placed_{};
    std::vector<Watch> watches_;
    std::optional<ResetBit> reset_bit_;
    bool reset_requested_ = false;
    u16 next_capability_ = kFirstCapability;
    u16 last_link_ = kCapabilities;  // where the next capability is to be linked
    u16 next_extended_ = kFirstExtendedCapability;
    u16 last_extended_ = 0;
    u16 power_control_ = 0;  // where these lie; 0: there is none
    u16 msi_control_ = 0;
    u16 msix_control_ = 0;
    PciUplink* uplink_ = nullptr;
    std::optional<IrqLine> intx_;
};

}  // namespace tessera::pci
