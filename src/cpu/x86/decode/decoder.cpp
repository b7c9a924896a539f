// The decoder: prefixes, opcode, modrm, displacement, and what the matching row of the opcode tables says
// about operands.
#include <array>
#include <bit>
#include <cstring>

#include "cpu/x86/decode/flags.h"
#include "cpu/x86/decode/form.h"
#include "cpu/x86/decode/sizes.h"

namespace tessera::x86 {

namespace {

using tables::Form;
using tables::kOperandSizes;
using tables::kPrefixes;
using tables::kSizes;
using tables::OpcodeMap;
using tables::OperandSpec;
using tables::Prefix;
using tables::Slot;
using tables::Source;
using tables::Trait;
namespace key = tables::key;

constexpr u64 mask_of(unsigned bytes) {
    return bytes >= 8 ? ~u64{0} : (u64{1} << bytes * 8) - 1;
}

class Decoder {
public:
    Decoder(std::span<const u8> bytes, CodeSize size, Insn& out)
        : out_(out), size_(size), mode64_(size == CodeSize::Bits64) {
        // Copied with padding, so that nothing below needs to look where the bytes end before reading;
        // `exhausted` tells afterwards. The most an instruction of legal prefixes and overlong tail can reach
        // is below the buffer's size.
        if (bytes.size() > kMaxInsnLength) {
            std::memcpy(bytes_.data(), bytes.data(), kMaxInsnLength + 1);
            available_ = kMaxInsnLength;
        } else {
            if (!bytes.empty()) std::memcpy(bytes_.data(), bytes.data(), bytes.size());
            available_ = static_cast<unsigned>(bytes.size());
        }
    }

    DecodeStatus run() {
        out_ = Insn{};
        out_.code_size = size_;
        if (!read_prefixes()) return overrun();
        const OpcodeMap* map = &tables::one_byte_map;
        const u8 first = bytes_[position_];
        if (first == 0x0f) {
            map = escape();
        } else if ((first & 0xfe) == 0xc4 && (mode64_ || bytes_[position_ + 1] >= 0xc0)) {
            if (position_ + 1 >= available_) return overrun();
            map = vex(first);
            if (map == nullptr) return exhausted() ? overrun() : invalid();
        }
        out_.opcode_offset = static_cast<u8>(position_);
        out_.opcode = bytes_[position_++];
        if (exhausted()) return overrun();

        const Slot* slot = &map->slots[out_.opcode];
        if (slot->count == 0) return invalid();
        const bool has_modrm = slot->has_modrm;
        if (has_modrm) {
            out_.modrm = bytes_[position_++];
            out_.flags.set(InsnFlag::HasModrm);
            if (exhausted()) return overrun();
            if (slot->grouped) slot = &map->groups[slot->first][out_.modrm >> 3 & 7];
        }
        const Form* form = match(*map, *slot);
        if (form == nullptr) return invalid();
        return finish(*form, has_modrm);
    }

private:
    [[nodiscard]] bool exhausted() const { return position_ > available_; }

    DecodeStatus overrun() {
        out_.mnemonic = Mnemonic::Invalid;
        out_.length = static_cast<u8>(available_);
        return available_ == kMaxInsnLength ? DecodeStatus::TooLong : DecodeStatus::NeedMore;
    }

    DecodeStatus invalid() {
        out_.mnemonic = Mnemonic::Invalid;
        out_.length = static_cast<u8>(position_ < available_ ? position_ : available_);
        return DecodeStatus::Invalid;
    }

    // Any number in any order; of F2 and F3 the last one counts, and a REX only right before the opcode [SDM
    // 2A 2.1.1, 2.2.1]. False if the bytes end here.
    bool read_prefixes() {
        for (; position_ < available_; ++position_) {
            const u8 byte = bytes_[position_];
            const Prefix prefix = kPrefixes[byte];
            if (prefix == Prefix::None) return true;
            if (prefix == Prefix::Rex) {
                if (!mode64_) return true;
                rex_ = byte;
                continue;
            }
            rex_ = 0;
            switch (prefix) {
                case Prefix::OperandSize: out_.flags.set(InsnFlag::OperandSizePrefix); break;
                case Prefix::AddressSize: out_.flags.set(InsnFlag::AddressSizePrefix); break;
                case Prefix::Lock: lock_ = true; break;
                case Prefix::Rep:
                case Prefix::Repne: repeat_ = byte; break;
                default:
                    // In 64-bit mode ES, CS, SS, DS overrides are ignored; they do not undo FS or GS either.
                    out_.flags.set(InsnFlag::SegmentOverride);
                    if (!mode64_ || prefix >= Prefix::Fs)
                        override_ = static_cast<u8>(static_cast<u8>(prefix) - static_cast<u8>(Prefix::Es));
                    break;
            }
        }
        return false;
    }

    // Behind a 0F; leaves the position at the opcode.
    const OpcodeMap* escape() {
        ++position_;
        const u8 second = bytes_[position_];
        if (second == 0x38 || second == 0x3a) {
            ++position_;
            out_.map = second == 0x38 ? 2 : 3;
            return second == 0x38 ? &tables::three_byte38_map : &tables::three_byte3a_map;
        }
        out_.map = 1;
        return &tables::two_byte_map;
    }

    // [SDM 2A 2.3.5] The VEX prefix takes the place of REX, 66, F2, F3 and the escapes; with one of them or
    // LOCK before it, it is #UD. Leaves the position at the opcode; null if there is no such instruction.
    const OpcodeMap* vex(u8 first) {
        if (lock_ || repeat_ != 0 || rex_ != 0 || out_.has(InsnFlag::OperandSizePrefix)) return nullptr;
        u8 inverted_rxb = static_cast<u8>(bytes_[position_ + 1] & 0x80);
        u8 map_number = 1;
        if (first == 0xc4) {
            inverted_rxb = static_cast<u8>(bytes_[position_ + 1] & 0xe0);
            map_number = bytes_[position_ + 1] & 0x1f;
            ++position_;
        } else {
            inverted_rxb |= 0x60;
        }
        const u8 last = bytes_[position_ + 1];
        position_ += 2;
        if (exhausted()) return nullptr;

        u8 rex = static_cast<u8>(0x40 | (~inverted_rxb & 0xe0) >> 5);
        // The order of R, X, B is that of REX.
        if (first == 0xc4 && (last & 0x80) != 0) rex |= 8;
        // [SDM 2A 2.3.5.4, 2.3.5.6] Outside 64-bit mode there are eight registers: B and the top bit of vvvv
        // are ignored.
        if (!mode64_) rex &= static_cast<u8>(~1);
        rex_ = rex;
        vex_ = true;
        vex_prefix_ = last & 3;
        out_.vex_vvvv = static_cast<u8>(~last >> 3 & (mode64_ ? 0xf : 7));
        vvvv_unused_ = (last & 0x78) == 0x78;
        out_.flags.set(InsnFlag::Vex);
        out_.flags.set(InsnFlag::VexL, (last & 4) != 0);
        out_.map = map_number;
        switch (map_number) {
            case 1: return &tables::vex0f_map;
            case 2: return &tables::vex0f38_map;
            case 3: return &tables::vex0f3a_map;
            default: return nullptr;
        }
    }

    const Form* match(const OpcodeMap& map, const Slot& slot) {
        u32 prefix = 0;
        if (vex_) {
            prefix = vex_prefix_;
        } else if (repeat_ != 0) {
            prefix = repeat_ == 0xf3 ? 2 : 3;
        } else if (out_.has(InsnFlag::OperandSizePrefix)) {
            prefix = 1;
        }
        u32 facts = prefix;
        if (mode64_) facts |= key::kMode64;
        if ((rex_ & 8) != 0) facts |= key::kW;
        if (out_.has(InsnFlag::VexL)) facts |= key::kL;
        if ((rex_ & 1) != 0) facts |= key::kRexB;
        facts |= static_cast<u32>(out_.modrm) << key::kModrmShift;
        if (out_.modrm >= 0xc0) facts |= key::kRegisterForm;
        const Form* form = map.forms + slot.first;
        for (unsigned i = 0; i < slot.count; ++i, ++form)
            if (form->matches(facts)) return form;
        return nullptr;
    }

    DecodeStatus finish(const Form& form, bool has_modrm) {
        const bool register_form = !has_modrm || out_.modrm >= 0xc0 || form.traits.has(Trait::AnyMod);
        const bool mov_cr_lock = lock_ && form.mnemonic == Mnemonic::MovCr;
        if (lock_ && !mov_cr_lock && (register_form || !form.traits.has(Trait::Lockable))) return invalid();
        if (vex_ && !vvvv_unused_ && !form.traits.has(Trait::UsesVvvv)) return invalid();

        out_.mnemonic = form.mnemonic;
        out_.insn_class = form.insn_class;
        out_.rex = rex_;
        out_.mandatory_prefix = form.mandatory_prefix;
        out_.flags.set(InsnFlag::Rex, rex_ != 0 && !vex_);
        out_.flags.set(InsnFlag::RexW, (rex_ & 8) != 0);
        out_.flags.set(InsnFlag::Lock, lock_);
        if (form.mandatory_prefix != repeat_) {
            out_.flags.set(InsnFlag::Rep, repeat_ == 0xf3);
            out_.flags.set(InsnFlag::Repne, repeat_ == 0xf2);
        }
        const auto size_column = static_cast<size_t>(size_) * 4 +
                                 (out_.has(InsnFlag::OperandSizePrefix) ? 2 : 0) +
                                 (out_.has(InsnFlag::RexW) ? 1 : 0);
        out_.operand_size = kOperandSizes[static_cast<size_t>(form.size_rule)][size_column];
        const u8 native = mode64_ ? 8 : size_ == CodeSize::Bits32 ? 4 : 2;
        const u8 other = native == 4 ? 2 : 4;
        out_.address_size = out_.has(InsnFlag::AddressSizePrefix) ? other : native;
        out_.segment = override_ == kNoRegister ? static_cast<u8>(Ds) : override_;
        if (!register_form && !read_memory(form)) return invalid();

        out_.operand_count = form.operand_count;
        for (unsigned i = 0; i < form.operand_count; ++i)
            if (!read_operand(form.operand[i], i)) return exhausted() ? overrun() : invalid();
        if (exhausted()) return overrun();
        if (out_.has(InsnFlag::Vsib) && gather_registers_clash()) return invalid();
        tables::set_flags(form, out_);
        if (form.mnemonic == Mnemonic::Fcmovcc)
            out_.condition = static_cast<u8>((out_.opcode & 1) << 2 | (out_.modrm >> 3 & 3));
        out_.length = static_cast<u8>(position_);
        return DecodeStatus::Ok;
    }

    template <typename T>
    T take() {
        T value{};
        std::memcpy(&value, bytes_.data() + position_, sizeof value);
        position_ += sizeof value;
        return value;
    }

    [[nodiscard]] u8 rm() const { return static_cast<u8>((out_.modrm & 7) | (rex_ & 1) << 3); }
    [[nodiscard]] u8 reg() const { return static_cast<u8>((out_.modrm >> 3 & 7) | (rex_ & 4) << 1); }

    template <typename T>
    void displacement() {
        out_.displacement_offset = static_cast<u8>(position_);
        out_.displacement_size = sizeof(T);
        // NOLINTNEXTLINE(bugprone-signed-char-misuse): a displacement of one byte is a signed number.
        out_.displacement = static_cast<s64>(take<T>());
    }

    // [SDM 2A 2.1.5] False if the addressing form is not one for this instruction.
    bool read_memory(const Form& form) {
        const bool vsib = form.traits.has(Trait::VsibX) || form.traits.has(Trait::Vsib16);
        if (out_.address_size == 2) {
            read_memory16();
            return !vsib;
        }
        const unsigned mod = out_.modrm >> 6;
        u8 base = out_.modrm & 7;
        bool has_base = true;
        if (base == 4) {
            const u8 sib = take<u8>();
            base = sib & 7;
            has_base = base != 5 || mod != 0;
            const u8 index = static_cast<u8>((sib >> 3 & 7) | (rex_ & 2) << 2);
            if (index != 4 || vsib) {
                out_.index = index;
                out_.scale = sib >> 6;
            }
            if (vsib) {
                out_.flags.set(InsnFlag::Vsib);
                out_.vsib_size = form.traits.has(Trait::VsibX) && out_.has(InsnFlag::VexL) ? 32 : 16;
            }
        } else if (vsib) {
            return false;
        } else if (base == 5 && mod == 0) {
            has_base = false;
            if (mode64_) out_.base = kRipBase;
        }
        if (has_base) {
            out_.base = static_cast<u8>(base | (rex_ & 1) << 3);
            // An address based on the stack is in the stack segment: in 64-bit mode that still makes it #SS,
            // not #GP.
            if (override_ == kNoRegister && (out_.base == Rsp || out_.base == Rbp)) out_.segment = Ss;
        }
        if (mod == 1) {
            displacement<s8>();
        } else if (mod == 2 || !has_base) {
            displacement<s32>();
        }
        return true;
    }

    void read_memory16() {
        struct Registers {
            u8 base, index;
        };
        static constexpr std::array<Registers, 8> kForms = {{
            {Rbx, Rsi},
            {Rbx, Rdi},
            {Rbp, Rsi},
            {Rbp, Rdi},
            {Rsi, kNoRegister},
            {Rdi, kNoRegister},
            {Rbp, kNoRegister},
            {Rbx, kNoRegister},
        }};
        const unsigned mod = out_.modrm >> 6;
        if (mod == 0 && (out_.modrm & 7) == 6) {
            displacement<s16>();
            return;
        }
        out_.base = kForms[out_.modrm & 7].base;
        out_.index = kForms[out_.modrm & 7].index;
        if (override_ == kNoRegister && out_.base == Rbp) out_.segment = Ss;
        if (mod == 1) displacement<s8>();
        if (mod == 2) displacement<s16>();
    }

    void set_gpr(Operand& operand, u8 number) const {
        operand.kind = OperandKind::Gpr;
        operand.reg = number;
        // Without REX the byte registers 4-7 are AH, CH, DH, BH.
        if (operand.size == 1 && rex_ == 0 && number >= 4) {
            operand.kind = OperandKind::GprHigh;
            operand.reg = static_cast<u8>(number - 4);
        }
    }

    template <typename T>
    void immediate(Operand& operand) {
        begin_immediate(sizeof(T));
        operand.kind = OperandKind::Immediate;
        out_.immediate = static_cast<u64>(static_cast<s64>(take<T>())) & mask_of(operand.size);
    }

    template <typename T>
    void relative(Operand& operand) {
        begin_immediate(sizeof(T));
        operand.kind = OperandKind::Relative;
        out_.immediate = static_cast<u64>(static_cast<s64>(take<T>()));
    }

    void begin_immediate(size_t bytes) {
        if (out_.immediate_size == 0) out_.immediate_offset = static_cast<u8>(position_);
        out_.immediate_size = static_cast<u8>(out_.immediate_size + bytes);
    }

    static void set_fixed(Operand& operand, OperandKind kind, u8 number) {
        operand.kind = kind;
        operand.reg = number;
    }

    // False if the register does not exist.
    bool read_operand(const OperandSpec& spec, unsigned n) {
        Operand& operand = out_.operand[n];
        const auto size_log2 = static_cast<unsigned>(std::countr_zero(out_.operand_size));
        const unsigned column = size_log2 + (out_.has(InsnFlag::VexL) ? 4 : 0);
        operand.size = kSizes[static_cast<size_t>(spec.size)][column];
        const bool memory = out_.modrm < 0xc0;
        switch (spec.source) {
            case Source::None: break;
            case Source::RegGpr: set_gpr(operand, reg()); break;
            case Source::RmGpr:
                if (memory) {
                    operand.kind = OperandKind::Memory;
                } else {
                    set_gpr(operand, rm());
                }
                break;
            case Source::OpcodeGpr:
                set_gpr(operand, static_cast<u8>((out_.opcode & 7) | (rex_ & 1) << 3));
                break;
            case Source::VvvvGpr: set_fixed(operand, OperandKind::Gpr, out_.vex_vvvv); break;
            case Source::Accumulator: set_fixed(operand, OperandKind::Gpr, Rax); break;
            case Source::Cl: set_fixed(operand, OperandKind::Gpr, Rcx); break;
            case Source::Dx: set_fixed(operand, OperandKind::Gpr, Rdx); break;
            case Source::RmMemory: operand.kind = OperandKind::Memory; break;
            case Source::AnyModGpr: set_fixed(operand, OperandKind::Gpr, rm()); break;
            case Source::RegSegment: return read_segment_register(operand, n);
            case Source::RegControl: return read_control_register(operand);
            case Source::RegDebug: set_fixed(operand, OperandKind::Debug, reg()); return operand.reg < 8;
            case Source::RegMmx: set_fixed(operand, OperandKind::Mmx, out_.modrm >> 3 & 7); break;
            case Source::RmMmx:
                set_fixed(operand, memory ? OperandKind::Memory : OperandKind::Mmx,
                          memory ? 0 : out_.modrm & 7);
                break;
            case Source::RegVector: set_fixed(operand, OperandKind::Vector, reg()); break;
            case Source::RmVector:
                set_fixed(operand, memory ? OperandKind::Memory : OperandKind::Vector, memory ? 0 : rm());
                break;
            case Source::VvvvVector: set_fixed(operand, OperandKind::Vector, out_.vex_vvvv); break;
            case Source::ImmediateVector:
                begin_immediate(1);
                // [SDM 2A 2.3.5] Bit 7 is ignored where there are eight registers.
                set_fixed(operand, OperandKind::Vector,
                          static_cast<u8>(take<u8>() >> 4 & (mode64_ ? 0xf : 7)));
                break;
            case Source::Xmm0: set_fixed(operand, OperandKind::Vector, 0); break;
            case Source::St0: set_fixed(operand, OperandKind::St, 0); break;
            case Source::StRm: set_fixed(operand, OperandKind::St, out_.modrm & 7); break;
            case Source::Moffs: read_moffs(operand); break;
            case Source::FixedSegment: set_fixed(operand, OperandKind::Segment, Es); break;
            default: {
                const auto segment =
                    static_cast<u8>(static_cast<u8>(spec.source) - static_cast<u8>(Source::FixedSegment));
                if (segment < 6) {
                    set_fixed(operand, OperandKind::Segment, segment);
                } else {
                    read_immediate(spec.source, operand);
                }
            }
        }
        return true;
    }

    void read_immediate(Source source, Operand& operand) {
        switch (source) {
            case Source::Imm8: immediate<u8>(operand); break;
            case Source::Imm8Signed: immediate<s8>(operand); break;
            case Source::Imm16: immediate<u16>(operand); break;
            case Source::ImmZ:
                if (out_.operand_size == 2) {
                    immediate<s16>(operand);
                } else {
                    immediate<s32>(operand);
                }
                break;
            case Source::ImmV:
                if (out_.operand_size == 2) {
                    immediate<u16>(operand);
                } else if (out_.operand_size == 4) {
                    immediate<u32>(operand);
                } else {
                    immediate<u64>(operand);
                }
                break;
            case Source::ImmOne:
                operand.kind = OperandKind::Immediate;
                out_.immediate = 1;
                break;
            case Source::Imm8Second:
                begin_immediate(1);
                operand.kind = OperandKind::Immediate2;
                out_.immediate2 = take<u8>();
                break;
            case Source::Rel8: relative<s8>(operand); break;
            case Source::RelZ:
                if (out_.operand_size == 2) {
                    relative<s16>(operand);
                } else {
                    relative<s32>(operand);
                }
                break;
            case Source::FarPointer:
                begin_immediate(operand.size);
                operand.kind = OperandKind::FarPointer;
                out_.immediate = out_.operand_size == 2 ? take<u16>() : take<u32>();
                out_.immediate2 = take<u16>();
                break;
            default: break;
        }
    }

    bool read_segment_register(Operand& operand, unsigned n) {
        set_fixed(operand, OperandKind::Segment, out_.modrm >> 3 & 7);
        return operand.reg <= Gs && (n != 0 || operand.reg != Cs);
    }

    // [SDM 2B MOV CR] CR1, CR5-7, CR9-15 are #UD. [APM 3 MOV CRn] LOCK MOV CR0 is the way to CR8 without REX.
    bool read_control_register(Operand& operand) {
        u8 number = reg();
        if (lock_) {
            if (number != 0) return false;
            number = 8;
        }
        set_fixed(operand, OperandKind::Control, number);
        return number == 0 || number == 2 || number == 3 || number == 4 || number == 8;
    }

    void read_moffs(Operand& operand) {
        operand.kind = OperandKind::Memory;
        out_.displacement_offset = static_cast<u8>(position_);
        out_.displacement_size = out_.address_size;
        switch (out_.address_size) {
            case 2: out_.displacement = take<u16>(); break;
            case 4: out_.displacement = take<u32>(); break;
            default: out_.displacement = take<s64>(); break;
        }
    }

    // [SDM 2C VGATHERDPS] #UD if destination, index and mask are not three different registers.
    [[nodiscard]] bool gather_registers_clash() const {
        const u8 destination = out_.operand[0].reg;
        const u8 mask = out_.operand[2].reg;
        return destination == mask || destination == out_.index || mask == out_.index;
    }

    Insn& out_;
    CodeSize size_;
    bool mode64_;
    bool lock_ = false;
    bool vex_ = false;
    bool vvvv_unused_ = true;
    u8 vex_prefix_ = 0;
    u8 rex_ = 0;     // also what VEX says in its place
    u8 repeat_ = 0;  // F2 or F3
    u8 override_ = kNoRegister;
    unsigned position_ = 0;
    unsigned available_ = 0;
    std::array<u8, 48> bytes_{};
};

}  // namespace

DecodeStatus decode(std::span<const u8> bytes, CodeSize size, Insn& out) {
    return Decoder(bytes, size, out).run();
}

}  // namespace tessera::x86
