// Doorbells that KVM answers: a guest's write to one is an event, without an exit (ioeventfd). Whatever the
// interrupt chips. [LINUX-KVM api 4.59]
#pragma once

#include <atomic>

#include "bus/doorbell.h"

namespace tessera::kvm {

class KernelDoorbells final : public DoorbellHost {
public:
    // Each is a system resource of the host's, and has to be looked through for an access to devices.
    static constexpr unsigned kMost = 256;

    // The VM's descriptor is borrowed.
    explicit KernelDoorbells(int vm) : vm_(vm) {}

    [[nodiscard]] Status hang(const Doorbell& bell, int event) override;
    void take_down(const Doorbell& bell, int event) override;

private:
    const int vm_;
    std::atomic<unsigned> hung_ = 0;
};

}  // namespace tessera::kvm
