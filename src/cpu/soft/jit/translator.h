// Makes host code of one block of guest code, in one pass after a backward pass over the flags.
//
// In translated code
//   guest R11 R14 R15, which compilers use least, are in memory, Vcpu::reg; guest RSP is in R15; R14 and R11
//   are scratch, S0 and S1; all others are in the host registers of the same name;
//   GS is the Vcpu; RSP is the host's stack;
//   the status flags are the host's, or in Vcpu::status, or made again when they are needed (flags.cpp);
//   vector registers and MXCSR are the host's once a block has found them there (kTrapVectorCold), x87 too.
#pragma once

#include <array>
#include <optional>
#include <vector>

#include "cpu/soft/jit/emitter.h"
#include "cpu/soft/jit/jit.h"
#include "cpu/soft/jit/reencode.h"
#include "cpu/soft/jit/select.h"

namespace tessera::soft::jit {

inline constexpr HostReg kS0 = kR14, kS1 = kR11, kGuestRsp = kR15;
inline constexpr u8 kModeUser = 1;
// Of a translation without groups.
inline constexpr u8 kModeApart = 2;

// Where guest register `g` lives in the host, or kNoReg: in Vcpu::reg.
[[nodiscard]] inline HostReg host_of(unsigned g) {
    if (g == 4) return kGuestRsp;
    return g == 11 || g >= 14 ? kNoReg : static_cast<HostReg>(g);
}

// S0: RIP of a target. Sets S1 to its entry in the target cache, and the zero flag if that is the target's.
void emit_find_target(Emitter& e);

class Translator {
public:
    Translator(Jit& jit, Vcpu& c, Emitter& e, Translation& out, const FetchEntry& page, bool user,
               bool strict, bool single_cpu, bool count)
        : jit_(jit),
          c_(c),
          e_(e),
          out_(out),
          page_(page),
          user_(user),
          strict_(strict),
          single_cpu_(single_cpu),
          count_(count) {}

    // Decodes what the interpreter's block beginning with `head` has; `second` is the entry of the page after
    // it. False: not for translation.
    bool read(const Op* head, const FetchEntry& second);
    void analyse();
    void emit();

    [[nodiscard]] unsigned insns() const { return static_cast<unsigned>(items_.size()); }

private:
    // What an instruction of 64-bit code does with the stack (stack_group.cpp).
    struct StackUse {
        enum class Moves : u8 { ByNumber, Unknown } moves = Moves::ByNumber;
        bool write = false;
        u8 size = 0;     // of its access by way of RSP; 0: none that a group may have
        s64 offset = 0;  // from RSP before it
        s64 by = 0;      // what is added to RSP
    };
    struct Item {
        x86::Insn in;
        std::array<u8, x86::kMaxInsnLength> bytes{};
        u64 rip = 0;
        const Op* op = nullptr;  // the first of the interpreter's ops for it
        StackUse stack;
        u16 live_in = 0;  // status flags whose values count before it, and after it
        u16 live_out = 0;
    };
    // Status flags that can be had again by repeating what made them.
    struct Repeat {
        const Item* item = nullptr;  // null: not this way
        s32 stack_moved = 0;         // what was added to RSP since
        explicit operator bool() const { return item != nullptr; }
    };
    // Code out of the way, made at the end.
    struct Stub {
        enum class Kind : u8 {
            CallOp,         // the interpreter's handler does this one, then back
            Exit,           // leaves; the flags are the host's
            ExitSaved,      // leaves; the flags are in Vcpu::status, or do not count, or see `flags`
            ExitAnnounced,  // leaves; the flags are announced
            ExitIndirect,   // as ExitSaved, with the target in S0
            LoadVectors,
            LoadX87,
            Refill,       // looks the page up in the TLB
            RefillGroup,  // likewise
            Apart,        // another translation goes on
            None,
            ToStatus,      // announced flags are brought into Vcpu::status
            OtherMapping,  // the target is looked for in the target cache
        } kind = Kind::CallOp;
        std::array<u8*, 4> from{};  // the distance fields that lead here
        unsigned count = 0;
        u8* back = nullptr;  // where to go on
        const Op* op = nullptr;
        const Item* item = nullptr;
        unsigned more = 0;  // CallOp: so many items after `item` are done likewise
        ExitRecord* exit = nullptr;
        bool link = false;            // `from` is what is linked
        u32 traps = 0;                // LoadVectors, LoadX87: what forbids it
        Repeat flags{};               // the status flags, if they count and are nowhere else
        const Slot* group = nullptr;  // CallOp: in the middle of a group with this slot
        // Refill, RefillGroup
        Slot* slot = nullptr;
        Mem address{};
        unsigned size = 0;
        bool write = false;
        size_t missed = 0;   // the stub for when the TLB does not have it
        bool stack = false;  // its slot is a stack's
        bool keep_s0 = false;
        // Of a store that may be done in two pieces. NOLINTNEXTLINE(readability-redundant-member-init)
        std::optional<Operands> staged{};

        void add(u8* place) { from[count++] = place; }
    };

    // --- flags
    [[nodiscard]] u16 live_at(u64 rip, unsigned depth) const;
    void note_code(u64 offset) const;
    [[nodiscard]] bool can_repeat(const x86::Insn& in) const;
    [[nodiscard]] static Operands operands_in_host(const x86::Insn& in);
    void repeat(const Repeat& flags);
    void bring_to_host();
    void save_flags();
    // `temporary` keeps RAX meanwhile; kNoReg: there is none to be had.
    void restore_flags(HostReg temporary);
    // So that they can be had after the host's are overwritten.
    void keep_flags();
    // For a path out of the block at `item`.
    [[nodiscard]] Repeat to_repeat(const Item& item) const;
    // Before so many instructions; true: after them the producer's registers are not what they were.
    bool prepare_producer(const Item& first, unsigned count);
    // For the next block, which is not known yet; and there.
    void announce_flags();
    void fetch_flags();
    void save_and_announce();
    [[nodiscard]] bool flags_pass_through() const;
    void bring_to_status();
    // Before the host's flags are overwritten while `live` count.
    void clobber_flags(u16 live);
    // Before an instruction that reads flags, or changes some and leaves others that count.
    void prepare_flags(const Item& item, HostReg temporary);
    void flags_written(const Item& item);

    // --- memory (access.cpp)
    void effective_address(HostReg to, const x86::Insn& in, u64 next, bool may_use_flags, bool narrow);
    // A checked access. `stub` is the cold path, for the caller to say where it comes back.
    struct Checked {
        Mem m;
        size_t stub = 0;
        bool s0_free = false;
    };
    // S1 holds the linear address; leaves the addend there. `stub`: when the access cannot be made this way.
    // `address` is where S1 is from, for when the slot does not have it.
    void find_page(size_t stub, Slot* slot, const Mem& address, unsigned size, bool write, bool aligned);
    void slot_op(unsigned opcode, const void* field);
    size_t cold_path(const Item& item, bool to_interpreter);
    // Accesses of words beside each other, from one base, use one slot: the page of one is mostly that of
    // all.
    struct Neighbours {
        u8 base = 0;
        u8 index = 0;
        u8 scale = 0;
        u8 segment = 0;
        bool write = false;
        u64 displacement = 0;  // of the first
        Slot* slot = nullptr;
    };
    Slot* slot_for(const Item& item, const MemoryUse& use);
    // The registers have other values now.
    void forget_neighbours(u16 registers);
    // Nothing if the access never can be made this way.
    std::optional<Checked> check(const Item& item, const MemoryUse& use, bool to_interpreter);
    Checked check_stack(const Item& item, s32 offset, unsigned size, bool write, bool to_interpreter);
    // --- groups of accesses to the stack (stack_group.cpp)
    struct StackGroup {
        Slot* slot = nullptr;  // null: there is none
        int last = 0;          // the last item with an access
        bool write = false;
        s64 low = 0;  // from RSP at its beginning
        s64 high = 0;
        s64 bytes = 0;  // of all accesses
        s64 moved = 0;  // RSP since then
    };
    [[nodiscard]] static StackUse stack_use(const Item& item);
    [[nodiscard]] StackGroup find_group(const Item& first, s32 offset, unsigned size) const;
    // If the access of `size` bytes at RSP + offset is one of a group.
    std::optional<Checked> by_group(const Item& item, s32 offset, unsigned size);
    void pass_in_group(const Item& item);
    void emit_group_refill(const Stub& stub);
    void emit_apart(const Stub& stub);
    void come_back_to_group(const Stub& stub);
    void come_back(size_t stub) { stubs_[stub].back = e_.here(); }

    // --- instructions (emit.cpp; emit_stack.cpp, emit_system.cpp)
    void emit_item(const Item& item);
    void emit_op(const Item& item);
    void call_op(const Op* op, bool save);
    [[nodiscard]] static const Op* load_x87_op();
    [[nodiscard]] bool emit_native(const Item& item);
    [[nodiscard]] bool emit_copy(const Item& item);
    // The operands of a copy that has a register of the guest, which is in memory, as its memory operand.
    [[nodiscard]] static std::optional<Operands> register_as_memory(const x86::Insn& in,
                                                                    const Places& places);
    void emit_lea(const Item& item);
    // How many pushes, or pops, of registers in a row begin here that one check of the stack serves; 0: one
    // or none.
    [[nodiscard]] unsigned stack_run(const Item& first) const;
    void emit_stack_run(const Item& first, unsigned count);
    Checked store_below_stack(const Item& item, unsigned size);
    [[nodiscard]] bool emit_push(const Item& item);
    [[nodiscard]] bool emit_pop(const Item& item);
    [[nodiscard]] bool emit_pushf(const Item& item);
    [[nodiscard]] bool emit_bit_string(const Item& item);
    [[nodiscard]] bool emit_access_check(const Item& item);
    [[nodiscard]] bool emit_mov_from_seg(const Item& item);
    [[nodiscard]] bool emit_segment_base(const Item& item);
    [[nodiscard]] bool emit_rdtsc(const Item& item);
    // The host register for a value meant for a guest's, S0 if that is in memory; and the value's way there.
    [[nodiscard]] static HostReg result_register(unsigned guest);
    void store_result(unsigned guest);
    [[nodiscard]] bool emit_cli(const Item& item);
    [[nodiscard]] bool emit_sti(const Item& item);
    [[nodiscard]] bool emit_swapgs(const Item& item);
    [[nodiscard]] bool emit_leave(const Item& item);
    [[nodiscard]] bool emit_divide(const Item& item);
    [[nodiscard]] bool emit_moffs(const Item& item);
    void check_vectors(const Item& item);
    void check_x87(const Item& item);
    void record_x87(const Item& item);

    // --- branches (branches.cpp)
    void emit_branch(const Item& item);
    void emit_jcc(const Item& item);
    void emit_loop(const Item& item);
    void emit_ret(const Item& item);
    void emit_call(const Item& item);
    void emit_indirect(const Item& item);
    // Checked before anything is changed.
    void push_return_address(const Item& item);
    // Whether that leaves S0 alone.
    [[nodiscard]] bool push_keeps_s0(const Item& item) const;
    // RSP += bytes; no flags. move_stack: as part of the instruction.
    void add_to_stack_pointer(s32 bytes);
    void move_stack(s32 bytes);
    // Jumps to the code of the address in S0, if the target cache has it.
    void find_target(const Item& item);

    // --- leaving
    ExitRecord& new_exit(ExitKind kind, const Item& item);
    // Null if it cannot be: #GP.
    ExitRecord* direct_exit(u64 target, const Item& item);
    // Checks that the page of r.target is mapped as when the exit was linked, and goes there.
    void other_page_exit(ExitRecord& r);
    void linked_jump(ExitRecord& r, Stub::Kind unlinked);
    // At the block's entry: leaves if there is something to attend to. The flags are announced or dead.
    void attend();
    void attend_keeping_flags();
    ExitRecord& exit_to_itself();
    // With SoftCpuConfig::count. Changes no flags; S0 is used. Gives where the number to add is.
    u8* count(u64 counter);
    // From branch to branch: counted at the beginning, by what is known at the end.
    void begin_segment(const Item& item);
    void end_segment(const Item& item);
    ExitRecord& bail(const Item& item, u8* from, ExitKind kind = ExitKind::Interpret);
    [[nodiscard]] u8* way_out(const Stub& stub) const;
    void emit_stubs();
    void check_second_page();

    [[nodiscard]] int number_of(const Item& item) const { return static_cast<int>(&item - items_.data()); }
    [[nodiscard]] u64 branch_target(const Item& item) const;
    [[nodiscard]] u64 next_rip(const Item& item) const;
    [[nodiscard]] bool same_page(u64 rip) const { return rip - out_.page < kPageSize; }
    [[nodiscard]] bool wide() const { return c_.code64(); }
    [[nodiscard]] static Mem gs(u64 offset) { return {.disp = static_cast<s32>(offset), .gs = true}; }
    [[nodiscard]] static Mem slot(unsigned guest);

    Jit& jit_;
    Vcpu& c_;
    Emitter& e_;
    Translation& out_;
    const FetchEntry& page_;
    bool user_;
    bool strict_;  // flags always count
    bool single_cpu_;
    const bool count_;
    struct {
        int first = 0;
        int accesses = 0;
        u8* add_instructions = nullptr;
        u8* add_accesses = nullptr;
    } segment_;

    std::vector<Item> items_;
    std::vector<Stub> stubs_;
    unsigned start_ = 0;               // how many instructions of the block are before the first of items_
    const Op* second_page_ = nullptr;  // the check of it, if the block needs one
    bool ended_ = false;  // by the last item, a branch or an instruction that goes back to the dispatcher

    // Where the status flags are. Nowhere: they do not count.
    bool in_host_ = true;
    bool saved_ = false;
    Repeat producer_;
    struct Announced {
        u8* place = nullptr;  // of the number in the instruction
        Repeat flags;
    };
    std::vector<Announced> announced_;
    std::vector<Neighbours> neighbours_;
    StackGroup group_;
    u32 vectors_checked_ = 0;  // FpTrap bits
    bool x87_checked_ = false;
};

}  // namespace tessera::soft::jit
