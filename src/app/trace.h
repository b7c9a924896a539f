// --trace: writes what the guest does as text, one event a line, instructions disassembled.
#pragma once

#include <array>
#include <cstdio>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "app/options.h"
#include "base/result.h"
#include "bus/io_bus.h"
#include "cpu/cpu.h"

namespace tessera::app {

// One line for one instruction: "rip  bytes  text".
[[nodiscard]] std::string disassemble(u64 rip, std::span<const u8> bytes, unsigned bits);

// A text file that several threads write lines to.
class TraceFile {
public:
    // Errors name the file.
    static Result<std::unique_ptr<TraceFile>> open(const std::string& path);
    TraceFile(const TraceFile&) = delete;
    TraceFile& operator=(const TraceFile&) = delete;
    ~TraceFile();
    void line(const std::string& text);

private:
    explicit TraceFile(std::FILE* file) : file_(file) {}
    std::FILE* file_;
    std::mutex mutex_;
};

class BusTrace final : public BusObserver {
public:
    BusTrace(TraceFile& file, unsigned address_digits) : file_(file), digits_(address_digits) {}
    void on_read(u64 address, std::span<const std::byte> data, IoStatus status, const char* device) override;
    void on_write(u64 address, std::span<const std::byte> data, IoStatus status, const char* device) override;

private:
    void line(const char* what, u64 address, std::span<const std::byte> data, IoStatus status,
              const char* device);
    TraceFile& file_;
    unsigned digits_;
};

// The files asked for, and the observers that fill them.
class Traces final : private CpuTracer {
public:
    static Result<std::unique_ptr<Traces>> open(std::span<const TraceRequest> requests);

    // Null where nothing was asked for.
    [[nodiscard]] CpuTracer* cpu();
    [[nodiscard]] BusObserver* ports() { return ports_.get(); }
    [[nodiscard]] BusObserver* mmio() { return mmio_.get(); }

private:
    Traces() = default;
    void on_instruction(unsigned cpu, const x86::State& state, std::span<const u8> bytes,
                        unsigned bits) override;
    void on_interrupt(unsigned cpu, Cause cause, u8 vector, u32 error, u64 cs, u64 rip) override;
    void on_msr(unsigned cpu, bool write, u32 index, u64 value, bool fault) override;

    std::vector<std::unique_ptr<TraceFile>> files_;
    TraceFile* exec_ = nullptr;
    TraceFile* interrupts_ = nullptr;
    TraceFile* msrs_ = nullptr;
    std::unique_ptr<BusTrace> ports_;
    std::unique_ptr<BusTrace> mmio_;
};

}  // namespace tessera::app
