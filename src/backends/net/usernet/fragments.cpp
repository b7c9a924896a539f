#include "backends/net/usernet/fragments.h"

#include <algorithm>

namespace tessera::usernet {

// The one with this key, or a free one, or the oldest.
Fragments::Datagram& Fragments::datagram_for(const Key& key, u64 now_ms) {
    Datagram* best = datagrams_.data();
    for (Datagram& datagram : datagrams_) {
        if (datagram.used && now_ms - datagram.begun_ms > kPatienceMs) datagram.used = false;
        if (datagram.used && datagram.key == key) return datagram;
        if (best->used && (!datagram.used || datagram.begun_ms < best->begun_ms)) best = &datagram;
    }
    best->used = true;
    best->key = key;
    best->begun_ms = now_ms;
    best->have.reset();
    best->end = 0;
    best->most = 0;
    if (best->bytes.empty()) best->bytes.resize(kMostBytes);
    return *best;
}

bool Fragments::store(Datagram& datagram, const Piece& piece) {
    const std::size_t end = piece.offset + piece.content.size();
    if (end > kMostBytes || (!piece.last && piece.content.size() % 8 != 0)) return false;
    if (piece.last && (datagram.end != 0 || end < datagram.most)) return false;
    if (datagram.end != 0 && end > datagram.end) return false;
    for (std::size_t block = piece.offset / 8; block < (end + 7) / 8; ++block) {
        if (datagram.have[block]) return false;
        datagram.have.set(block);
    }
    put_bytes(datagram.bytes, piece.offset, piece.content);
    datagram.most = std::max(datagram.most, end);
    if (piece.last) datagram.end = end;
    return true;
}

std::optional<Bytes> Fragments::add(const Key& key, const Piece& piece, u64 now_ms) {
    if (piece.content.empty()) return std::nullopt;
    Datagram& datagram = datagram_for(key, now_ms);
    if (!store(datagram, piece)) {
        datagram.used = false;  // [RFC 5722]: what overlaps is not a datagram
        return std::nullopt;
    }
    if (datagram.end == 0 || datagram.have.count() != (datagram.end + 7) / 8) return std::nullopt;
    datagram.used = false;
    return Bytes(datagram.bytes).first(datagram.end);
}

}  // namespace tessera::usernet
