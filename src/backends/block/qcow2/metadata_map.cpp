#include "backends/block/qcow2/metadata_map.h"

#include <algorithm>

namespace tessera::block::qcow2 {

bool MetadataMap::finish() {
    std::ranges::sort(areas_, {}, &Area::first);
    bool apart = true;
    std::vector<Area> joined;
    for (const Area& area : areas_) {
        if (!joined.empty()) {
            Area& last = joined.back();
            const u64 distance = area.first - last.first;
            apart = apart && distance >= last.count;
            if (distance <= last.count) {
                last.count = std::max(last.count, distance + area.count);
                continue;
            }
        }
        joined.push_back(area);
    }
    areas_ = std::move(joined);
    return apart;
}

std::vector<MetadataMap::Area>::const_iterator MetadataMap::after(u64 cluster) const {
    return std::ranges::upper_bound(areas_, cluster, {}, &Area::first);
}

bool MetadataMap::contains(u64 cluster) const {
    const auto next = after(cluster);
    if (next != areas_.begin() && cluster - std::prev(next)->first < std::prev(next)->count) return true;
    return !added_.empty() && added_.contains(cluster);
}

bool MetadataMap::touches(u64 first, u64 count) const {
    for (u64 i = 0; i < count; ++i)
        if (contains(first + i)) return true;
    return false;
}

void MetadataMap::remove(u64 first, u64 count) {
    for (u64 cluster = first; cluster < first + count; ++cluster) {
        if (added_.erase(cluster) != 0) continue;
        const auto next = after(cluster);
        if (next == areas_.begin()) continue;
        const auto it = areas_.begin() + (std::prev(next) - areas_.cbegin());
        const Area whole = *it;
        if (cluster - whole.first >= whole.count) continue;
        const Area rest{cluster + 1, whole.first + whole.count - cluster - 1};
        it->count = cluster - whole.first;
        const auto place = it->count == 0 ? areas_.erase(it) : std::next(it);
        if (rest.count != 0) areas_.insert(place, rest);
    }
}

}  // namespace tessera::block::qcow2
