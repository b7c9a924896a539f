#include "devices/pci/pirq_router.h"

#include <algorithm>

namespace tessera::pci {

namespace {

// [ICH9 13.1.17]: these are reserved.
constexpr u16 kNotRoutable = 1U << 0 | 1U << 1 | 1U << 2 | 1U << 8 | 1U << 13;
// More holders than there are functions with pins on all buses we make.
constexpr u16 kHoldersMost = 0x7fff;

}  // namespace

void PirqRouter::set_level(unsigned line, bool high) {
    if (line >= kInterruptLines) return;
    u16& holders = state_.holders[line];
    if (high ? holders == kHoldersMost : holders == 0) return;
    const bool was_high = holders != 0;
    holders = static_cast<u16>(high ? holders + 1 : holders - 1);
    if ((holders != 0) == was_high) return;
    io_apic_.set_level(kFirstIoApicPin + line, holders != 0);
    drive_isa();
}

void PirqRouter::set_route(unsigned line, u8 value) {
    if (line >= kInterruptLines) return;
    routes_[line] = value & kRouteBits;
    drive_isa();
}

u16 PirqRouter::isa_levels() const {
    u16 levels = 0;
    for (unsigned line = 0; line < kInterruptLines; ++line)
        if (state_.holders[line] != 0 && (routes_[line] & kDisabled) == 0)
            levels = static_cast<u16>(levels | 1U << (routes_[line] & 0xf));
    return levels & static_cast<u16>(~kNotRoutable);
}

void PirqRouter::drive_isa() {
    const u16 before = driven_;
    driven_ = isa_levels();
    for (unsigned irq = 0; irq < 16; ++irq)
        if (((before ^ driven_) >> irq & 1) != 0) isa_.set_level(irq, (driven_ >> irq & 1) != 0);
}

bool PirqRouter::valid(const State& s) {
    return std::ranges::all_of(s.holders, [](u16 holders) { return holders <= kHoldersMost; });
}

void PirqRouter::restore(const State& s, const std::array<u8, kInterruptLines>& routes) {
    state_ = s;
    routes_ = routes;
    driven_ = isa_levels();
}

}  // namespace tessera::pci
