// The table of MMX instructions.
#include <array>

#include "cpu/soft/fp/mmx_row.h"

// Functions of the form VectorFn, one every kMmxStride (16) bytes; IMM in `body` is the number. d, b are RDI,
// RDX.
#define TESSERA_MMX_IMM(name, body)                                                                    \
    extern "C" [[gnu::visibility("hidden")]] void tessera_mmx_##name(void*, const void*, const void*); \
    asm(".pushsection .text\n\t.p2align 4\ntessera_mmx_" #name                                         \
        ":\n\t.set IMM, 0\n\t.rept 256\n\t.p2align 4\n\t" body                                         \
        "\n\tmovq %mm0, (%rdi)\n\temms\n\tret\n\t.set IMM, IMM + 1\n\t.endr\n\t.popsection")
#define TESSERA_MMX_SHIFT(name) TESSERA_MMX_IMM(name, "movq (%rdi), %mm0\n\t" #name " $IMM, %mm0")
TESSERA_MMX_SHIFT(pslld);
TESSERA_MMX_SHIFT(psllq);
TESSERA_MMX_SHIFT(psllw);
TESSERA_MMX_SHIFT(psrad);
TESSERA_MMX_SHIFT(psraw);
TESSERA_MMX_SHIFT(psrld);
TESSERA_MMX_SHIFT(psrlq);
TESSERA_MMX_SHIFT(psrlw);
TESSERA_MMX_IMM(pshufw, "pshufw $IMM, (%rdx), %mm0");
TESSERA_MMX_IMM(palignr, "movq (%rdi), %mm0\n\tpalignr $IMM, (%rdx), %mm0");

namespace tessera::soft {

namespace {

using x86::Mnemonic;

#define TESSERA_MMX_BINARY(name)                                                             \
    void name(void* d, const void* /*a*/, const void* b) {                                   \
        asm volatile("movq (%0), %%mm0\n\t" #name " (%1), %%mm0\n\tmovq %%mm0, (%0)\n\temms" \
                     :                                                                       \
                     : "r"(d), "r"(b)                                                        \
                     : "memory", "mm0");                                                     \
    }
#define TESSERA_MMX_UNARY(name)                                                                              \
    void name(void* d, const void* /*a*/, const void* b) {                                                   \
        asm volatile(#name " (%1), %%mm0\n\tmovq %%mm0, (%0)\n\temms" : : "r"(d), "r"(b) : "memory", "mm0"); \
    }
TESSERA_MMX_BINARY(packssdw)
TESSERA_MMX_BINARY(packsswb)
TESSERA_MMX_BINARY(packuswb)
TESSERA_MMX_BINARY(paddb)
TESSERA_MMX_BINARY(paddd)
TESSERA_MMX_BINARY(paddq)
TESSERA_MMX_BINARY(paddsb)
TESSERA_MMX_BINARY(paddsw)
TESSERA_MMX_BINARY(paddusb)
TESSERA_MMX_BINARY(paddusw)
TESSERA_MMX_BINARY(paddw)
TESSERA_MMX_BINARY(pand)
TESSERA_MMX_BINARY(pandn)
TESSERA_MMX_BINARY(pavgb)
TESSERA_MMX_BINARY(pavgw)
TESSERA_MMX_BINARY(pcmpeqb)
TESSERA_MMX_BINARY(pcmpeqd)
TESSERA_MMX_BINARY(pcmpeqw)
TESSERA_MMX_BINARY(pcmpgtb)
TESSERA_MMX_BINARY(pcmpgtd)
TESSERA_MMX_BINARY(pcmpgtw)
TESSERA_MMX_BINARY(phaddd)
TESSERA_MMX_BINARY(phaddsw)
TESSERA_MMX_BINARY(phaddw)
TESSERA_MMX_BINARY(phsubd)
TESSERA_MMX_BINARY(phsubsw)
TESSERA_MMX_BINARY(phsubw)
TESSERA_MMX_BINARY(pmaddubsw)
TESSERA_MMX_BINARY(pmaddwd)
TESSERA_MMX_BINARY(pmaxsw)
TESSERA_MMX_BINARY(pmaxub)
TESSERA_MMX_BINARY(pminsw)
TESSERA_MMX_BINARY(pminub)
TESSERA_MMX_BINARY(pmulhrsw)
TESSERA_MMX_BINARY(pmulhuw)
TESSERA_MMX_BINARY(pmulhw)
TESSERA_MMX_BINARY(pmullw)
TESSERA_MMX_BINARY(pmuludq)
TESSERA_MMX_BINARY(por)
TESSERA_MMX_BINARY(psadbw)
TESSERA_MMX_BINARY(pshufb)
TESSERA_MMX_BINARY(psignb)
TESSERA_MMX_BINARY(psignd)
TESSERA_MMX_BINARY(psignw)
TESSERA_MMX_BINARY(pslld)
TESSERA_MMX_BINARY(psllq)
TESSERA_MMX_BINARY(psllw)
TESSERA_MMX_BINARY(psrad)
TESSERA_MMX_BINARY(psraw)
TESSERA_MMX_BINARY(psrld)
TESSERA_MMX_BINARY(psrlq)
TESSERA_MMX_BINARY(psrlw)
TESSERA_MMX_BINARY(psubb)
TESSERA_MMX_BINARY(psubd)
TESSERA_MMX_BINARY(psubq)
TESSERA_MMX_BINARY(psubsb)
TESSERA_MMX_BINARY(psubsw)
TESSERA_MMX_BINARY(psubusb)
TESSERA_MMX_BINARY(psubusw)
TESSERA_MMX_BINARY(psubw)
TESSERA_MMX_BINARY(punpckhbw)
TESSERA_MMX_BINARY(punpckhdq)
TESSERA_MMX_BINARY(punpckhwd)
TESSERA_MMX_BINARY(pxor)
TESSERA_MMX_BINARY(punpcklbw)
TESSERA_MMX_BINARY(punpckldq)
TESSERA_MMX_BINARY(punpcklwd)
TESSERA_MMX_UNARY(pabsb)
TESSERA_MMX_UNARY(pabsd)
TESSERA_MMX_UNARY(pabsw)

constexpr auto kRows = std::to_array<MmxRow>({
    {Mnemonic::Packssdw, 8, false, packssdw},
    {Mnemonic::Packsswb, 8, false, packsswb},
    {Mnemonic::Packuswb, 8, false, packuswb},
    {Mnemonic::Paddb, 8, false, paddb},
    {Mnemonic::Paddd, 8, false, paddd},
    {Mnemonic::Paddq, 8, false, paddq},
    {Mnemonic::Paddsb, 8, false, paddsb},
    {Mnemonic::Paddsw, 8, false, paddsw},
    {Mnemonic::Paddusb, 8, false, paddusb},
    {Mnemonic::Paddusw, 8, false, paddusw},
    {Mnemonic::Paddw, 8, false, paddw},
    {Mnemonic::Pand, 8, false, pand},
    {Mnemonic::Pandn, 8, false, pandn},
    {Mnemonic::Pavgb, 8, false, pavgb},
    {Mnemonic::Pavgw, 8, false, pavgw},
    {Mnemonic::Pcmpeqb, 8, false, pcmpeqb},
    {Mnemonic::Pcmpeqd, 8, false, pcmpeqd},
    {Mnemonic::Pcmpeqw, 8, false, pcmpeqw},
    {Mnemonic::Pcmpgtb, 8, false, pcmpgtb},
    {Mnemonic::Pcmpgtd, 8, false, pcmpgtd},
    {Mnemonic::Pcmpgtw, 8, false, pcmpgtw},
    {Mnemonic::Phaddd, 8, false, phaddd},
    {Mnemonic::Phaddsw, 8, false, phaddsw},
    {Mnemonic::Phaddw, 8, false, phaddw},
    {Mnemonic::Phsubd, 8, false, phsubd},
    {Mnemonic::Phsubsw, 8, false, phsubsw},
    {Mnemonic::Phsubw, 8, false, phsubw},
    {Mnemonic::Pmaddubsw, 8, false, pmaddubsw},
    {Mnemonic::Pmaddwd, 8, false, pmaddwd},
    {Mnemonic::Pmaxsw, 8, false, pmaxsw},
    {Mnemonic::Pmaxub, 8, false, pmaxub},
    {Mnemonic::Pminsw, 8, false, pminsw},
    {Mnemonic::Pminub, 8, false, pminub},
    {Mnemonic::Pmulhrsw, 8, false, pmulhrsw},
    {Mnemonic::Pmulhuw, 8, false, pmulhuw},
    {Mnemonic::Pmulhw, 8, false, pmulhw},
    {Mnemonic::Pmullw, 8, false, pmullw},
    {Mnemonic::Pmuludq, 8, false, pmuludq},
    {Mnemonic::Por, 8, false, por},
    {Mnemonic::Psadbw, 8, false, psadbw},
    {Mnemonic::Pshufb, 8, false, pshufb},
    {Mnemonic::Psignb, 8, false, psignb},
    {Mnemonic::Psignd, 8, false, psignd},
    {Mnemonic::Psignw, 8, false, psignw},
    {Mnemonic::Pslld, 8, false, pslld},
    {Mnemonic::Psllq, 8, false, psllq},
    {Mnemonic::Psllw, 8, false, psllw},
    {Mnemonic::Psrad, 8, false, psrad},
    {Mnemonic::Psraw, 8, false, psraw},
    {Mnemonic::Psrld, 8, false, psrld},
    {Mnemonic::Psrlq, 8, false, psrlq},
    {Mnemonic::Psrlw, 8, false, psrlw},
    {Mnemonic::Psubb, 8, false, psubb},
    {Mnemonic::Psubd, 8, false, psubd},
    {Mnemonic::Psubq, 8, false, psubq},
    {Mnemonic::Psubsb, 8, false, psubsb},
    {Mnemonic::Psubsw, 8, false, psubsw},
    {Mnemonic::Psubusb, 8, false, psubusb},
    {Mnemonic::Psubusw, 8, false, psubusw},
    {Mnemonic::Psubw, 8, false, psubw},
    {Mnemonic::Punpckhbw, 8, false, punpckhbw},
    {Mnemonic::Punpckhdq, 8, false, punpckhdq},
    {Mnemonic::Punpckhwd, 8, false, punpckhwd},
    {Mnemonic::Pxor, 8, false, pxor},
    {Mnemonic::Pabsb, 8, false, pabsb},
    {Mnemonic::Pabsd, 8, false, pabsd},
    {Mnemonic::Pabsw, 8, false, pabsw},
    {Mnemonic::Punpcklbw, 4, false, punpcklbw},
    {Mnemonic::Punpckldq, 4, false, punpckldq},
    {Mnemonic::Punpcklwd, 4, false, punpcklwd},
    {Mnemonic::Pslld, 0, true, tessera_mmx_pslld},
    {Mnemonic::Psllq, 0, true, tessera_mmx_psllq},
    {Mnemonic::Psllw, 0, true, tessera_mmx_psllw},
    {Mnemonic::Psrad, 0, true, tessera_mmx_psrad},
    {Mnemonic::Psraw, 0, true, tessera_mmx_psraw},
    {Mnemonic::Psrld, 0, true, tessera_mmx_psrld},
    {Mnemonic::Psrlq, 0, true, tessera_mmx_psrlq},
    {Mnemonic::Psrlw, 0, true, tessera_mmx_psrlw},
    {Mnemonic::Pshufw, 8, true, tessera_mmx_pshufw},
    {Mnemonic::Palignr, 8, true, tessera_mmx_palignr},
});

}  // namespace

std::span<const MmxRow> mmx_rows() {
    return kRows;
}

}  // namespace tessera::soft
