#include "cpu/kvm/kvm_engine.h"

#include <fmt/format.h>
#include <utility>

#include "base/assert.h"
#include "cpu/kvm/interpreter.h"
#include "cpu/kvm/kvm_cpu.h"

namespace tessera::kvm {

namespace {

// What the host's KVM offers, as this CPU's.
Result<std::vector<kvm_cpuid_entry2>> host_cpuid(const Host& host, u32 apic_id) {
    auto leaves = host.supported_cpuid();
    if (!leaves) return leaves;
    for (kvm_cpuid_entry2& leaf : *leaves) {
        if (leaf.function == 1) {
            constexpr u32 kX2apic = 1 << 21, kTscDeadline = 1 << 24, kHypervisor = 1U << 31;
            leaf.ebx = (leaf.ebx & 0xff'ffff) | apic_id << 24;
            leaf.ecx |= kX2apic | kTscDeadline | kHypervisor;
        }
        if (leaf.function == 0xb) leaf.edx = apic_id;
    }
    return leaves;
}

}  // namespace

class KvmEngine::Impl {
public:
    Impl(const CpuWorld& its_world, const KvmConfig& config, Host its_host, KernelVm its_vm)
        : world(its_world),
          host(std::move(its_host)),
          vm(std::move(its_vm)),
          interpreter(world, config.cpus),
          parts{.world = world,
                .host = host,
                .vm = vm,
                .interpreter = interpreter,
                .split = config.split,
                .time_exits = config.time_exits} {}

    CpuWorld world;
    Host host;
    KernelVm vm;
    Interpreter interpreter;
    VmParts parts;
    NoInterrupts nothing;
    std::vector<std::unique_ptr<KvmCpu>> cpus;
};

KvmEngine::KvmEngine(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
KvmEngine::~KvmEngine() = default;

Result<std::unique_ptr<KvmEngine>> KvmEngine::create(const CpuWorld& world, const KvmConfig& config) {
    TESSERA_ASSERT(config.apic_ids.size() == config.cpus, "the board gives every CPU an APIC ID");
    auto host = Host::open(config.device);
    if (!host) return std::unexpected(std::move(host.error()));
    if (const unsigned most = host->most_cpus(); config.cpus > most)
        return fail(Errc::HostFailure,
                    fmt::format("this host's KVM executes at most {} CPUs of a machine; use --cpus {} or "
                                "--engine soft",
                                most, most));
    auto vm = KernelVm::create(*host, config.irqchip, world.memory);
    if (!vm) return std::unexpected(std::move(vm.error()));
    auto impl = std::make_unique<Impl>(world, config, *std::move(host), *std::move(vm));
    for (unsigned i = 0; i < config.cpus; ++i) {
        auto vcpu = impl->vm.add_vcpu(config.apic_ids[i]);
        if (!vcpu) return std::unexpected(std::move(vcpu.error()));
        auto cpuid = host_cpuid(impl->host, config.apic_ids[i]);
        if (!cpuid) return std::unexpected(std::move(cpuid.error()));
        auto cpu = KvmCpu::create(impl->parts, i, *std::move(vcpu), *cpuid);
        if (!cpu) return std::unexpected(std::move(cpu.error()));
        (*cpu)->connect(impl->nothing);
        x86::State start = x86::reset_state();
        if (i != 0) start.activity = x86::Activity::WaitForSipi;
        (*cpu)->set_state(start);
        if (std::string why = (*cpu)->failure(); !why.empty()) return fail(Errc::HostFailure, std::move(why));
        impl->cpus.push_back(*std::move(cpu));
    }
    return std::unique_ptr<KvmEngine>(new KvmEngine(std::move(impl)));
}

unsigned KvmEngine::count() const {
    return static_cast<unsigned>(impl_->cpus.size());
}

Cpu& KvmEngine::cpu(unsigned index) {
    TESSERA_ASSERT(index < count(), "the VM asks only for CPUs it configured");
    return *impl_->cpus[index];
}

void KvmEngine::connect(unsigned index, CpuInterrupts& interrupts) {
    TESSERA_ASSERT(index < count(), "the VM connects only CPUs it configured");
    impl_->cpus[index]->connect(interrupts);
}

const KernelVm& KvmEngine::vm() const {
    return impl_->vm;
}

int KvmEngine::vcpu_fd(unsigned index) const {
    TESSERA_ASSERT(index < count(), "the board asks only for CPUs it configured");
    return impl_->cpus[index]->fd();
}

void KvmEngine::follow_time() {
    for (const auto& cpu : impl_->cpus) cpu->follow_time();
}

s64 KvmEngine::tsc_offset(unsigned index) const {
    TESSERA_ASSERT(index < count(), "the board asks only for CPUs it configured");
    return impl_->cpus[index]->tsc_offset();
}

}  // namespace tessera::kvm
