#include "bus/io_bus.h"

#include <algorithm>
#include <fmt/format.h>
#include <utility>

#include "base/assert.h"

namespace tessera {

namespace {
constexpr std::size_t kMaxWidth = 8;
}

// --- Building and placing ---

Status IoBus::add(std::string name, u64 base, u64 size, IoDevice& device, Lock& lock) {
    return add_fixed({.name = std::move(name),
                      .kind = Kind::Fixed,
                      .size = size,
                      .placed = true,
                      .base = base,
                      .device = &device,
                      .lock = &lock});
}

Status IoBus::reserve(std::string name, u64 base, u64 size) {
    return add_fixed({.name = std::move(name),
                      .kind = Kind::Fixed,
                      .size = size,
                      .placed = true,
                      .base = base,
                      .device = nullptr,
                      .lock = nullptr});
}

Status IoBus::add_fixed(Owner owner) {
    const u64 base = owner.base;
    if (owner.size == 0 || base + (owner.size - 1) < base)
        return fail(Errc::InvalidArgument,
                    fmt::format("{}: bad address range {:#x}+{:#x}", owner.name, base, owner.size));
    const u64 last = base + (owner.size - 1);
    for (const Owner& other : owners_) {
        if (other.kind != Kind::Fixed || other.base > last || other.base + (other.size - 1) < base) continue;
        return fail(Errc::InvalidArgument,
                    fmt::format("{} at {:#x}-{:#x} overlaps {} at {:#x}-{:#x}", owner.name, base, last,
                                other.name, other.base, other.base + (other.size - 1)));
    }
    owners_.push_back(std::move(owner));
    grow();
    rebuild(owners_.size() - 1);
    return {};
}

IoBus::RangeId IoBus::add_movable(std::string name, u64 size, IoDevice& device, Lock& lock) {
    TESSERA_ASSERT(size != 0, "our devices choose their regions' sizes");
    owners_.push_back({.name = std::move(name),
                       .kind = Kind::Movable,
                       .size = size,
                       .placed = false,
                       .base = 0,
                       .device = &device,
                       .lock = &lock});
    grow();
    rebuild(owners_.size() - 1);
    return owners_.size() - 1;
}

// Every piece begins where a range begins or behind the end of one, so that two for each range are enough.
void IoBus::grow() {
    const std::size_t needed = 2 * owners_.size();
    if (needed <= capacity_) return;
    capacity_ = 2 * needed;
    pieces_.reserve(capacity_);
    for (Table& table : tables_) {
        table.count.store(0, std::memory_order_relaxed);
        table.pieces = std::make_unique<SharedPiece[]>(capacity_);
    }
}

void IoBus::place(RangeId id, std::optional<u64> base) {
    const std::scoped_lock guard(mutex_);
    Owner& owner = owners_[id];
    TESSERA_ASSERT(owner.kind == Kind::Movable, "our buses place only ranges they added as movable");
    const u64 at = base.value_or(0);
    const bool placed = base.has_value() && at + (owner.size - 1) >= at;
    if (owner.placed == placed && (!placed || owner.base == at)) return;
    owner.placed = placed;
    owner.base = at;
    rebuild(id);
}

bool IoBus::add_pieces(std::size_t owner) {
    const u64 base = owners_[owner].base;
    const u64 last = base + (owners_[owner].size - 1);
    auto at = std::ranges::lower_bound(pieces_, base, {}, &Piece::last);
    for (u64 first = base;;) {
        if (at == pieces_.end() || at->first > last) {
            pieces_.insert(at, {.first = first, .last = last, .base = base, .owner = owner});
            return first == base;
        }
        if (at->first > first) {
            at = pieces_.insert(at, {.first = first, .last = at->first - 1, .base = base, .owner = owner});
            ++at;
        }
        if (at->last >= last) return false;
        first = at->last + 1;
        ++at;
    }
}

void IoBus::rebuild(RangeId moved) {
    pieces_.clear();
    for (const Kind kind : {Kind::Fixed, Kind::Movable})
        for (std::size_t n = 0; n < owners_.size(); ++n) {
            if (owners_[n].kind != kind) continue;
            owners_[n].whole = owners_[n].placed && add_pieces(n);
            if (n == moved && owners_[n].placed && !owners_[n].whole)
                overlaps_.fetch_add(1, std::memory_order_relaxed);
        }

    const u64 next = generation_.load(std::memory_order_relaxed) + 1;
    Table& table = tables_[next % 2];
    // Readers that are still in this table, which was that of the generation before, have to find the
    // generation changed if they see anything written below.
    std::atomic_thread_fence(std::memory_order_release);
    for (std::size_t n = 0; n < pieces_.size(); ++n) {
        SharedPiece& piece = table.pieces[n];
        piece.first.store(pieces_[n].first, std::memory_order_relaxed);
        piece.last.store(pieces_[n].last, std::memory_order_relaxed);
        piece.base.store(pieces_[n].base, std::memory_order_relaxed);
        piece.owner.store(pieces_[n].owner, std::memory_order_relaxed);
    }
    table.count.store(pieces_.size(), std::memory_order_relaxed);
    generation_.store(next, std::memory_order_release);
    tell_watchers();
}

void IoBus::watch(RangeId id, PlaceWatcher& watcher) {
    const std::scoped_lock guard(mutex_);
    owners_[id].watcher = &watcher;
    tell_watchers();
}

void IoBus::tell_watchers() {
    for (Owner& owner : owners_)
        if (owner.watcher != nullptr && owner.told && !(owner.whole && owner.told == owner.base)) {
            owner.told.reset();
            owner.watcher->on_place(std::nullopt);
        }
    for (Owner& owner : owners_)
        if (owner.watcher != nullptr && !owner.told && owner.whole) {
            owner.told = owner.base;
            owner.watcher->on_place(owner.base);
        }
}

// --- Accesses ---

// Everything read here may be half written, but for the bounds: no count is above the tables' capacity.
IoBus::Target IoBus::find(u64 address, u64 size) const {
    for (;;) {
        const u64 generation = generation_.load(std::memory_order_acquire);
        const Table& table = tables_[generation % 2];
        const SharedPiece* const pieces = table.pieces.get();
        // The number of pieces that begin at or below the address.
        std::size_t low = 0;
        std::size_t high = table.count.load(std::memory_order_relaxed);
        while (low < high) {
            const std::size_t middle = (low + high) / 2;
            if (pieces[middle].first.load(std::memory_order_relaxed) <= address)
                low = middle + 1;
            else
                high = middle;
        }
        u64 last = 0;
        u64 base = 0;
        std::size_t owner = 0;
        if (low != 0) {
            const SharedPiece& piece = pieces[low - 1];
            last = piece.last.load(std::memory_order_relaxed);
            base = piece.base.load(std::memory_order_relaxed);
            owner = piece.owner.load(std::memory_order_relaxed);
        }
        std::atomic_thread_fence(std::memory_order_acquire);
        if (generation_.load(std::memory_order_relaxed) != generation) continue;
        if (low == 0 || address > last || size - 1 > last - address || owners_[owner].device == nullptr)
            return {};
        return {.owner = &owners_[owner], .offset = address - base};
    }
}

void IoBus::read(u64 address, std::span<std::byte> out) {
    for (; out.size() > kMaxWidth; out = out.subspan(kMaxWidth), address += kMaxWidth)
        read(address, out.first(kMaxWidth));
    std::ranges::fill(out, std::byte{0xff});
    IoStatus status = IoStatus::NoRegister;
    const Target target = find(address, out.size());
    if (target.owner != nullptr) {
        const LockGuard guard(*target.owner->lock);
        status = target.owner->device->read(target.offset, out);
    }
    if (status != IoStatus::Ok) refused_.fetch_add(1, std::memory_order_relaxed);
    if (observer_ != nullptr)
        observer_->on_read(address, out, status, target.owner != nullptr ? target.owner->name.c_str() : "-");
}

void IoBus::write(u64 address, std::span<const std::byte> in) {
    for (; in.size() > kMaxWidth; in = in.subspan(kMaxWidth), address += kMaxWidth)
        write(address, in.first(kMaxWidth));
    IoStatus status = IoStatus::NoRegister;
    const Target target = find(address, in.size());
    if (target.owner != nullptr) {
        const LockGuard guard(*target.owner->lock);
        status = target.owner->device->write(target.offset, in);
    }
    if (status != IoStatus::Ok) refused_.fetch_add(1, std::memory_order_relaxed);
    if (observer_ != nullptr)
        observer_->on_write(address, in, status, target.owner != nullptr ? target.owner->name.c_str() : "-");
}

}  // namespace tessera
