// The test program is also the helpers that it starts, and what is to be killed.
#include <gtest/gtest.h>
#include <string_view>
#include <unistd.h>

#include "backends/net/helper/net_helper.h"
#include "backends/net/open/open_user_net.h"
#include "backends/net/switch/switch_server.h"

namespace {

// A VM's process, as far as its network goes: writes its helper's number, and waits to be killed.
int vm() {
    auto loop = tessera::EventLoop::create("vm");
    tessera::net::NetOptions options;
    options.helper_program = tessera::net::kThisProgram;
    auto net = tessera::net::open_user_net(options, **loop);
    if (!net) return 1;
    const pid_t helper = (*net)->process();
    if (write(STDOUT_FILENO, &helper, sizeof helper) < 0) return 1;
    for (;;) pause();
}

}  // namespace

int main(int argc, char** argv) {
    if (argc == 2 && std::string_view(argv[1]) == tessera::net::kNetHelperCommand)
        return tessera::net::net_helper_main();
    if (argc == 2 && std::string_view(argv[1]) == tessera::net::kNetSwitchCommand)
        return tessera::net::net_switch_main();
    if (argc == 2 && std::string_view(argv[1]) == "switch-to-be-killed") return tessera::net::serve_switch();
    if (argc == 2 && std::string_view(argv[1]) == "vm") return vm();
    testing::InitGoogleTest(&argc, argv);
    return RUN_ALL_TESTS();
}
