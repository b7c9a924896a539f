// What the rows of iobench share: the clock, the printing, and how many interrupts a row took.
#pragma once

#include <cstdint>
#include <string>

#include "base/types.h"

namespace tessera::iobench {

[[noreturn]] void fail(const std::string& what);  // with the reason of the system's last error

double now();  // seconds, CLOCK_MONOTONIC

// Of a row: how much was done in how much time, how many interrupts of virtio and AHCI devices it took.
class Row {
public:
    Row(std::string name, std::string unit);
    // Prints name, work per second, unit, interrupts for each operation, and operations, with tabs between.
    void print(double work, u64 operations) const;
    [[nodiscard]] double elapsed() const { return now() - begin_; }

private:
    const std::string name_;
    const std::string unit_;
    const u64 interrupts_;
    const double begin_;
};

// What is measured: the names of the rows begin with `prefix`; a row lasts so long; `only` is one row's name
// without the prefix, or "all".
struct Wanted {
    std::string prefix;
    double seconds = 1;
    std::string only;
    [[nodiscard]] bool has(const std::string& name) const { return only == "all" || only == name; }
};

// On a device or a file. A WRONG row ends the program with code 1.
void disk_rows(const std::string& path, const Wanted& wanted);
// Against a server of this program.
void net_rows(const std::string& address, u16 port, const Wanted& wanted);
// Prints its port and serves until its standard input ends.
void serve(const std::string& address);

}  // namespace tessera::iobench
