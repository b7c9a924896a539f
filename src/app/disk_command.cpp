#include "app/disk_command.h"

#include <cstdio>
#include <filesystem>
#include <fmt/format.h>

#include "app/json_text.h"
#include "base/size_text.h"

namespace tessera::app {

namespace {

using block::DiskReport;
using block::Progress;
using block::qcow2::CheckReport;
using block::qcow2::Compatible;
using block::qcow2::Compression;
using block::qcow2::Incompatible;

ExitCode refuse(const Error& error) {
    fmt::print(stderr, "tessera: {}\n", error.message);
    switch (error.code) {
        case Errc::InvalidArgument: return ExitCode::Usage;
        case Errc::HostFailure: return ExitCode::HostFailure;
        case Errc::NotFound:
        case Errc::CorruptState:
        case Errc::Unsupported: break;
    }
    return ExitCode::UnusableFile;
}

ExitCode done_or(const Status& status) {
    return status ? ExitCode::PoweredOff : refuse(status.error());
}

const char* name_of(DiskFormat format) {
    return format == DiskFormat::Raw ? "raw" : "qcow2";
}
const char* name_of(Compression compression) {
    return compression == Compression::Zstd ? "zstd" : "zlib";
}

// Text of a file's making, for a terminal.
std::string printable(std::string_view text) {
    std::string out;
    for (const char c : text) out += static_cast<unsigned char>(c) < 0x20 || c == 0x7F ? '?' : c;
    return out;
}

void print_text(const DiskReport& report) {
    fmt::print("{}: {} disk of {} ({} bytes), {} on the host\n", printable(report.path),
               name_of(report.format), size_text(report.size), report.size, size_text(report.allocated));
    if (report.format == DiskFormat::Raw) return;
    const auto& header = report.header;
    fmt::print("version {}, clusters of {}, refcounts of {} bits, {} compression{}\n", header.version,
               size_text(header.geometry.cluster()), header.geometry.refcount_bits(),
               name_of(header.compression),
               header.compatible.has(Compatible::LazyRefcounts) ? ", lazy refcounts" : "");
    if (!header.backing_name.empty())
        fmt::print("backing file {} ({})\n", printable(header.backing_name),
                   header.backing_format.empty() ? "format not said" : printable(header.backing_format));
    if (header.incompatible.has(Incompatible::Dirty))
        fmt::print("not closed by its last user; repaired when it is opened for writing\n");
    if (header.incompatible.has(Incompatible::Corrupt))
        fmt::print("marked as damaged; repair it with `tessera disk check -r all`\n");
    for (const auto& snapshot : report.snapshots)
        fmt::print("snapshot {} {}: {}, {} of machine state\n", printable(snapshot.id),
                   printable(snapshot.name), size_text(snapshot.disk_size), size_text(snapshot.state_bytes));
}

void print_json(const DiskReport& report) {
    std::string text =
        fmt::format(R"({{"file":{},"format":"{}","size":{},"allocated":{})", json_string(report.path),
                    name_of(report.format), report.size, report.allocated);
    if (report.format == DiskFormat::Qcow2) {
        const auto& header = report.header;
        text += fmt::format(
            R"(,"version":{},"cluster_size":{},"refcount_bits":{},"compression":"{}","lazy_refcounts":{},"dirty":{},"corrupt":{})",
            header.version, header.geometry.cluster(), header.geometry.refcount_bits(),
            name_of(header.compression), header.compatible.has(Compatible::LazyRefcounts),
            header.incompatible.has(Incompatible::Dirty), header.incompatible.has(Incompatible::Corrupt));
        if (!header.backing_name.empty())
            text += fmt::format(R"(,"backing_file":{},"backing_format":{})", json_string(header.backing_name),
                                header.backing_format.empty() ? "null" : json_string(header.backing_format));
        text += R"(,"snapshots":[)";
        for (std::size_t i = 0; i < report.snapshots.size(); ++i)
            text += fmt::format(R"({}{{"id":{},"name":{},"size":{},"state_bytes":{},"seconds":{}}})",
                                i == 0 ? "" : ",", json_string(report.snapshots[i].id),
                                json_string(report.snapshots[i].name), report.snapshots[i].disk_size,
                                report.snapshots[i].state_bytes, report.snapshots[i].seconds);
        text += "]";
    }
    fmt::print("{}}}\n", text);
}

ExitCode show_info(const DiskCommand& command) {
    const auto report = block::describe_disk(command.disk);
    if (!report) return refuse(report.error());
    if (command.output == Output::Json)
        print_json(*report);
    else
        print_text(*report);
    return ExitCode::PoweredOff;
}

// The backing file as the new image will name it has to be there, and gives the size if none was said.
Status complete_backing(const DiskCommand& command, block::NewDisk& made) {
    std::filesystem::path path = made.qcow2.backing_name;
    if (path.is_relative()) path = std::filesystem::path(made.path).parent_path() / path;
    DiskOptions options = command.disk;
    options.path = path.string();
    options.format = command.disk.backing_format;
    const auto below = block::describe_disk(options);
    if (!below) return std::unexpected(below.error());
    made.qcow2.backing_format = name_of(below->format);
    if (made.qcow2.size == 0) made.qcow2.size = below->size;
    return {};
}

ExitCode create(const DiskCommand& command) {
    block::NewDisk made = command.made;
    if (!made.qcow2.backing_name.empty())
        if (const auto completed = complete_backing(command, made); !completed)
            return refuse(completed.error());
    return done_or(block::create_disk(made));
}

Progress shown_by(ProgressBar& bar) {
    return [&bar](u64 done, u64 total) { bar.update(done, total); };
}

ExitCode convert(const DiskCommand& command) {
    ProgressBar bar(command.progress, "convert");
    const auto copied = block::copy_disk(
        {.from = command.disk, .to = command.made, .compress = command.compress, .progress = shown_by(bar)});
    bar.finish();
    return done_or(copied);
}

ExitCode verdict(const CheckReport& report) {
    if (report.corruptions_left() != 0) return ExitCode::Damaged;
    return report.leaks_left() != 0 ? ExitCode::Leaks : ExitCode::PoweredOff;
}

ExitCode check(const DiskCommand& command) {
    ProgressBar bar(command.progress, "check");
    const auto report = block::check_disk(command.disk, command.repair, shown_by(bar));
    bar.finish();
    if (!report) return refuse(report.error());
    if (command.output == Output::Json) {
        fmt::print(
            R"({{"file":{},"corruptions":{},"leaks":{},"corruptions_fixed":{},"leaks_fixed":{},"clusters":{},"allocated":{},"compressed":{},"image_end":{}}})"
            "\n",
            json_string(command.disk.path), report->corruptions, report->leaks, report->corruptions_fixed,
            report->leaks_fixed, report->clusters, report->allocated, report->compressed, report->image_end);
        return verdict(*report);
    }
    for (const std::string& line : report->messages) fmt::print("{}\n", line);
    fmt::print(
        "{}: {} errors ({} repaired), {} leaked clusters ({} freed); {} of {} clusters in use, {} "
        "compressed\n",
        printable(command.disk.path), report->corruptions, report->corruptions_fixed, report->leaks,
        report->leaks_fixed, report->allocated, report->clusters, report->compressed);
    return verdict(*report);
}

ExitCode resize(const DiskCommand& command) {
    const auto report = block::describe_disk(command.disk);
    if (!report) return refuse(report.error());
    const auto size = disk_size_of(command.size, report->size);
    if (!size)
        return refuse(
            {Errc::InvalidArgument, fmt::format("{}: give a size such as 10G or +2G, in whole sectors of 512 "
                                                "bytes",
                                                command.size)});
    if (*size < report->size && !command.shrink)
        return refuse({Errc::InvalidArgument,
                       fmt::format("'{}' would become smaller, and what is at its end be lost; add --shrink",
                                   command.disk.path)});
    return done_or(block::resize_disk(command.disk, *size));
}

ExitCode commit(const DiskCommand& command) {
    ProgressBar bar(command.progress, "commit");
    const auto committed = block::commit_disk(command.disk, shown_by(bar));
    bar.finish();
    return done_or(committed);
}

}  // namespace

ExitCode run_disk(const DiskCommand& command) {
    switch (command.action) {
        case DiskAction::Create: return create(command);
        case DiskAction::Info: return show_info(command);
        case DiskAction::Convert: return convert(command);
        case DiskAction::Check: return check(command);
        case DiskAction::Resize: return resize(command);
        case DiskAction::Commit: return commit(command);
        case DiskAction::None: break;
    }
    return ExitCode::Usage;
}

}  // namespace tessera::app
