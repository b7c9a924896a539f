// Whether this host's KVM is hardware virtualization: measured, not assumed, in less than 20 ms.
//
// Some hosts offer a /dev/kvm that interprets the guest's kernel code, at about a thousandth of the speed of
// the processor, and gives up at the first vector instruction there. Guests are better off with the software
// CPU there.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "base/types.h"
#include "cpu/kvm/host.h"

namespace tessera::kvm {

enum class Verdict : u8 {
    Hardware,      // to be used
    Missing,       // no device
    NotPermitted,  // a device that this user may not open
    NotKvm,        // the file is there, and is something else
    TooOld,        // lacks what we need
    Refused,       // does not make a virtual machine; another hypervisor may hold the processor
    Interpreted,   // executes guests, by software
};

// What was found. `rate` and `vectors` only if a guest ran.
struct Finding {
    Verdict verdict = Verdict::Missing;
    std::string detail;           // the cause, for people: "open: Permission denied"
    std::optional<double> rate;   // instructions per second at CPL 0, or at least so many
    std::optional<bool> vectors;  // SSE instructions at CPL 0 work
    bool nested = false;          // this host is a virtual machine itself

    [[nodiscard]] bool usable() const { return verdict == Verdict::Hardware; }
};

enum class ProbeDepth : u8 {
    Verdict,  // no more than it takes to know whether to use it; the kernel may still be tidying up
              // afterwards
    Whole,
};

// Asks the KVM at `device_path`. Makes a virtual machine with one CPU and 64 KiB of memory, and lets go of
// it.
[[nodiscard]] Finding probe(const char* device_path = kDevicePath, ProbeDepth depth = ProbeDepth::Whole);

// What was found in a sentence, and where something can be done about it, what.
[[nodiscard]] std::string describe(const Finding& finding);

}  // namespace tessera::kvm
