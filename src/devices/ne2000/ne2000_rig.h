// NE2000 cards on the bench: a cable with frames at its far end, work done when it is called for.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <deque>
#include <span>
#include <utility>
#include <vector>

#include "base/fake_clock.h"
#include "devices/ne2000/ne2000.h"
#include "devices/ne2000/ne2000_pci.h"
#include "devices/pci/pci_rig.h"
#include "devices/testing/device_rig.h"

namespace tessera::ne2000 {

class TestCable final : public NetBackend {
public:
    using Bytes = std::vector<u8>;

    std::size_t transmit(unsigned /*queue*/, std::span<const Frame> frames) override {
        std::size_t took = 0;
        for (const Frame& frame : frames) {
            if (room == 0) break;
            --room;
            ++took;
            Bytes bytes;
            for (const iovec& piece : frame.pieces) {
                const auto part = std::span(static_cast<const u8*>(piece.iov_base), piece.iov_len);
                bytes.insert(bytes.end(), part.begin(), part.end());
            }
            if (sent.size() < 1000) sent.push_back(std::move(bytes));
        }
        return took;
    }
    std::size_t next_size(unsigned /*queue*/) override {
        return waiting.empty() ? 0 : waiting.front().size();
    }
    std::size_t receive(unsigned /*queue*/, std::span<const iovec> pieces) override {
        if (waiting.empty()) return 0;
        const Bytes frame = std::move(waiting.front());
        waiting.pop_front();
        std::size_t done = 0;
        for (const iovec& piece : pieces) {
            const std::size_t step = std::min(piece.iov_len, frame.size() - done);
            if (step != 0) std::memcpy(piece.iov_base, std::span(frame).subspan(done).data(), step);
            done += step;
        }
        return done;
    }
    void drop(unsigned /*queue*/) override {
        ++dropped;
        if (!waiting.empty()) waiting.pop_front();
    }
    void connect(NetPeer* peer) override { card = peer; }

    // A frame arrives at the card's end.
    void arrive(const Bytes& frame, const NetHeader& header = {}) {
        Bytes all(sizeof header);
        std::memcpy(all.data(), &header, sizeof header);
        all.insert(all.end(), frame.begin(), frame.end());
        waiting.push_back(std::move(all));
        if (waiting.size() == 1 && card != nullptr) card->frames_waiting();
    }

    NetPeer* card = nullptr;
    std::size_t room = ~std::size_t{0};
    std::vector<Bytes> sent;
    std::deque<Bytes> waiting;
    unsigned dropped = 0;
};

class TestWorker final : public QueueKicker {
public:
    void kick(unsigned /*queue*/) override { asked = true; }
    void wake() override { asked = true; }
    // What was asked for, as a thread of its own would: with everything that follows from it.
    void work(Ne2000& card) {
        while (std::exchange(asked, false)) asked = card.service(0) || asked;
    }
    bool asked = false;
};

struct CardRigBase {
    FakeClock clock;
    testing_rig::RecordingSink wires;
    TestCable cable;
    TestWorker worker;

    [[nodiscard]] Ne2000::Around around() {
        return {.backend = cable, .worker = worker, .clock = clock, .timers = clock};
    }

    // The frames on the cable are not the card's.
    void copy_surroundings(const CardRigBase& from) {
        cable.room = from.cable.room;
        cable.waiting = from.cable.waiting;
        cable.sent = from.cable.sent;
        cable.dropped = from.cable.dropped;
        worker.asked = from.worker.asked;
    }
    [[nodiscard]] bool same_surroundings(const CardRigBase& other) const {
        return cable.room == other.cable.room && cable.waiting == other.cable.waiting &&
               cable.sent == other.cable.sent && cable.dropped == other.cable.dropped;
    }

    u64 poke_card(Ne2000& card, testing_rig::Choices& choices) {
        worker.work(card);
        switch (choices.below(16)) {
            case 0: return testing_rig::advance(clock, choices, Ne2000::kPatienceNs);
            case 1:
                cable.room = choices.below(4);
                card.transmit_ready();
                return 0;
            case 2: {
                TestCable::Bytes frame(choices.below(choices.coin() ? 100 : 1600));
                for (u8& byte : frame) byte = static_cast<u8>(choices.bits());
                // Often for a group, or for everybody.
                if (choices.coin() && frame.size() > 6)
                    std::ranges::fill(std::span(frame).first(6), u8{0xff});
                NetHeader header;
                header.flags = static_cast<u8>(choices.below(8) == 0 ? 1 : 0);
                if (cable.waiting.size() < 8) cable.arrive(frame, header);
                return 0;
            }
            // Registers, in the ways drivers use them, so that more than noise happens.
            case 3: return put(card, 0, choices.coin() ? 0x22 : 0x26);
            case 4: return put(card, 13, choices.coin() ? 0 : choices.below(32));
            case 5: {
                (void)put(card, 1, 0x46);
                (void)put(card, 2, 0x46 + choices.below(16));
                return put(card, 12, 0x1f);
            }
            case 6: return start_transfer(card, choices);
            case 7: {
                std::array<std::byte, 4> data{};
                const auto some = std::span(data).first(std::size_t{1} << choices.below(3));
                (void)card.read(kDataPort, some);
                return std::bit_cast<u32>(data);
            }
            // The reset port seldom: a chip that is reset all the time has little to show.
            default:
                return testing_rig::poke_io(card, choices.below(16) == 0 ? kPortCount : kResetPort, choices);
        }
    }

private:
    // Of the card's memory or ROM, to or from the data port.
    static u64 start_transfer(Ne2000& card, testing_rig::Choices& choices) {
        (void)put(card, 0, 0x22);
        const u64 address = choices.coin() ? choices.below(0x20) : choices.below(0x8000) + kRamBase;
        const u64 count = choices.below(choices.coin() ? 16 : 2000);
        (void)put(card, 8, address & 0xff);
        (void)put(card, 9, address >> 8);
        (void)put(card, 10, count & 0xff);
        (void)put(card, 11, count >> 8);
        return put(card, 0, choices.coin() ? 0x0a : 0x12);
    }
    static u64 put(Ne2000& card, u64 port, u64 value) {
        const std::array data = {static_cast<std::byte>(value)};
        return static_cast<u64>(card.write(port, data));
    }
};

struct IsaRig : CardRigBase {
    Ne2000 device{{}, around(), IrqLine(wires, 3)};
    IsaRig() { device.plug_in(); }
    u64 poke(testing_rig::Choices& choices) { return poke_card(device, choices); }
};

struct PciRig : CardRigBase {
    pci::RecordingMessages messages;
    NullLock lock;
    IoBus ports;
    IoBus memory;
    pci::PciBus bus{{.ports = ports, .memory = memory, .messages = messages, .interrupts = wires}};
    Ne2000Pci device{Mac{0x52, 0x54, 0x00, 0xab, 0xcd, 0xef}, around()};
    bool attached = false;
    PciRig() {
        attached = bus.attach("RTL8029AS", {.device = 0}, device, lock).has_value();
        device.card().plug_in();
    }
    u64 poke(testing_rig::Choices& choices) {
        if (choices.below(4) == 0) return pci::poke_config(device, choices);
        return poke_card(device.card(), choices);
    }
};

}  // namespace tessera::ne2000
