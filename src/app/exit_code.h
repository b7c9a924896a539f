// What the `tessera` command tells its caller by its exit code. Documented in docs/guides/command.md.
#pragma once

namespace tessera::app {

enum class ExitCode : int {
    PoweredOff = 0,    // the guest switched itself off (or the command did what it was asked to)
    Failed = 1,        // the virtual machine could not go on
    Usage = 2,         // options that make no sense
    UnusableFile = 3,  // a kernel, initrd or trace file that cannot be used
    HostFailure = 4,   // the host lacks something: memory, threads, the engine asked for
    TripleFault = 5,   // under --no-reboot
    Reset = 6,         // under --no-reboot
    Quit = 7,          // Ctrl-a x, or a signal that asks to end
    Mismatch = 8,      // --engine soft,check: translator and interpreter differ
    Damaged = 9,       // disk check: errors that are not repaired
    Leaks = 10,        // disk check: no errors, but clusters that nothing uses
};

}  // namespace tessera::app
