#include "cpu/kvm/kvm_engine.h"

#include <algorithm>
#include <fmt/format.h>
#include <sys/ioctl.h>
#include <utility>

#include "base/assert.h"
#include "cpu/kvm/cpuid.h"
#include "cpu/kvm/doorbells.h"
#include "cpu/kvm/interpreter.h"
#include "cpu/kvm/kvm_cpu.h"

namespace tessera::kvm {

namespace {

// What the guest's processor is to say, as CPU `index`.
Result<GuestCpuid> cpuid_of(const Host& host, const KvmConfig& config, unsigned index, const File& vcpu) {
    const int tsc_khz = ioctl(vcpu.get(), KVM_GET_TSC_KHZ, 0);
    return guest_cpuid(host,
                       {.level = config.level,
                        .cpus = config.cpus,
                        .apic_id = config.apic_ids[index],
                        .tsc_khz = static_cast<u64>(std::max(tsc_khz, 0)),
                        .apics = config.irqchip == Irqchip::User ? LocalApics::User : LocalApics::Kernel,
                        .nested = config.nested,
                        .hypercalls = config.hypercalls});
}

// Null: none is wanted.
Result<std::unique_ptr<DirtyLog>> dirty_log_of(const Host& host, const KernelVm& vm, const CpuWorld& world,
                                               const KvmConfig& config) {
    if (!config.dirty) return nullptr;
    return DirtyLog::create(host, vm.fd(), *config.dirty, memory_slots(world.memory),
                            config.dirty_ring_entries);
}

}  // namespace

class KvmEngine::Impl {
public:
    Impl(const CpuWorld& its_world, const KvmConfig& config, Host its_host, KernelVm its_vm,
         std::unique_ptr<DirtyLog> its_dirty)
        : world(its_world),
          host(std::move(its_host)),
          vm(std::move(its_vm)),
          doorbells(vm.fd()),
          dirty(std::move(its_dirty)),
          interpreter(world, config.cpus),
          parts{.world = world,
                .host = host,
                .vm = vm,
                .interpreter = interpreter,
                .split = config.split,
                .dirty = dirty.get(),
                .time_exits = config.time_exits} {}

    CpuWorld world;
    Host host;
    KernelVm vm;
    KernelDoorbells doorbells;
    std::unique_ptr<DirtyLog> dirty;
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
    // Before the vCPUs: rings cannot be had later.
    auto dirty = dirty_log_of(*host, *vm, world, config);
    if (!dirty) return std::unexpected(std::move(dirty.error()));
    auto impl = std::make_unique<Impl>(world, config, *std::move(host), *std::move(vm), *std::move(dirty));
    for (unsigned i = 0; i < config.cpus; ++i) {
        auto vcpu = impl->vm.add_vcpu(config.apic_ids[i]);
        if (!vcpu) return std::unexpected(std::move(vcpu.error()));
        if (impl->dirty != nullptr)
            if (Status added = impl->dirty->add_vcpu(vcpu->get()); !added)
                return std::unexpected(std::move(added.error()));
        auto cpuid = cpuid_of(impl->host, config, i, *vcpu);
        if (!cpuid) return std::unexpected(std::move(cpuid.error()));
        auto cpu = KvmCpu::create(impl->parts, i, *std::move(vcpu), cpuid->entries);
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

DoorbellHost& KvmEngine::doorbells() {
    return impl_->doorbells;
}

int KvmEngine::vcpu_fd(unsigned index) const {
    TESSERA_ASSERT(index < count(), "the board asks only for CPUs it configured");
    return impl_->cpus[index]->fd();
}

DirtyLog* KvmEngine::dirty_log() const {
    return impl_->dirty.get();
}

void KvmEngine::follow_time() {
    for (const auto& cpu : impl_->cpus) cpu->follow_time();
}

s64 KvmEngine::tsc_offset(unsigned index) const {
    TESSERA_ASSERT(index < count(), "the board asks only for CPUs it configured");
    return impl_->cpus[index]->tsc_offset();
}

}  // namespace tessera::kvm
