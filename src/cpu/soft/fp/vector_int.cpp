// The table of vector instructions without floating-point exceptions.
#include "cpu/soft/fp/vector_int.h"

#include <array>

namespace tessera::soft {

namespace {

using x86::Mnemonic;

#define TESSERA_ROW(L, V, Type, m128, m256, row_flags) \
    Row{Mnemonic::L, Mnemonic::V, m128, m256, row_flags, row128<vec::Type>, row256<vec::Type>},
#define TESSERA_ROW128(L, V, Type, m128, row_flags) \
    Row{Mnemonic::L, Mnemonic::V, m128, 0, row_flags, row128<vec::Type>, nullptr},
#define TESSERA_ROW256(V, Type, m256, row_flags) \
    Row{Mnemonic::Invalid, Mnemonic::V, 0, m256, row_flags, nullptr, row256<vec::Type>},
#define TESSERA_BINARY_ROW(L, V, op) TESSERA_ROW(L, V, V, 16, 32, 0)
#define TESSERA_SHIFT_ROW(L, V, op) TESSERA_ROW(L, V, V, 16, 16, 0)
#define TESSERA_UNARY_ROW(L, V, op, m128, m256, row_flags) TESSERA_ROW(L, V, V, m128, m256, row_flags)

constexpr auto kRows = std::to_array<Row>(
    {TESSERA_INTEGER_BINARY(TESSERA_BINARY_ROW) TESSERA_INTEGER_SHIFT(
        TESSERA_SHIFT_ROW) TESSERA_INTEGER_UNARY(TESSERA_UNARY_ROW)

         TESSERA_ROW(Invalid, Vpsllvd, Vpsllvd, 16, 32, 0) TESSERA_ROW(Invalid, Vpsllvq, Vpsllvq, 16, 32, 0)
             TESSERA_ROW(Invalid, Vpsravd, Vpsravd, 16, 32, 0) TESSERA_ROW(
                 Invalid, Vpsrlvd, Vpsrlvd, 16, 32, 0) TESSERA_ROW(Invalid, Vpsrlvq, Vpsrlvq, 16, 32, 0)
                 TESSERA_ROW(Invalid, Vpermilpd, VpermilpdVar, 16, 32, 0) TESSERA_ROW(
                     Invalid, Vpermilps, VpermilpsVar, 16, 32, 0) TESSERA_ROW256(Vpermd, Vpermd, 32, 0)
                     TESSERA_ROW256(Vpermps, Vpermps, 32, 0) TESSERA_ROW256(Vbroadcastsd, Vbroadcastsd, 8, 0)
                         TESSERA_ROW256(Vbroadcastf128, Vbroadcast128, 16, 0) TESSERA_ROW256(
                             Vbroadcasti128, Vbroadcast128, 16, 0)

                             TESSERA_ROW128(Aesdec, Vaesdec, Vaesdec, 16, kRowAes) TESSERA_ROW128(
                                 Aesdeclast, Vaesdeclast, Vaesdeclast, 16, kRowAes)
                                 TESSERA_ROW128(Aesenc, Vaesenc, Vaesenc, 16, kRowAes) TESSERA_ROW128(
                                     Aesenclast, Vaesenclast, Vaesenclast, 16, kRowAes)
                                     TESSERA_ROW128(Aesimc, Vaesimc, Vaesimc, 16, kRowAes) TESSERA_ROW128(
                                         Phminposuw, Vphminposuw, Vphminposuw, 16, 0)

                                         TESSERA_ROW128(Movhpd, Vmovhpd, MovhLoad, 8, 0) TESSERA_ROW128(
                                             Movhps, Vmovhps, MovhLoad,
                                             8, 0) TESSERA_ROW128(Movlpd, Vmovlpd, MovlLoad, 8, 0)
                                             TESSERA_ROW128(Movlps, Vmovlps, MovlLoad, 8, 0) TESSERA_ROW128(
                                                 Movhlps, Vmovhlps, Vmovhlps, 16,
                                                 0) TESSERA_ROW128(Movlhps, Vmovlhps, Vmovlhps, 16, 0)
                                                 TESSERA_ROW128(Movd, Vmovd, LoadDword, 4, 0) TESSERA_ROW128(
                                                     Movq, Vmovq, LoadQword, 8,
                                                     0) TESSERA_ROW128(Movss, Vmovss, LoadDword, 4,
                                                                       kRowMemoryOnly)
                                                     TESSERA_ROW128(Movsd, Vmovsd, LoadQword, 8,
                                                                    kRowMemoryOnly)
                                                         TESSERA_ROW128(Movss, Vmovss, MergeDword, 4,
                                                                        kRowRegisterOnly)
                                                             TESSERA_ROW128(Movsd, Vmovsd, MergeQword, 8,
                                                                            kRowRegisterOnly)
                                                                 TESSERA_ROW128(Rcpss, Vrcpss, Vrcpss, 4, 0)
                                                                     TESSERA_ROW128(Rsqrtss, Vrsqrtss,
                                                                                    Vrsqrtss, 4, 0)

     // The SHA instructions take unaligned operands on AMD's processors (seen on family 1Ah), unlike other
     // legacy SSE.
     TESSERA_ROW128(Sha1msg1, Invalid, Sha1msg1, 16, kRowSha | kRowUnaligned)
         TESSERA_ROW128(Sha1msg2, Invalid, Sha1msg2, 16, kRowSha | kRowUnaligned)
             TESSERA_ROW128(Sha1nexte, Invalid, Sha1nexte, 16, kRowSha | kRowUnaligned) TESSERA_ROW128(
                 Sha256msg1, Invalid, Sha256msg1, 16, kRowSha | kRowUnaligned)
                 TESSERA_ROW128(Sha256msg2, Invalid, Sha256msg2, 16, kRowSha | kRowUnaligned) TESSERA_ROW128(
                     Sha256rnds2, Invalid, Sha256rnds2, 16, kRowSha | kRowUnaligned | kRowImplicitXmm0)});

}  // namespace

std::span<const Row> integer_rows() {
    return kRows;
}

}  // namespace tessera::soft
