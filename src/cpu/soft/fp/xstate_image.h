// The memory image of FXSAVE and the XSAVE family, and which state components are not in their initial state.
#pragma once

#include <array>

#include "cpu/soft/fp/fp_state.h"
#include "cpu/soft/vcpu.h"

namespace tessera::soft {

// Offsets in the image [SDM 1 13.4].
inline constexpr unsigned kImageX87 = 0, kImageX87Size = 24;  // FCW FSW FTW FOP FIP FDP
inline constexpr unsigned kImageMxcsr = 24;
inline constexpr unsigned kImageSt = 32, kImageStSize = 128;
inline constexpr unsigned kImageXmm = 160;
inline constexpr unsigned kImageLegacy = 512;
inline constexpr unsigned kImageHeader = 512, kImageHeaderSize = 64;
inline constexpr unsigned kImageYmm = 576;
inline constexpr unsigned kImageEnd = 832;
inline constexpr u64 kCompacted = u64{1} << 63;

enum class Pointers : u8 {
    WithSelectors,  // 32-bit offsets and selectors
    Wide,           // 64-bit offsets, none
};

using X87Image = std::array<u8, kImageX87Size>;
using StImage = std::array<u8, kImageStSize>;

// x87 must not be live for these.
void put_x87(const x86::Fpu& fpu, Pointers pointers, X87Image& head, StImage& registers);
// Changes Vcpu::fpu; the caller calls update_fp_enables.
void take_x87(Vcpu& c, Pointers pointers, const X87Image& head, const StImage& registers);

// One bit per component whose registers differ from their initial values; MXCSR is not looked at.
[[nodiscard]] u64 components_in_use(const Vcpu& c);
void init_x87(Vcpu& c);

}  // namespace tessera::soft
