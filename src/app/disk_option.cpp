#include "app/disk_option.h"

#include <array>
#include <fmt/format.h>
#include <span>
#include <utility>
#include <vector>

#include "app/settings.h"
#include "devices/virtio_blk/virtio_blk.h"

namespace tessera::app {

namespace {

constexpr const char* kSettings =
    "if=virtio|ahci, ro, serial=TEXT, queues=N, format=raw|qcow2, cache=writeback|none|directsync|unsafe, "
    "snapshot, "
    "backing=auto|on|off, backing_format=raw|qcow2, engine=auto|io_uring|threads";

constexpr Words<DiskInterface, 2> kInterfaces = {
    {{"virtio", DiskInterface::Virtio}, {"ahci", DiskInterface::Ahci}}};
constexpr Words<DiskFormat, 2> kFormats = {{{"raw", DiskFormat::Raw}, {"qcow2", DiskFormat::Qcow2}}};
constexpr Words<CacheMode, 4> kCaches = {{{"writeback", CacheMode::Writeback},
                                          {"none", CacheMode::None},
                                          {"directsync", CacheMode::DirectSync},
                                          {"unsafe", CacheMode::Unsafe}}};
constexpr Words<BackingPolicy, 3> kBackings = {
    {{"auto", BackingPolicy::Auto}, {"on", BackingPolicy::On}, {"off", BackingPolicy::Off}}};
constexpr Words<DiskEngine, 3> kEngines = {
    {{"auto", DiskEngine::Auto}, {"io_uring", DiskEngine::IoUring}, {"threads", DiskEngine::Threads}}};

template <typename Option>
std::string take_serial(const Setting& setting, Option& disk) {
    const std::string value = setting.value.value_or("");
    if (value.empty() || value.size() > virtio_blk::kIdSize)
        return fmt::format("give 1 to {} bytes", virtio_blk::kIdSize);
    disk.serial = value;
    return {};
}

template <const auto& Choices, auto Member, typename Option = DiskOption>
std::string take_choice(const Setting& setting, Option& disk) {
    return take_word(setting.value.value_or(""), Choices, disk.file.*Member);
}

constexpr std::array<KnownSetting<DiskOption>, 10> kKnown{
    {{.name = "if",
      .take = [](const Setting& s,
                 DiskOption& d) { return take_word(s.value.value_or(""), kInterfaces, d.interface); }},
     {.name = "ro", .take = [](const Setting& s, DiskOption& d) { return take_flag(s, d.file.read_only); }},
     {.name = "snapshot",
      .take = [](const Setting& s, DiskOption& d) { return take_flag(s, d.file.snapshot); }},
     {.name = "serial", .take = take_serial<DiskOption>},
     {.name = "queues",
      .take =
          [](const Setting& s, DiskOption& d) {
              return take_number(s.value.value_or(""), 1, virtio_blk::kMostQueues, d.queues);
          }},
     {.name = "format", .take = take_choice<kFormats, &DiskOptions::format>},
     {.name = "cache", .take = take_choice<kCaches, &DiskOptions::cache>},
     {.name = "backing", .take = take_choice<kBackings, &DiskOptions::backing>},
     {.name = "backing_format", .take = take_choice<kFormats, &DiskOptions::backing_format>},
     {.name = "engine", .take = take_choice<kEngines, &DiskOptions::engine>}}};

constexpr const char* kCdromSettings = "serial=TEXT, format=raw|qcow2, engine=auto|io_uring|threads";

constexpr std::array<KnownSetting<CdromOption>, 3> kKnownOfCdrom{
    {{.name = "serial", .take = take_serial<CdromOption>},
     {.name = "format", .take = take_choice<kFormats, &DiskOptions::format, CdromOption>},
     {.name = "engine", .take = take_choice<kEngines, &DiskOptions::engine, CdromOption>}}};

}  // namespace

std::expected<CdromOption, std::string> parse_cdrom(std::string_view text) {
    CdromOption cdrom;
    const std::vector<Setting> settings = split_settings(text, Commas::DoubledAreText);
    cdrom.file.path = settings.front().whole;
    cdrom.file.read_only = true;
    cdrom.empty = cdrom.file.path == "none";
    if (cdrom.file.path.empty())
        return std::unexpected(
            fmt::format("--cdrom {}: give FILE[,SETTING...], or none for an empty drive; the settings are {}",
                        text, kCdromSettings));
    if (std::string refused =
            take_settings<CdromOption>("--cdrom", text, std::span(settings).subspan(1), kKnownOfCdrom,
                                       fmt::format("the settings are {}", kCdromSettings), cdrom);
        !refused.empty())
        return std::unexpected(std::move(refused));
    return cdrom;
}

std::expected<DiskOption, std::string> parse_disk(std::string_view text) {
    DiskOption disk;
    const std::vector<Setting> settings = split_settings(text, Commas::DoubledAreText);
    disk.file.path = settings.front().whole;
    if (disk.file.path.empty())
        return std::unexpected(
            fmt::format("--disk {}: give FILE[,SETTING...]; the settings are {}", text, kSettings));
    if (std::string refused =
            take_settings<DiskOption>("--disk", text, std::span(settings).subspan(1), kKnown,
                                      fmt::format("the settings are {}", kSettings), disk);
        !refused.empty())
        return std::unexpected(std::move(refused));
    if (disk.interface != DiskInterface::Virtio && disk.queues != 1)
        return std::unexpected(fmt::format("--disk {}: queues are for if=virtio", text));
    return disk;
}

}  // namespace tessera::app
