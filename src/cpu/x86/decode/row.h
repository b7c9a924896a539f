// Writes the opcode tables: rows of short words become Forms, and rows sorted by opcode become an indexed
// map, all while compiling; a word that does not exist or a row that can never match does not compile. Only
// the map_*.cpp include it.
#pragma once

#include <array>
#include <string_view>

#include "cpu/x86/decode/form.h"

namespace tessera::x86::tables {

// Reads the words of a row into its Form.
struct RowReader {
    Form form;

    static void unknown_word() {}  // not constexpr: reaching it is the compile error

    template <typename F>
    static constexpr void for_words(std::string_view text, F f) {
        while (!text.empty()) {
            const size_t end = text.find(' ');
            const std::string_view word = text.substr(0, end);
            if (!word.empty()) f(word);
            if (end == std::string_view::npos) return;
            text.remove_prefix(end + 1);
        }
    }

    static consteval InsnClass insn_class_constant(Mnemonic mnemonic) {
        constexpr std::array<InsnClass, kMnemonicCount> kClasses = {
            InsnClass::Integer,
#define TESSERA_MNEMONIC(id, insn_class) InsnClass::insn_class,
#include "cpu/x86/mnemonics.def"
#undef TESSERA_MNEMONIC
        };
        return kClasses[static_cast<size_t>(mnemonic)];
    }

    constexpr void require(u32 mask, u32 value) {
        form.mask |= mask;
        form.value |= value;
    }
    constexpr void require_register() { require(key::kRegisterForm, key::kRegisterForm), needs_modrm(); }
    constexpr void require_memory() { require(key::kRegisterForm, 0), needs_modrm(); }
    constexpr void needs_modrm() { form.traits.set(Trait::NeedsModrm); }

    // True if the word gives the operand size.
    constexpr bool pattern_word(std::string_view word) {
        struct Condition {
            std::string_view word;
            u32 mask, value;
            u8 prefix;
        };
        constexpr Condition kConditions[] = {
            {"np", key::kPrefix, 0, 0},    {"66", key::kPrefix, 1, 0x66},
            {"f3", key::kPrefix, 2, 0xf3}, {"f2", key::kPrefix, 3, 0xf2},
            {"nr", key::kRepeat, 0, 0},    {"64", key::kMode64, key::kMode64, 0},
            {"!64", key::kMode64, 0, 0},   {"w0", key::kW, 0, 0},
            {"w1", key::kW, key::kW, 0},   {"l0", key::kL, 0, 0},
            {"l1", key::kL, key::kL, 0},   {"rexb0", key::kRexB, 0, 0},
        };
        for (const Condition& c : kConditions) {
            if (c.word != word) continue;
            require(c.mask, c.value);
            if (c.prefix != 0) form.mandatory_prefix = c.prefix;
            return false;
        }
        struct Sized {
            std::string_view word;
            OperandSizeRule rule;
        };
        constexpr Sized kSized[] = {
            {"b", OperandSizeRule::Byte},        {"v", OperandSizeRule::V}, {"z", OperandSizeRule::Z},
            {"d64", OperandSizeRule::Default64}, {"y", OperandSizeRule::Y}, {"nat", OperandSizeRule::Native},
            {"tab", OperandSizeRule::Table},
        };
        for (const Sized& s : kSized) {
            if (s.word != word) continue;
            form.size_rule = s.rule;
            return true;
        }
        struct Traited {
            std::string_view word;
            Trait trait;
        };
        constexpr Traited kTraits[] = {
            {"lock", Trait::Lockable},    {"anymod", Trait::AnyMod},    {"cc", Trait::Condition},
            {"shift", Trait::ShiftCount}, {"maybe", Trait::MaybeFlags}, {"rflags", Trait::RepeatFlags},
            {"vsibx", Trait::VsibX},      {"vsib16", Trait::Vsib16},    {"modrm", Trait::NeedsModrm},
        };
        for (const Traited& t : kTraits) {
            if (t.word != word) continue;
            form.traits.set(t.trait);
            return false;
        }
        if (word == "mem") {
            require_memory();
        } else if (word == "reg") {
            require_register();
        } else if (word.size() == 2 && word[1] >= '0' && word[1] <= '7' &&
                   (word[0] == '/' || word[0] == 'r')) {
            const u32 number = static_cast<u32>(word[1] - '0');
            if (word[0] == '/') require(key::kReg, number << 11);
            if (word[0] == 'r') require(key::kRm | key::kRegisterForm, number << 8 | key::kRegisterForm);
            needs_modrm();
        } else {
            unknown_word();
        }
        return false;
    }

    static constexpr Size size_word(std::string_view word) {
        struct Sized {
            std::string_view word;
            Size size;
        };
        constexpr Sized kSizes[] = {
            {"0", Size::S0},    {"b", Size::S1},      {"w", Size::S2},         {"d", Size::S4},
            {"q", Size::S8},    {"1", Size::S1},      {"2", Size::S2},         {"4", Size::S4},
            {"6", Size::S6},    {"8", Size::S8},      {"10", Size::S10},       {"16", Size::S16},
            {"32", Size::S32},  {"512", Size::S512},  {"v", Size::V},          {"y", Size::V},
            {"z", Size::Z},     {"p", Size::Far},     {"a", Size::Pair},       {"t", Size::Table},
            {"env", Size::Env}, {"crc", Size::Crc},   {"save", Size::FpuSave}, {"x", Size::X},
            {"h", Size::Half},  {"f", Size::Quarter}, {"e", Size::Eighth},
        };
        for (const Sized& s : kSizes)
            if (s.word == word) return s.size;
        unknown_word();
        return Size::S0;
    }

    constexpr void add(Source source, Size size) {
        form.operand[form.operand_count] = {source, size};
        form.operand_count = static_cast<u8>(form.operand_count + 1);
    }

    constexpr void operand_word(std::string_view word) {
        struct Whole {
            std::string_view word;
            Source source;
            Size size;
        };
        constexpr auto kSeg = static_cast<u8>(Source::FixedSegment);
        constexpr Whole kWhole[] = {
            {"al", Source::Accumulator, Size::S1},
            {"ax", Source::Accumulator, Size::V},
            {"axw", Source::Accumulator, Size::S2},
            {"cl", Source::Cl, Size::S1},
            {"dx", Source::Dx, Size::S2},
            {"es", static_cast<Source>(kSeg + Es), Size::S2},
            {"cs", static_cast<Source>(kSeg + Cs), Size::S2},
            {"ss", static_cast<Source>(kSeg + Ss), Size::S2},
            {"ds", static_cast<Source>(kSeg + Ds), Size::S2},
            {"fs", static_cast<Source>(kSeg + Fs), Size::S2},
            {"gs", static_cast<Source>(kSeg + Gs), Size::S2},
            {"xmm0", Source::Xmm0, Size::S16},
            {"st0", Source::St0, Size::S10},
            {"sti", Source::StRm, Size::S10},
            {"Sw", Source::RegSegment, Size::S2},
            {"Cr", Source::RegControl, Size::V},
            {"Dr", Source::RegDebug, Size::V},
            {"Ib", Source::Imm8, Size::S1},
            {"sIb", Source::Imm8Signed, Size::V},
            {"Iz", Source::ImmZ, Size::V},
            {"Iv", Source::ImmV, Size::V},
            {"Iw", Source::Imm16, Size::S2},
            {"I1", Source::ImmOne, Size::S1},
            {"I2b", Source::Imm8Second, Size::S1},
            {"Jb", Source::Rel8, Size::V},
            {"Jz", Source::RelZ, Size::V},
            {"Ap", Source::FarPointer, Size::Far},
            {"Ob", Source::Moffs, Size::S1},
            {"Ov", Source::Moffs, Size::V},
        };
        for (const Whole& w : kWhole) {
            if (w.word != word) continue;
            if (w.source >= Source::RegSegment && w.source <= Source::RegDebug) needs_modrm();
            add(w.source, w.size);
            return;
        }
        const Size size = size_word(word.substr(1));
        switch (word[0]) {
            case 'G': needs_modrm(), add(Source::RegGpr, size); break;
            case 'E': needs_modrm(), add(Source::RmGpr, size); break;
            case 'R': require_register(), add(Source::RmGpr, size); break;
            case 'C': needs_modrm(), add(Source::AnyModGpr, size); break;
            case 'M': require_memory(), add(Source::RmMemory, size); break;
            case 'Z': add(Source::OpcodeGpr, size); break;
            case 'B': form.traits.set(Trait::UsesVvvv), add(Source::VvvvGpr, size); break;
            case 'P': needs_modrm(), add(Source::RegMmx, size); break;
            case 'Q': needs_modrm(), add(Source::RmMmx, size); break;
            case 'N': require_register(), add(Source::RmMmx, size); break;
            case 'V': needs_modrm(), add(Source::RegVector, size); break;
            case 'W': needs_modrm(), add(Source::RmVector, size); break;
            case 'U': require_register(), add(Source::RmVector, size); break;
            case 'H': form.traits.set(Trait::UsesVvvv), add(Source::VvvvVector, size); break;
            case 'L': add(Source::ImmediateVector, size); break;
            default: unknown_word();
        }
        if (word[0] == 'P' || word[0] == 'Q' || word[0] == 'N') form.insn_class = InsnClass::Mmx;
    }

    constexpr void flag_word(std::string_view word, u16*& target) {
        for (const char letter : word) {
            switch (letter) {
                case 'r': target = &form.flags_read; break;
                case 'w': target = &form.flags_written; break;
                case 'u': target = &form.flags_undefined; break;
                case 'o': *target |= eflags::kOf; break;
                case 's': *target |= eflags::kSf; break;
                case 'z': *target |= eflags::kZf; break;
                case 'a': *target |= eflags::kAf; break;
                case 'p': *target |= eflags::kPf; break;
                case 'c': *target |= eflags::kCf; break;
                default: unknown_word();
            }
        }
    }

    // Byte if the first operand is a byte; 4 or 8 by W if there is an MM or vector operand; else by 66 and W.
    constexpr OperandSizeRule default_size_rule() const {
        for (const OperandSpec& spec : form.operand)
            if (spec.source >= Source::RegMmx && spec.source <= Source::Xmm0) return OperandSizeRule::Y;
        return form.operand[0].size == Size::S1 ? OperandSizeRule::Byte : OperandSizeRule::V;
    }
};

// Words of a row's pattern: np 66 f3 f2 (prefix; nr: no F2 or F3) | /0-/7 (modrm.reg) | r0-r7 (modrm.rm) |
// mem reg | 64 !64 | w0 w1 | l0 l1 | b v z d64 y nat tab (operand size) | rexb0 | lock | anymod | cc |
// shift | maybe | rflags | vsibx vsib16 | modrm. Words of operands: the letter of the SDM's opcode maps and a
// size, e.g. Ev Gb Ib sIb Iz Jb W16 Vx Hx M8. [SDM 2D A.2] Words of flags: r, w, u, each followed by letters
// of oszapc: read, written, undefined.
struct Row {
    u8 opcode = 0;
    u8 opcode_count = 1;  // consecutive opcodes the row stands for (+r forms, Jcc)
    Form form;

    consteval Row(unsigned first_opcode, std::string_view pattern, Mnemonic mnemonic,
                  std::string_view operands = "", std::string_view flags = "", unsigned opcodes = 1)
        : opcode(static_cast<u8>(first_opcode)), opcode_count(static_cast<u8>(opcodes)) {
        RowReader reader;
        reader.form.mnemonic = mnemonic;
        reader.form.insn_class = RowReader::insn_class_constant(mnemonic);
        bool size_given = false;
        RowReader::for_words(pattern,
                             [&](std::string_view word) { size_given |= reader.pattern_word(word); });
        RowReader::for_words(operands, [&](std::string_view word) { reader.operand_word(word); });
        u16* target = nullptr;
        RowReader::for_words(flags, [&](std::string_view word) { reader.flag_word(word, target); });
        if (!size_given) reader.form.size_rule = reader.default_size_rule();
        form = reader.form;
    }
};

// The rows of one map with their index; rows come sorted by opcode, and within an opcode that asks for
// modrm.reg in every row, by modrm.reg. The first row that matches wins.
template <size_t N>
struct IndexedRows {
    static constexpr size_t kMaxGroups = 40;
    std::array<Form, N> forms{};
    std::array<Slot, 256> slots{};
    std::array<std::array<Slot, 8>, kMaxGroups> groups{};

    consteval explicit IndexedRows(const Row (&rows)[N]) {
        size_t group_count = 0;
        for (size_t i = 0; i < N;) {
            size_t end = i;
            bool grouped = true;
            bool has_modrm = false;
            for (; end < N && rows[end].opcode == rows[i].opcode; ++end) {
                forms[end] = rows[end].form;
                grouped &= (rows[end].form.mask & key::kReg) != 0;
                has_modrm |= rows[end].form.traits.has(Trait::NeedsModrm);
                if (rows[end].opcode_count != rows[i].opcode_count) misplaced_row();
                for (size_t before = i; before < end; ++before)
                    if (hides(forms[before], rows[end].form)) misplaced_row();
            }
            Slot slot{static_cast<u16>(i), static_cast<u8>(end - i), false, has_modrm};
            if (grouped) {
                fill_group(groups[group_count], rows, i, end);
                slot.first = static_cast<u16>(group_count++);
                slot.grouped = true;
            }
            for (unsigned k = 0; k < rows[i].opcode_count; ++k) {
                if (slots[rows[i].opcode + k].count != 0) misplaced_row();
                slots[rows[i].opcode + k] = slot;
            }
            i = end;
        }
    }

    [[nodiscard]] constexpr OpcodeMap map() const { return {forms.data(), slots.data(), groups.data()}; }

private:
    static void misplaced_row() {}  // not constexpr: reaching it is the compile error

    // Every encoding of `later` is already taken by `earlier`.
    static constexpr bool hides(const Form& earlier, const Form& later) {
        return (earlier.mask & ~later.mask) == 0 && (later.value & earlier.mask) == earlier.value;
    }

    static constexpr void fill_group(std::array<Slot, 8>& group, const Row (&rows)[N], size_t begin,
                                     size_t end) {
        u32 last = 0;
        for (size_t i = begin; i < end; ++i) {
            const u32 reg = (rows[i].form.value & key::kReg) >> 11;
            if (reg < last) misplaced_row();
            last = reg;
            if (group[reg].count == 0) group[reg].first = static_cast<u16>(i);
            group[reg].count = static_cast<u8>(group[reg].count + 1);
        }
    }
};

}  // namespace tessera::x86::tables
