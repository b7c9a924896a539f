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
#include "backends/char/unix_char.h"
#include "backends/net/open/open_net.h"
#include "backends/vsock/unix_vsock.h"

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

// While the guest runs.
void complain_beside_guest(std::string_view message) {
    const std::string line = fmt::format("tessera: {}\n", message);
    fmt::print(stderr, "{}", isatty(STDIN_FILENO) != 0 ? for_raw_terminal(line) : line);
}

// The disks of a guest, opened; what the machine uses of them is in `configs`.
struct Disks {
    std::vector<std::unique_ptr<BlockBackend>> backends;
    std::vector<DiskConfig> configs;
    std::vector<CdromConfig> cdroms;
};

Result<Disks> open_disks(const std::vector<DiskOption>& options, const std::vector<CdromOption>& cdroms) {
    Disks disks;
    for (const DiskOption& option : options) {
        auto backend = open_disk(option.file);
        if (!backend) return std::unexpected(std::move(backend.error()));
        disks.configs.push_back({.backend = backend->get(),
                                 .serial = option.serial,
                                 .queues = option.queues,
                                 .writeback = option.file.cache != CacheMode::DirectSync,
                                 .interface = option.interface});
        disks.backends.push_back(*std::move(backend));
    }
    for (const CdromOption& option : cdroms) {
        CdromConfig& cdrom = disks.cdroms.emplace_back(CdromConfig{.serial = option.serial});
        if (option.empty) continue;
        auto backend = open_disk(option.file);
        if (!backend) return std::unexpected(std::move(backend.error()));
        cdrom.disc = backend->get();
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
        backend_options.on_trouble = [](std::string_view why) {
            complain_beside_guest(
                fmt::format("{}; the guest's network cable is unplugged until that works", why));
        };
        auto mac = default_mac(backend_options.kind, nets.backends.size());
        if (!mac) return std::unexpected(std::move(mac.error()));
        auto backend = net::open_net(backend_options, loop);
        if (!backend) return std::unexpected(std::move(backend.error()));
        nets.configs.push_back(
            {.backend = backend->get(),
             .mac = option.mac.value_or(*mac),
             .pairs = backend_options.queues,
             .mtu = backend_options.kind == net::NetKind::User ? backend_options.mtu : u16{0},
             .model = option.model,
             .isa = option.isa});
        nets.backends.push_back(*std::move(backend));
    }
    return nets;
}

// What programs of the host reach by sockets, listening; what the machine uses of them is in the others.
struct Cables {
    std::vector<std::unique_ptr<UnixChar>> sockets;
    std::vector<PortConfig> ports;
    std::vector<PciSerialConfig> serials;
};

Result<Cables> open_cables(const RunOptions& options, EventLoop& loop) {
    Cables cables;
    for (const PortOption& port : options.ports) {
        auto socket = UnixChar::create(loop, "--port", port.path);
        if (!socket) return std::unexpected(std::move(socket.error()));
        cables.ports.push_back({.backend = socket->get(), .name = port.name});
        cables.sockets.push_back(*std::move(socket));
    }
    for (const SerialOption& serial : options.serials) {
        auto socket = UnixChar::create(loop, "--serial", serial.path);
        if (!socket) return std::unexpected(std::move(socket.error()));
        cables.serials.push_back({.backend = socket->get(), .place = serial.place});
        cables.sockets.push_back(*std::move(socket));
    }
    return cables;
}

// Everything of the host's that a guest uses. All of it outlives the VM.
struct HostSide {
    std::unique_ptr<EventLoop> loop;  // serves the rest
    Disks disks;
    Nets nets;
    Cables cables;
    std::unique_ptr<UnixVsock> vsock;
};

Result<HostSide> open_host_side(const RunOptions& options) {
    HostSide host;
    auto disks = open_disks(options.disks, options.cdroms);
    if (!disks) return std::unexpected(std::move(disks.error()));
    host.disks = *std::move(disks);
    auto loop = EventLoop::create("tessera-io", EventLoop::Idle::LooksFirst);
    if (!loop) return std::unexpected(std::move(loop.error()));
    host.loop = *std::move(loop);
    auto nets = open_nets(options.nets, *host.loop);
    if (!nets) return std::unexpected(std::move(nets.error()));
    host.nets = *std::move(nets);
    auto cables = open_cables(options, *host.loop);
    if (!cables) return std::unexpected(std::move(cables.error()));
    host.cables = *std::move(cables);
    if (options.vsock) {
        auto vsock = UnixVsock::create(*host.loop, options.vsock->path);
        if (!vsock) return std::unexpected(std::move(vsock.error()));
        host.vsock = *std::move(vsock);
    }
    return host;
}

MachineConfig machine_of(const RunOptions& options, const HostSide& host, CharBackend& terminal,
                         Traces& traces) {
    soft::SoftCpuConfig soft = options.soft;
    if (!soft.count) soft.count = options.statistics;
    const bool serial = options.console == ConsoleKind::Serial;
    return {.kind = options.machine,
            .memory = options.memory,
            .cpus = options.cpus,
            .engine = options.engine,
            .kvm = options.kvm,
            .soft = soft,
            .kernel = options.kernel,
            .initrd = options.initrd,
            .cmdline = options.cmdline,
            .kernel_start = options.kernel_start,
            .on_note = complain,
            .disks = host.disks.configs,
            .cdroms = host.disks.cdroms,
            .rng = options.rng,
            .nets = host.nets.configs,
            .balloon = options.balloon,
            .console = serial ? nullptr : &terminal,
            .ports = host.cables.ports,
            .vsock = {.backend = host.vsock.get(), .cid = options.vsock ? options.vsock->cid : 0},
            .io_loop = host.loop.get(),
            .serial = serial ? &terminal : nullptr,
            .pci_serials = host.cables.serials,
            .tracer = traces.cpu(),
            .port_observer = traces.ports(),
            .mmio_observer = traces.mmio()};
}

}  // namespace

ExitCode run(const RunOptions& options, std::chrono::steady_clock::time_point begin) {
    block_signals();
    auto traces = Traces::open(options.traces);
    if (!traces) return refuse(traces.error());
    auto host = open_host_side(options);
    if (!host) return refuse(host.error());
    // The terminal outlives the VM as well: the VM's end may have something to say to it. Keys are looked at
    // only once the machine is connected.
    Vm* running = nullptr;
    auto stdio = StdioChar::create(*host->loop, {.on_quit = [&] { running->stop(); },
                                                 .on_statistics =
                                                     [&] {
                                                         // Not on this thread, for which the VM may wait.
                                                         running->loop().post([&] {
                                                             fmt::print(stderr, "{}",
                                                                        for_raw_terminal(statistics_table(
                                                                            running->statistics(), begin)));
                                                         });
                                                     }});
    if (!stdio) return refuse(stdio.error());
    const auto refuse_calmly = [&](const Error& error) {
        stdio->reset();  // the terminal first
        return refuse(error);
    };
    auto vm = Vm::create(options.cpus, options.on_reset);
    if (!vm) return refuse_calmly(vm.error());
    running = vm->get();
    auto signals =
        Signals::watch(running->loop(), [&](int) { running->stop(); }, [&] { (*stdio)->look_at_size(); });
    if (!signals) return refuse_calmly(signals.error());
    if (auto built = build_machine(*running, machine_of(options, *host, **stdio, **traces)); !built) {
        signals->reset();
        vm->reset();
        return refuse_calmly(built.error());
    }
    if (isatty(STDIN_FILENO) != 0)
        host->loop->run([&] { (*stdio)->print("tessera: Ctrl-a x quits, Ctrl-a h helps\r\n"); });
    running->start();
    const Ending ending = running->wait();
    (*stdio)->connect(nullptr);
    std::string statistics;
    if (options.statistics) statistics = statistics_table(running->statistics(), begin);
    signals->reset();
    vm->reset();
    stdio->reset();
    fmt::print(stderr, "{}", statistics);
    return report(ending);
}

}  // namespace tessera::app
