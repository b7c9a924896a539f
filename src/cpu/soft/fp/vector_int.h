// The vector instructions that raise no floating-point exceptions: moves, logic, integer arithmetic,
// permutations.
#pragma once

#include "cpu/soft/fp/vector_row.h"

namespace tessera::soft::vec {

// INT(legacy, VEX, host instruction): d = op(a, b), 128 and 256 bits, memory operand as wide as the
// registers.
#define TESSERA_INTEGER_BINARY(INT)             \
    INT(Andnpd, Vandnpd, "vandnpd")             \
    INT(Andnps, Vandnps, "vandnps")             \
    INT(Andpd, Vandpd, "vandpd")                \
    INT(Andps, Vandps, "vandps")                \
    INT(Orpd, Vorpd, "vorpd")                   \
    INT(Orps, Vorps, "vorps")                   \
    INT(Packssdw, Vpackssdw, "vpackssdw")       \
    INT(Packsswb, Vpacksswb, "vpacksswb")       \
    INT(Packusdw, Vpackusdw, "vpackusdw")       \
    INT(Packuswb, Vpackuswb, "vpackuswb")       \
    INT(Paddb, Vpaddb, "vpaddb")                \
    INT(Paddd, Vpaddd, "vpaddd")                \
    INT(Paddq, Vpaddq, "vpaddq")                \
    INT(Paddsb, Vpaddsb, "vpaddsb")             \
    INT(Paddsw, Vpaddsw, "vpaddsw")             \
    INT(Paddusb, Vpaddusb, "vpaddusb")          \
    INT(Paddusw, Vpaddusw, "vpaddusw")          \
    INT(Paddw, Vpaddw, "vpaddw")                \
    INT(Pand, Vpand, "vpand")                   \
    INT(Pandn, Vpandn, "vpandn")                \
    INT(Pavgb, Vpavgb, "vpavgb")                \
    INT(Pavgw, Vpavgw, "vpavgw")                \
    INT(Pcmpeqb, Vpcmpeqb, "vpcmpeqb")          \
    INT(Pcmpeqd, Vpcmpeqd, "vpcmpeqd")          \
    INT(Pcmpeqq, Vpcmpeqq, "vpcmpeqq")          \
    INT(Pcmpeqw, Vpcmpeqw, "vpcmpeqw")          \
    INT(Pcmpgtb, Vpcmpgtb, "vpcmpgtb")          \
    INT(Pcmpgtd, Vpcmpgtd, "vpcmpgtd")          \
    INT(Pcmpgtq, Vpcmpgtq, "vpcmpgtq")          \
    INT(Pcmpgtw, Vpcmpgtw, "vpcmpgtw")          \
    INT(Phaddd, Vphaddd, "vphaddd")             \
    INT(Phaddsw, Vphaddsw, "vphaddsw")          \
    INT(Phaddw, Vphaddw, "vphaddw")             \
    INT(Phsubd, Vphsubd, "vphsubd")             \
    INT(Phsubsw, Vphsubsw, "vphsubsw")          \
    INT(Phsubw, Vphsubw, "vphsubw")             \
    INT(Pmaddubsw, Vpmaddubsw, "vpmaddubsw")    \
    INT(Pmaddwd, Vpmaddwd, "vpmaddwd")          \
    INT(Pmaxsb, Vpmaxsb, "vpmaxsb")             \
    INT(Pmaxsd, Vpmaxsd, "vpmaxsd")             \
    INT(Pmaxsw, Vpmaxsw, "vpmaxsw")             \
    INT(Pmaxub, Vpmaxub, "vpmaxub")             \
    INT(Pmaxud, Vpmaxud, "vpmaxud")             \
    INT(Pmaxuw, Vpmaxuw, "vpmaxuw")             \
    INT(Pminsb, Vpminsb, "vpminsb")             \
    INT(Pminsd, Vpminsd, "vpminsd")             \
    INT(Pminsw, Vpminsw, "vpminsw")             \
    INT(Pminub, Vpminub, "vpminub")             \
    INT(Pminud, Vpminud, "vpminud")             \
    INT(Pminuw, Vpminuw, "vpminuw")             \
    INT(Pmuldq, Vpmuldq, "vpmuldq")             \
    INT(Pmulhrsw, Vpmulhrsw, "vpmulhrsw")       \
    INT(Pmulhuw, Vpmulhuw, "vpmulhuw")          \
    INT(Pmulhw, Vpmulhw, "vpmulhw")             \
    INT(Pmulld, Vpmulld, "vpmulld")             \
    INT(Pmullw, Vpmullw, "vpmullw")             \
    INT(Pmuludq, Vpmuludq, "vpmuludq")          \
    INT(Por, Vpor, "vpor")                      \
    INT(Psadbw, Vpsadbw, "vpsadbw")             \
    INT(Pshufb, Vpshufb, "vpshufb")             \
    INT(Psignb, Vpsignb, "vpsignb")             \
    INT(Psignd, Vpsignd, "vpsignd")             \
    INT(Psignw, Vpsignw, "vpsignw")             \
    INT(Psubb, Vpsubb, "vpsubb")                \
    INT(Psubd, Vpsubd, "vpsubd")                \
    INT(Psubq, Vpsubq, "vpsubq")                \
    INT(Psubsb, Vpsubsb, "vpsubsb")             \
    INT(Psubsw, Vpsubsw, "vpsubsw")             \
    INT(Psubusb, Vpsubusb, "vpsubusb")          \
    INT(Psubusw, Vpsubusw, "vpsubusw")          \
    INT(Psubw, Vpsubw, "vpsubw")                \
    INT(Punpckhbw, Vpunpckhbw, "vpunpckhbw")    \
    INT(Punpckhdq, Vpunpckhdq, "vpunpckhdq")    \
    INT(Punpckhqdq, Vpunpckhqdq, "vpunpckhqdq") \
    INT(Punpckhwd, Vpunpckhwd, "vpunpckhwd")    \
    INT(Punpcklbw, Vpunpcklbw, "vpunpcklbw")    \
    INT(Punpckldq, Vpunpckldq, "vpunpckldq")    \
    INT(Punpcklqdq, Vpunpcklqdq, "vpunpcklqdq") \
    INT(Punpcklwd, Vpunpcklwd, "vpunpcklwd")    \
    INT(Pxor, Vpxor, "vpxor")                   \
    INT(Unpckhpd, Vunpckhpd, "vunpckhpd")       \
    INT(Unpckhps, Vunpckhps, "vunpckhps")       \
    INT(Unpcklpd, Vunpcklpd, "vunpcklpd")       \
    INT(Unpcklps, Vunpcklps, "vunpcklps")       \
    INT(Xorpd, Vxorpd, "vxorpd")                \
    INT(Xorps, Vxorps, "vxorps")

// SHIFT: the count is 16 bytes wide in both sizes.
#define TESSERA_INTEGER_SHIFT(SHIFT) \
    SHIFT(Pslld, Vpslld, "vpslld")   \
    SHIFT(Psllq, Vpsllq, "vpsllq")   \
    SHIFT(Psllw, Vpsllw, "vpsllw")   \
    SHIFT(Psrad, Vpsrad, "vpsrad")   \
    SHIFT(Psraw, Vpsraw, "vpsraw")   \
    SHIFT(Psrld, Vpsrld, "vpsrld")   \
    SHIFT(Psrlq, Vpsrlq, "vpsrlq")   \
    SHIFT(Psrlw, Vpsrlw, "vpsrlw")

// UN(legacy, VEX, host instruction, memory bytes at 128, at 256, flags): d = op(b)
#define TESSERA_INTEGER_UNARY(UN)                           \
    UN(Lddqu, Vlddqu, "vlddqu", 16, 32, kRowUnaligned)      \
    UN(Movapd, Vmovapd, "vmovups", 16, 32, kRowAligned)     \
    UN(Movaps, Vmovaps, "vmovups", 16, 32, kRowAligned)     \
    UN(Movdqa, Vmovdqa, "vmovdqu", 16, 32, kRowAligned)     \
    UN(Movdqu, Vmovdqu, "vmovdqu", 16, 32, kRowUnaligned)   \
    UN(Movntdqa, Vmovntdqa, "vmovdqu", 16, 32, kRowAligned) \
    UN(Movshdup, Vmovshdup, "vmovshdup", 16, 32, 0)         \
    UN(Movsldup, Vmovsldup, "vmovsldup", 16, 32, 0)         \
    UN(Movddup, Vmovddup, "vmovddup", 8, 32, 0)             \
    UN(Movupd, Vmovupd, "vmovups", 16, 32, kRowUnaligned)   \
    UN(Movups, Vmovups, "vmovups", 16, 32, kRowUnaligned)   \
    UN(Pabsb, Vpabsb, "vpabsb", 16, 32, 0)                  \
    UN(Pabsd, Vpabsd, "vpabsd", 16, 32, 0)                  \
    UN(Pabsw, Vpabsw, "vpabsw", 16, 32, 0)                  \
    UN(Pmovsxbd, Vpmovsxbd, "vpmovsxbd", 4, 8, 0)           \
    UN(Pmovsxbq, Vpmovsxbq, "vpmovsxbq", 2, 4, 0)           \
    UN(Pmovsxbw, Vpmovsxbw, "vpmovsxbw", 8, 16, 0)          \
    UN(Pmovsxdq, Vpmovsxdq, "vpmovsxdq", 8, 16, 0)          \
    UN(Pmovsxwd, Vpmovsxwd, "vpmovsxwd", 8, 16, 0)          \
    UN(Pmovsxwq, Vpmovsxwq, "vpmovsxwq", 4, 8, 0)           \
    UN(Pmovzxbd, Vpmovzxbd, "vpmovzxbd", 4, 8, 0)           \
    UN(Pmovzxbq, Vpmovzxbq, "vpmovzxbq", 2, 4, 0)           \
    UN(Pmovzxbw, Vpmovzxbw, "vpmovzxbw", 8, 16, 0)          \
    UN(Pmovzxdq, Vpmovzxdq, "vpmovzxdq", 8, 16, 0)          \
    UN(Pmovzxwd, Vpmovzxwd, "vpmovzxwd", 8, 16, 0)          \
    UN(Pmovzxwq, Vpmovzxwq, "vpmovzxwq", 4, 8, 0)           \
    UN(Rcpps, Vrcpps, "vrcpps", 16, 32, 0)                  \
    UN(Rsqrtps, Vrsqrtps, "vrsqrtps", 16, 32, 0)            \
    UN(Invalid, Vbroadcastss, "vbroadcastss", 4, 4, 0)      \
    UN(Invalid, Vpbroadcastb, "vpbroadcastb", 1, 1, 0)      \
    UN(Invalid, Vpbroadcastw, "vpbroadcastw", 2, 2, 0)      \
    UN(Invalid, Vpbroadcastd, "vpbroadcastd", 4, 4, 0)      \
    UN(Invalid, Vpbroadcastq, "vpbroadcastq", 8, 8, 0)

#define TESSERA_DEFINE_BINARY(L, V, op) TESSERA_BINARY(V, op)
#define TESSERA_DEFINE_SHIFT(L, V, op) TESSERA_BINARY(V, op)
#define TESSERA_DEFINE_UNARY(L, V, op, m128, m256, flags) TESSERA_UNARY(V, op)
TESSERA_INTEGER_BINARY(TESSERA_DEFINE_BINARY)
TESSERA_INTEGER_SHIFT(TESSERA_DEFINE_SHIFT)
TESSERA_INTEGER_UNARY(TESSERA_DEFINE_UNARY)
#undef TESSERA_DEFINE_BINARY
#undef TESSERA_DEFINE_SHIFT
#undef TESSERA_DEFINE_UNARY

// Variable shifts and permutations, VEX only.
TESSERA_BINARY(Vpsllvd, "vpsllvd")
TESSERA_BINARY(Vpsllvq, "vpsllvq")
TESSERA_BINARY(Vpsravd, "vpsravd")
TESSERA_BINARY(Vpsrlvd, "vpsrlvd")
TESSERA_BINARY(Vpsrlvq, "vpsrlvq")
TESSERA_BINARY(VpermilpdVar, "vpermilpd")
TESSERA_BINARY(VpermilpsVar, "vpermilps")
TESSERA_BINARY256(Vpermd, "vpermd")
TESSERA_BINARY256(Vpermps, "vpermps")

TESSERA_BINARY128(Vaesdec, "vaesdec")
TESSERA_BINARY128(Vaesdeclast, "vaesdeclast")
TESSERA_BINARY128(Vaesenc, "vaesenc")
TESSERA_BINARY128(Vaesenclast, "vaesenclast")
TESSERA_UNARY128(Vaesimc, "vaesimc")
TESSERA_UNARY128(Vphminposuw, "vphminposuw")
TESSERA_UNARY256(Vbroadcastsd, "vbroadcastsd")
TESSERA_UNARY256(Vbroadcast128, "vbroadcastf128")

// Moves of a part of a register.
TESSERA_BINARY128(MovhLoad, "vmovhps")
TESSERA_BINARY128(MovlLoad, "vmovlps")
TESSERA_UNARY128(LoadDword, "vmovss")
TESSERA_UNARY128(LoadQword, "vmovsd")
#define TESSERA_BINARY_REGISTER(Name, op)                                         \
    TESSERA_VECTOR_TYPE(Name,                                                     \
                        "vmovups (%[a]), %%xmm0\n\tvmovups (%[b]), %%xmm1\n\t" op \
                        " %%xmm1, %%xmm0, %%xmm0\n\tvmovups %%xmm0, (%[d])",      \
                        "ud2")
TESSERA_BINARY_REGISTER(Vmovhlps, "vmovhlps")
TESSERA_BINARY_REGISTER(Vmovlhps, "vmovlhps")
TESSERA_BINARY_REGISTER(MergeDword, "vmovss")
TESSERA_BINARY_REGISTER(MergeQword, "vmovsd")
TESSERA_BINARY128(Vrcpss, "vrcpss")
TESSERA_BINARY128(Vrsqrtss, "vrsqrtss")

// SHA has no VEX form; its host instruction would want an aligned memory operand.
#define TESSERA_SHA(Name, op)                                                                               \
    TESSERA_VECTOR_TYPE(Name,                                                                               \
                        "vmovups (%[a]), %%xmm0\n\tvmovups (%[d]), %%xmm1\n\tvmovups (%[b]), %%xmm2\n\t" op \
                        " %%xmm2, %%xmm1\n\tvmovups %%xmm1, (%[d])",                                        \
                        "ud2")
TESSERA_SHA(Sha1msg1, "sha1msg1")
TESSERA_SHA(Sha1msg2, "sha1msg2")
TESSERA_SHA(Sha1nexte, "sha1nexte")
TESSERA_SHA(Sha256msg1, "sha256msg1")
TESSERA_SHA(Sha256msg2, "sha256msg2")
TESSERA_SHA(Sha256rnds2, "sha256rnds2")

}  // namespace tessera::soft::vec
