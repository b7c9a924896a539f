#include "cpu/soft/jit/select.h"

namespace tessera::soft::jit {

namespace {

using x86::Insn;
using x86::InsnClass;
using x86::InsnFlag;
using x86::Mnemonic;
using x86::OperandKind;

[[nodiscard]] bool has_kind(const Insn& in, OperandKind kind) {
    for (unsigned i = 0; i < in.operand_count; ++i)
        if (in.is(i, kind)) return true;
    return false;
}
[[nodiscard]] bool has_gpr(const Insn& in) {
    return has_kind(in, OperandKind::Gpr) || has_kind(in, OperandKind::GprHigh);
}

// ModRM.reg of these is an integer register, of the others /n (or a vector register).
[[nodiscard]] bool reg_is_gpr(const Insn& in) {
    const u8 o = in.opcode;
    if (in.insn_class == InsnClass::Vector)
        return in.map == 1 && (o == 0x2c || o == 0x2d || o == 0x50 || o == 0xd7 || o == 0xc5);
    switch (in.map) {
        case 0:
            return o < 0x40 || o == 0x63 || o == 0x69 || o == 0x6b || (o >= 0x84 && o <= 0x8b) || o == 0x8d;
        case 1: return !(o >= 0x90 && o <= 0x9f) && o != 0xba && o != 0xc7 && o != 0x01 && o != 0xae;
        case 2: return o != 0xf3;
        default: return true;
    }
}

[[nodiscard]] bool integer_copyable(const Insn& in) {
    switch (in.mnemonic) {
        case Mnemonic::Adc:
        case Mnemonic::Adcx:
        case Mnemonic::Add:
        case Mnemonic::Adox:
        case Mnemonic::And:
        case Mnemonic::Andn:
        case Mnemonic::Bextr:
        case Mnemonic::Blsi:
        case Mnemonic::Blsmsk:
        case Mnemonic::Blsr:
        case Mnemonic::Bsf:
        case Mnemonic::Bsr:
        case Mnemonic::Bswap:
        case Mnemonic::Bzhi:
        case Mnemonic::Cbw:
        case Mnemonic::Clc:
        case Mnemonic::Cmc:
        case Mnemonic::Cmovcc:
        case Mnemonic::Cmp:
        case Mnemonic::Cmpxchg:
        case Mnemonic::Cmpxchg16b:
        case Mnemonic::Cmpxchg8b:
        case Mnemonic::Crc32:
        case Mnemonic::Cwd:
        case Mnemonic::Dec:
        case Mnemonic::Imul:
        case Mnemonic::Inc:
        case Mnemonic::Lahf:
        case Mnemonic::Lfence:
        case Mnemonic::Mfence:
        case Mnemonic::Mov:
        case Mnemonic::Movbe:
        case Mnemonic::Movnti:
        case Mnemonic::Movsx:
        case Mnemonic::Movsxd:
        case Mnemonic::Movzx:
        case Mnemonic::Mul:
        case Mnemonic::Mulx:
        case Mnemonic::Neg:
        case Mnemonic::Not:
        case Mnemonic::Or:
        case Mnemonic::Pdep:
        case Mnemonic::Pext:
        case Mnemonic::Popcnt:
        case Mnemonic::Rcl:
        case Mnemonic::Rcr:
        case Mnemonic::Rol:
        case Mnemonic::Ror:
        case Mnemonic::Rorx:
        case Mnemonic::Sahf:
        case Mnemonic::Sar:
        case Mnemonic::Sarx:
        case Mnemonic::Sbb:
        case Mnemonic::Setcc:
        case Mnemonic::Sfence:
        case Mnemonic::Shl:
        case Mnemonic::Shld:
        case Mnemonic::Shlx:
        case Mnemonic::Shr:
        case Mnemonic::Shrd:
        case Mnemonic::Shrx:
        case Mnemonic::Stc:
        case Mnemonic::Sub:
        case Mnemonic::Test:
        case Mnemonic::Xadd:
        case Mnemonic::Xchg:
        case Mnemonic::Xor: return true;
        case Mnemonic::Bt:
        case Mnemonic::Btc:
        case Mnemonic::Btr:
        case Mnemonic::Bts: return !is_bit_string(in);
        case Mnemonic::Lzcnt:
        case Mnemonic::Tzcnt: return true;
        default: return false;
    }
}

[[nodiscard]] bool vector_copyable(const Insn& in) {
    if (in.has(InsnFlag::Vsib)) return false;
    switch (in.mnemonic) {
        case Mnemonic::Ldmxcsr:
        case Mnemonic::Stmxcsr:
        case Mnemonic::Maskmovdqu:
        case Mnemonic::Vldmxcsr:
        case Mnemonic::Vstmxcsr:
        case Mnemonic::Vmaskmovdqu:
        case Mnemonic::Vmaskmovps:
        case Mnemonic::Vmaskmovpd:
        case Mnemonic::Vpmaskmovd:
        case Mnemonic::Vpmaskmovq: return false;
        // Outside 64-bit code these are about the first eight registers only, of which a number in the
        // immediate has three bits [SDM 2B VBLENDVPS, VZEROALL].
        case Mnemonic::Vblendvps:
        case Mnemonic::Vblendvpd:
        case Mnemonic::Vpblendvb:
        case Mnemonic::Vzeroall:
        case Mnemonic::Vzeroupper: return in.code_size == x86::CodeSize::Bits64;
        default: break;
    }
    return true;
}

// Everything but what handles the environment, the control word and the state as a whole.
[[nodiscard]] bool x87_copyable(const Insn& in) {
    switch (in.mnemonic) {
        case Mnemonic::Fldcw:
        case Mnemonic::Fldenv:
        case Mnemonic::Fnclex:
        case Mnemonic::Fndisi:
        case Mnemonic::Fneni:
        case Mnemonic::Fninit:
        case Mnemonic::Fnop:
        case Mnemonic::Fnsave:
        case Mnemonic::Fnsetpm:
        case Mnemonic::Fnstcw:
        case Mnemonic::Fnstenv:
        case Mnemonic::Fnstsw:
        case Mnemonic::Frstor:
        case Mnemonic::Fwait: return false;
        default: return true;
    }
}

// [SDM 1 14.9], table 14-22: these demand alignment also in their VEX form.
[[nodiscard]] bool aligned_with_vex(Mnemonic mnemonic) {
    switch (mnemonic) {
        case Mnemonic::Vmovaps:
        case Mnemonic::Vmovapd:
        case Mnemonic::Vmovdqa:
        case Mnemonic::Vmovntps:
        case Mnemonic::Vmovntpd:
        case Mnemonic::Vmovntdq:
        case Mnemonic::Vmovntdqa: return true;
        default: return false;
    }
}
[[nodiscard]] bool never_aligned(Mnemonic mnemonic) {
    switch (mnemonic) {
        case Mnemonic::Movups:
        case Mnemonic::Movupd:
        case Mnemonic::Movdqu:
        case Mnemonic::Lddqu:
        case Mnemonic::Pcmpestri:
        case Mnemonic::Pcmpestrm:
        case Mnemonic::Pcmpistri:
        case Mnemonic::Pcmpistrm: return true;
        default: return false;
    }
}

[[nodiscard]] bool only_reads_first(Mnemonic mnemonic) {
    switch (mnemonic) {
        case Mnemonic::Cmp:
        case Mnemonic::Test:
        case Mnemonic::Bt:
        case Mnemonic::Mul:
        case Mnemonic::Div:
        case Mnemonic::Idiv:
        case Mnemonic::Push:
        case Mnemonic::Call:
        case Mnemonic::Jmp: return true;
        default: return false;
    }
}

}  // namespace

Places places_of(const Insn& in) {
    Places p;
    p.reg_number = in.has(InsnFlag::HasModrm) ? static_cast<u8>((in.modrm >> 3 & 7) | (in.rex & 4) << 1)
                                              : static_cast<u8>((in.opcode & 7) | (in.rex & 1) << 3);
    p.rm_number = static_cast<u8>((in.modrm & 7) | (in.rex & 1) << 3);
    if (!has_gpr(in)) return p;
    if (!in.has(InsnFlag::HasModrm)) {
        // MOV r, imm; XCHG rAX, r; BSWAP; INC and DEC of 32-bit code. The others have only rAX, DX or CL.
        const u8 o = in.opcode;
        p.reg = (in.map == 0 &&
                 ((o >= 0xb0 && o <= 0xbf) || (o >= 0x90 && o <= 0x97) || (o >= 0x40 && o <= 0x5f))) ||
                (in.map == 1 && o >= 0xc8);
    } else {
        p.reg = reg_is_gpr(in);
        if ((in.modrm & 0xc0) == 0xc0) {
            // A vector instruction has its integer register in one place only.
            p.rm = in.insn_class != InsnClass::Vector || !p.reg;
        }
        p.vvvv = in.insn_class != InsnClass::Vector && in.has(InsnFlag::Vex) && in.map == 2;
    }
    if (!has_kind(in, OperandKind::GprHigh)) return p;
    const auto high = [&](u8 number) { return number >= 4 && number < 8; };
    const bool rm_is_byte = in.map == 1 && (in.opcode == 0xb6 || in.opcode == 0xbe || (in.opcode >> 4) == 9);
    const bool byte_to_wide = rm_is_byte || (in.map == 2 && in.opcode == 0xf0);
    p.reg_high = p.reg && !byte_to_wide && high(p.reg_number);
    p.rm_high = p.rm && high(p.rm_number);
    return p;
}

namespace {

[[nodiscard]] bool has_bit_number_in_register(const Insn& in) {
    const bool bit = in.mnemonic == Mnemonic::Bt || in.mnemonic == Mnemonic::Bts ||
                     in.mnemonic == Mnemonic::Btr || in.mnemonic == Mnemonic::Btc;
    return bit && in.is(1, OperandKind::Gpr);
}

}  // namespace

std::optional<u8> exchange_registers(const Insn& in) {
    constexpr u8 kDirection = 2;  // [SDM 2D B.1.4.8]
    if (in.map != 0 || in.has(InsnFlag::Vex) || !in.has(InsnFlag::HasModrm)) return std::nullopt;
    if (in.mnemonic == Mnemonic::Test)
        return in.operand_count == 2 && in.is(1, OperandKind::Gpr) ? std::optional<u8>(0) : std::nullopt;
    const bool arithmetic = in.opcode < 0x40 && (in.opcode & 7) < 4;
    const bool move = in.opcode >= 0x88 && in.opcode <= 0x8b;
    if (!arithmetic && !move) return std::nullopt;
    return kDirection;
}

bool may_be_memory(const Insn& in, unsigned rm) {
    if (in.insn_class == InsnClass::Vector) return !in.is(0, OperandKind::Gpr);
    if (in.insn_class != InsnClass::Integer) return false;
    // Memory makes an XCHG locked, and a bit number reach further than a register.
    if (in.mnemonic == Mnemonic::Xchg || has_bit_number_in_register(in)) return false;
    constexpr unsigned kWhole = 8;  // fewer would leave the rest, or be read back slowly
    const unsigned written = written_operands(in);
    for (unsigned i = 0; i < in.operand_count; ++i)
        if ((written >> i & 1) != 0 && in.is(i, OperandKind::Gpr) && in.operand[i].reg == rm &&
            in.operand[i].size != kWhole)
            return false;
    return true;
}

bool overwrites(const Insn& in, unsigned guest) {
    constexpr unsigned kZeroExtended = 4;
    switch (in.mnemonic) {
        case Mnemonic::Mov:
        case Mnemonic::Movsx:
        case Mnemonic::Movsxd:
        case Mnemonic::Movzx: break;
        default: return false;
    }
    return in.is(0, OperandKind::Gpr) && in.operand[0].reg == guest && in.operand[0].size >= kZeroExtended &&
           !(in.is(1, OperandKind::Gpr) && in.operand[1].reg == guest);
}

bool is_bit_string(const Insn& in) {
    return in.is(0, OperandKind::Memory) && has_bit_number_in_register(in);
}

// MOVUPS, MOVUPD, MOVDQU and their VEX forms.
bool stores_vector(const Insn& in) {
    if (in.insn_class != InsnClass::Vector || !in.is(0, OperandKind::Memory) || in.map != 1) return false;
    return in.opcode == 0x11 ? in.mandatory_prefix == 0 || in.mandatory_prefix == 0x66
                             : in.opcode == 0x7f && in.mandatory_prefix == 0xf3;
}

MemoryUse memory_use(const Insn& in) {
    MemoryUse use;
    for (unsigned i = 0; i < in.operand_count; ++i) {
        if (!in.is(i, OperandKind::Memory) || in.operand[i].size == 0) continue;
        use.used = true;
        use.size = static_cast<u8>(in.operand[i].size);
        if (in.insn_class == InsnClass::Integer) {
            use.write = (i == 0 && !only_reads_first(in.mnemonic) &&
                         !(in.mnemonic == Mnemonic::Imul && in.operand_count == 1)) ||
                        in.mnemonic == Mnemonic::Xchg;
            use.aligned = in.mnemonic == Mnemonic::Cmpxchg16b;
        } else if (in.insn_class == InsnClass::Vector) {
            use.write = i == 0;
            use.aligned = in.has(InsnFlag::Vex) ? aligned_with_vex(in.mnemonic)
                                                : use.size == 16 && !never_aligned(in.mnemonic);
        } else if (in.insn_class == InsnClass::X87) {
            switch (in.mnemonic) {
                case Mnemonic::Fst:
                case Mnemonic::Fstp:
                case Mnemonic::Fist:
                case Mnemonic::Fistp:
                case Mnemonic::Fisttp:
                case Mnemonic::Fbstp: use.write = true; break;
                default: break;
            }
        }
    }
    return use;
}

namespace {

// [SDM 2A 2.3.5] Outside 64-bit code VEX.W does not make integer operands 64 bits wide; the host would.
[[nodiscard]] bool has_ignored_w(const Insn& in) {
    if (in.code_size == x86::CodeSize::Bits64 || !in.has(InsnFlag::RexW)) return false;
    if (in.insn_class == InsnClass::Integer || has_gpr(in)) return true;
    for (unsigned i = 0; i < in.operand_count; ++i)
        if (in.is(i, OperandKind::Memory) && in.operand[i].size == 4) return true;
    return false;
}

}  // namespace

bool is_copyable(const Insn& in) {
    if (has_ignored_w(in)) return false;
    if (in.address_size == 2 && has_kind(in, OperandKind::Memory)) return false;
    switch (in.insn_class) {
        case InsnClass::Integer: return integer_copyable(in);
        case InsnClass::Vector: return vector_copyable(in);
        case InsnClass::X87: return x87_copyable(in);
        default: return false;
    }
}

unsigned written_operands(const Insn& in) {
    switch (in.mnemonic) {
        case Mnemonic::Xchg:
        case Mnemonic::Xadd:
        case Mnemonic::Mulx: return 3;
        case Mnemonic::Cmp:
        case Mnemonic::Test:
        case Mnemonic::Bt:
        case Mnemonic::Mul: return 0;
        case Mnemonic::Imul: return in.operand_count == 1 ? 0 : 1;
        default: return 1;
    }
}

u16 registers_of(const Insn& in, unsigned which) {
    u16 mask = 0;
    for (unsigned i = 0; i < in.operand_count; ++i) {
        if ((which >> i & 1) == 0) continue;
        if (in.is(i, OperandKind::Gpr)) mask |= bit_of(in.operand[i].reg);
        if (in.is(i, OperandKind::GprHigh)) mask |= bit_of(in.operand[i].reg & 3U);
    }
    return mask;
}

u16 registers_written(const Insn& in) {
    constexpr u16 kEvery = 0xffff;
    switch (in.mnemonic) {
        case Mnemonic::Mov:
        case Mnemonic::Movzx:
        case Mnemonic::Movsx:
        case Mnemonic::Movsxd:
        case Mnemonic::Lea:
        case Mnemonic::Add:
        case Mnemonic::Adc:
        case Mnemonic::Sub:
        case Mnemonic::Sbb:
        case Mnemonic::And:
        case Mnemonic::Or:
        case Mnemonic::Xor:
        case Mnemonic::Inc:
        case Mnemonic::Dec:
        case Mnemonic::Neg:
        case Mnemonic::Not:
        case Mnemonic::Shl:
        case Mnemonic::Shr:
        case Mnemonic::Sar:
        case Mnemonic::Rol:
        case Mnemonic::Ror:
        case Mnemonic::Bswap:
        case Mnemonic::Setcc:
        case Mnemonic::Cmovcc:
        case Mnemonic::Xchg:
        case Mnemonic::Pop: return registers_of(in, written_operands(in));
        case Mnemonic::Imul: return in.operand_count == 1 ? kEvery : registers_of(in, 1);
        case Mnemonic::Cmp:
        case Mnemonic::Test:
        case Mnemonic::Bt:
        case Mnemonic::Nop:
        case Mnemonic::Push:
        case Mnemonic::Jcc:
        case Mnemonic::Jmp:
        case Mnemonic::Call:
        case Mnemonic::Ret: return 0;
        case Mnemonic::Pcmpestri:
        case Mnemonic::Pcmpistri: return kEvery;  // RCX
        default: return in.insn_class == InsnClass::Vector ? registers_of(in, 1) : kEvery;
    }
}

}  // namespace tessera::soft::jit
