// Page slots: where each memory access of translated code keeps the page it used last [soft-cpu.md 4.3,
// scheme F], and the record of which are filled, so that they can be emptied when the guest changes its
// mappings.
#pragma once

#include <array>

#include "base/types.h"
#include "cpu/soft/reserved_memory.h"

namespace tessera::soft {
struct Vcpu;
}

namespace tessera::soft::jit {

struct Slot {
    u64 page = 0;        // linear
    s64 addend = 0;      // host address - linear address
    u64 limit = 0;       // offsets in the page below it are good; 0: the slot is empty
    u32 full_limit = 0;  // of a slot that is not
    u32 patience = 0;    // of a stack's: so many more misses do not fill it
};
static_assert(sizeof(Slot) == 32);

// An access of translated code across two pages that the host does not have side by side.
struct Across {
    alignas(64) std::array<u8, 64> bytes{};  // what is read or written; the boundary is in the middle
    alignas(32) std::array<u8, 32> kept{};   // of a host register
    // Of what is written: the end of the first page and the beginning of the second, in the host, and how
    // much goes to the first.
    u8* first = nullptr;
    u8* second = nullptr;
    u64 first_size = 0;
};

// The filled slots of supervisor or of user code. Translated code appends to it (thunks.cpp).
struct SlotLog {
    static constexpr unsigned kEntries = 65536;

    ReservedArray<Slot*> filled{kEntries, kEntries};
    Slot** next = filled.begin();
    Slot** end = filled.begin() + kEntries;

    SlotLog() = default;
    ~SlotLog() = default;
    SlotLog(const SlotLog&) = delete;
    SlotLog& operator=(const SlotLog&) = delete;

    void reset() { next = filled.begin(); }
    // A full record forgets, rather than that no slot is filled anymore.
    void append(Slot* slot) {
        if (next == end) empty_all();
        *next++ = slot;
    }
    void empty_all() {
        for (Slot** s = filled.begin(); s != next; ++s) (*s)->limit = 0;
        next = filled.begin();
    }
    template <typename Which>
    void empty_if(const Which& which) {
        for (Slot** s = filled.begin(); s != next;) {
            if (which(**s)) {
                (*s)->limit = 0;
                *s = *--next;
            } else {
                ++s;
            }
        }
    }
};

// --- for the MMU. Supervisor slots only hold global pages.
void empty_user_slots(Vcpu& c);
void empty_all_slots(Vcpu& c);
// User slots of the linear page, and the supervisor's.
void empty_page_slots(Vcpu& c, u64 lin, bool supervisor_too);
// Slots that show this host page.
void empty_host_slots(Vcpu& c, const u8* host);

}  // namespace tessera::soft::jit
