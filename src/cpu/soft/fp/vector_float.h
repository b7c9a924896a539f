// The vector instructions that raise SIMD floating-point exceptions, except those with an immediate.
#pragma once

#include "cpu/soft/fp/vector_row.h"

namespace tessera::soft::vec {

// PACKED(legacy, VEX, host instruction, flags): d = op(a, b), 128 and 256 bits.
#define TESSERA_FLOAT_PACKED(PACKED)                     \
    PACKED(Addpd, Vaddpd, "vaddpd", kRowTiny64)          \
    PACKED(Addps, Vaddps, "vaddps", kRowTiny32)          \
    PACKED(Addsubpd, Vaddsubpd, "vaddsubpd", kRowTiny64) \
    PACKED(Addsubps, Vaddsubps, "vaddsubps", kRowTiny32) \
    PACKED(Divpd, Vdivpd, "vdivpd", kRowTiny64)          \
    PACKED(Divps, Vdivps, "vdivps", kRowTiny32)          \
    PACKED(Haddpd, Vhaddpd, "vhaddpd", kRowTiny64)       \
    PACKED(Haddps, Vhaddps, "vhaddps", kRowTiny32)       \
    PACKED(Hsubpd, Vhsubpd, "vhsubpd", kRowTiny64)       \
    PACKED(Hsubps, Vhsubps, "vhsubps", kRowTiny32)       \
    PACKED(Maxpd, Vmaxpd, "vmaxpd", 0)                   \
    PACKED(Maxps, Vmaxps, "vmaxps", 0)                   \
    PACKED(Minpd, Vminpd, "vminpd", 0)                   \
    PACKED(Minps, Vminps, "vminps", 0)                   \
    PACKED(Mulpd, Vmulpd, "vmulpd", kRowTiny64)          \
    PACKED(Mulps, Vmulps, "vmulps", kRowTiny32)          \
    PACKED(Subpd, Vsubpd, "vsubpd", kRowTiny64)          \
    PACKED(Subps, Vsubps, "vsubps", kRowTiny32)

// SCALAR(legacy, VEX, host instruction, memory bytes, flags): the lowest element of d = op(a, b), the rest
// from a.
#define TESSERA_FLOAT_SCALAR(SCALAR)                        \
    SCALAR(Addsd, Vaddsd, "vaddsd", 8, kRowTiny64)          \
    SCALAR(Addss, Vaddss, "vaddss", 4, kRowTiny32)          \
    SCALAR(Divsd, Vdivsd, "vdivsd", 8, kRowTiny64)          \
    SCALAR(Divss, Vdivss, "vdivss", 4, kRowTiny32)          \
    SCALAR(Maxsd, Vmaxsd, "vmaxsd", 8, 0)                   \
    SCALAR(Maxss, Vmaxss, "vmaxss", 4, 0)                   \
    SCALAR(Minsd, Vminsd, "vminsd", 8, 0)                   \
    SCALAR(Minss, Vminss, "vminss", 4, 0)                   \
    SCALAR(Mulsd, Vmulsd, "vmulsd", 8, kRowTiny64)          \
    SCALAR(Mulss, Vmulss, "vmulss", 4, kRowTiny32)          \
    SCALAR(Sqrtsd, Vsqrtsd, "vsqrtsd", 8, 0)                \
    SCALAR(Sqrtss, Vsqrtss, "vsqrtss", 4, 0)                \
    SCALAR(Subsd, Vsubsd, "vsubsd", 8, kRowTiny64)          \
    SCALAR(Subss, Vsubss, "vsubss", 4, kRowTiny32)          \
    SCALAR(Cvtsd2ss, Vcvtsd2ss, "vcvtsd2ss", 8, kRowTiny32) \
    SCALAR(Cvtss2sd, Vcvtss2sd, "vcvtss2sd", 4, 0)

// UN(legacy, VEX, host instruction, memory bytes at 128, at 256): d = op(b)
#define TESSERA_FLOAT_UNARY(UN)                     \
    UN(Cvtdq2ps, Vcvtdq2ps, "vcvtdq2ps", 16, 32)    \
    UN(Cvtps2dq, Vcvtps2dq, "vcvtps2dq", 16, 32)    \
    UN(Cvttps2dq, Vcvttps2dq, "vcvttps2dq", 16, 32) \
    UN(Cvtdq2pd, Vcvtdq2pd, "vcvtdq2pd", 8, 16)     \
    UN(Cvtps2pd, Vcvtps2pd, "vcvtps2pd", 8, 16)     \
    UN(Sqrtpd, Vsqrtpd, "vsqrtpd", 16, 32)          \
    UN(Sqrtps, Vsqrtps, "vsqrtps", 16, 32)          \
    UN(Invalid, Vcvtph2ps, "vcvtph2ps", 8, 16)

// NARROW: like UN, but the result has half the width of the source.
#define TESSERA_FLOAT_NARROW(NARROW)               \
    NARROW(Cvtpd2dq, Vcvtpd2dq, "vcvtpd2dq", 0)    \
    NARROW(Cvttpd2dq, Vcvttpd2dq, "vcvttpd2dq", 0) \
    NARROW(Cvtpd2ps, Vcvtpd2ps, "vcvtpd2ps", kRowTiny32)

// FMA(VEX, host instruction, flags), packed: d = op(d, a, b)
#define TESSERA_FLOAT_FMA(FMA)                        \
    FMA(Vfmadd132pd, "vfmadd132pd", kRowTiny64)       \
    FMA(Vfmadd132ps, "vfmadd132ps", kRowTiny32)       \
    FMA(Vfmadd213pd, "vfmadd213pd", kRowTiny64)       \
    FMA(Vfmadd213ps, "vfmadd213ps", kRowTiny32)       \
    FMA(Vfmadd231pd, "vfmadd231pd", kRowTiny64)       \
    FMA(Vfmadd231ps, "vfmadd231ps", kRowTiny32)       \
    FMA(Vfmaddsub132pd, "vfmaddsub132pd", kRowTiny64) \
    FMA(Vfmaddsub132ps, "vfmaddsub132ps", kRowTiny32) \
    FMA(Vfmaddsub213pd, "vfmaddsub213pd", kRowTiny64) \
    FMA(Vfmaddsub213ps, "vfmaddsub213ps", kRowTiny32) \
    FMA(Vfmaddsub231pd, "vfmaddsub231pd", kRowTiny64) \
    FMA(Vfmaddsub231ps, "vfmaddsub231ps", kRowTiny32) \
    FMA(Vfmsub132pd, "vfmsub132pd", kRowTiny64)       \
    FMA(Vfmsub132ps, "vfmsub132ps", kRowTiny32)       \
    FMA(Vfmsub213pd, "vfmsub213pd", kRowTiny64)       \
    FMA(Vfmsub213ps, "vfmsub213ps", kRowTiny32)       \
    FMA(Vfmsub231pd, "vfmsub231pd", kRowTiny64)       \
    FMA(Vfmsub231ps, "vfmsub231ps", kRowTiny32)       \
    FMA(Vfmsubadd132pd, "vfmsubadd132pd", kRowTiny64) \
    FMA(Vfmsubadd132ps, "vfmsubadd132ps", kRowTiny32) \
    FMA(Vfmsubadd213pd, "vfmsubadd213pd", kRowTiny64) \
    FMA(Vfmsubadd213ps, "vfmsubadd213ps", kRowTiny32) \
    FMA(Vfmsubadd231pd, "vfmsubadd231pd", kRowTiny64) \
    FMA(Vfmsubadd231ps, "vfmsubadd231ps", kRowTiny32) \
    FMA(Vfnmadd132pd, "vfnmadd132pd", kRowTiny64)     \
    FMA(Vfnmadd132ps, "vfnmadd132ps", kRowTiny32)     \
    FMA(Vfnmadd213pd, "vfnmadd213pd", kRowTiny64)     \
    FMA(Vfnmadd213ps, "vfnmadd213ps", kRowTiny32)     \
    FMA(Vfnmadd231pd, "vfnmadd231pd", kRowTiny64)     \
    FMA(Vfnmadd231ps, "vfnmadd231ps", kRowTiny32)     \
    FMA(Vfnmsub132pd, "vfnmsub132pd", kRowTiny64)     \
    FMA(Vfnmsub132ps, "vfnmsub132ps", kRowTiny32)     \
    FMA(Vfnmsub213pd, "vfnmsub213pd", kRowTiny64)     \
    FMA(Vfnmsub213ps, "vfnmsub213ps", kRowTiny32)     \
    FMA(Vfnmsub231pd, "vfnmsub231pd", kRowTiny64)     \
    FMA(Vfnmsub231ps, "vfnmsub231ps", kRowTiny32)

// FMA(VEX, host instruction, memory bytes, flags), scalar.
#define TESSERA_FLOAT_FMA_SCALAR(FMA)                \
    FMA(Vfmadd132sd, "vfmadd132sd", 8, kRowTiny64)   \
    FMA(Vfmadd132ss, "vfmadd132ss", 4, kRowTiny32)   \
    FMA(Vfmadd213sd, "vfmadd213sd", 8, kRowTiny64)   \
    FMA(Vfmadd213ss, "vfmadd213ss", 4, kRowTiny32)   \
    FMA(Vfmadd231sd, "vfmadd231sd", 8, kRowTiny64)   \
    FMA(Vfmadd231ss, "vfmadd231ss", 4, kRowTiny32)   \
    FMA(Vfmsub132sd, "vfmsub132sd", 8, kRowTiny64)   \
    FMA(Vfmsub132ss, "vfmsub132ss", 4, kRowTiny32)   \
    FMA(Vfmsub213sd, "vfmsub213sd", 8, kRowTiny64)   \
    FMA(Vfmsub213ss, "vfmsub213ss", 4, kRowTiny32)   \
    FMA(Vfmsub231sd, "vfmsub231sd", 8, kRowTiny64)   \
    FMA(Vfmsub231ss, "vfmsub231ss", 4, kRowTiny32)   \
    FMA(Vfnmadd132sd, "vfnmadd132sd", 8, kRowTiny64) \
    FMA(Vfnmadd132ss, "vfnmadd132ss", 4, kRowTiny32) \
    FMA(Vfnmadd213sd, "vfnmadd213sd", 8, kRowTiny64) \
    FMA(Vfnmadd213ss, "vfnmadd213ss", 4, kRowTiny32) \
    FMA(Vfnmadd231sd, "vfnmadd231sd", 8, kRowTiny64) \
    FMA(Vfnmadd231ss, "vfnmadd231ss", 4, kRowTiny32) \
    FMA(Vfnmsub132sd, "vfnmsub132sd", 8, kRowTiny64) \
    FMA(Vfnmsub132ss, "vfnmsub132ss", 4, kRowTiny32) \
    FMA(Vfnmsub213sd, "vfnmsub213sd", 8, kRowTiny64) \
    FMA(Vfnmsub213ss, "vfnmsub213ss", 4, kRowTiny32) \
    FMA(Vfnmsub231sd, "vfnmsub231sd", 8, kRowTiny64) \
    FMA(Vfnmsub231ss, "vfnmsub231ss", 4, kRowTiny32)

#define TESSERA_FUSED(Name, op)                                                   \
    TESSERA_VECTOR_TYPE(Name,                                                     \
                        "vmovups (%[d]), %%xmm0\n\tvmovups (%[a]), %%xmm1\n\t" op \
                        " (%[b]), %%xmm1, %%xmm0\n\tvmovups %%xmm0, (%[d])",      \
                        "vmovups (%[d]), %%ymm0\n\tvmovups (%[a]), %%ymm1\n\t" op \
                        " (%[b]), %%ymm1, %%ymm0\n\tvmovups %%ymm0, (%[d])\n\tvzeroupper")
#define TESSERA_FUSED128(Name, op)                                                \
    TESSERA_VECTOR_TYPE(Name,                                                     \
                        "vmovups (%[d]), %%xmm0\n\tvmovups (%[a]), %%xmm1\n\t" op \
                        " (%[b]), %%xmm1, %%xmm0\n\tvmovups %%xmm0, (%[d])",      \
                        "ud2")
#define TESSERA_NARROW(Name, op)                                               \
    TESSERA_VECTOR_TYPE(Name, op "x (%[b]), %%xmm0\n\tvmovups %%xmm0, (%[d])", \
                        op "y (%[b]), %%xmm0\n\tvmovups %%ymm0, (%[d])\n\tvzeroupper")

#define TESSERA_DEFINE_PACKED(L, V, op, flags) TESSERA_BINARY(V, op)
#define TESSERA_DEFINE_SCALAR(L, V, op, m128, flags) TESSERA_BINARY128(V, op)
#define TESSERA_DEFINE_UNARY(L, V, op, m128, m256) TESSERA_UNARY(V, op)
#define TESSERA_DEFINE_NARROW(L, V, op, flags) TESSERA_NARROW(V, op)
#define TESSERA_DEFINE_FMA(V, op, flags) TESSERA_FUSED(V, op)
#define TESSERA_DEFINE_FMA_SCALAR(V, op, m128, flags) TESSERA_FUSED128(V, op)
TESSERA_FLOAT_PACKED(TESSERA_DEFINE_PACKED)
TESSERA_FLOAT_SCALAR(TESSERA_DEFINE_SCALAR)
TESSERA_FLOAT_UNARY(TESSERA_DEFINE_UNARY)
TESSERA_FLOAT_NARROW(TESSERA_DEFINE_NARROW)
TESSERA_FLOAT_FMA(TESSERA_DEFINE_FMA)
TESSERA_FLOAT_FMA_SCALAR(TESSERA_DEFINE_FMA_SCALAR)
#undef TESSERA_DEFINE_PACKED
#undef TESSERA_DEFINE_SCALAR
#undef TESSERA_DEFINE_UNARY
#undef TESSERA_DEFINE_NARROW
#undef TESSERA_DEFINE_FMA
#undef TESSERA_DEFINE_FMA_SCALAR

// CVTSI2SS and CVTSI2SD from 32 and from 64 bits.
TESSERA_BINARY128(Vcvtsi2sdDword, "vcvtsi2sdl")
TESSERA_BINARY128(Vcvtsi2sdQword, "vcvtsi2sdq")
TESSERA_BINARY128(Vcvtsi2ssDword, "vcvtsi2ssl")
TESSERA_BINARY128(Vcvtsi2ssQword, "vcvtsi2ssq")

}  // namespace tessera::soft::vec
