// What translated code calls, and what enters it.
#pragma once

#include <optional>

#include "cpu/soft/vcpu.h"

namespace tessera::soft::jit {

struct ExitRecord;
struct Translation;

// Instructions that are executed one at a time when translated code cannot.
inline constexpr unsigned kInsnsByHand = 32;

// What translated code takes for granted beyond the block's key. kUntranslatable: not to be entered now.
inline constexpr u8 kUntranslatable = 0xff;
[[nodiscard]] u8 mode_of(const Vcpu& c);
// Which of Vcpu::target_sets the running code uses.
[[nodiscard]] unsigned target_set(const Vcpu& c);

struct Runtime {
    // Executes the instruction whose ops begin at `op`. Where to go on: kNextInsn, or the code of another
    // block, or 0: leave translated code. Vcpu::rip is set but for kNextInsn.
    static constexpr u64 kNextInsn = 1;
    static u64 run_op(Vcpu& c, const Op* op);
    // Looks the page of Vcpu::jit_address up for an access by translated code. `slot` has the access's size
    // less one in its low bits. 1: found, Vcpu::jit_slot is the addend; the slot is filled if it may be.
    static u64 refill(Vcpu& c, u64 slot, u64 write);
    // Runs translated code from a translated block's head until it is left for the interpreter: its next op,
    // or null for the dispatcher.
    static const Op* run(Vcpu& c, const Op* head);
    // Runs translated code from `t` to the end of its block, with the interpreter's help: Vcpu::rip is set.
    static void run_once(Vcpu& c, Translation& t);
    // Translates the block, or not: likewise.
    static const Op* promote(Vcpu& c, const Op* head);

private:
    static const Op* interpret_at_rip(Vcpu& c);
    // The translation that goes on at the exit, null: there is none. Nothing: all blocks are gone meanwhile;
    // Vcpu::rip is set.
    static std::optional<Translation*> go_on_apart(Vcpu& c, ExitRecord& exit);
    static void prepare(Vcpu& c);
    // The code of the block at Vcpu::rip if the target cache has it and nothing is to be done before, else 0.
    static u64 known_code(Vcpu& c);
    [[nodiscard]] static bool may_go_on(const Vcpu& c);
};

}  // namespace tessera::soft::jit
