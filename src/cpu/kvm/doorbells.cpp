#include "cpu/kvm/doorbells.h"

#include <sys/ioctl.h>

#include "cpu/kvm/host.h"
#include "cpu/kvm/linux_kvm.h"

namespace tessera::kvm {

namespace {

// KVM_CAP_IOEVENTFD_ANY_LENGTH is not used: processors that know the address of an exit early skip the
// instruction then, whatever it is, and what was a read would ring and read nothing.
int call(int vm, const Doorbell& bell, int event, u32 flags) {
    kvm_ioeventfd place{};
    place.datamatch = bell.value.value_or(0);
    place.addr = bell.address;
    place.len = bell.width;
    place.fd = event;
    place.flags = flags | (bell.value ? u32{KVM_IOEVENTFD_FLAG_DATAMATCH} : 0);
    return ioctl(vm, KVM_IOEVENTFD, &place);
}

}  // namespace

Status KernelDoorbells::hang(const Doorbell& bell, int event) {
    if (hung_.fetch_add(1) >= kMost) {
        hung_.fetch_sub(1);
        return fail(Errc::HostFailure, "as many doorbells hang as may");
    }
    if (call(vm_, bell, event, 0) == 0) return {};
    auto failed = call_failed("KVM_IOEVENTFD");
    hung_.fetch_sub(1);
    return failed;
}

void KernelDoorbells::take_down(const Doorbell& bell, int event) {
    if (call(vm_, bell, event, KVM_IOEVENTFD_FLAG_DEASSIGN) == 0) hung_.fetch_sub(1);
}

}  // namespace tessera::kvm
