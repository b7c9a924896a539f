// A bounded first-in first-out queue of bytes that knows how to be saved.
#pragma once

#include <algorithm>
#include <array>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "base/types.h"
#include "snapshot/state_visitor.h"

namespace tessera::i8042 {

template <std::size_t Capacity>
class ByteQueue {
public:
    static_assert(Capacity < 256);

    [[nodiscard]] std::size_t size() const { return count_; }
    [[nodiscard]] bool empty() const { return count_ == 0; }
    [[nodiscard]] std::size_t room() const { return Capacity - count_; }
    void clear() { head_ = count_ = 0; }
    // Takes all of `bytes` or nothing.
    bool push(std::span<const u8> bytes) {
        if (bytes.size() > room()) return false;
        for (const u8 byte : bytes) data_[(head_ + count_++) % Capacity] = byte;
        return true;
    }
    bool push(u8 byte) { return push(std::span(&byte, 1)); }
    std::optional<u8> pop() {
        if (empty()) return std::nullopt;
        const u8 byte = data_[head_];
        head_ = static_cast<u8>((head_ + 1U) % Capacity);
        --count_;
        return byte;
    }

    // False: the saved queue is longer than it can be; the queue is then left as it was.
    bool visit(StateVisitor& v, unsigned id, std::string_view name) {
        std::vector<u8> bytes;
        bytes.reserve(count_);
        for (std::size_t i = 0; i < count_; ++i) bytes.push_back(data_[(head_ + i) % Capacity]);
        v.field(id, name, bytes);
        if (bytes.size() > Capacity) return false;
        clear();
        return push(bytes);
    }

private:
    std::array<u8, Capacity> data_{};
    u8 head_ = 0;
    u8 count_ = 0;
};

// A fixed block of bytes. False: the saved block has another size; the array is then left as it was.
template <std::size_t Size>
bool visit_array(StateVisitor& v, unsigned id, std::string_view name, std::array<u8, Size>& array) {
    std::vector<u8> bytes(array.begin(), array.end());
    v.field(id, name, bytes);
    if (bytes.size() != Size) return false;
    std::ranges::copy(bytes, array.begin());
    return true;
}

}  // namespace tessera::i8042
