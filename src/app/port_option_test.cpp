#include "app/port_option.h"

#include <array>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <initializer_list>

namespace tessera::app {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

TEST(PortOptionTest, APortHasANameAndASocket) {
    const auto port = parse_port("name=org.qemu.guest_agent.0,path=/run/a,,b.sock");
    ASSERT_TRUE(port) << port.error();
    EXPECT_EQ(port->name, "org.qemu.guest_agent.0");
    EXPECT_EQ(port->path, "/run/a,b.sock");
}

TEST(PortOptionTest, ASerialPortHasASocketAndMayHaveAPlace) {
    const auto plain = parse_serial("path=/run/serial.sock");
    ASSERT_TRUE(plain) << plain.error();
    EXPECT_EQ(plain->path, "/run/serial.sock");
    EXPECT_EQ(plain->place, PciPlace::Bus0);
    const auto behind = parse_serial("place=root-port,path=s");
    ASSERT_TRUE(behind) << behind.error();
    EXPECT_EQ(behind->place, PciPlace::RootPort);
}

TEST(PortOptionTest, RefusalsNameThePartAndWhatIsPossible) {
    const std::string long_name = "name=" + std::string(65, 'x') + ",path=p";
    for (const auto& [text, part, possible] : std::initializer_list<std::array<const char*, 3>>{
             {"", "", "name=NAME,path=SOCKET"},
             {"name=a", "name=a", "name=NAME,path=SOCKET"},
             {"path=p", "path=p", "name=NAME,path=SOCKET"},
             {"name=,path=p", "name=:", "1 to 64"},
             {"name=a/b,path=p", "name=a/b:", "slashes"},
             {"name=..,path=p", "name=..:", "letters"},
             {long_name.c_str(), "name=x", "1 to 64"},
             {"name=a,path=", "path=:", "agent.sock"},
             {"name=a,name=b,path=p", "name=b:", "twice"},
             {"name=a,path=p,mode=server", "mode=server:", "name=NAME,path=SOCKET"}}) {
        const auto port = parse_port(text);
        ASSERT_FALSE(port) << text;
        EXPECT_THAT(port.error(), StartsWith("--port "));
        EXPECT_THAT(port.error(), HasSubstr(part));
        EXPECT_THAT(port.error(), HasSubstr(possible));
    }
    EXPECT_THAT(parse_serial("path=p,place=isa").error(), HasSubstr("bus, root-port"));
    EXPECT_THAT(parse_serial("place=bus").error(), HasSubstr("path=SOCKET"));
    EXPECT_THAT(parse_serial("path").error(), HasSubstr("agent.sock"));
}

TEST(PortOptionTest, SocketsHaveANumberAndAPath) {
    const auto vsock = parse_vsock("cid=3,path=/run/v.sock");
    ASSERT_TRUE(vsock) << vsock.error();
    EXPECT_EQ(vsock->cid, 3U);
    EXPECT_EQ(vsock->path, "/run/v.sock");
    EXPECT_EQ(parse_vsock("path=p,cid=4294967294")->cid, 0xffff'fffe);
    for (const char* text : {"cid=2,path=p", "cid=4294967295,path=p", "cid=x,path=p", "cid=,path=p"})
        EXPECT_THAT(parse_vsock(text).error(), HasSubstr("3 to 4294967294")) << text;
    for (const char* text : {"", "cid=3", "path=p", "cid=3,path=p,port=4"})
        EXPECT_THAT(parse_vsock(text).error(), HasSubstr("cid=N,path=SOCKET")) << text;
}

}  // namespace
}  // namespace tessera::app
