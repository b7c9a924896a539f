// Memory for host code: one memory file mapped twice, to write through and to run from, never both at once
// (W^X).
#pragma once

#include <memory>

#include "base/types.h"

namespace tessera::soft::jit {

class CodeMemory {
public:
    // Null if the host refuses executable memory.
    static std::unique_ptr<CodeMemory> create(u64 size);
    ~CodeMemory();
    CodeMemory(const CodeMemory&) = delete;
    CodeMemory& operator=(const CodeMemory&) = delete;

    [[nodiscard]] u8* begin() const { return write_; }
    [[nodiscard]] u8* end() const { return write_ + size_; }
    [[nodiscard]] u64 size() const { return size_; }
    // What to add to a place in [begin, end) for the address it runs at.
    [[nodiscard]] s64 to_run() const { return reinterpret_cast<s64>(run_) - reinterpret_cast<s64>(write_); }

private:
    CodeMemory(u8* write, u8* run, u64 size, int file) : write_(write), run_(run), size_(size), file_(file) {}

    u8* write_;
    u8* run_;
    u64 size_;
    int file_;
};

}  // namespace tessera::soft::jit
