// The table of vector instructions with floating-point exceptions.
#include "cpu/soft/fp/vector_float.h"

#include <array>

namespace tessera::soft {

namespace {

using x86::Mnemonic;

#define TESSERA_PACKED_ROW(L, V, op, row_flags) \
    Row{Mnemonic::L, Mnemonic::V, 16, 32, kRowFloat | (row_flags), row128<vec::V>, row256<vec::V>},
#define TESSERA_SCALAR_ROW(L, V, op, m128, row_flags) \
    Row{Mnemonic::L, Mnemonic::V, m128, 0, kRowFloat | kRowScalar | (row_flags), row128<vec::V>, nullptr},
#define TESSERA_UNARY_ROW(L, V, op, m128, m256) \
    Row{Mnemonic::L, Mnemonic::V, m128, m256, kRowFloat, row128<vec::V>, row256<vec::V>},
#define TESSERA_FMA_ROW(V, op, row_flags) \
    Row{Mnemonic::Invalid, Mnemonic::V, 16, 32, kRowFloat | (row_flags), row128<vec::V>, row256<vec::V>},
#define TESSERA_FMA_SCALAR_ROW(V, op, m128, row_flags)                                 \
    Row{Mnemonic::Invalid, Mnemonic::V, m128, 0, kRowFloat | kRowScalar | (row_flags), \
        row128<vec::V>,    nullptr},

constexpr auto kRows = std::to_array<Row>({
    TESSERA_FLOAT_PACKED(TESSERA_PACKED_ROW) TESSERA_FLOAT_SCALAR(TESSERA_SCALAR_ROW)
        TESSERA_FLOAT_UNARY(TESSERA_UNARY_ROW) TESSERA_FLOAT_NARROW(TESSERA_PACKED_ROW)
            TESSERA_FLOAT_FMA(TESSERA_FMA_ROW) TESSERA_FLOAT_FMA_SCALAR(TESSERA_FMA_SCALAR_ROW){
                Mnemonic::Cvtsi2sd, Mnemonic::Vcvtsi2sd, 4, 0, kRowFloat | kRowScalar,
                row128<vec::Vcvtsi2sdDword>, nullptr},
    {Mnemonic::Cvtsi2ss, Mnemonic::Vcvtsi2ss, 4, 0, kRowFloat | kRowScalar, row128<vec::Vcvtsi2ssDword>,
     nullptr},
    {Mnemonic::Cvtsi2sd, Mnemonic::Vcvtsi2sd, 8, 0, kRowFloat | kRowScalar | kRowWide,
     row128<vec::Vcvtsi2sdQword>, nullptr},
    {Mnemonic::Cvtsi2ss, Mnemonic::Vcvtsi2ss, 8, 0, kRowFloat | kRowScalar | kRowWide,
     row128<vec::Vcvtsi2ssQword>, nullptr},
});

}  // namespace

std::span<const Row> float_rows() {
    return kRows;
}

}  // namespace tessera::soft
