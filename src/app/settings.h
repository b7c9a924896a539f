// Options whose value is a list of settings, NAME[=VALUE],NAME[=VALUE]...: taken apart, and their values
// read. What reads a value returns what is possible instead, and an empty text if it was taken.
#pragma once

#include <algorithm>
#include <array>
#include <charconv>
#include <concepts>
#include <fmt/format.h>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <type_traits>
#include <utility>
#include <vector>

#include "base/types.h"

namespace tessera::app {

struct Setting {
    std::string whole;
    std::string name;
    std::optional<std::string> value;  // what follows the =
};

// Whether two commas in a row are one comma of the text, or have an empty setting between them.
enum class Commas : u8 { Separate, DoubledAreText };
// Never empty.
[[nodiscard]] std::vector<Setting> split_settings(std::string_view text, Commas commas);

// "--disk f,rw: rw: the settings are ro, ...". A part that is the whole text is not said twice.
[[nodiscard]] std::string refuse_setting(std::string_view option, std::string_view text,
                                         std::string_view part, std::string_view possible);

// One word of several, and what each means.
template <typename T, std::size_t N>
using Words = std::array<std::pair<std::string_view, T>, N>;

template <typename T, std::size_t N>
[[nodiscard]] std::string words_of(const Words<T, N>& words) {
    std::string names;
    for (const auto& [name, meaning] : words) names += fmt::format("{}{}", names.empty() ? "" : ", ", name);
    return names;
}

template <typename T, std::size_t N, typename Slot>
[[nodiscard]] std::string take_word(std::string_view value, const Words<T, N>& words, Slot& slot) {
    const auto* const found = std::ranges::find(words, value, [](const auto& word) { return word.first; });
    if (found == words.end()) return "choose one of " + words_of(words);
    slot = found->second;
    return {};
}

// All of `text`, and within the limits.
template <std::integral T>
[[nodiscard]] std::optional<T> number_of(std::string_view text, T least, std::type_identity_t<T> most,
                                         int base = 10) {
    T value{};
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, base);
    if (error != std::errc{} || end != text.data() + text.size() || value < least || value > most)
        return std::nullopt;
    return value;
}

template <std::integral T>
[[nodiscard]] std::string take_number(std::string_view value, std::type_identity_t<T> least,
                                      std::type_identity_t<T> most, T& slot) {
    const auto number = number_of<T>(value, least, most);
    if (!number) return fmt::format("give a number from {} to {}", least, most);
    slot = *number;
    return {};
}

template <typename Slot>
[[nodiscard]] std::string take_on_off(const Setting& setting, Slot& slot) {
    if (setting.value != "on" && setting.value != "off")
        return fmt::format("give {0}=on or {0}=off", setting.name);
    slot = setting.value == "on";
    return {};
}

// For a setting that is a name alone.
[[nodiscard]] std::string take_flag(const Setting& setting, bool& slot);

enum class Times : u8 { Once, Any };

template <typename Target>
struct KnownSetting {
    std::string_view name;
    std::string (*take)(const Setting&, Target&);
    Times times = Times::Once;
};

// Takes settings one after the other into `target`. Returns the text of what is wrong, empty if nothing is:
// each has to be known, to be given once, and to have a value that can be taken. `possible` is said of one
// that is not known.
template <typename Target>
[[nodiscard]] std::string take_settings(std::string_view option, std::string_view text,
                                        std::span<const Setting> settings,
                                        std::span<const KnownSetting<Target>> known,
                                        std::string_view possible, Target& target) {
    std::vector<std::string_view> seen;
    for (const Setting& setting : settings) {
        if (setting.whole.empty()) return refuse_setting(option, text, "an empty setting", possible);
        const auto found =
            std::ranges::find(known, std::string_view(setting.name), &KnownSetting<Target>::name);
        if (found == known.end()) return refuse_setting(option, text, setting.whole, possible);
        if (found->times == Times::Once && std::ranges::find(seen, setting.name) != seen.end())
            return refuse_setting(option, text, setting.whole, "given twice");
        seen.emplace_back(setting.name);
        if (const std::string wrong = found->take(setting, target); !wrong.empty())
            return refuse_setting(option, text, setting.whole, wrong);
    }
    return {};
}

}  // namespace tessera::app
