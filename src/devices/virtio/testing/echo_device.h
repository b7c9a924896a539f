// A device for tests of the core: gives back what it reads, at once or when it is told to; holds nothing
// else.
#pragma once

#include <array>
#include <cstring>
#include <memory>
#include <vector>

#include "devices/virtio/core.h"
#include "devices/virtio/device.h"
#include "devices/virtio/testing/bench.h"

namespace tessera::virtio {

class EchoDevice final : public Device {
public:
    static constexpr u16 kSize = 64;

    [[nodiscard]] DeviceType type() const override { return DeviceType::Console; }
    [[nodiscard]] u64 features() const override { return 1 << 3; }
    [[nodiscard]] std::span<const u16> queue_sizes() const override { return kSizes; }
    [[nodiscard]] u32 config_size() const override { return kConfigSize; }
    void read_config(u32 offset, std::span<std::byte> out) override {
        std::memcpy(out.data(), std::span(config).subspan(offset).data(), out.size());
    }
    void write_config(u32 offset, std::span<const std::byte> in) override {
        std::memcpy(std::span(config).subspan(offset).data(), in.data(), in.size());
    }
    void start() override { ++starts; }
    [[nodiscard]] bool stop() override {
        config = {};
        return held.empty();
    }
    [[nodiscard]] bool service(unsigned queue) override {
        core().queue(queue).stop_kicks();
        bool more = true;
        for (unsigned i = 0; more && i < 16; ++i) {
            auto chain = std::make_unique<Chain>(Queue::longest_chain(kSize));
            if (!core().pop(queue, *chain)) {
                more = core().queue(queue).want_kicks();
            } else if (slow) {
                held.push_back(std::move(chain));
            } else {
                answer(queue, *chain);
            }
        }
        core().signal(queue);
        return more;
    }
    void run_backend() override {
        for (const auto& chain : held) {
            if (!core().draining()) answer(0, *chain);
        }
        held.clear();
        if (core().draining())
            core().stopped();
        else
            core().signal(0);
    }

    void visit_state(StateVisitor& v) override {
        for (unsigned i = 0; i < kConfigSize; ++i) {
            u8 byte = std::to_integer<u8>(config[i]);
            v.field(kFirstField + i, "config", byte);
            config[i] = std::byte{byte};
        }
    }
    Status load(StateVisitor& v) override {
        const auto before = config;
        config = {};
        visit_state(v);
        if (!v.corrupt()) return {};
        config = before;
        return fail(Errc::CorruptState, "echo: not bytes");
    }

    void change_config() { core().config_changed(); }

    static constexpr u32 kConfigSize = 12;
    std::array<std::byte, kConfigSize> config{};
    bool slow = false;  // keeps requests until run_backend()
    unsigned starts = 0;
    std::vector<std::unique_ptr<Chain>> held;

private:
    static constexpr std::array<u16, 2> kSizes = {kSize, kSize};

    void answer(unsigned queue, Chain& chain) {
        std::array<std::byte, 64> data{};
        const std::size_t got = chain.read(data);
        const std::size_t written = chain.write(std::span(data).first(got));
        core().push(queue, chain, static_cast<u32>(written));
    }
};

struct EchoKit {
    EchoDevice device;
    static constexpr u16 kRequestQueue = 0;
    static std::vector<Segment> request(u64 at) {
        return {{.address = at, .length = 8, .writable = false},
                {.address = at + 8, .length = 8, .writable = true}};
    }
    static void prepare(BenchRam& ram, u64 at) { std::memset(ram.at(at), 7, 8); }
    static std::vector<Segment> any_request(BenchRam& ram, u64 at, unsigned /*queue*/,
                                            testing_rig::Choices& /*choices*/) {
        prepare(ram, at);
        return request(at);
    }
    void stimulate(testing_rig::Choices& /*choices*/) { device.change_config(); }
    static void refresh() {}
    static void copy_surroundings(EchoKit& /*from*/) {}
};

}  // namespace tessera::virtio
