// bench_start [RUNS]: what it takes from the start of the command to the guest's first instructions, and what
// memory the monitor has then beyond the guest's: for each engine and machine that works here, and QEMU's
// microvm, in turn. The guest (start.asm) has one CPU and 128 MiB and writes a byte to its serial port.
//
// Processor time is that of the process with all its threads, from its fork on. Memory is what Firecracker's
// tests count: what is resident of every mapping but the guest's. Against them stand 8 ms and 5 MiB,
// Firecracker's promises.
#include <algorithm>
#include <array>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <fcntl.h>
#include <fstream>
#include <optional>
#include <poll.h>
#include <spawn.h>
#include <sstream>
#include <string>
#include <sys/wait.h>
#include <unistd.h>
#include <utility>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;
constexpr unsigned long kGuestKib = 128UL * 1024;
constexpr int kPatienceMs = 20'000;

struct Start {
    double cpu_ms = 0;
    double wall_ms = 0;
    unsigned long rss_kib = 0;
    unsigned long pss_kib = 0;
};

// "FROM-TO ..." begins a mapping in smaps; the result is its size in KiB.
std::optional<unsigned long> mapping_kib(const std::string& line) {
    std::istringstream words(line);
    unsigned long from = 0;
    unsigned long to = 0;
    char dash = 0;
    if (!(words >> std::hex >> from >> dash >> to) || dash != '-') return std::nullopt;
    return (to - from) / 1024;
}

// "NAME: KIB kB"; 0 if it is another line.
unsigned long kib_of(const std::string& line, const std::string& name) {
    unsigned long kib = 0;
    if (line.starts_with(name)) std::istringstream(line.substr(name.size())) >> kib;
    return kib;
}

// Of everything but the guest's memory, which is the mapping of its size that is not translated code.
void read_memory(pid_t pid, Start& start) {
    std::ifstream file("/proc/" + std::to_string(pid) + "/smaps");
    bool counts = true;
    for (std::string line; std::getline(file, line);) {
        if (const auto size = mapping_kib(line)) counts = *size != kGuestKib || line.contains("tessera-code");
        if (!counts) continue;
        start.rss_kib += kib_of(line, "Rss:");
        start.pss_kib += kib_of(line, "Pss:");
    }
}

double cpu_ms(pid_t pid) {
    clockid_t clock = 0;
    timespec used{};
    if (clock_getcpuclockid(pid, &clock) != 0 || clock_gettime(clock, &used) != 0) return 0;
    return static_cast<double>(used.tv_sec) * 1e3 + static_cast<double>(used.tv_nsec) / 1e6;
}

// Runs the command until its output has a '!'. `said` is all it wrote.
std::optional<Start> start(const std::vector<std::string>& command, std::string& said) {
    std::array<int, 2> output{};
    if (::pipe2(output.data(), O_CLOEXEC) != 0) return std::nullopt;
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&actions, output[1], 1);
    posix_spawn_file_actions_adddup2(&actions, output[1], 2);
    std::vector<char*> argv;
    argv.reserve(command.size() + 1);
    for (const auto& word : command) argv.push_back(const_cast<char*>(word.c_str()));
    argv.push_back(nullptr);
    pid_t child = 0;
    const auto begin = Clock::now();
    const int error = ::posix_spawnp(&child, argv[0], &actions, nullptr, argv.data(), environ);
    posix_spawn_file_actions_destroy(&actions);
    (void)::close(output[1]);
    std::optional<Start> result;
    while (error == 0) {
        pollfd ready{.fd = output[0], .events = POLLIN, .revents = 0};
        if (::poll(&ready, 1, kPatienceMs) <= 0) break;
        std::array<char, 4096> piece{};
        const ssize_t got = ::read(output[0], piece.data(), piece.size());
        if (got <= 0) break;
        said.append(piece.data(), static_cast<std::size_t>(got));
        if (said.find('!') == std::string::npos) continue;
        result = Start{.cpu_ms = cpu_ms(child),
                       .wall_ms = std::chrono::duration<double, std::milli>(Clock::now() - begin).count()};
        read_memory(child, *result);
        break;
    }
    (void)::close(output[0]);
    if (error != 0) return std::nullopt;
    (void)::kill(child, SIGKILL);
    (void)::waitpid(child, nullptr, 0);
    return result;
}

struct Series {
    std::string name;
    std::vector<std::string> command;
    std::vector<Start> starts{};  // NOLINT(readability-redundant-member-init)
    // By one that did not get there.
    std::string said{};  // NOLINT(readability-redundant-member-init)
};

std::vector<Series> all_series() {
    const char* given = std::getenv("TESSERA");
    const std::string tessera = given != nullptr ? given : TESSERA_BINARY;
    std::vector<Series> all;
    for (const char* engine : {"kvm,irqchip=kernel", "kvm,irqchip=split", "kvm,irqchip=user", "soft"})
        for (const char* machine : {"microvm", "pc"})
            all.push_back({.name = std::string(engine) + " " + machine,
                           .command = {tessera, "run", "--engine", engine, "--machine", machine, "--memory",
                                       "128M", "--no-reboot", "--kernel", START_GUEST}});
    for (const char* accelerator : {"kvm", "tcg"})
        all.push_back({.name = std::string("qemu ") + accelerator + " microvm",
                       .command = {"qemu-system-x86_64", "-accel", accelerator, "-M", "microvm,acpi=off",
                                   "-m", "128M", "-nodefaults", "-no-user-config", "-display", "none",
                                   "-serial", "stdio", "-no-reboot", "-kernel", START_GUEST}});
    return all;
}

template <typename Get>
auto median(const std::vector<Start>& starts, Get get) {
    std::vector<decltype(get(starts.front()))> values;
    values.reserve(starts.size());
    for (const Start& one : starts) values.push_back(get(one));
    std::ranges::sort(values);
    return std::pair(values.front(), values[values.size() / 2]);
}

void print(const Series& series) {
    if (series.starts.empty()) {
        std::istringstream text(series.said);
        std::string line;
        std::getline(text, line);
        std::printf("%-28s  skipped: %s\n", series.name.c_str(), line.c_str());
        return;
    }
    const auto [cpu_best, cpu] = median(series.starts, [](const Start& s) { return s.cpu_ms; });
    const auto [wall_best, wall] = median(series.starts, [](const Start& s) { return s.wall_ms; });
    const auto [rss_best, rss] = median(series.starts, [](const Start& s) { return s.rss_kib; });
    const auto [pss_best, pss] = median(series.starts, [](const Start& s) { return s.pss_kib; });
    std::printf("%-28s %8.1f %8.1f %10.1f %8.1f %10.1f %9.1f\n", series.name.c_str(), cpu, cpu_best, wall,
                wall_best, static_cast<double>(rss) / 1024, static_cast<double>(pss) / 1024);
}

}  // namespace

int main(int argc, char** argv) {
    const int runs = argc > 1 ? std::max(1, static_cast<int>(std::strtol(argv[1], nullptr, 10))) : 9;
    std::vector<Series> all = all_series();
    for (int run = 0; run < runs; ++run)
        for (Series& series : all) {
            if (run != 0 && series.starts.empty()) continue;  // it does not work here
            std::string said;
            if (const auto one = start(series.command, said))
                series.starts.push_back(*one);
            else
                series.said = said;
        }
    std::printf("%-28s %8s %8s %10s %8s %10s %9s\n", "", "CPU ms", "best", "wall ms", "best", "RSS MiB",
                "PSS MiB");
    for (const Series& series : all) print(series);
    return std::ranges::any_of(all, [](const Series& series) { return !series.starts.empty(); }) ? 0 : 1;
}
