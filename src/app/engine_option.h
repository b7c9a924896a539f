// The value of `--engine`: which engine executes, and how: NAME[,SETTING...]. The settings are soft's:
//   jit=on|off      translate guest code (on), or interpret it
//   cache=SIZE      memory for translated code, 1M to 1G (128M)
//   check[=N]       run every N-th block (1) in the interpreter too, and stop at the first difference
//   strict-flags    status flags exact also where only a fault handler could see them
//   count=on|off    translated code counts what it does; on with --stats unless said otherwise
#pragma once

#include <expected>
#include <string>
#include <string_view>

#include "cpu/soft/soft_cpu.h"

namespace tessera::app {

enum class Engine : u8 { Auto, Soft, Kvm };

struct EngineOption {
    Engine engine = Engine::Auto;
    // Model and number of CPUs are other options'.
    soft::SoftCpuConfig soft;
};

// The error names the option, the part that is wrong, and what is possible.
[[nodiscard]] std::expected<EngineOption, std::string> parse_engine(std::string_view text);

}  // namespace tessera::app
