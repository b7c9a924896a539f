// Stop-the-world, and the record of decoded code that all CPUs keep together.
#include "cpu/soft/soft_system.h"

#include "cpu/soft/blocks.h"
#include "cpu/soft/exits.h"
#include "cpu/soft/system.h"

namespace tessera::soft {

namespace {

enum class Where : u8 { Outside, Running, Parked };

constexpr unsigned kGranule = 64;  // bytes per bit of MemoryRegion::code

// Bits of the granules that [physical, +size) touches, inside one page.
u64 granules(u64 physical, unsigned size) {
    const unsigned first = (physical & kPageMask) / kGranule;
    const unsigned last = static_cast<unsigned>(((physical & kPageMask) + size - 1) / kGranule);
    const u64 upto = last >= 63 ? ~u64{0} : (u64{1} << (last + 1)) - 1;
    return upto & ~((u64{1} << first) - 1);
}

}  // namespace

struct SoftSystem::Gate {
    alignas(64) std::atomic<Where> where = Where::Outside;
    // Pages (| 1) that devices wrote; 0 = free. When full: drop everything.
    std::array<std::atomic<u64>, 64> inbox{};
    std::atomic<bool> inbox_full = false;
};

SoftSystem::SoftSystem(const CpuWorld& world, const SoftCpuConfig& config) : world_(world), config_(config) {
    config_.strict_flags |= config_.check != 0;
    for (unsigned i = 0; i < config.cpus; ++i) {
        auto vcpu = std::make_unique<Vcpu>();
        vcpu->index = i;
        vcpu->system = this;
        vcpu->tracer = world.tracer;
        vcpus_.push_back(std::move(vcpu));
        gates_.push_back(std::make_unique<Gate>());
    }
    if (config_.hear_of_writes) world_.memory.set_code_observer(this);
}

SoftSystem::~SoftSystem() {
    if (config_.hear_of_writes) world_.memory.set_code_observer(nullptr);
}

void SoftSystem::relax() const {
    if (world_.yield != nullptr)
        world_.yield();
    else
        __builtin_ia32_pause();
}

// [Dekker] A CPU publishes Running before it looks for an owner; an owner publishes itself before it looks
// for running CPUs. Both orders are sequentially consistent, so one of them sees the other.
void SoftSystem::enter_guest(Vcpu& c) {
    Gate& gate = *gates_[c.index];
    for (;;) {
        gate.where.store(Where::Running);
        if (exclusive_owner_.load() == kNobody) return;
        gate.where.store(Where::Parked);
        while (exclusive_owner_.load() != kNobody) relax();
    }
}

void SoftSystem::leave_guest(Vcpu& c) {
    gates_[c.index]->where.store(Where::Outside);
}

void SoftSystem::park(Vcpu& c) {
    if (exclusive_owner_.load() != kNobody) enter_guest(c);
}

void SoftSystem::exclusive_begin(Vcpu& c) {
    if (count() == 1) return;
    for (unsigned nobody = kNobody; !exclusive_owner_.compare_exchange_strong(nobody, c.index);
         nobody = kNobody)
        enter_guest(c);
    for (unsigned i = 0; i < count(); ++i) {
        if (i == c.index) continue;
        vcpu(i).attention.fetch_or(kAttendExclusive);
        while (gates_[i]->where.load() == Where::Running) relax();
    }
}

void SoftSystem::exclusive_end(Vcpu& c) {
    if (count() == 1) return;
    (void)c;
    exclusive_owner_.store(kNobody);
}

void SoftSystem::drop_page(u64 physical_page) {
    for (const auto& v : vcpus_) v->blocks->drop_page(physical_page);
}

void SoftSystem::code_written(Vcpu& c, u64 physical, unsigned size) {
    const MemoryRegion* region = world_.memory.find(physical);
    if (region == nullptr || region->kind != RegionKind::Ram) return;
    std::atomic<u64>& word = region->code_word(physical);
    std::atomic_thread_fence(std::memory_order_seq_cst);  // the caller's store, then this look
    if ((word.load() & granules(physical, size)) == 0) return;
    const u64 begun = exit_begin(c);
    exclusive_begin(c);
    word.store(0);
    drop_page(physical & ~kPageMask);
    exclusive_end(c);
    exit_end(c, ExitCause::CodeWrite, begun);
}

void SoftSystem::mark_code(Vcpu& c, const MemoryRegion& region, u64 physical, unsigned size) {
    std::atomic<u64>& word = region.code_word(physical);
    const u64 bits = granules(physical, size);
    const u64 before = word.load(std::memory_order_acquire);
    if ((before & bits) == bits) return;
    if (before != 0) {
        // Stores to the page take the slow path already. It may have been cleared since: then stop the
        // others.
        u64 expected = before;
        if (word.compare_exchange_strong(expected, before | bits)) return;
    }
    exclusive_begin(c);
    for (const auto& v : vcpus_) purge_write_tags(*v, physical & ~kPageMask);
    word.fetch_or(bits);
    exclusive_end(c);
}

void SoftSystem::on_code_write(u64 address, u64 size) {
    for (u64 page = address & ~kPageMask; page <= address + (size - 1); page += kPageSize) {
        const MemoryRegion* region = world_.memory.find(page);
        if (region == nullptr || region->kind != RegionKind::Ram || region->code_word(page).load() == 0)
            continue;
        for (unsigned i = 0; i < count(); ++i) {
            Gate& gate = *gates_[i];
            bool posted = false;
            for (auto& entry : gate.inbox) {
                u64 free = 0;
                posted = entry.load(std::memory_order_relaxed) == (page | 1) ||
                         entry.compare_exchange_strong(free, page | 1);
                if (posted) break;
            }
            if (!posted) gate.inbox_full.store(true);
            vcpu(i).attention.fetch_or(kAttendCodeWrites);
        }
    }
}

void SoftSystem::take_code_writes(Vcpu& c) {
    Gate& gate = *gates_[c.index];
    const bool everything = gate.inbox_full.exchange(false);
    for (auto& entry : gate.inbox)
        if (const u64 page = entry.exchange(0); page != 0) c.blocks->drop_page(page & ~kPageMask);
    if (everything) c.blocks->drop_all();
}

void SoftSystem::drop_all_code(Vcpu& c) {
    gates_[c.index]->inbox_full.store(true);
    c.attention.fetch_or(kAttendCodeWrites);
}

void code_written(Vcpu& c, u64 physical, unsigned size) {
    c.system->code_written(c, physical, size);
}
void exclusive_begin(Vcpu& c) {
    c.system->exclusive_begin(c);
}
void exclusive_end(Vcpu& c) {
    c.system->exclusive_end(c);
}

}  // namespace tessera::soft
