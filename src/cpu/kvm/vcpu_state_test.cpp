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

enum class Mode : u8 {
    Real,
    Unreal,
    Protected,
    ProtectedUser,
    Virtual8086,
    Pae,
    Compatibility,
    Long,
    LongUser
};

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
        const auto supported = vm_->host.supported_cpuid();
        leaves_.assign(supported.begin(), supported.end());
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

    // Some KVMs that interpret do not, and do not say so. (What is measured is never quite 0.)
    [[nodiscard]] bool moves_tsc() const {
        constexpr u64 kSomeSeconds = u64{1} << 35;
        return access_->tsc_offset().value_or(0) + kSomeSeconds > 2 * kSomeSeconds;
    }
    void expect_survival(std::initializer_list<Mode> modes);

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

// --- valid states of every mode, by way of the software CPU's exporter

class Source {
public:
    explicit Source(u64 seed) : random_(seed) {}

    State make(Mode mode, u64 cr4_allowed, u64 xcr0) {
        State s = base(mode);
        s.cr4 &= cr4_allowed;
        s.xcr0 = xcr0;
        registers(s);
        debug(s);
        extended(s, (xcr0 & 4) != 0);
        msrs(s);
        events(s);
        rig_.cpu().set_state(s);
        return rig_.cpu().state();
    }

private:
    u64 any() { return random_(); }
    u64 below(u64 n) { return random_() % n; }
    bool coin() { return below(2) != 0; }
    u64 canonical() { return static_cast<u64>(static_cast<s64>(any() << 16) >> 16); }

    State base(Mode mode) {
        using enum Mode;
        State s;
        switch (mode) {
            case Real: return rig_.real_mode_state();
            case Unreal:
                s = rig_.real_mode_state();
                for (auto& segment : s.seg) {
                    segment.limit = 0xffff'ffff;
                    segment.rights |= x86::rights::kGranularity;
                }
                s.seg[x86::Cs].limit = 0xffff;
                s.seg[x86::Cs].rights &= ~x86::rights::kGranularity;
                return s;
            case Protected: return rig_.kernel32(0);
            case ProtectedUser: return rig_.kernel32(3);
            case Virtual8086:
                s = rig_.kernel32(3);
                s.rflags |= x86::eflags::kVm;
                for (auto& segment : s.seg) {
                    const auto selector = static_cast<u16>(any());
                    segment = {
                        .selector = selector, .base = u64{selector} << 4, .limit = 0xffff, .rights = 0xf3};
                }
                return s;
            case Pae:
                s = rig_.kernel32(0);
                s.cr0 |= x86::cr0::kPg;
                s.cr4 |= x86::cr4::kPae;
                s.cr3 = 0x52000 + 32 * below(8);
                // Not what memory has there: they were loaded earlier. [SDM 3A 4.4.1]
                for (u64& entry : s.pdpte) entry = coin() ? (below(kMiB) & ~u64{0xfff}) | 1 : 0;
                return s;
            case Compatibility:
                s = rig_.kernel64(3);
                s.seg[x86::Cs].rights &= ~x86::rights::kLong;
                s.seg[x86::Cs].rights |= x86::rights::kDb;
                return s;
            case Long:
                s = rig_.kernel64(0);
                // Null selectors: [SDM 3A 3.4.2]
                for (const auto seg : {x86::Ds, x86::Es, x86::Ss})
                    if (coin()) s.seg[seg] = {.rights = x86::rights::kUnusable};
                s.seg[x86::Gs].base = canonical();
                return s;
            case LongUser:
                s = rig_.kernel64(3);
                s.seg[x86::Fs].base = canonical();
                return s;
        }
        return s;
    }
    void registers(State& s) {
        for (u64& gpr : s.gpr) gpr = any();
        const bool wide = (s.msr.efer & x86::efer::kLma) != 0;
        s.rip = wide && (s.seg[x86::Cs].rights & x86::rights::kLong) != 0 ? canonical() : below(0x1'0000);
        constexpr u64 kFree = x86::eflags::kStatus | x86::eflags::kIf | x86::eflags::kDf |
                              x86::eflags::kIopl | x86::eflags::kNt | x86::eflags::kRf | x86::eflags::kAc |
                              x86::eflags::kId;
        s.rflags = (s.rflags & ~kFree) | (any() & kFree);
        s.cr2 = any();
        s.gdtr = {.base = wide ? canonical() : static_cast<u32>(any()), .limit = static_cast<u16>(any())};
        s.idtr = {.base = wide ? canonical() : static_cast<u32>(any()), .limit = static_cast<u16>(any())};
        if (coin()) s.cr0 ^= x86::cr0::kTs;
        if (coin()) s.cr0 ^= x86::cr0::kWp;
        if (coin()) s.cr4 ^= x86::cr4::kTsd;
        if (coin()) s.msr.efer ^= x86::efer::kSce;
    }
    void debug(State& s) {
        for (u64& address : s.dr) address = canonical();
        s.dr6 = 0xffff'0ff0 | (any() & 0xf00f & ~u64{0x1000});
        s.dr7 = 0x400 | (any() & 0xff);
    }
    void extended(State& s, bool avx) {
        s.fpu.control = static_cast<u16>(0x40 | (any() & 0xf3f));
        s.fpu.status = static_cast<u16>(any() & 0x7f40);  // no exception, so ES and B are clear
        s.fpu.opcode = static_cast<u16>(any() & 0x7ff);
        s.fpu.ip = canonical();
        s.fpu.dp = canonical();
        s.fpu.tag = 0;
        const unsigned top = (s.fpu.status >> 11) & 7;
        for (unsigned i = 0; i < 8; ++i) {
            // [SDM 1 8.1.7] 0: valid, 1: zero, 2: special (here a NaN), 3: empty, by physical register.
            const auto kind = static_cast<unsigned>(below(4));
            auto& reg = s.fpu.st[(i - top) & 7];
            reg = {};
            if (kind == 0) reg = {1, 2, 3, 4, 5, 6, 7, 0x80, 0xff, 0x3f};
            if (kind == 2) reg = {0, 0, 0, 0, 0, 0, 0, 0xc0, 0xff, 0x7f};
            s.fpu.tag = static_cast<u16>(s.fpu.tag | kind << (2 * i));
        }
        s.mxcsr = static_cast<u32>(any() & 0xffbf);
        for (auto& reg : s.ymm) reg = {any(), any(), avx ? any() : 0, avx ? any() : 0};
    }
    void msrs(State& s) {
        s.msr.star = any();
        s.msr.lstar = canonical();
        s.msr.cstar = canonical();
        s.msr.fmask = static_cast<u32>(any());
        s.msr.kernel_gs_base = canonical();
        s.msr.sysenter_cs = static_cast<u16>(any());
        s.msr.sysenter_esp = static_cast<u32>(any());
        s.msr.sysenter_eip = static_cast<u32>(any());
        s.msr.pat = coin() ? 0x0007'0406'0007'0406 : 0x0407'0506'0007'0106;
        s.msr.mtrr_def_type = coin() ? 0xc06 : 0x800;
        for (u64& range : s.msr.mtrr_fixed) range = coin() ? 0x0606'0606'0606'0606 : 0x0605'0401'0006'0500;
        for (unsigned i = 0; i < 16; i += 2) {
            s.msr.mtrr_variable[i] = (below(kGiB) & ~u64{0xfff}) | 6;
            s.msr.mtrr_variable[i + 1] = (below(kGiB) & ~u64{0xfff}) | (coin() ? 0x800 : 0);
        }
        s.msr.mcg_status = below(8);
        s.msr.kvm_system_time = coin() ? 0x3001 : 0;
        s.msr.kvm_pv_eoi = coin() ? 0x4005 : 0;
        s.msr.kvm_poll_control = below(2);
    }
    void events(State& s) {
        s.interrupt_shadow = coin();
        s.shadow_is_mov_ss = s.interrupt_shadow && coin();
        s.nmi_blocked = coin();
        s.nmi_pending = coin();
        switch (below(5)) {
            case 0:
                s.event_valid = s.event_has_error = true;
                s.event_vector = 14;
                s.event_error = static_cast<u32>(below(32));
                break;
            case 1:
                s.event_valid = true;
                s.event_vector = 6;
                break;
            case 2:
                s.event_valid = s.event_is_interrupt = true;
                s.event_vector = static_cast<u8>(32 + below(224));
                break;
            case 3:  // the timer of a PC without an APIC
                s.event_valid = s.event_is_interrupt = true;
                s.event_vector = 8;
                break;
            default: break;
        }
    }

    std::mt19937_64 random_;
    soft::KernelRig rig_;
};

// Writes states of these modes and expects to read them again. A KVM that interprets lacks some.
void KvmVcpuStateTest::expect_survival(std::initializer_list<Mode> modes) {
    MAKE_OR_SKIP(Chips::None);
    Source source(1);
    const kvm_cpuid_entry2 xsave = leaf(0xd);
    // AMD's processors have one shadow bit.
    const bool one_shadow = leaf(0).ebx == 0x6874'7541;
    for (unsigned round = 0; round < 60; ++round)
        for (const Mode mode : modes) {
            const u64 xcr0 = std::array<u64, 3>{1, 3, 7}[round % 3] & xsave.eax;
            State before = source.make(mode, cr4_allowed(), xcr0);
            SCOPED_TRACE(testing::Message() << "mode " << static_cast<int>(mode) << " round " << round);
            const Status status = access().write(before);
            if (!status && status.error().code == Errc::Unsupported) GTEST_SKIP() << status.error().message;
            ASSERT_TRUE(status) << status.error().message;
            State after = read();
            if (one_shadow) before.shadow_is_mov_ss = after.shadow_is_mov_ss = false;
            expect_same(after, before);
            if (HasFailure()) return;
        }
}

TEST_F(KvmVcpuStateTest, ResetStateSurvives) {
    MAKE_OR_SKIP(Chips::None);
    const State before = x86::reset_state();
    write(before);
    expect_same(read(), before);
}

TEST_F(KvmVcpuStateTest, RealModeStatesSurvive) {
    expect_survival({Mode::Real, Mode::Unreal});
}
TEST_F(KvmVcpuStateTest, ProtectedModeStatesSurvive) {
    expect_survival({Mode::Protected, Mode::ProtectedUser});
}
TEST_F(KvmVcpuStateTest, Virtual8086StatesSurvive) {
    expect_survival({Mode::Virtual8086});
}
TEST_F(KvmVcpuStateTest, PaePagingStatesSurviveWithTheirPdptes) {
    if (const auto host = Host::open(); host && !host->has(KVM_CAP_SREGS2))
        GTEST_SKIP() << "this host's KVM reads PDPTEs from memory only";
    expect_survival({Mode::Pae});
}
TEST_F(KvmVcpuStateTest, LongModeStatesSurvive) {
    expect_survival({Mode::Compatibility, Mode::Long, Mode::LongUser});
}

// Nothing of an earlier guest is left behind.
TEST_F(KvmVcpuStateTest, ResetStateReplacesWhateverWasThere) {
    MAKE_OR_SKIP(Chips::None);
    const State fresh = read();
    Source source(2);
    for (const Mode mode : {Mode::Long, Mode::Protected, Mode::LongUser, Mode::Unreal}) {
        write(source.make(mode, cr4_allowed(), 3));
        write(x86::reset_state());
        expect_same(read(), x86::reset_state());
        EXPECT_EQ(read().other_msrs, fresh.other_msrs);
        EXPECT_EQ(read().other_components, fresh.other_components);
    }
}

TEST_F(KvmVcpuStateTest, AnUpdateWritesWhatDiffers) {
    MAKE_OR_SKIP(Chips::None);
    Source source(6);
    for (unsigned round = 0; round < 30; ++round) {
        write(source.make(Mode::Long, cr4_allowed(), 3));
        const State before = read();
        State after = before;
        // One thing, or all of them.
        const State other = source.make(Mode::LongUser, cr4_allowed(), 1);
        const auto take = [&](unsigned part, auto member) {
            if (round % 10 == part || round % 10 == 9) after.*member = other.*member;
        };
        take(0, &State::gpr);
        take(0, &State::rip);
        take(1, &State::ymm);
        take(2, &State::fpu);
        take(3, &State::cr2);
        take(4, &State::dr);
        take(5, &State::msr);
        take(6, &State::xcr0);
        if (round % 10 == 7) after.rflags ^= x86::eflags::kCf;
        if (round % 10 >= 8) {
            after.nmi_pending = other.nmi_pending;
            after.event_valid = other.event_valid;
            after.event_vector = other.event_vector;
            after.event_is_interrupt = other.event_is_interrupt;
            after.event_has_error = other.event_has_error;
            after.event_error = other.event_error;
            after.activity = Activity::Halted;
        }
        after.msr.misc_enable = before.msr.misc_enable;
        const Status status = access().update(before, after);
        ASSERT_TRUE(status) << status.error().message;
        SCOPED_TRACE(round);
        expect_same(read(), after);
        if (HasFailure()) return;
    }
}

// KVM -> State -> another KVM -> State.
TEST_F(KvmVcpuStateTest, AnotherVmTakesTheState) {
    MAKE_OR_SKIP(Chips::Kernel);
    Source source(3);
    write(source.make(Mode::Long, cr4_allowed(), 3));
    // LBR and BTF have no fields. [SDM 4 table 2-2]
    constexpr u32 kPatchLevel = 0x8b;
    const bool patch =
        set_msrs(vm_->vcpu.get(),
                 std::array{kvm_msr_entry{.index = kPatchLevel, .reserved = 0, .data = u64{7} << 32}})
            .has_value();
    const State before = read();
    const auto carried = std::ranges::find(before.other_msrs, kPatchLevel, &x86::MsrValue::index);
    if (patch && carried != before.other_msrs.end()) EXPECT_EQ(carried->value, u64{7} << 32);
    EXPECT_TRUE(std::ranges::is_sorted(before.other_msrs, {}, &x86::MsrValue::index));

    std::string why;
    const auto other = TestVm::create(Chips::Kernel, why);
    ASSERT_NE(other, nullptr) << why;
    auto there = VcpuState::create(other->host, other->vcpu.get());
    ASSERT_TRUE(there);
    const Status written = there->write(before);
    ASSERT_TRUE(written) << written.error().message;
    const auto after = there->read();
    ASSERT_TRUE(after) << after.error().message;
    EXPECT_EQ(*after, before);
}

// --- activity

TEST_F(KvmVcpuStateTest, ActivityIsTheKernelsWhereItHasTheApic) {
    MAKE_OR_SKIP(Chips::Kernel);
    for (const Activity activity :
         {Activity::Halted, Activity::WaitForSipi, Activity::Shutdown, Activity::Running}) {
        State state = x86::reset_state();
        state.activity = activity;
        write(state);
        EXPECT_EQ(read().activity, activity);
        EXPECT_EQ(access().kept_activity(), activity == Activity::Shutdown ? activity : Activity::Running);
        kvm_mp_state kernels{};
        ASSERT_EQ(ioctl(vm_->vcpu.get(), KVM_GET_MP_STATE, &kernels), 0);
        if (activity == Activity::Halted) EXPECT_EQ(kernels.mp_state, u32{KVM_MP_STATE_HALTED});
        if (activity == Activity::WaitForSipi) EXPECT_EQ(kernels.mp_state, u32{KVM_MP_STATE_INIT_RECEIVED});
    }
}

TEST_F(KvmVcpuStateTest, ActivityIsKeptHereWithoutAnApicInTheKernel) {
    MAKE_OR_SKIP(Chips::None);
    for (const Activity activity :
         {Activity::Halted, Activity::WaitForSipi, Activity::Shutdown, Activity::Running}) {
        State state = x86::reset_state();
        state.activity = activity;
        write(state);
        EXPECT_EQ(access().kept_activity(), activity);
        EXPECT_EQ(read().activity, activity);
    }
    access().keep_activity(Activity::Halted);
    EXPECT_EQ(read().activity, Activity::Halted);
}

// --- what the local APIC shares

TEST_F(KvmVcpuStateTest, ApicBaseAndTaskPriorityAreLeftAlone) {
    MAKE_OR_SKIP(Chips::Kernel);
    ASSERT_TRUE(access().set_cr8(5));
    const auto base = access().apic_base();
    ASSERT_TRUE(base);
    Source source(4);
    write(source.make(Mode::Long, cr4_allowed(), 3));
    EXPECT_EQ(*access().cr8(), 5u);
    EXPECT_EQ(*access().apic_base(), *base);
    EXPECT_NE(*base & 0x800, 0u) << "enabled";
    constexpr u64 kMoved = 0xfee0'0900 + 0x1000;
    // Moving the window is allowed or not by this KVM; what matters is that nothing else changes.
    const State before = read();
    (void)access().set_apic_base(kMoved);
    expect_same(read(), before);
}

// --- TSC

TEST_F(KvmVcpuStateTest, TscOffsetIsWhatWasSet) {
    MAKE_OR_SKIP(Chips::None);
    constexpr u64 kOffset = ~u64{0} - 123'456'789'012;
    const Status set = access().set_tsc_offset(kOffset);
    ASSERT_TRUE(set) << set.error().message;
    if (!moves_tsc()) GTEST_SKIP() << "this host's KVM does not move its guests' TSC";
    const auto offset = access().tsc_offset();
    ASSERT_TRUE(offset) << offset.error().message;
    constexpr u64 kMeasured = 1'000'000'000;  // without the attribute it is read from a running clock
    EXPECT_LT(*offset - kOffset + kMeasured, 2 * kMeasured);
    if (vm_->host.has(KVM_CAP_VCPU_ATTRIBUTES)) EXPECT_EQ(*offset, kOffset);
}

// [SDM 3B 17.17.3] For a guest, writing one moves the other. For us they are two registers.
TEST_F(KvmVcpuStateTest, TscAdjustDoesNotMoveTheTsc) {
    MAKE_OR_SKIP(Chips::None);
    constexpr u64 kOffset = u64{1} << 40, kAdjust = u64{1} << 41;
    const Status set = access().set_tsc_offset(kOffset);
    ASSERT_TRUE(set) << set.error().message;
    if (!moves_tsc()) GTEST_SKIP() << "this host's KVM does not move its guests' TSC";
    State state = x86::reset_state();
    state.msr.tsc_adjust = kAdjust;
    const bool offered = (leaf(7).ebx >> 1 & 1) != 0;
    if (!offered) state.msr.tsc_adjust = 0;
    write(state);
    EXPECT_EQ(read().msr.tsc_adjust, state.msr.tsc_adjust);
    EXPECT_LT(*access().tsc_offset() - kOffset + kGiB, 2 * kGiB);
    ASSERT_TRUE(access().set_tsc_offset(2 * kOffset));
    EXPECT_EQ(read().msr.tsc_adjust, state.msr.tsc_adjust);
    EXPECT_LT(*access().tsc_offset() - 2 * kOffset + kGiB, 2 * kGiB);
}

// --- what a host lacks

TEST_F(KvmVcpuStateTest, AnMsrThatIsNotThereIsAnErrorIfTheGuestUsesIt) {
    MAKE_OR_SKIP(Chips::None);
    State state = x86::reset_state();
    constexpr u32 kNobodys = 0x1234'5678;
    state.other_msrs = {{.index = kNobodys, .value = 0}};
    EXPECT_TRUE(access().write(state));
    state.other_msrs[0].value = 9;
    const Status refused = access().write(state);
    ASSERT_FALSE(refused);
    EXPECT_NE(refused.error().message.find("0x12345678"), std::string::npos) << refused.error().message;
    EXPECT_TRUE(access().write(state, Extent::Registers));
}

TEST_F(KvmVcpuStateTest, AnXsaveComponentThatIsNotThereIsAnErrorBeforeAnythingChanges) {
    MAKE_OR_SKIP(Chips::None);
    const State before = read();
    State state = x86::reset_state();
    state.gpr[x86::Rbx] = 0x1234;
    state.other_components = {{.number = 62, .bytes = std::vector<u8>(64, 1)}};
    const Status refused = access().write(state);
    ASSERT_FALSE(refused);
    EXPECT_NE(refused.error().message.find("component 62 "), std::string::npos) << refused.error().message;
    EXPECT_EQ(read(), before);
}

// Writing the same state again must not, as a first write does, touch the guest's clock and memory.
TEST_F(KvmVcpuStateTest, WritingAStateAgainWritesNothingToMemory) {
    MAKE_OR_SKIP(Chips::None);
    constexpr u64 kWallClock = 0x2000;
    State state = x86::reset_state();
    state.msr.kvm_wall_clock = kWallClock;
    write(state);
    u32 version = 0;
    std::memcpy(&version, vm_->memory + kWallClock, sizeof version);
    EXPECT_NE(version, 0u) << "KVM writes the time when the MSR is written";
    write(read());
    u32 again = 0;
    std::memcpy(&again, vm_->memory + kWallClock, sizeof again);
    EXPECT_EQ(again, version);
}

// --- a guest that runs

// Real mode: the state KVM leaves is the state the software CPU computes from the same beginning.
TEST_F(KvmVcpuStateTest, AGuestGoesOnWhereItsStateSays) {
    MAKE_OR_SKIP(Chips::None);
    constexpr std::array<u8, 9> kCode{0x01, 0xd8,        // add ax, bx
                                      0x41,              // inc cx
                                      0xb2, 0x7f,        // mov dl, 0x7f
                                      0xa3, 0x00, 0x10,  // mov [0x1000], ax
                                      0xf4};             // hlt
    soft::TestMachine soft;
    State state = soft.real_mode_state();
    state.gpr[x86::Rax] = 0x1111;
    state.gpr[x86::Rbx] = 0x2222;
    state.gpr[x86::Rcx] = 0xffff;
    state.seg[x86::Ds].selector = 0x2000;
    state.seg[x86::Ds].base = 0x20000;
    vm_->put(soft::TestMachine::kCode, kCode);
    write(state);
    ASSERT_EQ(ioctl(vm_->vcpu.get(), KVM_RUN, 0), 0);
    ASSERT_EQ(vm_->run->exit_reason, u32{KVM_EXIT_HLT});
    u16 stored = 0;
    std::memcpy(&stored, vm_->memory + 0x21000, sizeof stored);
    EXPECT_EQ(stored, 0x3333);

    State expected = soft.run(state, std::span<const u8>(kCode), 5);
    State after = read();
    EXPECT_EQ(after.gpr, expected.gpr);
    EXPECT_EQ(after.rip, expected.rip);
    EXPECT_EQ(after.rflags & ~x86::eflags::kAf, expected.rflags & ~x86::eflags::kAf);
}

// User code in long mode: what the processor's own x87 and vector registers hold then is in the State.
TEST_F(KvmVcpuStateTest, WhatAProgramComputedIsInTheState) {
    MAKE_OR_SKIP(Chips::None);
    constexpr std::array<u8, 23> kCode{0x66, 0x0f, 0xfe, 0xc1,  // paddd xmm0, xmm1
                                       0x44, 0x0f, 0x28, 0xf8,  // movaps xmm15, xmm0
                                       0xd9, 0xe8,              // fld1
                                       0xd9, 0xeb,              // fldpi
                                       0xde, 0xc1,              // faddp
                                       0xd9, 0xee,              // fldz
                                       0x48, 0x01, 0xd8,        // add rax, rbx
                                       0xe6, 0x80,              // out 0x80, al
                                       0xeb, 0xfe};             // jmp to itself
    constexpr u64 kInstructions = 7;
    soft::TestMachine soft;
    State state = soft.long_mode_state(3);
    state.cr4 &= cr4_allowed();
    state.xcr0 = 1;
    state.rflags |= x86::eflags::kIopl;
    state.gpr[x86::Rax] = 0x1'0000'0001;
    state.gpr[x86::Rbx] = 0x2'0000'0003;
    state.ymm[0] = {0x0000'0001'0000'0002, 0x0000'0003'0000'0004, 0, 0};
    state.ymm[1] = {0x1000'0000'2000'0000, 0x3000'0000'4000'0000, 0, 0};
    const State expected = soft.run(state, std::span<const u8>(kCode), kInstructions);
    EXPECT_EQ(expected.ymm[15][0], 0x1000'0001'2000'0002u);

    constexpr u64 kTables = soft::TestMachine::kTables, kTableBytes = 0x3000;
    vm_->put(kTables, std::span<const u8>(soft.ram(kTables), kTableBytes));
    vm_->put(soft::TestMachine::kCode, kCode);
    write(state);
    ASSERT_EQ(ioctl(vm_->vcpu.get(), KVM_RUN, 0), 0);
    ASSERT_EQ(vm_->run->exit_reason, u32{KVM_EXIT_IO});
    const State after = read();
    EXPECT_EQ(after.ymm, expected.ymm);
    EXPECT_EQ(after.fpu.st, expected.fpu.st);
    EXPECT_EQ(after.fpu.tag, expected.fpu.tag);
    EXPECT_EQ(after.fpu.status, expected.fpu.status);
    EXPECT_EQ(after.fpu.control, expected.fpu.control);
    EXPECT_EQ(after.gpr[x86::Rax], 0x3'0000'0004u);

    // And into another one.
    std::string why;
    const auto other = TestVm::create(Chips::None, why);
    ASSERT_NE(other, nullptr) << why;
    auto there = VcpuState::create(other->host, other->vcpu.get());
    ASSERT_TRUE(there);
    ASSERT_TRUE(there->write(after));
    EXPECT_EQ(*there->read(), after);
}

}  // namespace
}  // namespace tessera::kvm
