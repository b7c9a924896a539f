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
    // Prints name, work per second, unit and interrupts for each operation, with tabs between.
    void print(double work, u64 operations) const;
    [[nodiscard]] double elapsed() const { return now() - begin_; }

private:
    const std::string name_;
    const std::string unit_;
    const u64 interrupts_;
    const double begin_;
};

// Each does its rows on a device or a file; `prefix` begins their names. A WRONG row ends the program with
// code 1.
void disk_rows(const std::string& path, const std::string& prefix, double seconds);
// Against a server of this program.
void net_rows(const std::string& address, u16 port, const std::string& prefix, double seconds);
// Prints its port and serves until its standard input ends.
void serve(const std::string& address);

}  // namespace tessera::iobench
