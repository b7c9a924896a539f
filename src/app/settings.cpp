#include "app/settings.h"

namespace tessera::app {

namespace {

// Up to the next comma that separates; takes it out of `text` as well. False: there was none, this was the
// last.
bool take_part(std::string_view& text, Commas commas, std::string& part) {
    while (!text.empty()) {
        const char c = text.front();
        text.remove_prefix(1);
        if (c != ',') {
            part += c;
        } else if (commas == Commas::DoubledAreText && text.starts_with(',')) {
            part += c;
            text.remove_prefix(1);
        } else {
            return true;
        }
    }
    return false;
}

}  // namespace

std::vector<Setting> split_settings(std::string_view text, Commas commas) {
    std::vector<Setting> settings;
    for (bool more = true; more;) {
        Setting& setting = settings.emplace_back();
        more = take_part(text, commas, setting.whole);
        const auto equals = setting.whole.find('=');
        setting.name = setting.whole.substr(0, equals);
        if (equals != std::string::npos) setting.value = setting.whole.substr(equals + 1);
    }
    return settings;
}

std::string refuse_setting(std::string_view option, std::string_view text, std::string_view part,
                           std::string_view possible) {
    if (part == text) return fmt::format("{} {}: {}", option, text, possible);
    return fmt::format("{} {}: {}: {}", option, text, part, possible);
}

std::string take_flag(const Setting& setting, bool& slot) {
    if (setting.value) return "it takes no value";
    slot = true;
    return {};
}

}  // namespace tessera::app
