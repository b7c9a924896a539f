// The dispatcher: what happens between blocks, and one CPU's face to the virtual machine.
#include "cpu/soft/soft_cpu.h"

#include "base/assert.h"
#include "cpu/soft/blocks.h"
#include "cpu/soft/debug.h"
#include "cpu/soft/exec.h"
#include "cpu/soft/exits.h"
#include "cpu/soft/fp/fp.h"
#include "cpu/soft/jit/checker.h"
#include "cpu/soft/jit/gs_base.h"
#include "cpu/soft/jit/jit.h"
#include "cpu/soft/paravirt.h"
#include "cpu/soft/soft_system.h"
#include "cpu/soft/system.h"

namespace tessera::soft {

void raise(Vcpu& c, u8 vector) {
    c.fault = {.vector = vector, .has_error = false, .error = 0};
    _longjmp(c.fault_return, 1);
}

void raise_error(Vcpu& c, u8 vector, u32 error) {
    c.fault = {.vector = vector, .has_error = true, .error = error};
    _longjmp(c.fault_return, 1);
}

namespace {

constexpr u64 kDr6SingleStep = 1 << 14;

class SoftCpu final : public Cpu, public CpuWaker {
public:
    explicit SoftCpu(Vcpu& vcpu)
        : c_(vcpu), blocks_(BlockCacheBounds::for_code_cache(vcpu.system->config().code_cache)) {
        c_.self = &c_;
        c_.blocks = &blocks_;
        const SoftCpuConfig& config = c_.system->config();
        if (config.jit) jit_ = jit::Jit::create(c_, config.code_cache);
        c_.jit = jit_.get();
        blocks_.set_jit(c_.jit);
        c_.exits.timed = config.count.value_or(false);
        if (jit_ != nullptr && config.check != 0) checker_ = std::make_unique<jit::Checker>(config.check);
        c_.checker = checker_.get();
    }

    Exit run() override { return enter(~u64{0}); }
    Exit step(u64 count) override { return enter(count); }
    void kick() override { c_.attention.fetch_or(kAttendKick); }
    CpuWaker& waker() override { return *this; }
    void wake() override { c_.attention.fetch_or(kAttendInterrupts); }

    [[nodiscard]] x86::State state() const override {
        x86::State s;
        export_state(c_, s);
        return s;
    }
    void set_state(const x86::State& state) override { import_state(c_, state); }
    [[nodiscard]] std::string failure() const override {
        return checker_ != nullptr ? checker_->failure() : "";
    }
    [[nodiscard]] u64 instructions() const override { return c_.instructions; }
    [[nodiscard]] bool counts_all_instructions() const override {
        return jit_ == nullptr || c_.system->config().count.value_or(false);
    }
    void statistics(std::vector<Statistic>& out) const override {
        blocks_.statistics(out);
        if (jit_ != nullptr) jit_->statistics(out);
        exit_statistics(c_, out);
        if (checker_ == nullptr) return;
        out.push_back({.name = "blocks compared", .value = checker_->checked()});
        out.push_back({.name = "blocks that cannot be", .value = checker_->skipped()});
    }

private:
    Exit enter(u64 steps) {
        c_.system->enter_guest(c_);
        fp_enter(c_);
        const auto less = c_.system->world().tsc.processor_offset();
        c_.tsc_is_processors = less.has_value();
        c_.tsc_less = less.value_or(0);
        const jit::GsBase gs(jit_ != nullptr ? &c_ : nullptr);
        const Exit exit = dispatch(steps);
        x87_save(c_);
        fp_leave(c_);
        c_.system->leave_guest(c_);
        return exit;
    }

    // Faults land in the middle; steps_ is a member because locals would not survive that.
    Exit dispatch(u64 steps) {
        steps_ = steps;
        if (_setjmp(c_.fault_return) != 0) on_fault();
        for (;;) {
            c_.cur = nullptr;
            if (const auto exit = between_blocks()) return *exit;
            if (steps_ == 0) return {ExitReason::Debug};
            if (must_single_step()) {
                single_step();
            } else {
                // STI: nothing is pending yet.
                c_.shadow = false;
                const Op* op = block_at_rip(c_, false);
                op->fn(c_, op);
            }
        }
    }

    [[nodiscard]] bool must_single_step() const {
        return (c_.shadow && (c_.shadow_mov_ss || c_.interrupt_waits != 0)) || steps_ != ~u64{0} ||
               c_.by_hand != 0 || (c_.eflags & x86::eflags::kRf) != 0 || needs_single_step(c_) ||
               (c_.tracer != nullptr && c_.tracer->instructions);
    }

    void on_fault() {
        c_.attention.fetch_and(~u32{kAttendSingle});
        if (c_.cur != nullptr) {
            c_.rip = insn_rip(c_, *c_.cur);
            c_.instructions += c_.cur->n - 1;
            c_.cur = nullptr;
        }
        if (steps_ != ~u64{0} && steps_ != 0) --steps_;
        if (!deliver_fault(c_)) c_.activity = x86::Activity::Shutdown;
    }

    std::optional<Exit> between_blocks() {
        if (checker_ != nullptr && !checker_->failure().empty()) return Exit{ExitReason::Failed};
        const u32 attention = c_.attention.load();
        if ((attention & kAttendExclusive) != 0) {
            c_.attention.fetch_and(~u32{kAttendExclusive});
            c_.system->park(c_);
        }
        if ((attention & kAttendCodeWrites) != 0) {
            c_.attention.fetch_and(~u32{kAttendCodeWrites});
            c_.system->take_code_writes(c_);
        }
        if ((attention & kAttendKick) != 0) {
            c_.attention.fetch_and(~u32{kAttendKick});
            return Exit{ExitReason::Kicked};
        }
        // Cleared before the inputs are read: what arrives later sets it again.
        if ((attention & kAttendInterrupts) != 0) c_.interrupt_waits = 1;
        if ((attention & (kAttendInterrupts | kAttendDebug)) != 0)
            c_.attention.fetch_and(~u32{kAttendInterrupts | kAttendDebug});
        if (!c_.shadow) service_events(c_);
        switch (c_.activity) {
            case x86::Activity::Running: return std::nullopt;
            case x86::Activity::Halted: return Exit{ExitReason::Halted};
            case x86::Activity::WaitForSipi: return Exit{ExitReason::WaitForSipi};
            case x86::Activity::Shutdown: return Exit{ExitReason::Shutdown};
        }
        return std::nullopt;
    }

    void single_step() {
        const bool hold_debug = c_.shadow && c_.shadow_mov_ss;
        c_.shadow = c_.shadow_mov_ss = false;
        if (!hold_debug) check_instruction_breakpoints(c_);
        c_.eflags &= ~x86::eflags::kRf;
        // [SDM 3B 17.3.1.4] What counts is TF when the instruction begins, so POPF clearing it still traps.
        c_.step_trap = (c_.eflags & x86::eflags::kTf) != 0;
        if (c_.by_hand != 0) --c_.by_hand;
        const u64 before = c_.instructions;
        c_.attention.fetch_or(kAttendSingle);
        const Op* op = block_at_rip(c_, true);
        if (c_.tracer != nullptr && c_.tracer->instructions) trace(op);
        op->fn(c_, op);
        c_.attention.fetch_and(~u32{kAttendSingle});
        c_.cur = nullptr;
        if (c_.step_trap) c_.pending_db |= kDr6SingleStep;
        if (steps_ != ~u64{0}) steps_ -= std::min(steps_, std::max<u64>(c_.instructions - before, 1));
    }

    void trace(const Op* first) {
        // What stands before an instruction (a check of its second page, its address) has no length.
        constexpr int kMaxPrefixes = 2;
        for (int i = 0; i < kMaxPrefixes && first->len == 0; ++i) ++first;
        const Op& op = *first;
        std::array<u8, x86::kMaxInsnLength> bytes{};
        const u64 base = c_.code64() ? 0 : c_.seg[x86::Cs].base;
        u64 lin = base + c_.rip;
        for (unsigned i = 0; i < op.len; ++i, ++lin) {
            const FetchEntry& page = fetch_page(c_, c_.code64() ? lin : static_cast<u32>(lin));
            if (page.host != nullptr) bytes[i] = page.host[lin & kPageMask];
        }
        x87_save(c_);
        x86::State s;
        export_state(c_, s);
        const unsigned bits = 16U << static_cast<unsigned>(c_.code_size);
        c_.tracer->on_instruction(c_.index, s, std::span(bytes.data(), op.len), bits);
    }

    Vcpu& c_;
    BlockCache blocks_;
    std::unique_ptr<jit::Jit> jit_;
    std::unique_ptr<jit::Checker> checker_;
    u64 steps_ = 0;
};

}  // namespace

class SoftEngine::Impl {
public:
    Impl(const CpuWorld& world, const SoftCpuConfig& config) : system(world, config) {
        for (unsigned i = 0; i < system.count(); ++i) {
            Vcpu& c = system.vcpu(i);
            c.interrupts = &nothing;
            cpus.push_back(std::make_unique<SoftCpu>(c));
            x86::State start = x86::reset_state();
            if (i != 0) start.activity = x86::Activity::WaitForSipi;
            cpus.back()->set_state(start);
        }
    }

    NoInterrupts nothing;
    SoftSystem system;
    std::vector<std::unique_ptr<SoftCpu>> cpus;
};

SoftEngine::SoftEngine(const CpuWorld& world, const SoftCpuConfig& config)
    : impl_(std::make_unique<Impl>(world, config)) {}
SoftEngine::~SoftEngine() = default;

unsigned SoftEngine::count() const {
    return impl_->system.count();
}

Cpu& SoftEngine::cpu(unsigned index) {
    TESSERA_ASSERT(index < count(), "the VM asks only for CPUs it configured");
    return *impl_->cpus[index];
}

void SoftEngine::connect(unsigned index, CpuInterrupts& interrupts) {
    TESSERA_ASSERT(index < count(), "the VM connects only CPUs it configured");
    impl_->system.vcpu(index).interrupts = &interrupts;
}

void SoftEngine::forget_code(unsigned index) {
    TESSERA_ASSERT(index < count(), "the VM asks only for CPUs it configured");
    impl_->system.drop_all_code(impl_->system.vcpu(index));
}

void SoftEngine::prepare_to_leave(unsigned index) {
    TESSERA_ASSERT(index < count(), "the VM asks only for CPUs it configured");
    Vcpu& c = impl_->system.vcpu(index);
    if (c.paravirt_eoi_offered) end_paravirt_eoi(c);
    // GAP: a #DB that MOV SS holds back is lost.
    if (c.pending_db == 0 || c.event_to_repeat || (c.shadow && c.shadow_mov_ss)) return;
    report_debug(c, c.pending_db);
    c.event_to_repeat = Event{.kind = EventKind::Exception, .fault = {.vector = x86::kDb}};
    c.activity = x86::Activity::Running;
}

std::optional<CpuModel> cpu_model_of(std::string_view name) {
    if (name == "x86-64-v2") return CpuModel::X86_64_V2;
    if (name == "x86-64-v3") return CpuModel::X86_64_V3;
    if (name == "max") return CpuModel::Max;
    return std::nullopt;
}

x86::FeatureLevel feature_level(CpuModel model) {
    switch (model) {
        case CpuModel::X86_64_V2: return x86::FeatureLevel::V2;
        case CpuModel::X86_64_V3: return x86::FeatureLevel::V3;
        case CpuModel::Max: return x86::FeatureLevel::Max;
    }
    return x86::FeatureLevel::Max;
}

}  // namespace tessera::soft
