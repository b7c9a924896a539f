// Guest memory from translated code: page slots [soft-cpu.md 4.3, scheme F], with the TLB behind them.
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
        if (index != kNoReg || disp != 0 || !full)
            lea({.base = to, .index = index, .scale = in.scale, .disp = disp});
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
    stub.flags = to_repeat(item);
    if (to_interpreter) stub.exit = &new_exit(ExitKind::Interpret, item);
    if (group_.slot != nullptr && number_of(item) < group_.last) {
        stub.group = group_.slot;
        stub.item = &item;
    }
    stubs_.push_back(stub);
    return stubs_.size() - 1;
}

void Translator::slot_op(unsigned opcode, const void* field) {
    e_.op_rip(true, opcode, kS1, static_cast<const u8*>(field) - jit_.code_->to_run());
}

void Translator::find_page(size_t stub, Slot* slot, const Mem& address, unsigned size, bool write,
                           bool aligned) {
    constexpr unsigned kNotEqual = 5, kAboveOrEqual = 3;
    ++segment_.accesses;
    slot_op(0x2b, &slot->page);  // sub
    if (aligned) {
        e_.test_imm8(kS1, size - 1);
        stubs_[stub].add(e_.jcc_near(kNotEqual));
    }
    slot_op(0x3b, &slot->limit);  // cmp
    Stub refill{.kind = Stub::Kind::Refill};
    refill.add(e_.jcc_near(kAboveOrEqual));
    slot_op(0x8b, &slot->addend);  // mov
    refill.back = e_.here();
    refill.slot = slot;
    refill.address = address;
    refill.size = size;
    refill.write = write;
    refill.missed = stub;
    refill.stack = slot == jit_.stack_slot(user_, write, size);
    stubs_.push_back(refill);
}

Slot* Translator::slot_for(const Item& item, const MemoryUse& use) {
    constexpr unsigned kWord = 8;
    constexpr u64 kReach = 64;  // further apart two are too often on two pages for good
    const Insn& in = item.in;
    // Loops over vectors would look a page up once less, but their loads then wait for the lookup's stores.
    if (use.size > kWord) return jit_.new_slot(use.size);
    Neighbours wanted{.base = in.base,
                      .index = in.index,
                      .scale = in.index == kNoRegister ? u8{0} : in.scale,
                      .segment = has_base(in) ? in.segment : u8{0},
                      .write = use.write,
                      .displacement = static_cast<u64>(in.displacement)};
    if (in.base == kRipBase) {
        wanted.base = kNoRegister;
        wanted.displacement += item.rip + in.length;
    }
    for (const Neighbours& n : neighbours_) {
        const bool alike = n.base == wanted.base && n.index == wanted.index && n.scale == wanted.scale &&
                           n.segment == wanted.segment && n.write == wanted.write;
        if (alike && wanted.displacement - n.displacement + kReach < 2 * kReach) return n.slot;
    }
    wanted.slot = jit_.new_slot(kWord);
    if (wanted.base != x86::Rsp && wanted.index != x86::Rsp) neighbours_.push_back(wanted);
    return wanted.slot;
}

void Translator::forget_neighbours(u16 registers) {
    const auto has = [registers](u8 r) { return r < 16 && (registers & bit_of(r)) != 0; };
    std::erase_if(neighbours_, [&](const Neighbours& n) { return has(n.base) || has(n.index); });
}

std::optional<Translator::Checked> Translator::check(const Item& item, const MemoryUse& use,
                                                     bool to_interpreter) {
    const Insn& in = item.in;
    if (in.address_size == 2) return std::nullopt;
    const bool segment = has_base(in);
    if (!wide() && in.segment == x86::Cs) return std::nullopt;  // code is not written
    const u64 next = item.rip + in.length;
    const bool pushes = in.mnemonic == x86::Mnemonic::Push || in.mnemonic == x86::Mnemonic::Call;
    if (item.stack.size != 0 && !pushes)
        if (const auto at = by_group(item, static_cast<s32>(in.displacement), use.size)) return at;
    clobber_flags(item.live_in);
    const size_t stub = cold_path(item, to_interpreter);
    const bool by_stack = in.base == x86::Rsp && in.index == kNoRegister && !segment;
    Slot* slot = by_stack ? jit_.stack_slot(user_, use.write, use.size) : slot_for(item, use);
    const bool plain_base =
        in.base != kNoRegister && in.base != kRipBase && !in_memory(in.base) && in.index == kNoRegister;
    // Registers of 32-bit code may have anything in their upper halves, from 64-bit code before.
    if (plain_base && !segment && in.address_size == 8) {
        effective_address(kS1, in, next, true, false);
        const Mem address{.base = host_of(in.base), .disp = static_cast<s32>(in.displacement)};
        find_page(stub, slot, address, use.size, use.write, use.aligned);
        return Checked{
            {.base = host_of(in.base), .index = kS1, .disp = static_cast<s32>(in.displacement)}, stub, true};
    }
    effective_address(kS0, in, next, true, false);
    if (segment) {
        if (!wide()) {
            e_.lea(kS1, {.base = kS0, .disp = use.size});
            e_.alu(Alu::Cmp, true, kS1, gs((use.write ? kOffWriteEnd : kOffReadEnd) + in.segment * 8));
            stubs_[stub].add(e_.jcc_near(7));  // above
        }
        e_.alu(Alu::Add, wide(), kS0, gs(kOffSegBase + in.segment * 8));
    }
    e_.mov(kS1, kS0);
    find_page(stub, slot, {.base = kS0}, use.size, use.write, use.aligned);
    return Checked{{.base = kS0, .index = kS1}, stub, false};
}

Translator::Checked Translator::check_stack(const Item& item, s32 offset, unsigned size, bool write,
                                            bool to_interpreter) {
    if (const auto at = by_group(item, offset, size)) return *at;
    clobber_flags(item.live_in);
    const size_t stub = cold_path(item, to_interpreter);
    Slot* slot = jit_.stack_slot(user_, write, size);
    const Mem at{.base = kGuestRsp, .disp = offset};
    if (wide()) {
        offset == 0 ? e_.mov(kS1, kGuestRsp) : e_.lea(kS1, at);
        find_page(stub, slot, at, size, write, false);
        return {{.base = kGuestRsp, .index = kS1, .disp = offset}, stub, true};
    }
    e_.lea32(kS0, at);
    e_.mov(kS1, kS0);
    find_page(stub, slot, {.base = kS0}, size, write, false);
    return {{.base = kS0, .index = kS1}, stub, false};
}

}  // namespace tessera::soft::jit
