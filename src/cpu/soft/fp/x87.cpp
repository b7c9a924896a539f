// The x87 instructions that compute, load and store; x87_control.cpp has those that handle the environment.
#include <bit>

#include "cpu/soft/fp/vector_access.h"
#include "cpu/soft/fp/x87_host.h"
#include "cpu/soft/fp/x87_lower.h"
#include "cpu/soft/lower.h"

// Every register form D8-DF C0-FF, as a function of four bytes. The first has no flags to care for.
extern "C" [[gnu::visibility("hidden")]] void tessera_x87_register();
asm(".pushsection .text\n\t.p2align 4\ntessera_x87_register:\n\t"
    ".set ESC, 0\n\t.rept 8\n\t.set NUM, 0\n\t.rept 64\n\t"
    ".p2align 2\n\t.byte 0xd8 + ESC, 0xc0 + NUM\n\tret\n\t"
    ".set NUM, NUM + 1\n\t.endr\n\t.set ESC, ESC + 1\n\t.endr\n\t.popsection");
// The same of sixteen bytes, between loading the status flags from EDI (as Vcpu::status has them) and
// returning them.
extern "C" [[gnu::visibility("hidden")]] unsigned tessera_x87_flags(unsigned status);
asm(".pushsection .text\n\t.p2align 4\ntessera_x87_flags:\n\t"
    ".set ESC, 0\n\t.rept 8\n\t.set NUM, 0\n\t.rept 64\n\t"
    ".p2align 4\n\tmovl %edi, %eax\n\taddb $0x7f, %al\n\tsahf\n\t.byte 0xd8 + ESC, 0xc0 + NUM\n\t"
    "lahf\n\tseto %al\n\tret\n\t"
    ".set NUM, NUM + 1\n\t.endr\n\t.set ESC, ESC + 1\n\t.endr\n\t.popsection");
// Every memory form D8-DF /0-/7 with the operand at RDI.
extern "C" [[gnu::visibility("hidden")]] void tessera_x87_memory(void* operand);
asm(".pushsection .text\n\t.p2align 4\ntessera_x87_memory:\n\t"
    ".set ESC, 0\n\t.rept 8\n\t.set NUM, 0\n\t.rept 8\n\t"
    ".p2align 2\n\t.byte 0xd8 + ESC, 0x07 + 8 * NUM\n\tret\n\t"
    ".set NUM, NUM + 1\n\t.endr\n\t.set ESC, ESC + 1\n\t.endr\n\t.popsection");

namespace tessera::soft {

namespace {

using x86::Insn;
using x86::Mnemonic;

// Op::imm is the function. Nothing is on the stack: a handler has no frame that a sanitizer could check.
TESSERA_HANDLER void run_register(Vcpu& c, const Op* op) {
    c.cur = op;
    x87_begin(c);
    x87_open(c);
    std::bit_cast<void (*)()>(op->imm)();
    (void)x87_close(c);
    x87_record(c, *op);
    TESSERA_NEXT(c, op);
}

TESSERA_HANDLER void run_flags(Vcpu& c, const Op* op) {
    c.cur = op;
    x87_begin(c);
    x87_open(c);
    c.status = static_cast<u16>(std::bit_cast<unsigned (*)(unsigned)>(op->imm)(c.status));
    (void)x87_close(c);
    x87_record(c, *op);
    TESSERA_NEXT(c, op);
}

template <unsigned Size>
TESSERA_HANDLER void run_load(Vcpu& c, const Op* op) {
    c.cur = op;
    x87_begin(c);
    const void* operand = read_pointer<Size>(c, linear(c, *op, Size, Access::Read), op->seg);
    x87_open(c);
    std::bit_cast<void (*)(const void*)>(op->imm)(operand);
    (void)x87_close(c);
    x87_record_operand(c, *op);
    TESSERA_NEXT(c, op);
}

template <unsigned Size>
TESSERA_HANDLER void run_store(Vcpu& c, const Op* op) {
    c.cur = op;
    x87_begin(c);
    const u64 lin = linear(c, *op, Size, Access::Write);
    // The instruction pops: nothing may fault after it.
    check_writable<Size>(c, lin, op->seg);
    u8* const operand = c.fp_scratch.data();
    x87_open(c);
    std::bit_cast<void (*)(void*)>(op->imm)(operand);
    const u16 raised = x87_close(c);
    if ((raised & kX87NoStore) == 0) [[likely]]
        store_bytes<Size>(c, lin, operand, op->seg);
    x87_record_operand(c, *op);
    TESSERA_NEXT(c, op);
}

Handler load_handler(unsigned size) {
    switch (size) {
        case 2: return run_load<2>;
        case 4: return run_load<4>;
        case 8: return run_load<8>;
        case 10: return run_load<10>;
        default: return nullptr;
    }
}
Handler store_handler(unsigned size) {
    switch (size) {
        case 2: return run_store<2>;
        case 4: return run_store<4>;
        case 8: return run_store<8>;
        case 10: return run_store<10>;
        default: return nullptr;
    }
}

// Bytes of the memory operand of D8+escape /reg, for other than the control instructions [SDM 2D A.5.2].
unsigned memory_size(unsigned escape, unsigned reg) {
    switch (escape) {
        case 0: return 4;
        case 1: return 4;
        case 2: return 4;
        case 3: return reg == 5 || reg == 7 ? 10 : 4;
        case 4: return 8;
        case 5: return 8;
        case 6: return 2;
        default: return reg == 4 || reg == 6 ? 10 : reg == 5 || reg == 7 ? 8 : 2;
    }
}

bool is_store(Mnemonic mnemonic) {
    switch (mnemonic) {
        case Mnemonic::Fst:
        case Mnemonic::Fstp:
        case Mnemonic::Fist:
        case Mnemonic::Fistp:
        case Mnemonic::Fisttp:
        case Mnemonic::Fbstp: return true;
        default: return false;
    }
}

bool uses_flags(Mnemonic mnemonic) {
    switch (mnemonic) {
        case Mnemonic::Fcmovcc:
        case Mnemonic::Fcomi:
        case Mnemonic::Fcomip:
        case Mnemonic::Fucomi:
        case Mnemonic::Fucomip: return true;
        default: return false;
    }
}

}  // namespace

bool lower_x87(const Insn& in, Op& op, bool* /*ends_block*/) {
    if (lower_x87_control(in, op)) return true;
    if (in.opcode < 0xd8 || in.opcode > 0xdf) return false;
    const unsigned escape = in.opcode & 7U;
    const unsigned reg = (in.modrm >> 3) & 7U;
    op.r1 = in.modrm;
    op.r2 = static_cast<u8>(escape);
    if (in.modrm < 0xc0) {
        op.imm = reinterpret_cast<u64>(&tessera_x87_memory) + (escape * 8 + reg) * 4;
        const unsigned size = memory_size(escape, reg);
        op.fn = is_store(in.mnemonic) ? store_handler(size) : load_handler(size);
        return true;
    }
    const unsigned number = escape * 64 + (in.modrm & 0x3fU);
    if (uses_flags(in.mnemonic)) {
        op.imm = reinterpret_cast<u64>(&tessera_x87_flags) + number * 16;
        op.fn = run_flags;
    } else {
        op.imm = reinterpret_cast<u64>(&tessera_x87_register) + number * 4;
        op.fn = run_register;
    }
    return true;
}

}  // namespace tessera::soft
