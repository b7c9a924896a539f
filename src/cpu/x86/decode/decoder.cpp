// The decoder: prefixes, opcode, modrm, and the matching row of the opcode tables. What that says about
// operands is read in operand_reader.h.
#include "cpu/x86/decode/flags.h"
#include "cpu/x86/decode/operand_reader.h"

namespace tessera::x86 {

namespace {

using tables::Form;
using tables::kOperandSizes;
using tables::kPrefixes;
using tables::OpcodeMap;
using tables::Prefix;
using tables::Slot;
namespace key = tables::key;

class Decoder : OperandReader {
public:
    Decoder(std::span<const u8> bytes, CodeSize size, Insn& out) : OperandReader(bytes, size, out) {}

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

    bool vex_ = false;
    bool vvvv_unused_ = true;
    u8 vex_prefix_ = 0;
    u8 repeat_ = 0;  // F2 or F3
};

}  // namespace

DecodeStatus decode(std::span<const u8> bytes, CodeSize size, Insn& out) {
    return Decoder(bytes, size, out).run();
}

}  // namespace tessera::x86
