// Arrays in address space of their own: they cost memory of the host only where they have been touched.
#pragma once

#include <type_traits>
#include <utility>

#include "base/types.h"

namespace tessera::soft {

// `size` bytes of zeros. Less than asked for, but never less than `least`, if the host has no address space
// for more; without room for `least` the program ends, as when a small allocation fails.
class ReservedBytes {
public:
    ReservedBytes(u64 size, u64 least);
    ~ReservedBytes();
    ReservedBytes(const ReservedBytes&) = delete;
    ReservedBytes& operator=(const ReservedBytes&) = delete;
    ReservedBytes(ReservedBytes&& other) noexcept
        : address_(std::exchange(other.address_, nullptr)), size_(std::exchange(other.size_, 0)) {}
    ReservedBytes& operator=(ReservedBytes&& other) noexcept {
        std::swap(address_, other.address_);
        std::swap(size_, other.size_);
        return *this;
    }

    [[nodiscard]] void* address() const { return address_; }
    [[nodiscard]] u64 size() const { return size_; }

private:
    void* address_ = nullptr;
    u64 size_ = 0;
};

// Of zeros; T must not mind.
template <typename T>
class ReservedArray {
    static_assert(std::is_trivially_destructible_v<T> && std::is_trivially_copyable_v<T>);

public:
    explicit ReservedArray(u64 count, u64 least = 1) : bytes_(count * kSize, least * kSize) {}

    [[nodiscard]] T* begin() const { return static_cast<T*>(bytes_.address()); }
    [[nodiscard]] u64 size() const { return bytes_.size() / kSize; }
    [[nodiscard]] T& operator[](u64 index) const { return begin()[index]; }

private:
    static constexpr u64 kSize = sizeof(T);  // NOLINT(bugprone-sizeof-expression): T may be a pointer

    ReservedBytes bytes_;
};

}  // namespace tessera::soft
