#include "cpu/kvm/probe.h"

#include <gtest/gtest.h>

namespace tessera::kvm {
namespace {

TEST(KvmProbeTest, NamesWhatIsMissing) {
    const Finding finding = probe("/dev/no-such-device");
    EXPECT_EQ(finding.verdict, Verdict::Missing);
    EXPECT_FALSE(finding.usable());
    EXPECT_EQ(finding.detail, "open: No such file or directory");
    EXPECT_TRUE(describe(finding).starts_with("no /dev/kvm: ")) << describe(finding);
}

TEST(KvmProbeTest, ADeviceThatIsNotKvmIsNotUsed) {
    const Finding finding = probe("/dev/null");
    EXPECT_EQ(finding.verdict, Verdict::NotKvm);
    EXPECT_FALSE(finding.usable());
    EXPECT_NE(describe(finding).find("Inappropriate ioctl"), std::string::npos) << describe(finding);
}

// Whatever this host has: what is said fits what was measured.
TEST(KvmProbeTest, TheVerdictFollowsFromTheMeasurement) {
    const Finding finding = probe();
    RecordProperty("finding", describe(finding));
    constexpr double kSlowestHardware = 50e6;
    EXPECT_EQ(finding.usable(),
              finding.rate.value_or(0) >= kSlowestHardware && finding.vectors.value_or(false));
    EXPECT_EQ(finding.rate.has_value(),
              finding.verdict == Verdict::Hardware || finding.verdict == Verdict::Interpreted);
    EXPECT_FALSE(describe(finding).empty());
}

TEST(KvmProbeTest, SaysWhatToDo) {
    const auto text = [](Verdict verdict, bool nested) {
        return describe(
            {.verdict = verdict, .detail = "the cause", .rate = 1.5e6, .vectors = false, .nested = nested});
    };
    EXPECT_NE(text(Verdict::NotPermitted, false).find("group kvm"), std::string::npos);
    EXPECT_NE(text(Verdict::NotPermitted, false).find("the cause"), std::string::npos);
    EXPECT_NE(text(Verdict::Missing, false).find("firmware"), std::string::npos);
    EXPECT_NE(text(Verdict::Missing, true).find("nested virtualization"), std::string::npos);
    EXPECT_NE(text(Verdict::TooOld, false).find("the cause; Linux 5.4"), std::string::npos);
    EXPECT_NE(text(Verdict::Refused, false).find("another hypervisor"), std::string::npos);
    EXPECT_EQ(text(Verdict::Interpreted, true),
              "not hardware, in this virtual machine: 1.5 million instructions a second at CPL 0, vector "
              "instructions there do not work");
    EXPECT_EQ(text(Verdict::Hardware, false), "hardware virtualization");
}

}  // namespace
}  // namespace tessera::kvm
