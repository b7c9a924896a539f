#include "app/trace.h"

#include <filesystem>
#include <fstream>
#include <gtest/gtest.h>
#include <sstream>
#include <unistd.h>

namespace tessera::app {
namespace {

std::string contents(const std::string& path) {
    std::stringstream text;
    text << std::ifstream(path).rdbuf();
    return text.str();
}

struct TraceTest : testing::Test {
    ~TraceTest() override { std::filesystem::remove(path); }
    std::unique_ptr<Traces> open(TraceKind kind) {
        const TraceRequest request{.kind = kind, .path = path};
        auto traces = Traces::open(std::span(&request, 1));
        EXPECT_TRUE(traces.has_value());
        return std::move(*traces);
    }
    // ctest runs each test in a process of its own, several at once.
    std::string path = testing::TempDir() + "tessera_trace_test_" + std::to_string(getpid());
};

TEST_F(TraceTest, InstructionsAreDisassembledByMode) {
    // The same two bytes are one thing in 64-bit code and another in 16-bit code.
    constexpr std::array<u8, 2> kBytes{0x48, 0x90};
    EXPECT_NE(disassemble(0x1000, kBytes, 64).find("nop"), std::string::npos);
    EXPECT_NE(disassemble(0x1000, kBytes, 16).find("dec ax"), std::string::npos);
    constexpr std::array<u8, 2> kNothing{0x0f, 0xff};
    EXPECT_FALSE(disassemble(0, std::span(kNothing).first(1), 64).empty());
}

TEST_F(TraceTest, ExecWritesOneLineForEachInstruction) {
    auto traces = open(TraceKind::Exec);
    ASSERT_NE(traces->cpu(), nullptr);
    EXPECT_TRUE(traces->cpu()->instructions);
    EXPECT_FALSE(traces->cpu()->msrs);
    EXPECT_EQ(traces->ports(), nullptr);
    x86::State state = x86::reset_state();
    state.rip = 0x7c00;
    constexpr std::array<u8, 1> kHlt{0xf4};
    traces->cpu()->on_instruction(3, state, kHlt, 16);
    traces.reset();
    EXPECT_EQ(contents(path), "cpu3 f000:0000000000007c00  f4                       hlt\n");
}

TEST_F(TraceTest, PortsNameAddressValueDeviceAndRefusals) {
    auto traces = open(TraceKind::Io);
    EXPECT_EQ(traces->cpu(), nullptr);
    ASSERT_NE(traces->ports(), nullptr);
    constexpr std::array kData{std::byte{0x34}, std::byte{0x12}};
    traces->ports()->on_write(0x3f8, kData, IoStatus::BadWidth, "COM1");
    traces->ports()->on_read(0x60, std::span(kData).first(1), IoStatus::Ok, "i8042");
    traces.reset();
    EXPECT_EQ(contents(path), "write 03f8 0x1234 COM1 (bad width)\nread  0060 0x34 i8042\n");
}

TEST_F(TraceTest, InterruptsAndMsrs) {
    auto traces = open(TraceKind::Int);
    traces->cpu()->on_interrupt(0, CpuTracer::Cause::Exception, 14, 2, 0x10, 0xfff);
    traces->cpu()->on_msr(0, true, 0x10, 5, false);
    traces.reset();
    EXPECT_EQ(contents(path), "cpu0 exception 0x0e error 0x2 at 0010:0000000000000fff\n");
    traces = open(TraceKind::Msr);
    traces->cpu()->on_msr(1, false, 0xc0000080, 0xd01, true);
    traces.reset();
    EXPECT_EQ(contents(path), "cpu1 rdmsr 0xc0000080 0x0000000000000d01 #GP\n");
}

TEST_F(TraceTest, AFileThatCannotBeWrittenIsNamed) {
    const TraceRequest request{.kind = TraceKind::Exec, .path = "/nowhere/at/all"};
    const auto traces = Traces::open(std::span(&request, 1));
    ASSERT_FALSE(traces.has_value());
    EXPECT_NE(traces.error().message.find("/nowhere/at/all"), std::string::npos);
}

}  // namespace
}  // namespace tessera::app
