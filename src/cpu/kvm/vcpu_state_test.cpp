// x86::State into the host's KVM and out again, and the other way round. What the header's table lists as
// lost is restated in `as_kept`.
#include "cpu/kvm/vcpu_state.h"

#include <algorithm>
#include <bit>
#include <functional>
#include <gtest/gtest.h>
#include <random>

#include "cpu/kvm/testing/test_vm.h"
#include "cpu/soft/testing/kernel_rig.h"

namespace tessera::kvm {
namespace {

using x86::Activity;
using x86::State;
using Chips = TestVm::Chips;

class KvmVcpuStateTest : public testing::Test {
protected:
    void make(Chips chips) {
        std::string why;
        vm_ = TestVm::create(chips, why);
        if (vm_ == nullptr) {
            skip_ = why;
            return;
        }
        auto made = VcpuState::create(vm_->host, vm_->vcpu.get());
        ASSERT_TRUE(made) << made.error().message;
        access_ = std::make_unique<VcpuState>(*std::move(made));
        leaves_ = *vm_->host.supported_cpuid();
    }
    [[nodiscard]] VcpuState& access() { return *access_; }
    [[nodiscard]] State read() {
        auto state = access_->read();
        EXPECT_TRUE(state) << state.error().message;
        return state ? *state : State{};
    }
    void write(const State& state) {
        const Status status = access_->write(state);
        ASSERT_TRUE(status) << status.error().message;
    }

    [[nodiscard]] kvm_cpuid_entry2 leaf(u32 function, u32 index = 0) const {
        for (const kvm_cpuid_entry2& entry : leaves_)
            if (entry.function == function && entry.index == index) return entry;
        return {};
    }
    // The bits of CR4 that the CPU's CPUID lets a guest set. [SDM 3A 2.5]
    [[nodiscard]] u64 cr4_allowed() const {
        u64 allowed = 0x7ff & ~u64{0x800};
        const auto when = [&](bool there, unsigned bit) { allowed |= there ? u64{1} << bit : 0; };
        when((leaf(7).ecx >> 2 & 1) != 0, 11);
        when((leaf(7).ebx & 1) != 0, 16);
        when((leaf(1).ecx >> 17 & 1) != 0, 17);
        when((leaf(1).ecx >> 26 & 1) != 0, 18);
        when((leaf(7).ebx >> 7 & 1) != 0, 20);
        when((leaf(7).ebx >> 20 & 1) != 0, 21);
        return allowed;
    }

    std::unique_ptr<TestVm> vm_;
    std::unique_ptr<VcpuState> access_;
    std::vector<kvm_cpuid_entry2> leaves_;
    std::string skip_;
};

#define MAKE_OR_SKIP(chips) \
    make(chips);            \
    if (!skip_.empty()) GTEST_SKIP() << skip_

// What the table in vcpu_state.h says of segments, as a processor that keeps least has it.
x86::Segment as_kept(x86::Segment segment, const State& state, bool is_tr) {
    namespace r = x86::rights;
    if ((state.cr0 & x86::cr0::kPe) == 0) segment.rights &= ~r::kDpl;
    if ((state.msr.efer & x86::efer::kLma) == 0) segment.rights &= ~r::kLong;
    if ((segment.rights & r::kUnusable) != 0) return {.rights = segment.rights & (r::kUnusable | r::kDpl)};
    segment.rights &= ~r::kGranularity;
    if ((segment.rights & r::kS) != 0) segment.rights |= r::kAccessed;
    if (is_tr) segment.rights |= 2;
    return segment;
}

State as_kept(State state) {
    const State before = state;
    for (x86::Segment& segment : state.seg) segment = as_kept(segment, before, false);
    state.ldtr = as_kept(state.ldtr, before, false);
    state.tr = as_kept(state.tr, before, true);
    state.fpu.cs = state.fpu.ds = 0;
    const bool pae =
        (state.cr0 >> 31 & 1) != 0 && (state.cr4 >> 5 & 1) != 0 && (state.msr.efer >> 10 & 1) == 0;
    if (!pae) state.pdpte = {};
    state.msr.tsc_offset = 0;
    state.msr.misc_enable &= ~u64{0x1880};
    state.other_msrs.clear();  // KVM -> State -> KVM tests look at them
    return state;
}

#define EXPECT_SAME(member) EXPECT_EQ(a.member, b.member) << #member
void expect_same(const State& one, const State& other) {
    const State a = as_kept(one), b = as_kept(other);
    EXPECT_SAME(gpr);
    EXPECT_SAME(rip);
    EXPECT_SAME(rflags);
    for (unsigned i = 0; i < 6; ++i) {
        EXPECT_SAME(seg[i].selector) << i;
        EXPECT_SAME(seg[i].base) << i;
        EXPECT_SAME(seg[i].limit) << i;
        EXPECT_SAME(seg[i].rights) << i;
    }
    EXPECT_SAME(ldtr.rights);
    EXPECT_SAME(tr.rights);
    EXPECT_SAME(cr0);
    EXPECT_SAME(cr2);
    EXPECT_SAME(cr3);
    EXPECT_SAME(cr4);
    EXPECT_SAME(xcr0);
    EXPECT_SAME(dr);
    EXPECT_SAME(dr6);
    EXPECT_SAME(dr7);
    EXPECT_SAME(pdpte);
    EXPECT_SAME(fpu.control);
    EXPECT_SAME(fpu.status);
    EXPECT_SAME(fpu.tag);
    EXPECT_SAME(fpu.st);
    EXPECT_SAME(fpu.ip);
    EXPECT_SAME(mxcsr);
    EXPECT_SAME(ymm);
    EXPECT_SAME(msr.efer);
    EXPECT_SAME(msr.star);
    EXPECT_SAME(msr.lstar);
    EXPECT_SAME(msr.cstar);
    EXPECT_SAME(msr.fmask);
    EXPECT_SAME(msr.kernel_gs_base);
    EXPECT_SAME(msr.sysenter_cs);
    EXPECT_SAME(msr.sysenter_esp);
    EXPECT_SAME(msr.sysenter_eip);
    EXPECT_SAME(msr.pat);
    EXPECT_SAME(msr.tsc_aux);
    EXPECT_SAME(msr.misc_enable);
    EXPECT_SAME(msr.spec_ctrl);
    EXPECT_SAME(msr.mtrr_def_type);
    EXPECT_SAME(msr.mtrr_fixed);
    EXPECT_SAME(msr.mtrr_variable);
    EXPECT_SAME(msr.tsc_adjust);
    EXPECT_SAME(msr.mcg_status);
    EXPECT_SAME(msr.kvm_system_time);
    EXPECT_SAME(msr.kvm_pv_eoi);
    EXPECT_SAME(activity);
    EXPECT_SAME(interrupt_shadow);
    EXPECT_SAME(shadow_is_mov_ss);
    EXPECT_SAME(nmi_blocked);
    EXPECT_SAME(nmi_pending);
    EXPECT_SAME(event_valid);
    EXPECT_SAME(event_vector);
    EXPECT_SAME(event_is_interrupt);
    EXPECT_SAME(event_has_error);
    EXPECT_SAME(event_error);
    EXPECT_EQ(a, b) << "a member that is not listed here";
}
#undef EXPECT_SAME

TEST_F(KvmVcpuStateTest, ResetStateSurvives) {
    MAKE_OR_SKIP(Chips::None);
    const State before = x86::reset_state();
    write(before);
    expect_same(read(), before);
}

}  // namespace
}  // namespace tessera::kvm
