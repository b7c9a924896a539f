// The mnemonics' names and classes.
#include "cpu/x86/mnemonic.h"

#include <array>
#include <cstddef>

namespace tessera::x86 {

namespace {

// A name in lower case, made while compiling.
template <size_t N>
consteval std::array<char, N> lower(const char (&id)[N]) {
    std::array<char, N> text{};
    for (size_t i = 0; i < N; ++i)
        text[i] = static_cast<char>(id[i] >= 'A' && id[i] <= 'Z' ? id[i] - 'A' + 'a' : id[i]);
    return text;
}

constexpr auto kInvalidText = lower("Invalid");
#define TESSERA_MNEMONIC(id, insn_class) constexpr auto k##id##Text = lower(#id);
#include "cpu/x86/mnemonics.def"
#undef TESSERA_MNEMONIC

constexpr std::array<const char*, kMnemonicCount> kNames = {
    kInvalidText.data(),
#define TESSERA_MNEMONIC(id, insn_class) k##id##Text.data(),
#include "cpu/x86/mnemonics.def"
#undef TESSERA_MNEMONIC
};

constexpr std::array<InsnClass, kMnemonicCount> kClasses = {
    InsnClass::Integer,
#define TESSERA_MNEMONIC(id, insn_class) InsnClass::insn_class,
#include "cpu/x86/mnemonics.def"
#undef TESSERA_MNEMONIC
};

}  // namespace

const char* name(Mnemonic mnemonic) {
    const auto number = static_cast<unsigned>(mnemonic);
    return kNames[number < kMnemonicCount ? number : 0];
}

InsnClass insn_class_of(Mnemonic mnemonic) {
    const auto number = static_cast<unsigned>(mnemonic);
    return kClasses[number < kMnemonicCount ? number : 0];
}

}  // namespace tessera::x86
