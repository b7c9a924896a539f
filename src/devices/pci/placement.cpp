#include "devices/pci/placement.h"

#include <algorithm>
#include <fmt/format.h>
#include <vector>

namespace tessera::pci {

namespace {

enum class Space : u8 { Io, Memory, Memory64 };

constexpr u64 kIoGranule = 0x1000;
constexpr u64 kMemoryGranule = kMiB;

constexpr u64 align_up(u64 value, u64 alignment) {
    return (value + (alignment - 1)) & ~(alignment - 1);
}

struct WantedBar {
    const PciBus::Seat* seat;
    unsigned bar;
    u64 size;
    std::size_t order;
};

class Placer {
public:
    explicit Placer(const Placement& placement) : placement_(placement) {}

    Status place(PciBus& root) {
        number(root, 0);
        for (const Space space : {Space::Io, Space::Memory, Space::Memory64}) {
            next_ = window(space).first;
            if (auto status = place(root, space); !status) return status;
        }
        enable(root);
        return {};
    }

private:
    [[nodiscard]] const AddressWindow& window(Space space) const {
        switch (space) {
            case Space::Io: return placement_.io;
            case Space::Memory: return placement_.memory;
            case Space::Memory64: return placement_.memory64;
        }
        return placement_.memory;
    }
    [[nodiscard]] bool is_open(Space space) const { return window(space).last >= window(space).first; }

    [[nodiscard]] Space space_of(const Bar& bar) const {
        if (bar.kind == BarKind::Io) return Space::Io;
        const bool large = bar.kind == BarKind::Prefetchable64 && bar.size >= kLargeBar;
        return large && is_open(Space::Memory64) ? Space::Memory64 : Space::Memory;
    }

    // Depth first; a bridge's subordinate number is the highest one below it.
    void number(PciBus& bus, u8 own) {
        for (const auto& seat : bus.seats()) {
            if (seat->bridge == nullptr) continue;
            ConfigSpace& config = seat->function->config();
            const auto secondary = static_cast<u8>(++last_bus_);
            config.put8(kPrimaryBus, own);
            config.put8(kSecondaryBus, secondary);
            number(seat->bridge->secondary(), secondary);
            config.put8(kSubordinateBus, static_cast<u8>(last_bus_));
        }
    }

    // The largest first: sizes are powers of two, so nothing is lost to alignment.
    Status place(PciBus& bus, Space space) {
        std::vector<WantedBar> wanted;
        for (const auto& seat : bus.seats()) {
            const auto& bars = seat->function->config().bars();
            for (unsigned n = 0; n < bars.size(); ++n)
                if (bars[n].size != 0 && space_of(bars[n]) == space)
                    wanted.push_back(
                        {.seat = seat.get(), .bar = n, .size = bars[n].size, .order = wanted.size()});
        }
        std::ranges::sort(wanted, [](const WantedBar& a, const WantedBar& b) {
            return a.size != b.size ? a.size > b.size : a.order < b.order;
        });
        for (const WantedBar& bar : wanted) {
            const u64 address = align_up(next_, bar.size);
            const u64 last = window(space).last;
            if (!is_open(space) || address < next_ || address > last || bar.size - 1 > last - address)
                return fail(
                    Errc::InvalidArgument,
                    fmt::format("no room for BAR {} of {} ({:#x} bytes) in the PCI window {:#x}-{:#x}",
                                bar.bar, bar.seat->name, bar.size, window(space).first, last));
            {
                const LockGuard guard(*bar.seat->lock);
                bar.seat->function->config().program_bar(bar.bar, address);
            }
            next_ = address + bar.size;
        }
        for (const auto& seat : bus.seats())
            if (seat->bridge != nullptr)
                if (auto status = place_behind(*seat, space); !status) return status;
        return {};
    }

    Status place_behind(const PciBus::Seat& seat, Space space) {
        const u64 granule = space == Space::Io ? kIoGranule : kMemoryGranule;
        const u64 before = next_;
        next_ = align_up(next_, granule);
        const u64 first = next_;
        if (auto status = place(seat.bridge->secondary(), space); !status) return status;
        if (next_ == first) {
            next_ = before;  // nothing there: the window stays closed
            return {};
        }
        next_ = align_up(next_, granule);
        open(seat.function->config(), space, first, next_ - 1);
        return {};
    }

    static void open(ConfigSpace& config, Space space, u64 first, u64 last) {
        switch (space) {
            case Space::Io:
                config.put8(kIoBase, static_cast<u8>(first >> 8 & 0xf0));
                config.put8(kIoLimit, static_cast<u8>(last >> 8 & 0xf0));
                break;
            case Space::Memory:
                config.put16(kMemoryBase, static_cast<u16>(first >> 16 & 0xfff0));
                config.put16(kMemoryLimit, static_cast<u16>(last >> 16 & 0xfff0));
                break;
            case Space::Memory64:
                config.put16(kPrefetchBase, static_cast<u16>((first >> 16 & 0xfff0) | 1));
                config.put16(kPrefetchLimit, static_cast<u16>((last >> 16 & 0xfff0) | 1));
                config.put32(kPrefetchBaseUpper, static_cast<u32>(first >> 32));
                config.put32(kPrefetchLimitUpper, static_cast<u32>(last >> 32));
                break;
        }
    }

    // Bridges before what is behind them.
    void enable(PciBus& bus) {
        for (const auto& seat : bus.seats()) {
            const LockGuard guard(*seat->lock);
            ConfigSpace& config = seat->function->config();
            if (config.pin() != 0) {
                const unsigned line = bus.interrupt_line(seat->slot.device, config.pin() - 1U);
                config.put8(kInterruptLine, placement_.isa_interrupts[line]);
            }
            auto bits = Flags(Command::Io) | Command::Memory;
            if (seat->bridge != nullptr) bits = bits | Command::BusMaster;
            config.enable(bits);
            if (seat->bridge != nullptr) {
                seat->bridge->firmware_configured();
                enable(seat->bridge->secondary());
            }
        }
    }

    const Placement& placement_;
    u64 next_ = 0;
    unsigned last_bus_ = 0;
};

}  // namespace

Status place_all(PciBus& root, const Placement& placement) {
    return Placer(placement).place(root);
}

}  // namespace tessera::pci
