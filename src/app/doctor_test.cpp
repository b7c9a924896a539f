#include "app/doctor.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include "cpu/soft/host_support.h"

namespace tessera::app {
namespace {

TEST(DoctorTest, SaysWhatTheHostHasAndWhatWouldBeUsed) {
    const std::string report = doctor_report("/bin/false");  // not this program, which would test itself
    for (const char* row :
         {"\nprocessor ", "\nmemory ", "\ntime ", "\nKVM ", "\ninstructions  x86-64-v3", "\ncode memory   ",
          "\nnetwork       no user-mode network: ", "\nengine        soft"})
        EXPECT_NE(report.find(row), std::string::npos) << row << " missing in\n" << report;
}

TEST(DoctorTest, TheEngineFollowsFromWhatTheHostGrants) {
    const Status refused = fail(Errc::HostFailure, "an executable mapping: Permission denied");
    EXPECT_TRUE(engine_verdict(true, "", refused).starts_with("kvm"));
    EXPECT_TRUE(engine_verdict(false, "", {}).starts_with("soft, the software CPU, with its translator"));
    EXPECT_TRUE(engine_verdict(false, "", refused).starts_with("soft, by the interpreter"));
    EXPECT_TRUE(engine_verdict(false, "avx2", {}).starts_with("none"));
}

TEST(DoctorTest, NamesTheLayersThatTheHostRefuses) {
    const std::string good = network_verdict("namespaces: user, PID\nsystem calls: allow-list\n");
    EXPECT_EQ(good, "user-mode, its helper confined by namespaces, system calls");
    const std::string worse =
        network_verdict("namespaces: NOT APPLIED, forbidden\nsystem calls: allow-list\n");
    EXPECT_NE(worse.find("confined by system calls\n"), std::string::npos) << worse;
    EXPECT_NE(worse.find("not confined by namespaces: NOT APPLIED, forbidden"), std::string::npos) << worse;
}

TEST(DoctorTest, TheProbeTellsWhichStepWasRefused) {
    // Descriptors are what every host can refuse.
    rlimit before{};
    ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
    const rlimit none{.rlim_cur = 0, .rlim_max = before.rlim_max};
    ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
    const Status status = soft::probe_code_memory();
    ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
    ASSERT_FALSE(status);
    EXPECT_TRUE(status.error().message.starts_with("memfd_create: ")) << status.error().message;
}

}  // namespace
}  // namespace tessera::app
