// FXSAVE, FXRSTOR, the XSAVE family, XGETBV and XSETBV.
//
// XCR0 offers x87, SSE and AVX; IA32_XSS offers nothing, so XSAVES differs from XSAVEC by privilege alone.
// The AVX component stands at the same place in the standard and the compacted format. There is no modified
// optimisation: XSAVEOPT and XSAVES write every component that is in use.
#include <cstring>

#include "cpu/soft/fp/fp.h"
#include "cpu/soft/fp/vector_access.h"
#include "cpu/soft/fp/x87_host.h"
#include "cpu/soft/fp/xstate_image.h"
#include "cpu/soft/lower.h"

namespace tessera::soft {

namespace {

using x86::Insn;
using x86::InsnFlag;
using x86::Mnemonic;

constexpr u32 kMxcsrInitial = 0x1f80;

// REX.W: the 64-bit form.
Pointers pointers_of(const Op& op) {
    return (op.flags & kOperandHint) != 0 ? Pointers::Wide : Pointers::WithSelectors;
}

// Outside 64-bit mode only eight registers are there to be saved.
constexpr unsigned kRegisters64 = 16, kRegisters32 = 8;

void store_x87(Vcpu& c, const Op& op, u64 lin) {
    X87Image head{};
    StImage registers{};
    put_x87(c.fpu, pointers_of(op), head, registers);
    store_bytes<kImageX87Size>(c, lin + kImageX87, head.data(), op.seg);
    store_bytes<kImageStSize>(c, lin + kImageSt, registers.data(), op.seg);
}

void store_mxcsr(Vcpu& c, u64 lin, u8 seg) {
    store<u64>(c, lin + kImageMxcsr, u64{kMxcsrValid} << 32 | c.mxcsr, seg);
}

// Lanes `lane` and lane + 1 of each register, which is SSE or AVX state.
template <unsigned Count>
void store_lanes(Vcpu& c, u64 lin, unsigned lane, u8 seg) {
    std::array<u64, Count * 2> out{};
    for (unsigned i = 0; i < Count; ++i) {
        out[i * 2] = c.ymm[i][lane];
        out[i * 2 + 1] = c.ymm[i][lane + 1];
    }
    store_bytes<Count * 16>(c, lin, out.data(), seg);
}
void store_vectors(Vcpu& c, u64 lin, unsigned lane, u8 seg) {
    c.code64() ? store_lanes<kRegisters64>(c, lin, lane, seg) : store_lanes<kRegisters32>(c, lin, lane, seg);
}

// What an image holds, read before any of it is used.
struct Image {
    X87Image x87{};
    StImage st{};
    u32 mxcsr = kMxcsrInitial;
    std::array<u64, 32> xmm{};
    std::array<u64, 32> ymm{};
};

void load_vectors(Vcpu& c, u64 lin, std::array<u64, 32>& out, u8 seg) {
    if (c.code64())
        load_bytes<kRegisters64 * 16>(c, lin, out.data(), seg);
    else
        load_bytes<kRegisters32 * 16>(c, lin, out.data(), seg);
}
void take_vectors(Vcpu& c, const std::array<u64, 32>& in, unsigned lane) {
    for (unsigned i = 0; i < (c.code64() ? kRegisters64 : kRegisters32); ++i) {
        c.ymm[i][lane] = in[i * 2];
        c.ymm[i][lane + 1] = in[i * 2 + 1];
    }
}

u32 load_valid_mxcsr(Vcpu& c, u64 lin, u8 seg) {
    const u32 value = load<u32>(c, lin + kImageMxcsr, seg);
    if ((value & ~kMxcsrValid) != 0) raise_gp0(c);
    return value;
}

void set_mxcsr(Vcpu& c, u32 value) {
    c.mxcsr = value;
    load_mxcsr(c);
}

// --- FXSAVE and FXRSTOR [SDM 1 10.5]. They look at neither CR4.OSFXSR nor pending exceptions. The error
// pointers are always saved and restored, as CPUID Fn8000_0008_EBX bit 2 (RstrFpErrPtrs) says [APM
// 2 11.4.4.3].

u64 fx_address(Vcpu& c, const Op& op, Access access) {
    x87_begin_no_wait(c);
    const u64 lin = linear(c, op, kImageLegacy, access);
    if ((lin & 15) != 0) raise_gp0(c);
    return lin;
}

void fxsave(Vcpu& c, const Op& op) {
    const u64 lin = fx_address(c, op, Access::Write);
    probe(c, lin, kImageLegacy, Access::Write, op.seg);
    fp_sync(c);
    store_x87(c, op, lin);
    store_mxcsr(c, lin, op.seg);
    store_vectors(c, lin + kImageXmm, 0, op.seg);
}

void fxrstor(Vcpu& c, const Op& op) {
    const u64 lin = fx_address(c, op, Access::Read);
    probe(c, lin, kImageLegacy, Access::Read, op.seg);
    Image image{};
    image.mxcsr = load_valid_mxcsr(c, lin, op.seg);
    load_bytes<kImageX87Size>(c, lin, image.x87.data(), op.seg);
    load_bytes<kImageStSize>(c, lin + kImageSt, image.st.data(), op.seg);
    load_vectors(c, lin + kImageXmm, image.xmm, op.seg);
    x87_save(c);
    take_x87(c, pointers_of(op), image.x87, image.st);
    take_vectors(c, image.xmm, 0);
    set_mxcsr(c, image.mxcsr);
    update_fp_enables(c);
}

// --- XSAVE and its kin [SDM 1 13.7-13.13]

enum class Save : u8 { Plain, Optimised, Compacted, Supervisor };

void check_xsave(Vcpu& c) {
    if ((c.cr4 & x86::cr4::kOsxsave) == 0) raise_ud(c);
    if ((c.cr0 & x86::cr0::kTs) != 0) raise(c, x86::kNm);
}

u64 requested(const Vcpu& c) {
    return c.xcr0 & (c.reg[x86::Rdx] << 32 | static_cast<u32>(c.reg[x86::Rax]));
}

u64 xsave_address(Vcpu& c, const Op& op, u64 components, Access access) {
    const unsigned size = (components & xcr0::kAvx) != 0 ? kImageEnd : kImageYmm;
    const u64 lin = linear(c, op, size, access);
    if ((lin & 63) != 0) raise_gp0(c);
    probe(c, lin, size, access, op.seg);
    return lin;
}

template <Save Kind>
void xsave(Vcpu& c, const Op& op) {
    check_xsave(c);
    if (Kind == Save::Supervisor && c.cpl != 0) raise_gp0(c);
    constexpr bool kCompact = Kind == Save::Compacted || Kind == Save::Supervisor;
    const u64 wanted = requested(c);
    fp_sync(c);
    u64 used = components_in_use(c) & wanted;
    // In the compacted format MXCSR belongs to the SSE component alone.
    if (kCompact && c.mxcsr != kMxcsrInitial) used |= wanted & xcr0::kSse;
    const u64 written = Kind == Save::Plain ? wanted : used;
    const u64 lin = xsave_address(c, op, written, Access::Write);

    if ((written & xcr0::kX87) != 0) store_x87(c, op, lin);
    const u64 with_mxcsr = kCompact ? written & xcr0::kSse : wanted & (xcr0::kSse | xcr0::kAvx);
    if (with_mxcsr != 0) store_mxcsr(c, lin, op.seg);
    if ((written & xcr0::kSse) != 0) store_vectors(c, lin + kImageXmm, 0, op.seg);
    if ((written & xcr0::kAvx) != 0) store_vectors(c, lin + kImageYmm, 2, op.seg);
    u64 in_image = used;
    if (!kCompact) in_image |= load<u64>(c, lin + kImageHeader, op.seg) & ~wanted;
    store<u64>(c, lin + kImageHeader, in_image, op.seg);
    if (kCompact) store<u64>(c, lin + kImageHeader + 8, kCompacted | wanted, op.seg);
}

// Which components the image at lin holds; #GP(0) for a header that is not as it must be [SDM 1 13.8, 13.12].
struct Header {
    u64 present = 0;
    bool compacted = false;
};
Header check_header(Vcpu& c, u64 lin, u8 seg, bool must_be_compacted) {
    std::array<u64, kImageHeaderSize / 8> words{};
    load_bytes<kImageHeaderSize>(c, lin + kImageHeader, words.data(), seg);
    const Header header{.present = words[0], .compacted = (words[1] & kCompacted) != 0};
    if (!header.compacted) {
        if (must_be_compacted) raise_gp0(c);
        if ((header.present & ~c.xcr0) != 0 || words[1] != 0 || words[2] != 0) raise_gp0(c);
        return header;
    }
    const u64 format = words[1] & ~kCompacted;
    if ((format & ~c.xcr0) != 0 || (header.present & ~format) != 0) raise_gp0(c);
    for (unsigned i = 2; i < words.size(); ++i)
        if (words[i] != 0) raise_gp0(c);
    return header;
}

template <Save Kind>
void xrstor(Vcpu& c, const Op& op) {
    check_xsave(c);
    if (Kind == Save::Supervisor && c.cpl != 0) raise_gp0(c);
    const u64 wanted = requested(c);
    const u64 lin = xsave_address(c, op, 0, Access::Read);
    const Header header = check_header(c, lin, op.seg, Kind == Save::Supervisor);
    const u64 from_image = wanted & header.present;

    Image image{};
    const u64 with_mxcsr = header.compacted ? from_image & xcr0::kSse : wanted & (xcr0::kSse | xcr0::kAvx);
    if (with_mxcsr != 0) image.mxcsr = load_valid_mxcsr(c, lin, op.seg);
    if ((from_image & xcr0::kX87) != 0) {
        load_bytes<kImageX87Size>(c, lin, image.x87.data(), op.seg);
        load_bytes<kImageStSize>(c, lin + kImageSt, image.st.data(), op.seg);
    }
    if ((from_image & xcr0::kSse) != 0) load_vectors(c, lin + kImageXmm, image.xmm, op.seg);
    if ((from_image & xcr0::kAvx) != 0) {
        (void)linear(c, op, kImageEnd, Access::Read);
        load_vectors(c, lin + kImageYmm, image.ymm, op.seg);
    }

    if ((wanted & xcr0::kX87) != 0) {
        x87_save(c);
        if ((from_image & xcr0::kX87) != 0)
            take_x87(c, pointers_of(op), image.x87, image.st);
        else
            init_x87(c);
    }
    if ((wanted & xcr0::kSse) != 0) take_vectors(c, image.xmm, 0);
    if ((wanted & xcr0::kAvx) != 0) take_vectors(c, image.ymm, 2);
    if (with_mxcsr != 0 || (header.compacted && (wanted & xcr0::kSse) != 0)) set_mxcsr(c, image.mxcsr);
    update_fp_enables(c);
}

void set_edx_eax(Vcpu& c, u64 value) {
    c.reg[x86::Rax] = static_cast<u32>(value);
    c.reg[x86::Rdx] = value >> 32;
}

void xgetbv(Vcpu& c, const Op& /*op*/) {
    if ((c.cr4 & x86::cr4::kOsxsave) == 0) raise_ud(c);
    switch (static_cast<u32>(c.reg[x86::Rcx])) {
        case 0: set_edx_eax(c, c.xcr0); return;
        case 1:
            fp_sync(c);
            set_edx_eax(c, c.xcr0 & (components_in_use(c) | (c.mxcsr != kMxcsrInitial ? xcr0::kSse : 0)));
            return;
        default: raise_gp0(c);
    }
}

void xsetbv(Vcpu& c, const Op& /*op*/) {
    if ((c.cr4 & x86::cr4::kOsxsave) == 0) raise_ud(c);
    const u64 value = c.reg[x86::Rdx] << 32 | static_cast<u32>(c.reg[x86::Rax]);
    if (c.cpl != 0 || static_cast<u32>(c.reg[x86::Rcx]) != 0) raise_gp0(c);
    if ((value & ~xcr0::kOffered) != 0 || (value & xcr0::kX87) == 0) raise_gp0(c);
    if ((value & xcr0::kAvx) != 0 && (value & xcr0::kSse) == 0) raise_gp0(c);
    c.xcr0 = value;
    update_fp_enables(c);
}

}  // namespace

bool lower_xstate(const Insn& in, Op& op, bool* /*ends_block*/) {
    if (in.has(InsnFlag::RexW)) op.flags |= kOperandHint;
    switch (in.mnemonic) {
        case Mnemonic::Fxsave: op.fn = continue_with<fxsave>; return true;
        case Mnemonic::Fxrstor: op.fn = continue_with<fxrstor>; return true;
        case Mnemonic::Xsave: op.fn = continue_with<xsave<Save::Plain>>; return true;
        case Mnemonic::Xsaveopt: op.fn = continue_with<xsave<Save::Optimised>>; return true;
        case Mnemonic::Xsavec: op.fn = continue_with<xsave<Save::Compacted>>; return true;
        case Mnemonic::Xsaves: op.fn = continue_with<xsave<Save::Supervisor>>; return true;
        case Mnemonic::Xrstor: op.fn = continue_with<xrstor<Save::Plain>>; return true;
        case Mnemonic::Xrstors: op.fn = continue_with<xrstor<Save::Supervisor>>; return true;
        case Mnemonic::Xgetbv: op.fn = continue_with<xgetbv>; return true;
        case Mnemonic::Xsetbv: op.fn = continue_with<xsetbv>; return true;
        default: return false;
    }
}

}  // namespace tessera::soft
