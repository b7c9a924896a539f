// GS points to the Vcpu while its thread runs translated code.
#pragma once

#include <asm/prctl.h>
#include <sys/auxv.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "cpu/soft/vcpu.h"

namespace tessera::soft::jit {

// Sets GS for as long as it lives, unless `c` is null. Faults pass it by without harm: they are caught
// inside.
class GsBase {
public:
    explicit GsBase(const Vcpu* c) : active_(c != nullptr) {
        if (!active_) return;
        before_ = get();
        set(reinterpret_cast<u64>(c));
    }
    ~GsBase() {
        if (active_) set(before_);
    }
    GsBase(const GsBase&) = delete;
    GsBase& operator=(const GsBase&) = delete;

private:
    // The kernel lets programs use WRGSBASE [Documentation/x86/x86_64/fsgs].
    [[nodiscard]] static bool has_instructions() {
        constexpr unsigned long kFsgsbase = 2;
        static const bool has = (getauxval(AT_HWCAP2) & kFsgsbase) != 0;
        return has;
    }
    [[nodiscard]] static u64 get() {
        u64 base = 0;
        if (has_instructions())
            asm volatile("rdgsbase %0" : "=r"(base));
        else
            syscall(SYS_arch_prctl, ARCH_GET_GS, &base);
        return base;
    }
    static void set(u64 base) {
        if (has_instructions())
            asm volatile("wrgsbase %0" : : "r"(base));
        else
            syscall(SYS_arch_prctl, ARCH_SET_GS, base);
    }

    bool active_;
    u64 before_ = 0;
};

}  // namespace tessera::soft::jit
