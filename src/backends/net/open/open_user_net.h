// The user-mode network: its helper process, the sockets of its forwards, the host's resolvers.
#pragma once

#include <string_view>

#include "backends/net/cable/linked_net.h"
#include "backends/net/open/net_options.h"

namespace tessera::net {

[[nodiscard]] Result<std::unique_ptr<LinkedNet>> open_user_net(const NetOptions& options, EventLoop& loop);

// The addresses that `text`, a resolv.conf, names as resolvers.
[[nodiscard]] std::vector<usernet::Endpoint> resolvers_of(std::string_view text);
[[nodiscard]] Result<usernet::Config> user_net_config(const NetOptions& options);

}  // namespace tessera::net
