#include "app/options.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <fmt/format.h>
#include <span>
#include <utility>

#include "app/settings.h"
#include "app/size.h"
#include "devices/virtio_console/virtio_console.h"
#include "machines/board/virtio_part.h"

namespace tessera::app {

namespace {

constexpr u64 kLeastMemory = 16 * kMiB;
constexpr u64 kMostMemory = 512 * kGiB;
// Above 254 a processor needs an x2APIC ID that no ordinary interrupt reaches.
constexpr unsigned kMostCpus = 254;

constexpr const char* kExitCodes =
    "Exit codes: 0 guest powered off, 1 the VM failed, 2 bad usage, 3 unusable file, 4 the host lacks "
    "something,\n"
    "5 triple fault and 6 reset under --no-reboot, 7 quit by Ctrl-a x or a signal.";

constexpr Words<MachineKind, 2> kMachines = {{{"pc", MachineKind::Pc}, {"microvm", MachineKind::Microvm}}};
constexpr Words<KernelStart, 3> kStarts = {
    {{"auto", KernelStart::Auto}, {"stub", KernelStart::Stub}, {"direct", KernelStart::Direct}}};
constexpr Words<ConsoleKind, 2> kConsoles = {
    {{"serial", ConsoleKind::Serial}, {"virtio", ConsoleKind::Virtio}}};
constexpr Words<TraceKind, 5> kTraces = {{{"exec", TraceKind::Exec},
                                          {"int", TraceKind::Int},
                                          {"io", TraceKind::Io},
                                          {"mmio", TraceKind::Mmio},
                                          {"msr", TraceKind::Msr}}};

// The options as they were typed.
struct Typed {
    std::string memory = "512M";
    std::string cpus = "1";
    std::string machine = "pc";
    std::string kernel_entry = "auto";
    std::string engine = "auto";
    std::string cpu;  // empty: what fits the engine
    bool no_reboot = false;
    std::vector<std::string> disks;
    std::vector<std::string> cdroms;
    std::vector<std::string> nets;
    std::vector<std::string> forwards;
    std::string balloon;
    std::optional<std::string> cmdline;
    std::string console = "serial";
    std::vector<std::string> ports;
    std::vector<std::string> serials;
    std::string vsock;
    std::vector<std::string> traces;
};

std::string bad(std::string_view option, std::string_view value, std::string_view expected) {
    return fmt::format("{} {}: {}", option, value, expected);
}

// Each check gives the text of what is wrong, empty if nothing is.
template <typename T, std::size_t N>
std::string choose(std::string_view option, const std::string& typed, const Words<T, N>& words, T& value) {
    const std::string wrong = take_word(typed, words, value);
    return wrong.empty() ? wrong : bad(option, typed, wrong);
}

std::string check_memory(const std::string& typed, u64& value) {
    const auto size = parse_size(typed);
    if (!size) return bad("--memory", typed, "give a size such as 512M or 2G");
    if (*size < kLeastMemory || *size > kMostMemory)
        return bad("--memory", typed, "give a size from 16M to 512G");
    if (*size % kMiB != 0) return bad("--memory", typed, "give whole MiB");
    value = *size;
    return {};
}

std::string check_cpus(const std::string& typed, unsigned& value) {
    const std::string wrong = take_number(typed, 1, kMostCpus, value);
    return wrong.empty() ? wrong : bad("--cpus", typed, wrong);
}

std::string check_engine(const std::string& typed, RunOptions& run) {
    auto option = parse_engine(typed);
    if (!option) return std::move(option.error());
    run.engine = option->engine;
    run.kvm = option->kvm;
    run.soft = option->soft;
    return {};
}

std::string check_cpu_model(const std::string& typed, RunOptions& run) {
    if (typed.empty()) return {};
    run.kvm.host_cpu = typed == "host";
    if (run.kvm.host_cpu) return {};
    const auto model = soft::cpu_model_of(typed);
    if (!model) return bad("--cpu", typed, "choose one of host, x86-64-v2, x86-64-v3, max");
    run.soft.model = *model;
    run.kvm.level = soft::feature_level(*model);
    return {};
}

std::string check_traces(const std::vector<std::string>& typed, std::vector<TraceRequest>& traces) {
    for (const std::string& text : typed) {
        const auto equals = text.find('=');
        TraceRequest trace{};
        if (equals == std::string::npos || equals + 1 == text.size() ||
            !take_word(text.substr(0, equals), kTraces, trace.kind).empty())
            return bad("--trace", text, "give WHAT=FILE, with WHAT one of " + words_of(kTraces));
        if (std::ranges::find(traces, trace.kind, &TraceRequest::kind) != traces.end())
            return bad("--trace", text, "this is traced to another file already");
        trace.path = text.substr(equals + 1);
        traces.push_back(std::move(trace));
    }
    return {};
}

std::string check_disks(const std::vector<std::string>& typed, std::vector<DiskOption>& disks) {
    for (const std::string& text : typed) {
        auto disk = parse_disk(text);
        if (!disk) return std::move(disk.error());
        disks.push_back(*std::move(disk));
    }
    return {};
}

// AHCI is a PCI device.
std::string check_sata(const Typed& typed, RunOptions& run) {
    for (const std::string& text : typed.cdroms) {
        auto cdrom = parse_cdrom(text);
        if (!cdrom) return std::move(cdrom.error());
        run.cdroms.push_back(*std::move(cdrom));
    }
    if (run.machine != MachineKind::Microvm) return {};
    if (!typed.cdroms.empty())
        return bad("--cdrom", typed.cdroms.front(),
                   "microvm has no PCI for a CD drive; use --machine pc, or --disk FILE,ro");
    for (std::size_t n = 0; n < run.disks.size(); ++n)
        if (run.disks[n].interface == DiskInterface::Ahci)
            return bad("--disk", typed.disks[n],
                       "microvm has no PCI for AHCI; use --machine pc, or if=virtio");
    return {};
}

std::string check_ports(const Typed& typed, RunOptions& run) {
    for (const std::string& text : typed.ports) {
        auto port = parse_port(text);
        if (!port) return std::move(port.error());
        if (std::ranges::find(run.ports, port->name, &PortOption::name) != run.ports.end())
            return bad("--port", text, "there is a port of this name already");
        run.ports.push_back(*std::move(port));
    }
    if (run.ports.size() >= virtio_console::kMostPorts)
        return bad("--port", typed.ports.back(),
                   fmt::format("a machine has at most {} ports", virtio_console::kMostPorts - 1));
    for (const std::string& text : typed.serials) {
        auto serial = parse_serial(text);
        if (!serial) return std::move(serial.error());
        run.serials.push_back(*std::move(serial));
    }
    if (!run.serials.empty() && run.machine != MachineKind::Pc)
        return bad("--serial", typed.serials.front(), "the card needs PCI; use --machine pc");
    if (typed.vsock.empty()) return {};
    auto vsock = parse_vsock(typed.vsock);
    if (!vsock) return std::move(vsock.error());
    run.vsock = *std::move(vsock);
    return {};
}

// The default has the kernel's messages where the terminal is.
std::string check_console(const Typed& typed, RunOptions& run) {
    std::string wrong = choose("--console", typed.console, kConsoles, run.console);
    run.cmdline =
        typed.cmdline.value_or(run.console == ConsoleKind::Virtio ? "console=hvc0" : "console=ttyS0");
    return wrong;
}

// `--net none` stands alone.
std::string check_no_net(const Typed& typed) {
    if (typed.nets.size() != 1)
        return bad("--net", kNoNet, "this is for a guest without a card; leave it out, or the other --net");
    if (!typed.forwards.empty())
        return bad("-p", typed.forwards.front(), "ports need a network; leave --net none out");
    return {};
}

// Ports go to the first user-mode network; there is one if there are ports.
std::string check_nets(const Typed& typed, std::vector<NetOption>& nets) {
    if (std::ranges::find(typed.nets, kNoNet) != typed.nets.end()) return check_no_net(typed);
    for (const std::string& text : typed.nets) {
        auto net = parse_net(text);
        if (!net) return std::move(net.error());
        nets.push_back(*std::move(net));
    }
    if (typed.forwards.empty()) return {};
    if (nets.empty()) nets.emplace_back();
    const auto user =
        std::ranges::find(nets, net::NetKind::User, [](const auto& n) { return n.backend.kind; });
    if (user == nets.end())
        return bad("-p", typed.forwards.front(), "ports are for a user-mode network; add --net user");
    for (const std::string& text : typed.forwards) {
        auto forward = parse_forward(text);
        if (!forward) return std::move(forward.error());
        user->backend.forwards.push_back(*std::move(forward));
    }
    return {};
}

constexpr std::array<KnownSetting<BalloonConfig>, 2> kBalloonSettings{
    {{.name = "deflate-on-oom",
      .take = [](const Setting& s, BalloonConfig& b) { return take_on_off(s, b.deflate_on_oom); }},
     {.name = "free-page-reporting",
      .take = [](const Setting& s, BalloonConfig& b) { return take_on_off(s, b.free_page_reporting); }}}};

// A size, which may be left out, and settings.
std::string check_balloon(const std::string& typed, u64 memory, std::optional<BalloonConfig>& balloon) {
    if (typed.empty()) return {};
    balloon.emplace();
    const auto settings = split_settings(typed, Commas::Separate);
    std::span<const Setting> rest = settings;
    const std::string& first = rest.front().whole;
    const auto size = first == "0" ? std::optional<u64>(0) : parse_size(first);
    if (size && *size < memory) {
        balloon->target = *size;
        rest = rest.subspan(1);
    }
    return take_settings<BalloonConfig>("--balloon", typed, rest, kBalloonSettings,
                                        "give a SIZE less than the memory, then deflate-on-oom=on|off, "
                                        "free-page-reporting=on|off",
                                        *balloon);
}

// Nobody asked for the default card: it has to leave the machine's places to what was asked for.
bool has_place_for_card(const RunOptions& run) {
    if (run.machine != MachineKind::Microvm) return true;
    const auto disks = std::ranges::count(run.disks, DiskInterface::Virtio, &DiskOption::interface);
    const std::array<bool, 5> others{run.rng, run.balloon.has_value(), run.console == ConsoleKind::Virtio,
                                     !run.ports.empty(), run.vsock.has_value()};
    return disks + std::ranges::count(others, true) < std::ptrdiff_t{kMostVirtioMmio};
}

// What the engine asked for cannot do.
std::string check_together(const Typed& typed, const RunOptions& run) {
    if (run.engine == EngineChoice::Soft && run.kvm.host_cpu)
        return bad("--cpu", typed.cpu, "the software CPU has x86-64-v2, x86-64-v3 and max");
    const auto by_cpu = [](const TraceRequest& trace) {
        return trace.kind == TraceKind::Exec || trace.kind == TraceKind::Int || trace.kind == TraceKind::Msr;
    };
    if (run.engine == EngineChoice::Kvm && std::ranges::any_of(run.traces, by_cpu))
        return bad("--engine", typed.engine, "only the software CPU traces exec, int and msr");
    if (run.engine != EngineChoice::Kvm && run.kvm.host_cpu && std::ranges::any_of(run.traces, by_cpu))
        return bad("--cpu", typed.cpu, "only the software CPU traces exec, int and msr");
    return {};
}

// What is wrong, or nothing.
std::string check(const Typed& typed, RunOptions& run) {
    if (run.kernel.empty()) return "--kernel is missing: say which kernel to boot, as --kernel FILE";
    run.on_reset = typed.no_reboot ? OnReset::End : OnReset::Restart;
    for (const std::string& wrong :
         {check_memory(typed.memory, run.memory), check_cpus(typed.cpus, run.cpus),
          choose("--machine", typed.machine, kMachines, run.machine),
          choose("--kernel-entry", typed.kernel_entry, kStarts, run.kernel_start),
          check_engine(typed.engine, run), check_cpu_model(typed.cpu, run),
          check_disks(typed.disks, run.disks), check_sata(typed, run), check_nets(typed, run.nets),
          check_balloon(typed.balloon, run.memory, run.balloon), check_console(typed, run),
          check_ports(typed, run), check_traces(typed.traces, run.traces)})
        if (!wrong.empty()) return wrong;
    if (std::string wrong = check_together(typed, run); !wrong.empty()) return wrong;
    if (run.soft.check != 0 && run.cpus != 1)
        return bad("--engine", typed.engine,
                   "check runs code twice, which other CPUs would see; use --cpus 1");
    if (typed.nets.empty() && run.nets.empty() && has_place_for_card(run)) run.nets.push_back(default_net());
    return {};
}

CLI::App* add_run(CLI::App& app, RunOptions& run, Typed& typed) {
    CLI::App* command = app.add_subcommand("run", "Boot a Linux kernel; its console is this terminal");
    command->add_option("--kernel", run.kernel, "bzImage, or an ELF vmlinux (must be given)")
        ->type_name("FILE");
    command
        ->add_option("--kernel-entry", typed.kernel_entry,
                     "how a bzImage is started: auto (default), direct (unpacked by us), stub (by the "
                     "decompressor in it)")
        ->type_name("HOW");
    command->add_option("--initrd", run.initrd, "initial RAM disk")->type_name("FILE");
    command
        ->add_option("--cmdline", typed.cmdline,
                     "the kernel's command line (default console=ttyS0, or hvc0 with --console virtio)")
        ->type_name("TEXT");
    command->add_option("--memory", typed.memory, "size of the guest's memory (default 512M)")
        ->type_name("SIZE");
    command->add_option("--cpus", typed.cpus, "number of virtual CPUs (default 1)")->type_name("N");
    command
        ->add_option("--machine", typed.machine,
                     "the board: pc (default), or microvm, the least that boots Linux")
        ->type_name("NAME");
    command
        ->add_option(
            "--console", typed.console,
            "what this terminal is to the guest: serial (default; ttyS0), virtio (hvc0, which follows "
            "the terminal's size)")
        ->type_name("KIND");
    command
        ->add_option("--port", typed.ports,
                     "/dev/virtio-ports/NAME of the guest is a Unix socket here; may be given several times")
        ->type_name("name=NAME,path=SOCKET")
        ->allow_extra_args(false);
    command
        ->add_option(
            "--serial", typed.serials,
            "a further serial port, on a PCI card, is a Unix socket here; may be given several times, "
            "and be followed by ,place=bus|root-port")
        ->type_name("path=SOCKET[,SETTING]")
        ->allow_extra_args(false);
    command
        ->add_option(
            "--vsock", typed.vsock,
            "sockets (AF_VSOCK) between programs of the guest, which is number N, from 3, and of this "
            "host: connect to SOCKET and say CONNECT PORT, or listen at SOCKET_PORT")
        ->type_name("cid=N,path=SOCKET");
    command
        ->add_option(
            "--disk", typed.disks,
            "a disk, in the guest /dev/vda, /dev/vdb, ...; may be given several times. After the file may "
            "follow ,if=virtio|ahci (ahci: /dev/sda, ...) ,ro ,serial=TEXT ,queues=N ,format=raw|qcow2 "
            ",cache=writeback|none|directsync|unsafe "
            ",snapshot (writes are thrown away) ,backing=auto|on|off ,engine=auto|io_uring|threads")
        ->type_name("FILE[,SETTING...]")
        ->allow_extra_args(false);
    command
        ->add_option(
            "--cdrom", typed.cdroms,
            "a CD or DVD in a drive of its own, in the guest /dev/sr0, ...; none is an empty drive; may be "
            "given several times. May be followed by ,serial=TEXT ,format=raw|qcow2 "
            ",engine=auto|io_uring|threads")
        ->type_name("FILE[,SETTING...]")
        ->allow_extra_args(false);
    command
        ->add_option(
            "--net", typed.nets,
            "a network card, on a network of ours (user, which is also what there is without --net), a TAP "
            "interface (tap=NAME) or with other VMs (switch=NAME); may be given several times; none: no "
            "card. "
            "May be followed by ,mac=XX:XX:XX:XX:XX:XX "
            ",model=virtio|ne2000-pci|ne2000-isa ,io=PORT and ,irq=N (ne2000-isa) "
            ",queues=N (tap) and with user ,net=ADDRESS/BITS ,mtu=N ,ipv6=auto|on|off ,restrict=on|off "
            ",host-loopback=on|off ,dns=ADDRESS ,hostname=NAME")
        ->type_name("KIND[,SETTING...]")
        ->allow_extra_args(false);
    command
        ->add_option(
            "-p", typed.forwards,
            "a port of this host, by default of 127.0.0.1, that leads to one of the guest's; may be given "
            "several times, and means --net user if there is no --net")
        ->type_name("[tcp:|udp:][ADDR:]HOST:GUEST")
        ->allow_extra_args(false);
    command
        ->add_option(
            "--balloon", typed.balloon,
            "a device by which the guest gives back SIZE of its memory (0 if left out), and what it does "
            "not use; may be followed by ,deflate-on-oom=on|off ,free-page-reporting=on|off (both on)")
        ->type_name("SIZE[,SETTING...]");
    command->add_flag("--rng", run.rng, "a device that gives the guest the host's random bytes");
    command
        ->add_option(
            "--engine", typed.engine,
            "what executes: auto (default: kvm where it is hardware, else soft), kvm (the host's KVM), soft "
            "(our "
            "own software CPU); kvm may be followed by ,irqchip=kernel|split|user (whose interrupt chips, "
            "kernel) "
            ",nested=on|off (off); soft by ,jit=off (interpret only) ,cache=SIZE (for translated code, 128M) "
            ",check or ,check=N (compare every N-th translated block with the interpreter) ,strict-flags "
            ",count=on|off")
        ->type_name("NAME[,SETTING...]");
    command
        ->add_option("--cpu", typed.cpu,
                     "the processor the guest sees: x86-64-v2, x86-64-v3, max (what the software CPU is if "
                     "nothing is said), "
                     "host (likewise with KVM, and only there)")
        ->type_name("MODEL");
    command->add_flag("--no-reboot", typed.no_reboot,
                      "a reset or triple fault of the guest ends the command");
    command
        ->add_option(
            "--trace", typed.traces,
            "write what the guest does: exec (instructions), int, io, mmio, msr; may be given several times")
        ->type_name("WHAT=FILE")
        ->allow_extra_args(false);
    command->add_flag("--stats", run.statistics,
                      "at the end print what the CPUs did (Ctrl-a s prints it at any time)");
    command->footer(kExitCodes);
    return command;
}

Answer usage_error(std::string_view wrong, std::string_view help) {
    return {.text = fmt::format("tessera: {}\nTry `tessera {}`.\n", wrong, help), .code = ExitCode::Usage};
}

// CLI11 would complain about whatever else is missing before it complains about a word it does not know,
// hence this looks at what it left over.
std::optional<Answer> refuse_words(const CLI::App& app) {
    const auto chosen = app.get_subcommands();
    const auto left = app.remaining(true);
    if (chosen.empty() && left.empty()) return usage_error("say what to do", "help");
    if (left.empty()) return std::nullopt;
    const std::string& word = left.front();
    const bool option = word.starts_with('-');
    if (chosen.empty())
        return usage_error(fmt::format("there is no {} '{}'", option ? "option" : "command", word), "help");
    const std::string& command = chosen.front()->get_name();
    const std::string help = "help " + command;
    if (option) return usage_error(fmt::format("{} has no option '{}'", command, word), help);
    return usage_error(fmt::format("{} takes no argument '{}'", command, word), help);
}

}  // namespace

std::string version_text() {
    return "tessera " TESSERA_VERSION "\n";
}

Command parse_command_line(std::span<const char* const> arguments) {
    CLI::App app("Tessera, a virtual machine monitor with a CPU of its own", "tessera");
    app.require_subcommand(0, 1);
    app.allow_extras();  // see refuse_words
    app.set_version_flag("--version", version_text());
    app.footer("`tessera help COMMAND` tells more about a command.");
    RunOptions run;
    Typed typed;
    std::string topic;
    const CLI::App* run_command = add_run(app, run, typed);
    TypedDisk typed_disk;
    CLI::App* const disk_command = add_disk(app, typed_disk);
    const CLI::App* doctor = app.add_subcommand("doctor", "Say what this host offers and what would be used");
    const CLI::App* version = app.add_subcommand("version", "Print the version");
    CLI::App* help = app.add_subcommand("help", "Print this help, or a command's");
    help->add_option("COMMAND", topic, "the command");
    for (CLI::App* command : app.get_subcommands({})) command->allow_extras();
    for (CLI::App* command : disk_command->get_subcommands({})) command->allow_extras();

    const std::string overview = app.help();  // once a command is chosen this would tell of that one

    // CLI11 takes the words last first.
    std::vector<std::string> words(arguments.rbegin(), arguments.rend());
    try {
        app.parse(std::move(words));
    } catch (const CLI::ParseError& error) {
        std::ostringstream out;
        std::ostringstream err;
        const int code = app.exit(error, out, err);
        if (code == 0) return Answer{out.str(), ExitCode::PoweredOff};
        return usage_error(error.what(), "help run");
    }
    if (auto refused = refuse_words(app)) return *std::move(refused);
    if (*version) return Answer{version_text(), ExitCode::PoweredOff};
    if (*help) {
        if (topic.empty()) return Answer{overview, ExitCode::PoweredOff};
        const auto about =
            app.get_subcommands([&](CLI::App* command) { return command->get_name() == topic; });
        if (about.empty()) return usage_error(fmt::format("there is no command '{}'", topic), "help");
        return Answer{about.front()->help("tessera", CLI::AppFormatMode::All), ExitCode::PoweredOff};
    }
    if (*doctor) return DoctorCommand{};
    if (*disk_command) {
        DiskCommand disk;
        if (const std::string wrong = check_disk_options(*disk_command, typed_disk, disk); !wrong.empty())
            return usage_error(wrong, "help disk");
        return disk;
    }
    if (const std::string wrong = *run_command ? check(typed, run) : std::string(); !wrong.empty())
        return usage_error(wrong, "help run");
    return run;
}

}  // namespace tessera::app
