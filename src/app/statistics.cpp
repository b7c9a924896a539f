#include "app/statistics.h"

#include <algorithm>
#include <array>
#include <ctime>
#include <fmt/format.h>
#include <functional>
#include <optional>
#include <tuple>

namespace tessera::app {

namespace {

constexpr std::array<const char*, kExitReasons> kExitNames{"kicked",       "halted", "waiting for SIPI",
                                                           "triple fault", "debug",  "failed"};

std::string seconds(u64 ns) {
    return fmt::format("{:.3f} s", static_cast<double>(ns) / 1e9);
}

// 1234567 as 1,234,567.
std::string grouped(u64 value) {
    std::string digits = fmt::format("{}", value);
    for (std::size_t at = digits.size(); at > 3;) digits.insert(at -= 3, ",");
    return digits;
}

std::string text_of(const Statistic& figure) {
    switch (figure.unit) {
        case Statistic::Unit::Count: return grouped(figure.value);
        case Statistic::Unit::Bytes:
            return fmt::format("{:.1f} MiB", static_cast<double>(figure.value) / static_cast<double>(kMiB));
        case Statistic::Unit::Ratio:
            if (figure.whole == 0) return "-";
            return fmt::format("{:.2f} %",
                               100.0 * static_cast<double>(figure.value) / static_cast<double>(figure.whole));
        case Statistic::Unit::Exits: break;  // have a table of their own
    }
    return {};
}

std::string mips(u64 instructions, u64 running_ns) {
    if (running_ns == 0) return "-";
    return fmt::format("{:.1f}", static_cast<double>(instructions) * 1e3 / static_cast<double>(running_ns));
}

class Table {
public:
    void row(std::string_view name, const std::vector<std::string>& cells) {
        text_ += fmt::format("  {:<36}", name);
        for (const std::string& cell : cells) text_ += fmt::format(" {:>17}", cell);
        text_ += '\n';
    }
    // A number for each CPU, and their sum if there are several.
    template <typename Get, typename Text>
    void sums(std::string_view name, const std::vector<VmStatistics::OneCpu>& cpus, Get get, Text text) {
        std::vector<std::string> cells;
        u64 sum = 0;
        for (const auto& cpu : cpus) {
            cells.push_back(text(get(cpu)));
            sum += get(cpu);
        }
        if (cpus.size() > 1) cells.push_back(text(sum));
        row(name, cells);
    }
    [[nodiscard]] std::string take() { return std::move(text_); }

private:
    std::string text_;
};

void add_instructions(Table& table, const std::vector<VmStatistics::OneCpu>& cpus) {
    if (std::ranges::all_of(cpus, [](const auto& cpu) { return cpu.instructions == 0; })) return;
    const bool all = std::ranges::all_of(cpus, &VmStatistics::OneCpu::all_instructions);
    const char* name = all ? "instructions" : "instructions interpreted";
    table.sums(name, cpus, [](const auto& cpu) { return cpu.instructions; }, grouped);
    if (!all) return;
    std::vector<std::string> cells;
    u64 instructions = 0;
    u64 running_ns = 0;
    for (const auto& cpu : cpus) {
        cells.push_back(mips(cpu.instructions, cpu.work.running_ns));
        instructions += cpu.instructions;
        running_ns += cpu.work.running_ns;
    }
    if (cpus.size() > 1) cells.push_back(mips(instructions, running_ns));
    table.row("MIPS while it ran", cells);
}

void add_exits(Table& table, const std::vector<VmStatistics::OneCpu>& cpus) {
    for (std::size_t reason = 0; reason < kExitReasons; ++reason) {
        const auto count = [&](const auto& cpu) { return cpu.work.exits[reason]; };
        if (std::ranges::any_of(cpus, [&](const auto& cpu) { return count(cpu) != 0; }))
            table.sums(fmt::format("exits: {}", kExitNames[reason]), cpus, count, grouped);
    }
}

const Statistic* find(const VmStatistics::OneCpu& cpu, std::string_view name) {
    const auto it = std::ranges::find(cpu.engine, name, &Statistic::name);
    return it == cpu.engine.end() ? nullptr : &*it;
}

// In the order of the first CPU that has the figure.
std::vector<std::string_view> engine_names(const std::vector<VmStatistics::OneCpu>& cpus) {
    std::vector<std::string_view> names;
    for (const auto& cpu : cpus)
        for (const Statistic& figure : cpu.engine)
            if (std::ranges::find(names, figure.name) == names.end()) names.push_back(figure.name);
    return names;
}

void add_engine(Table& table, const std::vector<VmStatistics::OneCpu>& cpus) {
    for (const std::string_view name : engine_names(cpus)) {
        std::vector<std::string> cells;
        cells.reserve(cpus.size() + 1);
        std::optional<Statistic> sum;
        for (const auto& cpu : cpus) {
            const Statistic* figure = find(cpu, name);
            cells.push_back(figure != nullptr ? text_of(*figure) : "-");
            if (figure == nullptr) continue;
            if (!sum) sum = Statistic{.name = name, .unit = figure->unit};
            sum->value += figure->value;
            sum->whole += figure->whole;
        }
        if (sum && sum->unit == Statistic::Unit::Exits) continue;
        if (cpus.size() > 1 && sum) cells.push_back(text_of(*sum));
        table.row(name, cells);
    }
}

// The exits of all CPUs, those that took the most time first; reasons that never came up are not shown.
std::vector<Statistic> exits_of(const std::vector<VmStatistics::OneCpu>& cpus) {
    std::vector<Statistic> exits;
    for (const auto& cpu : cpus)
        for (const Statistic& figure : cpu.engine) {
            if (figure.unit != Statistic::Unit::Exits || figure.value == 0) continue;
            const auto known = std::ranges::find(exits, figure.name, &Statistic::name);
            if (known == exits.end()) {
                exits.push_back(figure);
                continue;
            }
            known->value += figure.value;
            known->whole += figure.whole;
        }
    std::ranges::sort(exits, std::ranges::greater(),
                      [](const Statistic& one) { return std::tuple(one.whole, one.value, one.name); });
    return exits;
}

// Why the CPUs left the guest's code, how often, and what that cost of the time they had.
std::string exits_table(const std::vector<VmStatistics::OneCpu>& cpus) {
    const std::vector<Statistic> exits = exits_of(cpus);
    if (exits.empty()) return {};
    u64 running_ns = 0;
    for (const auto& cpu : cpus) running_ns += cpu.work.running_ns;
    Table table;
    table.row("exits, by reason", {"count", "ns each", "of the time"});
    const auto row = [&](std::string_view name, u64 count, u64 ns) {
        const bool timed = ns != 0;
        table.row(name, {grouped(count), timed ? grouped(ns / count) : "-",
                         timed && running_ns != 0
                             ? fmt::format("{:.2f} %",
                                           100.0 * static_cast<double>(ns) / static_cast<double>(running_ns))
                             : "-"});
    };
    u64 count = 0;
    u64 ns = 0;
    for (const Statistic& one : exits) {
        row(one.name, one.value, one.whole);
        count += one.value;
        ns += one.whole;
    }
    if (exits.size() > 1) row("all exits", count, ns);
    return table.take();
}

}  // namespace

std::chrono::steady_clock::time_point process_begin() {
    timespec used{};
    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
    return std::chrono::steady_clock::now() - std::chrono::seconds(used.tv_sec) -
           std::chrono::nanoseconds(used.tv_nsec);
}

std::string statistics_table(const VmStatistics& statistics, std::chrono::steady_clock::time_point begin) {
    const auto& cpus = statistics.cpus;
    Table table;
    std::vector<std::string> heads;
    heads.reserve(cpus.size() + 1);
    for (std::size_t i = 0; i < cpus.size(); ++i) heads.push_back(fmt::format("CPU {}", i));
    if (cpus.size() > 1) heads.emplace_back("all");
    table.row("", heads);
    table.sums("in the guest", cpus, [](const auto& cpu) { return cpu.work.running_ns; }, seconds);
    table.sums("asleep", cpus, [](const auto& cpu) { return cpu.work.asleep_ns; }, seconds);
    add_instructions(table, cpus);
    add_exits(table, cpus);
    add_engine(table, cpus);
    const std::chrono::duration<double, std::milli> start = statistics.first_entry - begin;
    const bool entered = statistics.first_entry != std::chrono::steady_clock::time_point();
    return fmt::format("tessera: {} since the start, {} resets{}\n{}{}", seconds(statistics.elapsed_ns),
                       statistics.resets,
                       entered ? fmt::format(", first instruction after {:.1f} ms", start.count()) : "",
                       table.take(), exits_table(cpus));
}

}  // namespace tessera::app
