#include "cpu/soft/jit/slots.h"

#include "cpu/soft/vcpu.h"

namespace tessera::soft::jit {

void empty_user_slots(Vcpu& c) {
    c.slot_logs[1].empty_all();
}

void empty_all_slots(Vcpu& c) {
    for (SlotLog& log : c.slot_logs) log.empty_all();
}

void empty_page_slots(Vcpu& c, u64 lin, bool supervisor_too) {
    const u64 page = lin & ~kPageMask;
    const auto holds = [page](const Slot& s) { return s.page == page; };
    c.slot_logs[1].empty_if(holds);
    if (supervisor_too) c.slot_logs[0].empty_if(holds);
}

void empty_host_slots(Vcpu& c, const u8* host) {
    const u64 page = reinterpret_cast<u64>(host);
    for (SlotLog& log : c.slot_logs)
        log.empty_if([page](const Slot& s) { return s.page + static_cast<u64>(s.addend) == page; });
}

}  // namespace tessera::soft::jit
