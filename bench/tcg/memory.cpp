// Rows that move memory or wait for it: chases through 1 and 16 MiB, the C library's memcpy, rep movsb.
#include <array>
#include <cstring>
#include <memory>
#include <new>
#include <sys/mman.h>

#include "row.h"

namespace tessera::guestbench {
namespace {

// The buffers of the row that runs; given back when it ends, so that rows do not disturb each other.
u8* buffer = nullptr;
std::size_t buffer_size = 0;

bool take(std::size_t size) {
    void* address = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (address == MAP_FAILED) return false;
    buffer = static_cast<u8*>(address);
    buffer_size = size;
    return true;
}

void give_back() {
    (void)munmap(buffer, buffer_size);
    buffer = nullptr;
}

// --- chase: one cycle through all cache lines in random order
// -------------------------------------------------------

struct alignas(64) Line {
    Line* next;
    u64 place;  // on the cycle
};
constexpr u64 kHops = 4096;
constexpr u64 kChaseRight = 0x600d;
Line* chase_at = nullptr;

bool chase_prepare(std::size_t size) {
    if (!take(size + size / sizeof(Line) * sizeof(u32))) return false;
    const std::size_t count = size / sizeof(Line);
    Line* lines = new (buffer) Line[count];
    u32* order = new (buffer + size) u32[count];
    for (std::size_t i = 0; i < count; ++i) order[i] = static_cast<u32>(i);
    Random random(9);
    for (std::size_t i = count - 1; i > 0; --i) std::swap(order[i], order[random.next() % (i + 1)]);
    for (std::size_t i = 0; i < count; ++i)
        lines[order[i]] = {.next = &lines[order[(i + 1) % count]], .place = i};
    chase_at = &lines[order[0]];
    return true;
}
constexpr std::size_t kSmallChase = std::size_t{1} << 20;
constexpr std::size_t kLargeChase = std::size_t{16} << 20;
bool chase_1m_prepare() {
    return chase_prepare(kSmallChase);
}
bool chase_16m_prepare() {
    return chase_prepare(kLargeChase);
}

// Goes on where the last round stopped; the places tell whether it went right.
template <std::size_t size>
u64 chase_round() {
    const Line* at = chase_at;
    const u64 goal = (at->place + kHops) % (size / sizeof(Line));
    for (u64 i = 0; i < kHops; ++i) at = at->next;
    chase_at = const_cast<Line*>(at);
    return at->place == goal ? kChaseRight : at->place;
}

// --- memcpy
// --------------------------------------------------------------------------------------------------------------

using Copy = void* (*)(void*, const void*, std::size_t);

constexpr std::size_t kShort = 61;
constexpr std::size_t kPage = 4096;
constexpr std::size_t kLarge = std::size_t{8} << 20;
constexpr u64 kShortCopies = 1024;
constexpr u64 kPageCopies = 64;
constexpr std::size_t kHalf = std::size_t{64} << 10;  // source and destination of the small copies

// Fills the first half and leaves the second half empty.
bool copy_prepare(std::size_t half) {
    if (!take(2 * half)) return false;
    Random random(10);
    for (std::size_t i = 0; i < half; i += sizeof(u64)) {
        const u64 value = random.next();
        std::memcpy(buffer + i, &value, sizeof value);
        std::memset(buffer + half + i, 0, sizeof value);
    }
    return true;
}
bool copy_small_prepare() {
    return copy_prepare(kHalf);
}
bool copy_large_prepare() {
    return copy_prepare(kLarge);
}

// One in 61 of the bytes is looked at, and overwritten so that the next round has to bring it again.
u64 checksum(u8* bytes, std::size_t count) {
    u64 sum = 0;
    for (std::size_t i = 0; i < count; i += count < kHalf ? 61 : 61 * 1024) {
        sum = mix(sum, bytes[i]);
        bytes[i] = 0;
    }
    return sum;
}

u64 memcpy_61_round() {
    Copy copy = std::memcpy;
    opaque(copy);
    for (u64 i = 0; i < kShortCopies; ++i) {
        // Changing distances from a cache line, the same four pages.
        const std::size_t at = i * 67 % (16 * 1024);
        copy(buffer + kHalf + at, buffer + at, kShort);
    }
    return checksum(buffer + kHalf, 16 * 1024);
}

u64 memcpy_4k_round() {
    Copy copy = std::memcpy;
    opaque(copy);
    for (u64 i = 0; i < kPageCopies; ++i) copy(buffer + kHalf + i % 4 * kPage, buffer + i % 4 * kPage, kPage);
    return checksum(buffer + kHalf, 4 * kPage);
}

u64 memcpy_8m_round() {
    Copy copy = std::memcpy;
    opaque(copy);
    copy(buffer + kLarge, buffer, kLarge);
    return checksum(buffer + kLarge, kLarge);
}

u64 rep_movs_round() {
    for (u64 i = 0; i < kPageCopies; ++i) {
        void* to = buffer + kHalf + i % 4 * kPage;
        const void* from = buffer + i % 4 * kPage;
        std::size_t count = kPage;
        __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(count)::"memory");
    }
    return checksum(buffer + kHalf, 4 * kPage);
}

constexpr Row kRows[] = {
    {"chase_1m", "hop", kHops, kChaseRight, chase_round<kSmallChase>, chase_1m_prepare, give_back},
    {"chase_16m", "hop", kHops, kChaseRight, chase_round<kLargeChase>, chase_16m_prepare, give_back},
    {"memcpy_61", "byte", kShort* kShortCopies, 0xe0ec924f62d40e3a, memcpy_61_round, copy_small_prepare,
     give_back},
    {"memcpy_4k", "byte", kPage* kPageCopies, 0xe0ec924f62d40e3a, memcpy_4k_round, copy_small_prepare,
     give_back},
    {"memcpy_8m", "byte", kLarge, 0xa7547081954afa94, memcpy_8m_round, copy_large_prepare, give_back},
    {"rep_movsb_4k", "byte", kPage* kPageCopies, 0xe0ec924f62d40e3a, rep_movs_round, copy_small_prepare,
     give_back},
};

}  // namespace

std::span<const Row> memory_rows() {
    return kRows;
}

}  // namespace tessera::guestbench
