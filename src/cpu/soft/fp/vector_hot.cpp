// The vector instructions that compiled code is full of have handlers of their own, without an indirect call.
#include "cpu/soft/fp/vector_float.h"
#include "cpu/soft/fp/vector_int.h"
#include "cpu/soft/fp/vector_lower.h"

namespace tessera::soft {

namespace {

using x86::Mnemonic;

template <class I, Form F, Source S, unsigned Size, bool Float>
constexpr Handler kHot = vector_op<F, S, Size, Float, Inline<I>>;

// Vector and memory sources of an instruction with a memory operand of M128 or M256 bytes (0: no such form).
template <class I, unsigned M128, unsigned M256, unsigned Flags>
Handler hot(Form form, Source source) {
    constexpr bool kFloat = (Flags & kRowFloat) != 0;
    constexpr Source kLegacy =
        M128 == 16 && (Flags & kRowUnaligned) == 0 ? Source::MemoryAligned : Source::Memory;
    constexpr Source kVex = (Flags & kRowAligned) != 0 ? Source::MemoryAligned : Source::Memory;
    const bool vector = source == Source::Vector;
    if (source == Source::Gpr) return nullptr;
    switch (form) {
        case Form::Legacy:
            return vector ? kHot<I, Form::Legacy, Source::Vector, M128, kFloat>
                          : kHot<I, Form::Legacy, kLegacy, M128, kFloat>;
        case Form::Vex128:
            return vector ? kHot<I, Form::Vex128, Source::Vector, M128, kFloat>
                          : kHot<I, Form::Vex128, kVex, M128, kFloat>;
        case Form::Vex256:
            if constexpr (M256 != 0)
                return vector ? kHot<I, Form::Vex256, Source::Vector, M256, kFloat>
                              : kHot<I, Form::Vex256, kVex, M256, kFloat>;
            return nullptr;
    }
    return nullptr;
}

}  // namespace

Handler lower_hot_op(Mnemonic mnemonic, Form form, Source source) {
#define TESSERA_HOT(L, V, Type, m128, m256, flags) \
    case Mnemonic::L:                              \
    case Mnemonic::V: return hot<vec::Type, m128, m256, flags>(form, source);
#define TESSERA_HOT_INT(L, V) TESSERA_HOT(L, V, V, 16, 32, 0)
#define TESSERA_HOT_PACKED(L, V) TESSERA_HOT(L, V, V, 16, 32, kRowFloat)
#define TESSERA_HOT_SCALAR(L, V, size) TESSERA_HOT(L, V, V, size, 0, kRowFloat)
    switch (mnemonic) {
        TESSERA_HOT(Movaps, Vmovaps, Vmovaps, 16, 32, kRowAligned)
        TESSERA_HOT(Movapd, Vmovapd, Vmovapd, 16, 32, kRowAligned)
        TESSERA_HOT(Movdqa, Vmovdqa, Vmovdqa, 16, 32, kRowAligned)
        TESSERA_HOT(Movups, Vmovups, Vmovups, 16, 32, kRowUnaligned)
        TESSERA_HOT(Movupd, Vmovupd, Vmovupd, 16, 32, kRowUnaligned)
        TESSERA_HOT(Movdqu, Vmovdqu, Vmovdqu, 16, 32, kRowUnaligned)
        TESSERA_HOT(Movhps, Vmovhps, MovhLoad, 8, 0, 0)
        TESSERA_HOT(Movhpd, Vmovhpd, MovhLoad, 8, 0, 0)
        TESSERA_HOT(Movq, Vmovq, LoadQword, 8, 0, 0)
        case Mnemonic::Movss:
        case Mnemonic::Vmovss:
            if (source == Source::Vector) return hot<vec::MergeDword, 4, 0, 0>(form, source);
            return hot<vec::LoadDword, 4, 0, 0>(form, source);
        case Mnemonic::Movsd:
        case Mnemonic::Vmovsd:
            if (source == Source::Vector) return hot<vec::MergeQword, 8, 0, 0>(form, source);
            return hot<vec::LoadQword, 8, 0, 0>(form, source);
            TESSERA_HOT_INT(Andps, Vandps)
            TESSERA_HOT_INT(Andpd, Vandpd)
            TESSERA_HOT_INT(Andnps, Vandnps)
            TESSERA_HOT_INT(Andnpd, Vandnpd)
            TESSERA_HOT_INT(Orps, Vorps)
            TESSERA_HOT_INT(Orpd, Vorpd)
            TESSERA_HOT_INT(Xorps, Vxorps)
            TESSERA_HOT_INT(Xorpd, Vxorpd)
            TESSERA_HOT_INT(Unpcklps, Vunpcklps)
            TESSERA_HOT_INT(Unpcklpd, Vunpcklpd)
            TESSERA_HOT_INT(Pand, Vpand)
            TESSERA_HOT_INT(Pandn, Vpandn)
            TESSERA_HOT_INT(Por, Vpor)
            TESSERA_HOT_INT(Pxor, Vpxor)
            TESSERA_HOT_INT(Paddb, Vpaddb)
            TESSERA_HOT_INT(Paddw, Vpaddw)
            TESSERA_HOT_INT(Paddd, Vpaddd)
            TESSERA_HOT_INT(Paddq, Vpaddq)
            TESSERA_HOT_INT(Psubb, Vpsubb)
            TESSERA_HOT_INT(Psubd, Vpsubd)
            TESSERA_HOT_INT(Psubq, Vpsubq)
            TESSERA_HOT_INT(Pcmpeqb, Vpcmpeqb)
            TESSERA_HOT_INT(Pcmpeqd, Vpcmpeqd)
            TESSERA_HOT_INT(Pminub, Vpminub)
            TESSERA_HOT_INT(Pmuludq, Vpmuludq)
            TESSERA_HOT_INT(Pmulld, Vpmulld)
            TESSERA_HOT_INT(Pshufb, Vpshufb)
            TESSERA_HOT_INT(Punpcklbw, Vpunpcklbw)
            TESSERA_HOT_INT(Punpckldq, Vpunpckldq)
            TESSERA_HOT_INT(Punpcklqdq, Vpunpcklqdq)
            TESSERA_HOT_PACKED(Addps, Vaddps)
            TESSERA_HOT_PACKED(Addpd, Vaddpd)
            TESSERA_HOT_PACKED(Subps, Vsubps)
            TESSERA_HOT_PACKED(Subpd, Vsubpd)
            TESSERA_HOT_PACKED(Mulps, Vmulps)
            TESSERA_HOT_PACKED(Mulpd, Vmulpd)
            TESSERA_HOT_PACKED(Divps, Vdivps)
            TESSERA_HOT_PACKED(Divpd, Vdivpd)
            TESSERA_HOT_SCALAR(Addss, Vaddss, 4)
            TESSERA_HOT_SCALAR(Addsd, Vaddsd, 8)
            TESSERA_HOT_SCALAR(Subss, Vsubss, 4)
            TESSERA_HOT_SCALAR(Subsd, Vsubsd, 8)
            TESSERA_HOT_SCALAR(Mulss, Vmulss, 4)
            TESSERA_HOT_SCALAR(Mulsd, Vmulsd, 8)
            TESSERA_HOT_SCALAR(Divss, Vdivss, 4)
            TESSERA_HOT_SCALAR(Divsd, Vdivsd, 8)
            TESSERA_HOT_SCALAR(Sqrtsd, Vsqrtsd, 8)
            TESSERA_HOT_SCALAR(Cvtss2sd, Vcvtss2sd, 4)
            TESSERA_HOT_SCALAR(Cvtsd2ss, Vcvtsd2ss, 8)
        case Mnemonic::Vbroadcastss: return hot<vec::Vbroadcastss, 4, 4, 0>(form, source);
        case Mnemonic::Vpbroadcastb: return hot<vec::Vpbroadcastb, 1, 1, 0>(form, source);
        case Mnemonic::Vpbroadcastd: return hot<vec::Vpbroadcastd, 4, 4, 0>(form, source);
        case Mnemonic::Vpbroadcastq: return hot<vec::Vpbroadcastq, 8, 8, 0>(form, source);
        case Mnemonic::Vfmadd132sd: return hot<vec::Vfmadd132sd, 8, 0, kRowFloat>(form, source);
        case Mnemonic::Vfmadd213sd: return hot<vec::Vfmadd213sd, 8, 0, kRowFloat>(form, source);
        case Mnemonic::Vfmadd231sd: return hot<vec::Vfmadd231sd, 8, 0, kRowFloat>(form, source);
        case Mnemonic::Vfmadd132pd: return hot<vec::Vfmadd132pd, 16, 32, kRowFloat>(form, source);
        case Mnemonic::Vfmadd213pd: return hot<vec::Vfmadd213pd, 16, 32, kRowFloat>(form, source);
        case Mnemonic::Vfmadd231pd: return hot<vec::Vfmadd231pd, 16, 32, kRowFloat>(form, source);
        case Mnemonic::Vfmadd132ps: return hot<vec::Vfmadd132ps, 16, 32, kRowFloat>(form, source);
        case Mnemonic::Vfmadd213ps: return hot<vec::Vfmadd213ps, 16, 32, kRowFloat>(form, source);
        case Mnemonic::Vfmadd231ps: return hot<vec::Vfmadd231ps, 16, 32, kRowFloat>(form, source);
        default: return nullptr;
    }
}

}  // namespace tessera::soft
