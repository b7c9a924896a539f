// bench_boot [RUNS]: how long a Debian kernel takes to a shell prompt, phase by phase, under Tessera and
// under QEMU's TCG with the same kernel and initramfs, in turn. Prints the best and the median of each phase.
#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;

struct Phase {
    const char* name;
    const char* text;  // what the console shows when it is reached
};
constexpr std::array<Phase, 4> kPhases{{{"first kernel line", "Linux version"},
                                        {"memory and CPUs up", "smp: Brought up"},
                                        {"init started", "Run /init"},
                                        {"shell prompt", "# "}}};
constexpr int kTimeoutSeconds = 180;

struct Boot {
    std::array<double, kPhases.size()> at{};
    bool complete = false;
};

// Runs the command with its output in a pipe, notes when each text first appears, then ends it.
Boot boot(const std::vector<std::string>& command) {
    std::array<int, 2> output{};
    if (::pipe(output.data()) != 0) return {};
    const auto start = Clock::now();
    const pid_t child = ::fork();
    if (child == 0) {
        const int nothing = ::open("/dev/null", O_RDWR | O_CLOEXEC);
        (void)::dup2(nothing, 0);
        (void)::dup2(output[1], 1);
        (void)::dup2(nothing, 2);
        (void)::close(output[0]);
        std::vector<char*> argv;
        for (const auto& word : command) argv.push_back(const_cast<char*>(word.c_str()));
        argv.push_back(nullptr);
        ::execvp(argv[0], argv.data());
        ::_exit(127);
    }
    (void)::close(output[1]);
    Boot result;
    std::string text;
    std::size_t phase = 0, from = 0;
    while (phase < kPhases.size()) {
        pollfd ready{.fd = output[0], .events = POLLIN, .revents = 0};
        if (Clock::now() - start > std::chrono::seconds(kTimeoutSeconds) || ::poll(&ready, 1, 1000) < 0)
            break;
        if (ready.revents == 0) continue;
        std::array<char, 4096> piece{};
        const ssize_t got = ::read(output[0], piece.data(), piece.size());
        if (got <= 0) break;
        text.append(piece.data(), static_cast<std::size_t>(got));
        for (std::size_t found = 0;
             phase < kPhases.size() && (found = text.find(kPhases[phase].text, from)) != std::string::npos;
             ++phase) {
            result.at[phase] = std::chrono::duration<double>(Clock::now() - start).count();
            from = found;
        }
    }
    result.complete = phase == kPhases.size();
    (void)::kill(child, SIGTERM);
    (void)::close(output[0]);
    (void)::waitpid(child, nullptr, 0);
    return result;
}

struct Series {
    const char* name;
    std::vector<std::string> command;
    std::vector<Boot> boots;
};

void print(const Series& series) {
    std::printf("%-10s", series.name);
    for (std::size_t p = 0; p < kPhases.size(); ++p) {
        std::vector<double> times;
        for (const Boot& b : series.boots)
            if (b.complete) times.push_back(b.at[p]);
        if (times.empty()) {
            std::printf("  %24s", "did not get there");
            continue;
        }
        std::ranges::sort(times);
        std::printf("  %10.2f s (med %6.2f)", times.front(), times[times.size() / 2]);
    }
    std::printf("\n");
}

std::string cache_folder() {
    if (const char* xdg = std::getenv("XDG_CACHE_HOME"); xdg != nullptr) return std::string(xdg) + "/tessera";
    const char* home = std::getenv("HOME");
    return std::string(home != nullptr ? home : "") + "/.cache/tessera";
}

}  // namespace

int main(int argc, char** argv) {
    const int runs = argc > 1 ? std::max(1, static_cast<int>(std::strtol(argv[1], nullptr, 10))) : 3;
    const std::string guest = cache_folder() + "/guests/amd64/";
    const char* tessera = std::getenv("TESSERA");
    const std::string cmdline = "console=ttyS0";
    std::vector<Series> all{
        {"tessera",
         {tessera != nullptr ? tessera : TESSERA_BINARY, "run", "--engine", "soft", "--memory", "256M",
          "--kernel", guest + "vmlinuz", "--initrd", guest + "initrd", "--cmdline", cmdline},
         {}},
        {"qemu tcg",
         {"qemu-system-x86_64",
          "-accel",
          "tcg",
          "-cpu",
          "max",
          "-M",
          "microvm,acpi=off",
          "-m",
          "256M",
          "-nodefaults",
          "-no-user-config",
          "-display",
          "none",
          "-serial",
          "stdio",
          "-no-reboot",
          "-kernel",
          guest + "vmlinuz",
          "-initrd",
          guest + "initrd",
          "-append",
          cmdline},
         {}}};
    for (int run = 0; run < runs; ++run)
        for (Series& series : all) {
            series.boots.push_back(boot(series.command));
            std::fprintf(stderr, "\rrun %d of %d: %-10s", run + 1, runs, series.name);
        }
    std::fprintf(stderr, "\r%40s\r", "");
    std::printf("%-10s", "seconds to");
    for (const Phase& phase : kPhases) std::printf("  %25s", phase.name);
    std::printf("\n");
    for (const Series& series : all) print(series);
    return std::ranges::all_of(all.front().boots, &Boot::complete) ? 0 : 1;
}
