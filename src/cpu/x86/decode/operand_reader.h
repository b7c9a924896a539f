// The part of the decoder that reads what stands behind the opcode: addressing forms, registers, immediates.
// Each of these is called in one place; as functions of their own they would make decoding a fifth slower.
#pragma once

#include <array>
#include <bit>
#include <cstring>

#include "cpu/x86/decode/form.h"
#include "cpu/x86/decode/sizes.h"

namespace tessera::x86 {

class OperandReader {
protected:
    using Source = tables::Source;
    using Trait = tables::Trait;

    OperandReader(std::span<const u8> bytes, CodeSize size, Insn& out)
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

    [[nodiscard]] bool exhausted() const { return position_ > available_; }

    template <typename T>
    T take() {
        T value{};
        std::memcpy(&value, bytes_.data() + position_, sizeof value);
        position_ += sizeof value;
        return value;
    }

    [[nodiscard]] u8 rm() const { return static_cast<u8>((out_.modrm & 7) | (rex_ & 1) << 3); }
    [[nodiscard]] u8 reg() const { return static_cast<u8>((out_.modrm >> 3 & 7) | (rex_ & 4) << 1); }

    // [SDM 2A 2.1.5] False if the addressing form is not one for this instruction.
    [[gnu::always_inline]] bool read_memory(const tables::Form& form) {
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

    // False if the register does not exist.
    [[gnu::always_inline]] bool read_operand(const tables::OperandSpec& spec, unsigned n) {
        Operand& operand = out_.operand[n];
        const auto size_log2 = static_cast<unsigned>(std::countr_zero(out_.operand_size));
        const unsigned column = size_log2 + (out_.has(InsnFlag::VexL) ? 4 : 0);
        operand.size = tables::kSizes[static_cast<size_t>(spec.size)][column];
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
    u8 rex_ = 0;  // also what VEX says in its place
    u8 override_ = kNoRegister;
    unsigned position_ = 0;
    unsigned available_ = 0;
    std::array<u8, 48> bytes_{};

private:
    static constexpr u64 mask_of(unsigned bytes) { return bytes >= 8 ? ~u64{0} : (u64{1} << bytes * 8) - 1; }

    template <typename T>
    void displacement() {
        out_.displacement_offset = static_cast<u8>(position_);
        out_.displacement_size = sizeof(T);
        // NOLINTNEXTLINE(bugprone-signed-char-misuse): a displacement of one byte is a signed number.
        out_.displacement = static_cast<s64>(take<T>());
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

    [[gnu::always_inline]] void read_immediate(Source source, Operand& operand) {
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
};

}  // namespace tessera::x86
