// The same snippet in Tessera's CPU: a machine that looks to 64-bit ring 3 like the process native.cpp runs
// in.
#pragma once

#include <memory>
#include <span>

#include "base/types.h"
#include "tests/oracle/native.h"

namespace tessera::oracle {

class Guest {
public:
    Guest();
    ~Guest();
    Guest(const Guest&) = delete;
    Guest& operator=(const Guest&) = delete;

    [[nodiscard]] std::span<u8> data();
    // Puts the page of code in place; what the CPU decoded from it before is dropped.
    void set_code(std::span<const u8> code);
    void run(const Registers& in, Registers& out);

private:
    class Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace tessera::oracle
