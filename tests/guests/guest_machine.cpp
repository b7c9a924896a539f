// Builds the machine from the public interfaces and watches over a run.
#include "tests/guests/guest_machine.h"

#include <chrono>
#include <condition_variable>
#include <cstring>
#include <fmt/format.h>
#include <fstream>
#include <iterator>
#include <sys/mman.h>
#include <thread>

#include "cpu/kvm/kvm_engine.h"

namespace tessera::guests {

namespace {

constexpr u64 kImageBase = 0x8000, kImageLimit = 0x8000;
constexpr u64 kTestVariable = 0x500, kModeVariable = 0x504;
constexpr u64 kLowRam = 0xa0000, kHighRam = 0x100000, kRamEnd = 16 << 20;
constexpr u64 kMmioBase = 0xd0000, kRomBase = 0xe0000, kRomSize = 0x10000;
constexpr u64 kPortBase = 0xe0, kPortCount = 0x20;
constexpr u32 kWithApic = 0x10;
constexpr auto kPatience = std::chrono::seconds(20);

template <typename T>
T get(std::span<const u8> bytes, std::size_t at) {
    T value{};
    if (at + sizeof(T) <= bytes.size()) std::memcpy(&value, bytes.data() + at, sizeof(T));
    return value;
}

class MutexLock final : public Lock {
public:
    void lock() override { mutex_.lock(); }
    void unlock() override { mutex_.unlock(); }

private:
    std::mutex mutex_;
};

// Kicks the CPUs when a test takes too long.
class Watchdog {
public:
    explicit Watchdog(std::vector<Cpu*> cpus) : cpus_(std::move(cpus)), thread_([this] { watch(); }) {}
    ~Watchdog() {
        {
            const std::scoped_lock guard(mutex_);
            done_ = true;
        }
        changed_.notify_all();
        thread_.join();
    }
    Watchdog(const Watchdog&) = delete;
    Watchdog& operator=(const Watchdog&) = delete;
    [[nodiscard]] bool expired() const { return expired_; }

private:
    void watch() {
        std::unique_lock guard(mutex_);
        if (changed_.wait_for(guard, kPatience, [this] { return done_; })) return;
        expired_ = true;
        for (Cpu* cpu : cpus_) cpu->kick();
    }

    std::vector<Cpu*> cpus_;
    std::mutex mutex_;
    std::condition_variable changed_;
    bool done_ = false;
    std::atomic<bool> expired_ = false;
    std::thread thread_;
};

struct Machine {
    Machine(const GuestImage& image, const GuestTest& test, Stepping stepping, CpuTracer* tracer)
        : ram_(static_cast<std::byte*>(
              ::mmap(nullptr, kRamEnd, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0))),
          rom_(kRomSize + kPageSize) {
        std::memcpy(ram_.get() + kImageBase, image.bytes.data(), image.bytes.size());
        std::memcpy(ram_.get() + kTestVariable, &test.entry, sizeof(test.entry));
        std::memcpy(ram_.get() + kModeVariable, &test.mode, sizeof(test.mode));
        const std::span all(ram_.get(), kRamEnd);
        (void)memory_.add("low ram", RegionKind::Ram, 0, all.first(kLowRam));
        (void)memory_.add("high ram", RegionKind::Ram, kHighRam, all.subspan(kHighRam));
        const auto start = reinterpret_cast<std::uintptr_t>(rom_.data());
        std::byte* rom = rom_.data() + ((kPageSize - start % kPageSize) % kPageSize);
        for (u64 i = 0; i < kRomSize; ++i) rom[i] = static_cast<std::byte>(i);
        (void)memory_.add("rom", RegionKind::Rom, kRomBase, std::span(rom, kRomSize));
        (void)port_bus_.add("test ports", kPortBase, kPortCount, ports, lock_);
        (void)mmio_bus_.add("test mmio", kMmioBase, TestMmio::kSize, mmio_, lock_);
        const bool apics = (test.mode & kWithApic) != 0;
        const unsigned count = apics ? 2 : 1;
        const CpuWorld world{memory_, port_bus_, mmio_bus_, tsc_, tracer, std::this_thread::yield, &clock_};
        if (stepping == Stepping::Kvm) {
            std::vector<u32> ids(count);
            for (unsigned i = 0; i < count; ++i) ids[i] = i;
            auto made = kvm::KvmEngine::create(world, {.cpus = count, .apic_ids = ids});
            if (!made) {
                failure = made.error().message;
                return;
            }
            engine = *std::move(made);
        } else {
            engine = std::make_unique<soft::SoftEngine>(
                world, soft::SoftCpuConfig{.model = soft::CpuModel::Max,
                                           .cpus = count,
                                           .jit = stepping == Stepping::Translated,
                                           .translate_after = 1});
        }
        for (unsigned i = 0; i < count; ++i) {
            cpus.push_back(&engine->cpu(i));
            if (apics) {
                auto& lapic = lapics_.emplace_back(std::make_unique<lapic::Lapic>(
                    lapic::Lapic::Config{.apic_id = i, .bootstrap = i == 0}, clock_, tsc_, clock_, fabric_));
                fabric_.add(*lapic);
                lapic->connect_waker(engine->cpu(i).waker());
                engine->connect(i, *lapic);
            } else {
                engine->connect(i, interrupts);
            }
        }
        ports.connect(cpus);
        x86::State state = cpus[0]->state();
        state.seg[x86::Cs].selector = 0;
        state.seg[x86::Cs].base = 0;
        state.rip = kImageBase;
        cpus[0]->set_state(state);
    }

    PortInterrupts interrupts;
    TestPorts ports{interrupts};
    std::string failure;
    std::unique_ptr<CpuEngine> engine;
    std::vector<Cpu*> cpus;

private:
    struct Free {
        void operator()(std::byte* p) const { ::munmap(p, kRamEnd); }
    };
    FakeClock clock_;
    FakeTsc tsc_{clock_};
    MemoryMap memory_;
    IoBus port_bus_, mmio_bus_;
    MutexLock lock_;
    TestMmio mmio_;
    lapic::LapicFabric fabric_;
    std::vector<std::unique_ptr<lapic::Lapic>> lapics_;
    std::unique_ptr<std::byte, Free> ram_;
    std::vector<std::byte> rom_;
};

// What an exit of CPU `index` means for the test. Empty: go on.
std::optional<std::string> judge(Machine& machine, unsigned index, const Exit& exit, bool expired) {
    const Cpu& cpu = *machine.cpus[index];
    if (machine.ports.finished()) return machine.ports.failure();
    const auto where = [&] {
        const x86::State s = cpu.state();
        return fmt::format("cpu {} at {:#x}:{:#x}", index, s.seg[x86::Cs].selector, s.rip);
    };
    if (expired) return fmt::format("takes too long, {}", where());
    switch (exit.reason) {
        case ExitReason::Shutdown:
            return machine.ports.shutdown_expected() ? std::string() : fmt::format("shutdown, {}", where());
        case ExitReason::Failed: return fmt::format("the engine failed: {}", cpu.failure());
        case ExitReason::Halted:
            if (machine.cpus.size() == 1) {
                if (!machine.interrupts.halted()) return fmt::format("halted for good, {}", where());
                machine.cpus[0]->waker().wake();
            }
            return std::nullopt;
        default: return std::nullopt;
    }
}

std::string run_alternating(Machine& machine, Stepping stepping, const Watchdog& watchdog) {
    constexpr u64 kSlice = 100;
    for (;;) {
        for (unsigned i = 0; i < machine.cpus.size(); ++i) {
            Cpu& cpu = *machine.cpus[i];
            const Exit exit = stepping == Stepping::Single ? cpu.step(kSlice) : cpu.run();
            if (const auto verdict = judge(machine, i, exit, watchdog.expired())) return *verdict;
        }
    }
}

std::string run_threads(Machine& machine, const Watchdog& watchdog) {
    std::mutex mutex;
    std::optional<std::string> result;
    std::vector<std::thread> threads;
    for (unsigned i = 0; i < machine.cpus.size(); ++i)
        threads.emplace_back([&, i] {
            for (;;) {
                const Exit exit = machine.cpus[i]->run();
                const auto verdict = judge(machine, i, exit, watchdog.expired());
                if (verdict) {
                    const std::scoped_lock guard(mutex);
                    if (!result) result = *verdict;
                    for (Cpu* cpu : machine.cpus) cpu->kick();
                    return;
                }
                if (exit.reason == ExitReason::Halted || exit.reason == ExitReason::WaitForSipi)
                    std::this_thread::yield();
            }
        });
    for (auto& thread : threads) thread.join();
    return result.value_or("nobody reported");
}

}  // namespace

GuestImage GuestImage::load(const std::string& directory, const std::string& topic) {
    constexpr std::size_t kMagicAt = 8, kTableAt = 16, kEntrySize = 64, kNameAt = 8, kNameSize = 56;
    GuestImage image{.topic = topic, .bytes = {}, .tests = {}};
    std::ifstream file(directory + "/" + topic + ".bin", std::ios::binary);
    image.bytes.assign(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
    const std::span<const u8> bytes = image.bytes;
    if (bytes.size() > kImageLimit || bytes.size() < kTableAt + 4 ||
        std::memcmp(bytes.data() + kMagicAt, "GUEST", 5) != 0)
        return image;
    for (u64 at = get<u32>(bytes, kTableAt) - kImageBase; at + kEntrySize <= bytes.size(); at += kEntrySize) {
        const char* name = reinterpret_cast<const char*>(bytes.data() + at + kNameAt);
        image.tests.push_back({.name = std::string(name, strnlen(name, kNameSize)),
                               .entry = get<u32>(bytes, at),
                               .mode = get<u32>(bytes, at + 4)});
    }
    return image;
}

std::string run_guest(const GuestImage& image, const GuestTest& test, Stepping stepping, CpuTracer* tracer) {
    Machine machine(image, test, stepping, tracer);
    if (!machine.failure.empty()) return machine.failure;
    const Watchdog watchdog(machine.cpus);
    if (machine.cpus.size() > 1 && stepping != Stepping::Single) return run_threads(machine, watchdog);
    return run_alternating(machine, stepping, watchdog);
}

// --- interrupts

CpuInterrupts::Events PortInterrupts::take_events() {
    Events events;
    events.nmi = std::exchange(nmi_, false);
    return events;
}

int PortInterrupts::highest() const {
    for (int v = 255; v >= 0; --v)
        if (pending_[static_cast<unsigned>(v)]) return v;
    return -1;
}

bool PortInterrupts::interrupt_pending() {
    return highest() >> 4 > cr8_;
}

std::optional<u8> PortInterrupts::acknowledge() {
    const int vector = highest();
    if (vector >> 4 <= cr8_) return std::nullopt;
    pending_[static_cast<unsigned>(vector)] = false;
    return static_cast<u8>(vector);
}

MsrResult PortInterrupts::read_msr(u32 index, u64& value) {
    constexpr u32 kApicBase = 0x1b;
    if (index != kApicBase) return MsrResult::NotMine;
    value = 0xfee0'0900;
    return MsrResult::Ok;
}

MsrResult PortInterrupts::write_msr(u32 /*index*/, u64 /*value*/) {
    return MsrResult::NotMine;
}

bool PortInterrupts::halted() {
    if (at_halt_.empty() && !nmi_at_halt_) return false;
    for (const u8 vector : at_halt_) raise(vector);
    at_halt_.clear();
    nmi_ = nmi_ || std::exchange(nmi_at_halt_, false);
    return true;
}

// --- ports

IoStatus TestPorts::read(u64 offset, std::span<std::byte> out) {
    if (offset + out.size() > storage_.size()) return IoStatus::NoRegister;
    std::memcpy(out.data(), storage_.data() + offset, out.size());
    return IoStatus::Ok;
}

void TestPorts::finish(std::string failure) {
    if (finished_) return;
    failure_ = std::move(failure);
    finished_ = true;
    for (Cpu* cpu : cpus_) cpu->kick();
}

IoStatus TestPorts::write(u64 offset, std::span<const std::byte> in) {
    if (offset + in.size() > storage_.size() || in.size() > sizeof(u32)) return IoStatus::NoRegister;
    std::memcpy(storage_.data() + offset, in.data(), in.size());
    u32 value = 0;
    std::memcpy(&value, in.data(), in.size());
    switch (offset) {
        case 0x0: finish(fmt::format("line {}: found {:#x}", value, found_)); break;
        case 0x4: found_ = value; break;
        case 0x8: finish(fmt::format("unexpected exception {} at {:#x}", value, found_)); break;
        case 0xc:
            if (value == 1)
                finish(shutdown_expected_ ? "ended without the shutdown it announced" : "");
            else
                shutdown_expected_ = true;
            break;
        case 0x10: interrupts_.raise(static_cast<u8>(value)); break;
        case 0x11: interrupts_.raise_nmi(); break;
        case 0x12: interrupts_.raise_at_halt(static_cast<u8>(value)); break;
        case 0x13: interrupts_.raise_nmi_at_halt(); break;
        default: break;
    }
    if (offset == 0x10 || offset == 0x11) cpus_[0]->waker().wake();
    return IoStatus::Ok;
}

// --- MMIO

IoStatus TestMmio::read(u64 offset, std::span<std::byte> out) {
    constexpr u64 kCounts = kSize - 8;
    if (offset >= kCounts) {
        std::array<std::byte, 8> counts{};
        std::memcpy(counts.data(), &reads_, sizeof(reads_));
        std::memcpy(counts.data() + 2, &writes_, sizeof(writes_));
        counts[4] = static_cast<std::byte>(width_);
        for (std::size_t i = 0; i < out.size(); ++i) out[i] = counts.at((offset - kCounts + i) % 8);
        return IoStatus::Ok;
    }
    for (std::size_t i = 0; i < out.size(); ++i) out[i] = storage_.at((offset + i) % storage_.size());
    ++reads_;
    width_ = static_cast<u8>(out.size());
    return IoStatus::Ok;
}

IoStatus TestMmio::write(u64 offset, std::span<const std::byte> in) {
    for (std::size_t i = 0; i < in.size(); ++i) storage_.at((offset + i) % storage_.size()) = in[i];
    ++writes_;
    width_ = static_cast<u8>(in.size());
    return IoStatus::Ok;
}

}  // namespace tessera::guests
