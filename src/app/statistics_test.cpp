#include "app/statistics.h"

#include <gtest/gtest.h>
#include <sstream>

namespace tessera::app {
namespace {

using namespace std::chrono_literals;
constexpr std::chrono::steady_clock::time_point kBegin(1h);

// The words of the line that begins with `name`, without the name.
std::string line(const std::string& table, const std::string& name) {
    std::istringstream text(table);
    for (std::string one; std::getline(text, one);) {
        if (!one.starts_with("  " + name + "  ")) continue;
        std::istringstream words(one.substr(name.size() + 2));
        std::string joined;
        for (std::string word; words >> word;) joined += (joined.empty() ? "" : " ") + word;
        return joined;
    }
    return "no such line";
}

VmStatistics::OneCpu cpu(u64 instructions, u64 running_ns) {
    VmStatistics::OneCpu one;
    one.instructions = instructions;
    one.work.running_ns = running_ns;
    return one;
}

TEST(StatisticsTest, OneCpuHasOneColumn) {
    VmStatistics s{.elapsed_ns = 2'500'000'000,
                   .resets = 3,
                   .first_entry = kBegin + 12'340us,
                   .cpus = {cpu(1'234'567'890, 2'000'000'000)}};
    s.cpus[0].work.asleep_ns = 500'000'000;
    s.cpus[0].work.exits[static_cast<std::size_t>(ExitReason::Halted)] = 4321;
    const std::string table = statistics_table(s, kBegin);
    EXPECT_TRUE(
        table.starts_with("tessera: 2.500 s since the start, 3 resets, first instruction after 12.3 ms\n"))
        << table;
    EXPECT_EQ(line(table, "in the guest"), "2.000 s");
    EXPECT_EQ(line(table, "asleep"), "0.500 s");
    EXPECT_EQ(line(table, "instructions"), "1,234,567,890");
    EXPECT_EQ(line(table, "MIPS while it ran"), "617.3");
    EXPECT_EQ(line(table, "exits: halted"), "4,321");
    EXPECT_EQ(line(table, "exits: kicked"), "no such line") << "nothing to say";
    EXPECT_EQ(table.find("all"), std::string::npos);
}

TEST(StatisticsTest, InstructionsThatAreNotAllAreNoSpeed) {
    VmStatistics s{.elapsed_ns = 1, .resets = 0, .first_entry = {}, .cpus = {cpu(5'000, 1'000'000)}};
    s.cpus[0].all_instructions = false;
    const std::string table = statistics_table(s, kBegin);
    EXPECT_EQ(line(table, "instructions interpreted"), "5,000");
    EXPECT_EQ(line(table, "instructions"), "no such line");
    EXPECT_EQ(line(table, "MIPS while it ran"), "no such line");
}

TEST(StatisticsTest, AGuestThatHasNotBegunHasNoFirstInstruction) {
    EXPECT_TRUE(statistics_table({}, kBegin).starts_with("tessera: 0.000 s since the start, 0 resets\n"));
}

TEST(StatisticsTest, TheProcessBeganBeforeNow) {
    const auto now = std::chrono::steady_clock::now();
    EXPECT_LE(process_begin(), std::chrono::steady_clock::now());
    EXPECT_GT(process_begin(), now - 1h);
}

TEST(StatisticsTest, SeveralCpusHaveAColumnForAll) {
    VmStatistics s{
        .elapsed_ns = 1, .resets = 0, .first_entry = {}, .cpus = {cpu(3'000'000, 1'000'000), cpu(0, 0)}};
    s.cpus[0].engine = {{.name = "blocks", .value = 999},
                        {.name = "code", .value = 3 << 20, .unit = Statistic::Unit::Bytes},
                        {.name = "hits", .value = 90, .unit = Statistic::Unit::Ratio, .whole = 100}};
    s.cpus[1].engine = {{.name = "blocks", .value = 1},
                        {.name = "hits", .value = 0, .unit = Statistic::Unit::Ratio, .whole = 0}};
    const std::string table = statistics_table(s, kBegin);
    EXPECT_EQ(line(table, "instructions"), "3,000,000 0 3,000,000");
    EXPECT_EQ(line(table, "MIPS while it ran"), "3000.0 - 3000.0");
    EXPECT_EQ(line(table, "blocks"), "999 1 1,000");
    EXPECT_EQ(line(table, "code"), "3.0 MiB - 3.0 MiB") << "the second CPU has no such figure";
    EXPECT_EQ(line(table, "hits"), "90.00 % - 90.00 %");
}

TEST(StatisticsTest, AnEngineThatDoesNotCountInstructionsHasNoSuchLine) {
    const std::string table =
        statistics_table({.elapsed_ns = 1, .resets = 0, .first_entry = {}, .cpus = {cpu(0, 5)}}, kBegin);
    EXPECT_EQ(line(table, "instructions"), "no such line");
    EXPECT_EQ(line(table, "MIPS while it ran"), "no such line");
}

TEST(StatisticsTest, ExitsAreShownByReasonWithTheirCost) {
    using enum Statistic::Unit;
    VmStatistics s{
        .elapsed_ns = 1, .resets = 0, .first_entry = {}, .cpus = {cpu(1, 6'000'000), cpu(1, 2'000'000)}};
    s.cpus[0].engine = {{.name = "blocks", .value = 5},
                        {.name = "CPUID", .value = 4, .unit = Exits, .whole = 0},
                        {.name = "never", .value = 0, .unit = Exits, .whole = 0},
                        {.name = "port I/O", .value = 1'000, .unit = Exits, .whole = 1'500'000}};
    s.cpus[1].engine = {{.name = "port I/O", .value = 1'000, .unit = Exits, .whole = 500'000},
                        {.name = "MMIO", .value = 10, .unit = Exits, .whole = 40'000}};
    const std::string table = statistics_table(s, kBegin);
    EXPECT_EQ(line(table, "exits, by reason"), "count ns each of the time");
    EXPECT_EQ(line(table, "port I/O"), "2,000 1,000 25.00 %") << "of both CPUs";
    EXPECT_EQ(line(table, "MMIO"), "10 4,000 0.50 %");
    EXPECT_EQ(line(table, "CPUID"), "4 - -") << "not measured";
    EXPECT_EQ(line(table, "all exits"), "2,014 1,012 25.50 %");
    EXPECT_EQ(line(table, "never"), "no such line");
    EXPECT_EQ(line(table, "blocks"), "5 - 5");
    EXPECT_LT(table.find("port I/O"), table.find("MMIO")) << "the dearest first";
}

}  // namespace
}  // namespace tessera::app
