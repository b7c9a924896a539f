// The comparison and the table of differences that have a reason.
#include "tests/decoder/zydis_compare.h"

#include <array>
#include <fmt/format.h>
#include <string_view>

#include "tests/decoder/known_differences.h"

namespace tessera::x86::test {

namespace {

ZydisDecoder make_decoder(CodeSize size) {
    ZydisDecoder decoder;
    switch (size) {
        case CodeSize::Bits16:
            ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_STACK_WIDTH_16);
            break;
        case CodeSize::Bits32:
            ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32);
            break;
        case CodeSize::Bits64:
            ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
            break;
    }
    ZydisDecoderEnableMode(&decoder, ZYDIS_DECODER_MODE_AMD_BRANCHES, ZYAN_TRUE);
    ZydisDecoderEnableMode(&decoder, ZYDIS_DECODER_MODE_MPX, ZYAN_FALSE);
    ZydisDecoderEnableMode(&decoder, ZYDIS_DECODER_MODE_CET, ZYAN_FALSE);
    ZydisDecoderEnableMode(&decoder, ZYDIS_DECODER_MODE_LZCNT, ZYAN_TRUE);
    ZydisDecoderEnableMode(&decoder, ZYDIS_DECODER_MODE_TZCNT, ZYAN_TRUE);
    ZydisDecoderEnableMode(&decoder, ZYDIS_DECODER_MODE_WBNOINVD, ZYAN_FALSE);
    ZydisDecoderEnableMode(&decoder, ZYDIS_DECODER_MODE_CLDEMOTE, ZYAN_FALSE);
    ZydisDecoderEnableMode(&decoder, ZYDIS_DECODER_MODE_KNC, ZYAN_FALSE);
    return decoder;
}

void decode_with_zydis(std::span<const u8> bytes, CodeSize size, Zydis& out) {
    static const std::array<ZydisDecoder, 3> decoders = {
        make_decoder(CodeSize::Bits16), make_decoder(CodeSize::Bits32), make_decoder(CodeSize::Bits64)};
    const ZyanStatus status = ZydisDecoderDecodeFull(&decoders[static_cast<size_t>(size)], bytes.data(),
                                                     bytes.size(), &out.insn, out.operands);
    if (ZYAN_SUCCESS(status)) {
        out.status = DecodeStatus::Ok;
    } else if (status == ZYDIS_STATUS_INSTRUCTION_TOO_LONG) {
        out.status = DecodeStatus::TooLong;
    } else if (status == ZYDIS_STATUS_NO_MORE_DATA) {
        out.status = DecodeStatus::NeedMore;
    } else {
        out.status = DecodeStatus::Invalid;
    }
}

struct NamePair {
    std::string_view theirs;
    Mnemonic ours;
    int condition = -1;
};

// Zydis' names that are not our id in lower case.
constexpr NamePair kNames[] = {
    {"jo", Mnemonic::Jcc, 0},
    {"jno", Mnemonic::Jcc, 1},
    {"jb", Mnemonic::Jcc, 2},
    {"jnb", Mnemonic::Jcc, 3},
    {"jz", Mnemonic::Jcc, 4},
    {"jnz", Mnemonic::Jcc, 5},
    {"jbe", Mnemonic::Jcc, 6},
    {"jnbe", Mnemonic::Jcc, 7},
    {"js", Mnemonic::Jcc, 8},
    {"jns", Mnemonic::Jcc, 9},
    {"jp", Mnemonic::Jcc, 10},
    {"jnp", Mnemonic::Jcc, 11},
    {"jl", Mnemonic::Jcc, 12},
    {"jnl", Mnemonic::Jcc, 13},
    {"jle", Mnemonic::Jcc, 14},
    {"jnle", Mnemonic::Jcc, 15},
    {"seto", Mnemonic::Setcc, 0},
    {"setno", Mnemonic::Setcc, 1},
    {"setb", Mnemonic::Setcc, 2},
    {"setnb", Mnemonic::Setcc, 3},
    {"setz", Mnemonic::Setcc, 4},
    {"setnz", Mnemonic::Setcc, 5},
    {"setbe", Mnemonic::Setcc, 6},
    {"setnbe", Mnemonic::Setcc, 7},
    {"sets", Mnemonic::Setcc, 8},
    {"setns", Mnemonic::Setcc, 9},
    {"setp", Mnemonic::Setcc, 10},
    {"setnp", Mnemonic::Setcc, 11},
    {"setl", Mnemonic::Setcc, 12},
    {"setnl", Mnemonic::Setcc, 13},
    {"setle", Mnemonic::Setcc, 14},
    {"setnle", Mnemonic::Setcc, 15},
    {"cmovo", Mnemonic::Cmovcc, 0},
    {"cmovno", Mnemonic::Cmovcc, 1},
    {"cmovb", Mnemonic::Cmovcc, 2},
    {"cmovnb", Mnemonic::Cmovcc, 3},
    {"cmovz", Mnemonic::Cmovcc, 4},
    {"cmovnz", Mnemonic::Cmovcc, 5},
    {"cmovbe", Mnemonic::Cmovcc, 6},
    {"cmovnbe", Mnemonic::Cmovcc, 7},
    {"cmovs", Mnemonic::Cmovcc, 8},
    {"cmovns", Mnemonic::Cmovcc, 9},
    {"cmovp", Mnemonic::Cmovcc, 10},
    {"cmovnp", Mnemonic::Cmovcc, 11},
    {"cmovl", Mnemonic::Cmovcc, 12},
    {"cmovnl", Mnemonic::Cmovcc, 13},
    {"cmovle", Mnemonic::Cmovcc, 14},
    {"cmovnle", Mnemonic::Cmovcc, 15},
    {"fcmovb", Mnemonic::Fcmovcc, 0},
    {"fcmove", Mnemonic::Fcmovcc, 1},
    {"fcmovbe", Mnemonic::Fcmovcc, 2},
    {"fcmovu", Mnemonic::Fcmovcc, 3},
    {"fcmovnb", Mnemonic::Fcmovcc, 4},
    {"fcmovne", Mnemonic::Fcmovcc, 5},
    {"fcmovnbe", Mnemonic::Fcmovcc, 6},
    {"fcmovnu", Mnemonic::Fcmovcc, 7},
    {"cwde", Mnemonic::Cbw},
    {"cdqe", Mnemonic::Cbw},
    {"cdq", Mnemonic::Cwd},
    {"cqo", Mnemonic::Cwd},
    {"pushad", Mnemonic::Pusha},
    {"popad", Mnemonic::Popa},
    {"pushfd", Mnemonic::Pushf},
    {"pushfq", Mnemonic::Pushf},
    {"popfd", Mnemonic::Popf},
    {"popfq", Mnemonic::Popf},
    {"iretd", Mnemonic::Iret},
    {"iretq", Mnemonic::Iret},
    {"jecxz", Mnemonic::Jcxz},
    {"jrcxz", Mnemonic::Jcxz},
    {"fxsave64", Mnemonic::Fxsave},
    {"fxrstor64", Mnemonic::Fxrstor},
    {"xsave64", Mnemonic::Xsave},
    {"xsavec64", Mnemonic::Xsavec},
    {"xsaves64", Mnemonic::Xsaves},
    {"xsaveopt64", Mnemonic::Xsaveopt},
    {"xrstor64", Mnemonic::Xrstor},
    {"xrstors64", Mnemonic::Xrstors},
    {"feni8087_nop", Mnemonic::Fneni},
    {"fdisi8087_nop", Mnemonic::Fndisi},
    {"fsetpm287_nop", Mnemonic::Fnsetpm},
    {"fstpnce", Mnemonic::Fstp},
    {"movsb", Mnemonic::Movs},
    {"movsw", Mnemonic::Movs},
    {"movsq", Mnemonic::Movs},
    {"cmpsb", Mnemonic::Cmps},
    {"cmpsw", Mnemonic::Cmps},
    {"cmpsq", Mnemonic::Cmps},
    {"stosb", Mnemonic::Stos},
    {"stosw", Mnemonic::Stos},
    {"stosd", Mnemonic::Stos},
    {"stosq", Mnemonic::Stos},
    {"lodsb", Mnemonic::Lods},
    {"lodsw", Mnemonic::Lods},
    {"lodsd", Mnemonic::Lods},
    {"lodsq", Mnemonic::Lods},
    {"scasb", Mnemonic::Scas},
    {"scasw", Mnemonic::Scas},
    {"scasd", Mnemonic::Scas},
    {"scasq", Mnemonic::Scas},
    {"insb", Mnemonic::Ins},
    {"insw", Mnemonic::Ins},
    {"insd", Mnemonic::Ins},
    {"outsb", Mnemonic::Outs},
    {"outsw", Mnemonic::Outs},
    {"outsd", Mnemonic::Outs},
    {"sysexit", Mnemonic::Sysexit},
    {"retf", Mnemonic::Retf},
};

struct Translated {
    Mnemonic mnemonic = Mnemonic::Invalid;
    int condition = -1;
};

// By Zydis' number, made once.
const Translated& translate(ZydisMnemonic theirs) {
    static const auto table = [] {
        std::array<Translated, ZYDIS_MNEMONIC_MAX_VALUE + 1> made{};
        for (unsigned z = 0; z <= ZYDIS_MNEMONIC_MAX_VALUE; ++z) {
            const char* text = ZydisMnemonicGetString(static_cast<ZydisMnemonic>(z));
            if (text == nullptr) continue;
            for (unsigned m = 1; m < kMnemonicCount; ++m)
                if (std::string_view(text) == x86::name(static_cast<Mnemonic>(m)))
                    made[z] = {static_cast<Mnemonic>(m), -1};
            for (const NamePair& pair : kNames)
                if (pair.theirs == text) made[z] = {pair.ours, pair.condition};
        }
        return made;
    }();
    return table[theirs];
}

// The id our decoder should have given.
Translated expected_mnemonic(const Zydis& z) {
    Translated expected = translate(z.insn.mnemonic);
    const bool far = z.insn.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR;
    const auto reg_class = [&](unsigned i) {
        return z.operands[i].type == ZYDIS_OPERAND_TYPE_REGISTER
                   ? ZydisRegisterGetClass(z.operands[i].reg.value)
                   : ZYDIS_REGCLASS_INVALID;
    };
    switch (z.insn.mnemonic) {
        case ZYDIS_MNEMONIC_CALL:
            if (far) expected.mnemonic = Mnemonic::Callf;
            break;
        case ZYDIS_MNEMONIC_JMP:
            if (far) expected.mnemonic = Mnemonic::Jmpf;
            break;
        case ZYDIS_MNEMONIC_RET:
            if (far) expected.mnemonic = Mnemonic::Retf;
            break;
        case ZYDIS_MNEMONIC_MOV:
            for (unsigned i = 0; i < 2; ++i) {
                if (reg_class(i) == ZYDIS_REGCLASS_CONTROL) expected.mnemonic = Mnemonic::MovCr;
                if (reg_class(i) == ZYDIS_REGCLASS_DEBUG) expected.mnemonic = Mnemonic::MovDr;
                if (reg_class(i) == ZYDIS_REGCLASS_SEGMENT) expected.mnemonic = Mnemonic::MovSeg;
            }
            break;
        case ZYDIS_MNEMONIC_PUSH:
            if (reg_class(0) == ZYDIS_REGCLASS_SEGMENT) expected.mnemonic = Mnemonic::PushSeg;
            break;
        case ZYDIS_MNEMONIC_POP:
            if (reg_class(0) == ZYDIS_REGCLASS_SEGMENT) expected.mnemonic = Mnemonic::PopSeg;
            break;
        case ZYDIS_MNEMONIC_MOVSD:
            if (z.insn.meta.category == ZYDIS_CATEGORY_STRINGOP) expected.mnemonic = Mnemonic::Movs;
            break;
        case ZYDIS_MNEMONIC_CMPSD:
            if (z.insn.meta.category == ZYDIS_CATEGORY_STRINGOP) expected.mnemonic = Mnemonic::Cmps;
            break;
        default: break;
    }
    return expected;
}

int register_number(ZydisRegister reg) {
    return ZydisRegisterGetId(reg);
}

bool gpr_class_fits(ZydisRegisterClass c) {
    return c == ZYDIS_REGCLASS_GPR8 || c == ZYDIS_REGCLASS_GPR16 || c == ZYDIS_REGCLASS_GPR32 ||
           c == ZYDIS_REGCLASS_GPR64;
}

bool register_matches(const Operand& ours, const ZydisDecodedOperand& theirs) {
    const ZydisRegister reg = theirs.reg.value;
    const ZydisRegisterClass c = ZydisRegisterGetClass(reg);
    switch (ours.kind) {
        case OperandKind::Gpr: {
            if (!gpr_class_fits(c) || (reg >= ZYDIS_REGISTER_AH && reg <= ZYDIS_REGISTER_BH)) return false;
            const ZydisRegisterClass wanted = ours.size == 1   ? ZYDIS_REGCLASS_GPR8
                                              : ours.size == 2 ? ZYDIS_REGCLASS_GPR16
                                              : ours.size == 4 ? ZYDIS_REGCLASS_GPR32
                                                               : ZYDIS_REGCLASS_GPR64;
            if (c != wanted) return false;
            int number = register_number(reg);
            // Zydis numbers AL CL DL BL AH CH DH BH SPL ...: the low bytes from SPL on are off by four.
            if (c == ZYDIS_REGCLASS_GPR8 && number >= 8) number -= 4;
            return number == ours.reg;
        }
        case OperandKind::GprHigh: return reg == static_cast<int>(ZYDIS_REGISTER_AH) + ours.reg;
        case OperandKind::Segment: return c == ZYDIS_REGCLASS_SEGMENT && register_number(reg) == ours.reg;
        case OperandKind::Control: return c == ZYDIS_REGCLASS_CONTROL && register_number(reg) == ours.reg;
        case OperandKind::Debug: return c == ZYDIS_REGCLASS_DEBUG && register_number(reg) == ours.reg;
        case OperandKind::Mmx: return c == ZYDIS_REGCLASS_MMX && register_number(reg) == ours.reg;
        case OperandKind::St: return c == ZYDIS_REGCLASS_X87 && register_number(reg) == ours.reg;
        case OperandKind::Vector:
            return c == (ours.size == 32 ? ZYDIS_REGCLASS_YMM : ZYDIS_REGCLASS_XMM) &&
                   register_number(reg) == ours.reg;
        default: return false;
    }
}

bool memory_matches(const Insn& insn, const Operand& ours, const ZydisDecodedOperand& theirs) {
    const auto& mem = theirs.mem;
    const int base = insn.base == kNoRegister ? -1 : insn.base;
    const int index = insn.index == kNoRegister ? -1 : insn.index;
    const bool rip = mem.base == ZYDIS_REGISTER_RIP || mem.base == ZYDIS_REGISTER_EIP;
    const int their_base = mem.base == ZYDIS_REGISTER_NONE ? -1 : rip ? kRipBase : register_number(mem.base);
    const int their_index = mem.index == ZYDIS_REGISTER_NONE ? -1 : register_number(mem.index);
    if (base != their_base || index != their_index) return false;
    if (index >= 0 && (1 << insn.scale) != mem.scale) return false;
    if (insn.has(InsnFlag::Vsib)) {
        const ZydisRegisterClass c = ZydisRegisterGetClass(mem.index);
        if (c != (insn.vsib_size == 32 ? ZYDIS_REGCLASS_YMM : ZYDIS_REGCLASS_XMM)) return false;
    }
    s64 displacement = mem.disp.has_displacement ? mem.disp.value : 0;
    s64 our_displacement = insn.displacement;
    if (insn.address_size < 8) {  // the sign of a bare offset is a matter of taste
        const u64 mask = insn.address_size == 4 ? 0xffff'ffff : 0xffff;
        displacement = static_cast<s64>(static_cast<u64>(displacement) & mask);
        our_displacement = static_cast<s64>(static_cast<u64>(our_displacement) & mask);
    }
    if (displacement != our_displacement) return false;
    // Zydis names no segment for LEA and for addresses it calls AGEN.
    if (mem.type != ZYDIS_MEMOP_TYPE_AGEN && register_number(mem.segment) != insn.segment) return false;
    if (ours.size == 0) return true;  // only an address to us; checked by mnemonic in the unit tests
    return theirs.size == ours.size * 8u;
}

bool operand_matches(const Insn& insn, unsigned n, const ZydisDecodedOperand& theirs) {
    const Operand& ours = insn.operand[n];
    const auto mask = [&](u64 value) {
        return ours.size >= 8 ? value : value & ((u64{1} << ours.size * 8) - 1);
    };
    switch (ours.kind) {
        case OperandKind::None: return false;
        case OperandKind::Memory:
            return theirs.type == ZYDIS_OPERAND_TYPE_MEMORY && memory_matches(insn, ours, theirs);
        case OperandKind::Immediate:
            return theirs.type == ZYDIS_OPERAND_TYPE_IMMEDIATE && !theirs.imm.is_relative &&
                   insn.immediate == mask(theirs.imm.value.u);
        case OperandKind::Immediate2:
            return theirs.type == ZYDIS_OPERAND_TYPE_IMMEDIATE && insn.immediate2 == theirs.imm.value.u;
        case OperandKind::Relative:
            return theirs.type == ZYDIS_OPERAND_TYPE_IMMEDIATE && theirs.imm.is_relative &&
                   insn.immediate == theirs.imm.value.u;
        case OperandKind::FarPointer:
            return theirs.type == ZYDIS_OPERAND_TYPE_POINTER && insn.immediate == theirs.ptr.offset &&
                   insn.immediate2 == theirs.ptr.segment;
        default: return theirs.type == ZYDIS_OPERAND_TYPE_REGISTER && register_matches(ours, theirs);
    }
}

std::string describe(const Comparison& c) {
    if (c.status != DecodeStatus::Ok) {
        constexpr const char* kStatus[] = {"ok", "invalid", "too long", "need more"};
        return kStatus[static_cast<size_t>(c.status)];
    }
    const Insn& i = c.insn;
    std::string text =
        fmt::format("{} length {} osize {} asize {} flags {:#x} r {:#x} w {:#x} u {:#x} cond {}",
                    x86::name(i.mnemonic), i.length, i.operand_size, i.address_size, i.flags.raw(),
                    i.flags_read, i.flags_written, i.flags_undefined, i.condition);
    for (unsigned n = 0; n < i.operand_count; ++n)
        text += fmt::format(" [kind {} reg {} size {}]", static_cast<int>(i.operand[n].kind),
                            i.operand[n].reg, i.operand[n].size);
    text += fmt::format(" base {} index {} scale {} seg {} disp {:#x} imm {:#x}", i.base, i.index, i.scale,
                        i.segment, i.displacement, i.immediate);
    return text;
}

std::string describe(const Zydis& z) {
    if (z.status != DecodeStatus::Ok) {
        constexpr const char* kStatus[] = {"ok", "invalid", "too long", "need more"};
        return kStatus[static_cast<size_t>(z.status)];
    }
    ZydisFormatter formatter;
    ZydisFormatterInit(&formatter, ZYDIS_FORMATTER_STYLE_INTEL);
    std::array<char, 256> buffer{};
    ZydisFormatterFormatInstruction(&formatter, &z.insn, z.operands, z.insn.operand_count_visible,
                                    buffer.data(), buffer.size(), 0, nullptr);
    const auto* f = z.insn.cpu_flags;
    std::string text = fmt::format("{} ({}) length {} osize {} asize {}", buffer.data(),
                                   ZydisISASetGetString(z.insn.meta.isa_set), z.insn.length,
                                   z.insn.operand_width, z.insn.address_width);
    if (f != nullptr)
        text += fmt::format(" tested {:#x} modified {:#x} set0 {:#x} set1 {:#x} undefined {:#x}", f->tested,
                            f->modified, f->set_0, f->set_1, f->undefined);
    for (unsigned n = 0; n < z.insn.operand_count_visible; ++n)
        text += fmt::format(" [size {}]", z.operands[n].size);
    return text;
}

// Which of #UD, #GP and a further fetch comes first for bytes that are no instruction is nobody's promise.
bool same_status(DecodeStatus ours, DecodeStatus theirs) {
    if (ours == DecodeStatus::Ok || theirs == DecodeStatus::Ok) return ours == theirs;
    // Zydis may know that an instruction grows too long before its last byte is there.
    if (ours == DecodeStatus::NeedMore && theirs == DecodeStatus::TooLong) return true;
    return ours == theirs || ours == DecodeStatus::Invalid || theirs == DecodeStatus::Invalid;
}

bool operand_size_matters(const Insn& insn) {
    return insn.insn_class == InsnClass::Integer || insn.insn_class == InsnClass::String ||
           insn.insn_class == InsnClass::Branch || insn.insn_class == InsnClass::System;
}

Disagreement find(const Comparison& c, const Zydis& z) {
    if (!same_status(c.status, z.status)) return Disagreement::Validity;
    if (c.status != DecodeStatus::Ok || z.status != DecodeStatus::Ok) return Disagreement::None;
    const Insn& insn = c.insn;
    if (insn.length != z.insn.length) return Disagreement::Length;
    const Translated expected = expected_mnemonic(z);
    if (insn.mnemonic != expected.mnemonic ||
        (expected.condition >= 0 && expected.condition != insn.condition))
        return Disagreement::Mnemonic;
    if (insn.address_size * 8 != z.insn.address_width) return Disagreement::AddressSize;
    if (insn.has(InsnFlag::Lock) != ((z.insn.attributes & ZYDIS_ATTRIB_HAS_LOCK) != 0))
        return Disagreement::Prefix;
    if (insn.operand_count != z.insn.operand_count_visible) return Disagreement::OperandCount;
    for (unsigned n = 0; n < insn.operand_count; ++n)
        if (!operand_matches(insn, n, z.operands[n])) return Disagreement::Operand;

    const auto* flags = z.insn.cpu_flags;
    const auto status_bits = [](u64 f) { return static_cast<u16>(f & eflags::kStatus); };
    const u16 tested = flags == nullptr ? 0 : status_bits(flags->tested);
    const u16 written = flags == nullptr ? 0 : status_bits(flags->modified | flags->set_0 | flags->set_1);
    const u16 undefined = flags == nullptr ? 0 : status_bits(flags->undefined);
    if (insn.flags_read != tested) return Disagreement::FlagsRead;
    if (insn.flags_written != written) return Disagreement::FlagsWritten;
    if (insn.flags_undefined != undefined) return Disagreement::FlagsUndefined;
    if (operand_size_matters(insn) && insn.operand_size * 8 != z.insn.operand_width)
        return Disagreement::OperandSize;
    return Disagreement::None;
}

}  // namespace

const char* name(Disagreement disagreement) {
    constexpr const char* kText[] = {"none",          "validity",   "length",        "mnemonic",
                                     "operand count", "operand",    "operand size",  "address size",
                                     "prefix",        "flags read", "flags written", "flags undefined"};
    return kText[static_cast<size_t>(disagreement)];
}

Comparison compare_with_zydis(std::span<const u8> bytes, CodeSize size) {
    Comparison c;
    Zydis z;
    c.status = decode(bytes, size, c.insn);
    decode_with_zydis(bytes, size, z);
    c.disagreement = find(c, z);
    if (c.disagreement == Disagreement::None) return c;
    c.explanation = explain(c.disagreement, c.insn, z);
    if (c.explanation == nullptr) {
        c.ours = describe(c);
        c.theirs = describe(z);
    }
    return c;
}

}  // namespace tessera::x86::test
