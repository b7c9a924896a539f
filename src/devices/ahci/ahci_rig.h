// An AHCI controller on the bench: guest memory, disks that stall and fail, and what a driver does.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <span>
#include <vector>

#include "devices/ahci/ahci.h"
#include "devices/ata/ata_disk.h"
#include "devices/ata/atapi_cdrom.h"
#include "devices/pci/pci_rig.h"
#include "devices/testing/device_rig.h"
#include "devices/virtio/testing/bench.h"
#include "devices/virtio/testing/guest_ram.h"
#include "devices/virtio_blk/virtio_blk_rig.h"

namespace tessera::ahci {

using virtio_blk::MemoryDisk;

// A piece of guest memory in a command's list.
struct Region {
    u64 address = 0;
    u32 bytes = 0;
    bool interrupt = false;
};

// A command as a driver writes it.
struct Order {
    u8 command = 0;
    u64 lba = 0;
    u16 count = 0;
    u16 features = 0;
    u8 device = 0x40;
    std::vector<Region> regions{};  // NOLINT(readability-redundant-member-init)
    std::vector<u8> packet{};       // NOLINT(readability-redundant-member-init)
};

struct AhciRig {
    static constexpr unsigned kPorts = 3;        // two disks, a CD drive
    static constexpr u64 kPortBytes = 0x8'0000;  // of guest memory: list, FISes, tables, data
    static constexpr u64 kFises = 0x400;
    static constexpr u64 kTables = 0x1'0000;
    static constexpr u64 kTableBytes = 0x1000;
    static constexpr u64 kData = 0x4'0000;

    testing_rig::RecordingSink wires;
    pci::RecordingUplink uplink;
    virtio::BenchRam ram;
    virtio::BenchKicker kicker;
    std::array<MemoryDisk, kPorts> disks;
    ata::AtaDisk first{{.serial = "serial-1"}, disks[0]};
    ata::AtaDisk second{{.serial = "serial-2", .write_cache = false}, disks[1]};
    ata::AtapiCdrom cdrom{"serial-3", &disks[2]};
    std::array<ata::Drive*, kPorts> drives{&first, &second, &cdrom};
    Ahci device{{.vendor = 0x7e55, .device = 0x10}, drives, ram.map, kicker};

    AhciRig() {
        device.config().connect(uplink, IrqLine(wires, 5));
        for (MemoryDisk& disk : disks) disk.bytes = pattern();
    }

    // What the disks hold; made once, because fuzzers make many rigs.
    static const std::vector<u8>& pattern() {
        static const std::vector<u8> bytes = [] {
            std::vector<u8> made(MemoryDisk::kSize);
            for (std::size_t n = 0; n < made.size(); ++n) made[n] = static_cast<u8>(n / kSectorSize * 7 + n);
            return made;
        }();
        return bytes;
    }
    void master(bool on) {
        const auto data = std::bit_cast<std::array<std::byte, 2>>(static_cast<u16>(on ? 6 : 2));
        device.write_config(pci::kCommand, data);
    }
    [[nodiscard]] u32 in(u64 offset) {
        std::array<std::byte, 4> data{};
        (void)device.read(offset, data);
        return std::bit_cast<u32>(data);
    }
    void out(u64 offset, u32 value) {
        (void)device.write(offset, std::bit_cast<std::array<std::byte, 4>>(value));
    }
    [[nodiscard]] static u64 at(unsigned port, u64 reg) { return 0x100 + 0x80 * u64{port} + reg; }
    [[nodiscard]] u32 px(u64 reg, unsigned port = 0) { return in(at(port, reg)); }
    void set_px(u64 reg, u32 value, unsigned port = 0) { out(at(port, reg), value); }
    // Of guest memory.
    [[nodiscard]] static u64 base(unsigned port) { return port * kPortBytes; }
    [[nodiscard]] static u64 data(unsigned port = 0) { return base(port) + kData; }
    [[nodiscard]] static u64 table(unsigned slot, unsigned port = 0) {
        return base(port) + kTables + slot * kTableBytes;
    }
    void put32(u64 address, u32 value) const { std::memcpy(ram.at(address), &value, sizeof value); }
    [[nodiscard]] u32 get32(u64 address) const {
        u32 value = 0;
        std::memcpy(&value, ram.at(address), sizeof value);
        return value;
    }
    [[nodiscard]] u8 get8(u64 address) const { return std::to_integer<u8>(*ram.at(address)); }
    [[nodiscard]] u8 fis(u64 place, unsigned byte, unsigned port = 0) const {
        return get8(base(port) + kFises + place + byte);
    }

    // What a driver does before its first command [AHCI 10.1.2].
    void start(unsigned port = 0) {
        master(true);
        out(0x04, 0x8000'0002);
        set_px(0x00, static_cast<u32>(base(port)), port);
        set_px(0x04, 0, port);
        set_px(0x08, static_cast<u32>(base(port) + kFises), port);
        set_px(0x0c, 0, port);
        set_px(0x18, 0x16, port);
        set_px(0x30, ~0U, port);
        set_px(0x10, ~0U, port);
        out(0x08, ~0U);
        set_px(0x14, 0x7dc0'007f, port);
        set_px(0x18, 0x17, port);
    }
    // After an error: the list is stopped, the link reset if the disk is stuck, and the list started again
    // [AHCI 6.2.2.1].
    void restart(unsigned port = 0) {
        set_px(0x18, 0x16, port);
        (void)run();
        if ((px(0x20, port) & 0x88) != 0) {
            set_px(0x2c, 0x301, port);
            set_px(0x2c, 0x300, port);
        }
        set_px(0x30, ~0U, port);
        set_px(0x10, ~0U, port);
        out(0x08, ~0U);
        set_px(0x18, 0x17, port);
    }
    // Writes a command to its slot.
    void put(const Order& order, unsigned slot = 0, unsigned port = 0) const {
        const u64 header = base(port) + 32 * u64{slot};
        const u64 to = table(slot, port);
        const u32 atapi = order.packet.empty() ? 0 : 0x20;
        put32(header, 5 | atapi | static_cast<u32>(order.regions.size()) << 16);
        put32(header + 4, 0);
        put32(header + 8, static_cast<u32>(to));
        put32(header + 12, 0);
        const auto byte = [&](u64 value, unsigned shift) { return static_cast<u8>(value >> shift); };
        const std::array<u8, 20> fis = {0x27,
                                        0x80,
                                        order.command,
                                        byte(order.features, 0),
                                        byte(order.lba, 0),
                                        byte(order.lba, 8),
                                        byte(order.lba, 16),
                                        order.device,
                                        byte(order.lba, 24),
                                        byte(order.lba, 32),
                                        byte(order.lba, 40),
                                        byte(order.features, 8),
                                        byte(order.count, 0),
                                        byte(order.count, 8)};
        std::memcpy(ram.at(to), fis.data(), fis.size());
        std::memset(ram.at(to + 0x40), 0, 16);
        if (!order.packet.empty()) std::memcpy(ram.at(to + 0x40), order.packet.data(), order.packet.size());
        u64 entry = to + 0x80;
        for (const Region& region : order.regions) {
            put32(entry, static_cast<u32>(region.address));
            put32(entry + 4, static_cast<u32>(region.address >> 32));
            put32(entry + 8, 0);
            put32(entry + 12, (region.bytes - 1) | (region.interrupt ? 0x8000'0000 : 0));
            entry += 16;
        }
    }
    // For queues: the tag is the slot, the sectors are in the features.
    void put_queued(bool write, u64 lba, u16 sectors, unsigned slot, unsigned port = 0,
                    u8 device_bits = 0x40) const {
        put({.command = static_cast<u8>(write ? 0x61 : 0x60),
             .lba = lba,
             .count = static_cast<u16>(slot << 3),
             .features = sectors,
             .device = device_bits,
             .regions = {{.address = data(port) + u64{slot} * 0x1000, .bytes = sectors * 512U}}},
            slot, port);
    }
    void issue(u32 slots, unsigned port = 0) { set_px(0x38, slots, port); }
    void issue_queued(u32 tags, unsigned port = 0) {
        set_px(0x34, tags, port);
        set_px(0x38, tags, port);
    }
    // Until the worker has nothing left; false: it never has enough.
    bool run() { return kicker.run(device); }
    // A command from beginning to end in slot 0; returns PxTFD.
    u32 command(const Order& order, unsigned port = 0) {
        put(order, 0, port);
        issue(1, port);
        (void)run();
        return px(0x20, port);
    }

    // --- For the shared suites and the fuzzer: a driver, mostly sane.
    u64 poke(testing_rig::Choices& choices) {
        const u64 seen = poke_once(choices);
        if (!run()) TESSERA_ASSERT(false, "the controller finds an end");
        return seen;
    }
    // Memory and disks are not in a snapshot of the controller.
    void copy_surroundings(const AhciRig& from) {
        std::ranges::copy(from.ram.bytes(), ram.bytes().begin());
        for (unsigned n = 0; n < kPorts; ++n) {
            disks.at(n).bytes = from.disks.at(n).bytes;
            disks.at(n).fail_with = from.disks.at(n).fail_with;
        }
    }
    [[nodiscard]] bool same_surroundings(const AhciRig& other) const {
        return std::ranges::equal(ram.bytes(), other.ram.bytes()) &&
               std::ranges::equal(disks, other.disks, {}, &MemoryDisk::bytes, &MemoryDisk::bytes);
    }

private:
    u64 poke_once(testing_rig::Choices& choices) {
        const auto port = static_cast<unsigned>(choices.below(kPorts));
        switch (choices.below(16)) {
            case 0:
                if (choices.coin()) start(port);
                return 0;
            case 1: restart(port); return 0;
            case 2: return pci::poke_config(device, choices);
            case 3: master(choices.below(4) != 0); return 0;
            case 4: {
                const u64 place =
                    choices.coin() ? table(static_cast<unsigned>(choices.below(32)), port) : base(port);
                put32(place + 4 * choices.below(64), static_cast<u32>(choices.bits()));
                return 0;
            }
            case 5: {
                const bool fails = choices.below(4) == 0;
                disks.at(port).fail_with = fails ? BlockStatus::IoError : BlockStatus::Ok;
                return 0;
            }
            case 6:
            case 7:
            case 8:
            case 9: return poke_command(choices, port);
            case 10: {
                const auto slot = static_cast<unsigned>(choices.below(32));
                put_queued(choices.coin(), choices.below(520), static_cast<u16>(1 + choices.below(8)), slot,
                           port);
                issue_queued(1U << slot, port);
                return px(0x34, port);
            }
            case 11: set_px(8 * choices.below(16), static_cast<u32>(choices.bits()), port); return 0;
            default: return testing_rig::poke_io(device, choices.coin() ? 0x200 : kAbarSize, choices);
        }
    }
    u64 poke_command(testing_rig::Choices& choices, unsigned port) {
        const auto slot = static_cast<unsigned>(choices.below(32));
        const bool packet = port == 2 && choices.below(4) != 0;
        Order order{.command = packet ? u8{0xa0} : static_cast<u8>(choices.bits()),
                    .lba = choices.below(3) == 0 ? choices.bits() : choices.below(520),
                    .count = static_cast<u16>(choices.below(10)),
                    .features = static_cast<u16>(choices.below(300)),
                    .device = static_cast<u8>(choices.coin() ? 0x40 : choices.bits())};
        for (u64 n = choices.below(4); n != 0; --n)
            order.regions.push_back(
                {.address = choices.below(20) == 0 ? choices.bits() : data(port) + 2 * choices.below(0x8000),
                 .bytes = static_cast<u32>(choices.coin() ? 512 : 2 + 2 * choices.below(3000)),
                 .interrupt = choices.coin()});
        if (packet || choices.below(8) == 0)
            for (unsigned n = 0; n < 12; ++n)
                order.packet.push_back(static_cast<u8>(choices.coin() ? choices.bits() : 0));
        put(order, slot, port);
        issue(1U << slot, port);
        return px(0x20, port);
    }
};

}  // namespace tessera::ahci
