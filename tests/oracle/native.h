// Runs instruction bytes on the processor under us, in 64-bit ring 3, with every register set before and read
// after.
#pragma once

#include <array>
#include <span>

#include "base/types.h"

namespace tessera::oracle {

// The address space both sides see at the same linear addresses, all below 2 GiB.
inline constexpr u64 kCodeBase = 0x2000'0000;  // kCodePages pages, for snippets that may write to them
inline constexpr u64 kCodePages = 3;
inline constexpr u64 kCodeSize = kCodePages * 4096;
inline constexpr u64 kExitSlot = kCodeBase + kCodeSize - 8;  // holds the address a finished snippet jumps to
inline constexpr u64 kCounter = kCodeBase + kCodeSize - 64;  // how often a snippet may still branch back
inline constexpr u64 kDataBase = 0x1000'0000;                // kDataPages pages, writable
inline constexpr u64 kDataPages = 3;
inline constexpr u64 kDataSize = kDataPages * 4096;
inline constexpr u64 kReadOnlyBase = kDataBase + kDataSize;  // one page; after it nothing is mapped
inline constexpr u64 kGsBase = kDataBase + 0x1100;
inline constexpr u64 kFsBase = kDataBase + 0x7f8;

// The non-compacted XSAVE image [SDM 1 13.4] of x87, SSE and AVX state.
struct alignas(64) XsaveImage {
    std::array<u8, 512> legacy{};
    std::array<u64, 8> header{};
    std::array<std::array<u64, 2>, 16> ymm_high{};
};
static_assert(sizeof(XsaveImage) == 832);

struct Registers {
    std::array<u64, 16> gpr{};
    u64 rip = 0;
    u64 rflags = 2;
    XsaveImage fp;
    // How it ended: the vector of the exception, or kFinished.
    u32 vector = 0;
    u32 error = 0;
    u64 cr2 = 0;
};
inline constexpr u32 kFinished = 3;    // the guest ends with #BP
inline constexpr u32 kStopped = 0xfe;  // it took too long

// Maps the areas and installs the signal handlers; once per process. False (with a reason on stderr) if the
// host does not let us.
bool native_setup();
// Data as both sides start with it; `native_data` is what the host's run changes.
[[nodiscard]] std::span<u8> native_data();
[[nodiscard]] std::span<u8> native_read_only();
[[nodiscard]] std::span<u8> native_code();
// What is in the code pages beside the code, for snippets that go astray: HLT.
inline constexpr u8 kNoCode = 0xf4;
// Puts kCodePages pages of code in place, with the host's own address in the exit slot.
void native_set_code(std::span<const u8> pages);
// Whether FS may be used: the kernel lets programs set its base.
[[nodiscard]] bool native_has_fs();
// What takes too long (random code may loop for ever) is stopped: natively at once, else by `stop`, which is
// called in a signal handler. Whoever runs something calls native_begin() first.
void native_watch(void (*stop)());
void native_begin();
// Executes from in.rip until the snippet jumps through kExitSlot or faults.
void native_run(const Registers& in, Registers& out);

}  // namespace tessera::oracle
