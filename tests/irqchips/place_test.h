// A guest in every place there is, that is on every engine, with the chips ours or KVM's; and what is done to
// it while it runs.
#pragma once

#include <chrono>
#include <functional>
#include <gtest/gtest.h>
#include <memory>
#include <string>
#include <thread>

#include "cpu/kvm/host.h"
#include "machines/machine.h"

namespace tessera {

// What the guest says, on its lines.
class Listener final : public CharBackend {
public:
    bool put(u8 byte) override {
        said_ += static_cast<char>(byte);
        return true;
    }
    void receive_ready() override {}
    void connect(CharPeer* /*peer*/) override {}
    [[nodiscard]] const std::string& said() const { return said_; }

private:
    std::string said_;
};

struct Place {
    const char* name;
    MachineKind kind = MachineKind::Pc;
    EngineChoice engine = EngineChoice::Kvm;
    kvm::Irqchip irqchip = kvm::Irqchip::Kernel;
};

inline auto every_place() {
    return testing::Values(
        Place{.name = "Soft", .engine = EngineChoice::Soft},
        Place{.name = "SoftMicrovm", .kind = MachineKind::Microvm, .engine = EngineChoice::Soft},
        Place{.name = "KvmUser", .irqchip = kvm::Irqchip::User},
        Place{.name = "KvmSplit", .irqchip = kvm::Irqchip::Split}, Place{.name = "KvmKernel"},
        Place{.name = "KvmKernelMicrovm", .kind = MachineKind::Microvm});
}
inline std::string place_name(const testing::TestParamInfo<Place>& info) {
    return info.param.name;
}

class PlaceTest : public testing::TestWithParam<Place> {
protected:
    // `complete` adds what is the test's own. False: the test is to end.
    bool build(OnReset on_reset, const char* guest,
               const std::function<void(MachineConfig&)>& complete = {}) {
        if (GetParam().engine == EngineChoice::Kvm) {
            if (const auto host = kvm::Host::open(); !host) {
                skip(host.error().message);
                return false;
            }
        }
        constexpr unsigned kCpus = 2;
        auto vm = Vm::create(kCpus, on_reset);
        EXPECT_TRUE(vm) << vm.error().message;
        if (!vm) return false;
        vm_ = *std::move(vm);
        MachineConfig config;
        config.kind = GetParam().kind;
        config.memory = 64 * kMiB;
        config.cpus = kCpus;
        config.engine = GetParam().engine;
        config.kvm.irqchip = GetParam().irqchip;
        config.kvm.level = x86::FeatureLevel::Max;
        config.kernel = guest;
        config.serial = &listener_;
        if (complete) complete(config);
        const auto built = build_machine(*vm_, config);
        EXPECT_TRUE(built) << built.error().message;
        return built.has_value();
    }
    // At every pause the chips come here, and go back after it.
    void pause_until_it_ends(std::chrono::milliseconds between) {
        unsigned pauses = 0;
        for (; !vm_->ended(); ++pauses) {
            vm_->pause();
            vm_->start();
            std::this_thread::sleep_for(between);
        }
        EXPECT_GT(pauses, 2U);
    }
    // The guest goes to the software CPU and back, its chips with it. It began with KVM.
    void change_engines_until_it_ends() {
        unsigned changes = 0;
        for (; !vm_->ended(); ++changes) {
            const auto status = vm_->switch_engine(changes % 2 == 0 ? EngineKind::Soft : EngineKind::Kvm);
            EXPECT_TRUE(status) << status.error().message;
            if (!status) return vm_->stop();
            std::this_thread::sleep_for(std::chrono::milliseconds(5));
        }
        EXPECT_GT(changes, 2U);
    }

    Listener listener_;
    std::unique_ptr<Vm> vm_;

private:
    static void skip(const std::string& why) { GTEST_SKIP() << why; }
};

}  // namespace tessera
