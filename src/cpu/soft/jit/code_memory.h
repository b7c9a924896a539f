// Memory for host code: one memory file mapped twice, to write through and to run from, never both at once
// (W^X). Behind the mapping that runs, within reach of its code, is memory for data: written and read at one
// address, for processors that look their first cache up by it.
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
    [[nodiscard]] u8* data() const { return run_ + size_; }
    [[nodiscard]] u8* data_end() const { return run_ + size_ + data_size(size_); }
    // What to add to a place in [begin, end) for the address it runs at.
    [[nodiscard]] s64 to_run() const { return reinterpret_cast<s64>(run_) - reinterpret_cast<s64>(write_); }

private:
    [[nodiscard]] static u64 data_size(u64 size) { return size / 2; }
    CodeMemory(u8* write, u8* run, u64 size, int file) : write_(write), run_(run), size_(size), file_(file) {}

    u8* write_;
    u8* run_;
    u64 size_;
    int file_;
};

}  // namespace tessera::soft::jit
