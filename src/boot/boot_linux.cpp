#include "boot/boot_linux.h"

#include <algorithm>
#include <fmt/format.h>

#include "base/assert.h"
#include "base/size_text.h"
#include "boot/acpi/acpi_tables.h"
#include "boot/bytes.h"
#include "boot/bzimage/bzimage.h"
#include "boot/bzimage/setup_header.h"
#include "boot/cpu_start.h"
#include "boot/initrd/initrd.h"
#include "boot/kernel_place.h"
#include "boot/linux_info.h"
#include "boot/low_memory.h"
#include "boot/mp_table/mp_table.h"
#include "boot/smbios/smbios.h"

namespace tessera::boot {

namespace {

constexpr u64 kSmallestRam = 2 * kMiB;
constexpr std::size_t kMaxCpus = 1024;  // what the tables' space is made for
constexpr std::size_t kMaxRandomSeed = 256;

void store(MemoryMap& memory, u64 address, std::span<const std::byte> bytes) {
    const bool stored = memory.write(address, bytes);
    TESSERA_ASSERT(stored, "the range was checked to be RAM");
}

Status check(const BootRequest& request, const MemoryMap& memory, const std::vector<E820Entry>& map) {
    const std::size_t cpus = request.board.apic_ids.size();
    if (cpus == 0 || cpus > kMaxCpus)
        return fail(Errc::InvalidArgument, fmt::format("{} CPUs: a machine has 1 to {}", cpus, kMaxCpus));
    if (low_ram_end(map) < kSmallestRam || !is_usable(map, 0, kEbdaBase))
        return fail(Errc::InvalidArgument,
                    fmt::format("memory too small: {} below 4 GiB; give the machine at least {}",
                                size_text(low_ram_end(map)), size_text(kSmallestRam)));
    const MemoryRegion* tables = memory.find(kTablesBase);
    const MemoryRegion* ebda = memory.find(kEbdaBase);
    if (ebda == nullptr || ebda->kind != RegionKind::Ram || ebda->base + ebda->size < kBaseMemoryEnd ||
        tables == nullptr || tables->kind != RegionKind::Ram || tables->base + tables->size < kTablesEnd)
        return fail(Errc::InvalidArgument,
                    fmt::format("the machine has no RAM at {:#x} or {:#x}, where firmware keeps its tables",
                                kEbdaBase, kTablesBase));
    if (map.size() > boot_params::kE820Max)
        return fail(Errc::InvalidArgument, fmt::format("{} pieces of memory; at most {} can be reported",
                                                       map.size(), boot_params::kE820Max));
    if (request.random_seed.size() > kMaxRandomSeed)
        return fail(Errc::InvalidArgument, fmt::format("a random seed of {} bytes; at most {} are taken",
                                                       request.random_seed.size(), kMaxRandomSeed));
    if (request.cmdline.find('\0') != std::string_view::npos)
        return fail(Errc::InvalidArgument, "the kernel command line has a zero byte in it");
    return {};
}

Status check_cmdline(const BootRequest& request, const LoadedKernel& kernel) {
    constexpr u64 kRoom = low_memory::kCommandLineEnd - low_memory::kCommandLine - 1;
    const u64 limit = std::min(kernel.cmdline_max, kRoom);
    if (request.cmdline.size() <= limit) return {};
    return fail(Errc::InvalidArgument,
                fmt::format("command line too long: {} characters, {} takes at most {}; shorten it",
                            request.cmdline.size(), request.kernel.name, limit));
}

// As high as the kernel allows: kernels grow upwards from where they are loaded.
Result<u64> place_initrd(const BootFile& initrd, const LoadedKernel& kernel,
                         const std::vector<E820Entry>& map) {
    const u64 size = initrd.bytes.size();
    const u64 ram_end = low_ram_end(map);
    const u64 limit = std::min(ram_end, kernel.initrd_address_max + 1);
    const u64 floor = (kernel.end + kPageMask) & ~kPageMask;
    if (limit >= size) {
        const u64 address = (limit - size) & ~kPageMask;
        if (address >= floor) return address;
    }
    const u64 above = high_ram_size(map);
    if (kernel.initrd_above_4g && above >= size && is_usable(map, kPciHoleEnd, above))
        return (kPciHoleEnd + above - size) & ~kPageMask;

    const u64 room = limit > floor ? limit - floor : 0;
    const std::string what =
        fmt::format("{}: the initrd does not fit: it has {}, above the kernel there are {}", initrd.name,
                    size_text(size), size_text(room));
    const u64 needed = floor + ((size + kPageMask) & ~kPageMask);
    if (needed <= std::min(kPciHoleBase, kernel.initrd_address_max + 1))
        return fail(Errc::InvalidArgument,
                    fmt::format("{}; give the machine at least {} MiB", what, (needed + kMiB - 1) / kMiB));
    return fail(Errc::InvalidArgument,
                fmt::format("{}; this kernel takes none that ends above {:#x}: use a smaller one", what,
                            std::min(kPciHoleBase - 1, kernel.initrd_address_max)));
}

// The words programs and Linux read from the BIOS data area: serial ports, base memory, EBDA.
void write_bios_data(MemoryMap& memory, const BoardDescription& board) {
    ByteWriter data;
    for (std::size_t n = 0; n < 4; ++n)
        data.put16(n < board.serial_ports.size() ? board.serial_ports[n].port : 0);
    data.zeros(0x100 - data.size());
    data.patch<u16>(0x0e, static_cast<u16>(kEbdaBase >> 4));
    data.patch<u16>(0x13, static_cast<u16>(kEbdaBase / kKiB));
    store(memory, low_memory::kBiosData, data.bytes());

    ByteWriter ebda;
    ebda.put8((kBaseMemoryEnd - kEbdaBase) / kKiB).zeros(kBaseMemoryEnd - kEbdaBase - 1);
    store(memory, kEbdaBase, ebda.bytes());
}

u64 write_setup_data(MemoryMap& memory, std::span<const std::byte> random_seed) {
    if (random_seed.empty()) return 0;
    ByteWriter link;
    link.put<u64>(0).put(boot_params::kSetupDataRngSeed).put(static_cast<u32>(random_seed.size()));
    link.append(random_seed);
    static_assert(low_memory::kSetupData + 16 + kMaxRandomSeed <= low_memory::kSetupDataEnd);
    store(memory, low_memory::kSetupData, link.bytes());
    return low_memory::kSetupData;
}

// Gives the RSDP's address.
Result<u64> write_firmware_tables(MemoryMap& memory, const BoardDescription& board,
                                  const std::vector<E820Entry>& map) {
    const auto acpi = make_acpi_tables(board, kTablesBase, low_memory::kAcpiTablesEnd);
    if (!acpi) return std::unexpected(acpi.error());
    store(memory, kTablesBase, acpi->bytes);

    const RamSplit ram{.below_4g = low_ram_end(map), .above_4g = high_ram_size(map)};
    const auto smbios = make_smbios(board, ram, low_memory::kSmbios);
    if (!smbios) return std::unexpected(smbios.error());
    TESSERA_ASSERT(smbios->size() <= low_memory::kMpTable - low_memory::kSmbios, "texts are bounded");
    store(memory, low_memory::kSmbios, *smbios);

    const auto mp_table = make_mp_table(board, low_memory::kMpTable);
    TESSERA_ASSERT(mp_table.size() <= low_memory::kMpTableEnd - low_memory::kMpTable,
                   "at most 255 CPUs are listed");
    store(memory, low_memory::kMpTable, mp_table);
    return acpi->rsdp;
}

x86::State enter(MemoryMap& memory, const LoadedKernel& kernel, const KernelParameters& parameters,
                 const std::vector<E820Entry>& map) {
    if (kernel.entry == KernelEntry::Pvh) {
        const auto info = make_pvh_info(parameters, map, low_memory::kPvhInfo);
        store(memory, low_memory::kPvhInfo, info);
        return enter_pvh(memory, static_cast<u32>(kernel.entry_address), low_memory::kPvhInfo);
    }
    store(memory, low_memory::kBootParams, make_boot_params(kernel, parameters, map));
    if (kernel.entry == KernelEntry::Linux64)
        return enter_linux64(memory, kernel.entry_address, low_memory::kBootParams);
    return enter_linux32(memory, static_cast<u32>(kernel.entry_address), low_memory::kBootParams);
}

Result<LoadedKernel> load(const BootRequest& request, const std::vector<E820Entry>& map, MemoryMap& memory) {
    if (!request.direct || !looks_like_bzimage(request.kernel.bytes))
        return load_kernel(request.kernel, request.entry, map, memory);
    DirectStart start = *request.direct;
    const PlaceWishes wishes = place_wishes(request.cmdline);
    if (wishes.fixed) start.random.reset();
    start.fixed_physical = start.fixed_physical || wishes.fixed_physical;
    const u64 initrd_size = request.initrd ? request.initrd->bytes.size() : 0;
    return load_direct(request.kernel, start, request.entry, initrd_size, map, memory);
}

}  // namespace

Result<StartState> boot_linux(const BootRequest& request, MemoryMap& memory) {
    const auto map = e820_of(memory, request.board);
    if (auto status = check(request, memory, map); !status) return std::unexpected(status.error());
    const auto kernel = load(request, map, memory);
    if (!kernel) return std::unexpected(kernel.error());
    if (auto status = check_cmdline(request, *kernel); !status) return std::unexpected(status.error());

    KernelParameters parameters;
    if (request.initrd) {
        // What a PVH kernel takes as its module is its own affair.
        const bool is_linux = kernel->entry != KernelEntry::Pvh;
        if (auto status = check_initrd(request.initrd->name, request.initrd->bytes); is_linux && !status)
            return std::unexpected(status.error());
        const auto address = place_initrd(*request.initrd, *kernel, map);
        if (!address) return std::unexpected(address.error());
        store(memory, *address, request.initrd->bytes);
        parameters.initrd_address = *address;
        parameters.initrd_size = request.initrd->bytes.size();
    }
    ByteWriter cmdline;
    cmdline.text(request.cmdline).put8(0);
    store(memory, low_memory::kCommandLine, cmdline.bytes());
    parameters.cmdline_address = low_memory::kCommandLine;
    parameters.cmdline_size = request.cmdline.size();
    if (kernel->boot_protocol >= 0x0209)
        parameters.setup_data_address = write_setup_data(memory, request.random_seed);
    write_bios_data(memory, request.board);
    const auto rsdp = write_firmware_tables(memory, request.board, map);
    if (!rsdp) return std::unexpected(rsdp.error());
    parameters.rsdp_address = *rsdp;

    StartState start{
        .bootstrap = enter(memory, *kernel, parameters, map),
        .application = application_processor(request.board),
        .cmos = cmos_values(memory, request.board),
        .kernel = *kernel,
        .initrd_address = parameters.initrd_address,
        .initrd_size = parameters.initrd_size,
        .rsdp_address = parameters.rsdp_address,
    };
    set_memory_types(start.bootstrap, request.board);
    return start;
}

}  // namespace tessera::boot
