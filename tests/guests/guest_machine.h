// The machine an assembly guest runs on: RAM, a ROM, a page of MMIO, the test ports, and either one CPU whose
// interrupts come from ports, or two CPUs with local APICs. What the guest finds where is in guest.inc.
#pragma once

#include <array>
#include <atomic>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "base/fake_clock.h"
#include "cpu/soft/soft_cpu.h"
#include "devices/lapic/lapic_fabric.h"

namespace tessera::guests {

// One test of an image, as the table at the image's end describes it.
struct GuestTest {
    std::string name;
    u32 entry = 0;
    u32 mode = 0;
};

struct GuestImage {
    std::string topic;
    std::vector<u8> bytes;
    std::vector<GuestTest> tests;

    // Reads `directory`/`topic`.bin; an empty list of tests if it is not an image.
    static GuestImage load(const std::string& directory, const std::string& topic);
};

// Translated: every block is translated before its first run. Kvm: by the host's KVM, with our local APIC.
enum class Stepping : u8 { Blocks, Single, Translated, Kvm };

// Runs one test. Empty if it passed, else what went wrong.
std::string run_guest(const GuestImage& image, const GuestTest& test, Stepping stepping, CpuTracer* tracer);

// External interrupts and NMIs that the guest itself orders through ports.
class PortInterrupts final : public CpuInterrupts {
public:
    Events take_events() override;
    [[nodiscard]] bool interrupt_pending() override;
    std::optional<u8> acknowledge() override;
    [[nodiscard]] u8 cr8() override { return cr8_; }
    void set_cr8(u8 value) override { cr8_ = value & 0xf; }
    MsrResult read_msr(u32 index, u64& value) override;
    MsrResult write_msr(u32 index, u64 value) override;
    [[nodiscard]] bool owns_page(u64 /*page*/) const override { return false; }
    u32 read_register(u32 /*offset*/) override { return 0; }
    void write_register(u32 /*offset*/, u32 /*value*/) override {}
    [[nodiscard]] u32 apic_id() const override { return 0; }
    [[nodiscard]] bool is_bootstrap() const override { return true; }
    [[nodiscard]] bool globally_enabled() const override { return true; }
    void set_tsc_offset(s64 /*offset*/) override {}
    void init_reset() override { cr8_ = 0; }

    void raise(u8 vector) { pending_.at(vector) = true; }
    void raise_nmi() { nmi_ = true; }
    void raise_at_halt(u8 vector) { at_halt_.push_back(vector); }
    void raise_nmi_at_halt() { nmi_at_halt_ = true; }
    // The CPU has halted: what was ordered for this moment. False if nothing was.
    bool halted();

private:
    [[nodiscard]] int highest() const;

    std::array<bool, 256> pending_{};
    std::vector<u8> at_halt_;
    bool nmi_ = false, nmi_at_halt_ = false;
    u8 cr8_ = 0;
};

// The test ports 0xe0-0xff.
class TestPorts final : public IoDevice {
public:
    explicit TestPorts(PortInterrupts& interrupts) : interrupts_(interrupts) {}
    void connect(std::span<Cpu* const> cpus) { cpus_.assign(cpus.begin(), cpus.end()); }

    IoStatus read(u64 offset, std::span<std::byte> out) override;
    IoStatus write(u64 offset, std::span<const std::byte> in) override;

    [[nodiscard]] bool finished() const { return finished_; }
    [[nodiscard]] bool shutdown_expected() const { return shutdown_expected_; }
    [[nodiscard]] const std::string& failure() const { return failure_; }

private:
    void finish(std::string failure);

    PortInterrupts& interrupts_;
    std::vector<Cpu*> cpus_;
    std::array<std::byte, 32> storage_{};
    u32 found_ = 0;
    std::string failure_;
    std::atomic<bool> finished_ = false, shutdown_expected_ = false;
};

// 128 bytes of storage repeated over a page, and a count of accesses in the last 8 bytes of the page: reads
// at 0xff8 (u16), writes at 0xffa (u16), width of the last access at 0xffc. Reading them counts nothing.
class TestMmio final : public IoDevice {
public:
    static constexpr u64 kSize = 0x1000;
    IoStatus read(u64 offset, std::span<std::byte> out) override;
    IoStatus write(u64 offset, std::span<const std::byte> in) override;

private:
    std::array<std::byte, 128> storage_{};
    u16 reads_ = 0, writes_ = 0;
    u8 width_ = 0;
};

}  // namespace tessera::guests
