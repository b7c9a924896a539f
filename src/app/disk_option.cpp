#include "app/disk_option.h"

#include <array>
#include <charconv>
#include <fmt/format.h>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "devices/virtio_blk/virtio_blk.h"

namespace tessera::app {

namespace {

constexpr const char* kSettings =
    "ro, serial=TEXT, queues=N, format=raw|qcow2, cache=writeback|none|directsync|unsafe, snapshot, "
    "backing=auto|on|off, backing_format=raw|qcow2, engine=auto|io_uring|threads";

template <typename T>
using Names = std::span<const std::pair<std::string_view, T>>;

constexpr std::array<std::pair<std::string_view, DiskFormat>, 2> kFormats = {
    {{"raw", DiskFormat::Raw}, {"qcow2", DiskFormat::Qcow2}}};
constexpr std::array<std::pair<std::string_view, CacheMode>, 4> kCaches = {
    {{"writeback", CacheMode::Writeback},
     {"none", CacheMode::None},
     {"directsync", CacheMode::DirectSync},
     {"unsafe", CacheMode::Unsafe}}};
constexpr std::array<std::pair<std::string_view, BackingPolicy>, 3> kBackings = {
    {{"auto", BackingPolicy::Auto}, {"on", BackingPolicy::On}, {"off", BackingPolicy::Off}}};
constexpr std::array<std::pair<std::string_view, DiskEngine>, 3> kEngines = {
    {{"auto", DiskEngine::Auto}, {"io_uring", DiskEngine::IoUring}, {"threads", DiskEngine::Threads}}};

// Up to the next comma that is not doubled; takes it out of `text`.
std::string take_part(std::string_view& text) {
    std::string part;
    while (!text.empty()) {
        const char c = text.front();
        text.remove_prefix(1);
        if (c != ',') {
            part += c;
        } else if (text.starts_with(',')) {
            part += c;
            text.remove_prefix(1);
        } else {
            break;
        }
    }
    return part;
}

// Each gives what is possible instead, empty if the setting was taken.
template <typename T, typename Slot>
std::string choose(Names<T> names, std::string_view value, Slot& slot) {
    std::string possible;
    for (const auto& [name, meaning] : names) {
        if (name == value) {
            slot = meaning;
            return {};
        }
        possible += fmt::format("{}{}", possible.empty() ? "" : ", ", name);
    }
    return "choose one of " + possible;
}

std::string take_queues(std::string_view value, unsigned& queues) {
    const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), queues);
    if (error != std::errc{} || end != value.data() + value.size() || queues < 1 ||
        queues > virtio_blk::kMostQueues)
        return fmt::format("give a number from 1 to {}", virtio_blk::kMostQueues);
    return {};
}

std::string take_serial(std::string_view value, std::string& serial) {
    if (value.empty() || value.size() > virtio_blk::kIdSize)
        return fmt::format("give 1 to {} bytes", virtio_blk::kIdSize);
    serial = value;
    return {};
}

std::string take(std::string_view name, std::optional<std::string_view> value, DiskOption& disk) {
    if (!value) {
        if (name == "ro") return disk.file.read_only = true, std::string();
        if (name == "snapshot") return disk.file.snapshot = true, std::string();
        return fmt::format("the settings are {}", kSettings);
    }
    if (name == "serial") return take_serial(*value, disk.serial);
    if (name == "queues") return take_queues(*value, disk.queues);
    if (name == "format") return choose(Names<DiskFormat>(kFormats), *value, disk.file.format);
    if (name == "cache") return choose(Names<CacheMode>(kCaches), *value, disk.file.cache);
    if (name == "backing") return choose(Names<BackingPolicy>(kBackings), *value, disk.file.backing);
    if (name == "backing_format")
        return choose(Names<DiskFormat>(kFormats), *value, disk.file.backing_format);
    if (name == "engine") return choose(Names<DiskEngine>(kEngines), *value, disk.file.engine);
    return fmt::format("the settings are {}", kSettings);
}

}  // namespace

std::expected<DiskOption, std::string> parse_disk(std::string_view text) {
    DiskOption disk;
    std::string_view rest = text;
    disk.file.path = take_part(rest);
    if (disk.file.path.empty())
        return std::unexpected(
            fmt::format("--disk {}: give FILE[,SETTING...]; the settings are {}", text, kSettings));
    while (!rest.empty()) {
        const std::string part = take_part(rest);
        const std::string_view whole = part;
        const auto equals = whole.find('=');
        std::optional<std::string_view> value;
        if (equals != std::string_view::npos) value = whole.substr(equals + 1);
        if (const std::string wrong = take(whole.substr(0, equals), value, disk); !wrong.empty())
            return std::unexpected(fmt::format("--disk {}: {}: {}", text, part, wrong));
    }
    return disk;
}

}  // namespace tessera::app
