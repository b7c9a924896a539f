// The same snippet in Tessera's CPU: a machine that looks to 64-bit ring 3 like the process native.cpp runs
// in, and to 32-bit ring 3 alike.
#pragma once

#include <memory>
#include <span>

#include "cpu/soft/soft_cpu.h"
#include "cpu/x86/insn.h"
#include "tests/oracle/native.h"

namespace tessera::oracle {

class Guest {
public:
    explicit Guest(const soft::SoftCpuConfig& config);
    ~Guest();
    Guest(const Guest&) = delete;
    Guest& operator=(const Guest&) = delete;

    // The pages at kDataBase. They do not lie side by side in its memory, so what reaches from one into the
    // next must not take them for one piece.
    void set_data(std::span<const u8> bytes);
    void get_data(std::span<u8> bytes) const;
    // New code, kCodePages pages of it. It goes to other physical pages than the code before, which stays
    // where it was, and so does all that the CPU has made of it.
    void set_code(std::span<const u8> pages);
    // Code that may have changed itself: as set_code left it.
    void restore_code(std::span<const u8> pages);
    void set_counter(u64 value);
    // code_size: 32 or 64 bits.
    void run(const Registers& in, x86::CodeSize code_size, Registers& out);
    // From any thread or signal handler: the run ends as kStopped.
    void stop();

private:
    class Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace tessera::oracle
