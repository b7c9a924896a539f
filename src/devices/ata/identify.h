// The 256 words by which a device says what it is [ACS-3 7.12.7].
#pragma once

#include <array>
#include <span>
#include <string_view>

#include "base/types.h"

namespace tessera::ata {

class IdentifyWords {
public:
    static constexpr std::size_t kBytes = 512;

    void set(unsigned word, u16 value) { words_[word] = value; }
    void set32(unsigned word, u32 value);
    void set64(unsigned word, u64 value);
    // The first character of a word is its upper byte; what is left over is blanks.
    void set_text(unsigned word, unsigned words, std::string_view text);
    // Little-endian, with the checksum of word 255.
    void copy_to(std::span<u8, kBytes> out) const;

private:
    std::array<u16, 256> words_{};
};

}  // namespace tessera::ata
