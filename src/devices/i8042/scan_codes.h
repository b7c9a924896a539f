// Which scan codes a key sends, for scan code sets 1 to 3, and the controller's translation of set 2 into
// set 1. Keys are named by their USB HID usage [HID-UT 10], page 7.
#pragma once

#include <array>
#include <span>

#include "base/types.h"

namespace tessera::i8042 {

enum class ScanSet : u8 { One = 1, Two = 2, Three = 3 };

// How a key of set 3 behaves [PS2-TRM] "Scan code set 3".
enum class KeyType : u8 { Typematic, MakeBreak, MakeOnly, TypematicMakeBreak };

struct Key {
    u8 usage;
    u8 set2;        // make code
    bool extended;  // with an E0 prefix in sets 1 and 2
    u8 set3;        // 0: not in set 3
    KeyType type3;  // default in set 3
};

inline constexpr u8 kUsagePrintScreen = 0x46;
inline constexpr u8 kUsagePause = 0x48;
inline constexpr u8 kUsageLeftControl = 0xe0;
inline constexpr u8 kUsageLeftAlt = 0xe2;
inline constexpr u8 kUsageRightControl = 0xe4;
inline constexpr u8 kUsageRightAlt = 0xe6;
inline constexpr u8 kUsageLanguage1 = 0x90;  // these two send no break code
inline constexpr u8 kUsageLanguage2 = 0x91;

// Codes of set 3 are below this.
inline constexpr std::size_t kSet3Codes = 0x90;

// Null when the keyboard has no such key.
[[nodiscard]] const Key* find_key(u8 usage);
// The default behaviours of all codes of set 3.
[[nodiscard]] std::array<u8, kSet3Codes> default_set3_types();

// The controller's translation of one byte [PS2-TRM] "Scan code translation".
[[nodiscard]] u8 translate_to_set1(u8 set2);

// At most eight bytes: what the keyboard sends for a key going down or up.
struct Sequence {
    std::array<u8, 8> bytes{};
    u8 length = 0;
    [[nodiscard]] std::span<const u8> span() const { return std::span(bytes).first(length); }
};
struct Modifiers {
    bool control = false;
    bool alt = false;
};
// For sets 1 and 2; set 3 is one code a key and is the keyboard's own affair.
[[nodiscard]] Sequence make_sequence(const Key& key, ScanSet set, Modifiers held);
[[nodiscard]] Sequence break_sequence(const Key& key, ScanSet set, Modifiers held);

}  // namespace tessera::i8042
