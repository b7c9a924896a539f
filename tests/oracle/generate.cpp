#include "tests/oracle/generate.h"

#include <cstring>

namespace tessera::oracle {

namespace {

using x86::Insn;
using x86::InsnClass;
using x86::InsnFlag;
using x86::Mnemonic;
using x86::OperandKind;

constexpr u64 kMiddle = kDataBase + kDataSize / 2;

// What cannot run or be compared here. System instructions have tests of their own.
bool allowed(const Insn& in, bool fs) {
    switch (in.insn_class) {
        case InsnClass::System:
        case InsnClass::XState: return false;
        // A REP prefix makes this processor swap LOOPE and LOOPNE, which no manual says.
        case InsnClass::Branch:
            return in.is(0, OperandKind::Relative) && !in.has(InsnFlag::Rep) && !in.has(InsnFlag::Repne);
        case InsnClass::String:
            return in.mnemonic != Mnemonic::Ins && in.mnemonic != Mnemonic::Outs &&
                   (fs || in.segment != x86::Fs);
        default: break;
    }
    switch (in.mnemonic) {
        case Mnemonic::Popf:                  // TF and AC would leave the comparison
        case Mnemonic::Fnstenv:               // their instruction and data pointers are the
        case Mnemonic::Fnsave: return false;  // host's own (unit tests cover them)
        default: break;
    }
    // Else FS holds the host's thread pointer.
    return fs || in.segment != x86::Fs || !in.has(InsnFlag::SegmentOverride);
}

bool has_memory(const Insn& in) {
    for (unsigned i = 0; i < in.operand_count; ++i)
        if (in.is(i, OperandKind::Memory)) return true;
    return false;
}

class Generator {
public:
    Generator(u64 seed, const Wish& wish) : random_(seed), wish_(wish), wanted_(wish.insn) {}

    [[nodiscard]] std::optional<Encoding> find(Mnemonic mnemonic) {
        std::array<u8, 24> bytes{};
        Insn in;
        for (unsigned tries = 0; tries < 1'000'000; ++tries) {
            random_bytes(bytes);
            if (x86::decode(std::span(bytes).first(15), x86::CodeSize::Bits64, in) == x86::DecodeStatus::Ok &&
                in.mnemonic == mnemonic && allowed(in, false))
                return Encoding{mnemonic, in.has(InsnFlag::Vex), in.map, in.opcode, in.mandatory_prefix};
        }
        return std::nullopt;
    }

    Case make() {
        if (wish_.flow && random_.chance(15)) out_.code_offset = 4096 - random_.below(90);
        registers();
        out_.data_seed = random_.next();
        out_.counter = 1 + random_.below(random_.chance(80) ? 6 : 40);
        const unsigned length = wish_.length;
        for (unsigned i = 0; i < length; ++i) {
            units_.push_back(out_.code.size());
            if (wish_.flow && random_.chance(25))
                branch(i);
            else
                instruction(length == 1, i + 1 == length);
        }
        units_.push_back(out_.code.size());
        finish();
        resolve();
        return std::move(out_);
    }

    // Other values in what is not fixed.
    void vary(Case& test) {
        for (unsigned i = 0; i < 16; ++i)
            if ((test.fixed_gprs >> i & 1) == 0 && i != x86::Rsp) test.in.gpr[i] = gpr_value();
        test.in.rflags = start_flags();
        u8* legacy = test.in.fp.legacy.data();
        for (unsigned i = 0; i < 2; ++i) vector_value(legacy + 160 + random_.below(16) * 16, 16);
        x87_value(legacy + 32 + random_.below(8) * 16);
        test.counter = 1 + random_.below(8);
    }

private:
    // --- the starting state

    void registers() {
        for (auto& r : out_.in.gpr) r = gpr_value();
        out_.in.gpr[x86::Rsp] = stack_pointer();
        // 32-bit code must not see what 64-bit code left there.
        if (!wide()) out_.in.gpr[x86::Rsp] |= random_.next() << 32;
        out_.in.rip = here();
        out_.in.rflags = start_flags();
        XsaveImage& fp = out_.in.fp;
        u8* legacy = fp.legacy.data();
        const u16 control = static_cast<u16>(0x40 | (random_.next() & 0xf00) |
                                             (random_.chance(95) ? 0x3f : random_.below(64)));
        const u16 status = static_cast<u16>(random_.chance(60) ? 0 : random_.next() & 0x7f00 & ~0x80);
        std::memcpy(legacy, &control, 2);
        std::memcpy(legacy + 2, &status, 2);
        legacy[4] = random_.chance(60) ? 0xff : static_cast<u8>(random_.next());
        const u32 mxcsr = static_cast<u32>((random_.chance(95) ? 0x1f80 : random_.next() & 0x1f80) |
                                           (random_.chance(60) ? 0 : random_.next() & 0xe07f));
        std::memcpy(legacy + 24, &mxcsr, 4);
        legacy[28] = 0xff;
        legacy[29] = 0xff;
        for (unsigned i = 0; i < 8; ++i) x87_value(legacy + 32 + i * 16);
        for (unsigned i = 0; i < 16; ++i) {
            vector_value(legacy + 160 + i * 16, 16);
            vector_value(reinterpret_cast<u8*>(&fp.ymm_high[i]), 16);
        }
        fp.header[0] = 7;
    }

    [[nodiscard]] bool wide() const { return wish_.code_size == x86::CodeSize::Bits64; }
    [[nodiscard]] u64 here() const { return kCodeBase + out_.code_offset + out_.code.size(); }
    u64 gpr_value() { return random_.chance(10) ? target(8) : random_.value(); }
    u64 start_flags() { return 0x202 | (random_.next() & 0x8d5) | (random_.chance(10) ? 0x400 : 0); }

    void x87_value(u8* to) {
        const u64 mantissa = random_.chance(70) ? random_.value() | (u64{1} << 63) : random_.value();
        u16 exponent = static_cast<u16>(random_.next());
        if (random_.chance(60))
            exponent = static_cast<u16>((exponent & 0x8000) | (0x3fff - 40 + random_.below(80)));
        if (random_.chance(10))
            exponent = static_cast<u16>((exponent & 0x8000) | (random_.chance(50) ? 0x7fff : 0));
        std::memcpy(to, &mantissa, 8);
        std::memcpy(to + 8, &exponent, 2);
    }

    // Lanes that mean something: integers, floats, doubles, with the special ones among them.
    void vector_value(u8* to, std::size_t size) {
        static constexpr std::array<u32, 10> kFloats{0x3f800000, 0xbf800000, 0x7f800000, 0x7fc00000,
                                                     0x7f800001, 0x00000001, 0x00800000, 0x80000000,
                                                     0x7f7fffff, 0x4f000000};
        static constexpr std::array<u64, 10> kDoubles{
            0x3ff0000000000000, 0xbff0000000000000, 0x7ff0000000000000, 0x7ff8000000000000,
            0x7ff0000000000001, 0x0000000000000001, 0x0010000000000000, 0x8000000000000000,
            0x7fefffffffffffff, 0x43e0000000000000};
        const u64 kind = random_.below(4);
        for (std::size_t at = 0; at < size; at += 8) {
            u64 lane = random_.value();
            if (kind == 1) {
                const auto one = [&]() -> u64 {
                    if (random_.chance(30)) return kFloats[random_.below(kFloats.size())];
                    return (random_.next() & 0x80ff'ffff) | ((u64{100} + random_.below(60)) << 23);
                };
                lane = one() | (one() << 32);
            } else if (kind == 2) {
                lane = random_.chance(30) ? kDoubles[random_.below(kDoubles.size())]
                                          : (random_.next() & 0x800f'ffff'ffff'ffff) |
                                                ((u64{980} + random_.below(90)) << 52);
            }
            std::memcpy(to + at, &lane, 8);
        }
    }

    u64 stack_pointer() {
        u64 rsp = kMiddle + random_.below(512) * 8;
        if (random_.chance(10)) rsp += random_.below(8);
        if (random_.chance(3)) rsp = kDataBase + random_.below(16);
        if (wish_.flow && random_.chance(15))
            rsp = kDataBase + 4096 * (1 + random_.below(2)) - random_.below(100);
        return rsp;
    }

    // An address for `size` bytes: mostly inside the data, sometimes over a page's edge, read-only or
    // unmapped.
    u64 target(unsigned size) {
        const u64 kind = random_.below(100);
        const u64 align = size > 8 ? 32 : 8;
        if (kind < 55) return kDataBase + random_.below(kDataSize / align - 2) * align;
        if (kind < 80) return kDataBase + random_.below(kDataSize - 64);
        if (kind < 90) return kDataBase + 4096 * (1 + random_.below(2)) - random_.below(40);
        if (kind < 94) return kReadOnlyBase + random_.below(4000);
        if (kind < 96) return kReadOnlyBase - random_.below(20);
        if (kind < 98) return kReadOnlyBase + 4096 - random_.below(40);
        // Not canonical, or not mapped. (Kernel addresses would tell whether the host maps them.)
        return random_.chance(50) ? (u64{1} << 47) + random_.below(u64{1} << 62) : kDataBase - 8;
    }

    static u64 base_of(const Insn& in) {
        return in.segment == x86::Gs ? kGsBase : in.segment == x86::Fs ? kFsBase : 0;
    }

    // --- instructions

    // As random_bytes, with the encoding's fixed parts in their places.
    void wanted_bytes(const Encoding& wanted, std::array<u8, 24>& b) {
        unsigned n = 0;
        if (random_.chance(4)) b[n++] = 0x67;
        if (random_.chance(3)) b[n++] = 0x65;
        if (wanted.vex) {
            b[n++] = 0xc4;
            b[n++] = static_cast<u8>((random_.next() & 0xe0) | wanted.map);
            const u8 prefix = wanted.prefix;
            const u64 pp = prefix == 0xf3 ? 2 : prefix == 0xf2 ? 3 : prefix != 0 ? 1 : 0;
            b[n++] = static_cast<u8>((random_.next() & 0xfc) | (random_.chance(50) ? 0x78 : 0) | pp);
        } else {
            if (wanted.prefix != 0) b[n++] = wanted.prefix;
            if (random_.chance(55)) b[n++] = static_cast<u8>(0x40 | random_.below(16));
            if (wanted.map != 0) b[n++] = 0x0f;
            if (wanted.map > 1) b[n++] = wanted.map == 2 ? 0x38 : 0x3a;
        }
        b[n++] = wanted.opcode;
        while (n < b.size()) b[n++] = static_cast<u8>(random_.next());
    }

    void random_bytes(std::array<u8, 24>& b) {
        if (wanted_) return wanted_bytes(*wanted_, b);
        unsigned n = 0;
        const u64 kind = random_.below(100);
        const bool vex = kind >= 72;
        if (random_.chance(4)) b[n++] = 0x67;
        if (random_.chance(4)) b[n++] = wish_.fs && random_.chance(40) ? 0x64 : 0x65;
        if (wish_.flow && random_.chance(50)) return usual_bytes(b, n);
        if (!vex) {
            if (random_.chance(25)) b[n++] = 0x66;
            if (random_.chance(20)) b[n++] = random_.chance(50) ? 0xf2 : 0xf3;
            if (random_.chance(5)) b[n++] = 0xf0;
            if (wide() && random_.chance(55)) b[n++] = static_cast<u8>(0x40 | random_.below(16));
            if (kind >= 30) b[n++] = 0x0f;
            if (kind >= 58) b[n++] = kind < 66 ? 0x38 : 0x3a;
        } else if (random_.chance(30)) {
            b[n++] = 0xc5;
            b[n++] = static_cast<u8>(random_.next());
        } else {
            b[n++] = 0xc4;
            b[n++] = static_cast<u8>((random_.next() & 0xe0) | (1 + random_.below(3)));
            b[n++] = static_cast<u8>(random_.next());
            if (random_.chance(50)) b[n - 1] |= 0x78;  // vvvv = none
        }
        while (n < b.size()) b[n++] = static_cast<u8>(random_.next());
    }

    // What compilers use most, and what the flags are live across.
    void usual_bytes(std::array<u8, 24>& b, unsigned n) {
        static constexpr std::array<u8, 56> kOneByte{
            0x01, 0x03, 0x09, 0x0b, 0x11, 0x13, 0x19, 0x1b, 0x21, 0x23, 0x29, 0x2b, 0x31, 0x33,
            0x39, 0x3b, 0x38, 0x3a, 0x50, 0x53, 0x54, 0x58, 0x5b, 0x5c, 0x5e, 0x63, 0x69, 0x6b,
            0x80, 0x81, 0x83, 0x85, 0x87, 0x88, 0x89, 0x89, 0x8a, 0x8b, 0x8b, 0x8b, 0x8d, 0x8d,
            0x98, 0x99, 0x9c, 0x9e, 0x9f, 0xc1, 0xc7, 0xc9, 0xd1, 0xd3, 0xf7, 0xf7, 0xfe, 0xff};
        static constexpr std::array<u8, 22> kTwoBytes{0x10, 0x11, 0x28, 0x29, 0x40, 0x42, 0x44, 0x4c,
                                                      0x92, 0x94, 0x98, 0x9d, 0xa3, 0xaf, 0xb1, 0xb6,
                                                      0xb7, 0xba, 0xbe, 0xc1, 0xef, 0x6f};
        if (random_.chance(8)) b[n++] = 0x66;
        if (wide() && random_.chance(80)) b[n++] = static_cast<u8>(0x40 | random_.below(16));
        if (random_.chance(75)) {
            b[n++] = kOneByte[random_.below(kOneByte.size())];
        } else {
            b[n++] = 0x0f;
            b[n++] = kTwoBytes[random_.below(kTwoBytes.size())];
        }
        while (n < b.size()) b[n++] = static_cast<u8>(random_.next());
    }

    // --- ways through the code

    void put_bytes(std::initializer_list<u8> bytes) {
        out_.code.insert(out_.code.end(), bytes.begin(), bytes.end());
    }
    void put_u32(u64 value) {
        for (unsigned i = 0; i < 4; ++i) out_.code.push_back(static_cast<u8>(value >> (8 * i)));
    }
    // The distance to a unit, four bytes; units that are not made yet are known at the end.
    void put_distance(unsigned unit) {
        fixups_.push_back({.at = out_.code.size(), .unit = unit, .absolute = false});
        put_u32(0);
    }
    // Its address in a register (not one of the upper eight).
    void put_address(unsigned reg, unsigned unit) {
        if (wide()) {
            put_bytes({0x48, 0x8d, static_cast<u8>(reg << 3 | 5)});  // lea reg, [rip + distance]
            return put_distance(unit);
        }
        out_.code.push_back(static_cast<u8>(0xb8 | reg));  // mov reg, address
        fixups_.push_back({.at = out_.code.size(), .unit = unit, .absolute = true});
        put_u32(0);
    }
    // xchg rcx, [kCounter]
    void exchange_counter() {
        if (wide()) put_bytes({0x48});
        put_bytes({0x87, 0x0d});
        put_u32(wide() ? kCounter - (here() + 4) : kCounter);
    }
    // An instruction of 1, 2, ... bytes that branches, to four bytes of distance.
    void conditional(unsigned unit) {
        if ((poison_ & ~kAf) != 0) define_flags();
        readers_ |= x86::eflags::kStatus & ~kAf;
        const u64 kind = random_.below(10);
        if (kind < 7) {
            put_bytes({0x0f, static_cast<u8>(0x80 | random_.below(16))});
        } else if (kind == 7) {
            put_bytes({0xe9});
        } else {
            // LOOPNE, LOOPE, LOOP, JRCXZ reach only far enough for a jump.
            if (wide() && random_.chance(20)) put_bytes({0x67});
            put_bytes({static_cast<u8>(0xe0 + random_.below(4)), 2, 0xeb, 5, 0xe9});
        }
        put_distance(unit);
    }

    void branch(unsigned i) {
        if (skip_at_ != 0) out_.code[skip_at_] = static_cast<u8>(out_.code.size() - skip_from_);
        skip_at_ = 0;
        const auto reg = static_cast<unsigned>(random_.below(3));  // rax, rcx, rdx
        const unsigned forward = i + 1 + static_cast<unsigned>(random_.below(3));
        switch (random_.below(12)) {
            case 0:
            case 1:
            case 2: conditional(forward); break;
            case 3:
            case 4:
            case 5: {
                // Back, as often as the counter allows; the flags stay as they are.
                const auto back = static_cast<unsigned>(random_.below(i + 1));
                exchange_counter();
                if (wide()) put_bytes({0x48});
                put_bytes({0x8d, 0x49, 0xff});  // lea rcx, [rcx - 1]
                put_bytes({0xe3, 0});           // jrcxz to the end
                const std::size_t out = out_.code.size();
                exchange_counter();
                conditional(back);
                put_bytes({0xe9});
                put_distance(i + 1);
                out_.code[out - 1] = static_cast<u8>(out_.code.size() - out);
                if (wide()) put_bytes({0x48});
                put_bytes({0x8d, 0x49, 0x01});  // lea rcx, [rcx + 1]
                exchange_counter();
                break;
            }
            case 6:
            case 7: {
                // A call of what follows the jump that it returns to.
                put_bytes({0xe8});
                put_u32(5);
                put_bytes({0xe9});
                put_distance(i + 1);
                instruction(false, true);
                if (random_.chance(30))
                    put_bytes({0xc2, static_cast<u8>(random_.below(3) * 8), 0});
                else
                    put_bytes({0xc3});
                break;
            }
            case 8:
                put_address(reg, forward);
                put_bytes({static_cast<u8>(0x50 | reg), 0xc3});  // push reg, ret
                break;
            case 9:
                put_address(reg, forward);
                put_bytes({0xff, static_cast<u8>((random_.chance(70) ? 0xe0 : 0xd0) | reg)});  // jmp, call
                break;
            case 10: {
                const u64 slot = kDataBase + random_.below(kDataSize - 8);
                put_address(reg, forward);
                if (wide()) put_bytes({0x48});
                put_bytes({0x89, static_cast<u8>(reg << 3 | 4), 0x25});  // mov [slot], reg
                put_u32(slot);
                put_bytes({0xff, static_cast<u8>(random_.chance(70) ? 0x24 : 0x14), 0x25});  // jmp, call
                put_u32(slot);
                break;
            }
            default: change_code(i); break;
        }
        flow_ = true;
    }

    // ADD reg, imm8, and a store to that number before or (for the next time round) after it.
    void change_code(unsigned i) {
        const auto reg = static_cast<u8>(random_.below(3));
        const auto store = [&](u64 to) {
            put_bytes({0xc6, 0x05});
            put_u32(wide() ? to - (here() + 5) : to);
            put_bytes({static_cast<u8>(random_.next())});
        };
        const auto add = [&] { put_bytes({0x83, static_cast<u8>(0xc0 | reg), static_cast<u8>(i)}); };
        if (random_.chance(50)) {
            store(here() + 7 + 2);
            add();
        } else {
            const u64 number = here() + 2;
            add();
            store(number);
        }
        out_.changes_code = true;
    }

    void resolve() {
        for (const Fixup& f : fixups_) {
            const u64 unit = units_[std::min<std::size_t>(f.unit, units_.size() - 1)];
            const u32 value =
                static_cast<u32>(f.absolute ? kCodeBase + out_.code_offset + unit : unit - (f.at + 4));
            std::memcpy(out_.code.data() + f.at, &value, sizeof(value));
        }
        for (const Insn& in : out_.insns) out_.ever_undefined |= in.flags_undefined;
        // Which instruction was the last to write a flag depends on the way.
        if (flow_) out_.undefined_flags = out_.ever_undefined;
    }

    void instruction(bool single, bool last) {
        std::array<u8, 24> bytes{};
        Insn in;
        do {
            random_bytes(bytes);
        } while (x86::decode(std::span(bytes).first(15), wish_.code_size, in) != x86::DecodeStatus::Ok ||
                 (wanted_ && in.mnemonic != wanted_->mnemonic) || !allowed(in, wish_.fs) ||
                 (in.flags_read & (out_.undefined_flags | poison_)) != 0 ||
                 (last && wish_.flow && in.insn_class == InsnClass::Branch) || !prepare(in, bytes, single));
        // Flags an instruction that may be jumped over writes are not sure to be written.
        const u32 kept = skip_at_ != 0 ? ~0U : ~u32{in.flags_written};
        out_.undefined_flags = (out_.undefined_flags & kept) | in.flags_undefined;
        out_.code.insert(out_.code.end(), bytes.begin(), bytes.begin() + in.length);
        if (skip_at_ != 0) out_.code[skip_at_] = static_cast<u8>(out_.code.size() - skip_from_);
        skip_at_ = 0;
        if (in.insn_class == InsnClass::Branch && !last) {
            skip_from_ = out_.code.size();
            skip_at_ = skip_from_ - in.length + in.immediate_offset;
        }
        out_.insns.push_back(in);
        if (!wish_.flow) return;
        readers_ |= in.flags_read;
        if ((in.flags_undefined & (readers_ | (random_.chance(50) ? ~kAf : 0U))) != 0)
            define_flags();
        else
            poison_ |= in.flags_undefined;
    }

    // CMP AL, imm8. Undefined flags are not the same in all three processors if they are what they were
    // before.
    void define_flags() {
        put_bytes({0x3c, static_cast<u8>(random_.next())});
        out_.undefined_flags = 0;
    }

    // Sets a register for the next instruction: in the starting state if nothing has run yet, else by MOV.
    void set(unsigned reg, u64 value, bool direct) {
        if (direct) {
            out_.in.gpr[reg] = value;
            out_.fixed_gprs |= 1U << reg;
            return;
        }
        if (wide()) out_.code.push_back(static_cast<u8>(0x48 | (reg >> 3)));
        out_.code.push_back(static_cast<u8>(0xb8 | (reg & 7)));
        const auto* raw = reinterpret_cast<const u8*>(&value);
        out_.code.insert(out_.code.end(), raw, raw + (wide() ? 8 : 4));
    }

    static void patch(std::array<u8, 24>& bytes, unsigned at, unsigned size, u64 value) {
        std::memcpy(bytes.data() + at, &value, size);
    }

    // Makes the operands meaningful. False: draw another instruction.
    bool prepare(Insn& in, std::array<u8, 24>& bytes, bool direct) {
        if (in.insn_class == InsnClass::Branch || in.mnemonic == Mnemonic::Xlat)
            return prepare_special(in, bytes, direct);
        if (in.insn_class == InsnClass::String) return prepare_string(in, direct);
        switch (in.mnemonic) {
            case Mnemonic::Div:
            case Mnemonic::Idiv:
                if (random_.chance(60)) set(x86::Rdx, random_.below(4), direct);
                break;
            case Mnemonic::Leave:
            case Mnemonic::Enter: set(x86::Rbp, kMiddle + random_.below(64) * 8, direct); break;
            case Mnemonic::Maskmovq:
            case Mnemonic::Maskmovdqu:
            case Mnemonic::Vmaskmovdqu: set(x86::Rdi, target(16) - base_of(in), direct); break;
            default: break;
        }
        if (!has_memory(in)) return true;
        return prepare_memory(in, bytes, direct);
    }

    bool prepare_special(Insn& in, std::array<u8, 24>& bytes, bool direct) {
        if (in.mnemonic == Mnemonic::Xlat) {
            set(x86::Rbx, target(1) - base_of(in), direct);
            return true;
        }
        // Jump to the next instruction; what the flags decide shows in loops' counters and, for conditions,
        // in SETcc and CMOVcc. Sequences jump over the next instruction.
        if (in.immediate_size == 0) return false;
        patch(bytes, in.immediate_offset, in.immediate_size, 0);
        in.immediate = 0;
        return true;
    }

    bool prepare_string(const Insn& in, bool direct) {
        if (in.has(InsnFlag::Rep) || in.has(InsnFlag::Repne))
            set(x86::Rcx, random_.chance(80) ? random_.below(40) : random_.below(900), direct);
        const u64 source = target(8);
        set(x86::Rsi, source - base_of(in), direct);
        set(x86::Rdi, random_.chance(20) ? source + random_.below(16) : target(8), direct);
        return true;
    }

    bool prepare_memory(Insn& in, std::array<u8, 24>& bytes, bool direct) {
        unsigned size = 1;
        for (unsigned i = 0; i < in.operand_count; ++i)
            if (in.is(i, OperandKind::Memory)) size = in.operand[i].size;
        u64 want = target(size);
        want -= base_of(in);
        if (in.has(InsnFlag::Vsib)) return prepare_gather(in, direct);
        bit_offset(in, direct);
        if (in.base == x86::kNoRegister || in.base == x86::kRipBase) {
            u64 index = 0;
            if (in.index != x86::kNoRegister) {
                index = random_.below(64);
                set(in.index, index, direct);
            }
            u64 disp = want - (index << in.scale);
            if (in.base == x86::kRipBase) disp -= here() + in.length;
            const auto low = static_cast<s64>(static_cast<s32>(disp));
            if (in.displacement_size < 8 && static_cast<u64>(low) != disp) return false;
            patch(bytes, in.displacement_offset, in.displacement_size, disp);
            return true;
        }
        const u64 disp = static_cast<u64>(in.displacement);
        if (in.index == x86::kNoRegister) {
            set(in.base, want - disp, direct);
        } else if (in.index == in.base) {
            set(in.base, (want - disp) / ((u64{1} << in.scale) + 1), direct);
        } else {
            const u64 index = random_.chance(70) ? random_.below(4096) : random_.value();
            set(in.index, index, direct);
            set(in.base, want - disp - (index << in.scale), direct);
        }
        return true;
    }

    // BT and friends reach far from their operand's address with a register offset.
    void bit_offset(const Insn& in, bool direct) {
        switch (in.mnemonic) {
            case Mnemonic::Bt:
            case Mnemonic::Btc:
            case Mnemonic::Btr:
            case Mnemonic::Bts:
                if (in.is(1, OperandKind::Gpr)) set(in.operand[1].reg, random_.below(16384) - 8192, direct);
                break;
            default: break;
        }
    }

    bool prepare_gather(const Insn& in, bool direct) {
        if (!direct) return false;
        if (in.base == x86::kNoRegister || in.base == x86::kRipBase) return false;
        set(in.base, kMiddle - static_cast<u64>(in.displacement), direct);
        u8* low = out_.in.fp.legacy.data() + 160 + in.index * 16;
        u8* high = reinterpret_cast<u8*>(&out_.in.fp.ymm_high[in.index]);
        const bool qword = (in.opcode & 1) != 0;
        for (unsigned i = 0; i < 4; ++i) {
            u64 lane = static_cast<u64>(static_cast<s64>(random_.below(900)) - 450);
            if (random_.chance(4)) lane = random_.below(40000);
            if (!qword) lane = (lane & 0xffff'ffff) | ((random_.below(900) - 450) << 32);
            std::memcpy((i < 2 ? low : high) + (i & 1) * 8, &lane, 8);
        }
        return true;
    }

    void finish() {
        const u32 distance = static_cast<u32>(wide() ? kExitSlot - (here() + 6) : kExitSlot);
        const std::array<u8, 6> jump{0xff,
                                     0x25,
                                     static_cast<u8>(distance),
                                     static_cast<u8>(distance >> 8),
                                     static_cast<u8>(distance >> 16),
                                     static_cast<u8>(distance >> 24)};
        out_.code.insert(out_.code.end(), jump.begin(), jump.end());
    }

    struct Fixup {
        std::size_t at;
        unsigned unit;
        bool absolute;
    };

    Random random_;
    const Wish& wish_;
    std::optional<Encoding> wanted_;
    Case out_;
    std::vector<std::size_t> units_;  // where each begins, and the last ends
    std::vector<Fixup> fixups_;
    bool flow_ = false;
    // In code that may run in any order: flags that may be undefined, and flags that may be read.
    static constexpr u32 kAf = 0x10;
    u32 poison_ = 0, readers_ = 0;
    std::size_t skip_at_ = 0, skip_from_ = 0;  // the last branch's distance byte, and where it counts from
};

}  // namespace

u64 Random::value() {
    static constexpr std::array<u64, 18> kSpecial{0,
                                                  1,
                                                  2,
                                                  0x7f,
                                                  0x80,
                                                  0xff,
                                                  0x7fff,
                                                  0x8000,
                                                  0xffff,
                                                  0x7fff'ffff,
                                                  0x8000'0000,
                                                  0xffff'ffff,
                                                  0x1'0000'0000,
                                                  0x7fff'ffff'ffff'ffff,
                                                  0x8000'0000'0000'0000,
                                                  ~u64{0},
                                                  ~u64{1},
                                                  0x5555'5555'5555'5555};
    const u64 kind = below(4);
    if (kind == 0) return kSpecial[below(kSpecial.size())];
    if (kind == 1) return next() >> below(64);
    if (kind == 2) return static_cast<u64>(static_cast<s64>(next()) >> below(64));
    return next();
}

std::optional<Encoding> encoding_of(Mnemonic mnemonic) {
    return Generator(1, Wish{}).find(mnemonic);
}

Case generate(u64 seed, const Wish& wish) {
    return Generator(seed, wish).make();
}

void vary(Case& test, u64 seed) {
    Generator(seed, Wish{}).vary(test);
}

void fill_data(u64 seed, std::span<u8> data) {
    Random random(seed);
    for (std::size_t i = 0; i + 8 <= data.size(); i += 8) {
        const u64 word = random.next();
        std::memcpy(data.data() + i, &word, 8);
    }
}

}  // namespace tessera::oracle
