#include "backends/net/usernet/tcp_segment.h"

#include <algorithm>

namespace tessera::usernet {

namespace {

constexpr u8 kEnd = 0;
constexpr u8 kNothing = 1;
constexpr u8 kMss = 2;
constexpr u8 kScale = 3;
constexpr u8 kMostScale = 14;  // [RFC 7323 2.3]

void parse_options(Bytes options, Segment& segment) {
    while (!options.empty() && options[0] != kEnd) {
        if (options[0] == kNothing) {
            options = options.subspan(1);
            continue;
        }
        if (options.size() < 2 || options[1] < 2 || options[1] > options.size()) return;
        if (options[0] == kMss && options[1] == 4) segment.mss = get16(options, 2);
        if (options[0] == kScale && options[1] == 3) segment.scale = std::min(options[2], kMostScale);
        options = options.subspan(options[1]);
    }
}

}  // namespace

std::optional<Segment> parse_segment(const Packet& packet) {
    const Bytes head = packet.head;
    if (packet.message.size() < kTcpHeader || head.size() < kTcpHeader) return std::nullopt;
    const std::size_t header = std::size_t{head[12]} / 16 * 4;
    if (header < kTcpHeader || header > packet.message.size() || header > head.size()) return std::nullopt;
    if (!checksum_is_right(packet)) return std::nullopt;
    Segment segment{.from_port = get16(head, 0),
                    .to_port = get16(head, 2),
                    .sequence = get32(head, 4),
                    .acknowledged = get32(head, 8),
                    .flags = head[13],
                    .window = get16(head, 14),
                    .data = packet.message.subspan(header)};
    if (segment.has(TcpFlags::kSyn)) parse_options(head.subspan(kTcpHeader, header - kTcpHeader), segment);
    return segment;
}

}  // namespace tessera::usernet
