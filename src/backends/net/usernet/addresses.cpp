#include "backends/net/usernet/addresses.h"

#include <algorithm>
#include <charconv>
#include <fmt/format.h>
#include <iterator>

namespace tessera::usernet {

namespace {

constexpr std::array<u8, 12> kV4Prefix{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

std::optional<u32> parse_number(std::string_view text, int base, u32 most) {
    u32 value = 0;
    const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), value, base);
    if (text.empty() || error != std::errc{} || stop != text.data() + text.size() || value > most)
        return std::nullopt;
    return value;
}

std::optional<IpAddress> parse_v4(std::string_view text) {
    u32 address = 0;
    for (int part = 0; part < 4; ++part) {
        const auto dot = text.find('.');
        if ((dot == std::string_view::npos) != (part == 3)) return std::nullopt;
        const auto value = parse_number(text.substr(0, dot), 10, 255);
        if (!value) return std::nullopt;
        address = address << 8 | *value;
        text.remove_prefix(part == 3 ? text.size() : dot + 1);
    }
    return IpAddress::v4(address);
}

// The 16-bit groups of a part without "::".
bool parse_groups(std::string_view text, std::array<u8, 16>& bytes, std::size_t& count) {
    count = 0;
    while (!text.empty()) {
        const auto colon = text.find(':');
        const std::string_view piece = text.substr(0, colon);
        const auto value = parse_number(piece, 16, 0xffff);
        if (!value || piece.size() > 4 || count == 8) return false;
        put16(bytes, count * 2, *value);
        ++count;
        if (colon == std::string_view::npos) return true;
        text.remove_prefix(colon + 1);
        if (text.empty()) return false;
    }
    return true;
}

std::optional<IpAddress> parse_v6(std::string_view text) {
    std::array<u8, 16> head{};
    std::array<u8, 16> tail{};
    std::size_t before = 0;
    std::size_t behind = 0;
    const auto gap = text.find("::");
    if (!parse_groups(text.substr(0, gap), head, before)) return std::nullopt;
    if (gap == std::string_view::npos) return before == 8 ? std::optional(IpAddress{head}) : std::nullopt;
    if (!parse_groups(text.substr(gap + 2), tail, behind) || before + behind > 7) return std::nullopt;
    put_bytes(head, 16 - behind * 2, Bytes(tail).first(behind * 2));
    return IpAddress{head};
}

}  // namespace

IpAddress IpAddress::v4(u32 address) {
    IpAddress made;
    std::ranges::copy(kV4Prefix, made.bytes.begin());
    put32(made.bytes, 12, address);
    return made;
}

IpAddress IpAddress::from_v4(Bytes four) {
    return v4(get32(four, 0));
}

IpAddress IpAddress::from_v6(Bytes sixteen) {
    IpAddress made;
    std::ranges::copy(sixteen.first<16>(), made.bytes.begin());
    return made;
}

std::optional<IpAddress> IpAddress::parse(std::string_view text) {
    return text.find(':') == std::string_view::npos ? parse_v4(text) : parse_v6(text);
}

bool IpAddress::is_v4() const {
    return std::ranges::equal(Bytes(bytes).first<12>(), kV4Prefix);
}

bool IpAddress::is_zero() const {
    return is_v4() ? as_v4() == 0 : std::ranges::all_of(bytes, [](u8 byte) { return byte == 0; });
}

bool IpAddress::is_loopback() const {
    if (is_v4()) return bytes[12] == 127;
    return bytes[15] == 1 && std::ranges::all_of(Bytes(bytes).first<15>(), [](u8 byte) { return byte == 0; });
}

bool IpAddress::is_link_local() const {
    if (is_v4()) return bytes[12] == 169 && bytes[13] == 254;
    return bytes[0] == 0xfe && (bytes[1] & 0xc0) == 0x80;
}

bool IpAddress::is_multicast() const {
    return is_v4() ? (bytes[12] & 0xf0) == 0xe0 : bytes[0] == 0xff;
}

std::string IpAddress::text() const {
    if (is_v4()) return fmt::format("{}.{}.{}.{}", bytes[12], bytes[13], bytes[14], bytes[15]);
    std::string words;
    for (std::size_t i = 0; i < bytes.size(); i += 2)
        fmt::format_to(std::back_inserter(words), "{}{:x}", i == 0 ? "" : ":", get16(bytes, i));
    return words;
}

bool same_network(const IpAddress& a, const IpAddress& b, unsigned bits) {
    if (a.is_v4() != b.is_v4()) return false;
    const unsigned whole = (a.is_v4() ? 96 : 0) + bits;
    for (unsigned bit = 0; bit < whole; bit += 8) {
        const unsigned left = std::min(8U, whole - bit);
        const u8 mask = static_cast<u8>(0xff00U >> left);
        if (((a.bytes[bit / 8] ^ b.bytes[bit / 8]) & mask) != 0) return false;
    }
    return true;
}

}  // namespace tessera::usernet
