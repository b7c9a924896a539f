#include "app/options.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

namespace tessera::app {
namespace {

Command parse(std::vector<const char*> arguments) {
    return parse_command_line(arguments);
}

RunOptions run_options(std::vector<const char*> arguments) {
    const Command command = parse(std::move(arguments));
    if (const auto* answer = std::get_if<Answer>(&command)) ADD_FAILURE() << answer->text;
    return std::holds_alternative<RunOptions>(command) ? std::get<RunOptions>(command) : RunOptions{};
}

// The message for options that have to be refused.
std::string refusal(std::vector<const char*> arguments) {
    const Command command = parse(std::move(arguments));
    const auto* answer = std::get_if<Answer>(&command);
    if (answer == nullptr) return "accepted";
    EXPECT_EQ(answer->code, ExitCode::Usage);
    return answer->text;
}

TEST(OptionsTest, RunNeedsOnlyAKernel) {
    const RunOptions run = run_options({"run", "--kernel", "bzImage"});
    EXPECT_EQ(run.kernel, "bzImage");
    EXPECT_EQ(run.initrd, "");
    EXPECT_EQ(run.cmdline, "console=ttyS0");
    EXPECT_EQ(run.memory, u64{512} << 20);
    EXPECT_EQ(run.cpus, 1U);
    EXPECT_EQ(run.machine, MachineKind::Pc);
    EXPECT_EQ(run.kernel_start, KernelStart::Auto);
    EXPECT_EQ(run.engine, EngineChoice::Auto);
    EXPECT_EQ(run.on_reset, OnReset::Restart);
    EXPECT_FALSE(run.statistics);
    EXPECT_NE(refusal({"run"}).find("--kernel"), std::string::npos);
}

TEST(OptionsTest, EveryOptionArrives) {
    const RunOptions run = run_options({"run",
                                        "--kernel=k",
                                        "--initrd",
                                        "i",
                                        "--cmdline",
                                        "console=ttyS0 quiet",
                                        "--memory",
                                        "2G",
                                        "--cpus",
                                        "4",
                                        "--machine",
                                        "microvm",
                                        "--engine",
                                        "soft,cache=2M",
                                        "--cpu",
                                        "x86-64-v2",
                                        "--no-reboot",
                                        "--stats",
                                        "--kernel-entry=stub",
                                        "--trace",
                                        "exec=a",
                                        "--trace",
                                        "io=b=c"});
    EXPECT_EQ(run.initrd, "i");
    EXPECT_EQ(run.cmdline, "console=ttyS0 quiet");
    EXPECT_EQ(run.memory, u64{2} << 30);
    EXPECT_EQ(run.cpus, 4U);
    EXPECT_EQ(run.machine, MachineKind::Microvm);
    EXPECT_EQ(run.kernel_start, KernelStart::Stub);
    EXPECT_EQ(run.engine, EngineChoice::Soft);
    EXPECT_EQ(run.soft.model, soft::CpuModel::X86_64_V2);
    EXPECT_EQ(run.on_reset, OnReset::End);
    EXPECT_TRUE(run.statistics);
    ASSERT_EQ(run.traces.size(), 2U);
    EXPECT_EQ(run.traces[0].kind, TraceKind::Exec);
    EXPECT_EQ(run.traces[1].path, "b=c");
}

TEST(OptionsTest, RefusalsNameTheOptionTheValueAndWhatIsPossible) {
    const auto refused = [](const char* option, const char* value, const char* possible) {
        const std::string text = refusal({"run", "--kernel", "k", option, value});
        EXPECT_NE(text.find(option), std::string::npos) << text;
        EXPECT_NE(text.find(value), std::string::npos) << text;
        EXPECT_NE(text.find(possible), std::string::npos) << text;
    };
    refused("--memory", "lots", "512M");
    refused("--memory", "1M", "16M");
    refused("--memory", "65537K", "whole MiB");
    refused("--memory", "999999999999999999999G", "512M");
    refused("--cpus", "0", "1 to 254");
    refused("--cpus", "2x", "1 to 254");
    refused("--machine", "vax", "microvm");
    refused("--kernel-entry", "window", "direct");
    refused("--engine", "steam", "soft");
    refused("--cpu", "386", "x86-64-v3");
    refused("--trace", "exec", "WHAT=FILE");
    refused("--trace", "sound=f", "mmio");
}

TEST(OptionsTest, WhatAnEngineCannotDoIsRefused) {
    const auto refused = [](std::vector<const char*> arguments, const char* option, const char* why) {
        arguments.insert(arguments.begin(), {"run", "--kernel", "k"});
        const std::string text = refusal(std::move(arguments));
        EXPECT_NE(text.find(option), std::string::npos) << text;
        EXPECT_NE(text.find(why), std::string::npos) << text;
    };
    refused({"--engine", "kvm", "--trace", "exec=f"}, "--engine kvm", "software CPU");
    refused({"--cpu", "host", "--trace", "int=f"}, "--cpu host", "software CPU");
    refused({"--engine", "soft", "--cpu", "host"}, "--cpu host", "x86-64-v3");
    EXPECT_TRUE(run_options({"run", "--kernel", "k", "--engine", "kvm", "--trace", "io=f"}).kvm.level ==
                std::nullopt);
    EXPECT_EQ(run_options({"run", "--kernel", "k", "--cpu", "x86-64-v2"}).kvm.level, x86::FeatureLevel::V2);
    EXPECT_TRUE(run_options({"run", "--kernel", "k", "--engine", "kvm", "--cpu", "host"}).kvm.host_cpu);
}

TEST(OptionsTest, UnknownOptionsAndCommandsAreUsageErrors) {
    // Whatever else is missing: the unknown word is what is named, with where to look.
    const auto refused = [](std::vector<const char*> arguments, const char* word, const char* advice) {
        const std::string text = refusal(std::move(arguments));
        EXPECT_NE(text.find(word), std::string::npos) << text;
        EXPECT_NE(text.find(advice), std::string::npos) << text;
    };
    refused({"run", "--kernel", "k", "--frobnicate"}, "'--frobnicate'", "`tessera help run`");
    refused({"run", "--frobnicate"}, "'--frobnicate'", "`tessera help run`");
    refused({"run", "--frobnicate=7", "--kernel", "k"}, "--frobnicate", "`tessera help run`");
    refused({"run", "vmlinuz"}, "'vmlinuz'", "`tessera help run`");
    refused({"run", "--kernel", "k", "help"}, "'help'", "`tessera help run`");
    refused({"run", "--kernel", "k", "--", "more"}, "'more'", "`tessera help run`");
    refused({"run", "--kernel"}, "--kernel", "`tessera help run`");
    refused({"run", "--cpus", "2"}, "--kernel FILE", "`tessera help run`");
    refused({"frobnicate"}, "'frobnicate'", "`tessera help`");
    refused({"frobnicate", "--kernel", "k"}, "'frobnicate'", "`tessera help`");
    refused({"--frobnicate"}, "'--frobnicate'", "`tessera help`");
    refused({"doctor", "who"}, "'who'", "`tessera help doctor`");
    refused({"help", "frobnicate"}, "'frobnicate'", "`tessera help`");
    refused({}, "say what to do", "`tessera help`");
}

TEST(OptionsTest, HelpAndVersionSucceed) {
    for (const std::vector<const char*>& arguments : std::vector<std::vector<const char*>>{
             {"help"}, {"--help"}, {"help", "run"}, {"run", "--help"}, {"version"}, {"--version"}}) {
        const Command command = parse(arguments);
        ASSERT_TRUE(std::holds_alternative<Answer>(command)) << arguments[0];
        EXPECT_EQ(std::get<Answer>(command).code, ExitCode::PoweredOff);
        EXPECT_FALSE(std::get<Answer>(command).text.empty());
    }
    EXPECT_NE(std::get<Answer>(parse({"help"})).text.find("doctor"), std::string::npos);
    EXPECT_NE(std::get<Answer>(parse({"help", "run"})).text.find("--no-reboot"), std::string::npos);
    EXPECT_TRUE(std::get<Answer>(parse({"version"})).text.starts_with("tessera "));
}

TEST(OptionsTest, PortsGoToTheFirstUserNetwork) {
    EXPECT_TRUE(run_options({"run", "--kernel=k"}).nets[0].backend.forwards.empty());
    const RunOptions ports = run_options({"run", "--kernel=k", "-p", "2222:22", "-p", "udp:53:53"});
    ASSERT_EQ(ports.nets.size(), 1U);
    EXPECT_EQ(ports.nets[0].backend.kind, net::NetKind::User);
    EXPECT_EQ(ports.nets[0].backend.forwards.size(), 2U);
    const RunOptions two =
        run_options({"run", "--kernel=k", "--net", "tap=tap0", "--net", "user", "-p", "2222:22"});
    ASSERT_EQ(two.nets.size(), 2U);
    EXPECT_TRUE(two.nets[0].backend.forwards.empty());
    EXPECT_EQ(two.nets[1].backend.forwards.size(), 1U);
    EXPECT_NE(refusal({"run", "--kernel=k", "--net", "tap=tap0", "-p", "1:1"}).find("--net user"),
              std::string::npos);
}

TEST(OptionsTest, WithoutNetThereIsOneUserNetworkThatStartsWhenUsed) {
    for (const char* machine : {"pc", "microvm"}) {
        const auto nets = run_options({"run", "--kernel=k", "--machine", machine}).nets;
        ASSERT_EQ(nets.size(), 1U);
        EXPECT_EQ(nets[0].backend.kind, net::NetKind::User);
        EXPECT_EQ(nets[0].model, NetModel::Virtio);
        EXPECT_EQ(nets[0].backend.start, net::Start::WhenUsed);
    }
    const auto asked = run_options({"run", "--kernel=k", "--net", "user"}).nets;
    ASSERT_EQ(asked.size(), 1U);
    EXPECT_EQ(asked[0].backend.start, net::Start::AtOnce) << "what was asked for is checked";
    EXPECT_EQ(run_options({"run", "--kernel=k", "-p", "1:1"}).nets[0].backend.start, net::Start::AtOnce);
    EXPECT_EQ(run_options({"run", "--kernel=k", "--net", "tap=t"}).nets.size(), 1U);
}

TEST(OptionsTest, NetNoneMeansNoCardAndStandsAlone) {
    EXPECT_TRUE(run_options({"run", "--kernel=k", "--net", "none"}).nets.empty());
    EXPECT_NE(refusal({"run", "--kernel=k", "--net", "none", "--net", "user"}).find("without a card"),
              std::string::npos);
    EXPECT_NE(refusal({"run", "--kernel=k", "--net", "none", "--net", "none"}).find("without a card"),
              std::string::npos);
    EXPECT_NE(refusal({"run", "--kernel=k", "--net", "none", "-p", "1:1"}).find("leave --net none out"),
              std::string::npos);
    EXPECT_NE(refusal({"run", "--kernel=k", "--net", "none,mac=52:54:00:12:34:56"}).find("none, alone"),
              std::string::npos);
}

TEST(OptionsTest, TheDefaultCardLeavesMicrovmsEightPlacesToWhatWasAskedFor) {
    std::vector<const char*> arguments{"run",       "--kernel=k", "--machine=microvm", "--rng",
                                       "--balloon", "0",          "--vsock",           "cid=3,path=p"};
    for (int disk = 0; disk < 4; ++disk) arguments.insert(arguments.end(), {"--disk", "d"});
    EXPECT_EQ(run_options(arguments).nets.size(), 1U) << "seven devices and the card";
    arguments.insert(arguments.end(), {"--disk", "d"});
    EXPECT_TRUE(run_options(arguments).nets.empty());
    arguments[2] = "--machine=pc";
    EXPECT_EQ(run_options(arguments).nets.size(), 1U);
}

TEST(OptionsTest, ABalloonHasASizeAndSettings) {
    EXPECT_FALSE(run_options({"run", "--kernel=k"}).balloon);
    const auto sized = run_options({"run", "--kernel=k", "--balloon", "64M,deflate-on-oom=off"}).balloon;
    ASSERT_TRUE(sized);
    EXPECT_EQ(sized->target, u64{64} << 20);
    EXPECT_FALSE(sized->deflate_on_oom);
    EXPECT_TRUE(sized->free_page_reporting);
    const auto unsized = run_options({"run", "--kernel=k", "--balloon", "free-page-reporting=off"}).balloon;
    ASSERT_TRUE(unsized);
    EXPECT_EQ(unsized->target, 0U);
    EXPECT_FALSE(unsized->free_page_reporting);
    const auto nothing = run_options({"run", "--kernel=k", "--balloon", "0"}).balloon;
    ASSERT_TRUE(nothing);
    EXPECT_EQ(nothing->target, 0U);
    EXPECT_NE(refusal({"run", "--kernel=k", "--balloon", "512M"}).find("less than the memory"),
              std::string::npos);
    EXPECT_NE(refusal({"run", "--kernel=k", "--balloon", "0,x=y"}).find("x=y"), std::string::npos);
}

TEST(OptionsTest, TheConsoleDecidesWhereTheKernelSpeaks) {
    EXPECT_EQ(run_options({"run", "--kernel=k"}).console, ConsoleKind::Serial);
    const RunOptions run = run_options({"run", "--kernel=k", "--console", "virtio"});
    EXPECT_EQ(run.console, ConsoleKind::Virtio);
    EXPECT_EQ(run.cmdline, "console=hvc0");
    EXPECT_EQ(run_options({"run", "--kernel=k", "--console=virtio", "--cmdline", "quiet"}).cmdline, "quiet");
    EXPECT_NE(refusal({"run", "--kernel=k", "--console", "vga"}).find("serial, virtio"), std::string::npos);
}

TEST(OptionsTest, PortsHaveDifferentNamesAndSerialCardsNeedPci) {
    const RunOptions run = run_options(
        {"run", "--kernel=k", "--port", "name=a,path=p", "--port", "name=b,path=q", "--serial", "path=r"});
    ASSERT_EQ(run.ports.size(), 2U);
    EXPECT_EQ(run.ports[1].name, "b");
    ASSERT_EQ(run.serials.size(), 1U);
    EXPECT_EQ(run.serials[0].path, "r");
    EXPECT_NE(refusal({"run", "--kernel=k", "--port", "name=a,path=p", "--port", "name=a,path=q"})
                  .find("name already"),
              std::string::npos);
    EXPECT_NE(refusal({"run", "--kernel=k", "--machine=microvm", "--serial", "path=r"}).find("--machine pc"),
              std::string::npos);
    std::vector<std::string> many = {"run", "--kernel=k"};
    for (unsigned i = 0; i < 16; ++i) many.push_back(fmt::format("--port=name=n{},path=p", i));
    std::vector<const char*> words;
    for (const std::string& word : many) words.push_back(word.c_str());
    const Command command = parse_command_line(words);
    ASSERT_TRUE(std::holds_alternative<Answer>(command));
    EXPECT_NE(std::get<Answer>(command).text.find("at most 15"), std::string::npos);
}

}  // namespace
}  // namespace tessera::app
