// One guest that tells a virtio device of its requests in every way there is and in some that are none, on
// every engine, while doorbells hang and are taken down, and while the guest is paused and changes engines.
#include <atomic>
#include <chrono>
#include <gtest/gtest.h>
#include <span>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "tests/irqchips/place_test.h"

namespace tessera {
namespace {

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

class KicksTest : public PlaceTest {
protected:
    bool build(BusObserver* observer = nullptr) {
        return PlaceTest::build(OnReset::Restart, KICKS_GUEST, [&](MachineConfig& config) {
            config.cmdline = cmdline_;
            config.rng = true;
            config.balloon.emplace();
            config.mmio_observer = observer;
        });
    }
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
};

TEST_P(KicksTest, AKickIsHeardAndNothingElseIs) {
    if (!build()) return;
    vm_->start();
    expect_all_rows(vm_->wait());
}

TEST_P(KicksTest, PausesLoseNoKick) {
    if (!build()) return;
    vm_->start();
    pause_until_it_ends(std::chrono::milliseconds(2));
    expect_all_rows(vm_->wait());
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
    change_engines_until_it_ends();
    expect_all_rows(vm_->wait());
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

INSTANTIATE_TEST_SUITE_P(Places, KicksTest, every_place(), place_name);

}  // namespace
}  // namespace tessera
