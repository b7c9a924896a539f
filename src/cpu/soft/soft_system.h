// What the software CPUs of one VM share: the world they run in, and the means to stop one another.
#pragma once

#include <atomic>
#include <memory>
#include <vector>

#include "cpu/soft/soft_cpu.h"
#include "cpu/soft/vcpu.h"

namespace tessera::soft {

class SoftSystem final : public CodeWriteObserver {
public:
    SoftSystem(const CpuWorld& world, const SoftCpuConfig& config);
    ~SoftSystem() override;
    SoftSystem(const SoftSystem&) = delete;
    SoftSystem& operator=(const SoftSystem&) = delete;

    [[nodiscard]] const CpuWorld& world() const { return world_; }
    [[nodiscard]] const SoftCpuConfig& config() const { return config_; }
    [[nodiscard]] Vcpu& vcpu(unsigned index) { return *vcpus_[index]; }
    [[nodiscard]] unsigned count() const { return static_cast<unsigned>(vcpus_.size()); }

    // Brings all other CPUs to a block boundary (or finds them outside run()) and keeps them there until
    // exclusive_end. Not recursive. With one CPU both do nothing.
    void exclusive_begin(Vcpu& c);
    void exclusive_end(Vcpu& c);

    // A CPU enters and leaves the state in which it executes guest code; park waits out another's exclusive
    // section.
    void enter_guest(Vcpu& c);
    void leave_guest(Vcpu& c);
    void park(Vcpu& c);

    // RAM bytes were written by a CPU that found their granules marked: drops every CPU's decoded code of the
    // page.
    void code_written(Vcpu& c, u64 physical, unsigned size);
    // Marks [physical, +size), inside one page, as decoded by `c`, before the bytes are read.
    void mark_code(Vcpu& c, const MemoryRegion& region, u64 physical, unsigned size);

    // CodeWriteObserver: RAM written by a device or a loader, from any thread. The CPUs drop what they
    // decoded there at their next block boundary, hence before they can see an interrupt that tells of the
    // write.
    void on_code_write(u64 address, u64 size) override;
    void take_code_writes(Vcpu& c);
    // All that `c` has decoded is dropped at its next block boundary.
    void drop_all_code(Vcpu& c);

private:
    struct Gate;  // one CPU's place in the stop-the-world protocol, and its inbox of code writes

    void relax() const;
    void drop_page(u64 physical_page);

    CpuWorld world_;
    SoftCpuConfig config_;
    std::vector<std::unique_ptr<Vcpu>> vcpus_;
    std::vector<std::unique_ptr<Gate>> gates_;
    static constexpr unsigned kNobody = ~0u;
    std::atomic<unsigned> exclusive_owner_ = kNobody;
};

}  // namespace tessera::soft
