// A virtual machine for measuring KVM itself: one CPU in 64-bit mode at CPL 0, 64 KiB of memory.
#pragma once

#include <chrono>
#include <memory>
#include <span>

#include "base/file.h"
#include "base/result.h"
#include "base/types.h"
#include "cpu/kvm/linux_kvm.h"

namespace tessera::kvm {

class ProbeVm {
public:
    // `device` is /dev/kvm, open. The error names the call that failed.
    [[nodiscard]] static Result<ProbeVm> create(int device);

    // Executes 2 * `rounds` instructions and halts.
    [[nodiscard]] Result<std::chrono::nanoseconds> time_loop(u64 rounds);
    // Adds vectors of memory. False: KVM gave up.
    [[nodiscard]] Result<bool> try_vectors();

private:
    struct Unmap {
        size_t size = 0;
        void operator()(void* address) const;
    };
    using Mapping = std::unique_ptr<void, Unmap>;

    ProbeVm(File vm, File vcpu, Mapping memory, Mapping run)
        : vm_(std::move(vm)), vcpu_(std::move(vcpu)), memory_(std::move(memory)), run_(std::move(run)) {}
    [[nodiscard]] Status enter_long_mode();
    // Begins at `rip`. Gives the reason of the exit.
    [[nodiscard]] Result<u32> execute(u64 rip, u64 rcx);
    [[nodiscard]] u8* memory() const { return static_cast<u8*>(memory_.get()); }

    File vm_;
    File vcpu_;
    Mapping memory_;
    Mapping run_;
};

}  // namespace tessera::kvm
