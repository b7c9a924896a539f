// The opcodes after 0F 38 and 0F 3A, without VEX [SDM 2D tables ].
#include "cpu/x86/decode/row.h"

namespace tessera::x86::tables {

namespace {

using enum Mnemonic;

// clang-format off

// An SSSE3 instruction on MM and on XMM registers.
#define MMX(op, id)              \
    {op, "np", id, "P8 Q8"},       \
    {op, "66", id, "V16 W16"}

#define SSE(op, id) {op, "66", id, "V16 W16"}
#define SSE_IMM(op, id) {op, "66", id, "V16 W16 Ib"}
#define SHA(op, id) {op, "np", id, "V16 W16"}

constexpr Row kRows38[] = {
    MMX(0x00, Pshufb),
    MMX(0x01, Phaddw),
    MMX(0x02, Phaddd),
    MMX(0x03, Phaddsw),
    MMX(0x04, Pmaddubsw),
    MMX(0x05, Phsubw),
    MMX(0x06, Phsubd),
    MMX(0x07, Phsubsw),
    MMX(0x08, Psignb),
    MMX(0x09, Psignw),
    MMX(0x0a, Psignd),
    MMX(0x0b, Pmulhrsw),
    {0x10, "66", Pblendvb, "V16 W16 xmm0"},
    {0x14, "66", Blendvps, "V16 W16 xmm0"},
    {0x15, "66", Blendvpd, "V16 W16 xmm0"},
    {0x17, "66", Ptest, "V16 W16", "w oszapc"},
    MMX(0x1c, Pabsb),
    MMX(0x1d, Pabsw),
    MMX(0x1e, Pabsd),
    {0x20, "66", Pmovsxbw, "V16 W8"},
    {0x21, "66", Pmovsxbd, "V16 W4"},
    {0x22, "66", Pmovsxbq, "V16 W2"},
    {0x23, "66", Pmovsxwd, "V16 W8"},
    {0x24, "66", Pmovsxwq, "V16 W4"},
    {0x25, "66", Pmovsxdq, "V16 W8"},
    SSE(0x28, Pmuldq),
    SSE(0x29, Pcmpeqq),
    {0x2a, "66", Movntdqa, "V16 M16"},
    SSE(0x2b, Packusdw),
    {0x30, "66", Pmovzxbw, "V16 W8"},
    {0x31, "66", Pmovzxbd, "V16 W4"},
    {0x32, "66", Pmovzxbq, "V16 W2"},
    {0x33, "66", Pmovzxwd, "V16 W8"},
    {0x34, "66", Pmovzxwq, "V16 W4"},
    {0x35, "66", Pmovzxdq, "V16 W8"},
    SSE(0x37, Pcmpgtq),
    SSE(0x38, Pminsb),
    SSE(0x39, Pminsd),
    SSE(0x3a, Pminuw),
    SSE(0x3b, Pminud),
    SSE(0x3c, Pmaxsb),
    SSE(0x3d, Pmaxsd),
    SSE(0x3e, Pmaxuw),
    SSE(0x3f, Pmaxud),
    SSE(0x40, Pmulld),
    SSE(0x41, Phminposuw),
    {0x82, "66 nat", Invpcid, "Gv M16"},
    SHA(0xc8, Sha1nexte),
    SHA(0xc9, Sha1msg1),
    SHA(0xca, Sha1msg2),
    {0xcb, "np", Sha256rnds2, "V16 W16 xmm0"},
    SHA(0xcc, Sha256msg1),
    SHA(0xcd, Sha256msg2),
    SSE(0xdb, Aesimc),
    SSE(0xdc, Aesenc),
    SSE(0xdd, Aesenclast),
    SSE(0xde, Aesdec),
    SSE(0xdf, Aesdeclast),
    {0xf0, "nr", Movbe, "Gv Mv"},
    {0xf0, "f2 y", Crc32, "Gy Eb"},
    {0xf1, "nr", Movbe, "Mv Gv"},
    {0xf1, "f2", Crc32, "Gcrc Ev"},
    {0xf6, "66 y", Adcx, "Gy Ey", "r c w c"},
    {0xf6, "f3 y", Adox, "Gy Ey", "r o w o"},
};

constexpr Row kRows3a[] = {
    SSE_IMM(0x08, Roundps),
    SSE_IMM(0x09, Roundpd),
    {0x0a, "66", Roundss, "V4 W4 Ib"},
    {0x0b, "66", Roundsd, "V8 W8 Ib"},
    SSE_IMM(0x0c, Blendps),
    SSE_IMM(0x0d, Blendpd),
    SSE_IMM(0x0e, Pblendw),
    {0x0f, "np", Palignr, "P8 Q8 Ib"},
    {0x0f, "66", Palignr, "V16 W16 Ib"},
    {0x14, "66", Pextrb, "Rd V16 Ib"},
    {0x14, "66", Pextrb, "Mb V16 Ib"},
    {0x15, "66", Pextrw, "Rd V16 Ib"},
    {0x15, "66", Pextrw, "Mw V16 Ib"},
    {0x16, "66 w0", Pextrd, "Ed V16 Ib"},
    {0x16, "66 w1", Pextrq, "Eq V16 Ib"},
    {0x17, "66", Extractps, "Ed V16 Ib"},
    {0x20, "66", Pinsrb, "V16 Rd Ib"},
    {0x20, "66", Pinsrb, "V16 Mb Ib"},
    {0x21, "66", Insertps, "V16 U16 Ib"},
    {0x21, "66", Insertps, "V16 M4 Ib"},
    {0x22, "66 w0", Pinsrd, "V16 Ed Ib"},
    {0x22, "66 w1", Pinsrq, "V16 Eq Ib"},
    SSE_IMM(0x40, Dpps),
    SSE_IMM(0x41, Dppd),
    SSE_IMM(0x42, Mpsadbw),
    SSE_IMM(0x44, Pclmulqdq),
    {0x60, "66", Pcmpestrm, "V16 W16 Ib", "w oszapc"},
    {0x61, "66", Pcmpestri, "V16 W16 Ib", "w oszapc"},
    {0x62, "66", Pcmpistrm, "V16 W16 Ib", "w oszapc"},
    {0x63, "66", Pcmpistri, "V16 W16 Ib", "w oszapc"},
    {0xcc, "np", Sha1rnds4, "V16 W16 Ib"},
    {0xdf, "66", Aeskeygenassist, "V16 W16 Ib"},
};

// clang-format on

#undef MMX
#undef SSE
#undef SSE_IMM
#undef SHA

constexpr IndexedRows kIndexed38(kRows38);
constexpr IndexedRows kIndexed3a(kRows3a);

}  // namespace

constinit const OpcodeMap three_byte38_map = kIndexed38.map();
constinit const OpcodeMap three_byte3a_map = kIndexed3a.map();

}  // namespace tessera::x86::tables
