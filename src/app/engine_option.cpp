#include "app/engine_option.h"

#include <array>
#include <charconv>
#include <fmt/format.h>
#include <optional>
#include <utility>
#include <vector>

#include "app/size.h"

namespace tessera::app {

namespace {

constexpr const char* kSettings = "jit=on|off, cache=SIZE, check, check=N, strict-flags, count=on|off";

struct Setting {
    std::string_view whole;
    std::string_view name;
    std::optional<std::string_view> value;  // what follows the =
};

std::vector<Setting> split(std::string_view text) {
    std::vector<Setting> settings;
    while (true) {
        const auto comma = text.find(',');
        const std::string_view whole = text.substr(0, comma);
        const auto equals = whole.find('=');
        settings.push_back({.whole = whole, .name = whole.substr(0, equals), .value = {}});
        if (equals != std::string_view::npos) settings.back().value = whole.substr(equals + 1);
        if (comma == std::string_view::npos) return settings;
        text.remove_prefix(comma + 1);
    }
}

// Each gives what is possible instead, empty if the setting was taken.
std::string take_jit(const Setting& setting, soft::SoftCpuConfig& config) {
    if (setting.value != "on" && setting.value != "off") return "give jit=on or jit=off";
    config.jit = setting.value == "on";
    return {};
}

std::string take_cache(const Setting& setting, soft::SoftCpuConfig& config) {
    const auto size = parse_size(setting.value.value_or(""));
    if (!size) return "give a size such as cache=64M";
    if (*size < soft::kLeastCodeCache || *size > soft::kMostCodeCache)
        return fmt::format("give a size from {}M to {}G", soft::kLeastCodeCache / kMiB,
                           soft::kMostCodeCache / kGiB);
    config.code_cache = *size;
    return {};
}

std::string take_check(const Setting& setting, soft::SoftCpuConfig& config) {
    const std::string_view text = setting.value.value_or("1");
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), config.check);
    if (error == std::errc{} && end == text.data() + text.size() && config.check != 0) return {};
    return "give check for every block, or check=N for every N-th, N from 1";
}

std::string take_strict_flags(const Setting& setting, soft::SoftCpuConfig& config) {
    if (setting.value) return "it takes no value";
    config.strict_flags = true;
    return {};
}

std::string take_count(const Setting& setting, soft::SoftCpuConfig& config) {
    if (setting.value != "on" && setting.value != "off") return "give count=on or count=off";
    config.count = setting.value == "on";
    return {};
}

using Take = std::string (*)(const Setting&, soft::SoftCpuConfig&);
constexpr std::array<std::pair<std::string_view, Take>, 5> kTakers{{{"jit", take_jit},
                                                                    {"cache", take_cache},
                                                                    {"check", take_check},
                                                                    {"strict-flags", take_strict_flags},
                                                                    {"count", take_count}}};

std::string take(const Setting& setting, soft::SoftCpuConfig& config) {
    for (const auto& [name, taker] : kTakers)
        if (name == setting.name) return taker(setting, config);
    return fmt::format("soft has no such setting; it has {}", kSettings);
}

}  // namespace

std::expected<EngineOption, std::string> parse_engine(std::string_view text) {
    const auto wrong = [&](std::string_view what, std::string_view expected) {
        return std::unexpected(what == text ? fmt::format("--engine {}: {}", text, expected)
                                            : fmt::format("--engine {}: {}: {}", text, what, expected));
    };
    const std::vector<Setting> words = split(text);
    EngineOption option;
    if (text == "auto") return option;
    if (text == "kvm") return EngineOption{.engine = Engine::Kvm, .soft = {}};
    const std::string_view name = words.front().whole;
    if (name == "auto" || name == "kvm")
        return wrong(text.substr(name.size() + 1),
                     fmt::format("{} has no settings; --engine soft has {}", name, kSettings));
    if (name != "soft") return wrong(name, "choose one of auto, kvm, soft");
    option.engine = Engine::Soft;
    for (std::size_t n = 1; n < words.size(); ++n) {
        for (std::size_t before = 1; before < n; ++before)
            if (words[before].name == words[n].name) return wrong(words[n].whole, "given twice");
        if (const std::string expected = take(words[n], option.soft); !expected.empty())
            return wrong(words[n].whole.empty() ? "an empty setting" : words[n].whole, expected);
    }
    if (!option.soft.jit && option.soft.check != 0)
        return wrong(text, "check compares the translator with the interpreter; it needs jit=on");
    return option;
}

}  // namespace tessera::app
