#include "cpu/kvm/dirty_log.h"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <fmt/format.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <utility>

namespace tessera::kvm {

namespace {

constexpr u64 kPage = 4096;
constexpr u64 kWordPages = 64;

[[nodiscard]] u64 pages_of(const kvm_userspace_memory_region& region) {
    return region.memory_size / kPage;
}

// The capability by which rings are turned on; 0: this host has none. Newer kernels offer the one that says
// how the flags are ordered; on this processor both mean the same.
[[nodiscard]] u32 ring_capability(const Host& host) {
    if (host.has(KVM_CAP_DIRTY_LOG_RING_ACQ_REL)) return KVM_CAP_DIRTY_LOG_RING_ACQ_REL;
    return host.has(KVM_CAP_DIRTY_LOG_RING) ? KVM_CAP_DIRTY_LOG_RING : 0;
}

Status enable_rings(const Host& host, int vm, u32 entries) {
    const u32 capability = ring_capability(host);
    if (capability == 0)
        return fail(Errc::Unsupported, "this host's KVM has no dirty rings (Linux 5.11 and later do)");
    const u64 bytes = u64{entries} * sizeof(kvm_dirty_gfn);
    const auto most = static_cast<u64>(host.capability(capability));
    if (!std::has_single_bit(entries) || bytes < kPage || bytes > most)
        return fail(Errc::Unsupported,
                    fmt::format("a dirty ring of {} entries; this host's KVM has {} to {}", entries,
                                kPage / sizeof(kvm_dirty_gfn), most / sizeof(kvm_dirty_gfn)));
    return enable_capability(vm, capability, bytes, "KVM_CAP_DIRTY_LOG_RING");
}

}  // namespace

void DirtyLog::Unmap::operator()(kvm_dirty_gfn* entries) const {
    (void)munmap(entries, size);
}

DirtyLog::DirtyLog(int vm, DirtyLogKind kind, std::span<const kvm_userspace_memory_region> slots,
                   u32 ring_entries, bool clears_by_hand)
    : vm_(vm), kind_(kind), ring_entries_(ring_entries), clears_by_hand_(clears_by_hand) {
    slots_.reserve(slots.size());
    for (const kvm_userspace_memory_region& region : slots)
        if ((region.flags & KVM_MEM_READONLY) == 0) slots_.push_back({.region = region, .pages = {}});
}

DirtyLog::~DirtyLog() = default;

Result<std::unique_ptr<DirtyLog>> DirtyLog::create(const Host& host, int vm, DirtyLogKind kind,
                                                   std::span<const kvm_userspace_memory_region> slots,
                                                   u32 ring_entries) {
    bool clears_by_hand = false;
    if (kind == DirtyLogKind::Ring) {
        if (const Status status = enable_rings(host, vm, ring_entries); !status)
            return std::unexpected(status.error());
    } else if (host.has(KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2)) {
        // Then KVM protects only pages that were written, and in pieces, between which guests go on.
        clears_by_hand =
            enable_capability(vm, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE,
                              "KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2")
                .has_value();
    }
    return std::unique_ptr<DirtyLog>(new DirtyLog(vm, kind, slots, ring_entries, clears_by_hand));
}

Status DirtyLog::add_vcpu(int vcpu) {
    if (kind_ != DirtyLogKind::Ring) return {};
    const u64 bytes = u64{ring_entries_} * sizeof(kvm_dirty_gfn);
    void* entries =
        mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, KVM_DIRTY_LOG_PAGE_OFFSET * kPage);
    if (entries == MAP_FAILED) return call_failed("mmap of a vCPU's dirty ring");
    const std::scoped_lock lock(mutex_);
    rings_.push_back({.entries = {static_cast<kvm_dirty_gfn*>(entries), Unmap{bytes}},
                      .next = 0,
                      .full_at = std::nullopt});
    return {};
}

Status DirtyLog::set_logging(bool on) {
    for (Slot& slot : slots_) {
        kvm_userspace_memory_region region = slot.region;
        if (on) region.flags |= KVM_MEM_LOG_DIRTY_PAGES;
        if (ioctl(vm_, KVM_SET_USER_MEMORY_REGION, &region) < 0)
            return call_failed("KVM_SET_USER_MEMORY_REGION");
    }
    return {};
}

Status DirtyLog::start() {
    const std::scoped_lock lock(mutex_);
    if (on_) return {};
    for (Slot& slot : slots_) slot.pages.assign((pages_of(slot.region) + kWordPages - 1) / kWordPages, 0);
    const Status status = set_logging(true);
    on_ = status.has_value();
    if (!on_) (void)set_logging(false);
    return status;
}

Status DirtyLog::stop() {
    const std::scoped_lock lock(mutex_);
    if (!on_) return {};
    Status status = set_logging(false);
    if (status && kind_ == DirtyLogKind::Ring) status = collect_rings();
    on_ = false;
    for (Slot& slot : slots_) slot.pages = {};
    return status;
}

Status DirtyLog::take(const Visit& visit) {
    const std::scoped_lock lock(mutex_);
    if (!on_) return fail(Errc::InvalidArgument, "the dirty log has not been started");
    if (kind_ == DirtyLogKind::Ring)
        if (const Status status = collect_rings(); !status) return status;
    for (Slot& slot : slots_) {
        if (kind_ == DirtyLogKind::Bitmap)
            if (const Status status = collect_bitmap(slot); !status) return status;
        if (std::ranges::all_of(slot.pages, [](u64 word) { return word == 0; })) continue;
        visit(slot.region.guest_phys_addr, slot.pages);
        std::ranges::fill(slot.pages, u64{0});
    }
    return {};
}

Status DirtyLog::make_room(unsigned vcpu) {
    const std::scoped_lock lock(mutex_);
    if (vcpu >= rings_.size()) return {};
    const Status status = collect_rings();
    if (!status) return status;
    // Full again, and nothing of it could be taken since: the vCPU would come out for ever. KVM checks for
    // room only when it enters the guest, so one that interprets the guest can write past the end.
    Ring& ring = rings_[vcpu];
    if (ring.full_at == ring.next)
        return fail(Errc::HostFailure,
                    "this host's KVM overran the ring of written pages; the log by bitmap works there");
    ring.full_at = ring.next;
    return {};
}

// --- bitmaps

Status DirtyLog::collect_bitmap(Slot& slot) const {
    kvm_dirty_log log{};
    log.slot = slot.region.slot;
    log.dirty_bitmap = slot.pages.data();
    if (ioctl(vm_, KVM_GET_DIRTY_LOG, &log) < 0) return call_failed("KVM_GET_DIRTY_LOG");
    return clears_by_hand_ ? clear_bitmap(slot) : Status{};
}

Status DirtyLog::clear_bitmap(const Slot& slot) const {
    constexpr u64 kPieceWords = 512;  // 128 MiB of memory
    std::span<const u64> rest = slot.pages;
    for (u64 first = 0; !rest.empty(); first += kPieceWords * kWordPages) {
        const std::span<const u64> piece = rest.first(std::min(kPieceWords, rest.size()));
        rest = rest.subspan(piece.size());
        if (std::ranges::all_of(piece, [](u64 word) { return word == 0; })) continue;
        kvm_clear_dirty_log clear{};
        clear.slot = slot.region.slot;
        clear.first_page = first;
        clear.num_pages =
            static_cast<u32>(std::min(piece.size() * kWordPages, pages_of(slot.region) - first));
        clear.dirty_bitmap = const_cast<u64*>(piece.data());
        if (ioctl(vm_, KVM_CLEAR_DIRTY_LOG, &clear) < 0) return call_failed("KVM_CLEAR_DIRTY_LOG");
    }
    return {};
}

// --- rings

// [LINUX-KVM api 8.29] An entry is the kernel's until it is dirty, ours then, and the kernel's again when it
// is marked for reset.
void DirtyLog::collect_ring(Ring& ring) {
    for (u32 taken = 0; taken < ring_entries_; ++taken) {
        kvm_dirty_gfn& entry = ring.entries[ring.next & (ring_entries_ - 1)];
        if (__atomic_load_n(&entry.flags, __ATOMIC_ACQUIRE) != KVM_DIRTY_GFN_F_DIRTY) return;
        const u64 page = entry.offset;
        const auto slot = std::ranges::find(slots_, entry.slot, [](const Slot& s) { return s.region.slot; });
        if (slot != slots_.end() && page < slot->pages.size() * kWordPages)
            slot->pages[page / kWordPages] |= u64{1} << page % kWordPages;
        __atomic_store_n(&entry.flags, static_cast<u32>(KVM_DIRTY_GFN_F_RESET), __ATOMIC_RELEASE);
        ++ring.next;
    }
}

Status DirtyLog::collect_rings() {
    for (Ring& ring : rings_) collect_ring(ring);
    // The pages are protected anew. Newer kernels stop at a signal, as that of KvmCpu::kick().
    while (ioctl(vm_, KVM_RESET_DIRTY_RINGS, 0) < 0)
        if (errno != EINTR) return call_failed("KVM_RESET_DIRTY_RINGS");
    return {};
}

}  // namespace tessera::kvm
