// Which clusters of an image hold its own tables: nothing else is ever written there, whatever the image
// says.
#pragma once

#include <string>
#include <unordered_set>
#include <utility>
#include <vector>

#include "base/types.h"

namespace tessera::block::qcow2 {

class MetadataMap {
public:
    // While it is built: areas in any order. Then finish(), false if two of them overlap.
    void collect(u64 first, u64 count) {
        if (count != 0) areas_.push_back({first, count});
    }
    [[nodiscard]] bool finish();

    [[nodiscard]] bool contains(u64 cluster) const;
    [[nodiscard]] bool touches(u64 first, u64 count) const;
    void add(u64 first, u64 count) {
        for (u64 i = 0; i < count; ++i) added_.insert(first + i);
    }
    void remove(u64 first, u64 count);

private:
    struct Area {
        u64 first;
        u64 count;
    };
    [[nodiscard]] std::vector<Area>::const_iterator after(u64 cluster) const;

    std::vector<Area> areas_;  // sorted, apart from one another
    std::unordered_set<u64> added_;
};

}  // namespace tessera::block::qcow2
