// Integer rows that live on registers, loads and stores: alu, streq, qsort, mpi, tree.
#include <algorithm>
#include <array>

#include "row.h"

namespace tessera::guestbench {
namespace {

// --- alu: shifts, xors, adds and a multiplication, all in registers, each needing the one before
// -----------------

constexpr u64 kAluIterations = 20000;

u64 alu_round() {
    u64 x = 0x2545f4914f6cdd1d, sum = 0;
    opaque(x);
    for (u64 i = 0; i < kAluIterations; ++i) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        sum += x;
    }
    return sum;
}

// --- streq: strings of some ten bytes, compared byte by byte
// ------------------------------------------------------

constexpr std::size_t kStrings = 64;
constexpr std::size_t kStringSize = 32;
using Strings = std::array<std::array<char, kStringSize>, kStrings>;
Strings left_strings, right_strings;

[[gnu::noinline]] bool string_equal(const char* a, const char* b) {
    while (*a == *b) {
        if (*a == 0) return true;
        ++a;
        ++b;
    }
    return false;
}

bool streq_prepare() {
    Random random(1);
    for (std::size_t i = 0; i < kStrings; ++i) {
        const std::size_t length = 4 + random.next() % (kStringSize - 5);
        for (std::size_t k = 0; k < length; ++k) {
            left_strings[i][k] = static_cast<char>('a' + random.next() % 26);
            right_strings[i][k] = left_strings[i][k];
        }
        // Every other pair differs somewhere.
        if (i % 2 != 0) right_strings[i][random.next() % length] = '-';
    }
    return true;
}

u64 streq_round() {
    u64 equal = 0;
    for (u64 pass = 0; pass < 16; ++pass) {
        for (std::size_t i = 0; i < kStrings; ++i)
            equal += string_equal(left_strings[i].data(), right_strings[i].data()) ? 1 : 0;
        opaque(equal);
    }
    return equal;
}

// --- qsort: quicksort with the comparison behind a pointer
// ---------------------------------------------------------

constexpr std::size_t kSortSize = 1024;
std::array<u32, kSortSize> sort_input, sort_work;
using Compare = int (*)(const void*, const void*);

int compare_numbers(const void* a, const void* b) {
    const u32 x = *static_cast<const u32*>(a), y = *static_cast<const u32*>(b);
    return x < y ? -1 : (x > y ? 1 : 0);
}

// Hoare's partition around the middle; the smaller part by recursion, so the stack stays short.
[[gnu::noinline]] void quicksort(u32* begin, u32* end, Compare compare) {
    while (end - begin > 1) {
        const u32 pivot = begin[(end - begin) / 2];
        u32 *low = begin, *high = end - 1;
        while (low <= high) {
            while (compare(low, &pivot) < 0) ++low;
            while (compare(high, &pivot) > 0) --high;
            if (low <= high) std::swap(*low++, *high--);
        }
        if (high + 1 - begin < end - low) {
            quicksort(begin, high + 1, compare);
            begin = low;
        } else {
            quicksort(low, end, compare);
            end = high + 1;
        }
    }
}

bool qsort_prepare() {
    Random random(2);
    for (u32& x : sort_input) x = static_cast<u32>(random.next() >> 40);
    return true;
}

u64 qsort_round() {
    Compare compare = compare_numbers;
    opaque(compare);
    sort_work = sort_input;
    quicksort(sort_work.data(), sort_work.data() + kSortSize, compare);
    u64 sum = 0;
    for (const u32 x : sort_work) sum = mix(sum, x);
    return sum;
}

// --- mpi: numbers of 2048 bits, multiplied as at school
// ---------------------------------------------------------------

constexpr std::size_t kLimbs = 32;
std::array<u64, kLimbs> factor_a, factor_b;
std::array<u64, 2 * kLimbs> product;

// `to` += `from` * `by`; returns the carry.
[[gnu::noinline]] u64 multiply_add(u64* to, const u64* from, std::size_t count, u64 by) {
    u64 carry = 0;
    for (std::size_t i = 0; i < count; ++i) {
        const u128 sum = static_cast<u128>(from[i]) * by + to[i] + carry;
        to[i] = static_cast<u64>(sum);
        carry = static_cast<u64>(sum >> 64);
    }
    return carry;
}

bool mpi_prepare() {
    Random random(3);
    for (u64& x : factor_a) x = random.next();
    for (u64& x : factor_b) x = random.next();
    return true;
}

u64 mpi_round() {
    product.fill(0);
    for (int pass = 0; pass < 8; ++pass)
        for (std::size_t i = 0; i < kLimbs; ++i)
            product[i + kLimbs] = multiply_add(&product[i], factor_a.data(), kLimbs, factor_b[i]);
    u64 sum = 0;
    for (const u64 limb : product) sum = mix(sum, limb);
    return sum;
}

// --- tree: lookups in a binary tree of 4096 nodes
// ------------------------------------------------------------------------

struct Node {
    u64 key;
    u64 value;
    Node* child[2];
};
constexpr std::size_t kNodes = 4096;
constexpr std::size_t kLookups = 1024;
std::array<Node, kNodes> nodes;

bool tree_prepare() {
    Random random(4);
    for (std::size_t i = 0; i < kNodes; ++i) {
        Node& added = nodes[i];
        added = {.key = random.next(), .value = i, .child = {nullptr, nullptr}};
        if (i == 0) continue;
        Node* at = nodes.data();
        while (Node* next = at->child[added.key > at->key ? 1 : 0]) at = next;
        at->child[added.key > at->key ? 1 : 0] = &added;
    }
    return true;
}

[[gnu::noinline]] u64 find(const Node* at, u64 key) {
    while (at != nullptr && at->key != key) at = at->child[key > at->key ? 1 : 0];
    return at != nullptr ? at->value : ~u64{0};
}

u64 tree_round() {
    u64 sum = 0;
    for (std::size_t i = 0; i < kLookups; ++i)
        sum = mix(sum, find(nodes.data(), nodes[i * 2654435761 % kNodes].key));
    return sum;
}

constexpr Row kRows[] = {
    {"alu", "iteration", kAluIterations, 0x2ec83aecafa270f9, alu_round},
    {"streq", "comparison", 16 * kStrings, 16 * kStrings / 2, streq_round, streq_prepare},
    {"qsort", "element", kSortSize, 0x5ab8487545930d6, qsort_round, qsort_prepare},
    {"mpi", "limb", 8 * kLimbs* kLimbs, 0x5ab086c523260ac9, mpi_round, mpi_prepare},
    {"tree", "lookup", kLookups, 0x5f5966e393d8a074, tree_round, tree_prepare},
};

}  // namespace

std::span<const Row> integer_rows() {
    return kRows;
}

}  // namespace tessera::guestbench
