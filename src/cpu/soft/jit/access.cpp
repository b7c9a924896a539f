// Guest memory from translated code: the inline TLB [soft-cpu.md 4.3, scheme B].
#include "cpu/soft/jit/layout.h"
#include "cpu/soft/jit/translator.h"

namespace tessera::soft::jit {

namespace {

using x86::Insn;
using x86::kNoRegister;
using x86::kRipBase;

// Only FS and GS have bases that count: 64-bit code, or flat 32-bit code.
[[nodiscard]] bool has_base(const Insn& in) {
    return in.segment == x86::Fs || in.segment == x86::Gs;
}
// A register in Vcpu::reg.
[[nodiscard]] bool in_memory(u8 guest) {
    return guest != kNoRegister && guest != kRipBase && host_of(guest) == kNoReg;
}

}  // namespace

// The operand's offset. `next` is the next instruction's address. narrow: 32 bits of it are wanted.
void Translator::effective_address(HostReg to, const Insn& in, u64 next, bool may_use_flags, bool narrow) {
    const bool full = in.address_size == 8 && !narrow;
    const auto disp = static_cast<s32>(in.displacement);
    const auto lea = [&](const Mem& m) { full ? e_.lea(to, m) : e_.lea32(to, m); };
    if (in.base == kRipBase || (in.base == kNoRegister && in.index == kNoRegister)) {
        const u64 value = static_cast<u64>(in.displacement) + (in.base == kRipBase ? next : 0);
        e_.mov_imm(to, full ? value : static_cast<u32>(value));
        return;
    }
    const HostReg base = in.base == kNoRegister ? kNoReg : host_of(in.base);
    const HostReg index = in.index == kNoRegister ? kNoReg : host_of(in.index);
    if (in_memory(in.base) && in_memory(in.index)) {
        if (may_use_flags) {
            e_.load(to, slot(in.index));
            lea({.index = to, .scale = in.scale, .disp = disp});
            e_.alu(Alu::Add, full, to, slot(in.base));
        } else {
            const HostReg other = to == kS0 ? kS1 : kS0;
            e_.load(to, slot(in.base));
            e_.load(other, slot(in.index));
            lea({.base = to, .index = other, .scale = in.scale, .disp = disp});
        }
    } else if (in_memory(in.base)) {
        e_.load(to, slot(in.base));
        if (index != kNoReg || disp != 0 || !full) lea({.base = to, .index = index, .scale = in.scale, .disp = disp});
    } else if (in_memory(in.index)) {
        e_.load(to, slot(in.index));
        lea({.base = base, .index = to, .scale = in.scale, .disp = disp});
    } else if (index == kNoReg && disp == 0) {
        full ? e_.mov(to, base) : e_.mov32(to, base);
    } else {
        lea({.base = base, .index = index, .scale = in.scale, .disp = disp});
    }
}

size_t Translator::cold_path(const Item& item, bool to_interpreter) {
    Stub stub{.kind = to_interpreter ? Stub::Kind::ExitSaved : Stub::Kind::CallOp};
    stub.op = item.op;
    if (to_interpreter) stub.exit = &new_exit(ExitKind::Interpret, item);
    stubs_.push_back(stub);
    return stubs_.size() - 1;
}

void Translator::look_up(size_t stub, unsigned size, bool write, bool aligned) {
    if (size == 1 || aligned)
        e_.mov(kS0, kS1);
    else
        e_.lea(kS0, {.base = kS1, .disp = static_cast<s32>(size - 1)});
    constexpr unsigned kShift = 12 - 5;  // of the page number to 32 times the index
    constexpr s32 kIndexMask = (kTlbEntries - 1) * sizeof(TlbEntry);
    e_.shr_imm(false, kS1, kShift);
    e_.alu_imm(Alu::And, false, kS1, kIndexMask);
    e_.alu(Alu::Add, true, kS1, gs(kOffTlb));
    e_.alu_imm(Alu::And, true, kS0, aligned ? -4096 | static_cast<s32>(size - 1) : -4096);
    e_.alu(Alu::Cmp, true, kS0, {.base = kS1, .disp = static_cast<s32>(write ? kOffTagW : kOffTagR)});
    stubs_[stub].add(e_.jcc_near(5));
    e_.load(kS1, {.base = kS1, .disp = static_cast<s32>(kOffAddend)});
}

std::optional<Translator::Checked> Translator::check(const Item& item, const MemoryUse& use, bool to_interpreter) {
    const Insn& in = item.in;
    const bool segment = has_base(in);
    if (!wide() && in.segment == x86::Cs) return std::nullopt;  // code is not written
    const u64 next = item.rip + in.length;
    if (!segment && (in.base == kRipBase || (in.base == kNoRegister && in.index == kNoRegister))) {
        // Known now: entry and tag are constants.
        u64 at = static_cast<u64>(in.displacement) + (in.base == kRipBase ? next : 0);
        if (in.address_size == 4) at = static_cast<u32>(at);
        if (((at ^ (at + use.size - 1)) & ~kPageMask) != 0) return std::nullopt;
        if (use.aligned && at % use.size != 0) return std::nullopt;
        clobber_flags(item.live_in);
        const size_t stub = cold_path(item, to_interpreter);
        const auto entry = static_cast<s32>((at >> 12 & (kTlbEntries - 1)) * sizeof(TlbEntry));
        e_.load(kS1, gs(kOffTlb));
        e_.mov_imm(kS0, at & ~kPageMask);
        e_.alu(Alu::Cmp, true, kS0, {.base = kS1, .disp = entry + static_cast<s32>(use.write ? kOffTagW : kOffTagR)});
        stubs_[stub].add(e_.jcc_near(5));
        e_.load(kS1, {.base = kS1, .disp = entry + static_cast<s32>(kOffAddend)});
        return Checked{{.base = kS0, .index = kS1, .disp = static_cast<s32>(at & kPageMask)}, stub, false};
    }
    clobber_flags(item.live_in);
    const size_t stub = cold_path(item, to_interpreter);
    effective_address(kS1, in, next, true, false);
    const auto add_base = [&](HostReg to) { e_.alu(Alu::Add, wide(), to, gs(kOffSegBase + in.segment * 8)); };
    if (segment) {
        if (!wide()) {
            e_.lea(kS0, {.base = kS1, .disp = use.size});
            e_.alu(Alu::Cmp, true, kS0, gs((use.write ? kOffWriteEnd : kOffReadEnd) + in.segment * 8));
            stubs_[stub].add(e_.jcc_near(7));  // above
        }
        add_base(kS1);
    }
    look_up(stub, use.size, use.write, use.aligned);
    const bool plain_base = in.base != kNoRegister && in.base != kRipBase && !in_memory(in.base) && in.index == kNoRegister;
    // Registers of 32-bit code may have anything in their upper halves, from 64-bit code before.
    if (plain_base && !segment && in.address_size == 8)
        return Checked{{.base = host_of(in.base), .index = kS1, .disp = static_cast<s32>(in.displacement)}, stub, true};
    effective_address(kS0, in, next, true, false);
    if (segment) add_base(kS0);
    return Checked{{.base = kS0, .index = kS1}, stub, false};
}

Translator::Checked Translator::check_stack(const Item& item, s32 offset, unsigned size, bool write, bool to_interpreter) {
    clobber_flags(item.live_in);
    const size_t stub = cold_path(item, to_interpreter);
    const Mem at{.base = kGuestRsp, .disp = offset};
    if (wide())
        offset == 0 ? e_.mov(kS1, kGuestRsp) : e_.lea(kS1, at);
    else
        e_.lea32(kS1, at);
    look_up(stub, size, write, false);
    if (wide()) return {{.base = kGuestRsp, .index = kS1, .disp = offset}, stub, true};
    e_.lea32(kS0, at);
    return {{.base = kS0, .index = kS1}, stub, false};
}

}  // namespace tessera::soft::jit
