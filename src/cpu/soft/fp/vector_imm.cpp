// The table of vector instructions with an immediate: the host needs it in the instruction, so there are 256
// functions for each, made by the assembler.
#include <array>

#include "cpu/soft/fp/vector_row.h"

namespace tessera::soft {

namespace {

using x86::Mnemonic;

}  // namespace

// Functions of the form VectorFn, one every kImmStride (32) bytes; IMM in `body` is the number.
#define TESSERA_IMM_FUNCTIONS(name, body)                                                                 \
    extern "C" [[gnu::visibility("hidden")]] void name(void*, const void*, const void*);                  \
    asm(".pushsection .text\n\t.p2align 5\n" #name ":\n\t.set IMM, 0\n\t.rept 256\n\t.p2align 5\n\t" body \
        "\n\tret\n\t.set IMM, IMM + 1\n\t.endr\n\t.popsection")

// The arguments d, a, b are in RDI, RSI, RDX.
#define TESSERA_IMM_BINARY(name, op)                                                                   \
    TESSERA_IMM_FUNCTIONS(tessera_##name##_x, "vmovups (%rsi), %xmm0\n\t" op                           \
                                              " $IMM, (%rdx), %xmm0, %xmm0\n\tvmovups %xmm0, (%rdi)"); \
    TESSERA_IMM_FUNCTIONS(tessera_##name##_y,                                                          \
                          "vmovups (%rsi), %ymm0\n\t" op                                               \
                          " $IMM, (%rdx), %ymm0, %ymm0\n\tvmovups %ymm0, (%rdi)\n\tvzeroupper")
#define TESSERA_IMM_BINARY128(name, op)                                      \
    TESSERA_IMM_FUNCTIONS(tessera_##name##_x, "vmovups (%rsi), %xmm0\n\t" op \
                                              " $IMM, (%rdx), %xmm0, %xmm0\n\tvmovups %xmm0, (%rdi)")
#define TESSERA_IMM_BINARY256(name, op)                  \
    TESSERA_IMM_FUNCTIONS(tessera_##name##_y,            \
                          "vmovups (%rsi), %ymm0\n\t" op \
                          " $IMM, (%rdx), %ymm0, %ymm0\n\tvmovups %ymm0, (%rdi)\n\tvzeroupper")
#define TESSERA_IMM_UNARY(name, op)                                                                \
    TESSERA_IMM_FUNCTIONS(tessera_##name##_x, op " $IMM, (%rdx), %xmm0\n\tvmovups %xmm0, (%rdi)"); \
    TESSERA_IMM_FUNCTIONS(tessera_##name##_y,                                                      \
                          op " $IMM, (%rdx), %ymm0\n\tvmovups %ymm0, (%rdi)\n\tvzeroupper")
#define TESSERA_IMM_UNARY128(name, op) \
    TESSERA_IMM_FUNCTIONS(tessera_##name##_x, op " $IMM, (%rdx), %xmm0\n\tvmovups %xmm0, (%rdi)")
#define TESSERA_IMM_UNARY256(name, op)        \
    TESSERA_IMM_FUNCTIONS(tessera_##name##_y, \
                          op " $IMM, (%rdx), %ymm0\n\tvmovups %ymm0, (%rdi)\n\tvzeroupper")
#define TESSERA_IMM_SHIFT(name, op)                                                                       \
    TESSERA_IMM_FUNCTIONS(tessera_##name##_x,                                                             \
                          "vmovups (%rdx), %xmm0\n\t" op " $IMM, %xmm0, %xmm0\n\tvmovups %xmm0, (%rdi)"); \
    TESSERA_IMM_FUNCTIONS(tessera_##name##_y, "vmovups (%rdx), %ymm0\n\t" op                              \
                                              " $IMM, %ymm0, %ymm0\n\tvmovups %ymm0, (%rdi)\n\tvzeroupper")

TESSERA_IMM_BINARY(blendpd, "vblendpd");
TESSERA_IMM_BINARY(blendps, "vblendps");
TESSERA_IMM_BINARY(pblendd, "vpblendd");
TESSERA_IMM_BINARY(pblendw, "vpblendw");
TESSERA_IMM_BINARY(palignr, "vpalignr");
TESSERA_IMM_BINARY(shufpd, "vshufpd");
TESSERA_IMM_BINARY(shufps, "vshufps");
TESSERA_IMM_BINARY(mpsadbw, "vmpsadbw");
TESSERA_IMM_BINARY(dpps, "vdpps");
TESSERA_IMM_BINARY128(dppd, "vdppd");
TESSERA_IMM_BINARY128(roundsd, "vroundsd");
TESSERA_IMM_BINARY128(roundss, "vroundss");
TESSERA_IMM_BINARY128(pclmulqdq, "vpclmulqdq");
TESSERA_IMM_BINARY128(insertps_memory, "vinsertps");
TESSERA_IMM_FUNCTIONS(
    tessera_insertps_register_x,
    "vmovups (%rsi), %xmm0\n\tvmovups (%rdx), %xmm1\n\tvinsertps $IMM, %xmm1, %xmm0, %xmm0\n\t"
    "vmovups %xmm0, (%rdi)");
TESSERA_IMM_BINARY256(perm2f128, "vperm2f128");
TESSERA_IMM_BINARY256(insertf128, "vinsertf128");
TESSERA_IMM_UNARY(pshufd, "vpshufd");
TESSERA_IMM_UNARY(pshufhw, "vpshufhw");
TESSERA_IMM_UNARY(pshuflw, "vpshuflw");
TESSERA_IMM_UNARY(permilpd, "vpermilpd");
TESSERA_IMM_UNARY(permilps, "vpermilps");
TESSERA_IMM_UNARY(roundpd, "vroundpd");
TESSERA_IMM_UNARY(roundps, "vroundps");
TESSERA_IMM_UNARY128(aeskeygenassist, "vaeskeygenassist");
TESSERA_IMM_UNARY256(permq, "vpermq");
TESSERA_IMM_SHIFT(pslld, "vpslld");
TESSERA_IMM_SHIFT(pslldq, "vpslldq");
TESSERA_IMM_SHIFT(psllq, "vpsllq");
TESSERA_IMM_SHIFT(psllw, "vpsllw");
TESSERA_IMM_SHIFT(psrad, "vpsrad");
TESSERA_IMM_SHIFT(psraw, "vpsraw");
TESSERA_IMM_SHIFT(psrld, "vpsrld");
TESSERA_IMM_SHIFT(psrldq, "vpsrldq");
TESSERA_IMM_SHIFT(psrlq, "vpsrlq");
TESSERA_IMM_SHIFT(psrlw, "vpsrlw");
// The source is in b, as the register operand that it always is; of the result only the lower half is there.
TESSERA_IMM_FUNCTIONS(tessera_cvtps2ph_x,
                      "vmovups (%rdx), %xmm0\n\tvcvtps2ph $IMM, %xmm0, %xmm0\n\t"
                      "vmovups %xmm0, (%rdi)");
TESSERA_IMM_FUNCTIONS(tessera_cvtps2ph_y,
                      "vmovups (%rdx), %ymm0\n\tvcvtps2ph $IMM, %ymm0, %xmm0\n\t"
                      "vmovups %ymm0, (%rdi)\n\tvzeroupper");
TESSERA_IMM_FUNCTIONS(tessera_extractf128_y,
                      "vmovups (%rdx), %ymm0\n\tvextractf128 $IMM, %ymm0, %xmm0\n\t"
                      "vmovups %ymm0, (%rdi)\n\tvzeroupper");
TESSERA_IMM_FUNCTIONS(tessera_sha1rnds4_x,
                      "vmovups (%rdi), %xmm0\n\tvmovups (%rdx), %xmm1\n\tsha1rnds4 $IMM, %xmm1, %xmm0\n\t"
                      "vmovups %xmm0, (%rdi)");
// The compare predicates have five bits in VEX forms; the rest is ignored.
#define TESSERA_IMM_COMPARE(name, op)                                        \
    TESSERA_IMM_FUNCTIONS(tessera_##name##_x, "vmovups (%rsi), %xmm0\n\t" op \
                                              " $(IMM & 31), (%rdx), %xmm0, %xmm0\n\tvmovups %xmm0, (%rdi)")
TESSERA_IMM_COMPARE(cmppd, "vcmppd");
TESSERA_IMM_COMPARE(cmpps, "vcmpps");
TESSERA_IMM_COMPARE(cmpsd, "vcmpsd");
TESSERA_IMM_COMPARE(cmpss, "vcmpss");
#define TESSERA_IMM_COMPARE256(name, op)                 \
    TESSERA_IMM_FUNCTIONS(tessera_##name##_y,            \
                          "vmovups (%rsi), %ymm0\n\t" op \
                          " $(IMM & 31), (%rdx), %ymm0, %ymm0\n\tvmovups %ymm0, (%rdi)\n\tvzeroupper")
TESSERA_IMM_COMPARE256(cmppd, "vcmppd");
TESSERA_IMM_COMPARE256(cmpps, "vcmpps");

namespace {

#define TESSERA_ROW(L, V, name, m128, m256, row_flags) \
    Row{Mnemonic::L, Mnemonic::V, m128, m256, kRowImm | (row_flags), tessera_##name##_x, tessera_##name##_y},
#define TESSERA_ROW128(L, V, name, m128, row_flags) \
    Row{Mnemonic::L, Mnemonic::V, m128, 0, kRowImm | (row_flags), tessera_##name##_x, nullptr},
#define TESSERA_ROW256(V, name, m256, row_flags) \
    Row{Mnemonic::Invalid, Mnemonic::V, 0, m256, kRowImm | (row_flags), nullptr, tessera_##name##_y},

constexpr auto kRows = std::to_array<Row>(
    {TESSERA_ROW(Blendpd, Vblendpd, blendpd, 16, 32, 0) TESSERA_ROW(
        Blendps, Vblendps, blendps, 16, 32, 0) TESSERA_ROW(Invalid, Vpblendd, pblendd, 16, 32,
                                                           0) TESSERA_ROW(Pblendw, Vpblendw, pblendw, 16, 32,
                                                                          0)
         TESSERA_ROW(Palignr, Vpalignr, palignr, 16, 32, 0) TESSERA_ROW(
             Shufpd,
             Vshufpd, shufpd, 16, 32,
             0) TESSERA_ROW(Shufps, Vshufps, shufps, 16, 32,
                            0) TESSERA_ROW(Mpsadbw, Vmpsadbw, mpsadbw, 16, 32,
                                           0) TESSERA_ROW(Dpps, Vdpps, dpps, 16, 32, kRowFloat | kRowTiny32)
             TESSERA_ROW128(Dppd, Vdppd, dppd, 16, kRowFloat | kRowTiny64) TESSERA_ROW(
                 Cmppd, Vcmppd, cmppd, 16, 32,
                 kRowFloat |
                     kRowImm3) TESSERA_ROW(Cmpps, Vcmpps, cmpps, 16, 32, kRowFloat | kRowImm3)
                 TESSERA_ROW128(Cmpsd, Vcmpsd, cmpsd, 8, kRowFloat | kRowImm3 | kRowScalar) TESSERA_ROW128(
                     Cmpss, Vcmpss,
                     cmpss,
                     4, kRowFloat | kRowImm3 | kRowScalar) TESSERA_ROW(Roundpd, Vroundpd, roundpd, 16, 32,
                                                                       kRowFloat)
                     TESSERA_ROW(Roundps, Vroundps, roundps, 16, 32, kRowFloat) TESSERA_ROW128(
                         Roundsd, Vroundsd,
                         roundsd, 8,
                         kRowFloat |
                             kRowScalar) TESSERA_ROW128(Roundss, Vroundss, roundss, 4, kRowFloat | kRowScalar)
                         TESSERA_ROW128(Pclmulqdq, Vpclmulqdq, pclmulqdq, 16, kRowPclmul) TESSERA_ROW128(
                             Insertps, Vinsertps, insertps_memory,
                             4, kRowMemoryOnly) TESSERA_ROW128(Insertps, Vinsertps, insertps_register, 16,
                                                               kRowRegisterOnly)
                             TESSERA_ROW256(Vperm2f128, perm2f128, 32, 0) TESSERA_ROW256(
                                 Vperm2i128,
                                 perm2f128, 32,
                                 0) TESSERA_ROW256(Vinsertf128, insertf128, 16, 0)
                                 TESSERA_ROW256(Vinserti128, insertf128, 16, 0) TESSERA_ROW256(
                                     Vextractf128, extractf128,
                                     32,
                                     kRowRegisterOnly) TESSERA_ROW256(Vextracti128,
                                                                      extractf128, 32, kRowRegisterOnly)
                                     TESSERA_ROW(Pshufd, Vpshufd, pshufd, 16, 32, 0) TESSERA_ROW(
                                         Pshufhw, Vpshufhw,
                                         pshufhw, 16, 32,
                                         0) TESSERA_ROW(Pshuflw, Vpshuflw, pshuflw, 16, 32, 0)
                                         TESSERA_ROW(Invalid, Vpermilpd, permilpd, 16, 32, 0) TESSERA_ROW(
                                             Invalid, Vpermilps,
                                             permilps, 16, 32,
                                             0) TESSERA_ROW128(Aeskeygenassist, Vaeskeygenassist,
                                                               aeskeygenassist,
                                                               16,
                                                               kRowAes) TESSERA_ROW256(Vpermq, permq, 32, 0)
                                             TESSERA_ROW256(Vpermpd, permq, 32, 0) TESSERA_ROW(
                                                 Pslld, Vpslld, pslld, 16, 32,
                                                 kRowRegisterOnly) TESSERA_ROW(Pslldq, Vpslldq, pslldq, 16,
                                                                               32, kRowRegisterOnly)
                                                 TESSERA_ROW(Psllq, Vpsllq, psllq, 16, 32, kRowRegisterOnly)
                                                     TESSERA_ROW(
                                                         Psllw, Vpsllw, psllw, 16, 32, kRowRegisterOnly)
                                                         TESSERA_ROW(
                                                             Psrad, Vpsrad, psrad, 16, 32, kRowRegisterOnly)
                                                             TESSERA_ROW(Psraw, Vpsraw, psraw, 16, 32,
                                                                         kRowRegisterOnly)
                                                                 TESSERA_ROW(Psrld, Vpsrld, psrld, 16, 32,
                                                                             kRowRegisterOnly)
                                                                     TESSERA_ROW(Psrldq, Vpsrldq, psrldq, 16,
                                                                                 32, kRowRegisterOnly)
                                                                         TESSERA_ROW(Psrlq, Vpsrlq, psrlq, 16,
                                                                                     32, kRowRegisterOnly)
                                                                             TESSERA_ROW(Psrlw, Vpsrlw, psrlw,
                                                                                         16, 32,
                                                                                         kRowRegisterOnly)
                                                                                 TESSERA_ROW(
                                                                                     Invalid, Vcvtps2ph,
                                                                                     cvtps2ph, 8, 16,
                                                                                     kRowFloat | kRowTiny16)
                                                                                     TESSERA_ROW128(
                                                                                         Sha1rnds4,
                                                                                         Invalid, sha1rnds4,
                                                                                         16,
                                                                                         kRowSha |
                                                                                             kRowUnaligned)});

}  // namespace

std::span<const Row> immediate_rows() {
    return kRows;
}

}  // namespace tessera::soft
