// Which pages of its memory a guest has written: for migration and for frames of a display. [LINUX-KVM api]
//
// KVM tells it in one of two ways. With a bitmap for each slot, a look costs time by the memory's size, and
// holds up the guest's own faults. With a ring for each vCPU it costs by what was written; but then rings
// have to be there before the vCPUs, and one that is full brings its vCPU out of the guest
// (KVM_EXIT_DIRTY_RING_FULL).
//
// GAP: what devices write is not in KVM's log, nor what the interpreter does for a CPU.
//
// With rings, what a vCPU has written without having left the guest since may be told by the next take()
// only; the last one is with all of them stopped.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

#include "base/result.h"
#include "base/types.h"
#include "cpu/kvm/host.h"
#include "cpu/kvm/linux_kvm.h"

namespace tessera::kvm {

enum class DirtyLogKind : u8 { Bitmap, Ring };

class DirtyLog {
public:
    static constexpr u32 kRingEntries = 16384;  // 256 KiB for each vCPU
    // Bit n of a slot's words is its page n. `base` is the slot's guest physical address.
    using Visit = std::function<void(u64 base, std::span<const u64> pages)>;

    // `vm` has no vCPU yet, if it is to be a ring. `slots`: what was given to KVM_SET_USER_MEMORY_REGION;
    // read only ones are passed over. `ring_entries`: a power of two. Unsupported: this host has no rings, or
    // none so small or large.
    [[nodiscard]] static Result<std::unique_ptr<DirtyLog>> create(
        const Host& host, int vm, DirtyLogKind kind, std::span<const kvm_userspace_memory_region> slots,
        u32 ring_entries = kRingEntries);
    ~DirtyLog();
    DirtyLog(const DirtyLog&) = delete;
    DirtyLog& operator=(const DirtyLog&) = delete;

    [[nodiscard]] DirtyLogKind kind() const { return kind_; }
    // Every vCPU once it is there, before start(). The descriptor is borrowed.
    [[nodiscard]] Status add_vcpu(int vcpu);

    // Thread-safe, from here on; the vCPUs may run.
    [[nodiscard]] Status start();
    // What was written and not taken is forgotten.
    [[nodiscard]] Status stop();
    // Visits the slots with pages written since start() or the last take(). What the guest writes from now on
    // is for the next one: who reads a page afterwards misses nothing. `visit` must not wait for a vCPU.
    [[nodiscard]] Status take(const Visit& visit);
    // The answer to KVM_EXIT_DIRTY_RING_FULL of the vCPU that was added as number `vcpu`. HostFailure: its
    // ring cannot be emptied, because KVM wrote more than there was room for.
    [[nodiscard]] Status make_room(unsigned vcpu);

private:
    struct Slot {
        kvm_userspace_memory_region region{};
        std::vector<u64> pages;  // a bit each
    };
    struct Unmap {
        u64 size = 0;
        void operator()(kvm_dirty_gfn* entries) const;
    };
    struct Ring {
        std::unique_ptr<kvm_dirty_gfn[], Unmap> entries;
        u32 next = 0;                // to be taken
        std::optional<u32> full_at;  // `next` after it was last made room in
    };

    DirtyLog(int vm, DirtyLogKind kind, std::span<const kvm_userspace_memory_region> slots, u32 ring_entries,
             bool clears_by_hand);
    [[nodiscard]] Status set_logging(bool on);
    [[nodiscard]] Status collect_bitmap(Slot& slot) const;
    [[nodiscard]] Status clear_bitmap(const Slot& slot) const;
    [[nodiscard]] Status collect_rings();
    void collect_ring(Ring& ring);

    const int vm_;
    const DirtyLogKind kind_;
    const u32 ring_entries_;
    const bool clears_by_hand_;
    std::mutex mutex_;
    bool on_ = false;
    std::vector<Slot> slots_;
    std::vector<Ring> rings_;
};

}  // namespace tessera::kvm
