// The row "mark": the mix that embedded benchmarks made usual, written anew: a linked list that is searched,
// reversed and merge-sorted, small integer matrices, a state machine that reads numbers, and a CRC over all
// results.
#include <array>
#include <string_view>

#include "row.h"

namespace tessera::guestbench {
namespace {

// Bit by bit, polynomial 0xa001 (CRC-16/ARC).
u32 crc16(u32 crc, u32 value, int bits) {
    for (int i = 0; i < bits; ++i) {
        const u32 carry = (crc ^ value) & 1;
        crc >>= 1;
        value >>= 1;
        if (carry != 0) crc ^= 0xa001;
    }
    return crc;
}

// --- the list
// ----------------------------------------------------------------------------------------------------

struct Item {
    Item* next;
    u16 key;
    u16 data;
};
constexpr std::size_t kItems = 100;
std::array<Item, kItems> items;

Item* make_list() {
    Random random(7);
    for (std::size_t i = 0; i < kItems; ++i)
        items[i] = {.next = i + 1 < kItems ? &items[i + 1] : nullptr,
                    .key = static_cast<u16>(random.next()),
                    .data = static_cast<u16>(i)};
    return items.data();
}

Item* reverse(Item* list) {
    Item* done = nullptr;
    while (list != nullptr) {
        Item* next = list->next;
        list->next = done;
        done = list;
        list = next;
    }
    return done;
}

const Item* search(const Item* list, u16 data) {
    while (list != nullptr && list->data != data) list = list->next;
    return list;
}

using Before = bool (*)(const Item&, const Item&);
bool by_key(const Item& a, const Item& b) {
    return a.key <= b.key;
}
bool by_data(const Item& a, const Item& b) {
    return a.data <= b.data;
}

Item* merge(Item* a, Item* b, Before before) {
    Item* head = nullptr;
    Item** tail = &head;
    while (a != nullptr && b != nullptr) {
        Item*& first = before(*a, *b) ? a : b;
        *tail = first;
        tail = &first->next;
        first = first->next;
    }
    *tail = a != nullptr ? a : b;
    return head;
}

// The first `count` items of the list, sorted.
Item* sort(Item* list, std::size_t count, Before before) {
    if (count == 1) {
        list->next = nullptr;
        return list;
    }
    Item* second = list;
    for (std::size_t i = 0; i < count / 2; ++i) second = second->next;
    Item* low = sort(list, count / 2, before);
    return merge(low, sort(second, count - count / 2, before), before);
}

u32 list_work(u32 crc) {
    Item* list = make_list();
    for (u16 wanted = 0; wanted < kItems; wanted = static_cast<u16>(wanted + 9)) {
        const Item* found = search(list, wanted);
        crc = crc16(crc, found != nullptr ? found->key : 0, 16);
        list = reverse(list);
    }
    list = sort(list, kItems, by_key);
    for (const Item* at = list; at != nullptr; at = at->next) crc = crc16(crc, at->data, 8);
    list = sort(list, kItems, by_data);
    return crc16(crc, list->key, 16);
}

// --- the matrices
// ----------------------------------------------------------------------------------------------------

constexpr std::size_t kOrder = 10;
using Matrix = std::array<std::array<s16, kOrder>, kOrder>;

u32 matrix_work(u32 crc) {
    Matrix a{}, b{};
    Random random(8);
    for (std::size_t i = 0; i < kOrder; ++i)
        for (std::size_t k = 0; k < kOrder; ++k) {
            a[i][k] = static_cast<s16>(random.next() % 64);
            b[i][k] = static_cast<s16>(random.next() % 64 - 32);
        }
    for (s16 constant = 1; constant <= 3; ++constant) {
        u32 clipped = 0;
        for (std::size_t i = 0; i < kOrder; ++i)
            for (std::size_t k = 0; k < kOrder; ++k) {
                s32 sum = 0;
                for (std::size_t j = 0; j < kOrder; ++j) sum += a[i][j] * b[j][k];
                const u32 bits = static_cast<u32>(sum);
                clipped += ((bits >> 2) & 0xf) * ((bits >> 5) & 0x7f);
            }
        crc = crc16(crc, clipped, 16);
        for (auto& row : a)
            for (s16& x : row) x = static_cast<s16>(x + constant);
    }
    return crc;
}

// --- the state machine
// -------------------------------------------------------------------------------------------

enum class Read : u8 {
    Start,
    Sign,
    Integer,
    Point,
    Fraction,
    Exponent,
    ExponentSign,
    ExponentDigits,
    Invalid
};
constexpr std::size_t kReads = 9;

Read advance(Read state, char c) {
    const bool digit = c >= '0' && c <= '9';
    switch (state) {
        case Read::Start:
            if (c == '+' || c == '-') return Read::Sign;
            [[fallthrough]];
        case Read::Sign: return digit ? Read::Integer : (c == '.' ? Read::Point : Read::Invalid);
        case Read::Integer:
            if (c == '.') return Read::Fraction;
            if (c == 'e' || c == 'E') return Read::Exponent;
            return digit ? Read::Integer : Read::Invalid;
        case Read::Point: return digit ? Read::Fraction : Read::Invalid;
        case Read::Fraction:
            if (c == 'e' || c == 'E') return Read::Exponent;
            return digit ? Read::Fraction : Read::Invalid;
        case Read::Exponent:
            if (c == '+' || c == '-') return Read::ExponentSign;
            [[fallthrough]];
        case Read::ExponentSign:
        case Read::ExponentDigits: return digit ? Read::ExponentDigits : Read::Invalid;
        case Read::Invalid: return Read::Invalid;
    }
    return Read::Invalid;
}

constexpr std::string_view kText =
    "5012,1234,-874,+122,35.54400,.1234500,-110.700,+0.64400,5.500e+3,-.123e-2,-87e+832,+0.6e-12,T0.3e-1F,-T."
    "T++Tq,"
    "1T3.4e4z,34.0e-T^,17,0,.,-,+.e,9e,9e9,3.,1.1.1,0x1f,-0,+00000000,8e-08,42";

u32 state_work(u32 crc) {
    std::array<u32, kReads> ends{}, visits{};
    Read state = Read::Start;
    for (const char c : kText) {
        if (c == ',') {
            ++ends[static_cast<std::size_t>(state)];
            state = Read::Start;
        } else {
            state = advance(state, c);
            ++visits[static_cast<std::size_t>(state)];
        }
    }
    for (std::size_t i = 0; i < kReads; ++i) crc = crc16(crc16(crc, ends[i], 16), visits[i], 16);
    return crc;
}

constexpr Row kRows[] = {{"mark", "round", 1, kMarkExpected, mark_round}};

}  // namespace

u64 mark_round() {
    u32 crc = 0xffff;
    opaque(crc);
    return state_work(matrix_work(list_work(crc)));
}

std::span<const Row> mark_rows() {
    return kRows;
}

}  // namespace tessera::guestbench
