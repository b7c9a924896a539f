// A guest writes and reads everything there is, in every width and at every place, with several values: the
// monitor lives, and where nobody answers the guest reads all ones.
#include <algorithm>
#include <array>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <gtest/gtest.h>
#include <initializer_list>
#include <set>
#include <string>
#include <tuple>
#include <unistd.h>
#include <vector>

#include "devices/ne2000/ne2000_rig.h"
#include "devices/virtio_blk/virtio_blk_rig.h"
#include "devices/virtio_vsock/virtio_vsock_rig.h"
#include "machines/machine.h"

namespace tessera {
namespace {

enum class Values : u8 { Zeros, Ones, Random };

// A guest of a few instructions, loaded at 1 MiB by an ELF header and entered in 64-bit mode.
class Guest {
public:
    // Every port of [first, end): out and in of one, two and four bytes.
    Guest& sweep_ports(u32 first, u32 end, Values values) {
        set(0xba, first);  // mov $first, %edx
        const std::size_t top = begin_turn(values);
        add({0xee, 0x66, 0xef, 0xef, 0xec, 0x66, 0xed, 0xed});
        add({0xff, 0xc2, 0x81, 0xfa});  // inc %edx; cmp $end, %edx
        return put32(end).jump_back(top);
    }
    // Every byte of [first, end): stores and loads of one, two, four and eight bytes.
    Guest& sweep_memory(u32 first, u32 end, Values values) {
        set(0xbe, first);  // mov $first, %esi
        const std::size_t top = begin_turn(values);
        add({0x88, 0x06, 0x66, 0x89, 0x06, 0x89, 0x06, 0x48, 0x89, 0x06});
        add({0x8a, 0x06, 0x66, 0x8b, 0x06, 0x8b, 0x06, 0x48, 0x8b, 0x06});
        add({0xff, 0xc6, 0x81, 0xfe});  // inc %esi; cmp $end, %esi
        return put32(end).jump_back(top);
    }
    Guest& out_byte(u16 port, u8 value) {
        return add({0x66, 0xba, port & 0xff, port >> 8, 0xb0, value, 0xee});
    }
    // The serial port as it may have been left cannot say anything: it is set up first.
    Guest& say_alive() {
        out_byte(0x3fb, 3).out_byte(0x3f9, 0).out_byte(0x3fa, 7).out_byte(0x3fc, 0);
        for (const char c : {'a', 'l', 'i', 'v', 'e'}) out_byte(0x3f8, static_cast<u8>(c));
        return *this;
    }
    // SLP_TYP 5 and SLP_EN to PM1a_CNT.
    Guest& power_off() {
        return add({0x66, 0xba, 0x04, 0x06, 0x66, 0xb8, 0x00, 0x34, 0x66, 0xef, 0xfa, 0xf4, 0xeb, 0xfc});
    }
    [[nodiscard]] std::vector<u8> elf() const {
        constexpr u32 kLoadAddress = 0x10'0000;
        std::vector<u8> file(120);
        const auto at = [&](std::size_t where, u32 value) {
            std::memcpy(std::span(file).subspan(where, sizeof value).data(), &value, sizeof value);
        };
        at(0, 0x464c'457f);
        at(4, 0x0001'0102);
        at(16, 2 | 62 << 16);  // ET_EXEC, x86-64
        at(20, 1);
        at(24, kLoadAddress);
        at(32, 64);
        at(52, 64 | 56 << 16);
        at(56, 1);
        at(64, 1);  // PT_LOAD
        at(68, 7);
        at(72, 120);
        at(80, kLoadAddress);
        at(88, kLoadAddress);
        at(96, static_cast<u32>(bytes_.size()));
        at(104, static_cast<u32>(bytes_.size()));
        at(112, 1);
        file.insert(file.end(), bytes_.begin(), bytes_.end());
        return file;
    }

private:
    Guest& add(std::initializer_list<int> bytes) {
        for (const int byte : bytes) bytes_.push_back(static_cast<u8>(byte));
        return *this;
    }
    Guest& put32(u32 value) {
        for (unsigned n = 0; n < 4; ++n) bytes_.push_back(static_cast<u8>(value >> (8 * n)));
        return *this;
    }
    void set(u8 opcode, u32 value) {
        bytes_.push_back(opcode);
        put32(value);
    }
    // The next value is in %rax.
    std::size_t begin_turn(Values values) {
        add({0x48, 0xc7, 0xc3});  // mov $..., %rbx
        put32(values == Values::Zeros ? 0 : values == Values::Ones ? ~u32{0} : 0x1234'5678);
        const std::size_t top = bytes_.size();
        if (values == Values::Random) {
            add({0x48, 0x69, 0xdb});  // imul $1664525, %rbx, %rbx
            put32(1664525);
            add({0x48, 0x81, 0xc3});  // add $1013904223, %rbx
            put32(1013904223);
            add({0x48, 0x89, 0xd8, 0x48, 0xc1, 0xe8, 13});  // mov %rbx, %rax; shr $13, %rax
        } else {
            add({0x48, 0x89, 0xd8});
        }
        return top;
    }
    Guest& jump_back(std::size_t top) {
        const auto distance = static_cast<int>(bytes_.size() + 2 - top);
        return add({0x75, -distance & 0xff});
    }
    std::vector<u8> bytes_;
};

class Listener final : public CharBackend {
public:
    bool put(u8 byte) override {
        text += static_cast<char>(byte);
        return true;
    }
    void receive_ready() override {}
    void connect(CharPeer* /*peer*/) override {}
    std::string text;
};

// Every access, as the guest sees it answered.
class Watcher final : public BusObserver {
public:
    void on_read(u64 address, std::span<const std::byte> data, IoStatus status, const char* device) override {
        ++reads;
        owners.insert(device);
        const bool answered = status == IoStatus::Ok && std::string_view(device) != "-";
        if (!answered && !std::ranges::all_of(data, [](std::byte b) { return b == std::byte{0xff}; }))
            wrong.push_back(address);
    }
    void on_write(u64 /*address*/, std::span<const std::byte> /*data*/, IoStatus /*status*/,
                  const char* /*device*/) override {}
    u64 reads = 0;
    std::set<std::string> owners;
    std::vector<u64> wrong;
};

struct SweepTest : testing::TestWithParam<std::tuple<MachineKind, Values>> {
    ~SweepTest() override { std::filesystem::remove(path); }
    [[nodiscard]] static bool is_pc() { return std::get<0>(GetParam()) == MachineKind::Pc; }
    [[nodiscard]] static Values values() { return std::get<1>(GetParam()); }

    // A machine with one of everything.
    Ending run(const Guest& guest) {
        const std::vector<u8> elf = guest.elf();
        std::ofstream(path, std::ios::binary)
            .write(reinterpret_cast<const char*>(elf.data()), static_cast<std::streamsize>(elf.size()));
        std::array<virtio_blk::MemoryDisk, 3> disks;
        std::array<ne2000::TestCable, 3> cables;
        std::array<Listener, 3> listeners;
        virtio_vsock::FakeHost sockets;
        MachineConfig config{.kind = std::get<0>(GetParam()), .memory = 16 * kMiB, .kernel = path};
        config.disks = {{.backend = &disks[0], .queues = 4}};
        config.rng = true;
        config.nets = {{.backend = &cables[0], .mac = {2, 0, 0, 0, 0, 1}}};
        config.balloon.emplace();
        config.serial = &com1;
        config.console = &listeners[0];
        config.ports = {{.backend = &listeners[2], .name = "agent"}};
        config.vsock = {.backend = &sockets, .cid = 3};
        config.port_observer = &ports;
        config.mmio_observer = &memory;
        if (is_pc()) {
            config.disks.push_back({.backend = &disks[1], .interface = DiskInterface::Ahci});
            disks[2].set_read_only();
            config.cdroms = {{.disc = &disks[2]}};
            config.nets.push_back(
                {.backend = &cables[1], .mac = {2, 0, 0, 0, 0, 2}, .model = NetModel::Ne2000Pci});
            config.nets.push_back(
                {.backend = &cables[2], .mac = {2, 0, 0, 0, 0, 3}, .model = NetModel::Ne2000Isa});
            config.pci_serials = {{.backend = &listeners[1]}};
        }
        auto vm = Vm::create(1, OnReset::End);
        const auto built = build_machine(**vm, config);
        EXPECT_TRUE(built.has_value()) << built.error().message;
        if (!built) return {};
        (*vm)->start();
        return (*vm)->wait();
    }
    void expect_alive(const Guest& guest, const std::string& what) {
        com1.text.clear();
        EXPECT_EQ(run(guest).kind, Ending::Kind::PoweredOff) << what;
        EXPECT_TRUE(com1.text.ends_with("alive")) << what;
    }
    std::string path = testing::TempDir() + "tessera_sweep_test_" + std::to_string(getpid());
    Listener com1;
    Watcher ports;
    Watcher memory;
};

// Ports where some value ends the machine, or moves what is to be swept.
constexpr u32 kConfigPorts = 0xcf8;
constexpr std::array<u32, 5> kWays{0x60, 0x64, 0x92, 0x604, 0xcf9};
constexpr u32 kWidest = 4;

TEST_P(SweepTest, EveryPort) {
    Guest guest;
    u32 at = 0;
    for (const u32 way : {0x60U, 0x64U, 0x92U, 0x604U, kConfigPorts}) {
        // Wider accesses reach further.
        const u32 before = way - (kWidest - 1);
        if (at < before) guest.sweep_ports(at, before, values());
        at = way == kConfigPorts ? kConfigPorts + 8 : way + 2;
    }
    guest.sweep_ports(at, 0x1'0000 - kWidest, values());
    expect_alive(guest.say_alive().power_off(), "ports");
    EXPECT_EQ(ports.wrong, std::vector<u64>{});
    EXPECT_GT(ports.reads, u64{3} * 65'000);
    EXPECT_TRUE(ports.owners.contains("-"));
    if (is_pc())
        for (const char* owner : {"NE2000 net 1", "NE2000 net 2", "PCI serial port 1", "RTC", "8259A master"})
            EXPECT_TRUE(std::ranges::any_of(ports.owners, [&](const std::string& name) {
                return name.starts_with(owner);
            })) << owner;
}

// Over the end of the port space, and where the machine may end: however it does, the monitor does not.
TEST_P(SweepTest, PortsThatEndTheMachine) {
    for (const u32 way : kWays) {
        const Ending ending =
            run(Guest().sweep_ports(way - (kWidest - 1), way + 2, values()).say_alive().power_off());
        EXPECT_TRUE(ending.kind == Ending::Kind::PoweredOff || ending.kind == Ending::Kind::Reset)
            << way << ": " << ending.message;
    }
    expect_alive(Guest().sweep_ports(kConfigPorts, kConfigPorts + 1, values()).say_alive().power_off(),
                 "address");
    expect_alive(Guest().sweep_ports(kConfigPorts + 4, kConfigPorts + 8, values()).say_alive().power_off(),
                 "data");
    EXPECT_EQ(ports.wrong, std::vector<u64>{});
}

TEST_P(SweepTest, EveryByteOfDeviceMemory) {
    struct Range {
        const char* name;
        u32 first;
        u32 end;
    };
    // Each on a machine of its own: what one access leaves behind is not to hide the next range.
    std::vector<Range> ranges = {{"I/O APIC", 0xfec0'0000, 0xfec0'1010},
                                 {"local APIC", 0xfee0'0000, 0xfee0'1000},
                                 {"end of 4 GiB", 0xffff'f000, 0xffff'fff8}};
    if (is_pc()) {
        ranges.push_back({"BARs", 0xc000'0000, 0xc004'0000});
        ranges.push_back({"HPET", 0xfed0'0000, 0xfed0'0500});
        ranges.push_back({"host bridge", 0xe000'0000, 0xe000'1010});
        ranges.push_back({"ISA bridge", 0xe00f'8000, 0xe00f'9010});
    } else {
        ranges.push_back({"virtio", 0xfeb0'0000, 0xfeb0'8010});
    }
    for (const Range& range : ranges)
        expect_alive(Guest().sweep_memory(range.first, range.end, values()).say_alive().power_off(),
                     range.name);
    EXPECT_EQ(memory.wrong, std::vector<u64>{});
    EXPECT_TRUE(memory.owners.contains("-"));
    const std::vector<const char*> owners =
        is_pc() ? std::vector<const char*>{"virtio disk",    "virtio net 0", "virtio rng",
                                           "virtio balloon", "virtio vsock", "AHCI",
                                           "HPET",           "I/O APIC",     "PCI ECAM"}
                : std::vector<const char*>{"virtio disk", "virtio net 0", "virtio rng", "virtio balloon",
                                           "virtio vsock"};
    for (const char* owner : owners)
        EXPECT_TRUE(std::ranges::any_of(memory.owners, [&](const std::string& name) {
            return name.starts_with(owner);
        })) << owner;
}

// Configuration space of every function, by ECAM.
TEST_P(SweepTest, EveryByteOfConfigurationSpace) {
    if (!is_pc()) GTEST_SKIP() << "no PCI";
    for (u32 device = 1; device < 14; ++device) {
        const u32 first = 0xe000'0000 + (device << 15);
        expect_alive(Guest().sweep_memory(first, first + 0x1010, values()).say_alive().power_off(),
                     "device " + std::to_string(device));
    }
    EXPECT_EQ(memory.wrong, std::vector<u64>{});
}

std::string name_of(const testing::TestParamInfo<std::tuple<MachineKind, Values>>& test) {
    constexpr std::array<const char*, 3> kNames{"Zeros", "Ones", "Random"};
    const auto [machine, values] = test.param;
    return std::string(machine == MachineKind::Pc ? "Pc" : "Microvm") +
           kNames.at(static_cast<std::size_t>(values));
}

INSTANTIATE_TEST_SUITE_P(All, SweepTest,
                         testing::Combine(testing::Values(MachineKind::Pc, MachineKind::Microvm),
                                          testing::Values(Values::Zeros, Values::Ones, Values::Random)),
                         name_of);

}  // namespace
}  // namespace tessera
