#include "bus/io_bus.h"

#include <algorithm>
#include <fmt/format.h>

namespace tessera {

namespace {
constexpr std::size_t kMaxWidth = 8;
}

Status IoBus::add(std::string name, u64 base, u64 size, IoDevice& device, Lock& lock) {
    if (size == 0 || base + (size - 1) < base)
        return fail(Errc::InvalidArgument,
                    fmt::format("{}: bad address range {:#x}+{:#x}", name, base, size));
    const u64 last = base + (size - 1);
    const auto at = std::ranges::lower_bound(ranges_, base, {}, &Range::base);
    const Range* clash = nullptr;
    if (at != ranges_.end() && at->base <= last) clash = &*at;
    if (at != ranges_.begin() && std::prev(at)->last >= base) clash = &*std::prev(at);
    if (clash != nullptr)
        return fail(Errc::InvalidArgument, fmt::format("{} at {:#x}-{:#x} overlaps {} at {:#x}-{:#x}", name,
                                                       base, last, clash->name, clash->base, clash->last));
    ranges_.insert(at, Range{std::move(name), base, last, &device, &lock});
    return {};
}

const IoBus::Range* IoBus::find(u64 address, u64 size) const {
    const auto after = std::ranges::upper_bound(ranges_, address, {}, &Range::base);
    if (after == ranges_.begin()) return nullptr;
    const Range& range = *std::prev(after);
    return address <= range.last && size - 1 <= range.last - address ? &range : nullptr;
}

void IoBus::read(u64 address, std::span<std::byte> out) {
    for (; out.size() > kMaxWidth; out = out.subspan(kMaxWidth), address += kMaxWidth)
        read(address, out.first(kMaxWidth));
    std::ranges::fill(out, std::byte{0xff});
    IoStatus status = IoStatus::NoRegister;
    const Range* range = find(address, out.size());
    if (range != nullptr) {
        const LockGuard guard(*range->lock);
        status = range->device->read(address - range->base, out);
    }
    if (status != IoStatus::Ok) refused_.fetch_add(1, std::memory_order_relaxed);
    if (observer_ != nullptr)
        observer_->on_read(address, out, status, range != nullptr ? range->name.c_str() : "-");
}

void IoBus::write(u64 address, std::span<const std::byte> in) {
    for (; in.size() > kMaxWidth; in = in.subspan(kMaxWidth), address += kMaxWidth)
        write(address, in.first(kMaxWidth));
    IoStatus status = IoStatus::NoRegister;
    const Range* range = find(address, in.size());
    if (range != nullptr) {
        const LockGuard guard(*range->lock);
        status = range->device->write(address - range->base, in);
    }
    if (status != IoStatus::Ok) refused_.fetch_add(1, std::memory_order_relaxed);
    if (observer_ != nullptr)
        observer_->on_write(address, in, status, range != nullptr ? range->name.c_str() : "-");
}

}  // namespace tessera
