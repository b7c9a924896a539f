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

}  // namespace

std::expected<EngineOption, std::string> parse_engine(std::string_view text) {
    const auto wrong = [&](std::string_view what, std::string_view expected) {
        return std::unexpected(refuse_setting("--engine", text, what, expected));
    };
    const std::vector<Setting> settings = split_settings(text, Commas::Separate);
    EngineOption option;
    if (text == "auto") return option;
    if (text == "kvm") return EngineOption{.engine = Engine::Kvm, .soft = {}};
    const std::string& name = settings.front().whole;
    if (name == "auto" || name == "kvm")
        return wrong(text.substr(name.size() + 1),
                     fmt::format("{} has no settings; --engine soft has {}", name, kSettings));
    if (name != "soft") return wrong(name, "choose one of auto, kvm, soft");
    option.engine = Engine::Soft;
    if (std::string refused =
            take_settings<SoftCpuConfig>("--engine", text, std::span(settings).subspan(1), kKnown,
                                         fmt::format("soft has these settings: {}", kSettings), option.soft);
        !refused.empty())
        return std::unexpected(std::move(refused));
    if (!option.soft.jit && option.soft.check != 0)
        return wrong(text, "check compares the translator with the interpreter; it needs jit=on");
    return option;
}

}  // namespace tessera::app
