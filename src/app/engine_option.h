// The value of `--engine`: which engine executes, and how: NAME[,SETTING...]. soft's settings:
//   jit=on|off      translate guest code (on), or interpret it
//   cache=SIZE      memory for translated code, 1M to 1G (128M)
//   check[=N]       run every N-th block (1) in the interpreter too, and stop at the first difference
//   strict-flags    status flags exact also where only a fault handler could see them
//   count=on|off    translated code counts what it does; on with --stats unless said otherwise
// kvm's:
//   irqchip=kernel|split|user   who executes the interrupt chips: KVM, KVM the local APICs only, or Tessera
//   nested=on|off               the guest may use KVM itself, with --cpu host
#pragma once

#include <expected>
#include <string>
#include <string_view>

#include "cpu/soft/soft_cpu.h"
#include "machines/machine.h"

namespace tessera::app {

struct EngineOption {
    EngineChoice engine = EngineChoice::Auto;
    KvmSettings kvm;
    // Model and number of CPUs are other options'.
    soft::SoftCpuConfig soft;
};

// The error names the option, the part that is wrong, and what is possible.
[[nodiscard]] std::expected<EngineOption, std::string> parse_engine(std::string_view text);

}  // namespace tessera::app
