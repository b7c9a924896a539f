// A stack between a fake host and a guest made of packets.
#pragma once

#include "backends/net/usernet/testing/fake_world.h"

namespace tessera::usernet::testing {

class StackRig : public ::testing::Test {
protected:
    StackRig() { build(); }
    void build() {
        config.resolvers = {{.address = *IpAddress::parse("198.51.100.53"), .port = 53},
                            {.address = *IpAddress::parse("198.51.100.54"), .port = 53}};
        config.seed = 4711;
        stack = std::make_unique<Stack>(config, host, wire);
    }

    void input(const Buffer& frame) {
        // A copy of exactly this size, so that the sanitizer sees reads past it.
        const Buffer copy(frame);
        stack->input(copy, now_ms);
        flush();
    }
    void flush() {
        for (int i = 0; i < 10'000 && stack->flush(now_ms); ++i) {
        }
    }
    void pass(u64 ms) {
        const u64 end = now_ms + ms;
        for (;;) {
            const u64 due = stack->run_due(now_ms);
            flush();
            if (due > end) break;
            now_ms = std::max(now_ms + 1, due);
        }
        now_ms = end;
        (void)stack->run_due(now_ms);
        flush();
    }
    Received next() {
        if (wire.sent.empty()) {
            ADD_FAILURE() << "the guest gets nothing";
            return {};
        }
        const Buffer frame = wire.sent.front();
        wire.sent.pop_front();
        return receive(frame);
    }
    [[nodiscard]] bool silent() const { return wire.sent.empty(); }

    Config config;
    FakeHost host;
    FakeWire wire;
    std::unique_ptr<Stack> stack;
    u64 now_ms = 1000;
};

}  // namespace tessera::usernet::testing
