// The command line of `tessera`, read and checked; nothing is done yet.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "app/exit_code.h"
#include "base/types.h"
#include "cpu/soft/soft_cpu.h"
#include "machines/machine.h"
#include "vm/vm.h"

namespace tessera::app {

enum class Engine : u8 { Auto, Soft, Kvm };
enum class TraceKind : u8 { Exec, Int, Io, Mmio, Msr };

struct TraceRequest {
    TraceKind kind;
    std::string path;
};

struct RunOptions {
    std::string kernel;
    std::string initrd;
    std::string cmdline = "console=ttyS0";
    u64 memory = 512 * kMiB;
    unsigned cpus = 1;
    MachineKind machine = MachineKind::Pc;
    Engine engine = Engine::Auto;
    soft::CpuModel cpu = soft::CpuModel::Max;
    OnReset on_reset = OnReset::Restart;
    std::vector<TraceRequest> traces;
};

struct DoctorCommand {};

// Text to print, and the exit code to end with: help, version, or what is wrong with the options.
struct Answer {
    std::string text;
    ExitCode code;
};

using Command = std::variant<RunOptions, DoctorCommand, Answer>;

// `arguments` without the program's name.
[[nodiscard]] Command parse_command_line(std::span<const char* const> arguments);

// "512M", "1G", "65536K"; a number alone counts MiB. Nothing if it is no size, 0, or beyond 2^63.
[[nodiscard]] std::optional<u64> parse_size(std::string_view text);

[[nodiscard]] std::string version_text();

}  // namespace tessera::app
