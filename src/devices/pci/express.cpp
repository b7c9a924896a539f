#include "devices/pci/express.h"

#include <array>
#include <cstring>

namespace tessera::pci {

namespace {

// [PCIE figure 7-10]: offsets in the capability.
constexpr u16 kExpressCapabilities = 0x02;
constexpr u16 kDeviceCapabilities = 0x04;
constexpr u16 kDeviceControl = 0x08;
constexpr u16 kLinkCapabilities = 0x0c;
constexpr u16 kLinkControl = 0x10;
constexpr u16 kLinkStatus = 0x12;
constexpr u16 kRootControl = 0x1c;
constexpr u16 kDeviceCapabilities2 = 0x24;
constexpr u16 kDeviceControl2 = 0x28;
constexpr u16 kLinkCapabilities2 = 0x2c;
constexpr u16 kLinkControl2 = 0x30;
constexpr u16 kSize = 0x3c;

constexpr unsigned kVersion = 2;
constexpr unsigned kKindShift = 4;
// [PCIE 7.8.3]
constexpr u32 kRoleBasedErrors = 1U << 15;
constexpr u32 kFunctionLevelReset = 1U << 28;
// [PCIE 7.8.4]: error reporting, relaxed ordering, no snoop, read request size (512 bytes at reset).
constexpr u16 kDeviceControlBits = 0x000f | 1U << 4 | 1U << 11 | 7U << 12;
constexpr u16 kDeviceControlReset = 1U << 4 | 1U << 11 | 2U << 12;
constexpr u8 kInitiateReset = 0x80;  // in the upper byte
// [PCIE 7.8.6] to [PCIE 7.8.8]
constexpr u32 kSpeed = 1;  // 2.5 GT/s
constexpr u32 kLanes = 1U << 4;
constexpr u32 kActiveReporting = 1U << 20;
constexpr u32 kPortShift = 24;
constexpr u16 kLinkActive = 1U << 13;
constexpr u16 kLinkControlBits = 1U << 3 | 1U << 6 | 1U << 7;  // RCB, common clock, extended sync
// [PCIE 7.8.12]
constexpr u16 kRootControlBits = 0x000f;
// [PCIE 7.8.15], [PCIE 7.8.16]
constexpr u32 kTimeoutDisable = 1U << 4;
constexpr u32 kSpeedVector = 1U << 1;

class Image {
public:
    void put16(u16 offset, u16 value) { std::memcpy(bytes.data() + offset - 2, &value, sizeof value); }
    void put32(u16 offset, u32 value) { std::memcpy(bytes.data() + offset - 2, &value, sizeof value); }
    std::array<u8, kSize - 2> bytes{};
};

}  // namespace

u8 add_express(ConfigSpace& config, ExpressKind kind, u8 port) {
    const bool is_root_port = kind == ExpressKind::RootPort;
    Image value;
    Image writable;
    value.put16(kExpressCapabilities, static_cast<u16>(kVersion | static_cast<unsigned>(kind) << kKindShift));
    value.put32(kDeviceCapabilities, kRoleBasedErrors | (is_root_port ? 0 : kFunctionLevelReset));
    value.put16(kDeviceControl, kDeviceControlReset);
    writable.put16(kDeviceControl, kDeviceControlBits);
    // [PCIE 7.8] A root complex integrated endpoint has no link.
    if (kind != ExpressKind::IntegratedEndpoint) {
        value.put32(kLinkCapabilities,
                    kSpeed | kLanes | u32{port} << kPortShift | (is_root_port ? kActiveReporting : 0));
        value.put16(kLinkStatus, static_cast<u16>(kSpeed | kLanes | (is_root_port ? kLinkActive : 0U)));
        writable.put16(kLinkControl, kLinkControlBits);
        value.put32(kLinkCapabilities2, kSpeedVector);
        value.put16(kLinkControl2, kSpeed);
    }
    if (is_root_port) writable.put16(kRootControl, kRootControlBits);
    value.put32(kDeviceCapabilities2, kTimeoutDisable);
    writable.put16(kDeviceControl2, kTimeoutDisable);
    const u8 offset = config.add_capability(CapabilityId::Express, value.bytes, writable.bytes);
    if (!is_root_port) config.set_reset_bit(static_cast<u16>(offset + kDeviceControl + 1), kInitiateReset);
    return offset;
}

}  // namespace tessera::pci
