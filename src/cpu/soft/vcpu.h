// One virtual CPU as the interpreter keeps it: the hot registers first, then caches, then the rest.
// Everything architectural converts to and from x86::State (convert.cpp).
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <csetjmp>
#include <optional>
#include <vector>

#include "cpu/cpu.h"
#include "cpu/soft/jit/slots.h"
#include "cpu/soft/op.h"
#include "cpu/soft/reserved_memory.h"
#include "cpu/soft/second_tlb.h"
#include "cpu/soft/tlb.h"
#include "cpu/x86/insn.h"
#include "cpu/x86/state.h"

namespace tessera::soft {

class SoftSystem;
class BlockCache;
namespace jit {
class Checker;
class Jit;
}  // namespace jit

inline constexpr u8 kZeroSlot = 16;  // Vcpu::reg[16] is always 0
inline constexpr u8 kRipSlot = 17;   // linear address of the current code page, less the CS base
inline constexpr u8 kTempSlot = 18;

// Why the dispatcher is to be entered at the next block boundary.
enum Attention : u32 {
    kAttendInterrupts = 1 << 0,  // look at CpuInterrupts
    kAttendKick = 1 << 1,        // leave run()
    kAttendExclusive = 1 << 2,   // another CPU wants everyone stopped
    kAttendSingle = 1 << 3,      // the dispatcher runs one instruction at a time
    kAttendDebug = 1 << 4,       // #DB conditions collected in pending_db
    kAttendCodeWrites = 1 << 5,  // a device wrote over decoded code
};

// Why an x87, MMX or vector instruction must not simply run. Derived: see update_fp_enables in fp/fp.h.
enum FpTrap : u16 {
    kTrapX87 = 1 << 0,          // #NM: CR0.EM or TS
    kTrapWait = 1 << 1,         // #NM for WAIT: CR0.MP and TS
    kTrapMmx = 1 << 2,          // #UD or #NM
    kTrapSse = 1 << 3,          // #UD or #NM
    kTrapAvx = 1 << 4,          // #UD or #NM
    kTrapMxcsr = 1 << 5,        // MXCSR unmasks an exception
    kTrapX87Cold = 1 << 6,      // the x87 state is not in the host's registers
    kTrapX87Unmasked = 1 << 7,  // the x87 control word unmasks an exception
    kTrapMmxCold = 1 << 8,      // the x87 state is live, or not as MMX instructions leave it
    // The vector registers are in Vcpu::ymm, not in the host's. Only translated code clears it, and sets it
    // again before it calls anything.
    kTrapVectorCold = 1 << 9,
};

// The cause the current exception delivery belongs to (for double faults and error code bit EXT).
enum class EventKind : u8 {
    Exception,
    SoftwareInterrupt,
    SoftwareException,
    PrivilegedException,
    External,
    Nmi
};

struct Fault {
    u8 vector = 0;
    bool has_error = false;
    u32 error = 0;
};

struct Event {
    EventKind kind = EventKind::Exception;
    Fault fault;
};

// Where translated code finds the target of an indirect branch.
struct TargetEntry {
    u64 rip = 0;
    u64 code = 0;  // host address
};
// A compiler at work returns to tens of thousands of places.
inline constexpr unsigned kTargetEntries = 16384;
struct TargetSet {
    ReservedArray<TargetEntry> entries{kTargetEntries, kTargetEntries};

    static constexpr u32 kHashFactor = 17, kHashShift = 4;
    static constexpr u64 kNeverAtItsPlace = 1;  // where address 0 would be

    TargetSet() { clear(); }
    void add(u64 rip, u64 code) {
        const unsigned index = index_of(rip);
        entries[index] = {rip, code};
        if (filled_ < log_.size()) log_[filled_] = static_cast<u16>(index);
        ++filled_;
    }
    // Translated code computes this too.
    [[nodiscard]] static constexpr unsigned index_of(u64 rip) {
        return static_cast<u32>(rip) * kHashFactor >> kHashShift & (kTargetEntries - 1);
    }
    // A guest may branch to 0 as well, and must not find an empty entry where it looks.
    void clear() {
        if (filled_ > log_.size())
            std::fill_n(entries.begin(), kTargetEntries, TargetEntry{});
        else
            for (u32 i = 0; i < filled_; ++i) entries[log_[i]] = {};
        filled_ = 0;
        entries[index_of(0)].rip = kNeverAtItsPlace;
    }

private:
    std::array<u16, 512> log_{};  // which entries were filled, so that clearing costs what was
    u32 filled_ = 0;
};
static_assert(TargetSet::index_of(0) != TargetSet::index_of(TargetSet::kNeverAtItsPlace));

// What takes a CPU away from the guest's straight course; see exits.h. A page walk may be part of one of the
// others.
enum class ExitCause : u8 {
    PortRead,
    PortWrite,
    MmioRead,
    MmioWrite,
    ApicRead,
    ApicWrite,
    MsrRead,
    MsrWrite,
    Cpuid,
    Hypercall,
    Halt,  // the wait is not in its time
    Interrupt,
    Nmi,
    Exception,
    SoftwareInterrupt,
    PageWalk,
    Decode,
    Translate,
    CodeWrite,
};
inline constexpr std::size_t kExitCauses = static_cast<std::size_t>(ExitCause::CodeWrite) + 1;
struct ExitTally {
    struct One {
        u64 count = 0;
        u64 ticks = 0;  // of the VM's TscSource
    };
    std::array<One, kExitCauses> of{};
    bool timed = false;
};

struct Vcpu {
    // --- hot. Of the registers, those that translated code keeps in memory share a line with what it looks
    // at most.
    alignas(64) Vcpu* self = nullptr;
    u64 host_stack = 0;  // of whom translated code returns to
    // GPRs, then the zero, RIP and temporary slots.
    std::array<u64, 19> reg{};
    std::atomic<u32> attention = 0;
    // Not 0: an interrupt may be pending; nobody has looked since attention was last asked for one.
    // Translated code looks at both words at once.
    u32 interrupt_waits = 1;
    TargetEntry* targets = nullptr;  // of indirect branches: the set in force
    u16 fp_traps =
        kTrapSse | kTrapAvx | kTrapX87Cold | kTrapX87Unmasked | kTrapMmxCold | kTrapVectorCold;  // FpTrap
    u8 cpl = 0;
    x86::CodeSize code_size = x86::CodeSize::Bits16;
    // Status flags as LAHF and SETO leave them in AX: low byte 1 if OF, high byte SF ZF 0 AF 0 PF 1 CF. Not
    // in the four bytes that translated code tests for fp_traps: a store of part of them would stall the
    // test.
    u16 status = 0x0200;
    // Generations of code mappings, for whoever remembers where instructions of a linear page are
    // (translated code that jumps from page to page): as long as the number is the one it was when a fetch
    // translation was looked up, the translation is still good. exec_gen_kernel is about fetches at CPL 0-2,
    // exec_gen_user about those at CPL 3 in the current address space: it changes with the space, and comes
    // back with it if nothing was flushed. No number is given twice before 2^32 others; all decoded code is
    // dropped then.
    u32 exec_gen_kernel = 0;
    u32 exec_gen_user = 0;
    TlbEntry* tlb = nullptr;  // the set in force (CPL, AC, address space)
    const Op* cur = nullptr;  // the instruction being executed: every handler that may fault sets it first
    FetchEntry* fetch = nullptr;    // the fetch set in force (CPL, address space)
    std::array<u64, 6> seg_base{};  // as added to addresses: 0 for CS DS ES SS in 64-bit mode
    // Offsets below these pass without a look at the descriptor (not in 64-bit mode); 0 = always look.
    std::array<u64, 6> read_end{}, write_end{};
    // code_size 32 with CS, DS, ES and SS of base 0 and limit 4 GiB, both read and written: what translated
    // 32-bit code takes for granted.
    bool flat32 = false;
    u64 code_end = 0x1'0000;  // code_size other than 64: the CS limit + 1
    u64 sp_mask = 0xffff;     // by SS.B; all ones in 64-bit mode
    u64 rip = 0;  // valid in the dispatcher, and in end_with handlers (where it is the next instruction's)
    u64 instructions = 0;   // executed; the dispatcher adds what an early exit left out
    bool rmw_slow = false;  // access.h: rmw_end has work to do

    // --- translated code (jit/), which addresses all of this by GS
    u64 jit_target = 0;              // of the indirect branch that left translated code
    u64 jit_address = 0;             // of the access whose page is looked up; or an exit record
    u64 jit_slot = 0;                // where the page looked up is to be noted
    u64 code_begin = 0;              // of translated code and thunks, where they run
    u32 flags_code = 0;              // S0, while it is needed for something else
    bool tsc_is_processors = false;  // TscSource::processor_offset(),
    u64 tsc_less = 0;                // which is this
    // The set that STAC and CLAC put in force at CPL 0.
    TlbEntry* stac_tlb = nullptr;
    TlbEntry* clac_tlb = nullptr;
    // Of translated code, with SoftCpuConfig::count.
    u64 blocks_run = 0, accesses = 0, slots_missed = 0;
    bool op_completed = false;  // the handler called from translated code went on to the next instruction
    u16 by_hand = 0;            // instructions to execute one at a time before translated code is tried again
    bool jit_stale = false;     // code was dropped, or 32-bit segments are not flat: leave translated code

    // --- control state. Change it through the functions in system.h, which keep the derived fields above
    // true.
    u64 eflags = x86::eflags::kOne;  // everything but the six status flags
    std::array<x86::Segment, 6> seg{};
    x86::Segment ldtr{}, tr{};
    x86::DescriptorTable gdtr{}, idtr{};
    u64 cr0 = 0x6000'0010, cr2 = 0, cr3 = 0, cr4 = 0, xcr0 = 1;
    std::array<u64, 4> dr{};
    u64 dr6 = 0xffff'0ff0, dr7 = 0x400;
    x86::Msrs msr;
    std::array<u64, 4> pdpte{};
    x86::Activity activity = x86::Activity::Running;
    bool shadow = false;         // interrupts are held back for one instruction (STI, MOV SS, POP SS)
    bool shadow_mov_ss = false;  // and so is #DB
    bool nmi_blocked = false;
    bool nmi_pending = false;
    bool init_pending = false;
    bool paravirt_eoi_offered = false;  // paravirt.h
    bool paravirt_clock_stale = false;  // the guest's clock page waits for the next look at events
    std::optional<u8> sipi_pending;
    std::optional<Event> event_to_repeat;  // from x86::State::event_valid: its delivery begins anew
    bool step_trap = false;   // TF was set when the instruction began; cleared by what takes no trap (INT n)
    u64 pending_db = 0;       // DR6 bits to be reported by the #DB after this instruction
    u64 monitor_address = 0;  // MONITOR's line, physical; 0 when not armed
    u32 pauses = 0;           // PAUSEs executed; see integer/flags.cpp

    // --- vector and x87 state
    alignas(64) std::array<std::array<u64, 4>, 16> ymm{};
    u32 mxcsr = 0x1f80;
    // The x87 state while not live in the host's own x87 registers (fp/ decides which holds).
    alignas(64) x86::Fpu fpu;
    bool x87_live = false;
    alignas(64) std::array<u8, 1024> fp_scratch{};  // belongs to fp/

    // --- address translation caches
    alignas(64) std::array<std::array<TlbEntry, kTlbEntries>, kTlbSets> tlb_sets{};
    std::array<std::array<FetchEntry, kFetchEntries>, kFetchSets> fetch_sets{};

    std::array<TlbLog, kTlbNone> tlb_logs{};                                     // kTlbNone is never filled
    std::array<std::array<u64, kFetchEntries / 64>, kFetchSets> fetch_filled{};  // a bit for each entry
    AddressSpaces spaces;
    SecondTlb second_tlb;
    // One for supervisor code and one for each address space's user code, as the fetch sets are.
    std::array<TargetSet, kFetchSets> target_sets{};
    std::array<u32, kFetchSets> target_gen{};  // exec_gen_kernel and exec_gen_user when they were filled
    std::array<x86::CodeSize, kFetchSets> target_size{};  // and the size of the code they lead to
    std::array<jit::SlotLog, 2> slot_logs;                // of supervisor and user code
    alignas(32) std::array<Op, 4> jit_ops{};  // the instruction that is executed for translated code
    jit::Across jit_across;

    // --- read-modify-write that could not use the host pointer directly (belongs to the MMU)
    struct Rmw {
        alignas(32) std::array<u8, 32> buffer{};
        std::array<u64, 2> physical{};  // of the bytes before and after a page boundary
        unsigned size = 0;
        unsigned first_size = 0;   // bytes before the page boundary
        bool notify_only = false;  // the host pointer was used; only decoded code must be told
        bool exclusive = false;    // the other CPUs are stopped (split lock)
    } rmw;

    // --- the exception being raised, and what was being delivered meanwhile
    std::jmp_buf fault_return{};
    Fault fault;
    bool delivering = false;
    EventKind delivering_kind = EventKind::Exception;
    EventKind fault_kind = EventKind::Exception;  // what `fault` is, while events are delivered
    u8 delivering_vector = 0;

    // --- what x86::State brings from other engines; nothing here reads it
    std::vector<x86::MsrValue> other_msrs;
    std::vector<x86::XsaveComponent> other_components;

    // --- surroundings
    unsigned index = 0;
    SoftSystem* system = nullptr;
    CpuInterrupts* interrupts = nullptr;
    CpuTracer* tracer = nullptr;
    BlockCache* blocks = nullptr;
    jit::Jit* jit = nullptr;          // null: everything is interpreted
    jit::Checker* checker = nullptr;  // lockstep, if it is asked for
    bool recording = false;           // accesses are to be told to the checker
    ExitTally exits;

    [[nodiscard]] bool long_mode() const { return (msr.efer & x86::efer::kLma) != 0; }
    [[nodiscard]] bool code64() const { return code_size == x86::CodeSize::Bits64; }
    [[nodiscard]] bool protected_mode() const { return (cr0 & x86::cr0::kPe) != 0; }
    [[nodiscard]] bool v8086() const { return (eflags & x86::eflags::kVm) != 0; }
    [[nodiscard]] unsigned iopl() const { return static_cast<unsigned>(eflags >> 12) & 3; }

    [[nodiscard]] u64 rflags() const {
        const u64 ah = status >> 8;
        return eflags | (ah & 0xd5) | x86::eflags::kOne | (status & 1 ? x86::eflags::kOf : 0);
    }
    void set_status(u64 flags) {
        status = static_cast<u16>(((flags & 0xd5) << 8) | 0x0200 | ((flags >> 11) & 1));
    }
};

// Address of the current / the next instruction, as RIP counts.
[[nodiscard]] inline u64 insn_rip(const Vcpu& c, const Op& op) {
    const u64 rip = c.reg[kRipSlot] + op.ip;
    return c.code64() ? rip : static_cast<u32>(rip);
}
[[nodiscard]] inline u64 next_rip(const Vcpu& c, const Op& op) {
    const u64 rip = c.reg[kRipSlot] + op.ip + op.len;
    return c.code64() ? rip : static_cast<u32>(rip);
}

// Faults leave the instruction at once and for good; nothing architectural may have been changed before
// (or it is put back first). The dispatcher delivers them with RIP at Vcpu::cur.
[[noreturn]] void raise(Vcpu& c, u8 vector);
[[noreturn]] void raise_error(Vcpu& c, u8 vector, u32 error);
[[noreturn]] inline void raise_gp0(Vcpu& c) {
    raise_error(c, x86::kGp, 0);
}
[[noreturn]] inline void raise_ud(Vcpu& c) {
    raise(c, x86::kUd);
}

template <typename T>
[[nodiscard]] inline T& gpr_at(Vcpu& c, u8 byte_offset) {
    return *reinterpret_cast<T*>(reinterpret_cast<u8*>(c.reg.data()) + byte_offset);
}
template <typename T>
[[nodiscard]] inline T get_gpr(Vcpu& c, u8 byte_offset) {
    return gpr_at<T>(c, byte_offset);
}
// Writes a register operand: 32-bit results clear the upper half.
template <typename T>
inline void set_gpr(Vcpu& c, u8 byte_offset, T value) {
    if constexpr (sizeof(T) == 4)
        gpr_at<u64>(c, byte_offset) = value;
    else
        gpr_at<T>(c, byte_offset) = value;
}

// Makes a chain link of a plain function. Control goes on with the next instruction of the block.
template <PlainHandler F>
TESSERA_HANDLER void continue_with(Vcpu& c, const Op* op) {
    c.cur = op;
    F(c, *op);
    TESSERA_NEXT(c, op);
}

// Ends the block: c.rip is the next instruction's address when F is called, F may change it (and mode, CPL,
// paging, IF, ...), then the dispatcher looks at everything anew.
template <PlainHandler F>
TESSERA_HANDLER void end_with(Vcpu& c, const Op* op) {
    c.cur = op;
    c.rip = next_rip(c, *op);
    F(c, *op);
    c.instructions += op->n;
}

}  // namespace tessera::soft
