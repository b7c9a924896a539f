// Little-endian bytes: a growing writer for the tables we build, bounded reads for the files we are given.
#pragma once

#include <concepts>
#include <cstring>
#include <optional>
#include <span>
#include <string_view>
#include <type_traits>
#include <vector>

#include "base/types.h"

namespace tessera::boot {

// The value at `offset`, or nothing when the bytes end before it does.
template <std::unsigned_integral T>
[[nodiscard]] std::optional<T> read_le(std::span<const std::byte> bytes, u64 offset) {
    if (offset > bytes.size() || bytes.size() - offset < sizeof(T)) return std::nullopt;
    T value = 0;
    std::memcpy(&value, bytes.data() + offset, sizeof(T));
    return value;
}

// The same where the caller has checked the size: zero beyond the end.
template <std::unsigned_integral T>
[[nodiscard]] T get_le(std::span<const std::byte> bytes, u64 offset) {
    return read_le<T>(bytes, offset).value_or(0);
}

// The part of `bytes` that starts at `offset`, or nothing when it does not lie inside.
[[nodiscard]] inline std::optional<std::span<const std::byte>> slice(std::span<const std::byte> bytes,
                                                                     u64 offset, u64 size) {
    if (offset > bytes.size() || bytes.size() - offset < size) return std::nullopt;
    return bytes.subspan(offset, size);
}

// Whether the bytes at `offset` are exactly `text`.
[[nodiscard]] inline bool has_text(std::span<const std::byte> bytes, u64 offset, std::string_view text) {
    const auto part = slice(bytes, offset, text.size());
    return part && std::memcmp(part->data(), text.data(), text.size()) == 0;
}

// The 8-bit sum every firmware table makes zero with its checksum field.
[[nodiscard]] inline u8 byte_sum(std::span<const std::byte> bytes) {
    unsigned sum = 0;
    for (const std::byte b : bytes) sum += std::to_integer<unsigned>(b);
    return static_cast<u8>(sum);
}

class ByteWriter {
public:
    template <typename T>
        requires std::unsigned_integral<T> || std::is_enum_v<T>
    ByteWriter& put(T value) {
        const auto* raw = reinterpret_cast<const std::byte*>(&value);
        bytes_.insert(bytes_.end(), raw, raw + sizeof(T));
        return *this;
    }
    ByteWriter& put8(unsigned value) { return put(static_cast<u8>(value)); }
    ByteWriter& put16(unsigned value) { return put(static_cast<u16>(value)); }
    ByteWriter& put32(u64 value) { return put(static_cast<u32>(value)); }
    ByteWriter& put64(u64 value) { return put(value); }
    ByteWriter& text(std::string_view text) {
        const auto* raw = reinterpret_cast<const std::byte*>(text.data());
        bytes_.insert(bytes_.end(), raw, raw + text.size());
        return *this;
    }
    // `text` cut or padded to `width` bytes.
    ByteWriter& fixed_text(std::string_view text_in, std::size_t width, char padding = ' ') {
        text(text_in.substr(0, width));
        for (std::size_t n = text_in.size(); n < width; ++n) put8(static_cast<u8>(padding));
        return *this;
    }
    ByteWriter& append(std::span<const std::byte> bytes) {
        bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
        return *this;
    }
    ByteWriter& zeros(std::size_t count) {
        bytes_.resize(bytes_.size() + count);
        return *this;
    }
    ByteWriter& align(std::size_t alignment) {
        return zeros((alignment - bytes_.size() % alignment) % alignment);
    }

    // Overwrites what was put before; the bytes must be there.
    template <std::unsigned_integral T>
    void patch(std::size_t offset, T value) {
        std::memcpy(bytes_.data() + offset, &value, sizeof(T));
    }
    // Makes the bytes from `begin` to the end sum to zero, by the byte at `checksum_offset`.
    void fix_checksum(std::size_t checksum_offset, std::size_t begin = 0) {
        patch<u8>(checksum_offset, 0);
        patch<u8>(checksum_offset, static_cast<u8>(0U - byte_sum(std::span(bytes_).subspan(begin))));
    }

    [[nodiscard]] std::size_t size() const { return bytes_.size(); }
    [[nodiscard]] std::span<const std::byte> bytes() const { return bytes_; }
    [[nodiscard]] std::vector<std::byte> take() { return std::move(bytes_); }

private:
    std::vector<std::byte> bytes_;
};

}  // namespace tessera::boot
