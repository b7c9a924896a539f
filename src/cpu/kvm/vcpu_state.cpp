// The order of the calls matters, both ways; see read() and write().
#include "cpu/kvm/vcpu_state.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <fmt/format.h>
#include <iterator>
#include <sys/ioctl.h>
#include <utility>
#include <x86intrin.h>

#include "cpu/kvm/msr_index.h"

namespace tessera::kvm {

namespace {

namespace rights = x86::rights;

template <typename T>
Status call(int vcpu, unsigned long request, T* argument, const char* name) {
    if (ioctl(vcpu, request, argument) < 0) return call_failed(name);
    return {};
}

// The order of State::gpr [SDM 2A table 3-1].
using Gprs = std::array<__u64 kvm_regs::*, 16>;
constexpr Gprs kGprs{&kvm_regs::rax, &kvm_regs::rcx, &kvm_regs::rdx, &kvm_regs::rbx,
                     &kvm_regs::rsp, &kvm_regs::rbp, &kvm_regs::rsi, &kvm_regs::rdi,
                     &kvm_regs::r8,  &kvm_regs::r9,  &kvm_regs::r10, &kvm_regs::r11,
                     &kvm_regs::r12, &kvm_regs::r13, &kvm_regs::r14, &kvm_regs::r15};
// The order of x86::Seg.
using Segments = std::array<kvm_segment kvm_sregs2::*, 6>;
constexpr Segments kSegments{&kvm_sregs2::es, &kvm_sregs2::cs, &kvm_sregs2::ss,
                             &kvm_sregs2::ds, &kvm_sregs2::fs, &kvm_sregs2::gs};

x86::Segment from_kvm(const kvm_segment& in) {
    u32 bits = (in.type & rights::kTypeMask) | u32{in.dpl} << rights::kDplShift;
    const auto flag = [&](u8 value, u32 bit) { bits |= value != 0 ? bit : 0; };
    flag(in.s, rights::kS);
    flag(in.present, rights::kPresent);
    flag(in.avl, rights::kAvl);
    flag(in.l, rights::kLong);
    flag(in.db, rights::kDb);
    flag(in.g, rights::kGranularity);
    flag(in.unusable, rights::kUnusable);
    return {.selector = in.selector, .base = in.base, .limit = in.limit, .rights = bits};
}

kvm_segment to_kvm(const x86::Segment& in) {
    const auto flag = [&](u32 bit) { return static_cast<u8>((in.rights & bit) != 0 ? 1 : 0); };
    const bool usable = (in.rights & rights::kUnusable) == 0;
    return {.base = in.base,
            .limit = in.limit,
            .selector = in.selector,
            .type = static_cast<u8>(in.rights & rights::kTypeMask),
            .present = usable ? flag(rights::kPresent) : u8{0},
            .dpl = static_cast<u8>((in.rights & rights::kDpl) >> rights::kDplShift),
            .db = flag(rights::kDb),
            .s = flag(rights::kS),
            .l = flag(rights::kLong),
            .g = flag(rights::kGranularity),
            .avl = flag(rights::kAvl),
            .unusable = static_cast<u8>(usable ? 0 : 1),
            .padding = 0};
}

[[nodiscard]] bool is_pae_paging(u64 cr0, u64 cr4, u64 efer) {
    return (cr0 & x86::cr0::kPg) != 0 && (cr4 & x86::cr4::kPae) != 0 && (efer & x86::efer::kLma) == 0;
}

// [SDM 3C 27.3.1.2] The modes whose segments have no attributes of their own have those that processors and
// KVM expect there: the CPL is the DPL of SS for both.
void set_segments(const x86::State& in, kvm_sregs2& out) {
    for (unsigned i = 0; i < kSegments.size(); ++i) {
        kvm_segment segment = to_kvm(in.seg[i]);
        if ((in.cr0 & x86::cr0::kPe) == 0) {
            segment.dpl = 0;
        } else if ((in.rflags & x86::eflags::kVm) != 0) {
            segment.type = 3;
            segment.s = segment.present = 1;
            segment.dpl = 3;
            segment.db = segment.l = segment.g = segment.avl = segment.unusable = 0;
        }
        if ((in.msr.efer & x86::efer::kLma) == 0) segment.l = 0;
        out.*kSegments[i] = segment;
    }
    out.tr = to_kvm(in.tr);
    out.ldt = to_kvm(in.ldtr);
}

void copy_table(const x86::DescriptorTable& in, kvm_dtable& out) {
    out = {.base = in.base, .limit = in.limit, .padding = {}};
}

// What both forms have is in the same order, up to flags and PDPTEs on one side, interrupts on the other.
constexpr size_t kSregsCommon = offsetof(kvm_sregs2, flags);
static_assert(kSregsCommon == offsetof(kvm_sregs, interrupt_bitmap));

}  // namespace

VcpuState::VcpuState(const Host& host, int vcpu, VcpuMsrs msrs, XsaveArea xsave)
    : vcpu_(vcpu),
      msrs_(std::move(msrs)),
      xsave_(std::move(xsave)),
      has_sregs2_(host.has(KVM_CAP_SREGS2)),
      has_xsave2_(host.has(KVM_CAP_XSAVE2)),
      has_attributes_(host.has(KVM_CAP_VCPU_ATTRIBUTES)) {
    kvm_lapic_state apic{};
    apic_in_kernel_ = ioctl(vcpu, KVM_GET_LAPIC, &apic) == 0;
}

Result<VcpuState> VcpuState::create(const Host& host, int vcpu) {
    Result<VcpuMsrs> msrs = VcpuMsrs::create(host, vcpu);
    if (!msrs) return std::unexpected(msrs.error());
    const u64 size = std::max<u64>(sizeof(kvm_xsave), static_cast<u64>(host.capability(KVM_CAP_XSAVE2)));
    return VcpuState(host, vcpu, *std::move(msrs), XsaveArea(size, host.supported_cpuid()));
}

// --- out of KVM

Result<x86::State> VcpuState::read(Extent extent) const {
    x86::State state;
    // The first two make KVM act on INIT and SIPI and finish what it knows of an exception (CR2, DR6): all
    // else comes after them.
    Status status = read_activity(state);
    if (status) status = read_events(state);
    if (status) status = read_registers(state);
    if (status) status = read_sregs(state);
    if (status) status = read_debug(state);
    if (status) status = read_extended(state, extent);
    if (status) status = msrs_.read(vcpu_, state, extent);
    if (!status) return std::unexpected(status.error());
    return state;
}

Status VcpuState::read_activity(x86::State& out) const {
    out.activity = kept_activity_;
    if (!apic_in_kernel_ || kept_activity_ == x86::Activity::Shutdown) return {};
    kvm_mp_state state{};
    if (const Status status = call(vcpu_, KVM_GET_MP_STATE, &state, "KVM_GET_MP_STATE"); !status)
        return status;
    switch (state.mp_state) {
        case KVM_MP_STATE_UNINITIALIZED:
        case KVM_MP_STATE_INIT_RECEIVED: out.activity = x86::Activity::WaitForSipi; break;
        case KVM_MP_STATE_HALTED: out.activity = x86::Activity::Halted; break;
        default: out.activity = x86::Activity::Running; break;
    }
    return {};
}

Status VcpuState::read_events(x86::State& out) const {
    kvm_vcpu_events events{};
    if (const Status status = call(vcpu_, KVM_GET_VCPU_EVENTS, &events, "KVM_GET_VCPU_EVENTS"); !status)
        return status;
    out.interrupt_shadow = events.interrupt.shadow != 0;
    out.shadow_is_mov_ss = events.interrupt.shadow == KVM_X86_SHADOW_INT_MOV_SS;
    out.nmi_blocked = events.nmi.masked != 0;
    out.nmi_pending = events.nmi.pending != 0;
    // One event, which is the one that KVM would inject.
    if (events.exception.injected != 0 || events.exception.pending != 0) {
        out.event_valid = true;
        if (events.nmi.injected != 0) out.nmi_pending = true;
        out.event_vector = events.exception.nr;
        out.event_has_error = events.exception.has_error_code != 0;
        out.event_error = out.event_has_error ? events.exception.error_code : 0;
    } else if (events.nmi.injected != 0) {
        out.event_valid = true;
        out.event_vector = x86::kNmi;
    } else if (events.interrupt.injected != 0) {
        out.event_valid = true;
        out.event_vector = events.interrupt.nr;
        out.event_is_interrupt = true;
    }
    if ((events.flags & KVM_VCPUEVENT_VALID_TRIPLE_FAULT) != 0 && events.triple_fault.pending != 0)
        out.activity = x86::Activity::Shutdown;
    return {};
}

Status VcpuState::read_registers(x86::State& out) const {
    kvm_regs regs{};
    if (const Status status = call(vcpu_, KVM_GET_REGS, &regs, "KVM_GET_REGS"); !status) return status;
    for (unsigned i = 0; i < kGprs.size(); ++i) out.gpr[i] = regs.*kGprs[i];
    out.rip = regs.rip;
    out.rflags = regs.rflags;
    return {};
}

Result<kvm_sregs2> VcpuState::get_sregs() const {
    kvm_sregs2 sregs{};
    if (has_sregs2_) {
        if (const Status status = call(vcpu_, KVM_GET_SREGS2, &sregs, "KVM_GET_SREGS2"); !status)
            return std::unexpected(status.error());
        return sregs;
    }
    kvm_sregs old{};
    if (const Status status = call(vcpu_, KVM_GET_SREGS, &old, "KVM_GET_SREGS"); !status)
        return std::unexpected(status.error());
    std::memcpy(&sregs, &old, kSregsCommon);
    return sregs;
}

Status VcpuState::set_sregs(const kvm_sregs2& sregs) const {
    if (has_sregs2_) return call(vcpu_, KVM_SET_SREGS2, &sregs, "KVM_SET_SREGS2");
    // KVM reads the PDPTEs from memory. An interrupt to inject is among the events.
    kvm_sregs old{};
    std::memcpy(&old, &sregs, kSregsCommon);
    return call(vcpu_, KVM_SET_SREGS, &old, "KVM_SET_SREGS");
}

Status VcpuState::read_sregs(x86::State& out) const {
    const Result<kvm_sregs2> sregs = get_sregs();
    if (!sregs) return std::unexpected(sregs.error());
    for (unsigned i = 0; i < kSegments.size(); ++i) out.seg[i] = from_kvm((*sregs).*kSegments[i]);
    out.ldtr = from_kvm(sregs->ldt);
    out.tr = from_kvm(sregs->tr);
    out.gdtr = {.base = sregs->gdt.base, .limit = sregs->gdt.limit};
    out.idtr = {.base = sregs->idt.base, .limit = sregs->idt.limit};
    out.cr0 = sregs->cr0;
    out.cr2 = sregs->cr2;
    out.cr3 = sregs->cr3;
    out.cr4 = sregs->cr4;
    out.msr.efer = sregs->efer;
    if ((sregs->flags & KVM_SREGS2_FLAGS_PDPTRS_VALID) != 0)
        std::ranges::copy(sregs->pdptrs, out.pdpte.begin());
    return {};
}

Status VcpuState::read_debug(x86::State& out) const {
    kvm_debugregs debug{};
    if (const Status status = call(vcpu_, KVM_GET_DEBUGREGS, &debug, "KVM_GET_DEBUGREGS"); !status)
        return status;
    std::ranges::copy(debug.db, out.dr.begin());
    out.dr6 = debug.dr6;
    out.dr7 = debug.dr7;
    return {};
}

Result<std::vector<u8>> VcpuState::get_xsave() const {
    std::vector<u8> area(xsave_.size());
    const Status status = has_xsave2_ ? call(vcpu_, KVM_GET_XSAVE2, area.data(), "KVM_GET_XSAVE2")
                                      : call(vcpu_, KVM_GET_XSAVE, area.data(), "KVM_GET_XSAVE");
    if (!status) return std::unexpected(status.error());
    return area;
}

Status VcpuState::read_extended(x86::State& out, Extent extent) const {
    const Result<std::vector<u8>> area = get_xsave();
    if (!area) return std::unexpected(area.error());
    xsave_.take_registers(*area, out);
    if (extent == Extent::Whole) xsave_.take_others(*area, out);

    kvm_xcrs xcrs{};
    if (const Status status = call(vcpu_, KVM_GET_XCRS, &xcrs, "KVM_GET_XCRS"); !status) return status;
    for (u32 i = 0; i < std::min<u32>(xcrs.nr_xcrs, KVM_MAX_XCRS); ++i)
        if (xcrs.xcrs[i].xcr == 0) out.xcr0 = xcrs.xcrs[i].value;
    return {};
}

// --- into KVM

Status VcpuState::write(const x86::State& state, Extent extent) {
    // What this host cannot have is found out before anything is written.
    Result<std::vector<u8>> area = get_xsave();
    if (!area) return std::unexpected(area.error());
    Status status = xsave_.put_registers(state, *area);
    if (status && extent == Extent::Whole) status = xsave_.put_others(state, *area);
    // KVM_SET_REGS forgets a pending exception, and KVM_SET_SREGS wakes the bootstrap processor when it is
    // at the reset vector: events and activity come last.
    if (status) status = write_sregs(state);
    if (status) status = write_registers(state);
    if (status) status = check_mode(state);
    if (status) status = write_xcr0(state);
    if (status) status = call(vcpu_, KVM_SET_XSAVE, area->data(), "KVM_SET_XSAVE");
    if (status) status = write_debug(state);
    if (status) status = msrs_.write(vcpu_, state, extent);
    if (status) status = write_events(state);
    if (status) status = write_activity(state);
    return status;
}

namespace {

[[nodiscard]] bool same_sregs(const x86::State& a, const x86::State& b) {
    return a.seg == b.seg && a.ldtr == b.ldtr && a.tr == b.tr && a.gdtr == b.gdtr && a.idtr == b.idtr &&
           a.cr0 == b.cr0 && a.cr2 == b.cr2 && a.cr3 == b.cr3 && a.cr4 == b.cr4 && a.msr.efer == b.msr.efer &&
           a.pdpte == b.pdpte && ((a.rflags ^ b.rflags) & x86::eflags::kVm) == 0;
}
[[nodiscard]] bool same_registers(const x86::State& a, const x86::State& b) {
    return a.gpr == b.gpr && a.rip == b.rip && a.rflags == b.rflags;
}
[[nodiscard]] bool same_events(const x86::State& a, const x86::State& b) {
    return a.interrupt_shadow == b.interrupt_shadow && a.shadow_is_mov_ss == b.shadow_is_mov_ss &&
           a.nmi_blocked == b.nmi_blocked && a.nmi_pending == b.nmi_pending &&
           a.event_valid == b.event_valid && a.event_vector == b.event_vector &&
           a.event_is_interrupt == b.event_is_interrupt && a.event_has_error == b.event_has_error &&
           a.event_error == b.event_error;
}

}  // namespace

// In the order of write().
Status VcpuState::update(const x86::State& before, const x86::State& after) {
    std::vector<u8> area;
    if (after.fpu != before.fpu || after.mxcsr != before.mxcsr || after.ymm != before.ymm) {
        Result<std::vector<u8>> present = get_xsave();
        if (!present) return std::unexpected(present.error());
        area = *std::move(present);
        if (const Status status = xsave_.put_registers(after, area); !status) return status;
    }
    Status status;
    const bool sregs = !same_sregs(after, before);
    if (sregs) status = write_sregs(after);
    if (status && !same_registers(after, before)) status = write_registers(after);
    if (status && sregs) status = check_mode(after);
    if (status && after.xcr0 != before.xcr0) status = write_xcr0(after);
    if (status && !area.empty()) status = call(vcpu_, KVM_SET_XSAVE, area.data(), "KVM_SET_XSAVE");
    if (status && (after.dr != before.dr || after.dr6 != before.dr6 || after.dr7 != before.dr7))
        status = write_debug(after);
    if (status && after.msr != before.msr) status = VcpuMsrs::update(vcpu_, before.msr, after.msr);
    if (status && (after.event_valid || !same_events(after, before))) status = write_events(after);
    if (status && after.activity != before.activity) status = write_activity(after);
    return status;
}

Status VcpuState::write_sregs(const x86::State& in) const {
    Result<kvm_sregs2> sregs = get_sregs();
    if (!sregs) return std::unexpected(sregs.error());
    set_segments(in, *sregs);
    copy_table(in.gdtr, sregs->gdt);
    copy_table(in.idtr, sregs->idt);
    sregs->cr0 = in.cr0;
    sregs->cr2 = in.cr2;
    sregs->cr3 = in.cr3;
    sregs->cr4 = in.cr4;
    sregs->efer = in.msr.efer;
    const bool pae = is_pae_paging(in.cr0, in.cr4, in.msr.efer);
    sregs->flags = pae ? KVM_SREGS2_FLAGS_PDPTRS_VALID : 0;
    for (unsigned i = 0; i < in.pdpte.size(); ++i) sregs->pdptrs[i] = pae ? in.pdpte[i] : 0;
    return set_sregs(*sregs);
}

Status VcpuState::write_registers(const x86::State& in) const {
    kvm_regs regs{};
    for (unsigned i = 0; i < kGprs.size(); ++i) regs.*kGprs[i] = in.gpr[i];
    regs.rip = in.rip;
    regs.rflags = in.rflags;
    return call(vcpu_, KVM_SET_REGS, &regs, "KVM_SET_REGS");
}

// A KVM without hardware behind it may lack modes, and drops their bits without a word.
Status VcpuState::check_mode(const x86::State& in) const {
    const Result<kvm_sregs2> sregs = get_sregs();
    if (!sregs) return std::unexpected(sregs.error());
    x86::State taken;
    if (const Status status = read_registers(taken); !status) return status;
    constexpr u64 kCr0 = x86::cr0::kPe | x86::cr0::kPg, kEfer = x86::efer::kLme | x86::efer::kLma;
    if (((sregs->cr0 ^ in.cr0) & kCr0) != 0 || ((sregs->cr4 ^ in.cr4) & x86::cr4::kPae) != 0 ||
        ((sregs->efer ^ in.msr.efer) & kEfer) != 0 || ((taken.rflags ^ in.rflags) & x86::eflags::kVm) != 0)
        return fail(Errc::Unsupported,
                    fmt::format("this host's KVM does not have the mode that the guest is in (CR0 {:#x}, CR4 "
                                "{:#x}, EFER {:#x}, RFLAGS {:#x})",
                                in.cr0, in.cr4, in.msr.efer, in.rflags));
    return {};
}

Status VcpuState::write_xcr0(const x86::State& in) const {
    kvm_xcrs xcrs{};
    xcrs.nr_xcrs = 1;
    xcrs.xcrs[0].value = in.xcr0;
    return call(vcpu_, KVM_SET_XCRS, &xcrs, "KVM_SET_XCRS");
}

Status VcpuState::write_debug(const x86::State& in) const {
    kvm_debugregs debug{};
    std::ranges::copy(in.dr, std::begin(debug.db));
    debug.dr6 = in.dr6;
    debug.dr7 = in.dr7;
    return call(vcpu_, KVM_SET_DEBUGREGS, &debug, "KVM_SET_DEBUGREGS");
}

namespace {

void inject_event(const x86::State& in, kvm_vcpu_events& out) {
    constexpr u8 kFirstInterrupt = 32;
    if (in.event_is_interrupt || in.event_vector >= kFirstInterrupt) {
        out.interrupt.injected = 1;
        out.interrupt.nr = in.event_vector;
    } else if (in.event_vector == x86::kNmi) {
        out.nmi.injected = 1;
    } else {
        out.exception.injected = 1;
        out.exception.nr = in.event_vector;
        out.exception.has_error_code = in.event_has_error ? 1 : 0;
        out.exception.error_code = in.event_error;
    }
}

}  // namespace

Status VcpuState::write_events(const x86::State& in) const {
    kvm_vcpu_events events{};
    // Only what it names is this engine's: the SIPI vector and SMM stay. A triple fault that KVM still holds
    // does not.
    if (const Status status = call(vcpu_, KVM_GET_VCPU_EVENTS, &events, "KVM_GET_VCPU_EVENTS"); !status)
        return status;
    events.flags &= KVM_VCPUEVENT_VALID_TRIPLE_FAULT;
    events.flags |= KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW;
    events.triple_fault.pending = 0;
    events.exception = {};
    events.exception_has_payload = 0;
    events.exception_payload = 0;
    events.interrupt = {};
    if (in.interrupt_shadow)
        events.interrupt.shadow = in.shadow_is_mov_ss ? KVM_X86_SHADOW_INT_MOV_SS : KVM_X86_SHADOW_INT_STI;
    events.nmi = {};
    events.nmi.masked = in.nmi_blocked ? 1 : 0;
    events.nmi.pending = in.nmi_pending ? 1 : 0;
    if (in.event_valid) inject_event(in, events);
    return call(vcpu_, KVM_SET_VCPU_EVENTS, &events, "KVM_SET_VCPU_EVENTS");
}

Status VcpuState::write_activity(const x86::State& in) {
    const bool kept = !apic_in_kernel_ || in.activity == x86::Activity::Shutdown;
    kept_activity_ = kept ? in.activity : x86::Activity::Running;
    if (!apic_in_kernel_) return {};
    kvm_mp_state state{.mp_state = KVM_MP_STATE_RUNNABLE};
    if (in.activity == x86::Activity::Halted) state.mp_state = KVM_MP_STATE_HALTED;
    if (in.activity == x86::Activity::WaitForSipi) state.mp_state = KVM_MP_STATE_INIT_RECEIVED;
    return call(vcpu_, KVM_SET_MP_STATE, &state, "KVM_SET_MP_STATE");
}

// --- the TSC, and what the local APIC shares with the special registers

namespace {

kvm_device_attr offset_attribute(u64& value) {
    return {.flags = 0,
            .group = KVM_VCPU_TSC_CTRL,
            .attr = KVM_VCPU_TSC_OFFSET,
            .addr = reinterpret_cast<u64>(&value)};
}

}  // namespace

Result<u64> VcpuState::tsc_offset() const {
    u64 offset = 0;
    if (has_attributes_) {
        kvm_device_attr attribute = offset_attribute(offset);
        if (ioctl(vcpu_, KVM_GET_DEVICE_ATTR, &attribute) == 0) return offset;
    }
    const auto value = get_msrs(vcpu_, std::array{kMsrTsc});
    const u64 now = __rdtsc();
    if (!value) return std::unexpected(value.error());
    if (value->empty()) return fail(Errc::Unsupported, "this host's KVM does not tell a guest's TSC");
    return value->front().data - now;
}

Status VcpuState::set_tsc_offset(u64 offset) const {
    u64 value = offset;
    kvm_device_attr attribute = offset_attribute(value);
    if (has_attributes_ && ioctl(vcpu_, KVM_SET_DEVICE_ATTR, &attribute) == 0) return {};
    return set_msrs(vcpu_,
                    std::array{kvm_msr_entry{.index = kMsrTsc, .reserved = 0, .data = __rdtsc() + offset}});
}

Result<u64> VcpuState::apic_base() const {
    const Result<kvm_sregs2> sregs = get_sregs();
    if (!sregs) return std::unexpected(sregs.error());
    return sregs->apic_base;
}

Status VcpuState::set_apic_base(u64 value) const {
    Result<kvm_sregs2> sregs = get_sregs();
    if (!sregs) return std::unexpected(sregs.error());
    sregs->apic_base = value;
    return set_sregs(*sregs);
}

Result<u64> VcpuState::cr8() const {
    const Result<kvm_sregs2> sregs = get_sregs();
    if (!sregs) return std::unexpected(sregs.error());
    return sregs->cr8;
}

Status VcpuState::set_cr8(u64 value) const {
    Result<kvm_sregs2> sregs = get_sregs();
    if (!sregs) return std::unexpected(sregs.error());
    sregs->cr8 = value;
    return set_sregs(*sregs);
}

}  // namespace tessera::kvm
