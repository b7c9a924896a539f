// The whole architectural state of one x86-64 CPU, in the one form every engine reads and writes.
// The local APIC and the TSC's source are not here: they are chips of the board.
#pragma once

#include <array>
#include <vector>

#include "base/types.h"

namespace tessera::x86 {

enum Gpr : u8 { Rax, Rcx, Rdx, Rbx, Rsp, Rbp, Rsi, Rdi, R8, R9, R10, R11, R12, R13, R14, R15 };
enum Seg : u8 { Es, Cs, Ss, Ds, Fs, Gs };

// [SDM 1 3.4.3]
namespace eflags {
inline constexpr u64 kCf = 1 << 0, kOne = 1 << 1, kPf = 1 << 2, kAf = 1 << 4, kZf = 1 << 6, kSf = 1 << 7,
                     kTf = 1 << 8, kIf = 1 << 9, kDf = 1 << 10, kOf = 1 << 11, kIopl = 3 << 12, kNt = 1 << 14,
                     kRf = 1 << 16, kVm = 1 << 17, kAc = 1 << 18, kVif = 1 << 19, kVip = 1 << 20,
                     kId = 1 << 21;
inline constexpr u64 kStatus = kCf | kPf | kAf | kZf | kSf | kOf;
}  // namespace eflags

// [SDM 3A 2.5]
namespace cr0 {
inline constexpr u64 kPe = 1 << 0, kMp = 1 << 1, kEm = 1 << 2, kTs = 1 << 3, kEt = 1 << 4, kNe = 1 << 5,
                     kWp = 1 << 16, kAm = 1 << 18, kNw = 1 << 29, kCd = 1 << 30, kPg = 1u << 31;
}
namespace cr4 {
inline constexpr u64 kVme = 1 << 0, kPvi = 1 << 1, kTsd = 1 << 2, kDe = 1 << 3, kPse = 1 << 4, kPae = 1 << 5,
                     kMce = 1 << 6, kPge = 1 << 7, kPce = 1 << 8, kOsfxsr = 1 << 9, kOsxmmexcpt = 1 << 10,
                     kUmip = 1 << 11, kLa57 = 1 << 12, kFsgsbase = 1 << 16, kPcide = 1 << 17,
                     kOsxsave = 1 << 18, kSmep = 1 << 20, kSmap = 1 << 21;
}
// [SDM 3A 2.2.1], [APM 2 3.1.7]
namespace efer {
inline constexpr u64 kSce = 1 << 0, kLme = 1 << 8, kLma = 1 << 10, kNxe = 1 << 11;
}

// Exceptions [SDM 3A 6.3.1].
enum Vector : u8 {
    kDe = 0,
    kDb = 1,
    kNmi = 2,
    kBp = 3,
    kOf = 4,
    kBr = 5,
    kUd = 6,
    kNm = 7,
    kDf = 8,
    kTs = 10,
    kNp = 11,
    kSs = 12,
    kGp = 13,
    kPf = 14,
    kMf = 16,
    kAc = 17,
    kMc = 18,
    kXm = 19,
};

// The descriptor cache of a segment register.
struct Segment {
    u16 selector = 0;
    u64 base = 0;
    u32 limit = 0;  // in bytes, granularity already applied
    // Access rights as a descriptor's second dword >> 8 holds them: type 0-3, S 4, DPL 5-6, P 7, AVL 12, L
    // 13, D/B 14, G 15; bit 16 set: unusable (null selector). The layout is VMX's [SDM 3C 25.4.1].
    u32 rights = 0;

    friend bool operator==(const Segment&, const Segment&) = default;
};
namespace rights {
inline constexpr u32 kTypeMask = 0xf, kAccessed = 1 << 0, kWritable = 1 << 1, kReadable = 1 << 1,
                     kExpandDown = 1 << 2, kConforming = 1 << 2, kCode = 1 << 3, kS = 1 << 4, kDplShift = 5,
                     kDpl = 3 << 5, kPresent = 1 << 7, kAvl = 1 << 12, kLong = 1 << 13, kDb = 1 << 14,
                     kGranularity = 1 << 15, kUnusable = 1 << 16;
}

struct DescriptorTable {
    u64 base = 0;
    u16 limit = 0xffff;
    friend bool operator==(const DescriptorTable&, const DescriptorTable&) = default;
};

// x87 and vector registers. 80-bit registers are by ST number (relative to TOP), as FXSAVE stores them.
struct Fpu {
    u16 control = 0x0040;  // power-on; FNINIT makes it 0x037f
    u16 status = 0;
    u16 tag = 0x5555;  // full 16-bit tag word; power-on value [SDM 3A 9.1.1]
    u16 opcode = 0;    // 11 bits
    u64 ip = 0;        // offset of the last non-control instruction
    u64 dp = 0;
    u16 cs = 0;
    u16 ds = 0;
    std::array<std::array<u8, 10>, 8> st{};

    friend bool operator==(const Fpu&, const Fpu&) = default;
};

struct Msrs {
    u64 efer = 0;
    u64 star = 0, lstar = 0, cstar = 0, fmask = 0;
    u64 kernel_gs_base = 0;
    u64 sysenter_cs = 0, sysenter_esp = 0, sysenter_eip = 0;
    u64 pat = 0x0007'0406'0007'0406;
    u64 tsc_aux = 0;
    u64 misc_enable = 1;  // fast strings
    u64 spec_ctrl = 0;
    u64 mtrr_def_type = 0;
    std::array<u64, 11> mtrr_fixed{};     // 0x250, 0x258, 0x259, 0x268-0x26f
    std::array<u64, 16> mtrr_variable{};  // base0, mask0, base1, ...
    s64 tsc_offset = 0;                   // guest TSC = source + offset (IA32_TSC, IA32_TSC_ADJUST)
    u64 tsc_adjust = 0;
    u64 xss = 0;
    u64 mcg_status = 0;
    u64 kvm_wall_clock = 0, kvm_system_time = 0, kvm_pv_eoi = 0;        // 0x4b564d00, 01, 04
    u64 kvm_async_pf = 0, kvm_async_pf_vector = 0, kvm_steal_time = 0;  // 0x4b564d02, 06, 03
    u64 kvm_poll_control = 1;                                           // 0x4b564d05
    // GAP: performance counters, debugctl/LBR and the microcode update have no fields (see other_msrs)

    friend bool operator==(const Msrs&, const Msrs&) = default;
};

// An MSR without a field in Msrs.
struct MsrValue {
    u32 index = 0;
    u64 value = 0;
    friend bool operator==(const MsrValue&, const MsrValue&) = default;
};
// A component of the XSAVE area beyond x87, SSE and AVX, as the standard form has it [SDM 1 13.4.3].
struct XsaveComponent {
    u8 number = 0;  // its bit in XCR0 [SDM 1 13.1]
    std::vector<u8> bytes;
    friend bool operator==(const XsaveComponent&, const XsaveComponent&) = default;
};

enum class Activity : u8 { Running, Halted, Shutdown, WaitForSipi };

struct State {
    std::array<u64, 16> gpr{};
    u64 rip = 0xfff0;
    u64 rflags = eflags::kOne;
    std::array<Segment, 6> seg;  // indexed by Seg
    Segment ldtr, tr;
    DescriptorTable gdtr, idtr;
    u64 cr0 = 0x6000'0010, cr2 = 0, cr3 = 0, cr4 = 0;
    u64 xcr0 = 1;
    std::array<u64, 4> dr{};
    u64 dr6 = 0xffff'0ff0, dr7 = 0x400;
    Msrs msr;
    std::array<u64, 4> pdpte{};  // loaded with CR3 in PAE paging [SDM 3A 4.4.1]

    Fpu fpu;
    u32 mxcsr = 0x1f80;
    std::array<std::array<u64, 4>, 16> ymm{};  // [register][64-bit lane], lanes 0-1 are XMM

    Activity activity = Activity::Running;
    bool interrupt_shadow = false;  // after STI or MOV SS
    bool shadow_is_mov_ss = false;  // then #DB is held back as well
    bool nmi_blocked = false;       // until IRET
    bool nmi_pending = false;
    // The interrupt in service may be ended by clearing a bit in memory (kvm_pv_eoi), and the guest had not
    // been seen to do so.
    bool paravirt_eoi_offered = false;
    // An exception, interrupt or NMI whose delivery was begun and must be repeated: none when event_valid is
    // false. Vectors from 32 on are interrupts, and so are lower ones that say it; NMI is vector 2 otherwise.
    bool event_valid = false;
    u8 event_vector = 0;
    bool event_is_interrupt = false;
    bool event_has_error = false;
    u32 event_error = 0;

    // What a guest has of its host's processor beyond all this. Engines without these features (the software
    // CPU) carry it unread, so that it is there when the guest comes back. By number, each once; components
    // in their initial state are left out.
    std::vector<MsrValue> other_msrs;
    std::vector<XsaveComponent> other_components;

    friend bool operator==(const State&, const State&) = default;
};

// Values after RESET# [SDM 3A table 9-1]: real mode, CS:IP = F000:FFF0 with base 0xFFFF0000. An INIT differs
// (it keeps FPU, vector registers, MSRs and TSC); see init_state.
[[nodiscard]] State reset_state();
// What INIT makes of `before` [SDM 3A table 9-1, 9.1.1].
[[nodiscard]] State init_state(const State& before);

}  // namespace tessera::x86
