// The front door of the library: put a machine together and give it to a VM.
//
//     auto vm = Vm::create(cpus, OnReset::Restart);
//     build_machine(**vm, {.kernel = "vmlinuz", .serial = &backend, ...});
//     (*vm)->start();
//     (*vm)->wait();
#pragma once

#include <array>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "backends/block/block_backend.h"
#include "backends/char/char_backend.h"
#include "backends/event_loop/event_loop.h"
#include "backends/net/net_backend.h"
#include "backends/vsock/vsock_backend.h"
#include "base/result.h"
#include "base/types.h"
#include "bus/io_bus.h"
#include "cpu/cpu.h"
#include "cpu/kvm/kernel_vm.h"
#include "cpu/soft/soft_cpu.h"
#include "vm/vm.h"

namespace tessera {

enum class MachineKind : u8 {
    Pc,       // what an ordinary operating system expects
    Microvm,  // the least that boots Linux without waiting for what is missing
};

// How the kernel in a bzImage is started (docs/guides/kernels.md). Other kernels have one way only.
enum class KernelStart : u8 {
    Auto,    // directly if it can be unpacked here, else by its stub
    Stub,    // by the decompressor it brings along
    Direct,  // directly, or not at all
};

enum class DiskInterface : u8 {
    Virtio,  // a virtio block device
    Ahci,    // a SATA disk at an AHCI controller; `pc` only
};

struct DiskConfig {
    BlockBackend* backend = nullptr;  // stays the caller's, longer than the VM; used by this disk alone
    std::string serial{};             // NOLINT(readability-redundant-member-init)
    unsigned queues = 1;              // 1 to 16; virtio only
    bool writeback = true;            // false: each write is durable when the guest is told of it
    DiskInterface interface = DiskInterface::Virtio;
};

enum class NetModel : u8 {
    Virtio,     // a virtio network device
    Ne2000Pci,  // an RTL8029AS; `pc` only, as the next
    Ne2000Isa,
};

// What the jumpers of an ISA card are set to.
struct IsaPlace {
    u16 port = 0x300;
    unsigned interrupt = 5;
};
// What the board leaves to cards.
inline constexpr std::array<unsigned, 4> kIsaCardInterrupts = {3, 5, 7, 15};

// A CD and DVD drive at an AHCI controller; `pc` only.
struct CdromConfig {
    BlockBackend* disc = nullptr;  // as a disk's backend, and read only; null: the drive is empty
    std::string serial{};          // NOLINT(readability-redundant-member-init)
};

// A network card.
struct NetConfig {
    NetBackend* backend = nullptr;  // stays the caller's, longer than the VM; used by this card alone
    std::array<u8, 6> mac{};
    unsigned pairs = 1;                 // of queues, 1 to 16; no more than the backend has
    u16 mtu = 0;                        // as the guest is told; 0: it is not
    NetModel model = NetModel::Virtio;  // others know neither pairs nor MTU
    IsaPlace isa{};                     // NOLINT(readability-redundant-member-init)
};

enum class PciPlace : u8 {
    Bus0,      // the next free slot
    RootPort,  // behind a PCI Express root port of its own
};

// A serial port on a PCI card. The backend stays the caller's; it must stay until the VM has ended.
struct PciSerialConfig {
    CharBackend* backend = nullptr;
    PciPlace place = PciPlace::Bus0;
};

// A device that lets the guest give memory back.
struct BalloonConfig {
    u64 target = 0;  // bytes the guest is asked for at first
    bool deflate_on_oom = true;
    bool free_page_reporting = true;
};

// A port of the guest's virtio ports, /dev/virtio-ports/NAME.
struct PortConfig {
    CharBackend* backend = nullptr;  // stays the caller's, longer than the VM
    std::string name{};              // NOLINT(readability-redundant-member-init)
};

// Sockets between programs of the guest and of the host.
struct VsockConfig {
    VsockBackend* backend = nullptr;  // stays the caller's, longer than the VM; null: there are none
    u32 cid = 0;                      // the guest's, 3 to 0xfffffffe
};

enum class EngineChoice : u8 {
    Auto,  // KVM where it is hardware, else the software CPU
    Soft,
    Kvm,  // also where it is none
};

struct KvmSettings {
    kvm::Irqchip irqchip = kvm::Irqchip::Kernel;
    // What the guest's processor can do; none: all that the host's can.
    std::optional<x86::FeatureLevel> level = std::nullopt;
    bool host_cpu = false;  // the guest is to have the host's processor, and no other engine will do
    bool nested = false;    // the guest may be a hypervisor itself, where the host's processor lets it
    // False: the guest is not told of features by which it would call KVM. build_machine() says so itself
    // where KVM is no hardware.
    bool hypercalls = true;
    std::string device = kvm::kDevicePath;
};

struct MachineConfig {
    MachineKind kind = MachineKind::Pc;
    u64 memory = 512 * kMiB;  // bytes, a multiple of the page size, at least 2 MiB
    unsigned cpus = 1;        // the same number the VM was created with
    EngineChoice engine = EngineChoice::Auto;
    KvmSettings kvm{};  // NOLINT(readability-redundant-member-init)
    // How the software CPU works, and what its processor is. Its number of CPUs is `cpus` above.
    soft::SoftCpuConfig soft{};  // NOLINT(readability-redundant-member-init)

    // NOLINTBEGIN(readability-redundant-member-init): so that designated initialisers may leave them out
    std::string kernel{};   // path of a bzImage or an ELF kernel
    std::string initrd{};   // path; empty: none
    std::string cmdline{};  // the kernel's command line
    KernelStart kernel_start = KernelStart::Auto;
    // Told what is unusual but no error. On the loop's thread.
    std::function<void(std::string_view)> on_note{};
    // NOLINTEND(readability-redundant-member-init)

    std::vector<DiskConfig> disks{};    // NOLINT(readability-redundant-member-init)
    std::vector<CdromConfig> cdroms{};  // NOLINT(readability-redundant-member-init)
    bool rng = false;                   // a device that gives out the host's randomness

    std::vector<NetConfig> nets{};           // NOLINT(readability-redundant-member-init)
    std::optional<BalloonConfig> balloon{};  // NOLINT(readability-redundant-member-init)
    // The far end of a virtio console, hvc0; longer than the VM. Null: there is none.
    CharBackend* console = nullptr;
    std::vector<PortConfig> ports{};  // NOLINT(readability-redundant-member-init)
    VsockConfig vsock{};              // NOLINT(readability-redundant-member-init)
    // Where disks, network cards and ports are worked for; longer than the VM. Null: a thread of the
    // machine's own. Backends that call their card on the same loop save a change of threads. Nothing on it
    // may wait for the VM: a pause waits until what the guest rang before has been worked for there.
    EventLoop* io_loop = nullptr;

    // The far end of COM1. Stays the caller's; it must stay until the VM has ended. Null: nobody.
    CharBackend* serial = nullptr;

    // The far ends of further serial ports, on PCI cards; `pc` only.
    std::vector<PciSerialConfig> pci_serials{};  // NOLINT(readability-redundant-member-init)

    // Observers, for traces. Stay the caller's, longer than the VM. Null: none.
    CpuTracer* tracer = nullptr;
    BusObserver* port_observer = nullptr;
    BusObserver* mmio_observer = nullptr;
};

// Errors: HostFailure when the host lacks memory; everything else is about the files or the configuration and
// names which. The kernel is loaded here for the first time, so an unusable one is told before the VM starts.
Status build_machine(Vm& vm, const MachineConfig& config);

}  // namespace tessera
