#include "devices/lapic/lapic_fabric.h"

namespace tessera::lapic {

void LapicFabric::add(Lapic& lapic) {
    lapics_.push_back(&lapic);
    const u32 id = lapic.apic_id();
    if (id >= kIndexedIds) return;
    if (by_id_.size() <= id) by_id_.resize(id + 1, nullptr);
    by_id_[id] = &lapic;
}

void LapicFabric::deliver(const ApicMessage& message) {
    if (message.delivery_mode == DeliveryMode::LowestPriority) return deliver_to_one(message);
    if (message.destination_mode == DestinationMode::Physical && message.destination < kIndexedIds) {
        Lapic* lapic = message.destination < by_id_.size() ? by_id_[message.destination] : nullptr;
        if (lapic != nullptr && lapic->matches(message)) lapic->accept(message);
        return;
    }
    for (Lapic* lapic : lapics_)
        if (lapic->matches(message)) lapic->accept(message);
}

// [SDM 3A 11.6.2.4] How the CPU is chosen is up to the model; chipsets without a view of the task priorities
// take turns, and so do we.
void LapicFabric::deliver_to_one(const ApicMessage& message) {
    u32 candidates = 0;
    for (const Lapic* lapic : lapics_)
        if (lapic->accepts_fixed() && lapic->matches(message)) ++candidates;
    if (candidates == 0) return;
    u32 chosen = turn_.fetch_add(1, std::memory_order_relaxed) % candidates;
    Lapic* last = nullptr;
    // A CPU may disable its APIC between the two walks; then the last one that still takes it is as good.
    for (Lapic* lapic : lapics_) {
        if (!lapic->accepts_fixed() || !lapic->matches(message)) continue;
        last = lapic;
        if (chosen-- == 0) break;
    }
    if (last != nullptr) last->accept(message);
}

}  // namespace tessera::lapic
