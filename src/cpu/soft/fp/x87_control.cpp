// The x87 control instructions: control and status word, the environment in its four formats, FNSAVE and
// FRSTOR, WAIT.
#include <array>
#include <cstring>

#include "cpu/soft/fp/fp.h"
#include "cpu/soft/fp/x87_host.h"
#include "cpu/soft/fp/x87_lower.h"

namespace tessera::soft {

namespace {

using x86::Insn;
using x86::Mnemonic;
using x86::OperandKind;

// [SDM 1 figures 8-9 to 8-12]
enum class Format : u8 { Protected16, Real16, Protected32, Real32 };

constexpr unsigned kRegisters = 80;
template <Format F>
inline constexpr unsigned kEnvironment = F == Format::Protected16 || F == Format::Real16 ? 14 : 28;

// The words of an environment, three before the pointers and four of those.
struct Words {
    std::array<u32, 7> w{};
};

template <Format F>
void store_words(const Words& words, u8* out) {
    for (unsigned i = 0; i < 7; ++i) {
        if constexpr (kEnvironment<F> == 14) {
            const u16 word = static_cast<u16>(words.w[i]);
            std::memcpy(out + i * 2, &word, 2);
        } else {
            std::memcpy(out + i * 4, &words.w[i], 4);
        }
    }
}

template <Format F>
Words load_words(const u8* in) {
    Words words{};
    for (unsigned i = 0; i < 7; ++i) {
        if constexpr (kEnvironment<F> == 14) {
            u16 word = 0;
            std::memcpy(&word, in + i * 2, 2);
            words.w[i] = word;
        } else {
            std::memcpy(&words.w[i], in + i * 4, 4);
        }
    }
    return words;
}

template <Format F>
void set_pointers(Words& words, const x86::Fpu& fpu) {
    const u32 opcode = fpu.opcode & 0x7ffU;
    auto& w = words.w;
    if constexpr (F == Format::Protected32) {
        w[3] = static_cast<u32>(fpu.ip);
        w[4] = opcode << 16 | fpu.cs;
        w[5] = static_cast<u32>(fpu.dp);
        w[6] = 0xffff'0000U | fpu.ds;
    } else if constexpr (F == Format::Protected16) {
        w[3] = static_cast<u32>(fpu.ip);
        w[4] = fpu.cs;
        w[5] = static_cast<u32>(fpu.dp);
        w[6] = fpu.ds;
    } else {
        const u32 ip = static_cast<u32>(fpu.ip) + (static_cast<u32>(fpu.cs) << 4);
        const u32 dp = static_cast<u32>(fpu.dp) + (static_cast<u32>(fpu.ds) << 4);
        if constexpr (F == Format::Real32) {
            w[3] = 0xffff'0000U | (ip & 0xffff);
            w[4] = ip >> 16 << 12 | opcode;
            w[5] = 0xffff'0000U | (dp & 0xffff);
            w[6] = dp >> 16 << 12;
        } else {
            w[3] = ip & 0xffff;
            w[4] = (ip >> 16 & 0xf) << 12 | opcode;
            w[5] = dp & 0xffff;
            w[6] = (dp >> 16 & 0xf) << 12;
        }
    }
}

// The real-mode formats hold linear addresses: they come back with selectors of zero.
template <Format F>
void get_pointers(const Words& words, x86::Fpu& fpu) {
    const auto& w = words.w;
    if constexpr (F == Format::Protected32 || F == Format::Protected16) {
        fpu.ip = w[3];
        fpu.cs = static_cast<u16>(w[4]);
        fpu.dp = w[5];
        fpu.ds = static_cast<u16>(w[6]);
        fpu.opcode = F == Format::Protected32 ? static_cast<u16>(w[4] >> 16 & 0x7ff) : 0;
    } else {
        const u32 high = F == Format::Real32 ? 0xffff : 0xf;
        fpu.ip = (w[3] & 0xffff) | (w[4] >> 12 & high) << 16;
        fpu.dp = (w[5] & 0xffff) | (w[6] >> 12 & high) << 16;
        fpu.opcode = w[4] & 0x7ff;
        fpu.cs = fpu.ds = 0;
    }
}

template <Format F>
Words environment_of(Vcpu& c) {
    // The tags come from the registers' contents, as only the host computes them.
    if (!c.x87_live) x87_load(c);
    HostEnvironment host{};
    asm volatile("fnstenv %0" : "=m"(host));
    Words words{};
    words.w[0] = 0xffff'0000U | c.fpu.control;
    words.w[1] = 0xffff'0000U | x87_status_of(static_cast<u16>(host.status), c.fpu.control);
    words.w[2] = 0xffff'0000U | (host.tag & 0xffff);
    set_pointers<F>(words, c.fpu);
    return words;
}

template <Format F>
void fnstenv(Vcpu& c, const Op& op) {
    x87_begin_no_wait(c);
    constexpr unsigned kSize = kEnvironment<F>;
    const u64 lin = linear(c, op, kSize, Access::Write);
    check_writable<kSize>(c, lin, op.seg);
    std::array<u8, kSize> image{};
    store_words<F>(environment_of<F>(c), image.data());
    store_bytes<kSize>(c, lin, image.data(), op.seg);
    x87_set_control(c, c.fpu.control | kX87Masks);
}

template <Format F>
void fnsave(Vcpu& c, const Op& op) {
    x87_begin_no_wait(c);
    constexpr unsigned kSize = kEnvironment<F> + kRegisters;
    const u64 lin = linear(c, op, kSize, Access::Write);
    check_writable<kSize>(c, lin, op.seg);
    std::array<u8, kSize> image{};
    store_words<F>(environment_of<F>(c), image.data());
    x87_save(c);
    std::memcpy(image.data() + kEnvironment<F>, c.fpu.st.data(), kRegisters);
    store_bytes<kSize>(c, lin, image.data(), op.seg);
    x87_init(c);
}

// The waiting instructions check for #MF before anything else, but do not need the state to be live.
void begin_wait(Vcpu& c) {
    x87_begin_no_wait(c);
    if ((c.fp_traps & kTrapX87Unmasked) != 0 && x87_pending(c)) raise_x87_error(c);
}

// The host (AMD family 1Ah) looks at the control word and the last byte before it reads: a fault in the
// second page is reported at the last byte.
template <unsigned Size>
u64 readable(Vcpu& c, const Op& op) {
    const u64 lin = linear(c, op, Size, Access::Read);
    probe(c, lin, 4, Access::Read, op.seg);
    probe(c, lin + Size - 1, 1, Access::Read, op.seg);
    return lin;
}

template <Format F>
void fldenv(Vcpu& c, const Op& op) {
    begin_wait(c);
    constexpr unsigned kSize = kEnvironment<F>;
    std::array<u8, kSize> image{};
    load_bytes<kSize>(c, readable<kSize>(c, op), image.data(), op.seg);
    const Words words = load_words<F>(image.data());
    if (!c.x87_live) x87_load(c);
    // Through the host, which keeps the registers where they are while TOP changes.
    HostEnvironment host{};
    host.control = words.w[0] | kX87Masks;
    host.status = words.w[1];
    host.tag = words.w[2];
    asm volatile("fldenv %0" : : "m"(host));
    get_pointers<F>(words, c.fpu);
    x87_set_control(c, static_cast<u16>(words.w[0]));
}

template <Format F>
void frstor(Vcpu& c, const Op& op) {
    begin_wait(c);
    constexpr unsigned kSize = kEnvironment<F> + kRegisters;
    std::array<u8, kSize> image{};
    load_bytes<kSize>(c, readable<kSize>(c, op), image.data(), op.seg);
    const Words words = load_words<F>(image.data());
    x87_save(c);
    c.fpu.status = static_cast<u16>(words.w[1]);
    c.fpu.tag = static_cast<u16>(words.w[2]);
    std::memcpy(c.fpu.st.data(), image.data() + kEnvironment<F>, kRegisters);
    get_pointers<F>(words, c.fpu);
    x87_set_control(c, static_cast<u16>(words.w[0]));
}

// The format depends on the mode, which may change under a block: each of these chooses when it runs.
template <template <Format> class What>
void by_mode(Vcpu& c, const Op& op) {
    const bool real = !c.protected_mode() || c.v8086();
    if ((op.flags & kOperandHint) != 0)
        real ? What<Format::Real16>::run(c, op) : What<Format::Protected16>::run(c, op);
    else
        real ? What<Format::Real32>::run(c, op) : What<Format::Protected32>::run(c, op);
}
template <Format F>
struct Fnstenv {
    static void run(Vcpu& c, const Op& op) { fnstenv<F>(c, op); }
};
template <Format F>
struct Fnsave {
    static void run(Vcpu& c, const Op& op) { fnsave<F>(c, op); }
};
template <Format F>
struct Fldenv {
    static void run(Vcpu& c, const Op& op) { fldenv<F>(c, op); }
};
template <Format F>
struct Frstor {
    static void run(Vcpu& c, const Op& op) { frstor<F>(c, op); }
};

void fninit(Vcpu& c, const Op& /*op*/) {
    x87_begin_no_wait(c);
    x87_init(c);
}

void fnclex(Vcpu& c, const Op& /*op*/) {
    x87_begin_no_wait(c);
    x87_clear_exceptions(c);
}

// FNENI, FNDISI and FNSETPM mean nothing since the 387.
void no_operation(Vcpu& c, const Op& /*op*/) {
    x87_begin_no_wait(c);
}

void fldcw(Vcpu& c, const Op& op) {
    begin_wait(c);
    x87_set_control(c, load<u16>(c, linear(c, op, 2, Access::Read), op.seg));
}

void fnstcw(Vcpu& c, const Op& op) {
    x87_begin_no_wait(c);
    store<u16>(c, linear(c, op, 2, Access::Write), c.fpu.control, op.seg);
}

void fnstsw_memory(Vcpu& c, const Op& op) {
    x87_begin_no_wait(c);
    store<u16>(c, linear(c, op, 2, Access::Write), x87_status(c), op.seg);
}

void fnstsw_ax(Vcpu& c, const Op& /*op*/) {
    x87_begin_no_wait(c);
    gpr_at<u16>(c, 0) = x87_status(c);
}

// CR0.TS stops WAIT only together with MP, and EM does not [SDM 3A 2.5].
void fwait(Vcpu& c, const Op& /*op*/) {
    if ((c.fp_traps & kTrapWait) != 0) raise(c, x86::kNm);
    if ((c.fp_traps & kTrapX87Unmasked) != 0 && x87_pending(c)) raise_x87_error(c);
}

}  // namespace

bool lower_x87_control(const Insn& in, Op& op) {
    if (in.operand_size == 2) op.flags |= kOperandHint;
    switch (in.mnemonic) {
        case Mnemonic::Fninit: op.fn = continue_with<fninit>; return true;
        case Mnemonic::Fnclex: op.fn = continue_with<fnclex>; return true;
        case Mnemonic::Fneni:
        case Mnemonic::Fndisi:
        case Mnemonic::Fnsetpm: op.fn = continue_with<no_operation>; return true;
        case Mnemonic::Fldcw: op.fn = continue_with<fldcw>; return true;
        case Mnemonic::Fnstcw: op.fn = continue_with<fnstcw>; return true;
        case Mnemonic::Fnstsw:
            op.fn = in.is(0, OperandKind::Memory) ? continue_with<fnstsw_memory> : continue_with<fnstsw_ax>;
            return true;
        case Mnemonic::Fldenv: op.fn = continue_with<by_mode<Fldenv>>; return true;
        case Mnemonic::Fnstenv: op.fn = continue_with<by_mode<Fnstenv>>; return true;
        case Mnemonic::Fnsave: op.fn = continue_with<by_mode<Fnsave>>; return true;
        case Mnemonic::Frstor: op.fn = continue_with<by_mode<Frstor>>; return true;
        case Mnemonic::Fwait: op.fn = continue_with<fwait>; return true;
        default: return false;
    }
}

}  // namespace tessera::soft
