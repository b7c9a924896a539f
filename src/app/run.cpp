#include "app/run.h"

#include <cstdio>
#include <fmt/format.h>
#include <memory>
#include <unistd.h>
#include <utility>
#include <vector>

#include "app/signals.h"
#include "app/statistics.h"
#include "app/trace.h"
#include "backends/block/open/open_disk.h"
#include "backends/char/stdio_char.h"

namespace tessera::app {

namespace {

void complain(std::string_view message) {
    fmt::print(stderr, "tessera: {}\n", message);
}

// Which exit code an error of the preparations means: everything but the host's own trouble is about a file.
ExitCode refuse(const Error& error) {
    complain(error.message);
    return error.code == Errc::HostFailure ? ExitCode::HostFailure : ExitCode::UnusableFile;
}

const char* name_of(ResetSource source) {
    switch (source) {
        case ResetSource::ResetRegister: return "the reset register";
        case ResetSource::KeyboardController: return "the keyboard controller";
        case ResetSource::Port92: return "port 0x92";
        case ResetSource::TripleFault: return "a triple fault";
        case ResetSource::Host: return "the host";
    }
    return "";
}

ExitCode report(const Ending& ending) {
    switch (ending.kind) {
        case Ending::Kind::PoweredOff: return ExitCode::PoweredOff;
        case Ending::Kind::Stopped: return ExitCode::Quit;
        case Ending::Kind::Reset:
            complain(fmt::format("the guest reset the machine by {}; ended because of --no-reboot",
                                 name_of(ending.reset_source)));
            return ExitCode::Reset;
        case Ending::Kind::TripleFault:
            complain("the guest triple-faulted; ended because of --no-reboot");
            return ExitCode::TripleFault;
        case Ending::Kind::Failed:
            complain(ending.message);
            return ending.message.contains(soft::kCheckFailure) ? ExitCode::Mismatch : ExitCode::Failed;
    }
    return ExitCode::Failed;
}

// In raw mode the terminal does not return the carriage by itself.
std::string for_raw_terminal(std::string_view text) {
    std::string lines = "\r\n";
    for (const char c : text) {
        if (c == '\n') lines += '\r';
        lines += c;
    }
    return lines;
}

// The disks of a guest, opened; what the machine uses of them is in `configs`.
struct Disks {
    std::vector<std::unique_ptr<BlockBackend>> backends;
    std::vector<DiskConfig> configs;
};

Result<Disks> open_disks(const std::vector<DiskOption>& options) {
    Disks disks;
    for (const DiskOption& option : options) {
        auto backend = open_disk(option.file);
        if (!backend) return std::unexpected(std::move(backend.error()));
        disks.configs.push_back({.backend = backend->get(),
                                 .serial = option.serial,
                                 .queues = option.queues,
                                 .writeback = option.file.cache != CacheMode::DirectSync});
        disks.backends.push_back(*std::move(backend));
    }
    return disks;
}

}  // namespace

ExitCode run(const RunOptions& options, std::chrono::steady_clock::time_point begin) {
    if (options.engine == Engine::Kvm) {
        complain("--engine kvm: not in this version; use --engine soft (or auto)");
        return ExitCode::HostFailure;
    }
    soft::SoftCpuConfig soft = options.soft;
    if (!soft.count) soft.count = options.statistics;
    block_signals();
    auto traces = Traces::open(options.traces);
    if (!traces) return refuse(traces.error());
    auto disks = open_disks(options.disks);  // longer than the VM
    if (!disks) return refuse(disks.error());
    auto vm = Vm::create(options.cpus, options.on_reset);
    if (!vm) return refuse(vm.error());
    auto signals = Signals::watch((*vm)->loop(), [&](int) { (*vm)->stop(); });
    if (!signals) return refuse(signals.error());

    Ending ending;
    {
        auto stdio = StdioChar::create(
            (*vm)->loop(),
            {.on_quit = [&] { (*vm)->stop(); },
             .on_statistics =
                 [&] {
                     fmt::print(stderr, "{}", for_raw_terminal(statistics_table((*vm)->statistics(), begin)));
                 }});
        if (!stdio) return refuse(stdio.error());
        const MachineConfig config{.kind = options.machine,
                                   .memory = options.memory,
                                   .cpus = options.cpus,
                                   .soft = soft,
                                   .kernel = options.kernel,
                                   .initrd = options.initrd,
                                   .cmdline = options.cmdline,
                                   .kernel_start = options.kernel_start,
                                   .on_note = complain,
                                   .disks = disks->configs,
                                   .rng = options.rng,
                                   .serial = stdio->get(),
                                   .tracer = (*traces)->cpu(),
                                   .port_observer = (*traces)->ports(),
                                   .mmio_observer = (*traces)->mmio()};
        if (auto built = build_machine(**vm, config); !built) {
            stdio->reset();  // the terminal first
            return refuse(built.error());
        }
        if (isatty(STDIN_FILENO) != 0)
            (*vm)->loop().run([&] { (*stdio)->print("tessera: Ctrl-a x quits, Ctrl-a h helps\r\n"); });
        (*vm)->start();
        ending = (*vm)->wait();
        (*stdio)->connect(nullptr);
    }
    if (options.statistics) fmt::print(stderr, "{}", statistics_table((*vm)->statistics(), begin));
    return report(ending);
}

}  // namespace tessera::app
