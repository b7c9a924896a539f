// The test program is also the helper that it starts.
#include <gtest/gtest.h>
#include <string_view>

#include "backends/net/helper/net_helper.h"
#include "backends/net/switch/switch_server.h"

int main(int argc, char** argv) {
    if (argc == 2 && std::string_view(argv[1]) == tessera::net::kNetHelperCommand)
        return tessera::net::net_helper_main();
    if (argc == 2 && std::string_view(argv[1]) == tessera::net::kNetSwitchCommand)
        return tessera::net::net_switch_main();
    testing::InitGoogleTest(&argc, argv);
    return RUN_ALL_TESTS();
}
