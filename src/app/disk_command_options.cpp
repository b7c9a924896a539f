// The options of `tessera disk`, from words to what is to be done.
#include <CLI/CLI.hpp>
#include <array>
#include <fmt/format.h>
#include <limits>

#include "app/disk_command.h"
#include "app/settings.h"
#include "app/size.h"

namespace tessera::app {

namespace {

using block::qcow2::Compression;
using block::qcow2::Repair;

constexpr const char* kFooter =
    "Sizes are 512M, 10G, or 4096B for bytes. Exit codes: 0 done, 1 it failed on the way, 2 bad usage, 3 "
    "unusable "
    "file,\n4 the host lacks something, 9 check found damage, 10 check found leaks only.";

// Each gives what is wrong, empty if nothing is. A word that was not typed changes nothing.
template <typename T, std::size_t N>
std::string choose(const char* option, const std::string& typed, const Words<T, N>& words, T& value) {
    if (typed.empty()) return {};
    const std::string wrong = take_word(typed, words, value);
    return wrong.empty() ? wrong : fmt::format("{} {}: {}", option, typed, wrong);
}

constexpr Words<DiskFormat, 2> kFormats = {{{"raw", DiskFormat::Raw}, {"qcow2", DiskFormat::Qcow2}}};
constexpr Words<BackingPolicy, 3> kBackings = {
    {{"auto", BackingPolicy::Auto}, {"on", BackingPolicy::On}, {"off", BackingPolicy::Off}}};
constexpr Words<Compression, 2> kCompressions = {{{"zlib", Compression::Zlib}, {"zstd", Compression::Zstd}}};
constexpr Words<Repair, 2> kRepairs = {{{"leaks", Repair::Leaks}, {"all", Repair::All}}};
constexpr Words<ProgressKind, 3> kProgress = {
    {{"auto", ProgressKind::Auto}, {"json", ProgressKind::Json}, {"none", ProgressKind::None}}};
constexpr Words<u32, 2> kVersions = {{{"2", 2}, {"3", 3}}};
constexpr Words<u32, 7> kRefcounts = {
    {{"1", 1}, {"2", 2}, {"4", 4}, {"8", 8}, {"16", 16}, {"32", 32}, {"64", 64}}};

std::string choose_format(const char* option, const std::string& typed, std::optional<DiskFormat>& value) {
    if (typed.empty()) return {};
    DiskFormat format = DiskFormat::Raw;
    std::string wrong = choose(option, typed, kFormats, format);
    if (wrong.empty()) value = format;
    return wrong;
}

bool has_qcow2_name(const std::string& path) {
    return path.ends_with(".qcow2") || path.ends_with(".qcow");
}

std::string check_new(const TypedDisk& typed, block::NewDisk& made) {
    made.format = has_qcow2_name(made.path) ? DiskFormat::Qcow2 : DiskFormat::Raw;
    std::string wrong = choose("--format", typed.format, kFormats, made.format);
    if (!wrong.empty()) return wrong;
    if (made.format == DiskFormat::Raw && has_qcow2_name(made.path))
        return fmt::format("--format raw: a raw disk must not be called '{}', or it is taken for an image",
                           made.path);
    if (!typed.cluster.empty()) {
        const auto size = disk_size_of(typed.cluster, 0);
        if (!size)
            return fmt::format("--cluster-size {}: give a power of two from 512B to 2M", typed.cluster);
        made.qcow2.cluster = *size;
    }
    for (std::string& other :
         std::array{choose("--compression", typed.compression, kCompressions, made.qcow2.compression),
                    choose("--refcount-bits", typed.refcount_bits, kRefcounts, made.qcow2.refcount_bits),
                    choose("--qcow2-version", typed.version, kVersions, made.qcow2.version)})
        if (!other.empty()) return std::move(other);
    made.qcow2.lazy_refcounts = typed.lazy_refcounts;
    made.preallocate = typed.preallocate;
    const bool wants_qcow2 = !typed.cluster.empty() || !typed.compression.empty() ||
                             !typed.refcount_bits.empty() || !typed.version.empty() || typed.lazy_refcounts ||
                             typed.compress || !typed.backing_file.empty();
    if (made.format == DiskFormat::Raw && wants_qcow2)
        return fmt::format("'{}' is to be a raw disk, which has no such options; add --format qcow2",
                           made.path);
    if (made.format == DiskFormat::Qcow2 && typed.preallocate) return "--preallocate is for raw disks";
    return {};
}

std::string check_create(const TypedDisk& typed, DiskCommand& command) {
    command.made.path = typed.path;
    if (std::string wrong = check_new(typed, command.made); !wrong.empty()) return wrong;
    command.made.qcow2.backing_name = typed.backing_file;
    if (!typed.size.empty()) {
        const auto size = disk_size_of(typed.size, 0);
        if (!size) return fmt::format("{}: give a size such as 10G", typed.size);
        command.made.qcow2.size = *size;
    } else if (typed.backing_file.empty()) {
        return "say how large the disk is to be, as `tessera disk create FILE SIZE`";
    }
    return choose_format("--backing-format", typed.backing_format, command.disk.backing_format);
}

}  // namespace

std::optional<u64> disk_size_of(std::string_view text, u64 now) {
    const bool more = text.starts_with('+');
    const bool less = text.starts_with('-');
    if (more || less) text.remove_prefix(1);
    std::optional<u64> size;
    if (text.ends_with('B') && !text.ends_with("iB")) {
        text.remove_suffix(1);
        size = number_of<u64>(text, 1, std::numeric_limits<u64>::max());
    } else {
        size = parse_size(text);
    }
    if (!size || *size % 512 != 0 || (less && *size >= now)) return std::nullopt;
    if (more) return now + *size;
    return less ? now - *size : *size;
}

CLI::App* add_disk(CLI::App& app, TypedDisk& typed) {
    CLI::App* disk = app.add_subcommand("disk", "Make, look at, copy and repair disks");
    disk->footer(kFooter);
    const auto add = [&](const char* name, const char* about) {
        CLI::App* command = disk->add_subcommand(name, about);
        command->add_option("FILE", typed.path, "the disk");
        return command;
    };
    const auto add_new = [&](CLI::App* command) {
        command->add_option("--format", typed.format, "of the new disk: raw, qcow2 (default: by its name)")
            ->type_name("FORMAT");
        command->add_option("--cluster-size", typed.cluster, "qcow2: 512B to 2M (default 64K)")
            ->type_name("SIZE");
        command->add_option("--compression", typed.compression, "qcow2: zlib (default), zstd")
            ->type_name("KIND");
        command->add_option("--refcount-bits", typed.refcount_bits, "qcow2: 1 to 64 (default 16)")
            ->type_name("N");
        command->add_option("--qcow2-version", typed.version, "2, 3 (default)")->type_name("N");
        command->add_flag("--lazy-refcounts", typed.lazy_refcounts, "qcow2: others may postpone refcounts");
        command->add_flag("--preallocate", typed.preallocate, "raw: take the room on the host now");
    };
    const auto add_read = [&](CLI::App* command, const char* option) {
        command->add_option(option, typed.from_format, "of FILE: raw, qcow2 (default: by its name)")
            ->type_name("FORMAT");
    };
    const auto add_backing = [&](CLI::App* command) {
        command
            ->add_option(
                "--backing", typed.backing,
                "which backing files FILE may have: auto (default; a qcow2 image in its directory), on, off")
            ->type_name("HOW");
        command
            ->add_option("--backing-format", typed.backing_format,
                         "of a backing file whose image does not say it")
            ->type_name("FORMAT");
    };
    const auto add_progress = [&](CLI::App* command) {
        command->add_option("--progress", typed.progress, "auto (default; a bar on a terminal), json, none")
            ->type_name("HOW");
    };
    CLI::App* create = add("create", "Make an empty disk");
    create->add_option("SIZE", typed.size, "of the disk; may be left out with --backing-file");
    add_new(create);
    create
        ->add_option("--backing-file", typed.backing_file,
                     "what the new disk shows until it is written, relative to its folder")
        ->type_name("FILE");
    create->add_option("--backing-format", typed.backing_format, "of the backing file (default: by its name)")
        ->type_name("FORMAT");
    CLI::App* info = add("info", "Say what a disk is");
    add_read(info, "--format");
    info->add_flag("--json", typed.json, "for programs");
    CLI::App* convert = add("convert", "Copy a disk into another format");
    convert->add_option("NEW", typed.to, "the copy");
    add_read(convert, "--from-format");
    add_new(convert);
    add_backing(convert);
    convert->add_flag("-c,--compress", typed.compress, "qcow2: compress the copy");
    add_progress(convert);
    CLI::App* check = add("check", "Look for damage in an image, and repair it");
    add_read(check, "--format");
    check->add_option("-r,--repair", typed.repair, "leaks (free what is lost), all")->type_name("WHAT");
    check->add_flag("--json", typed.json, "for programs");
    add_progress(check);
    CLI::App* resize = add("resize", "Change a disk's size");
    resize->add_option("SIZE", typed.size, "the new size, or +SIZE, or -SIZE");
    resize->add_flag("--shrink", typed.shrink, "may become smaller, which loses what is at the end");
    add_read(resize, "--format");
    add_backing(resize);
    CLI::App* commit = add("commit", "Write an overlay into its backing file, and empty it");
    add_read(commit, "--format");
    add_backing(commit);
    add_progress(commit);
    return disk;
}

std::string check_disk_options(const CLI::App& app, const TypedDisk& typed, DiskCommand& command) {
    const auto chosen = app.get_subcommands();
    if (chosen.empty()) return "disk: say what to do: create, info, convert, check, resize, commit";
    const std::string& name = chosen.front()->get_name();
    if (typed.path.empty()) return fmt::format("disk {}: say which file", name);
    command.disk.path = typed.path;
    command.output = typed.json ? Output::Json : Output::Text;
    for (std::string& wrong :
         std::array{choose_format("--format", typed.from_format, command.disk.format),
                    choose("--backing", typed.backing, kBackings, command.disk.backing),
                    choose_format("--backing-format", typed.backing_format, command.disk.backing_format),
                    choose("--progress", typed.progress, kProgress, command.progress),
                    choose("--repair", typed.repair, kRepairs, command.repair)})
        if (!wrong.empty()) return std::move(wrong);
    if (name == "create") {
        command.action = DiskAction::Create;
        return check_create(typed, command);
    }
    if (name == "convert") {
        command.action = DiskAction::Convert;
        command.made.path = typed.to;
        command.compress = typed.compress;
        if (typed.to.empty())
            return "disk convert: say where the copy goes, as `tessera disk convert FILE NEW`";
        return check_new(typed, command.made);
    }
    if (name == "resize") {
        command.action = DiskAction::Resize;
        command.size = typed.size;
        command.shrink = typed.shrink;
        return typed.size.empty() ? "disk resize: say how large the disk is to be" : "";
    }
    command.action = name == "info"    ? DiskAction::Info
                     : name == "check" ? DiskAction::Check
                                       : DiskAction::Commit;
    return {};
}

}  // namespace tessera::app
