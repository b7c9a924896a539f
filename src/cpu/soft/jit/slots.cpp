#include "cpu/soft/jit/slots.h"

#include <algorithm>

#include "cpu/soft/vcpu.h"

namespace tessera::soft::jit {

namespace {

// They are filled again as soon as they are missed.
void note_emptied(Vcpu& c, u32 count) {
    constexpr u32 kMost = SlotLog::kEntries;
    if (count == 0) return;
    c.slots_emptied = std::min(c.slots_emptied + count, kMost);
    c.slot_misses = 0;
}

}  // namespace

void empty_user_slots(Vcpu& c) {
    note_emptied(c, c.slot_logs[1].empty_all());
}

void empty_all_slots(Vcpu& c) {
    for (SlotLog& log : c.slot_logs) note_emptied(c, log.empty_all());
}

void empty_page_slots(Vcpu& c, u64 lin, bool large) {
    if (large) {
        empty_all_slots(c);
        return;
    }
    const u64 page = lin & ~kPageMask;
    for (SlotLog& log : c.slot_logs)
        note_emptied(c, log.empty_if([page](const Slot& s) { return s.page == page; }));
}

void empty_host_slots(Vcpu& c, const u8* host) {
    const u64 page = reinterpret_cast<u64>(host);
    for (SlotLog& log : c.slot_logs)
        note_emptied(
            c, log.empty_if([page](const Slot& s) { return s.page + static_cast<u64>(s.addend) == page; }));
}

}  // namespace tessera::soft::jit
