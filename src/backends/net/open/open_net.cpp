#include "backends/net/open/open_net.h"

#include "backends/net/open/open_user_net.h"
#include "backends/net/switch/open_switch.h"
#include "backends/net/tap/tap_net.h"

namespace tessera::net {

Result<std::unique_ptr<NetBackend>> open_net(const NetOptions& options, EventLoop& loop) {
    switch (options.kind) {
        case NetKind::User: return open_user_net(options, loop);
        case NetKind::Tap: return TapNet::open(loop, options.name, options.queues);
        case NetKind::Switch:
            return open_switch({.name = options.name,
                                .directory = options.switch_directory,
                                .helper_program = options.helper_program,
                                .restart_pause_ms = options.restart_pause_ms},
                               loop);
    }
    return fail(Errc::InvalidArgument, "--net: this is no kind of network");
}

Result<std::string> helper_report(const std::string& program) {
    auto loop = EventLoop::create("net-probe");
    if (!loop) return std::unexpected(std::move(loop.error()));
    NetOptions options;
    options.helper_program = program;
    auto net = open_user_net(options, **loop);
    if (!net) return std::unexpected(std::move(net.error()));
    return (*net)->report();
}

}  // namespace tessera::net
