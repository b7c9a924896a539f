// Lowering of InsnClass::System: which function executes it, with which operands, and whether the block ends
// there.
#include "cpu/soft/lower.h"
#include "cpu/soft/system_insns.h"

namespace tessera::soft {

using x86::Insn;
using x86::Mnemonic;
using x86::OperandKind;

namespace {

// A function as a handler that goes on with the block, and as one that ends it.
struct Handlers {
    Handler handler;
    bool ends;
};
template <PlainHandler F>
constexpr Handlers kGoesOn{continue_with<F>, false};
template <PlainHandler F>
constexpr Handlers kEnds{end_with<F>, true};

// How operands become Op fields.
enum class Shape : u8 {
    None,
    Rm,          // r1: register, or memory
    RegRm,       // r1: register, r2: register, or memory
    RmReg,       // r1: register, or memory; r2: register
    RegNumber,   // r1: general register, r2: number of a control or debug register
    NumberReg,   // the other way round
    Segment,     // r1: segment number
    RmSegment,   // r1: register, or memory; r2: segment number
    SegmentRm,   // r1: segment number; r2: register, or memory
    Far,         // far pointer, in memory or immediate
    LoadFar,     // r1: register, memory far pointer; r2 set by the caller
    Immediate,   // imm
    PortFirst,   // OUT
    PortSecond,  // IN
};

u8 register_or_zero(const x86::Operand& o) {
    return o.kind == OperandKind::Gpr || o.kind == OperandKind::GprHigh ? gpr_offset(o) : u8{0};
}

void set_port(const x86::Operand& port, const Insn& in, Op& op) {
    if (port.kind == OperandKind::Immediate)
        op.imm = in.immediate & 0xff;
    else
        op.flags |= kOperandHint;
}

void set_operands(const Insn& in, Shape shape, Op& op) {
    const auto& a = in.operand[0];
    const auto& b = in.operand[1];
    op.r3 = in.operand_size;
    if (a.kind == OperandKind::Memory || b.kind == OperandKind::Memory) op.flags |= kOperandHint;
    switch (shape) {
        case Shape::None: break;
        case Shape::Rm: op.r1 = register_or_zero(a); break;
        case Shape::RegRm:
        case Shape::RmReg:
            op.r1 = register_or_zero(a);
            op.r2 = register_or_zero(b);
            break;
        case Shape::RegNumber:
        case Shape::RmSegment:
            op.r1 = register_or_zero(a);
            op.r2 = b.reg;
            break;
        case Shape::NumberReg:
            op.r1 = register_or_zero(b);
            op.r2 = a.reg;
            break;
        case Shape::Segment: op.r1 = a.reg; break;
        case Shape::SegmentRm:
            op.r1 = a.reg;
            op.r2 = register_or_zero(b);
            break;
        case Shape::Far:
            if (a.kind == OperandKind::Memory) {
                op.imm = a.size - 2u;
            } else {
                op.imm = in.immediate;
                op.disp = in.immediate2;
            }
            break;
        case Shape::LoadFar:
            op.r1 = register_or_zero(a);
            op.imm = b.size - 2u;
            break;
        case Shape::Immediate: op.imm = in.operand_count != 0 ? in.immediate : 0; break;
        case Shape::PortFirst:
            op.r3 = static_cast<u8>(b.size);
            set_port(a, in, op);
            break;
        case Shape::PortSecond:
            op.r3 = static_cast<u8>(a.size);
            set_port(b, in, op);
            break;
    }
}

struct Lowering {
    Handlers handlers{};
    Shape shape = Shape::None;
    u8 r2 = 0;  // for those whose second register is fixed
    u8 r1 = 0;  // likewise
};

Lowering mov_seg(const Insn& in) {
    if (!in.is(0, OperandKind::Segment)) return {kGoesOn<run_mov_from_seg>, Shape::RmSegment};
    if (in.operand[0].reg == x86::Ss) return {kEnds<run_mov_to_seg>, Shape::SegmentRm};
    return {kGoesOn<run_mov_to_seg>, Shape::SegmentRm};
}
Lowering pop_seg(const Insn& in) {
    if (in.operand[0].reg == x86::Ss) return {kEnds<run_pop_seg>, Shape::Segment};
    return {kGoesOn<run_pop_seg>, Shape::Segment};
}
Lowering mov_cr(const Insn& in) {
    if (in.is(0, OperandKind::Control)) return {kEnds<run_mov_to_cr>, Shape::NumberReg};
    return {kGoesOn<run_mov_from_cr>, Shape::RegNumber};
}
Lowering mov_dr(const Insn& in) {
    if (in.is(0, OperandKind::Debug)) return {kEnds<run_mov_to_dr>, Shape::NumberReg};
    return {kGoesOn<run_mov_from_dr>, Shape::RegNumber};
}

bool find(const Insn& in, Lowering& l) {
    using enum Mnemonic;
    switch (in.mnemonic) {
        // segments and tables
        case MovSeg: l = mov_seg(in); return true;
        case PushSeg: l = {kGoesOn<run_push_seg>, Shape::Segment}; return true;
        case PopSeg: l = pop_seg(in); return true;
        case Lds: l = {kGoesOn<run_load_far>, Shape::LoadFar, x86::Ds}; return true;
        case Les: l = {kGoesOn<run_load_far>, Shape::LoadFar, x86::Es}; return true;
        case Lfs: l = {kGoesOn<run_load_far>, Shape::LoadFar, x86::Fs}; return true;
        case Lgs: l = {kGoesOn<run_load_far>, Shape::LoadFar, x86::Gs}; return true;
        case Lss: l = {kEnds<run_load_far>, Shape::LoadFar, x86::Ss}; return true;
        case Sgdt: l = {kGoesOn<run_store_table>, Shape::None}; return true;
        case Sidt: l = {kGoesOn<run_store_table>, Shape::None, 0, 1}; return true;
        case Lgdt: l = {kGoesOn<run_load_table>, Shape::None}; return true;
        case Lidt: l = {kGoesOn<run_load_table>, Shape::None, 0, 1}; return true;
        case Sldt: l = {kGoesOn<run_sldt>, Shape::Rm}; return true;
        case Str: l = {kGoesOn<run_str>, Shape::Rm}; return true;
        case Lldt: l = {kGoesOn<run_lldt>, Shape::Rm}; return true;
        case Ltr: l = {kGoesOn<run_ltr>, Shape::Rm}; return true;
        case Lar: l = {kGoesOn<run_lar>, Shape::RegRm}; return true;
        case Lsl: l = {kGoesOn<run_lsl>, Shape::RegRm}; return true;
        case Verr: l = {kGoesOn<run_verr>, Shape::Rm}; return true;
        case Verw: l = {kGoesOn<run_verw>, Shape::Rm}; return true;
        case Arpl: l = {kGoesOn<run_arpl>, Shape::RmReg}; return true;
        case Rdfsbase: l = {kGoesOn<run_rd_base>, Shape::Rm, x86::Fs}; return true;
        case Rdgsbase: l = {kGoesOn<run_rd_base>, Shape::Rm, x86::Gs}; return true;
        case Wrfsbase: l = {kGoesOn<run_wr_base>, Shape::Rm, x86::Fs}; return true;
        case Wrgsbase: l = {kGoesOn<run_wr_base>, Shape::Rm, x86::Gs}; return true;
        case Swapgs: l = {kGoesOn<run_swapgs>}; return true;
        // transfers
        case Jmpf: l = {kEnds<run_far_jump>, Shape::Far}; return true;
        case Callf: l = {kEnds<run_far_call>, Shape::Far}; return true;
        case Retf: l = {kEnds<run_far_return>, Shape::Immediate}; return true;
        case Iret: l = {kEnds<run_iret>}; return true;
        case Int: l = {kEnds<run_int>, Shape::Immediate}; return true;
        case Int1: l = {kEnds<run_int1>}; return true;
        case Int3: l = {kEnds<run_int3>}; return true;
        case Into: l = {kEnds<run_into>}; return true;
        case Syscall: l = {kEnds<run_syscall>}; return true;
        case Sysret: l = {kEnds<run_sysret>}; return true;
        case Sysenter: l = {kEnds<run_sysenter>}; return true;
        case Sysexit: l = {kEnds<run_sysexit>}; return true;
        case Bound: l = {kGoesOn<run_bound>, Shape::Rm}; return true;
        // control
        case MovCr: l = mov_cr(in); return true;
        case MovDr: l = mov_dr(in); return true;
        case Smsw: l = {kGoesOn<run_smsw>, Shape::Rm}; return true;
        case Lmsw: l = {kEnds<run_lmsw>, Shape::Rm}; return true;
        case Clts: l = {kGoesOn<run_clts>}; return true;
        case Cli: l = {kGoesOn<run_cli>}; return true;
        case Sti: l = {kEnds<run_sti>}; return true;
        case Clac: l = {kGoesOn<run_clac>}; return true;
        case Stac: l = {kGoesOn<run_stac>}; return true;
        case Hlt: l = {kEnds<run_hlt>}; return true;
        case Monitor: l = {kGoesOn<run_monitor>}; return true;
        case Mwait: l = {kEnds<run_mwait>}; return true;
        case Clflush:
        case Clflushopt:
        case Clwb: l = {kGoesOn<run_cache_line>}; return true;
        case Clzero: l = {kGoesOn<run_clzero>}; return true;
        case Invd:
        case Wbinvd: l = {kGoesOn<run_cache_all>}; return true;
        case Invlpg: l = {kEnds<run_invlpg>}; return true;
        case Invpcid: l = {kEnds<run_invpcid>, Shape::Rm}; return true;
        case In: l = {kGoesOn<run_in>, Shape::PortSecond}; return true;
        // What a device does on a write may concern this CPU: power off, reset, a new interrupt.
        case Out: l = {kEnds<run_out>, Shape::PortFirst}; return true;
        // the processor
        case Cpuid: l = {kGoesOn<run_cpuid>}; return true;
        case Rdmsr: l = {kGoesOn<run_rdmsr>}; return true;
        case Wrmsr: l = {kEnds<run_wrmsr>}; return true;
        case Rdtsc: l = {kGoesOn<run_rdtsc>}; return true;
        case Rdtscp: l = {kGoesOn<run_rdtscp>}; return true;
        case Rdpid: l = {kGoesOn<run_rdpid>, Shape::Rm}; return true;
        case Rdpmc: l = {kGoesOn<run_rdpmc>}; return true;
        case Rdrand: l = {kGoesOn<run_rdrand>, Shape::Rm}; return true;
        case Rdseed: l = {kGoesOn<run_rdseed>, Shape::Rm}; return true;
        case Vmcall:
        case Vmmcall: l = {kEnds<run_hypercall>}; return true;
        case Rsm:
        case Ud0:
        case Ud1:
        case Ud2: l = {{continue_with<run_undefined>, true}}; return true;
        default: return false;
    }
}

}  // namespace

bool lower_system(const Insn& in, Op& op, bool* ends_block) {
    Lowering l{.handlers = {}};
    if (!find(in, l)) return false;
    set_operands(in, l.shape, op);
    if (l.r1 != 0) op.r1 = l.r1;
    if (l.r2 != 0) op.r2 = l.r2;
    // [APM 3 MOV CRn] LOCK MOV CR0 means CR8, for code outside 64-bit mode.
    if (in.mnemonic == Mnemonic::MovCr && in.has(x86::InsnFlag::Lock) && op.r2 == 0) op.r2 = 8;
    op.fn = l.handlers.handler;
    *ends_block = l.handlers.ends;
    return true;
}

}  // namespace tessera::soft
