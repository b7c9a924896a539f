// What translated code calls, and what enters it.
#pragma once

#include "cpu/soft/vcpu.h"

namespace tessera::soft::jit {

struct Translation;

// Instructions that are executed one at a time when translated code cannot.
inline constexpr unsigned kInsnsByHand = 32;

struct Runtime {
    // Executes the instruction whose ops begin at `op`. 0: leave translated code, Vcpu::rip is set.
    static u64 run_op(Vcpu& c, const Op* op);
    // Runs translated code from a translated block's head until it is left for the interpreter: its next op,
    // or null for the dispatcher.
    static const Op* run(Vcpu& c, const Op* head);
    // Runs translated code from `t` to the end of its block, with the interpreter's help: Vcpu::rip is set.
    static void run_once(Vcpu& c, Translation& t);
    // Translates the block, or not: likewise.
    static const Op* promote(Vcpu& c, const Op* head);

private:
    static const Op* interpret_at_rip(Vcpu& c);
    static void prepare(Vcpu& c);
    [[nodiscard]] static bool may_go_on(const Vcpu& c);
};

}  // namespace tessera::soft::jit
