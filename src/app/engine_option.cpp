#include "app/engine_option.h"

#include <array>
#include <fmt/format.h>
#include <limits>
#include <span>
#include <utility>
#include <vector>

#include "app/settings.h"
#include "app/size.h"

namespace tessera::app {

namespace {

constexpr const char* kSettings = "jit=on|off, cache=SIZE, check, check=N, strict-flags, count=on|off";
constexpr const char* kKvmSettings = "irqchip=kernel|split|user, nested=on|off";

using soft::SoftCpuConfig;

std::string take_cache(const Setting& setting, SoftCpuConfig& config) {
    const auto size = parse_size(setting.value.value_or(""));
    if (!size) return "give a size such as cache=64M";
    if (*size < soft::kLeastCodeCache || *size > soft::kMostCodeCache)
        return fmt::format("give a size from {}M to {}G", soft::kLeastCodeCache / kMiB,
                           soft::kMostCodeCache / kGiB);
    config.code_cache = *size;
    return {};
}

std::string take_check(const Setting& setting, SoftCpuConfig& config) {
    const auto every = number_of(setting.value.value_or("1"), decltype(config.check){1},
                                 std::numeric_limits<decltype(config.check)>::max());
    if (!every) return "give check for every block, or check=N for every N-th, N from 1";
    config.check = *every;
    return {};
}

constexpr std::array<KnownSetting<SoftCpuConfig>, 5> kKnown{
    {{.name = "jit", .take = [](const Setting& s, SoftCpuConfig& c) { return take_on_off(s, c.jit); }},
     {.name = "cache", .take = take_cache},
     {.name = "check", .take = take_check},
     {.name = "strict-flags",
      .take = [](const Setting& s, SoftCpuConfig& c) { return take_flag(s, c.strict_flags); }},
     {.name = "count", .take = [](const Setting& s, SoftCpuConfig& c) { return take_on_off(s, c.count); }}}};

constexpr Words<EngineChoice, 3> kEngines{
    {{"auto", EngineChoice::Auto}, {"kvm", EngineChoice::Kvm}, {"soft", EngineChoice::Soft}}};
constexpr Words<kvm::Irqchip, 3> kIrqchips{
    {{"kernel", kvm::Irqchip::Kernel}, {"split", kvm::Irqchip::Split}, {"user", kvm::Irqchip::User}}};
constexpr std::array<KnownSetting<KvmSettings>, 2> kKnownOfKvm{
    {{.name = "irqchip",
      .take = [](const Setting& s,
                 KvmSettings& c) { return take_word(s.value.value_or(""), kIrqchips, c.irqchip); }},
     {.name = "nested", .take = [](const Setting& s, KvmSettings& c) { return take_on_off(s, c.nested); }}}};

}  // namespace

std::expected<EngineOption, std::string> parse_engine(std::string_view text) {
    const auto wrong = [&](std::string_view what, std::string_view expected) {
        return std::unexpected(refuse_setting("--engine", text, what, expected));
    };
    const std::vector<Setting> settings = split_settings(text, Commas::Separate);
    const std::span given = std::span(settings).subspan(1);
    EngineOption option;
    const std::string& name = settings.front().whole;
    if (take_word(name, kEngines, option.engine) != "")
        return wrong(name, "choose one of " + words_of(kEngines));
    std::string refused;
    switch (option.engine) {
        case EngineChoice::Auto:
            if (!given.empty())
                return wrong(
                    text.substr(name.size() + 1),
                    fmt::format("auto has no settings; soft has {}; kvm has {}", kSettings, kKvmSettings));
            break;
        case EngineChoice::Soft:
            refused = take_settings<SoftCpuConfig>("--engine", text, given, kKnown,
                                                   fmt::format("soft has these settings: {}", kSettings),
                                                   option.soft);
            break;
        case EngineChoice::Kvm:
            refused = take_settings<KvmSettings>("--engine", text, given, kKnownOfKvm,
                                                 fmt::format("kvm has these settings: {}", kKvmSettings),
                                                 option.kvm);
            break;
    }
    if (!refused.empty()) return std::unexpected(std::move(refused));
    if (!option.soft.jit && option.soft.check != 0)
        return wrong(text, "check compares the translator with the interpreter; it needs jit=on");
    return option;
}

}  // namespace tessera::app
