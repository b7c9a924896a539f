// Instructions on single flags, and those that do nothing here: CLC STC CMC CLD STD LAHF SAHF SALC, NOP,
// PAUSE, fences, prefetches.
#include <atomic>

#include "cpu/soft/integer/handlers.h"
#include "cpu/soft/soft_system.h"

namespace tessera::soft {
namespace {

using x86::Mnemonic;

TESSERA_HANDLER void clear_carry(Vcpu& c, const Op* op) {
    c.status = static_cast<u16>(c.status & ~kStatusCf);
    TESSERA_NEXT(c, op);
}
TESSERA_HANDLER void set_carry(Vcpu& c, const Op* op) {
    c.status |= kStatusCf;
    TESSERA_NEXT(c, op);
}
TESSERA_HANDLER void complement_carry(Vcpu& c, const Op* op) {
    c.status ^= kStatusCf;
    TESSERA_NEXT(c, op);
}
TESSERA_HANDLER void clear_direction(Vcpu& c, const Op* op) {
    c.eflags &= ~x86::eflags::kDf;
    TESSERA_NEXT(c, op);
}
TESSERA_HANDLER void set_direction(Vcpu& c, const Op* op) {
    c.eflags |= x86::eflags::kDf;
    TESSERA_NEXT(c, op);
}

inline constexpr u8 kAh = 1;
inline constexpr u16 kAhFlags = kStatusSf | kStatusZf | kStatusAf | kStatusPf | kStatusCf;

TESSERA_HANDLER void load_ah(Vcpu& c, const Op* op) {
    set_gpr<u8>(c, kAh, static_cast<u8>(((c.status & kAhFlags) >> 8) | 0x02));
    TESSERA_NEXT(c, op);
}
TESSERA_HANDLER void store_ah(Vcpu& c, const Op* op) {
    const u16 flags = static_cast<u16>(get_gpr<u8>(c, kAh) << 8);
    c.status = static_cast<u16>((c.status & kStatusOf) | (flags & kAhFlags) | 0x0200);
    TESSERA_NEXT(c, op);
}
TESSERA_HANDLER void set_al_from_carry(Vcpu& c, const Op* op) {
    set_gpr<u8>(c, x86::Rax, (c.status & kStatusCf) != 0 ? 0xff : 0);
    TESSERA_NEXT(c, op);
}

TESSERA_HANDLER void nothing(Vcpu& c, const Op* op) {
    TESSERA_NEXT(c, op);
}

TESSERA_HANDLER void fence(Vcpu& c, const Op* op) {
    asm volatile("mfence" : : : "memory");
    TESSERA_NEXT(c, op);
}

// A spinning CPU may be waiting for one whose thread the host does not run (more of them than cores, or other
// work on the host): then it is the host's turn. Most waits are short though, and a system call costs as much
// as dozens of PAUSEs.
void let_others_run(Vcpu& c) {
    if (c.system == nullptr || c.system->count() < 2) return;
    if (auto* yield = c.system->world().yield; yield != nullptr) yield();
}
TESSERA_HANDLER void pause(Vcpu& c, const Op* op) {
    constexpr u32 kPausesToYield = 256;
    __builtin_ia32_pause();
    if (++c.pauses % kPausesToYield == 0) [[unlikely]]
        let_others_run(c);
    TESSERA_NEXT(c, op);
}

}  // namespace

bool lower_flags(const x86::Insn& in, Op& op) {
    switch (in.mnemonic) {
        case Mnemonic::Clc: return use(op, clear_carry);
        case Mnemonic::Stc: return use(op, set_carry);
        case Mnemonic::Cmc: return use(op, complement_carry);
        case Mnemonic::Cld: return use(op, clear_direction);
        case Mnemonic::Std: return use(op, set_direction);
        case Mnemonic::Lahf: return use(op, load_ah);
        case Mnemonic::Sahf: return use(op, store_ah);
        case Mnemonic::Salc: return use(op, set_al_from_carry);
        case Mnemonic::Pause: return use(op, pause);
        case Mnemonic::Lfence:
        case Mnemonic::Sfence:
        case Mnemonic::Mfence: return use(op, fence);
        case Mnemonic::Nop:
        case Mnemonic::Prefetch:
        case Mnemonic::Prefetchw:
        case Mnemonic::Prefetchnta:
        case Mnemonic::Prefetcht0:
        case Mnemonic::Prefetcht1:
        case Mnemonic::Prefetcht2: return use(op, nothing);
        default: return false;
    }
}

}  // namespace tessera::soft
