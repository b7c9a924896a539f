// The A20 wire: address line 20 reaches memory when the keyboard controller or port 0x92 says so.
#pragma once

#include <atomic>

#include "base/types.h"

namespace tessera {

enum class A20Driver : u8 { KeyboardController = 1 << 0, Port92 = 1 << 1 };

class A20Gate {
public:
    A20Gate() = default;
    A20Gate(const A20Gate&) = delete;
    A20Gate& operator=(const A20Gate&) = delete;
    virtual ~A20Gate() = default;

    // Called with the driving device's lock held.
    virtual void set_a20(A20Driver driver, bool enabled) = 0;
};

// Both drivers ORed, as chip sets do; starts with both enabled. Any thread may ask.
// GAP: no CPU of ours masks the address line yet; software that only checks that A20 is on is content.
class A20Latch final : public A20Gate {
public:
    void set_a20(A20Driver driver, bool enabled) override {
        const auto bit = static_cast<u8>(driver);
        if (enabled)
            drivers_.fetch_or(bit, std::memory_order_relaxed);
        else
            drivers_.fetch_and(static_cast<u8>(~bit), std::memory_order_relaxed);
    }
    [[nodiscard]] bool enabled() const { return drivers_.load(std::memory_order_relaxed) != 0; }

private:
    std::atomic<u8> drivers_ =
        static_cast<u8>(A20Driver::KeyboardController) | static_cast<u8>(A20Driver::Port92);
};

}  // namespace tessera
