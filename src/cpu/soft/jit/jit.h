// The block translator (tier T1, soft-cpu.md 4): what the interpreter sees of it.
//
// A block that the interpreter has run often enough is translated once per linear page and privilege level.
// Translated code calls the interpreter's own handlers for what is rare, and leaves to run_translated (in
// jit.cpp) whenever it does not know where to go on.
#pragma once

#include <algorithm>
#include <array>
#include <memory>
#include <vector>

#include "cpu/soft/blocks.h"
#include "cpu/soft/jit/code_memory.h"
#include "cpu/soft/reserved_memory.h"
#include "cpu/soft/vcpu.h"

namespace tessera::soft::jit {

struct Translation;

// Why translated code has come back.
enum class ExitKind : u8 {
    Direct,     // a branch to `target`, not linked, or not to be followed now
    Indirect,   // the branch `op` to Vcpu::jit_target, which the target cache does not know
    Interpret,  // the instruction at `op` and what follows are for the interpreter
    Apart,   // the stack's page is not that of a whole group (stack_group.cpp): from `op` on without groups
    ByHand,  // likewise, but one at a time: the x87 or vector unit is not as translated code wants it
    Resume,  // an interpreter's handler has ended the block; Vcpu::rip is set
};

// Ways into a translation, by what is known there.
enum class Entry : u8 {
    Plain,      // the flags are the host's
    Attended,   // likewise, and Vcpu::attention is looked at
    Announced,  // S0 says what brings the flags (flags.cpp), and Vcpu::attention is looked at
    Fresh,      // likewise, after at least one instruction
};

struct ExitRecord {
    ExitKind kind = ExitKind::Direct;
    Entry entry = Entry::Plain;  // Direct: to be linked to
    bool shadow = false;         // interrupts are held back for the instruction at the target
    u8 n = 0;                    // instructions executed that nobody else counts
    u64 target = 0;              // Direct: RIP
    const Op* op = nullptr;      // Interpret, Indirect, Apart, ByHand
    u8* jump = nullptr;          // Direct: the distance field of the jump to be linked
    u8* unlinked = nullptr;      // where it leads while it is not
    // The number to compare with exec_gen_*: of an exit to another page, or (Interpret) of a block that
    // reaches into a second one.
    u8* stamp = nullptr;
    // Of an exit to another page: the jump for when they differ, and where that may lead, to look into the
    // target cache.
    u8* mismatch = nullptr;
    u8* other_mapping = nullptr;
    u8 stamped = 0;  // how often
    Translation* from = nullptr;
    Translation* linked_to = nullptr;
    // The others that are linked to it.
    ExitRecord* previous = nullptr;
    ExitRecord* next = nullptr;
};

struct Translation {
    u64 page = 0;  // Vcpu::reg[kRipSlot] while it runs
    u8 mode = 0;
    const Op* head = nullptr;   // of the block it was made from
    const Op* start = nullptr;  // that does without groups: where in the block it begins
    bool dropped = false;
    // Places in the writable mapping.
    u8* entry = nullptr;
    u8* entry_attended = nullptr;
    u8* entry_announced = nullptr;
    u8* entry_fresh = nullptr;  // likewise, and at least one instruction is executed
    u8* end = nullptr;
    u8* stubs = nullptr;  // the rest of its code, seldom run
    u8* stubs_end = nullptr;
    ExitRecord* second_page = nullptr;  // taken when it is not known where the block's second page is
    [[nodiscard]] u8* at(Entry e) const {
        switch (e) {
            case Entry::Plain: return entry;
            case Entry::Attended: return entry_attended;
            case Entry::Announced: return entry_announced;
            case Entry::Fresh: break;
        }
        return entry_fresh;
    }

    // For lockstep: every instruction can be undone; flags that some instruction leaves undefined.
    bool checkable = false;
    u16 undefined_flags = 0;
    Translation* other = nullptr;    // the same block at another page or mode
    ExitRecord* incoming = nullptr;  // the first exit that is linked to it
    ExitRecord* exits = nullptr;     // its own, side by side
    u32 exit_count = 0;
};

struct Figures {
    u64 translations = 0, instructions = 0, flushes = 0, drops = 0;
    u64 links = 0, exits_direct = 0, exits_indirect = 0, exits_interpret = 0, exits_by_hand = 0,
        exits_apart = 0, exits_resume = 0, calls = 0, first_missed = 0;
};

class Jit {
public:
    // Null if the host refuses executable memory.
    static std::unique_ptr<Jit> create(Vcpu& c, u64 cache_size);
    Jit(const Jit&) = delete;
    Jit& operator=(const Jit&) = delete;
    ~Jit() = default;

    // The handler at the head of each block: counts its runs down in Op::imm, from `runs`, then translates.
    static void init_head(Op& head, u64 runs);

    // The block whose head this is goes away.
    void drop(const Op& head);
    // All code goes away; the caller drops all blocks.
    void drop_all();

    void statistics(std::vector<Statistic>& out) const;

private:
    friend class Translator;
    friend struct Runtime;

    Jit(Vcpu& c, std::unique_ptr<CodeMemory> code);

    void emit_thunks();
    void reset_slots();
    void begin_slots();
    // For accesses of up to `size` bytes.
    Slot* new_slot(unsigned size);
    // `start`: only from there on, and without groups.
    Translation* translate(const Op* head, u8 mode, const Op* start = nullptr);
    Translation* make_translation(const Op* head, u8 mode, const Op* start);
    // What goes on at an exit of this kind; null: nothing does.
    Translation* apart(ExitRecord& exit);
    [[nodiscard]] bool full() const;
    ExitRecord& new_exit();
    static Translation* find(const Op* head, u64 page, u8 mode);
    Translation* at_rip(u64 rip, u8 mode);
    void link(ExitRecord& exit, Translation& to);
    // The block's second page, if it has one, is where it was when the block was decoded, as far as known.
    bool renew_second_page(const Translation& t);
    [[nodiscard]] const FetchEntry& second_page(u64 page);
    // Whether it was another.
    bool write_stamp(const ExitRecord& exit);
    void stamp(ExitRecord& exit, const Translation& to);
    void add_target(u64 rip, const Translation& to);
    static void unlink_jump(const ExitRecord& exit);
    void unlink(ExitRecord& exit);
    void drop_one(Translation& t);
    void forget_targets();
    static constexpr unsigned kStackWord = 8;
    // The instruction is not one the guest has.
    [[nodiscard]] static bool is_undefined(const Op* op);
    [[nodiscard]] const void* run_address(const u8* at) const { return at + code_->to_run(); }
    // A place in code as announced in S0.
    [[nodiscard]] u32 offset_of(const u8* at) const { return static_cast<u32>(at - code_->begin()); }

    Vcpu& c_;
    std::unique_ptr<CodeMemory> code_;
    // What runs often is kept apart from what seldom does, so that caches hold more of it.
    u8* first_ = nullptr;  // after the thunks
    u8* at_ = nullptr;
    u8* first_stubs_ = nullptr;
    u8* stubs_at_ = nullptr;
    Slot* slots_end_ = nullptr;  // of those in use, which begin with the code memory's data
    // Of all accesses by RSP: [user][of more than 8 bytes][write].
    std::array<std::array<std::array<Slot*, 2>, 2>, 2> stack_slots_{};
    [[nodiscard]] Slot* stack_slot(bool user, bool write, unsigned size) const {
        return stack_slots_[user][size > kStackWord][write];
    }
    // Of groups of them (stack_group.cpp): [user][write][by how many bytes they span].
    static constexpr unsigned kLargestGroup = 256;
    static constexpr std::array kGroups{32U, 64U, 128U, kLargestGroup};
    std::array<std::array<std::array<Slot*, kGroups.size()>, 2>, 2> group_slots_{};
    [[nodiscard]] Slot* group_slot(bool user, bool write, unsigned bytes) const {
        const auto* const size = std::ranges::lower_bound(kGroups, bytes);
        return group_slots_[user][write][static_cast<size_t>(size - kGroups.begin())];
    }
    // Never moved, and forgotten at no cost.
    ReservedArray<Translation> translations_;
    ReservedArray<ExitRecord> exits_;
    u64 translation_count_ = 0;
    u64 exit_count_ = 0;
    Figures figures_;

    // Thunks, in the writable mapping.
    struct {
        u8 *enter, *exit, *exit_saved, *exit_announced, *exit_indirect, *exit_indirect_saved,
            *flags_from_status, *find_target, *call_op, *call_op_saving, *load_vectors;
        std::array<std::array<u8*, 2>, 2> refill, refill_stack;  // [user][write]
        std::array<u8*, 2> refill_staged;                        // [user]
        u8* unstage;
    } thunk_{};
};

}  // namespace tessera::soft::jit
