#include "boot/cpu_start.h"

#include <array>

#include "base/assert.h"
#include "boot/bytes.h"
#include "boot/low_memory.h"

namespace tessera::boot {

namespace {

namespace r = x86::rights;

constexpr u16 kCodeSelector = 0x10;
constexpr u16 kDataSelector = 0x18;
constexpr u16 kTaskSelector = 0x20;
constexpr u32 kFlatLimit = 0xffff'ffff;
constexpr u32 kTaskLimit = 0x67;  // the smallest TSS, both kinds
constexpr u32 kBusyTask = 0xb;
constexpr u32 kDataRights = r::kAccessed | r::kWritable | r::kS | r::kPresent | r::kDb | r::kGranularity;
constexpr u32 kCode32Rights =
    r::kAccessed | r::kReadable | r::kCode | r::kS | r::kPresent | r::kDb | r::kGranularity;
constexpr u32 kCode64Rights =
    r::kAccessed | r::kReadable | r::kCode | r::kS | r::kPresent | r::kLong | r::kGranularity;

// A descriptor with base 0 [SDM 3A 3.4.5].
constexpr u64 descriptor(u32 rights_bits, u32 limit) {
    const u64 raw_limit = (rights_bits & r::kGranularity) != 0 ? limit >> 12 : limit;
    return (raw_limit & 0xffff) | u64{rights_bits & 0xff} << 40 | (raw_limit >> 16 & 0xf) << 48 |
           u64{rights_bits >> 12 & 0xf} << 52;
}

void store(MemoryMap& memory, u64 address, const ByteWriter& bytes) {
    const bool stored = memory.write(address, bytes.bytes());
    TESSERA_ASSERT(stored, "boot_linux has checked that base memory is RAM");
}

x86::State flat_protected_mode(MemoryMap& memory, u32 code_rights) {
    ByteWriter gdt;
    gdt.put<u64>(0).put<u64>(0);
    gdt.put(descriptor(code_rights, kFlatLimit)).put(descriptor(kDataRights, kFlatLimit));
    gdt.put(descriptor(r::kPresent | kBusyTask, kTaskLimit)).put<u64>(0);
    store(memory, low_memory::kGdt, gdt);

    x86::State s = x86::reset_state();
    for (auto& segment : s.seg)
        segment = {.selector = kDataSelector, .base = 0, .limit = kFlatLimit, .rights = kDataRights};
    s.seg[x86::Cs] = {.selector = kCodeSelector, .base = 0, .limit = kFlatLimit, .rights = code_rights};
    s.tr = {.selector = kTaskSelector, .base = 0, .limit = kTaskLimit, .rights = r::kPresent | kBusyTask};
    s.ldtr = {.selector = 0, .base = 0, .limit = 0, .rights = r::kUnusable};
    s.gdtr = {.base = low_memory::kGdt, .limit = static_cast<u16>(gdt.size() - 1)};
    s.idtr = {.base = 0, .limit = 0};
    s.gpr = {};
    s.gpr[x86::Rsp] = low_memory::kStackTop;
    s.cr0 = x86::cr0::kPe | x86::cr0::kEt | x86::cr0::kNe;
    return s;
}

void write_identity_map(MemoryMap& memory) {
    constexpr u64 kPresentWritable = 3;
    constexpr u64 kLargePage = 1 << 7;
    constexpr u64 kPageDirectories = 4;
    constexpr u64 kEntries = 512;
    const u64 pdpt = low_memory::kPml4 + kPageSize;
    const u64 directories = pdpt + kPageSize;
    ByteWriter tables;
    tables.put(pdpt | kPresentWritable).zeros(kPageSize - 8);
    for (u64 n = 0; n < kPageDirectories; ++n) tables.put((directories + n * kPageSize) | kPresentWritable);
    tables.align(kPageSize);
    for (u64 n = 0; n < kPageDirectories * kEntries; ++n)
        tables.put(n * 2 * kMiB | kLargePage | kPresentWritable);
    static_assert(low_memory::kPml4 + (2 + kPageDirectories) * kPageSize <= low_memory::kPageTablesEnd);
    store(memory, low_memory::kPml4, tables);
}

}  // namespace

x86::State enter_linux64(MemoryMap& memory, u64 entry, u64 boot_params) {
    x86::State s = flat_protected_mode(memory, kCode64Rights);
    write_identity_map(memory);
    s.cr3 = low_memory::kPml4;
    s.cr4 = x86::cr4::kPae;
    s.msr.efer = x86::efer::kLme | x86::efer::kLma;
    s.cr0 |= x86::cr0::kPg;
    s.rip = entry;
    s.gpr[x86::Rsi] = boot_params;
    return s;
}

x86::State enter_linux32(MemoryMap& memory, u32 entry, u32 boot_params) {
    x86::State s = flat_protected_mode(memory, kCode32Rights);
    s.rip = entry;
    s.gpr[x86::Rsi] = boot_params;
    return s;
}

x86::State enter_pvh(MemoryMap& memory, u32 entry, u32 start_info) {
    x86::State s = flat_protected_mode(memory, kCode32Rights);
    s.rip = entry;
    s.gpr[x86::Rbx] = start_info;
    return s;
}

void set_memory_types(x86::State& state, const BoardDescription& board) {
    constexpr u64 kWriteBack = 0x0606'0606'0606'0606;
    constexpr u64 kUncached = 0;
    // [SDM 3A 12.11.2.2]: 64 KiB ranges from 0, 16 KiB ranges from 80000h and A0000h, then 4 KiB ranges by 8.
    auto& fixed = state.msr.mtrr_fixed;
    fixed = {kWriteBack, kWriteBack, kUncached,                // 0 - 9FFFFh RAM, A0000h - BFFFFh display
             kUncached,  kUncached,  kUncached,  kUncached,    // C0000h - DFFFFh nothing
             kWriteBack, kWriteBack, kWriteBack, kWriteBack};  // E0000h - FFFFFh tables
    constexpr u64 kEnable = 1 << 11, kFixedEnable = 1 << 10, kTypeWriteBack = 6;
    state.msr.mtrr_def_type = kEnable | kFixedEnable | kTypeWriteBack;
    state.msr.mtrr_variable = {};
    if (board.physical_address_bits <= 32 || board.physical_address_bits > 52) return;
    constexpr u64 kValid = 1 << 11;
    const u64 address_mask = (u64{1} << board.physical_address_bits) - 1;
    state.msr.mtrr_variable[0] = kPciHoleBase;  // type 0: uncached
    state.msr.mtrr_variable[1] = (address_mask & ~(kPciHoleEnd - kPciHoleBase - 1)) | kValid;
}

x86::State application_processor(const BoardDescription& board) {
    x86::State s = x86::reset_state();
    set_memory_types(s, board);
    s.activity = x86::Activity::WaitForSipi;
    return s;
}

}  // namespace tessera::boot
