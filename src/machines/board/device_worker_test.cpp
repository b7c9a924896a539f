#include "machines/board/device_worker.h"

#include <array>
#include <atomic>
#include <bit>
#include <gtest/gtest.h>
#include <thread>

#include "devices/virtio/mmio.h"
#include "devices/virtio/testing/echo_device.h"
#include "vm/host_timers.h"

namespace tessera {
namespace {

using virtio::BenchRam;
using virtio::EchoDevice;
using virtio::GuestQueue;
using virtio::Segment;

class CountedLine final : public IrqSink {
public:
    void set_level(unsigned /*pin*/, bool high) override { rises += high ? 1U : 0U; }
    std::atomic<unsigned> rises = 0;
};

struct DeviceWorkerTest : testing::Test {
    DeviceWorkerTest() {
        worker.connect(chip.core());
        out(0x70, 3);
        out(0x24, 1);
        out(0x20, 1);  // VERSION_1
        out(0x70, 11);
        out(0x38, 16);
        out(0x80, static_cast<u32>(queue.descriptors()));
        out(0x90, static_cast<u32>(queue.driver()));
        out(0xa0, static_cast<u32>(queue.device()));
        out(0x44, 1);
        out(0x70, 15);
    }
    ~DeviceWorkerTest() override { loop->stop(); }
    void out(u64 offset, u32 value) {
        const LockGuard guard(lock);
        EXPECT_EQ(chip.write(offset, std::bit_cast<std::array<std::byte, 4>>(value)), IoStatus::Ok);
    }
    std::unique_ptr<EventLoop> loop = *EventLoop::create("test");
    BenchRam ram;
    CountedLine line;
    MutexLock lock;
    DeviceWorker worker{*loop, lock};
    EchoDevice device;
    virtio::Mmio chip{device, ram.map, worker, IrqLine(line, 0)};
    GuestQueue queue{ram, 0x1'0000, 16, virtio::RingKind::Split, false};
};

TEST_F(DeviceWorkerTest, EveryKickIsWorkedOff) {
    const std::vector<Segment> pieces = {{0x10'0000, 8, true}};
    unsigned sent = 0;
    unsigned done = 0;
    while (done < 5000) {
        while (sent < 5000 && queue.add(pieces)) ++sent;
        if (queue.kick_wanted()) out(0x50, 0);
        while (queue.take()) ++done;
        std::this_thread::yield();
    }
    EXPECT_EQ(done, 5000U);
    EXPECT_GE(line.rises, 1U);
}

// As with a doorbell that the engine answers.
TEST_F(DeviceWorkerTest, ARingIsWorkedOffAtOnce) {
    const std::vector<Segment> pieces = {{0x10'0000, 8, true}};
    worker.wait_until_idle();
    for (unsigned n = 0; n < 100; ++n) {
        ASSERT_TRUE(queue.add(pieces));
        bool taken = false;
        ASSERT_TRUE(loop->run([&] {
            worker.ring(0);
            taken = queue.take().has_value();
        }));
        EXPECT_TRUE(taken) << n;
    }
    // A driver's bell that the device does not know is nobody's.
    ASSERT_TRUE(loop->run([&] { worker.ring(QueuedDevice::kMostQueues - 1); }));
}

TEST_F(DeviceWorkerTest, ADrainWaitsForTheBackend) {
    {
        const LockGuard guard(lock);
        device.slow = true;
    }
    const std::vector<Segment> pieces = {{0x10'0000, 8, true}};
    ASSERT_TRUE(queue.add(pieces));
    out(0x50, 0);
    for (bool taken = false; !taken; std::this_thread::yield()) {
        const LockGuard guard(lock);
        taken = !device.held.empty();
    }
    {
        const LockGuard guard(lock);
        chip.reset();
        EXPECT_TRUE(chip.core().draining());
    }
    std::thread backend([&] { worker.wake(); });
    worker.wait_until_drained();
    const LockGuard guard(lock);
    EXPECT_FALSE(chip.core().draining());
    EXPECT_TRUE(device.held.empty());
    backend.join();
}

}  // namespace
}  // namespace tessera
