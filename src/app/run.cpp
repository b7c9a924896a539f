#include "app/run.h"

#include <array>
#include <cstdio>
#include <fmt/format.h>
#include <memory>
#include <sys/random.h>
#include <unistd.h>
#include <utility>
#include <vector>

#include "app/signals.h"
#include "app/statistics.h"
#include "app/trace.h"
#include "backends/block/open/open_disk.h"
#include "backends/char/stdio_char.h"
#include "backends/net/open/open_net.h"

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

// As users of other monitors know it. Those who share a network with other VMs have one by chance.
Result<std::array<u8, 6>> default_mac(net::NetKind kind, std::size_t number) {
    std::array<u8, 6> mac = {0x52, 0x54, 0x00, 0x12, 0x34, static_cast<u8>(0x56 + number)};
    if (kind != net::NetKind::User && getrandom(&mac[3], 3, 0) != 3)
        return fail(Errc::HostFailure, "the host gave no random number for a network card's address");
    return mac;
}

// The networks of a guest, opened; what the machine uses of them is in `configs`.
struct Nets {
    std::vector<std::unique_ptr<NetBackend>> backends;
    std::vector<NetConfig> configs;
};

Result<Nets> open_nets(const std::vector<NetOption>& options, EventLoop& loop) {
    Nets nets;
    for (const NetOption& option : options) {
        net::NetOptions backend_options = option.backend;
        backend_options.helper_program = net::kThisProgram;
        auto mac = default_mac(backend_options.kind, nets.backends.size());
        if (!mac) return std::unexpected(std::move(mac.error()));
        auto backend = net::open_net(backend_options, loop);
        if (!backend) return std::unexpected(std::move(backend.error()));
        nets.configs.push_back(
            {.backend = backend->get(),
             .mac = option.mac.value_or(*mac),
             .pairs = backend_options.queues,
             .mtu = backend_options.kind == net::NetKind::User ? backend_options.mtu : u16{0}});
        nets.backends.push_back(*std::move(backend));
    }
    return nets;
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
    // The loop serves the networks, and both outlive the VM.
    std::unique_ptr<EventLoop> io_loop;
    if (!options.disks.empty() || !options.nets.empty()) {
        auto loop = EventLoop::create("tessera-io");
        if (!loop) return refuse(loop.error());
        io_loop = std::move(*loop);
    }
    Result<Nets> nets = options.nets.empty() ? Nets() : open_nets(options.nets, *io_loop);
    if (!nets) return refuse(nets.error());
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
                                   .nets = nets->configs,
                                   .balloon = options.balloon,
                                   .io_loop = io_loop.get(),
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
