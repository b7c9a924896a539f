// One guest that tells a virtio device of its requests in every way there is and in some that are none, on
// every engine, while doorbells hang and are taken down, and while the guest is paused and changes engines.
#include <atomic>
#include <chrono>
#include <gtest/gtest.h>
#include <memory>
#include <span>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "cpu/kvm/host.h"
#include "machines/machine.h"

namespace tessera {
namespace {

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

// In the guest's order; the second half of the machine pc alone.
const std::vector<std::string> kRows{"found", "started", "requests", "kicks for nothing", "what is no kick"};
const std::vector<std::string> kPciRows{"32 bits",        "reads as nothing",
                                        "moved",          "off the bus and on it again",
                                        "a shared place", "two at one place"};
const std::vector<std::string> kLastRows{"reset", "second processor", "all at once", "silence"};
constexpr u64 kKicksForNothing = 5000;

class Watcher final : public BusObserver {
public:
    void on_read(u64 /*address*/, std::span<const std::byte> /*data*/, IoStatus /*status*/,
                 const char* /*device*/) override {}
    void on_write(u64 /*address*/, std::span<const std::byte> /*data*/, IoStatus /*status*/,
                  const char* /*device*/) override {
        writes_.fetch_add(1, std::memory_order_relaxed);
    }
    [[nodiscard]] u64 writes() const { return writes_; }

private:
    std::atomic<u64> writes_ = 0;
};

struct Place {
    const char* name;
    MachineKind kind = MachineKind::Pc;
    EngineChoice engine = EngineChoice::Kvm;
    kvm::Irqchip irqchip = kvm::Irqchip::Kernel;
};

class KicksTest : public testing::TestWithParam<Place> {
protected:
    // False: the test is to end.
    bool build(BusObserver* observer = nullptr) {
        if (GetParam().engine == EngineChoice::Kvm) {
            if (const auto host = kvm::Host::open(); !host) {
                skip(host.error().message);
                return false;
            }
        }
        auto vm = Vm::create(2, OnReset::Restart);
        EXPECT_TRUE(vm) << vm.error().message;
        if (!vm) return false;
        vm_ = *std::move(vm);
        MachineConfig config;
        config.kind = GetParam().kind;
        config.memory = 64 * kMiB;
        config.cpus = 2;
        config.engine = GetParam().engine;
        config.kvm.irqchip = GetParam().irqchip;
        config.kvm.level = x86::FeatureLevel::Max;
        config.soft.cpus = 2;
        config.kernel = KICKS_GUEST;
        config.cmdline = cmdline_;
        config.serial = &listener_;
        config.rng = true;
        config.balloon.emplace();
        config.mmio_observer = observer;
        const auto built = build_machine(*vm_, config);
        EXPECT_TRUE(built) << built.error().message;
        return built.has_value();
    }
    static void skip(const std::string& why) { GTEST_SKIP() << why; }

    void expect_all_rows(const Ending& ending) {
        EXPECT_EQ(ending.kind, Ending::Kind::PoweredOff) << ending.message;
        std::vector<std::string> rows = kRows;
        if (GetParam().kind == MachineKind::Pc) rows.insert(rows.end(), kPciRows.begin(), kPciRows.end());
        rows.insert(rows.end(), kLastRows.begin(), kLastRows.end());
        // Since the last reset.
        const std::string& said = listener_.said();
        const std::size_t begin = said.rfind("ok found\n");
        std::istringstream lines(said.substr(begin == std::string::npos ? 0 : begin));
        for (const std::string& row : rows) {
            std::string line;
            std::getline(lines, line);
            EXPECT_EQ(line, "ok " + row);
        }
        if (HasFailure()) ADD_FAILURE() << "the guest said:\n" << listener_.said();
    }
    // Of both processors.
    [[nodiscard]] u64 mmio_exits() {
        u64 all = 0;
        for (const auto& cpu : vm_->statistics().cpus)
            for (const Statistic& figure : cpu.engine)
                if (figure.name == "MMIO") all += figure.value;
        return all;
    }

    std::string cmdline_;
    Listener listener_;
    std::unique_ptr<Vm> vm_;
};

TEST_P(KicksTest, AKickIsHeardAndNothingElseIs) {
    if (!build()) return;
    vm_->start();
    expect_all_rows(vm_->wait());
}

TEST_P(KicksTest, PausesLoseNoKick) {
    if (!build()) return;
    vm_->start();
    unsigned pauses = 0;
    while (!vm_->ended()) {
        vm_->pause();
        vm_->start();
        ++pauses;
        std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    expect_all_rows(vm_->wait());
    EXPECT_GT(pauses, 2U);
}

// The machine's: doorbells go with the places of the devices, and hang again for the next start.
TEST_P(KicksTest, ResetsLoseNoKick) {
    if (!build()) return;
    vm_->start();
    for (unsigned n = 0; n < 20; ++n) {
        std::this_thread::sleep_for(std::chrono::milliseconds(10 * (n % 8)));
        if (!vm_->ended()) vm_->reset();
    }
    expect_all_rows(vm_->wait());
}

TEST_P(KicksTest, ChangesOfTheEngineLoseNoKick) {
    if (GetParam().engine == EngineChoice::Soft) GTEST_SKIP() << "begins with KVM";
    if (!build()) return;
    vm_->start();
    unsigned changes = 0;
    while (!vm_->ended()) {
        const auto status = vm_->switch_engine(changes % 2 == 0 ? EngineKind::Soft : EngineKind::Kvm);
        EXPECT_TRUE(status) << status.error().message;
        if (!status) break;
        ++changes;
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    if (HasFailure()) vm_->stop();
    expect_all_rows(vm_->wait());
    EXPECT_GT(changes, 2U);
}

// The doorbells serve: with KVM kicks do not leave the guest.
TEST_P(KicksTest, KvmHearsKicksWithoutAnExit) {
    if (GetParam().engine == EngineChoice::Soft) GTEST_SKIP() << "has no doorbells";
    cmdline_ = "brief=1";
    if (!build()) return;
    vm_->start();
    EXPECT_EQ(vm_->wait().kind, Ending::Kind::PoweredOff);
    EXPECT_LT(mmio_exits(), kKicksForNothing / 2);
    vm_.reset();
    // Who watches the bus sees every kick.
    Watcher watcher;
    ASSERT_TRUE(build(&watcher));
    vm_->start();
    EXPECT_EQ(vm_->wait().kind, Ending::Kind::PoweredOff);
    EXPECT_GT(watcher.writes(), kKicksForNothing);
    vm_.reset();  // before the watcher
}

INSTANTIATE_TEST_SUITE_P(
    Places, KicksTest,
    testing::Values(Place{.name = "Soft", .engine = EngineChoice::Soft},
                    Place{.name = "SoftMicrovm", .kind = MachineKind::Microvm, .engine = EngineChoice::Soft},
                    Place{.name = "KvmUser", .irqchip = kvm::Irqchip::User},
                    Place{.name = "KvmSplit", .irqchip = kvm::Irqchip::Split}, Place{.name = "KvmKernel"},
                    Place{.name = "KvmKernelMicrovm", .kind = MachineKind::Microvm}),
    [](const testing::TestParamInfo<Place>& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace tessera
