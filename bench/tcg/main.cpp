// guestbench: what a processor, real or emulated, gets done per second, by kind of work. One line for each
// row: name, work per second and unit, with tabs between. Time is the CLOCK_MONOTONIC of the machine it runs
// on. Every round's checksum is compared with the known one; a row that ever differs says WRONG instead of a
// number.
//
//   guestbench [--seconds S] [--best-of N] [--only NAME,NAME...] [--list]
//   guestbench --tsc-khz      prints the frequency of the time stamp counter
//
// Exit code: 0 all right, 1 a row was wrong, 2 bad usage.
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <sched.h>
#include <string_view>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include <x86intrin.h>

#include "row.h"

namespace tessera::guestbench {
namespace {

struct Options {
    double seconds = 0.3;  // a measurement lasts at least this long
    int best_of = 3;
    std::string_view only;
    bool list = false;
};

enum class Outcome { Measured, Wrong, Skipped };

struct Result {
    Outcome outcome = Outcome::Skipped;
    double per_second = 0;
    u64 seen = 0;  // the first wrong checksum
};

double now() {
    timespec time{};
    (void)clock_gettime(CLOCK_MONOTONIC, &time);
    return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

// Runs `rounds` rounds; false when one of them was wrong.
bool run(const Row& row, u64 rounds, Result& result) {
    for (u64 i = 0; i < rounds; ++i)
        if (const u64 seen = row.round(); seen != row.expected) {
            result = {.outcome = Outcome::Wrong, .per_second = 0, .seen = seen};
            return false;
        }
    return true;
}

// Doubles the rounds until they last long enough, then takes the best of some measurements.
Result measure(const Row& row, const Options& options) {
    Result result;
    u64 rounds = 1;
    for (int taken = 0; taken < options.best_of;) {
        const double start = now();
        if (!run(row, rounds, result)) return result;
        const double took = now() - start;
        if (took < options.seconds) {
            // A little more than seems needed, but never a big jump from a short, imprecise time.
            const double factor = took > 0 ? 1.1 * options.seconds / took : 8;
            rounds = static_cast<u64>(static_cast<double>(rounds) * (factor > 8 ? 8 : factor)) + 1;
            if (took < 0.9 * options.seconds) continue;
        }
        const double per_second = row.work * static_cast<double>(rounds) / took;
        if (per_second > result.per_second) result = {Outcome::Measured, per_second, 0};
        ++taken;
    }
    return result;
}

// What the working processes tell the one that waits for them.
struct Report {
    double begin, end;
    u64 rounds, wrong, seen;
};

void work(const Row& row, double start, double seconds, Report& report) {
    while (now() < start) {
    }
    report.begin = now();
    do {
        for (int i = 0; i < 16; ++i, ++report.rounds)
            if (const u64 seen = row.round(); seen != row.expected) {
                report.wrong = 1;
                report.seen = seen;
            }
        report.end = now();
    } while (report.end < report.begin + seconds);
}

// The sum over processes that work at the same time, each as long as the row says.
Result measure_processes(const Row& row, const Options& options) {
    cpu_set_t allowed;
    if (sched_getaffinity(0, sizeof allowed, &allowed) != 0 || CPU_COUNT(&allowed) < row.processes) return {};
    const std::size_t size = sizeof(Report) * static_cast<std::size_t>(row.processes);
    void* shared = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED) return {};
    auto* reports = static_cast<Report*>(shared);
    Result best;
    for (int taken = 0; taken < options.best_of && best.outcome != Outcome::Wrong; ++taken) {
        std::memset(shared, 0, size);
        const double start = now() + 0.02;
        for (int i = 0; i < row.processes; ++i)
            if (fork() == 0) {
                work(row, start, options.seconds, reports[i]);
                _exit(0);
            }
        for (int i = 0; i < row.processes; ++i) (void)wait(nullptr);
        double sum = 0;
        for (int i = 0; i < row.processes; ++i) {
            const Report& report = reports[i];
            if (report.rounds == 0) return {};  // it could not be started, or was killed
            if (report.wrong != 0) best = {.outcome = Outcome::Wrong, .per_second = 0, .seen = report.seen};
            sum += row.work * static_cast<double>(report.rounds) / (report.end - report.begin);
        }
        if (best.outcome != Outcome::Wrong && sum > best.per_second) best = {Outcome::Measured, sum, 0};
    }
    (void)munmap(shared, size);
    return best;
}

// Whether `name` is one of the comma-separated `names`; no names mean all.
bool chosen(std::string_view name, std::string_view names) {
    if (names.empty()) return true;
    while (!names.empty()) {
        const std::size_t comma = names.find(',');
        if (names.substr(0, comma) == name) return true;
        names = comma == std::string_view::npos ? std::string_view() : names.substr(comma + 1);
    }
    return false;
}

Result run_row(const Row& row, const Options& options) {
    if (row.processes > 0) return measure_processes(row, options);
    if (row.prepare != nullptr && !row.prepare()) return {};
    const Result result = measure(row, options);
    if (row.finish != nullptr) row.finish();
    return result;
}

void print(const Row& row, const Result& result) {
    switch (result.outcome) {
        case Outcome::Measured: std::printf("%s\t%.6g\t%s\n", row.name, result.per_second, row.unit); break;
        case Outcome::Skipped: std::printf("%s\tSKIPPED\t%s\n", row.name, row.unit); break;
        case Outcome::Wrong:
            std::printf("%s\tWRONG\t%s\t%#" PRIx64 " instead of %#" PRIx64 "\n", row.name, row.unit,
                        result.seen, row.expected);
            break;
    }
    (void)std::fflush(stdout);
}

int run_all(const Options& options) {
    int wrong = 0;
    for (const auto rows :
         {integer_rows(), mark_rows(), call_rows(), float_rows(), fma_rows(), memory_rows(), system_rows()})
        for (const Row& row : rows) {
            if (!chosen(row.name, options.only)) continue;
            if (options.list) {
                std::printf("%s\t%s\n", row.name, row.unit);
                continue;
            }
            const Result result = run_row(row, options);
            print(row, result);
            wrong += result.outcome == Outcome::Wrong ? 1 : 0;
        }
    return wrong == 0 ? 0 : 1;
}

// Over a quarter of a second; the two clocks are read within a microsecond of each other.
int print_tsc_khz() {
    const double start = now();
    const u64 first = __rdtsc();
    double took = 0;
    while ((took = now() - start) < 0.25) {
    }
    std::printf("%.0f\n", static_cast<double>(__rdtsc() - first) / took / 1e3);
    return 0;
}

int usage() {
    (void)std::fputs(
        "usage: guestbench [--seconds S] [--best-of N] [--only NAME,NAME...] [--list] | --tsc-khz\n", stderr);
    return 2;
}

int run(int argc, char** argv) {
    Options options;
    for (int i = 1; i < argc; ++i) {
        const std::string_view word = argv[i];
        const char* value = i + 1 < argc ? argv[i + 1] : nullptr;
        if (word == "--list") {
            options.list = true;
            continue;
        }
        if (word == "--tsc-khz") return print_tsc_khz();
        if (value == nullptr) return usage();
        ++i;
        if (word == "--exit") return static_cast<int>(std::strtol(value, nullptr, 10));  // the row "spawn"
        if (word == "--seconds") {
            options.seconds = std::strtod(value, nullptr);
        } else if (word == "--best-of") {
            options.best_of = static_cast<int>(std::strtol(value, nullptr, 10));
        } else if (word == "--only") {
            options.only = value;
        } else {
            return usage();
        }
    }
    if (!(options.seconds > 0 && options.seconds <= 60) || options.best_of < 1 || options.best_of > 100)
        return usage();
    return run_all(options);
}

}  // namespace
}  // namespace tessera::guestbench

int main(int argc, char** argv) {
    return tessera::guestbench::run(argc, argv);
}
