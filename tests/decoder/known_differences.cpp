// The table. "Measured" means: on an AMD family 26 processor, by the probes of host_oracle.h or of a program
// made for it.
#include "tests/decoder/known_differences.h"

#include <algorithm>

namespace tessera::x86::test {

namespace {

// Instruction sets Zydis knows and our processor does not have.
bool not_offered(const Insn& /*insn*/, const Zydis& zydis) {
    if (zydis.status != DecodeStatus::Ok) return false;
    switch (zydis.insn.encoding) {
        case ZYDIS_INSTRUCTION_ENCODING_EVEX:
        case ZYDIS_INSTRUCTION_ENCODING_MVEX:
        case ZYDIS_INSTRUCTION_ENCODING_XOP:
        case ZYDIS_INSTRUCTION_ENCODING_3DNOW: return true;
        default: break;
    }
    switch (zydis.insn.meta.isa_set) {
        case ZYDIS_ISA_SET_AMD3DNOW:
        case ZYDIS_ISA_SET_AMD_INVLPGB:
        case ZYDIS_ISA_SET_AMX_BF16:
        case ZYDIS_ISA_SET_AMX_INT8:
        case ZYDIS_ISA_SET_AMX_TILE:
        case ZYDIS_ISA_SET_AVX512BW_KOP:
        case ZYDIS_ISA_SET_AVX512DQ_KOP:
        case ZYDIS_ISA_SET_AVX512F_KOP:
        case ZYDIS_ISA_SET_AVX_GFNI:
        case ZYDIS_ISA_SET_AVX_VNNI:
        case ZYDIS_ISA_SET_CET:
        case ZYDIS_ISA_SET_ENQCMD:
        case ZYDIS_ISA_SET_FMA4:
        case ZYDIS_ISA_SET_GFNI:
        case ZYDIS_ISA_SET_HRESET:
        case ZYDIS_ISA_SET_KEYLOCKER:
        case ZYDIS_ISA_SET_KEYLOCKER_WIDE:
        case ZYDIS_ISA_SET_KNCE:
        case ZYDIS_ISA_SET_KNCJKBR:
        case ZYDIS_ISA_SET_KNCSTREAM:
        case ZYDIS_ISA_SET_KNCV:
        case ZYDIS_ISA_SET_KNC_MISC:
        case ZYDIS_ISA_SET_KNC_PF_HINT:
        case ZYDIS_ISA_SET_LWP:
        case ZYDIS_ISA_SET_MCOMMIT:
        case ZYDIS_ISA_SET_MONITORX:
        case ZYDIS_ISA_SET_MOVDIR:
        case ZYDIS_ISA_SET_PADLOCK_ACE:
        case ZYDIS_ISA_SET_PADLOCK_PHE:
        case ZYDIS_ISA_SET_PADLOCK_PMM:
        case ZYDIS_ISA_SET_PADLOCK_RNG:
        case ZYDIS_ISA_SET_PCONFIG:
        case ZYDIS_ISA_SET_PKU:
        case ZYDIS_ISA_SET_PT:
        case ZYDIS_ISA_SET_RDPRU:
        case ZYDIS_ISA_SET_RTM:
        case ZYDIS_ISA_SET_SERIALIZE:
        case ZYDIS_ISA_SET_SGX:
        case ZYDIS_ISA_SET_SGX_ENCLV:
        case ZYDIS_ISA_SET_SMX:
        case ZYDIS_ISA_SET_SNP:
        case ZYDIS_ISA_SET_SSE4A:
        case ZYDIS_ISA_SET_SVM:
        case ZYDIS_ISA_SET_TBM:
        case ZYDIS_ISA_SET_TDX:
        case ZYDIS_ISA_SET_TSX_LDTRK:
        case ZYDIS_ISA_SET_UINTR:
        case ZYDIS_ISA_SET_VAES:
        case ZYDIS_ISA_SET_VMFUNC:
        case ZYDIS_ISA_SET_VPCLMULQDQ:
        case ZYDIS_ISA_SET_VTX:
        case ZYDIS_ISA_SET_WAITPKG:
        case ZYDIS_ISA_SET_XOP: return true;
        default: return false;
    }
}

bool prefetch_nop(const Insn& /*insn*/, const Zydis& zydis) {
    return zydis.status == DecodeStatus::Ok && zydis.insn.meta.isa_set == ZYDIS_ISA_SET_PREFETCH_NOP;
}
bool zydis_pause(const Insn& /*insn*/, const Zydis& zydis) {
    return zydis.insn.mnemonic == ZYDIS_MNEMONIC_PAUSE;
}
bool bits16(const Insn& insn, const Zydis& /*zydis*/) {
    return insn.code_size == CodeSize::Bits16 || insn.has(InsnFlag::OperandSizePrefix);
}
bool narrowed(const Insn& insn, const Zydis& /*zydis*/) {
    return insn.code_size == CodeSize::Bits64 && insn.has(InsnFlag::OperandSizePrefix);
}
bool rex_w(const Insn& insn, const Zydis& /*zydis*/) {
    return insn.has(InsnFlag::RexW);
}
bool by_cl(const Insn& insn, const Zydis& /*zydis*/) {
    const Operand& last = insn.operand[insn.operand_count - 1u];
    return last.kind == OperandKind::Gpr && last.reg == Rcx;
}
bool by_immediate(const Insn& insn, const Zydis& /*zydis*/) {
    return insn.operand[insn.operand_count - 1u].kind == OperandKind::Immediate;
}
bool locked(const Insn& insn, const Zydis& /*zydis*/) {
    return insn.has(InsnFlag::Lock);
}
bool bare_sib32(const Insn& insn, const Zydis& /*zydis*/) {
    return insn.address_size == 4 && insn.base == kNoRegister && insn.displacement_size == 4 &&
           (insn.rex & 1) != 0;
}
bool repeated(const Insn& insn, const Zydis& /*zydis*/) {
    return insn.has(InsnFlag::Rep) || insn.has(InsnFlag::Repne);
}
bool register_source(const Insn& insn, const Zydis& /*zydis*/) {
    return insn.is(1, OperandKind::Gpr);
}

using enum Mnemonic;
using enum CodeSize;

constexpr KnownDifference kDifferences[] = {
    {Disagreement::Validity,
     {Invalid},
     not_offered,
     Bits64,
     {0x62, 0xf1, 0x7c, 0x48, 0x58, 0xc1},
     "an instruction set that our processor does not have"},
    {Disagreement::Validity,
     {Invalid},
     prefetch_nop,
     Bits64,
     {0x0f, 0x0d, 0xc0},
     "0F 0D with a register is #UD on AMD (measured), a NOP on Intel"},
    {Disagreement::Validity,
     {Ud0, Ud1},
     nullptr,
     Bits64,
     {0x66, 0x0f, 0xff, 0x80},
     "UD0 and UD1 have no modrm byte on AMD (measured), so that the bytes behind them do not count"},
    {Disagreement::Validity,
     {MovCr},
     locked,
     Bits32,
     {0xf0, 0x0f, 0x20, 0xc0},
     "LOCK MOV CR0 is MOV CR8 on AMD [APM 3 MOV CRn], accepted in 64-bit mode too (measured)"},
    {Disagreement::Length,
     {Ud0, Ud1},
     nullptr,
     Bits64,
     {0x0f, 0xff},
     "UD0 and UD1 have no modrm byte on AMD (measured)"},
    {Disagreement::Mnemonic,
     {Xchg},
     zydis_pause,
     Bits64,
     {0xf3, 0x41, 0x90},
     "F3 REX.B 90 exchanges R8 (measured)"},
    {Disagreement::Mnemonic,
     {Prefetch},
     nullptr,
     Bits64,
     {0x0f, 0x0d, 0x10},
     "PREFETCHWT1 is a reserved PREFETCH on AMD [APM 3 PREFETCHlevel]"},
    {Disagreement::OperandCount,
     {Nop},
     nullptr,
     Bits64,
     {0x0f, 0x19},
     "the operands of hints are all the same to us, modrm.reg is none"},
    {Disagreement::Operand,
     {Nop},
     nullptr,
     Bits64,
     {0x0f, 0x1a, 0xc1},
     "the operands of hints are all the same to us"},
    {Disagreement::OperandCount,
     {Fucomp},
     nullptr,
     Bits64,
     {0xdd, 0xe8},
     "Zydis shows ST(0) of FUCOMP alone among the comparisons"},
    {Disagreement::OperandCount,
     {Clzero},
     nullptr,
     Bits64,
     {0x0f, 0x01, 0xfc},
     "Zydis shows the implied rAX"},
    {Disagreement::FlagsWritten,
     {Vmcall},
     nullptr,
     Bits64,
     {0x0f, 0x01, 0xc1},
     "a hypercall as a guest sees it leaves the flags alone"},
    {Disagreement::OperandCount,
     {Pblendvb, Blendvps, Blendvpd, Sha256rnds2},
     nullptr,
     Bits64,
     {0x66, 0x0f, 0x38, 0x14},
     "Zydis hides the implied XMM0"},
    {Disagreement::Operand,
     {Movsxd},
     narrowed,
     Bits64,
     {0x66, 0x63, 0xc0},
     "MOVSXD to 16 bits reads 32 on AMD (measured)"},
    {Disagreement::Operand,
     {Lar, Lsl},
     register_source,
     Bits64,
     {0x0f, 0x02, 0xc0},
     "the selector is 16 bits [SDM 2A LAR]; Zydis gives the register the operand size"},
    {Disagreement::Operand,
     {Movmskps, Movmskpd, Pmovmskb, Pextrw, Vmovmskps, Vmovmskpd, Vpmovmskb, Vpextrw},
     rex_w,
     Bits64,
     {0x48, 0x0f, 0x50, 0xc0},
     "32 bits zero-extended are the same as the 64 bits Zydis gives"},
    {Disagreement::Operand,
     {Callf, Jmpf, Lss, Lfs, Lgs},
     rex_w,
     Bits64,
     {0x48, 0x0f, 0xb5},
     "AMD has no far pointers with 64-bit offsets (measured)"},
    {Disagreement::Operand,
     {Call, Jmp},
     narrowed,
     Bits64,
     {0x66, 0xff, 0x10},
     "66 makes near branches 16-bit on AMD (measured); Zydis says so of some only"},
    {Disagreement::Operand,
     {},
     bare_sib32,
     Bits64,
     {0x67, 0x41, 0x8b, 0x04, 0x25},
     "SIB base 101 with mod 00 is no base whatever REX.B says [SDM 2A 2.2.1.2], (measured); Zydis adds R13D "
     "with 67",
     true},
    {Disagreement::OperandSize,
     {Call, Jmp, Jcc, Jcxz, Loop, Loope, Loopne, Ret},
     narrowed,
     Bits64,
     {0x66, 0xeb, 0x05},
     "66 makes near branches 16-bit on AMD (measured); Zydis says so of some only"},
    {Disagreement::OperandSize,
     {Aad, Aam, Salc, Xlat},
     nullptr,
     Bits32,
     {0xd5},
     "these are byte instructions to us"},
    {Disagreement::OperandSize, {Ins, Outs}, rex_w, Bits64, {0x48, 0x6d}, "their greatest size is 32-bit"},
    {Disagreement::OperandSize,
     {Movnti, Crc32, Andn, Bextr, Blsi,  Blsmsk, Blsr, Bzhi,     Mulx,     Pdep,     Pext,
      Rorx,   Sarx,  Shlx, Shrx,  Rdpid, Adcx,   Adox, Rdfsbase, Rdgsbase, Wrfsbase, Wrgsbase},
     bits16,
     Bits16,
     {0x0f, 0xc3},
     "there is no 16-bit form: 32-bit in 16-bit code as well"},
    {Disagreement::OperandSize,
     {Nop, Clflushopt, Clwb, Invlpg, Syscall, Invpcid, Rdpid},
     nullptr,
     Bits32,
     {0x66, 0x0f, 0xae, 0x38},
     "the operand size means nothing"},
    {Disagreement::FlagsRead,
     {Int, Int1, Int3, Into, Syscall},
     nullptr,
     Bits32,
     {0xcd, 0x80},
     "these save the flags, which is reading them"},
    {Disagreement::FlagsRead,
     {Cmps, Scas},
     repeated,
     Bits64,
     {0xf3, 0xa6},
     "with rCX 0 the flags stay, so that they count as read"},
    {Disagreement::FlagsRead,
     {Rol, Ror, Rcl, Rcr, Shl, Shr, Sar, Shld, Shrd},
     by_cl,
     Bits64,
     {0xd3, 0xe0},
     "with CL 0 the flags stay, so that they count as read"},
    {Disagreement::FlagsRead,
     {Rcl, Rcr},
     by_immediate,
     Bits64,
     {0xc1, 0xd0, 0x20},
     "a masked count of 0 touches no flags"},
    {Disagreement::FlagsWritten,
     {Rol, Ror, Rcl, Rcr, Shl, Shr, Sar, Shld, Shrd},
     by_immediate,
     Bits64,
     {0xd1, 0xe0},
     "the flags written depend on the immediate: OF with 1 only, none with 0, CF not beyond the operand's "
     "width"},
    {Disagreement::FlagsWritten, {Sbb}, nullptr, Bits64, {0x19}, "SBB defines AF [SDM 2B SBB]"},
    {Disagreement::FlagsWritten,
     {Vptest, Vtestps, Vtestpd},
     nullptr,
     Bits64,
     {0xc4, 0xe2, 0x79, 0x17},
     "OF, SF, AF and PF are cleared [SDM 2B PTEST]"},
    {Disagreement::FlagsWritten,
     {Bextr},
     nullptr,
     Bits64,
     {0xc4, 0xe2, 0x78, 0xf7},
     "CF and OF are cleared [SDM 2A BEXTR]"},
    {Disagreement::FlagsUndefined,
     {MovCr, MovDr},
     nullptr,
     Bits64,
     {0x0f, 0x20},
     "the status flags are undefined [SDM 2B MOV-Move to/from Control Registers]"},
};

}  // namespace

std::span<const KnownDifference> known_differences() {
    return kDifferences;
}

const KnownDifference* explain(Disagreement what, const Insn& insn, const Zydis& zydis) {
    for (const KnownDifference& known : kDifferences) {
        if (known.what != what) continue;
        if (!known.any_mnemonic) {
            const auto* end = std::find(known.ours.begin() + 1, known.ours.end(), Invalid);
            if (std::find(known.ours.begin(), end, insn.mnemonic) == end) continue;
        }
        if (known.applies == nullptr || known.applies(insn, zydis)) return &known;
    }
    return nullptr;
}

}  // namespace tessera::x86::test
