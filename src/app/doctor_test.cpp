#include "app/doctor.h"

#include <gtest/gtest.h>

namespace tessera::app {
namespace {

TEST(DoctorTest, SaysWhatTheHostHasAndWhatWouldBeUsed) {
    const std::string report = doctor_report();
    for (const char* row : {"\nprocessor ", "\nmemory ", "\ntime ", "\nKVM ", "\ninstructions  x86-64-v3",
                            "\nengine        soft"})
        EXPECT_NE(report.find(row), std::string::npos) << row << " missing in\n" << report;
}

}  // namespace
}  // namespace tessera::app
