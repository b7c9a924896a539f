// The command line of `tessera`, read and checked; nothing is done yet.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "app/disk_command.h"
#include "app/disk_option.h"
#include "app/engine_option.h"
#include "app/exit_code.h"
#include "app/net_option.h"
#include "app/port_option.h"
#include "base/types.h"
#include "cpu/soft/soft_cpu.h"
#include "machines/machine.h"
#include "vm/vm.h"

namespace tessera::app {

enum class TraceKind : u8 { Exec, Int, Io, Mmio, Msr };

// What the terminal is to the guest.
enum class ConsoleKind : u8 { Serial, Virtio };

struct TraceRequest {
    TraceKind kind;
    std::string path;
};

struct RunOptions {
    std::string kernel;
    std::string initrd;
    std::string cmdline;
    ConsoleKind console = ConsoleKind::Serial;
    u64 memory = 512 * kMiB;
    unsigned cpus = 1;
    KernelStart kernel_start = KernelStart::Auto;
    MachineKind machine = MachineKind::Pc;
    EngineChoice engine = EngineChoice::Auto;
    KvmSettings kvm;
    soft::SoftCpuConfig soft;  // its number of CPUs is not used
    OnReset on_reset = OnReset::Restart;
    std::vector<DiskOption> disks;
    std::vector<CdromOption> cdroms;
    std::vector<NetOption> nets;
    bool rng = false;
    std::optional<BalloonConfig> balloon;
    std::vector<PortOption> ports;
    std::vector<SerialOption> serials;
    std::optional<VsockOption> vsock;
    std::vector<TraceRequest> traces;
    bool statistics = false;  // to be printed at the end
};

struct DoctorCommand {};

// Text to print, and the exit code to end with: help, version, or what is wrong with the options.
struct Answer {
    std::string text;
    ExitCode code;
};

using Command = std::variant<RunOptions, DoctorCommand, DiskCommand, Answer>;

// `arguments` without the program's name.
[[nodiscard]] Command parse_command_line(std::span<const char* const> arguments);

[[nodiscard]] std::string version_text();

}  // namespace tessera::app
