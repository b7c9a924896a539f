#include "devices/ata/identify.h"

namespace tessera::ata {

namespace {

constexpr u8 kChecksumValid = 0xa5;

}  // namespace

void IdentifyWords::set32(unsigned word, u32 value) {
    set(word, static_cast<u16>(value));
    set(word + 1, static_cast<u16>(value >> 16));
}

void IdentifyWords::set64(unsigned word, u64 value) {
    set32(word, static_cast<u32>(value));
    set32(word + 2, static_cast<u32>(value >> 32));
}

void IdentifyWords::set_text(unsigned word, unsigned words, std::string_view text) {
    const auto at = [&](std::size_t index) {
        return index < text.size() ? static_cast<u8>(text[index]) : u8{' '};
    };
    for (unsigned n = 0; n < words; ++n)
        set(word + n, static_cast<u16>(at(2 * std::size_t{n}) << 8 | at(2 * std::size_t{n} + 1)));
}

void IdentifyWords::copy_to(std::span<u8, kBytes> out) const {
    u8 sum = 0;
    for (std::size_t n = 0; n < words_.size(); ++n) {
        out[2 * n] = static_cast<u8>(words_[n]);
        out[2 * n + 1] = static_cast<u8>(words_[n] >> 8);
    }
    // [ACS-3 7.12.7.88] The sum of all bytes is zero.
    out[kBytes - 2] = kChecksumValid;
    for (const u8 byte : out.first(kBytes - 1)) sum = static_cast<u8>(sum + byte);
    out[kBytes - 1] = static_cast<u8>(-sum);
}

}  // namespace tessera::ata
