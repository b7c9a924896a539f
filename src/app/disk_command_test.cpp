// `tessera disk`: what is typed, what it does, what it says.
#include "app/disk_command.h"

#include <array>
#include <gmock/gmock.h>

#include "app/json_text.h"
#include "app/options.h"
#include "backends/block/testing/block_rig.h"

namespace tessera::app {
namespace {

using block::testing_rig::Folder;
using block::testing_rig::pattern;
using ::testing::HasSubstr;

struct Said {
    ExitCode code = ExitCode::PoweredOff;
    std::string out;
    std::string err;
};

// Runs a command line in this process.
Said tessera(const std::vector<std::string>& words) {
    std::vector<const char*> arguments;
    for (const std::string& word : words) arguments.push_back(word.c_str());
    const Command command = parse_command_line(arguments);
    if (const auto* answer = std::get_if<Answer>(&command)) return {answer->code, "", answer->text};
    const auto* disk = std::get_if<DiskCommand>(&command);
    if (disk == nullptr) return {ExitCode::Failed, "", "another command"};
    ::testing::internal::CaptureStdout();
    ::testing::internal::CaptureStderr();
    Said said;
    said.code = run_disk(*disk);
    said.out = ::testing::internal::GetCapturedStdout();
    said.err = ::testing::internal::GetCapturedStderr();
    return said;
}

TEST(DiskCommandTest, ADisksLife) {
    const Folder folder;
    const std::string disk = folder / "disk.qcow2";
    EXPECT_EQ(tessera({"disk", "create", disk, "10M"}).code, ExitCode::PoweredOff);
    EXPECT_THAT(tessera({"disk", "info", disk}).out, HasSubstr("qcow2 disk of 10 MiB (10485760 bytes)"));
    EXPECT_EQ(tessera({"disk", "check", disk}).code, ExitCode::PoweredOff);
    EXPECT_EQ(tessera({"disk", "resize", disk, "+2M"}).code, ExitCode::PoweredOff);
    EXPECT_THAT(tessera({"disk", "info", disk, "--json"}).out, HasSubstr("\"size\":12582912,"));
    const auto shrunk = tessera({"disk", "resize", disk, "1M"});
    EXPECT_EQ(shrunk.code, ExitCode::Usage);
    EXPECT_THAT(shrunk.err, HasSubstr("--shrink"));
    EXPECT_EQ(tessera({"disk", "resize", disk, "1M", "--shrink"}).code, ExitCode::PoweredOff);
    EXPECT_EQ(tessera({"disk", "convert", disk, folder / "copy.img"}).code, ExitCode::PoweredOff);
    EXPECT_EQ(folder.content("copy.img"), std::vector<u8>(kMiB));
    const auto again = tessera({"disk", "convert", disk, folder / "copy.img"});
    EXPECT_THAT(again.err, HasSubstr("exists already"));
    EXPECT_EQ(again.code, ExitCode::HostFailure);
}

TEST(DiskCommandTest, OverlaysAreMadeAndCommitted) {
    const Folder folder;
    ASSERT_EQ(tessera({"disk", "create", folder / "base.qcow2", "4M"}).code, ExitCode::PoweredOff);
    ASSERT_EQ(tessera({"disk", "create", folder / "top.qcow2", "--backing-file", "base.qcow2"}).code,
              ExitCode::PoweredOff);
    const auto info = tessera({"disk", "info", folder / "top.qcow2", "--json"}).out;
    EXPECT_THAT(info, HasSubstr("\"backing_file\":\"base.qcow2\",\"backing_format\":\"qcow2\""));
    EXPECT_THAT(info, HasSubstr("\"size\":4194304,"));
    EXPECT_EQ(tessera({"disk", "commit", folder / "top.qcow2"}).code, ExitCode::PoweredOff);
    const auto none = tessera({"disk", "create", folder / "other.qcow2", "--backing-file", "missing.qcow2"});
    EXPECT_EQ(none.code, ExitCode::UnusableFile);
    EXPECT_FALSE(std::filesystem::exists(folder / "other.qcow2"));
}

TEST(DiskCommandTest, CheckTellsDamageFromLeaksByItsExitCode) {
    const Folder folder;
    const std::string disk = folder / "disk.qcow2";
    ASSERT_EQ(tessera({"disk", "create", disk, "1M"}).code, ExitCode::PoweredOff);
    auto bytes = folder.content("disk.qcow2");
    // The refcount block is the third cluster; the fifth and later clusters of the file do not exist.
    bytes[2 * 65536 + 2 * 10 + 1] = 1;
    (void)folder.file("disk.qcow2", bytes);
    EXPECT_EQ(tessera({"disk", "check", disk}).code, ExitCode::Leaks);
    EXPECT_EQ(tessera({"disk", "check", "-r", "leaks", disk}).code, ExitCode::PoweredOff);
    EXPECT_EQ(tessera({"disk", "check", disk}).code, ExitCode::PoweredOff);
    bytes[2 * 65536 + 1] = 0;  // the header's own count
    (void)folder.file("disk.qcow2", bytes);
    EXPECT_EQ(tessera({"disk", "check", disk}).code, ExitCode::Damaged);
    EXPECT_EQ(tessera({"disk", "check", "-r", "all", disk}).code, ExitCode::PoweredOff);
    EXPECT_THAT(tessera({"disk", "check", disk, "--json"}).out, HasSubstr("\"corruptions\":0,\"leaks\":0,"));
}

TEST(DiskCommandTest, BadUsageSaysWhatIsPossible) {
    const Folder folder;
    const std::vector<std::pair<std::vector<std::string>, const char*>> cases{
        {{"disk"}, "create, info, convert, check, resize, commit"},
        {{"disk", "info"}, "say which file"},
        {{"disk", "melt", "x"}, "melt"},
        {{"disk", "create", "x"}, "say how large"},
        {{"disk", "create", "x", "much"}, "give a size such as 10G"},
        {{"disk", "create", "x", "100B"}, "give a size such as 10G"},
        {{"disk", "create", "x", "1G", "--format", "vmdk"}, "choose one of raw, qcow2"},
        {{"disk", "create", "x.img", "1G", "--cluster-size", "64K"}, "add --format qcow2"},
        {{"disk", "create", "x.qcow2", "1G", "--format", "raw"}, "must not be called"},
        {{"disk", "create", "x.qcow2", "1G", "--preallocate"}, "for raw disks"},
        {{"disk", "create", "x.qcow2", "1G", "--refcount-bits", "5"}, "choose one of 1, 2, 4"},
        {{"disk", "convert", "x"}, "say where the copy goes"},
        {{"disk", "check", "x", "-r", "some"}, "choose one of leaks, all"},
        {{"disk", "check", "x", "--progress", "loud"}, "choose one of auto, json, none"},
        {{"disk", "info", "x", "--colour"}, "--colour"},
    };
    for (const auto& [words, expected] : cases) {
        const Said said = tessera(words);
        EXPECT_EQ(said.code, ExitCode::Usage) << said.err;
        EXPECT_THAT(said.err, HasSubstr(expected));
    }
    const auto shape = tessera({"disk", "create", folder / "x.qcow2", "1G", "--cluster-size", "100K"});
    EXPECT_EQ(shape.code, ExitCode::Usage);
    EXPECT_THAT(shape.err, HasSubstr("power of two"));
    EXPECT_FALSE(std::filesystem::exists(folder / "x.qcow2"));
    const auto missing = tessera({"disk", "info", folder / "none"});
    EXPECT_EQ(missing.code, ExitCode::UnusableFile);
    EXPECT_THAT(missing.err, HasSubstr("no such file"));
}

TEST(DiskCommandTest, SizesAreSectorsAndMayBeRelative) {
    EXPECT_EQ(disk_size_of("10G", 0), 10 * kGiB);
    EXPECT_EQ(disk_size_of("4096B", 0), 4096U);
    EXPECT_EQ(disk_size_of("+1K", 1024), 2048U);
    EXPECT_EQ(disk_size_of("-1K", 2048), 1024U);
    EXPECT_EQ(disk_size_of("-2K", 2048), std::nullopt);
    EXPECT_EQ(disk_size_of("100B", 0), std::nullopt);
    EXPECT_EQ(disk_size_of("B", 0), std::nullopt);
    EXPECT_EQ(disk_size_of("+", 0), std::nullopt);
    EXPECT_EQ(disk_size_of("", 0), std::nullopt);
}

TEST(ProgressTest, ABarShowsShareRateAndTimeLeft) {
    EXPECT_EQ(ProgressBar::bar("convert", 512 * kMiB, kGiB, 4),
              "convert [############------------]  50%  512 MiB of 1 GiB, 128 MiB/s, 0:04 left");
    EXPECT_EQ(ProgressBar::bar("check", 0, 0, 0),
              "check [########################] 100%  0 bytes of 0 bytes, 0 bytes/s, 0:00 left");
    EXPECT_EQ(ProgressBar::json("convert", 512, 1024, 2),
              R"({"command":"convert","done":512,"total":1024,"bytes_per_second":256,"seconds_left":2.0})");
}

TEST(ProgressTest, StringsOfOthersAreSafeInJson) {
    EXPECT_EQ(json_string("a\"b\\c\n\x1b"), R"("a\"b\\c\u000a\u001b")");
}

TEST(DiskCommandTest, JsonProgressIsALineEach) {
    const Folder folder;
    (void)folder.file("disk.img", pattern(4 * kMiB, 1));
    const auto said =
        tessera({"disk", "convert", folder / "disk.img", folder / "copy.qcow2", "--progress", "json"});
    EXPECT_EQ(said.code, ExitCode::PoweredOff) << said.err;
    EXPECT_THAT(said.out, HasSubstr("\"done\":4194304,\"total\":4194304,"));
}

}  // namespace
}  // namespace tessera::app
