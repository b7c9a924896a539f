#include "cpu/kvm/kernel_irqchip.h"

#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <fmt/format.h>
#include <pthread.h>
#include <sys/ioctl.h>
#include <utility>
#include <vector>

#include "cpu/kvm/host.h"

namespace tessera::kvm {

namespace {

// Whatever the kernel's structure ends in: the header, and room for the entries behind it.
template <typename Header>
std::vector<u64> list_of(std::size_t entries, std::size_t entry_size) {
    return std::vector<u64>((sizeof(Header) + entries * entry_size) / sizeof(u64) + 1);
}

Status create_all(int vm) {
    if (ioctl(vm, KVM_CREATE_IRQCHIP, 0) < 0) return call_failed("KVM_CREATE_IRQCHIP");
    kvm_pit_config config{};
    config.flags = KVM_PIT_SPEAKER_DUMMY;  // port 61h too
    if (ioctl(vm, KVM_CREATE_PIT2, &config) < 0) return call_failed("KVM_CREATE_PIT2");
    return {};
}

Result<kvm_irqchip> read_chip(int vm, u32 which) {
    kvm_irqchip chip{};
    chip.chip_id = which;
    if (ioctl(vm, KVM_GET_IRQCHIP, &chip) < 0) return call_failed("KVM_GET_IRQCHIP");
    return chip;
}

constexpr u32 pic_id(bool slave) {
    return slave ? KVM_IRQCHIP_PIC_SLAVE : KVM_IRQCHIP_PIC_MASTER;
}

}  // namespace

Result<KernelIrqchip> KernelIrqchip::create(int vm, Kind kind) {
    Status made = kind == Kind::Kernel
                      ? create_all(vm)
                      : enable_capability(vm, KVM_CAP_SPLIT_IRQCHIP, kIoApicPins, "KVM_CAP_SPLIT_IRQCHIP");
    // Without the flag that ends the "broadcast quirk": a device's destination FFh is everybody in x2APIC
    // mode too, as ApicMessage has it.
    if (made)
        made = enable_capability(vm, KVM_CAP_X2APIC_API, KVM_X2APIC_API_USE_32BIT_IDS, "KVM_CAP_X2APIC_API");
    if (!made) return std::unexpected(std::move(made.error()));
    return KernelIrqchip(vm, kind);
}

Status KernelIrqchip::set_routes(std::span<const InputRoute> inputs,
                                 std::span<const MessageRoute> messages) const {
    const std::size_t count = inputs.size() + messages.size();
    std::vector<u64> buffer = list_of<kvm_irq_routing>(count, sizeof(kvm_irq_routing_entry));
    auto* const table = reinterpret_cast<kvm_irq_routing*>(buffer.data());
    table->nr = static_cast<u32>(count);
    kvm_irq_routing_entry* next = &table->entries[0];
    for (const InputRoute& route : inputs) {
        next->gsi = route.gsi;
        next->type = KVM_IRQ_ROUTING_IRQCHIP;
        next->u.irqchip.irqchip = route.input.chip;
        next->u.irqchip.pin = route.input.pin;
        ++next;
    }
    for (const MessageRoute& route : messages) {
        next->gsi = route.gsi;
        next->type = KVM_IRQ_ROUTING_MSI;
        next->u.msi.address_lo = static_cast<u32>(route.message.address);
        next->u.msi.address_hi = static_cast<u32>(route.message.address >> 32);
        next->u.msi.data = route.message.data;
        ++next;
    }
    if (ioctl(vm_, KVM_SET_GSI_ROUTING, table) < 0) return call_failed("KVM_SET_GSI_ROUTING");
    return {};
}

Status KernelIrqchip::set_level(u32 gsi, bool high) const {
    kvm_irq_level call{};
    call.irq = gsi;
    call.level = high ? 1 : 0;
    if (ioctl(vm_, KVM_IRQ_LINE, &call) < 0) return call_failed("KVM_IRQ_LINE");
    return {};
}

Status KernelIrqchip::send(const Msi& message) const {
    kvm_msi call{};
    call.address_lo = static_cast<u32>(message.address);
    call.address_hi = static_cast<u32>(message.address >> 32);
    call.data = message.data;
    // -1 with EPERM's number is what the kernel makes of "nobody took it".
    if (ioctl(vm_, KVM_SIGNAL_MSI, &call) < 0 && errno != EPERM) return call_failed("KVM_SIGNAL_MSI");
    return {};
}

Status KernelIrqchip::add_irqfd(int event, u32 gsi, int resample) const {
    kvm_irqfd call{};
    call.fd = static_cast<u32>(event);
    call.gsi = gsi;
    if (resample >= 0) {
        call.flags = KVM_IRQFD_FLAG_RESAMPLE;
        call.resamplefd = static_cast<u32>(resample);
    }
    if (ioctl(vm_, KVM_IRQFD, &call) < 0) return call_failed("KVM_IRQFD");
    return {};
}

Status KernelIrqchip::remove_irqfd(int event, u32 gsi) const {
    kvm_irqfd call{};
    call.fd = static_cast<u32>(event);
    call.gsi = gsi;
    call.flags = KVM_IRQFD_FLAG_DEASSIGN;
    if (ioctl(vm_, KVM_IRQFD, &call) < 0) return call_failed("KVM_IRQFD");
    return {};
}

Result<kvm_pic_state> KernelIrqchip::pic(bool slave) const {
    const auto chip = read_chip(vm_, pic_id(slave));
    if (!chip) return std::unexpected(chip.error());
    return chip->chip.pic;
}

Status KernelIrqchip::set_pic(bool slave, const kvm_pic_state& state) const {
    kvm_irqchip chip{};
    chip.chip_id = pic_id(slave);
    chip.chip.pic = state;
    if (ioctl(vm_, KVM_SET_IRQCHIP, &chip) < 0) return call_failed("KVM_SET_IRQCHIP");
    return {};
}

Result<kvm_ioapic_state> KernelIrqchip::io_apic() const {
    const auto chip = read_chip(vm_, KVM_IRQCHIP_IOAPIC);
    if (!chip) return std::unexpected(chip.error());
    return chip->chip.ioapic;
}

Status KernelIrqchip::set_io_apic(const kvm_ioapic_state& state) const {
    kvm_irqchip chip{};
    chip.chip_id = KVM_IRQCHIP_IOAPIC;
    chip.chip.ioapic = state;
    if (ioctl(vm_, KVM_SET_IRQCHIP, &chip) < 0) return call_failed("KVM_SET_IRQCHIP");
    return {};
}

Result<kvm_pit_state2> KernelIrqchip::pit() const {
    kvm_pit_state2 state{};
    if (ioctl(vm_, KVM_GET_PIT2, &state) < 0) return call_failed("KVM_GET_PIT2");
    return state;
}

Status KernelIrqchip::set_pit(const kvm_pit_state2& state) const {
    if (ioctl(vm_, KVM_SET_PIT2, &state) < 0) return call_failed("KVM_SET_PIT2");
    return {};
}

Status KernelIrqchip::drop_late_ticks() const {
    const kvm_reinject_control reinject{};
    if (ioctl(vm_, KVM_REINJECT_CONTROL, &reinject) < 0) return call_failed("KVM_REINJECT_CONTROL");
    return {};
}

Result<kvm_lapic_state> read_local_apic(int vcpu) {
    kvm_lapic_state state{};
    if (ioctl(vcpu, KVM_GET_LAPIC, &state) < 0) return call_failed("KVM_GET_LAPIC");
    return state;
}

Status write_local_apic(int vcpu, const kvm_lapic_state& state) {
    if (ioctl(vcpu, KVM_SET_LAPIC, &state) < 0) return call_failed("KVM_SET_LAPIC");
    return {};
}

Result<u64> read_vcpu_msr(int vcpu, u32 index) {
    std::vector<u64> buffer = list_of<kvm_msrs>(1, sizeof(kvm_msr_entry));
    auto* const list = reinterpret_cast<kvm_msrs*>(buffer.data());
    list->nmsrs = 1;
    list->entries[0].index = index;
    // Says how many it read.
    if (ioctl(vcpu, KVM_GET_MSRS, list) != 1) return call_failed("KVM_GET_MSRS");
    return list->entries[0].data;
}

Status write_vcpu_msr(int vcpu, u32 index, u64 value) {
    std::vector<u64> buffer = list_of<kvm_msrs>(1, sizeof(kvm_msr_entry));
    auto* const list = reinterpret_cast<kvm_msrs*>(buffer.data());
    list->nmsrs = 1;
    list->entries[0].index = index;
    list->entries[0].data = value;
    if (ioctl(vcpu, KVM_SET_MSRS, list) != 1) return call_failed("KVM_SET_MSRS");
    return {};
}

Status raise_nmi(int vcpu) {
    if (ioctl(vcpu, KVM_NMI, 0) < 0) return call_failed("KVM_NMI");
    return {};
}

namespace {

// The kernel's signal sets are one word [LINUX-KVM api 4.40].
Status set_signal_mask(int vcpu, u64 blocked) {
    std::vector<u64> buffer = list_of<kvm_signal_mask>(1, sizeof blocked);
    auto* const mask = reinterpret_cast<kvm_signal_mask*>(buffer.data());
    mask->len = sizeof blocked;
    std::memcpy(&mask->sigset[0], &blocked, sizeof blocked);
    if (ioctl(vcpu, KVM_SET_SIGNAL_MASK, mask) < 0) return call_failed("KVM_SET_SIGNAL_MASK");
    return {};
}

}  // namespace

namespace {

// Enters until nothing but the signal is left.
Result<std::vector<u8>> enter_for_signal(int vcpu, const kvm_run& run) {
    std::vector<u8> ended;
    constexpr int kMostEntries = 1024;  // each of 256 vectors ends at most once
    for (int i = 0; i < kMostEntries; ++i) {
        if (ioctl(vcpu, KVM_RUN, 0) < 0) {
            if (errno == EINTR || errno == EAGAIN) return ended;
            return call_failed("KVM_RUN");
        }
        if (run.exit_reason == KVM_EXIT_IOAPIC_EOI) {
            ended.push_back(run.eoi.vector);
            continue;
        }
        if (run.exit_reason == KVM_EXIT_INTR) return ended;
        break;
    }
    return fail(Errc::HostFailure,
                fmt::format("KVM_RUN leaves a vCPU that stands still for reason {}", u32{run.exit_reason}));
}

}  // namespace

// A signal that is blocked outside KVM_RUN and not inside, and that waits: KVM looks at its timers and leaves
// before it enters the guest. Nobody else uses real-time signals' last one.
Result<std::vector<u8>> take_timer_interrupts(int vcpu, kvm_run& run) {
    const int signal = SIGRTMAX;
    sigset_t only{};
    sigset_t before{};
    (void)sigemptyset(&only);
    (void)sigaddset(&only, signal);
    if (const int error = pthread_sigmask(SIG_BLOCK, &only, &before); error != 0) {
        errno = error;
        return call_failed("pthread_sigmask");
    }
    Status masked = set_signal_mask(vcpu, ~(u64{1} << (signal - 1)));
    Result<std::vector<u8>> ended;
    if (masked) {
        (void)pthread_kill(pthread_self(), signal);
        const u8 immediate_exit = std::exchange(run.immediate_exit, u8{0});
        const u8 window = std::exchange(run.request_interrupt_window, u8{0});
        ended = enter_for_signal(vcpu, run);
        run.immediate_exit = immediate_exit;
        run.request_interrupt_window = window;
        const timespec at_once{};
        while (sigtimedwait(&only, nullptr, &at_once) < 0 && errno == EINTR) {
        }
        if (ioctl(vcpu, KVM_SET_SIGNAL_MASK, nullptr) < 0) masked = call_failed("KVM_SET_SIGNAL_MASK");
    }
    (void)pthread_sigmask(SIG_SETMASK, &before, nullptr);
    if (!masked) return std::unexpected(std::move(masked.error()));
    return ended;
}

}  // namespace tessera::kvm
