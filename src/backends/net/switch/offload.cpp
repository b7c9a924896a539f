#include "backends/net/switch/offload.h"

#include <algorithm>
#include <array>
#include <optional>

#include "backends/net/ring/link.h"
#include "backends/net/usernet/checksum.h"
#include "backends/net/usernet/packet.h"

namespace tessera::net {

namespace {

using usernet::Bytes;
using usernet::EtherType;
using usernet::get16;
using usernet::get32;
using usernet::IpAddress;
using usernet::Protocol;
using usernet::put16;
using usernet::put32;
using usernet::put8;
using usernet::put_bytes;
using usernet::Room;

constexpr std::size_t kMostSegments = 128;
constexpr std::size_t kMostHeaders = 14 + 60 + 60;
constexpr u8 kFinOrPush = 0x09;
constexpr u8 kReduced = 0x80;  // CWR: the first segment's

// Where the headers of a TCP segment lie.
struct Layout {
    bool v4 = false;
    std::size_t tcp = 0;   // offset of the TCP header
    std::size_t data = 0;  // and of what follows
};

std::optional<Layout> layout_of(Bytes frame, u8 gso_type) {
    constexpr std::size_t kIp = usernet::kEthernetHeader;
    if (frame.size() < kIp + usernet::kIpv4Header + usernet::kTcpHeader) return std::nullopt;
    Layout layout;
    layout.v4 = gso_type == NetHeader::kGsoTcp4;
    if (get16(frame, 12) != static_cast<u16>(layout.v4 ? EtherType::Ipv4 : EtherType::Ipv6))
        return std::nullopt;
    const std::size_t ip = layout.v4 ? std::size_t{frame[kIp] & 0xfU} * 4 : usernet::kIpv6Header;
    const u8 protocol = frame[kIp + (layout.v4 ? 9 : 6)];
    layout.tcp = kIp + ip;
    if (ip < usernet::kIpv4Header || protocol != static_cast<u8>(Protocol::Tcp) ||
        frame.size() < layout.tcp + usernet::kTcpHeader)
        return std::nullopt;
    layout.data = layout.tcp + std::size_t{frame[layout.tcp + 12]} / 16 * 4;
    if (layout.data < layout.tcp + usernet::kTcpHeader || layout.data > frame.size()) return std::nullopt;
    return layout;
}

// Lengths and checksums of one segment, whose other fields are right.
void finish_segment(Room frame, const Layout& layout) {
    const Room ip = frame.subspan(usernet::kEthernetHeader);
    const std::size_t header = layout.tcp - usernet::kEthernetHeader;
    const Room tcp = frame.subspan(layout.tcp);
    IpAddress from;
    IpAddress to;
    if (layout.v4) {
        put16(ip, 2, static_cast<u32>(ip.size()));
        put16(ip, 10, 0);
        usernet::store_checksum(ip, 10, usernet::add_to_sum(0, ip.first(header)));
        from = IpAddress::from_v4(ip.subspan(12, 4));
        to = IpAddress::from_v4(ip.subspan(16, 4));
    } else {
        put16(ip, 4, static_cast<u32>(tcp.size()));
        from = IpAddress::from_v6(ip.subspan(8, 16));
        to = IpAddress::from_v6(ip.subspan(24, 16));
    }
    put16(tcp, 16, 0);
    const u64 sum = usernet::pseudo_sum(from, to, Protocol::Tcp, tcp.size());
    usernet::store_checksum(tcp, 16, usernet::add_to_sum(sum, tcp));
}

void cut_segment(const NetHeader& header, Bytes frame, const FrameSink& sink) {
    const auto layout = layout_of(frame, header.gso_type & static_cast<u8>(~NetHeader::kGsoEcn));
    if (!layout) return;
    const Bytes data = frame.subspan(layout->data);
    const std::size_t piece = header.gso_size;
    if (data.size() > piece * kMostSegments) return;
    const u8 flags = frame[layout->tcp + 13];
    const u32 sequence = get32(frame, layout->tcp + 4);
    const u16 id = get16(frame, usernet::kEthernetHeader + 4);
    // Filled next. NOLINTNEXTLINE(cppcoreguidelines-pro-type-member-init)
    std::array<u8, kMostHeaders + 65536> segment;
    std::size_t at = 0;
    u32 number = 0;
    do {
        const Bytes part = data.subspan(at, std::min(piece, data.size() - at));
        const Room made = Room(segment).first(layout->data + part.size());
        put_bytes(made, 0, frame.first(layout->data));
        put_bytes(made, layout->data, part);
        const bool last = at + part.size() == data.size();
        u8 own = flags;
        if (!last) own &= static_cast<u8>(~kFinOrPush);
        if (number != 0) own &= static_cast<u8>(~kReduced);
        put8(made, layout->tcp + 13, own);
        put32(made, layout->tcp + 4, sequence + static_cast<u32>(at));
        if (layout->v4) put16(made, usernet::kEthernetHeader + 4, id + number);
        finish_segment(made, *layout);
        sink(made);
        at += part.size();
        ++number;
    } while (at < data.size());
}

}  // namespace

bool takes_as_is(const NetHeader& header, const NetOffloads& receiver) {
    return header_is_sane(header, kMaxFrame, receiver);
}

void complete_frame(const NetHeader& header, std::span<u8> frame, const FrameSink& sink) {
    if (header.gso_type != NetHeader::kGsoNone) {
        cut_segment(header, frame, sink);
        return;
    }
    if ((header.flags & NetHeader::kNeedsChecksum) != 0) {
        const std::size_t start = header.checksum_start;
        const std::size_t at = start + header.checksum_offset;
        if (at + 2 > frame.size()) return;
        // [VIRTIO-1.2 5.1.6.2]: the field holds the sum over the pseudo header.
        const u64 sum = usernet::add_to_sum(0, frame.subspan(start));
        usernet::store_checksum(frame, at, sum);
    }
    sink(frame);
}

}  // namespace tessera::net
