// Inside of the MMU: page walks, and accesses with rights other than those of the running code.
// What the rest of the interpreter uses is in access.h and system.h.
#pragma once

#include "cpu/soft/access.h"
#include "cpu/soft/vcpu.h"
#include "cpu/x86/cpuid.h"

namespace tessera::soft {

// Higher bits are reserved in page tables and CR3.
inline constexpr u64 kPhysicalMask = (u64{1} << x86::kPhysicalAddressBits) - 1;

[[nodiscard]] inline bool is_canonical(u64 address) {
    return static_cast<u64>(static_cast<s64>(address << 16) >> 16) == address;
}

// Page-fault error code [SDM 3A 4.7].
namespace pf {
inline constexpr u32 kPresent = 1 << 0, kWrite = 1 << 1, kUser = 1 << 2, kReserved = 1 << 3, kFetch = 1 << 4;
}

// In whose name memory is accessed [SDM 3A 4.6.1].
enum class Privilege : u8 {
    Current,     // the running code: CPL 3 is user
    Supervisor,  // as CPL 0-2 would: stacks of inner levels
    System,  // implicit accesses to descriptor tables and the TSS: supervisor, and RFLAGS.AC does not lift
             // SMAP
};

struct Translation {
    u64 page = 0;           // physical, of the 4 KiB page
    u8 shift = 12;          // of the page the tables describe: 12, 21, 22, 30
    bool write_ok = false;  // a write with the same rights would pass and has nothing to set in the tables
    bool global = false;
};

// Walks the page tables for one linear address (canonical; below 4 GiB outside long mode), sets accessed and
// dirty bits. Raises #PF.
Translation translate(Vcpu& c, u64 lin, Access access, Privilege privilege);
// The same without any effect on the guest: for debuggers and task-switch checks. False where it would fault.
[[nodiscard]] bool translate_quietly(Vcpu& c, u64 lin, u64* physical);

// The bytes of a physical page in the host: RAM or ROM, or null where the bus or the APIC answers.
struct HostPage {
    const MemoryRegion* region = nullptr;
    std::byte* host = nullptr;
};
HostPage host_page(const Vcpu& c, u64 physical_page);
[[nodiscard]] inline bool is_ram(const HostPage& page) {
    return page.region != nullptr && page.region->kind == RegionKind::Ram;
}
// tlb.cpp: the second table. Found: the page of `lin` with the rights the tables gave it.
[[nodiscard]] bool find_second(Vcpu& c, u64 lin, SecondTlb::Found& found);
void fill_second(Vcpu& c, u64 lin, u64 page, unsigned shift, const PageRights& rights);
// tlb.cpp: the host bytes of [lin, +size), by the first table or brought there from the second. Null if that
// is not all it takes: then it must be resolved.
[[nodiscard]] u8* remembered(Vcpu& c, TlbSet set, u64 lin, unsigned size, Access access);
// The same for an access that may cross into a second page. Stores: neither page has decoded code.
struct HostPieces {
    u8* first = nullptr;      // null: it must be resolved
    u8* second = nullptr;     // the bytes from the page boundary on
    unsigned first_size = 0;  // the access's size, or the bytes before the page boundary
};
[[nodiscard]] HostPieces remembered_pieces(Vcpu& c, TlbSet set, u64 lin, unsigned size, Access access);
void read_pieces(const HostPieces& from, void* out, unsigned size);
// tlb.cpp: remembers a translation for accesses with the rights of `set`.
void fill_tlb(Vcpu& c, TlbSet set, u64 lin, const Translation& t, const HostPage& page);

// Loads the four PDPTE registers of PAE paging from `cr3`. False if a present one has reserved bits set
// (nothing is changed then) [SDM 3A 4.4.1].
[[nodiscard]] bool load_pdptes(Vcpu& c, u64 cr3);

// Physical memory as a CPU sees it: RAM, ROM (writes go nowhere), its APIC page, or the MMIO bus. Inside one
// page.
void physical_read(Vcpu& c, u64 physical, void* out, unsigned size);
void physical_write(Vcpu& c, u64 physical, const void* in, unsigned size);

// Data accesses with given rights; any size up to 32 bytes, page crossing included.
u64 load_as(Vcpu& c, u64 lin, unsigned size, Privilege privilege, u8 seg = x86::Ds);
void store_as(Vcpu& c, u64 lin, unsigned size, u64 value, Privilege privilege, u8 seg = x86::Ds);
void probe_as(Vcpu& c, u64 lin, unsigned size, Access access, Privilege privilege, u8 seg = x86::Ds);

// byte = (byte & and_mask) | or_mask in a descriptor table, as one locked access. Returns the byte before.
u8 change_system_byte(Vcpu& c, u64 lin, u8 and_mask, u8 or_mask);

// debug.cpp: data breakpoints.
[[nodiscard]] bool data_breakpoint_in_page(const Vcpu& c, u64 lin);
void note_data_access(Vcpu& c, u64 lin, unsigned size, Access access);
[[nodiscard]] inline bool breakpoints_enabled(const Vcpu& c) {
    return (c.dr7 & 0xff) != 0;
}

}  // namespace tessera::soft
