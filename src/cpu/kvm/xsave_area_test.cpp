// The XSAVE area's layout, with a host of the test's own: AVX at 576, AVX-512 and PKRU where an Intel
// processor has them. [SDM 1 13.4]
#include "cpu/kvm/xsave_area.h"

#include <array>
#include <cstring>
#include <gtest/gtest.h>

namespace tessera::kvm {
namespace {

constexpr u64 kSize = 4096;
constexpr u64 kOpmask = 1088, kZmmHigh = 1152, kPkru = 2688;

kvm_cpuid_entry2 leaf(u32 index, u32 eax, u32 ebx, u32 ecx = 0) {
    kvm_cpuid_entry2 entry{};
    entry.function = 0xd;
    entry.index = index;
    entry.eax = eax;
    entry.ebx = ebx;
    entry.ecx = ecx;
    return entry;
}

std::vector<kvm_cpuid_entry2> avx512_host() {
    return {leaf(0, 0x2e7, 0),      leaf(1, 0xf, 0),     leaf(2, 256, 576), leaf(5, 64, kOpmask),
            leaf(6, 512, kZmmHigh), leaf(7, 1024, 1664), leaf(9, 8, kPkru), leaf(11, 16, 0, 1)};
}

TEST(XsaveAreaTest, RegistersAreWhereTheStandardFormHasThem) {
    const XsaveArea layout(kSize, avx512_host());
    x86::State state;
    state.fpu.control = 0x37f;
    state.fpu.status = 3 << 11;  // TOP is 3
    state.fpu.st[0] = {1, 2, 3, 4, 5, 6, 7, 0x80, 0xff, 0x3f};
    state.fpu.tag = 0xff3f;  // physical register 3 is valid, the others empty
    state.fpu.ip = 0xffff'8000'1234'5678;
    state.mxcsr = 0x1fa0;
    state.ymm[1] = {1, 2, 3, 4};
    std::vector<u8> area(kSize, 0xee);
    std::fill_n(area.begin() + 512, 64, u8{0});
    ASSERT_TRUE(layout.put_registers(state, area));
    EXPECT_EQ(area[4], 1 << 3) << "the abridged tag is by physical register";
    const auto word = [&](u64 offset) {
        u64 value = 0;
        std::memcpy(&value, area.data() + offset, sizeof value);
        return value;
    };
    EXPECT_EQ(word(0) & 0xffff'ffff, u64{0x1800'037f});
    EXPECT_EQ(word(8), state.fpu.ip);
    EXPECT_EQ(word(24) & 0xffff'ffff, u64{0x1fa0});
    EXPECT_EQ(word(32), 0x8007'0605'0403'0201u) << "ST0, not R0";
    EXPECT_EQ(word(40), 0x3fffu);
    EXPECT_EQ(word(160 + 16), 1u);
    EXPECT_EQ(word(160 + 24), 2u);
    EXPECT_EQ(word(576 + 16), 3u);
    EXPECT_EQ(word(576 + 24), 4u);
    EXPECT_EQ(word(512), 7u) << "XSTATE_BV";
    EXPECT_EQ(area[kOpmask], 0xee);

    x86::State after;
    layout.take_registers(area, after);
    EXPECT_EQ(after.fpu, state.fpu);
    EXPECT_EQ(after.ymm, state.ymm);
    EXPECT_EQ(after.mxcsr, state.mxcsr);
}

// [SDM 1 13.6] What XSTATE_BV does not name is in its initial state, whatever the bytes say.
TEST(XsaveAreaTest, AnAbsentComponentIsInItsInitialState) {
    const XsaveArea layout(kSize, avx512_host());
    std::vector<u8> area(kSize, 0xee);
    std::fill_n(area.begin() + 512, 64, u8{0});
    x86::State state;
    state.ymm[7] = {1, 2, 3, 4};
    layout.take_registers(area, state);
    EXPECT_EQ(state.fpu, (x86::Fpu{.control = 0x37f, .tag = 0xffff}));
    EXPECT_EQ(state.ymm, x86::State{}.ymm);
}

TEST(XsaveAreaTest, OtherComponentsAreCarriedByNumber) {
    const XsaveArea layout(kSize, avx512_host());
    std::vector<u8> area(kSize);
    area[512] = 1 << 5 | 1 << 6;
    area[kOpmask] = 0x51;
    area[kZmmHigh + 511] = 0x52;
    area[kPkru] = 0x53;  // KVM's value, which its header need not name
    x86::State state;
    layout.take_others(area, state);
    ASSERT_EQ(state.other_components.size(), 3u);
    EXPECT_EQ(state.other_components[0].number, 5);
    EXPECT_EQ(state.other_components[0].bytes.size(), 64u);
    EXPECT_EQ(state.other_components[1].number, 6);
    EXPECT_EQ(state.other_components[1].bytes.back(), 0x52);
    EXPECT_EQ(state.other_components[2].number, 9);
    EXPECT_EQ(state.other_components[2].bytes, (std::vector<u8>{0x53, 0, 0, 0, 0, 0, 0, 0}));

    // Into a host that has them elsewhere.
    const XsaveArea other(kSize, std::array{leaf(0, 0x2e7, 0), leaf(2, 256, 576), leaf(5, 64, 832),
                                            leaf(6, 512, 896), leaf(7, 1024, 1408), leaf(9, 8, 2432)});
    std::vector<u8> there(kSize, 0xee);
    std::fill_n(there.begin() + 512, 64, u8{0});
    there[512] = 1 << 7;  // of an earlier guest
    ASSERT_TRUE(other.put_others(state, there));
    EXPECT_EQ(there[832], 0x51);
    EXPECT_EQ(there[896 + 511], 0x52);
    EXPECT_EQ(there[2432], 0x53);
    EXPECT_EQ(there[1408], 0) << "not left behind";
    EXPECT_EQ(there[512], 1 << 5 | 1 << 6);
    EXPECT_EQ(there[513], 1 << 1) << "PKRU: KVM would keep its own otherwise";
}

TEST(XsaveAreaTest, WhatTheHostLacksIsAnError) {
    const XsaveArea sse(kSize, std::array{leaf(0, 3, 0), leaf(2, 256, 576)});
    std::vector<u8> area(kSize);
    x86::State state;
    EXPECT_TRUE(sse.put_registers(state, area));
    EXPECT_EQ(area[512], 3);
    state.ymm[3][2] = 1;
    EXPECT_FALSE(sse.put_registers(state, area));
    state.other_components = {{.number = 5, .bytes = std::vector<u8>(64)}};
    EXPECT_FALSE(sse.put_others(state, area));
    const XsaveArea big(kSize, avx512_host());
    EXPECT_TRUE(big.put_others(state, area));
    state.other_components[0].bytes.resize(63);
    EXPECT_FALSE(big.put_others(state, area));
    state.other_components = {{.number = 2, .bytes = std::vector<u8>(256)}};
    EXPECT_FALSE(big.put_others(state, area)) << "AVX has fields";
}

// Supervisor components, and what would lie beyond the area, are not the calls' business.
TEST(XsaveAreaTest, OnlyUserComponentsWithinTheAreaAreKnown) {
    const XsaveArea layout(kSize,
                           std::array{leaf(0, 0x20a27, 0), leaf(5, 64, kSize - 63), leaf(11, 16, 600, 1)});
    std::vector<u8> area(kSize, 0xff);
    x86::State state;
    layout.take_others(area, state);
    EXPECT_TRUE(state.other_components.empty());
}

}  // namespace
}  // namespace tessera::kvm
