#include "backends/net/usernet/checksum.h"

namespace tessera::usernet {

u64 add_to_sum(u64 sum, Bytes bytes) {
    // Sums of 32-bit words: 2^32 of them fit, and the compiler makes vectors of the loop.
    const std::size_t words = bytes.size() / 4;
    u64 even = 0;
    for (std::size_t i = 0; i < words; ++i) {
        u32 word = 0;
        std::memcpy(&word, bytes.subspan(i * 4).data(), sizeof word);
        even += word;
    }
    const Bytes rest = bytes.subspan(words * 4);
    u32 last = 0;
    if (!rest.empty()) std::memcpy(&last, rest.data(), rest.size());
    // Folded, so that a sum of sums cannot overflow.
    even += last;
    even = (even & 0xffffffff) + (even >> 32);
    return sum + even;
}

u16 fold_sum(u64 sum) {
    while (sum >> 16 != 0) sum = (sum & 0xffff) + (sum >> 16);
    return static_cast<u16>(sum);
}

void store_sum(Room to, std::size_t at, u64 sum) {
    const u16 folded = fold_sum(sum);
    std::memcpy(to.subspan(at, 2).data(), &folded, sizeof folded);
}

void store_checksum(Room to, std::size_t at, u64 sum) {
    const u16 folded = static_cast<u16>(~fold_sum(sum));
    std::memcpy(to.subspan(at, 2).data(), &folded, sizeof folded);
}

}  // namespace tessera::usernet
