#include "machines/board/kernel_chips.h"

#include <algorithm>
#include <cstring>
#include <ctime>
#include <sys/mman.h>
#include <system_error>
#include <utility>

#include "cpu/kvm/host.h"
#include "devices/lapic/lapic_inbox.h"

namespace tessera {

namespace {

using lapic::Post;

constexpr u32 kMsrApicBase = 0x1b, kMsrTscDeadline = 0x6e0;
// Registers of the page [SDM 3A Table 11-1].
constexpr std::size_t kSvr = 0xf0, kLvtCmci = 0x2f0, kLvtTimer = 0x320, kLvtError = 0x370,
                      kInitialCount = 0x380, kCurrentCount = 0x390;
constexpr u32 kLvtMasked = 1 << 16;
constexpr u8 kNoMode = 0xff;  // of a counter nobody has programmed
// Within this distance of a tick nobody can say whether the kernel has shown it.
constexpr u64 kUncertainNs = 30'000;
constexpr s64 kNsPerSecond = 1'000'000'000;

u32 get(const kvm_lapic_state& page, std::size_t at) {
    u32 value = 0;
    std::memcpy(&value, &page.regs[at], sizeof value);
    return value;
}

void put(kvm_lapic_state& page, std::size_t at, u32 value) {
    std::memcpy(&page.regs[at], &value, sizeof value);
}

s64 monotonic_ns() {
    timespec t{};
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * kNsPerSecond + t.tv_nsec;
}

void sleep_ns(u64 ns) {
    const timespec t{.tv_sec = 0, .tv_nsec = static_cast<long>(ns)};
    (void)nanosleep(&t, nullptr);
}

// Whether KVM's timer may have an interrupt ready that no state of its tells: a deadline that has passed is
// there until its interrupt is in IRR.
bool may_hold_interrupt(const kvm_lapic_state& page) {
    const u32 entry = get(page, kLvtTimer);
    return (entry >> 17 & 3) <= 1 && (entry & kLvtMasked) == 0 && get(page, kInitialCount) != 0;
}

// Whether the timer's counter may have run out between two looks, the second behind the first.
bool ran_out_between(const kvm_lapic_state& first, const kvm_lapic_state& second) {
    const u32 mode = get(second, kLvtTimer) >> 17 & 3;
    if (mode > 1 || get(second, kInitialCount) == 0) return false;
    const u32 before = get(first, kCurrentCount);
    const u32 after = get(second, kCurrentCount);
    if (mode == 0) return before != 0 && after == 0;
    return before == 0 || after == 0 || after > before;
}

constexpr u32 bit(Post p) {
    return static_cast<u32>(p);
}

}  // namespace

Result<std::unique_ptr<KernelChips>> KernelChips::create(const kvm::KernelIrqchip& chips,
                                                         std::span<const int> vcpus, const OwnChips& ours) {
    std::unique_ptr<KernelChips> made(new KernelChips(chips, ours));
    made->vcpus_.reserve(vcpus.size());
    for (const int fd : vcpus) {
        void* run = mmap(nullptr, sizeof(kvm_run), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (run == MAP_FAILED) return kvm::call_failed("mmap of a vCPU");
        made->vcpus_.push_back({.fd = fd, .run = static_cast<kvm_run*>(run)});
    }
    if (made->all())
        if (auto status = chips.set_routes(kernel_input_routes(), {}); !status)
            return std::unexpected(std::move(status.error()));
    return made;
}

KernelChips::~KernelChips() {
    if (late_ticks_.joinable()) late_ticks_.join();
    for (const Vcpu& vcpu : vcpus_) (void)munmap(vcpu.run, sizeof(kvm_run));
}

KernelMoment KernelChips::now() const {
    return {.guest_ns = ours_.clock.now_ns(), .kernel_ns = monotonic_ns()};
}

// --- Into the kernel

Status KernelChips::enter(Start start) {
    if (in_kernel_) return {};
    {
        const LockGuard board(ours_.lock);
        if (all()) ours_.pit.catch_up();
        const auto held = ours_.fabric.hold();
        std::vector<u32> events;
        events.reserve(vcpus_.size());
        for (std::size_t i = 0; i < vcpus_.size(); ++i) {
            if (auto status = enter_local_apic(i); !status) return status;
            events.push_back(ours_.local_apics[i]->saved().registers.events);
        }
        if (all())
            if (auto status = enter_board(start); !status) return status;
        for (std::size_t i = 0; i < vcpus_.size(); ++i)
            if (auto status = send_again(i, events[i]); !status) return status;
        if (all()) {
            ours_.pic_pins.use_kernel(&pic_pins_);
            ours_.io_apic_pins.use_kernel(&io_apic_pins_);
        } else {
            ours_.io_apic_page.use_kernel(&chips_);
        }
        ours_.fabric.use_kernel(&fabric_);
        in_kernel_ = true;
        silence_ours();
    }
    if (all() && !std::exchange(late_ticks_drop_, true)) drop_late_ticks();
    return {};
}

// It fails on no KVM that has an 8254; then ticks would come late instead of never.
void KernelChips::drop_late_ticks() {
    try {
        late_ticks_ = std::thread([this] { (void)chips_.drop_late_ticks(); });
    } catch (const std::system_error&) {
        (void)chips_.drop_late_ticks();  // the host has no thread left
    }
}

Status KernelChips::enter_local_apic(std::size_t index) {
    lapic::Lapic& apic = *ours_.local_apics[index];
    const int fd = vcpus_[index].fd;
    const KernelLocalApic kernel = to_kernel(apic.saved(), apic.apic_id(), ours_.clock.now_ns());
    if (auto status = kvm::write_vcpu_msr(fd, kMsrApicBase, kernel.apic_base); !status) return status;
    if (auto status = kvm::write_local_apic(fd, kernel.page); !status) return status;
    if (kernel.tsc_deadline == 0) return {};
    return kvm::write_vcpu_msr(fd, kMsrTscDeadline, kernel.tsc_deadline);
}

// What was on its way to the CPU itself.
Status KernelChips::send_again(std::size_t index, u32 events) {
    constexpr unsigned kStartUpShift = 16;
    const auto send = [&](DeliveryMode mode, u8 vector) -> Status {
        const auto message = kernel_message(
            {.destination = ours_.local_apics[index]->apic_id(), .delivery_mode = mode, .vector = vector});
        return message ? chips_.send(*message) : Status();
    };
    if ((events & bit(Post::Nmi)) != 0)
        if (auto status = kvm::raise_nmi(vcpus_[index].fd); !status) return status;
    if ((events & bit(Post::Init)) != 0)
        if (auto status = send(DeliveryMode::Init, 0); !status) return status;
    if ((events & bit(Post::StartUp)) != 0)
        return send(DeliveryMode::StartUp, static_cast<u8>(events >> kStartUpShift));
    return {};
}

// The kernel keeps what its wires were the last time; no chip minds a wire that falls.
Status KernelChips::lower_all_wires() const {
    for (const kvm::InputRoute& route : kernel_input_routes())
        if (auto status = chips_.set_level(route.gsi, false); !status) return status;
    return {};
}

Status KernelChips::enter_board(Start start) {
    if (auto status = lower_all_wires(); !status) return status;
    if (auto status = chips_.set_io_apic(to_kernel(ours_.io_apic.state())); !status) return status;
    const KernelPic pic = to_kernel(ours_.pic.state());
    if (auto status = chips_.set_pic(false, pic.master); !status) return status;
    if (auto status = chips_.set_pic(true, pic.slave); !status) return status;

    const pit8254::Pit8254::State before = ours_.pit.state();
    const auto legacy = ours_.timers.hpet_selected() ? HpetLegacy::On : HpetLegacy::Off;
    // Again if the host was elsewhere meanwhile: it is to be known when the counters began.
    constexpr int kMostTries = 5;
    s64 began = 0;
    for (int i = 0; i < kMostTries; ++i) {
        const KernelMoment moment = now();
        kvm_pit_state2 kernel = to_kernel(before, moment, legacy);
        if (start == Start::PowerOn) kernel.channels[0].mode = kNoMode;
        if (auto status = chips_.set_pit(kernel); !status) return status;
        const s64 done = monotonic_ns();
        began = (moment.kernel_ns + done) / 2;
        if (done - moment.kernel_ns < static_cast<s64>(kUncertainNs)) break;
    }
    const auto given = chips_.pit();
    if (!given) return std::unexpected(given.error());
    pit_stay_ = KernelPitStay{.before = before, .given = *given, .since_ns = began};
    return {};
}

// Nobody looks at them now; their timers are not to run.
void KernelChips::silence_ours() {
    for (lapic::Lapic* apic : ours_.local_apics) apic->reset();
    if (all()) ours_.pit.reset();
}

void KernelChips::select_hpet(bool hpet) {
    if (!in_kernel_ || !all()) return;
    auto pit = chips_.pit();
    if (!pit) return;
    pit->flags = (pit->flags & ~u32{KVM_PIT_FLAGS_HPET_LEGACY}) | (hpet ? u32{KVM_PIT_FLAGS_HPET_LEGACY} : 0);
    (void)chips_.set_pit(*pit);
    pit_stay_.reset();
}

// --- Back

Status KernelChips::leave(std::span<const s64> tsc_offsets) {
    if (!in_kernel_) return {};
    if (late_ticks_.joinable()) late_ticks_.join();
    const LockGuard board(ours_.lock);
    std::vector<u8> ended;
    {
        const auto held = ours_.fabric.hold();
        std::vector<KernelLocalApic> local_apics;
        local_apics.reserve(vcpus_.size());
        for (std::size_t i = 0; i < vcpus_.size(); ++i) {
            auto kernel = read_local_apic(i, ended);
            if (!kernel) return std::unexpected(std::move(kernel.error()));
            local_apics.push_back(*kernel);
        }
        if (all())
            if (auto status = leave_board(); !status) return status;
        for (std::size_t i = 0; i < vcpus_.size(); ++i) {
            lapic::Lapic& apic = *ours_.local_apics[i];
            constexpr u8 kLint0 = 1;
            const u8 lint1 = static_cast<u8>(apic.saved().registers.pins & ~kLint0);
            const auto saved = from_kernel(
                local_apics[i], {.now_ns = ours_.clock.now_ns(),
                                 .pins = static_cast<u8>(lint1 | (ours_.pic.requests() ? kLint0 : 0)),
                                 .tsc_offset = static_cast<u64>(tsc_offsets[i])});
            if (auto status = apic.restore(saved); !status) return status;
            if (auto status = quiet_local_apic(i, local_apics[i].page); !status) return status;
        }
        ours_.pic_pins.use_kernel(nullptr);
        ours_.io_apic_pins.use_kernel(nullptr);
        ours_.io_apic_page.use_kernel(nullptr);
        ours_.fabric.use_kernel(nullptr);
        in_kernel_ = false;
    }
    for (const u8 vector : ended) ours_.io_apic.end_of_interrupt(vector);
    if (all()) show_wires();
    return {};
}

Result<KernelLocalApic> KernelChips::read_local_apic(std::size_t index, std::vector<u8>& ended) const {
    const Vcpu& vcpu = vcpus_[index];
    auto first = kvm::read_local_apic(vcpu.fd);
    if (!first) return std::unexpected(std::move(first.error()));
    KernelLocalApic kernel{.page = *first};
    // What the timer has ready goes into IRR; until it is sure that nothing came after that.
    // (Before Linux 6.13 a KVM_RUN from another thread waits for the whole host: not without need.)
    constexpr int kMostTries = 8;
    const bool look = !all() || may_hold_interrupt(kernel.page);
    for (int i = 0; look && i < kMostTries; ++i) {
        const auto taken = kvm::take_timer_interrupts(vcpu.fd, *vcpu.run);
        if (!taken) return std::unexpected(taken.error());
        ended.insert(ended.end(), taken->begin(), taken->end());
        const auto page = kvm::read_local_apic(vcpu.fd);
        if (!page) return std::unexpected(page.error());
        const bool sure = !ran_out_between(std::exchange(kernel.page, *page), *page);
        if (sure) break;
    }
    const auto base = kvm::read_vcpu_msr(vcpu.fd, kMsrApicBase);
    if (!base) return std::unexpected(base.error());
    kernel.apic_base = *base;
    const auto deadline = kvm::read_vcpu_msr(vcpu.fd, kMsrTscDeadline);
    if (!deadline) return std::unexpected(deadline.error());
    kernel.tsc_deadline = *deadline;
    return kernel;
}

// The one in the kernel keeps no timer running.
Status KernelChips::quiet_local_apic(std::size_t index, kvm_lapic_state page) const {
    constexpr u32 kSvrReset = 0xff;
    put(page, kSvr, kSvrReset);
    put(page, kLvtCmci, kLvtMasked);
    for (std::size_t lvt = kLvtTimer; lvt <= kLvtError; lvt += 0x10) put(page, lvt, kLvtMasked);
    put(page, kInitialCount, 0);
    put(page, kCurrentCount, 0);
    return kvm::write_local_apic(vcpus_[index].fd, page);
}

// Stops the kernel's 8254 as well, so that the 8259A pair is at rest afterwards.
Result<pit8254::Pit8254::State> KernelChips::take_pit() {
    auto pit = chips_.pit();
    if (!pit) return std::unexpected(std::move(pit.error()));
    constexpr int kMostWaits = 4;
    for (int i = 0; pit_stay_ && i < kMostWaits; ++i) {
        const auto distance = distance_to_kernel_tick(*pit, *pit_stay_, monotonic_ns());
        if (!distance || *distance > kUncertainNs) break;
        sleep_ns(2 * kUncertainNs);
    }
    const KernelMoment moment = now();
    kvm_pit_state2 stopped = *pit;
    stopped.channels[0].mode = kNoMode;
    if (auto status = chips_.set_pit(stopped); !status) return std::unexpected(std::move(status.error()));
    const std::optional<KernelPitStay> stay = std::exchange(pit_stay_, std::nullopt);
    return from_kernel(*pit, moment, stay ? &*stay : nullptr);
}

Status KernelChips::leave_board() {
    auto pit = take_pit();
    if (!pit) return std::unexpected(std::move(pit.error()));
    const auto master = chips_.pic(false);
    if (!master) return std::unexpected(master.error());
    const auto slave = chips_.pic(true);
    if (!slave) return std::unexpected(slave.error());
    const auto io_apic = chips_.io_apic();
    if (!io_apic) return std::unexpected(io_apic.error());

    u32 pic_levels = ours_.pic_pins.levels();
    u32 io_apic_levels = ours_.io_apic_pins.levels();
    if (!ours_.timers.hpet_selected()) {
        // A tick that waits in the 8259A holds our 8254's wire up, which would take it back otherwise.
        if ((master->irr & 1) != 0) pit->wire = 1;
        pic_levels = (pic_levels & ~u32{1}) | pit->wire;
        io_apic_levels = (io_apic_levels & ~(u32{1} << kTimerPin)) | u32{pit->wire} << kTimerPin;
    }
    if (auto status = ours_.pit.restore(*pit); !status) return status;
    if (auto status = ours_.pic.restore(
            from_kernel({.master = *master, .slave = *slave}, static_cast<u16>(pic_levels)));
        !status)
        return status;
    return ours_.io_apic.restore(from_kernel(*io_apic, io_apic_levels));
}

// Those behind the wires hear what they are. A level-triggered input that requests, and has not been sent, is
// sent now: KVM waits with those that are ended in vain too often.
void KernelChips::show_wires() {
    const bool tick = ours_.pit.state().wire != 0;
    ours_.timers.old_timers().set_level(0, tick);
    const u32 levels = ours_.io_apic_pins.levels();
    for (unsigned pin = 0; pin < ioapic::kPins; ++pin) ours_.io_apic.set_level(pin, (levels >> pin & 1) != 0);
}

}  // namespace tessera
