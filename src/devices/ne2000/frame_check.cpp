#include "devices/ne2000/frame_check.h"

#include <array>

namespace tessera::ne2000 {

namespace {

constexpr u32 kPolynomial = 0xedb8'8320;  // bits in the order in which they are sent

constexpr std::array<u32, 256> make_table() {
    std::array<u32, 256> table{};
    for (u32 byte = 0; byte < table.size(); ++byte) {
        u32 rest = byte;
        for (unsigned bit = 0; bit < 8; ++bit) rest = rest >> 1 ^ ((rest & 1) != 0 ? kPolynomial : 0);
        table[byte] = rest;
    }
    return table;
}
constexpr std::array<u32, 256> kTable = make_table();

}  // namespace

u32 check_add(u32 sum, std::span<const u8> bytes) {
    for (const u8 byte : bytes) sum = sum >> 8 ^ kTable[(sum ^ byte) & 0xff];
    return sum;
}

unsigned multicast_hash(std::span<const u8> address) {
    const u32 sum = check_add(kCheckStart, address);
    unsigned hash = 0;
    for (unsigned bit = 0; bit < 6; ++bit) hash = hash << 1 | (sum >> bit & 1);
    return hash;
}

}  // namespace tessera::ne2000
