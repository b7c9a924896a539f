// Page slots: where each memory access of translated code keeps the page it used last [soft-cpu.md 4.3,
// scheme F], and the record of which are filled, so that they can be emptied when the guest changes its
// mappings.
#pragma once

#include "base/types.h"
#include "cpu/soft/reserved_memory.h"

namespace tessera::soft {
struct Vcpu;
}

namespace tessera::soft::jit {

struct Slot {
    u64 page = 0;    // linear
    s64 addend = 0;  // host address - linear address
    u64 limit = 0;   // offsets in the page below it are good; 0: the slot is empty
    u64 less = 0;    // by how much `limit` is lower than the access that filled the slot wants it
};
static_assert(sizeof(Slot) == 32);

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
    // How many that were.
    u32 empty_all() {
        const auto count = static_cast<u32>(next - filled.begin());
        for (Slot** s = filled.begin(); s != next; ++s) (*s)->limit = 0;
        next = filled.begin();
        return count;
    }
    template <typename Which>
    u32 empty_if(const Which& which) {
        u32 count = 0;
        for (Slot** s = filled.begin(); s != next;) {
            if (which(**s)) {
                (*s)->limit = 0;
                *s = *--next;
                ++count;
            } else {
                ++s;
            }
        }
        return count;
    }
};

// --- for the MMU. Supervisor slots only hold global pages.
void empty_user_slots(Vcpu& c);
void empty_all_slots(Vcpu& c);
// Slots of the linear page; of all pages if it may be part of a large one.
void empty_page_slots(Vcpu& c, u64 lin, bool large);
// Slots that show this host page.
void empty_host_slots(Vcpu& c, const u8* host);

}  // namespace tessera::soft::jit
