#include "machines/board/board.h"

#include <algorithm>
#include <array>
#include <fmt/format.h>
#include <sched.h>
#include <sys/random.h>
#include <utility>

#include "cpu/x86/cpuid.h"
#include "vm/host_threads.h"

namespace tessera {

namespace {

constexpr unsigned kLint0 = 0;
constexpr unsigned kPitIrq = 0;
constexpr u64 kPort92 = 0x92;
constexpr boot::IsaDevice kStandardRtc{.port = 0x70, .irq = 8};

acpi_pm::Config pm_config(const boot::BoardDescription& board) {
    const auto pm = board.acpi_pm.value_or(boot::AcpiPmDescription{});
    return {
        .s5_sleep_type = pm.s5_sleep_type,
        .timer_width = pm.pm_timer_bits == 24 ? acpi_pm::TimerWidth::Bits24 : acpi_pm::TimerWidth::Bits32};
}

u32 active_low_pins(const boot::BoardDescription& board) {
    constexpr u32 kLines = (u32{1} << boot::kPciInterruptLines) - 1;
    return board.pci ? kLines << boot::kPciFirstPin : 0;
}

// Above all RAM, at a multiple of its size, so that one large BAR can have nearly all of it; nothing when the
// processor's addresses do not reach.
std::optional<boot::PciDescription::Window> high_pci_window(u64 memory, unsigned address_bits) {
    constexpr u64 kSize = 32 * kGiB;
    const u64 ram_end = boot::kPciHoleEnd + boot::split_ram(memory).above_4g;
    const u64 first = (ram_end + (kSize - 1)) / kSize * kSize;
    if (address_bits < 36 || address_bits > 52 || first > (u64{1} << address_bits) - kSize)
        return std::nullopt;
    return boot::PciDescription::Window{.first = first, .last = first + (kSize - 1)};
}

unsigned com1_irq(const boot::BoardDescription& board) {
    return board.serial_ports.empty() ? 4 : board.serial_ports.front().irq;
}

// [APM 3 E.4.1]: leaves 80000002h to 80000004h, padded with zeros.
std::string brand_of(const CpuidOfGuest& cpuid) {
    std::string brand;
    for (u32 leaf = 0x8000'0002; leaf <= 0x8000'0004; ++leaf) {
        const x86::CpuidResult r = cpuid(leaf);
        for (const u32 four : {r.eax, r.ebx, r.ecx, r.edx})
            for (unsigned shift = 0; shift < 32; shift += 8) brand += static_cast<char>(four >> shift);
    }
    brand.resize(std::min(brand.find('\0'), brand.size()));
    return brand;
}

}  // namespace

CpuidOfGuest soft_cpuid(const MachineConfig& config) {
    const x86::CpuidContext cpu{.level = soft::feature_level(config.soft.model), .cpus = config.cpus};
    return [cpu](u32 leaf) { return x86::cpuid(cpu, leaf, 0); };
}

boot::BoardDescription describe_board(const MachineConfig& config, const CpuidOfGuest& cpuid) {
    auto board =
        config.kind == MachineKind::Pc ? boot::pc_board(config.cpus) : boot::microvm_board(config.cpus);
    const x86::CpuidResult identity = cpuid(1);
    board.cpu_signature = identity.eax;
    board.cpu_features = identity.edx;
    board.physical_address_bits = static_cast<u8>(cpuid(0x8000'0008).eax);
    if (board.pci) board.pci->memory64 = high_pci_window(config.memory, board.physical_address_bits);
    board.identity.processor = brand_of(cpuid);
    if (config.kind == MachineKind::Microvm)
        for (unsigned n = 0; n < virtio_device_count(config); ++n)
            board.virtio_mmio.push_back({.address = kVirtioMmioBase + n * kVirtioMmioStep,
                                         .size = virtio::Mmio::kSize,
                                         .gsi = kVirtioMmioFirstPin + n});
    return board;
}

Board::Board(Vm& vm, const MachineConfig& config, boot::BoardDescription description)
    : vm_(vm),
      config_(config),
      description_(std::move(description)),
      timers_(vm.add_timers(lock_)),
      io_apic_({.id = boot::io_apic_id(description_), .active_low_pins = active_low_pins(description_)},
               fabric_),
      pic_(IrqLine(own_fabric_.lint_pins(), kLint0)),
      com1_(isa_line(com1_irq(description_)), config.serial != nullptr ? *config.serial : nobody_, lock_,
            vm.clock(), timers_),
      pit_(vm.clock(), timers_, IrqLine(legacy_timers_.old_timers(), kPitIrq)),
      keyboard_controller_(isa_line(description_.keyboard.value_or(boot::KeyboardController{}).keyboard_irq),
                           isa_line(description_.keyboard.value_or(boot::KeyboardController{}).mouse_irq), vm,
                           a20_, vm.clock(), timers_),
      port92_(vm, a20_),
      acpi_pm_(pm_config(description_),
               isa_line(description_.acpi_pm.value_or(boot::AcpiPmDescription{}).sci_irq), vm, vm.clock(),
               timers_),
      rtc_({}, IrqLine(rtc_alarm_, description_.rtc.value_or(kStandardRtc).irq), vm.clock(), timers_),
      hpet_(description_.hpet.value_or(boot::HpetDescription{}).vendor,
            {.io_apic = shared_inputs_.second(),
             .legacy = legacy_timers_.hpet(),
             .legacy_selected = IrqLine(hpet_select_, 0),
             .messages = messages_},
            vm.clock(), timers_),
      reset_control_(vm) {}

Result<std::unique_ptr<Board>> Board::create(Vm& vm, const MachineConfig& config,
                                             boot::BoardDescription description, EngineKind engine) {
    std::unique_ptr<Board> board(new Board(vm, config, std::move(description)));
    board->add_local_apics();
    for (Status (Board::*step)() :
         {&Board::open_files, &Board::add_memory, &Board::add_ports, &Board::add_mmio, &Board::add_pci,
          &Board::add_virtio, &Board::add_sata, &Board::add_ne2000})
        if (auto status = (board.get()->*step)(); !status) return std::unexpected(std::move(status.error()));
    if (auto status = board->add_cpus(engine); !status) return std::unexpected(std::move(status.error()));
    if (config.serial != nullptr) config.serial->connect(&board->com1_);
    return board;
}

Status Board::open_files() {
    auto kernel = HostFile::open(config_.kernel);
    if (!kernel) return std::unexpected(std::move(kernel.error()));
    kernel_ = std::move(*kernel);
    if (config_.initrd.empty()) return {};
    auto initrd = HostFile::open(config_.initrd);
    if (!initrd) return std::unexpected(std::move(initrd.error()));
    initrd_ = std::move(*initrd);
    return {};
}

// --- Memory ---

Status Board::add_ram(std::string name, u64 base, u64 size, GuestRam& ram, u64 offset) {
    if (auto status = mmio_.reserve(name, base, size); !status) return status;
    return memory_.add(std::move(name), RegionKind::Ram, base, ram.bytes().subspan(offset, size));
}

// Nothing answers from A0000h to the firmware's tables: no display, no option ROMs.
Status Board::add_memory() {
    const boot::RamSplit split = boot::split_ram(config_.memory);
    auto low = GuestRam::create("tessera-ram-low", split.below_4g);
    if (!low) return std::unexpected(std::move(low.error()));
    ram_.push_back(std::move(*low));
    GuestRam& below = *ram_.back();
    if (auto status = add_ram("base memory", 0, boot::kBaseMemoryEnd, below, 0); !status) return status;
    if (auto status = add_ram("memory", boot::kTablesBase, split.below_4g - boot::kTablesBase, below,
                              boot::kTablesBase);
        !status)
        return status;
    if (split.above_4g == 0) return {};
    auto high = GuestRam::create("tessera-ram-high", split.above_4g);
    if (!high) return std::unexpected(std::move(high.error()));
    ram_.push_back(std::move(*high));
    return add_ram("memory above 4 GiB", boot::kPciHoleEnd, split.above_4g, *ram_.back(), 0);
}

Status Board::clear_memory() {
    for (const auto& ram : ram_)
        if (auto status = ram->clear(); !status) return status;
    for (const auto& region : memory_.regions()) memory_.changed_in_host(region->base, region->size);
    return {};
}

// --- Chips ---

void Board::add_local_apics() {
    for (unsigned i = 0; i < config_.cpus; ++i) {
        auto apic = std::make_unique<LocalApic>();
        HostTimers& timers = vm_.add_timers(apic->no_lock);
        apic->chip = std::make_unique<lapic::Lapic>(
            lapic::Lapic::Config{.apic_id = description_.apic_ids[i],
                                 .bootstrap = i == 0,
                                 .physical_address_bits = description_.physical_address_bits},
            vm_.clock(), vm_.tsc(), timers, own_fabric_);
        apic->chip->connect_waker(vm_.waker(i));
        apic->chip->connect_eoi(apic_to_board_);
        if (description_.has_pic) apic->chip->connect_pic(apic_to_board_);
        own_fabric_.add(*apic->chip);
        apics_.push_back(std::move(apic));
    }
}

Status Board::add_ports() {
    struct Place {
        const char* name;
        u64 base;
        u64 size;
        IoDevice* device;
    };
    std::vector<Place> places;
    if (!description_.serial_ports.empty())
        places.push_back({"COM1", description_.serial_ports.front().port, uart16550::kRegisterCount, &com1_});
    if (description_.has_pic) {
        using Pic = pic8259::Pic8259Pair;
        places.push_back({"8259A master", Pic::kMasterBase, Pic::kPortCount, &pic_.master_ports()});
        places.push_back({"8259A slave", Pic::kSlaveBase, Pic::kPortCount, &pic_.slave_ports()});
        places.push_back({"8259A ELCR", Pic::kElcrBase, Pic::kPortCount, &pic_.elcr_ports()});
    }
    if (description_.has_pit) {
        using Pit = pit8254::Pit8254;
        places.push_back({"8254", Pit::kCounterBase, Pit::kCounterPorts, &pit_.counter_ports()});
        places.push_back({"port 61h", Pit::kSpeakerBase, Pit::kSpeakerPorts, &pit_.speaker_port()});
    }
    if (description_.keyboard) {
        places.push_back(
            {"i8042 data", description_.keyboard->data_port, 1, &keyboard_controller_.data_port()});
        places.push_back(
            {"i8042 command", description_.keyboard->command_port, 1, &keyboard_controller_.command_port()});
    }
    if (description_.has_port92) places.push_back({"port 92h", kPort92, port92::kRegisterCount, &port92_});
    if (description_.rtc) places.push_back({"RTC", description_.rtc->port, rtc_mc146818::kPortCount, &rtc_});
    if (description_.acpi_pm) {
        places.push_back({"ACPI PM", description_.acpi_pm->pm1_event, acpi_pm::kPmBlockSize, &acpi_pm_});
        places.push_back(
            {"ACPI GPE0", description_.acpi_pm->gpe0, acpi_pm::kGpe0BlockSize, &acpi_pm_.gpe0()});
    }
    // With PCI the reset register lies among its configuration ports.
    if (description_.reset && !description_.pci)
        places.push_back(
            {"reset control", description_.reset->port, reset_control::kRegisterCount, &reset_control_});
    for (const Place& place : places)
        if (auto status = ports_.add(place.name, place.base, place.size, *place.device, lock_); !status)
            return status;
    ports_.set_observer(config_.port_observer);
    return {};
}

Status Board::add_mmio() {
    mmio_.set_observer(config_.mmio_observer);
    if (description_.hpet)
        if (auto status = mmio_.add("HPET", description_.hpet->address, hpet::kSize, hpet_, lock_); !status)
            return status;
    if (!description_.io_apic) return {};
    return mmio_.add("I/O APIC", description_.io_apic->address, ioapic::IoApic::kSize, io_apic_page_, lock_);
}

Status Board::add_pci() {
    if (!description_.pci) {
        if (config_.pci_serials.empty()) return {};
        return fail(Errc::InvalidArgument, fmt::format("{} has no PCI for serial ports", description_.name));
    }
    pci_ = std::make_unique<PciPart>(*description_.pci, PciPart::Around{.ports = ports_,
                                                                        .mmio = mmio_,
                                                                        .messages = messages_,
                                                                        .io_apic = shared_inputs_.first(),
                                                                        .pic = pic_inputs_.second(),
                                                                        .board = lock_,
                                                                        .reset_register = reset_control_});
    if (auto status = pci_->add(); !status) return status;
    for (const PciSerialConfig& serial : config_.pci_serials) {
        PciSerial& card = *pci_serials_.emplace_back(std::make_unique<PciSerial>(*serial.backend, vm_));
        const std::string name = fmt::format("PCI serial port {}", pci_serials_.size());
        auto status = serial.place == PciPlace::RootPort
                          ? pci_->attach_behind_port(name, card.function(), card.lock())
                          : pci_->attach(name, card.function(), card.lock());
        if (!status) return status;
    }
    return {};
}

Status Board::need_io_loop() {
    if (config_.io_loop != nullptr) return {};
    auto loop = EventLoop::create("tessera-io", EventLoop::Idle::LooksFirst);
    if (!loop) return std::unexpected(std::move(loop.error()));
    own_io_loop_ = std::move(*loop);
    config_.io_loop = own_io_loop_.get();
    return {};
}

Status Board::add_virtio() {
    if (virtio_device_count(config_) == 0) return {};
    if (auto status = need_io_loop(); !status) return status;
    // Who watches the bus is to see everything.
    using Doorbells = VirtioPart::Around::Doorbells;
    auto part = VirtioPart::create(
        {.vm = vm_,
         .memory = memory_,
         .loop = *config_.io_loop,
         .doorbells = config_.mmio_observer != nullptr ? Doorbells::ByBus : Doorbells::ByEngine},
        config_);
    if (!part) return std::unexpected(std::move(part.error()));
    virtio_ = std::move(*part);
    if (pci_ == nullptr) return virtio_->attach_mmio(mmio_, locked_io_apic_);
    for (const VirtioPart::Function& function : virtio_->make_functions()) {
        if (auto status = pci_->attach(function.name, *function.function, *function.lock); !status)
            return status;
        if (function.place_watcher != nullptr)
            pci_->watch_bar(*function.function, virtio::Pci::kRegistersBar, *function.place_watcher);
    }
    return {};
}

Status Board::add_sata() {
    if (sata_drive_count(config_) == 0) return {};
    if (pci_ == nullptr)
        return fail(Errc::InvalidArgument,
                    fmt::format("{} has no PCI for an AHCI controller; its disks are virtio disks",
                                description_.name));
    if (auto status = need_io_loop(); !status) return status;
    sata_ = SataPart::create(memory_, *config_.io_loop, config_);
    for (const SataPart::Function& function : sata_->functions())
        if (auto status = pci_->attach(function.name, *function.function, *function.lock); !status)
            return status;
    return {};
}

Status Board::add_ne2000() {
    if (std::ranges::all_of(config_.nets, [](const NetConfig& net) { return net.model == NetModel::Virtio; }))
        return {};
    if (pci_ == nullptr)
        return fail(Errc::InvalidArgument,
                    fmt::format("{} has no slots for NE2000 cards; use the machine pc, or virtio",
                                description_.name));
    if (auto status = need_io_loop(); !status) return status;
    auto part = Ne2000Part::create({.vm = vm_,
                                    .ports = ports_,
                                    .pci = *pci_,
                                    .isa_interrupts = isa_,
                                    .board = lock_,
                                    .loop = *config_.io_loop},
                                   config_);
    if (!part) return std::unexpected(std::move(part.error()));
    ne2000_ = std::move(*part);
    return {};
}

Status Board::add_cpus(EngineKind engine) {
    Engines::Around around{.world = {.memory = memory_,
                                     .ports = ports_,
                                     .mmio = mmio_,
                                     .tsc = vm_.tsc(),
                                     .tracer = config_.tracer,
                                     .yield = [] { (void)sched_yield(); },
                                     .clock = &vm_.clock()},
                           .config = config_,
                           .apic_ids = {},
                           .chips = {.clock = vm_.clock(),
                                     .lock = lock_,
                                     .local_apics = {},
                                     .io_apic = io_apic_,
                                     .pic = pic_,
                                     .pit = pit_,
                                     .timers = legacy_timers_,
                                     .pic_pins = pic_pins_,
                                     .io_apic_pins = io_apic_pins_,
                                     .fabric = fabric_,
                                     .io_apic_page = io_apic_page_},
                           .split = split_apics_};
    around.apic_ids.reserve(config_.cpus);
    around.chips.local_apics.reserve(config_.cpus);
    for (unsigned i = 0; i < config_.cpus; ++i) {
        around.apic_ids.push_back(description_.apic_ids[i]);
        around.chips.local_apics.push_back(apics_[i]->chip.get());
    }
    auto engines = Engines::create(std::move(around), engine);
    if (!engines) return std::unexpected(std::move(engines.error()));
    engines_ = *std::move(engines);
    return {};
}

// --- Life ---

// Devices before interrupt controllers, so that the last word on every wire is its reset level.
Status Board::reset_chips() {
    if (pci_ != nullptr)
        if (auto status = pci_->power_on(); !status) return status;
    {
        const LockGuard guard(lock_);
        com1_.reset();
        pit_.reset();
        keyboard_controller_.reset();
        port92_.reset();
        rtc_.reset();
        rtc_.firmware_init();
        acpi_pm_.reset();
        hpet_.reset();
        reset_control_.reset();
        pic_.reset();
        io_apic_.reset();
        if (description_.pci && description_.has_pic) make_level_triggered(description_.pci->isa_interrupts);
    }
    for (const auto& apic : apics_) apic->chip->reset();
    apics_.front()->chip->enter_virtual_wire_mode();
    engines_->chips_are_fresh();
    return {};
}

// As firmware does for the inputs it routes PCI interrupts to.
void Board::make_level_triggered(std::span<const u8> inputs) {
    u16 elcr = 0;
    for (const u8 input : inputs) elcr = static_cast<u16>(elcr | 1U << input);
    for (const u64 half : {0, 1}) {
        const std::array value = {static_cast<std::byte>(elcr >> (8 * half))};
        (void)pic_.elcr_ports().write(half, value);
    }
}

// What firmware leaves in the clock's memory. Power-on and reset both come by here, so that a guest's own
// bytes elsewhere in it stay and these are true again.
void Board::preset_cmos(std::span<const boot::CmosByte> values) {
    const LockGuard guard(lock_);
    for (const boot::CmosByte& byte : values) (void)rtc_.preset(byte.index, byte.value);
}

Result<boot::StartState> Board::load_kernel() {
    if (std::exchange(memory_used_, true))
        if (auto status = clear_memory(); !status) return std::unexpected(std::move(status.error()));
    std::array<std::byte, 64> seed{};
    const ssize_t seeded = getrandom(seed.data(), seed.size(), GRND_NONBLOCK);
    // Read for this start only: a guest that runs has no use for them.
    const auto kernel = kernel_->read();
    if (!kernel) return std::unexpected(kernel.error());
    boot::BootRequest request{
        .kernel = {.name = kernel_->path(), .bytes = kernel->bytes()},
        .initrd = {},
        .cmdline = config_.cmdline,
        .board = description_,
        .random_seed = std::span(seed).first(seeded > 0 ? static_cast<std::size_t>(seeded) : 0)};
    std::optional<HostPages> initrd;
    if (initrd_ != nullptr) {
        auto read = initrd_->read();
        if (!read) return std::unexpected(std::move(read.error()));
        initrd = *std::move(read);
        request.initrd = {.name = initrd_->path(), .bytes = initrd->bytes()};
    }
    auto start = start_kernel(request);
    if (start) start->kernel.setup_header = {};  // goes with the file
    return start;
}

Result<boot::StartState> Board::start_kernel(boot::BootRequest& request) {
    if (config_.kernel_start == KernelStart::Stub) return boot::boot_linux(request, memory_);

    std::array<u64, 2> random{};
    const bool is_random = getrandom(random.data(), sizeof random, GRND_NONBLOCK) == sizeof random;
    request.direct = {.random = is_random ? std::optional(random) : std::nullopt, .parallel = run_parallel};
    auto start = boot::boot_linux(request, memory_);
    if (start || start.error().code != Errc::Unsupported || config_.kernel_start == KernelStart::Direct)
        return start;
    request.direct.reset();
    if (auto status = clear_memory(); !status) return std::unexpected(std::move(status.error()));
    auto by_stub = boot::boot_linux(request, memory_);
    if (by_stub && config_.on_note && !std::exchange(noted_, true))
        config_.on_note(start.error().message + "; it unpacks itself, which takes longer");
    return by_stub;
}

Status Board::power_on() {
    if (virtio_ != nullptr) virtio_->reset();
    if (sata_ != nullptr) sata_->reset();
    if (ne2000_ != nullptr) ne2000_->reset();
    if (auto status = reset_chips(); !status) return status;
    auto start = load_kernel();
    if (!start) return std::unexpected(std::move(start.error()));
    preset_cmos(start->cmos);
    const auto cpus = engines_->cpus();
    for (std::size_t i = 0; i < cpus.size(); ++i)
        cpus[i]->set_state(i == 0 ? start->bootstrap : start->application);
    return {};
}

// A doorbell that was rung is heard while its interrupt still goes where the guest's CPUs would take it.
Status Board::on_halt() {
    if (virtio_ != nullptr) virtio_->settle_doorbells();
    return engines_->take_chips();
}

Status Board::on_go_on() {
    if (auto status = engines_->give_chips(); !status) return status;
    if (virtio_ != nullptr) virtio_->use_doorbells(engines_->doorbells());
    return {};
}

void Board::press_power_button() {
    const LockGuard guard(lock_);
    (void)acpi_pm_.press_power_button();
}

}  // namespace tessera
