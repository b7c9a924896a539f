// Writes host instructions. Only the forms the translator needs; guest instructions are copied by reencode.h.
// Encodings: [SDM 2A 2.1], [SDM 2B].
#pragma once

#include "base/assert.h"
#include "base/types.h"

namespace tessera::soft::jit {

// Host registers by number. What holds what: see translator.h.
enum HostReg : u8 {
    kRax,
    kRcx,
    kRdx,
    kRbx,
    kRsp,
    kRbp,
    kRsi,
    kRdi,
    kR8,
    kR9,
    kR10,
    kR11,
    kR12,
    kR13,
    kR14,
    kR15,
    kNoReg = 0xff
};

// A host memory operand: [base + index << scale + disp], with GS: relative to the Vcpu.
struct Mem {
    u8 base = kNoReg;
    u8 index = kNoReg;  // not kRsp
    u8 scale = 0;
    s32 disp = 0;
    bool gs = false;
};

// The eight ALU operations in the order of their opcodes and /n.
enum class Alu : u8 { Add, Or, Adc, Sbb, And, Sub, Xor, Cmp };

class Emitter {
public:
    // Writes from `at` on; the caller sees to it that there is room for a block.
    explicit Emitter(u8* at) : at_(at) {}

    [[nodiscard]] u8* here() const { return at_; }
    void move_to(u8* at) { at_ = at; }
    // The bytes in between are not executed.
    void align(u64 size) {
        while (reinterpret_cast<u64>(at_) % size != 0) put8(0xcc);  // INT3
    }
    void put8(unsigned value) { *at_++ = static_cast<u8>(value); }
    void put16(unsigned value) { put(static_cast<u16>(value)); }
    void put32(u32 value) { put(value); }
    template <typename T>
    void put(T value) {
        __builtin_memcpy(at_, &value, sizeof(T));
        at_ += sizeof(T);
    }

    // --- operand bytes. `reg` and registers of `m` are 0-15; the upper bits go into the REX the caller
    // wrote.
    [[nodiscard]] static unsigned rex_of(unsigned reg, const Mem& m) {
        return (reg >> 3 << 2) | (m.index != kNoReg ? m.index >> 3 << 1 : 0) |
               (m.base != kNoReg ? m.base >> 3 : 0);
    }
    void operand(unsigned reg, const Mem& m) {
        const unsigned r = (reg & 7) << 3;
        if (m.base == kNoReg) {
            put8(r | 4);
            put8(static_cast<unsigned>(m.scale) << 6 | (m.index != kNoReg ? (m.index & 7U) << 3 : 4U << 3) |
                 5);
            put(m.disp);
            return;
        }
        const bool sib = m.index != kNoReg || (m.base & 7) == 4;
        const bool none = m.disp == 0 && (m.base & 7) != 5;
        const bool byte = m.disp >= -128 && m.disp <= 127;
        put8((none ? 0 : byte ? 0x40 : 0x80) | r | (sib ? 4U : m.base & 7U));
        if (sib)
            put8(static_cast<unsigned>(m.scale) << 6 | (m.index != kNoReg ? (m.index & 7U) << 3 : 4U << 3) |
                 (m.base & 7U));
        if (none) return;
        if (byte)
            put(static_cast<s8>(m.disp));
        else
            put(m.disp);
    }
    // [rip + distance] to a place of the same mapping; the last bytes of the instruction.
    void op_rip(bool wide, unsigned opcode, unsigned reg, const void* place) {
        const unsigned rex = (reg >> 3 << 2) | (wide ? 8 : 0);
        if (rex != 0) put8(0x40 | rex);
        opcode_bytes(opcode);
        put8((reg & 7) << 3 | 5);
        put(static_cast<s32>(static_cast<const u8*>(place) - (at_ + 4)));
    }
    void operand(unsigned reg, HostReg rm) { put8(0xc0 | (reg & 7) << 3 | (rm & 7U)); }

    // --- whole instructions; wide: 64 bits, else 32
    void op_rm(bool wide, unsigned opcode, unsigned reg, const Mem& m) {
        if (m.gs) put8(0x65);
        const unsigned rex = rex_of(reg, m) | (wide ? 8 : 0);
        if (rex != 0) put8(0x40 | rex);
        opcode_bytes(opcode);
        operand(reg, m);
    }
    void op_rr(bool wide, unsigned opcode, unsigned reg, HostReg rm) {
        const unsigned rex = (reg >> 3 << 2) | (rm >> 3) | (wide ? 8 : 0);
        if (rex != 0) put8(0x40 | rex);
        opcode_bytes(opcode);
        operand(reg, rm);
    }

    void mov(HostReg to, HostReg from) { op_rr(true, 0x8b, to, from); }
    void mov32(HostReg to, HostReg from) { op_rr(false, 0x8b, to, from); }
    void load(HostReg to, const Mem& m) { op_rm(true, 0x8b, to, m); }
    void load32(HostReg to, const Mem& m) { op_rm(false, 0x8b, to, m); }
    void store(const Mem& m, HostReg from) { op_rm(true, 0x89, from, m); }
    void store32(const Mem& m, HostReg from) { op_rm(false, 0x89, from, m); }
    void store16(const Mem& m, HostReg from) {
        put8(0x66);
        op_rm(false, 0x89, from, m);
    }
    void store_imm8(const Mem& m, unsigned value) {
        op_rm(false, 0xc6, 0, m);
        put8(value);
    }
    void store_imm16(const Mem& m, unsigned value) {
        put8(0x66);
        op_rm(false, 0xc7, 0, m);
        put16(value);
    }
    void store_imm32(const Mem& m, u32 value) {
        op_rm(false, 0xc7, 0, m);
        put32(value);
    }
    // Sign-extended to 64 bits.
    void store_imm(const Mem& m, s32 value) {
        op_rm(true, 0xc7, 0, m);
        put(value);
    }
    void lea(HostReg to, const Mem& m) { op_rm(true, 0x8d, to, m); }
    void lea32(HostReg to, const Mem& m) { op_rm(false, 0x8d, to, m); }
    // The shortest form; no flags.
    void mov_imm(HostReg to, u64 value) {
        if (value <= 0xffff'ffff) {
            if (to >= 8) put8(0x41);
            put8(0xb8 | (to & 7U));
            put(static_cast<u32>(value));
        } else if (static_cast<u64>(static_cast<s64>(static_cast<s32>(value))) == value) {
            op_rr(true, 0xc7, 0, to);
            put(static_cast<s32>(value));
        } else {
            put8(0x48 | (to >> 3));
            put8(0xb8 | (to & 7U));
            put(value);
        }
    }
    void alu(Alu op, bool wide, HostReg to, HostReg from) {
        op_rr(wide, static_cast<unsigned>(op) << 3 | 3, to, from);
    }
    void alu(Alu op, bool wide, HostReg to, const Mem& m) {
        op_rm(wide, static_cast<unsigned>(op) << 3 | 3, to, m);
    }
    void alu_imm(Alu op, bool wide, HostReg to, s32 value) {
        const bool byte = value >= -128 && value <= 127;
        op_rr(wide, byte ? 0x83 : 0x81, static_cast<unsigned>(op), to);
        if (byte)
            put(static_cast<s8>(value));
        else
            put(value);
    }
    void alu_mem_imm(Alu op, bool wide, const Mem& m, s32 value) {
        const bool byte = value >= -128 && value <= 127;
        op_rm(wide, byte ? 0x83 : 0x81, static_cast<unsigned>(op), m);
        if (byte)
            put(static_cast<s8>(value));
        else
            put(value);
    }
    void test_imm8(HostReg r, unsigned value) {
        op_rr(false, 0xf6, 0, r);  // R10B and R11B: a REX is there
        put8(value);
    }
    void test(bool wide, HostReg a, HostReg b) { op_rr(wide, 0x85, a, b); }
    void shr_imm(bool wide, HostReg r, unsigned n) {
        op_rr(wide, 0xc1, 5, r);
        put8(n);
    }
    void shl_imm(bool wide, HostReg r, unsigned n) {
        op_rr(wide, 0xc1, 4, r);
        put8(n);
    }
    // test word [m], imm16 has a length-changing prefix, which decoders are slow at: 32 bits are read.
    void test_mem32(const Mem& m, u32 value) {
        op_rm(false, 0xf7, 0, m);
        put32(value);
    }
    void push(HostReg r) {
        if (r >= 8) put8(0x41);
        put8(0x50 | (r & 7U));
    }
    void pop(HostReg r) {
        if (r >= 8) put8(0x41);
        put8(0x58 | (r & 7U));
    }
    void ret() { put8(0xc3); }
    void call(HostReg r) { op_rr(false, 0xff, 2, r); }
    void jmp(HostReg r) { op_rr(false, 0xff, 4, r); }
    void jmp(const Mem& m) { op_rm(false, 0xff, 4, m); }

    // --- branches. The near ones return where their distance is; patch() fills it in.
    u8* jmp_near() {
        put8(0xe9);
        put32(0);
        return at_ - 4;
    }
    u8* call_near() {
        put8(0xe8);
        put32(0);
        return at_ - 4;
    }
    u8* jcc_near(unsigned condition) {
        put8(0x0f);
        put8(0x80 | condition);
        put32(0);
        return at_ - 4;
    }
    u8* jrcxz_short() {
        put8(0xe3);
        put8(0);
        return at_ - 1;
    }
    static void patch(u8* distance, const u8* target) {
        const auto value = static_cast<s32>(target - (distance + 4));
        __builtin_memcpy(distance, &value, 4);
    }
    void bind(u8* distance) const { patch(distance, at_); }
    void bind_short(u8* distance) const {
        const auto value = at_ - (distance + 1);
        TESSERA_ASSERT(value >= 0 && value <= 127, "short branches skip a few instructions of one sequence");
        *distance = static_cast<u8>(value);
    }

    // --- status flags <-> Vcpu::status, by way of RAX as LAHF and SETO leave it
    void lahf_seto() {
        put8(0x9f);
        put8(0x0f), put8(0x90), put8(0xc0);
    }
    void sahf_from_ax() {
        put8(0x04), put8(0x7f);  // add al, 0x7f: OF if AL was 1
        put8(0x9e);
    }

private:
    void opcode_bytes(unsigned opcode) {
        if (opcode > 0xff) put8(opcode >> 8);
        put8(opcode);
    }

    u8* at_;
};

}  // namespace tessera::soft::jit
