// Puts IPv4 datagrams together that came in fragments: a bounded number, for a bounded time; one that
// overlaps is given up.
#pragma once

#include <array>
#include <bitset>
#include <optional>
#include <vector>

#include "backends/net/usernet/addresses.h"

namespace tessera::usernet {

class Fragments {
public:
    struct Key {
        IpAddress from;
        IpAddress to;
        u16 id = 0;
        u8 protocol = 0;
        friend bool operator==(const Key&, const Key&) = default;
    };
    struct Piece {
        std::size_t offset = 0;  // in bytes
        bool last = false;
        Bytes content;
    };
    // The whole message when this was what was missing; valid until the next call.
    std::optional<Bytes> add(const Key& key, const Piece& piece, u64 now_ms);

    static constexpr std::size_t kMostDatagrams = 16;
    static constexpr u64 kPatienceMs = 15'000;

private:
    static constexpr std::size_t kMostBytes = 65535 - 20;
    static constexpr std::size_t kBlocks = 8192;  // of eight bytes

    struct Datagram {
        bool used = false;
        Key key;
        u64 begun_ms = 0;
        std::vector<u8> bytes;  // allocated at the first use, then kept
        std::bitset<kBlocks> have;
        std::size_t end = 0;  // 0: the last fragment has not come
        std::size_t most = 0;
    };
    Datagram& datagram_for(const Key& key, u64 now_ms);
    static bool store(Datagram& datagram, const Piece& piece);

    std::array<Datagram, kMostDatagrams> datagrams_{};
};

}  // namespace tessera::usernet
