// A local APIC on the bench, with a second one on the fabric.
#pragma once

#include "devices/lapic/lapic_fabric.h"
#include "devices/testing/device_rig.h"

namespace tessera::lapic {

struct LapicRig {
    struct CountingWaker final : CpuWaker {
        u64 count = 0;
        void wake() override { ++count; }
    };
    struct EchoPic final : PicAcknowledge {
        std::optional<u8> acknowledge_interrupt() override { return 0x30; }
    };
    // The most hostile listener: answers the end of an interrupt with the next one at once.
    struct EchoEoi final : EoiSink {
        explicit EchoEoi(LapicFabric& f) : fabric(f) {}
        void end_of_interrupt(u8 vector) override {
            ApicMessage again;
            again.vector = vector;
            again.trigger = TriggerMode::Level;
            if (vector % 2 == 0) fabric.deliver(again);
        }
        LapicFabric& fabric;
    };

    FakeClock clock;
    FakeTsc tsc{clock};
    LapicFabric fabric;
    CountingWaker waker;
    EchoPic pic;
    EchoEoi eoi{fabric};
    Lapic device{{.apic_id = 0, .bootstrap = true}, clock, tsc, clock, fabric};
    Lapic other{{.apic_id = 1}, clock, tsc, clock, fabric};

    LapicRig() {
        fabric.add(device);
        fabric.add(other);
        device.connect_waker(waker);
        device.connect_pic(pic);
        device.connect_eoi(eoi);
    }

    static constexpr std::array<unsigned, 1> kKeptByReset = {10};  // the pins' levels come from outside
    static constexpr u64 kNothing = 0x1000;

    u64 poke(testing_rig::Choices& choices) {
        switch (choices.below(16)) {
            case 0: return testing_rig::advance(clock, choices, 300'000);
            case 1: {
                ApicMessage message;
                message.destination =
                    static_cast<u32>(choices.below(4) == 0 ? choices.bits() : choices.below(2));
                message.destination_mode =
                    choices.coin() ? DestinationMode::Logical : DestinationMode::Physical;
                message.delivery_mode = static_cast<DeliveryMode>(choices.below(8));
                message.vector = static_cast<u8>(choices.bits());
                message.trigger = choices.coin() ? TriggerMode::Level : TriggerMode::Edge;
                if (message.delivery_mode == DeliveryMode::LowestPriority)
                    return 0;  // takes turns: not our state
                fabric.deliver(message);
                return 0;
            }
            case 2:
                fabric.lint_pins().set_level(static_cast<unsigned>(choices.below(3)), choices.coin());
                return 0;
            case 3: return device.acknowledge().value_or(kNothing);
            case 4: {
                const auto e = device.take_events();
                return u64{e.nmi} | u64{e.smi} << 1 | u64{e.init} << 2 | u64{e.sipi.value_or(kNothing)} << 3;
            }
            case 5: return u64{device.interrupt_pending()};
            case 6: device.set_cr8(static_cast<u8>(choices.below(16))); return device.cr8();
            case 7: return poke_special(choices);
            case 8:
            case 9:
            case 10:
            case 11: return poke_msr(choices);
            default: return poke_page(choices);
        }
    }

private:
    u64 poke_special(testing_rig::Choices& choices) {
        switch (choices.below(12)) {
            case 8: return u64{device.eoi_can_wait(static_cast<u8>(choices.bits()))};
            case 9: return u64{device.requested()};
            case 10: device.end_of_interrupt(); return 0;
            case 11:
                return u64{device.send_physical(static_cast<u32>(choices.bits()) & ~0x100u,
                                                static_cast<u32>(choices.below(3)))};
            case 0: device.set_tsc_offset(static_cast<s64>(choices.bits())); return 0;
            case 1: device.init_reset(); return 0;
            case 2: device.raise_local(static_cast<Lvt>(choices.below(kLvtCount))); return 0;
            case 3: device.enter_virtual_wire_mode(); return 0;
            case 4: return u64{device.owns_page(choices.coin() ? 0xfee0'0000 : choices.bits())};
            // Software enable, so that more of the rest happens.
            default: device.write_register(0xf0, 0x1ff); return 0;
        }
    }
    u64 poke_msr(testing_rig::Choices& choices) {
        static constexpr std::array<u32, 4> kOthers = {0x1b, 0x6e0, 0x10, 0x1b};
        const u32 index =
            choices.below(3) == 0 ? kOthers[choices.below(4)] : 0x800 + static_cast<u32>(choices.below(0x48));
        u64 value = choices.bits();
        if (index == 0x1b && choices.coin()) value = 0xfee0'0000 | choices.below(16) << 8;
        if (index == 0x6e0 && choices.coin()) value = clock.now_ns() + choices.below(100'000);
        if (choices.coin()) return static_cast<u64>(device.write_msr(index, value));
        u64 seen = 0;
        const MsrResult result = device.read_msr(index, seen);
        return seen * 4 + static_cast<u64>(result);
    }
    u64 poke_page(testing_rig::Choices& choices) {
        const u32 offset =
            static_cast<u32>(choices.below(16) == 0 ? choices.bits() : choices.below(0x40) << 4);
        if (choices.coin()) return device.read_register(offset);
        device.write_register(offset, static_cast<u32>(choices.bits()));
        return 0;
    }
};

}  // namespace tessera::lapic
