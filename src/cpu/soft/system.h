// The privileged side of the software CPU: address translation, segments, gates, control registers, events.
// mmu.cpp, segment.cpp, far_transfer.cpp, task_switch.cpp, event.cpp, control.cpp, msr.cpp, cpuid.cpp.
#pragma once

#include "cpu/soft/access.h"
#include "cpu/soft/vcpu.h"

namespace tessera::soft {

// --- derived state (control.cpp). Call after changing what they derive from.
void update_segments(
    Vcpu& c);  // seg, CR0.PE, EFER.LMA, VM -> seg_base, read_end, write_end, sp_mask, code_size, cpl
void update_tlb_set(Vcpu& c);  // CPL, AC, CR4.SMAP, CR0.AM, address space -> tlb, fetch
// The non-status part of RFLAGS, with all that hangs on it (VM, AC, ...). No privilege rules: callers apply
// those.
void set_eflags(Vcpu& c, u64 rflags);

// --- segments (segment.cpp)
// Loads ES, SS, DS, FS or GS as MOV, POP and LDS do: every mode's rules, #GP #SS #NP #TS included, the
// descriptor's accessed bit, and the derived state. The interrupt shadow of MOV SS and POP SS is the caller's
// business.
void load_segment(Vcpu& c, x86::Seg seg, u16 selector);

// --- control registers (control.cpp): what MOV CRn does at CPL 0, with #GP(0) for what it refuses and all
// that follows from a change (flushes, long mode entry and exit, PDPTE loads).
void set_cr0(Vcpu& c, u64 value);
void set_cr3(Vcpu& c, u64 value);
void set_cr4(Vcpu& c, u64 value);
void set_cr8(Vcpu& c, u64 value);

// --- ports (io.cpp)
// #GP(0) unless IOPL or the TSS's bitmap allows [port, +size) [SDM 1 19.5]. For IN, OUT, INS, OUTS.
void check_io(Vcpu& c, u16 port, unsigned size);
// The access itself, unchecked; size is 1, 2 or 4. Hits of I/O breakpoints are collected in pending_db.
u32 port_in(Vcpu& c, u16 port, unsigned size);
void port_out(Vcpu& c, u16 port, unsigned size, u32 value);

// --- from the executor (blocks.cpp and soft_system.cpp)
// A CPU has written [physical, +size), which shares a 64-byte piece with decoded code
// (MemoryRegion::code_word).
void code_written(Vcpu& c, u64 physical, unsigned size);
// Stops all other CPUs between instructions, for accesses that the host cannot do atomically. Does not nest.
void exclusive_begin(Vcpu& c);
void exclusive_end(Vcpu& c);

// --- translation caches (tlb.cpp) [SDM 3A 4.10.4.1]
// With globals_too everything of all PCIDs; else what is not global and belongs to the current PCID.
void flush_tlb(Vcpu& c, bool globals_too);
// INVLPG: the page of the current PCID, or if it is global.
void flush_tlb_page(Vcpu& c, u64 lin);
// INVPCID's types 0, 1 and 3: global pages stay.
void flush_pcid_page(Vcpu& c, u16 pcid, u64 lin);
void flush_pcid(Vcpu& c, u16 pcid);
void flush_all_pcids(Vcpu& c);
// Another PCID becomes the current one (0 while CR4.PCIDE = 0), or the same once more. What is remembered of
// its pages is kept or flushed.
enum class Translations : u8 { Keep, Flush };
void switch_address_space(Vcpu& c, u16 pcid, Translations translations);
// Forgets write permission for a physical page, so that the next store to it comes through the slow path.
void purge_write_tags(Vcpu& c, u64 physical_page);
// Instruction fetch: the page of `lin`, or the guest's #PF / #GP. Never returns null host for RAM and ROM;
// for MMIO `host` is null and the fetch must go through the bus.
const FetchEntry& fetch_page(Vcpu& c, u64 lin);

// --- events (event.cpp)
// Begins the delivery of an event through the IDT (or the real-mode vector table); c.rip is the return
// address (for software events the next instruction). Sets c.rip to the handler. Raises if delivery itself
// faults.
void deliver_event(Vcpu& c, EventKind kind, Fault fault);
// Called by the dispatcher when raise() has ended an instruction: c.rip is that instruction's address.
// Delivers c.fault, following the double fault rules [SDM 3A table 6-5]. False: triple fault, the CPU is in
// shutdown. Faults that this itself causes are handled inside (it has its own landing point).
bool deliver_fault(Vcpu& c);
// What the dispatcher does between instructions when kAttendInterrupts is set, IF was set, ...: INIT, SIPI,
// SMI (GAP), NMI, external interrupts, pending #DB, in the order of [SDM 3A table 6-2]. c.rip is the next
// instruction. Returns true if an event was delivered (or the activity state changed).
bool service_events(Vcpu& c);

// --- debug (debug.cpp)
// Whether instructions must be executed one at a time through the dispatcher (TF, armed breakpoints).
[[nodiscard]] bool needs_single_step(const Vcpu& c);
// Instruction breakpoints at c.rip: raises #DB (fault) unless RF is set. Called before each single-stepped
// instruction.
void check_instruction_breakpoints(Vcpu& c);

// --- architecture state (convert.cpp)
void export_state(const Vcpu& c, x86::State& out);  // x87 must not be live (fp/ saves it first)
void import_state(Vcpu& c, const x86::State& in);   // flushes all translation caches

}  // namespace tessera::soft
