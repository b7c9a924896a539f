#include "tests/oracle/guest.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "base/fake_clock.h"
#include "cpu/soft/soft_cpu.h"

namespace tessera::oracle {

namespace {

// Guest physical layout.
constexpr u64 kRamSize = 0x60000;
constexpr u64 kPml4 = 0x1000, kPdpt = 0x2000, kDirectory = 0x3000 /* 4 pages: 4 GiB */, kTables = 0x8000;
constexpr u64 kGdt = 0x10000, kIdt = 0x11000, kTss = 0x12000, kStubs = 0x13000, kKernelStack = 0x15000;
constexpr u64 kData = 0x20000, kReadOnly = 0x28000, kCode = 0x30000;
constexpr unsigned kCodePlaces = 4;
// From the last to the first, with a page between two.
constexpr u64 data_page(u64 offset) {
    return kData + 2 * (kDataSize - 4096 - offset / 4096 * 4096);
}
constexpr u64 kExitStub = 0x14000;
// The kernel's own pages appear at this linear address, supervisor only.
constexpr u64 kKernelLinear = 0x3000'0000;

constexpr u64 kPresent = 1, kWritable = 2, kUser = 4, kAccessed = 0x20, kDirty = 0x40,
              kNoExecute = u64{1} << 63;
constexpr u16 kUserCs = 0x33, kUserCs32 = 0x23, kUserSs = 0x2b, kKernelCs = 0x10, kTssSelector = 0x40;
constexpr unsigned kStubSize = 16;
constexpr u32 kHasError = (1 << 8) | (1 << 10) | (1 << 11) | (1 << 12) | (1 << 13) | (1 << 14) | (1 << 17);

// [SDM 1 8.1.7]: the full tag of a register from what is in it.
unsigned tag_of(const u8* st) {
    u64 mantissa = 0;
    std::memcpy(&mantissa, st, sizeof(mantissa));
    const unsigned exponent = (st[8] | (st[9] << 8)) & 0x7fff;
    if (exponent == 0 && mantissa == 0) return 1;
    const bool normal = exponent != 0 && exponent != 0x7fff && (mantissa >> 63) != 0;
    return normal ? 0 : 2;
}

template <typename T>
T get(const u8* from) {
    T value;
    std::memcpy(&value, from, sizeof(T));
    return value;
}
template <typename T>
void put(u8* to, T value) {
    std::memcpy(to, &value, sizeof(T));
}

void fp_to_state(const XsaveImage& image, x86::State& s) {
    const u8* legacy = image.legacy.data();
    s.fpu = {};
    s.fpu.control = get<u16>(legacy);
    s.fpu.status = get<u16>(legacy + 2);
    const unsigned top = (s.fpu.status >> 11) & 7;
    u16 tags = 0;
    for (unsigned i = 0; i < 8; ++i) {
        const u8* st = legacy + 32 + i * 16;
        std::memcpy(s.fpu.st[i].data(), st, 10);
        const unsigned physical = (top + i) & 7;
        const bool used = ((legacy[4] >> physical) & 1) != 0;
        tags |= static_cast<u16>((used ? tag_of(st) : 3) << (physical * 2));
    }
    s.fpu.tag = tags;
    s.mxcsr = get<u32>(legacy + 24);
    for (unsigned i = 0; i < 16; ++i) {
        std::memcpy(&s.ymm[i][0], legacy + 160 + i * 16, 16);
        std::memcpy(&s.ymm[i][2], &image.ymm_high[i], 16);
    }
}

void fp_from_state(const x86::State& s, XsaveImage& image) {
    u8* legacy = image.legacy.data();
    put<u16>(legacy, s.fpu.control);
    put<u16>(legacy + 2, s.fpu.status);
    u8 used = 0;
    for (unsigned i = 0; i < 8; ++i)
        if (((s.fpu.tag >> (i * 2)) & 3) != 3) used |= static_cast<u8>(1 << i);
    legacy[4] = used;
    for (unsigned i = 0; i < 8; ++i) std::memcpy(legacy + 32 + i * 16, s.fpu.st[i].data(), 10);
    put<u32>(legacy + 24, s.mxcsr);
    for (unsigned i = 0; i < 16; ++i) {
        std::memcpy(legacy + 160 + i * 16, &s.ymm[i][0], 16);
        std::memcpy(&image.ymm_high[i], &s.ymm[i][2], 16);
    }
    image.header[0] = 7;
}

}  // namespace

class Guest::Impl {
public:
    explicit Impl(const soft::SoftCpuConfig& config)
        : ram_(static_cast<u8*>(std::aligned_alloc(4096, kRamSize))),
          engine_((prepare(), CpuWorld{memory_, ports_, mmio_, tsc_, nullptr, nullptr}), config) {
        base_ = x86::reset_state();
        base_.cr0 = x86::cr0::kPe | x86::cr0::kMp | x86::cr0::kEt | x86::cr0::kNe | x86::cr0::kWp |
                    x86::cr0::kPg | x86::cr0::kAm;
        base_.cr3 = kPml4;
        base_.cr4 = x86::cr4::kPae | x86::cr4::kPge | x86::cr4::kOsfxsr | x86::cr4::kOsxmmexcpt |
                    x86::cr4::kOsxsave | x86::cr4::kFsgsbase;
        base_.msr.efer = x86::efer::kSce | x86::efer::kLme | x86::efer::kLma | x86::efer::kNxe;
        base_.xcr0 = 7;
        const u32 common = x86::rights::kPresent | x86::rights::kS | x86::rights::kAccessed |
                           x86::rights::kGranularity | x86::rights::kDpl;
        for (auto& seg : base_.seg)
            seg = {.selector = 0, .base = 0, .limit = 0, .rights = x86::rights::kUnusable};
        base_.seg[x86::Cs] = {
            .selector = kUserCs,
            .base = 0,
            .limit = ~0U,
            .rights = common | x86::rights::kCode | x86::rights::kReadable | x86::rights::kLong};
        base_.seg[x86::Ss] = {.selector = kUserSs,
                              .base = 0,
                              .limit = ~0U,
                              .rights = common | x86::rights::kWritable | x86::rights::kDb};
        base_.seg[x86::Gs].base = kGsBase;
        base_.seg[x86::Fs].base = kFsBase;
        flat_ = base_.seg;
        flat_[x86::Cs].selector = kUserCs32;
        flat_[x86::Cs].rights ^= x86::rights::kLong | x86::rights::kDb;
        for (const auto seg : {x86::Es, x86::Ds, x86::Fs, x86::Gs}) {
            flat_[seg] = base_.seg[x86::Ss];
            flat_[seg].base = base_.seg[seg].base;
        }
        flat_[x86::Gs].limit = static_cast<u32>(kDataBase + kDataSize - kGsBase - 1);
        base_.tr = {.selector = kTssSelector,
                    .base = kKernelLinear + kTss,
                    .limit = 0x67,
                    .rights = x86::rights::kPresent | 0xb};
        base_.gdtr = {.base = kKernelLinear + kGdt, .limit = 0x4f};
        base_.idtr = {.base = kKernelLinear + kIdt, .limit = 32 * 16 - 1};
    }
    ~Impl() { std::free(ram_); }
    Impl(const Impl&) = delete;
    Impl& operator=(const Impl&) = delete;

    void set_data(std::span<const u8> bytes) {
        for (u64 i = 0; i < kDataSize; i += 4096) std::memcpy(ram_ + data_page(i), bytes.data() + i, 4096);
    }
    void get_data(std::span<u8> bytes) const {
        for (u64 i = 0; i < kDataSize; i += 4096) std::memcpy(bytes.data() + i, ram_ + data_page(i), 4096);
    }
    void set_code(std::span<const u8> pages) {
        place_ = (place_ + 1) % kCodePlaces;
        for (u64 i = 0; i < kCodeSize; i += 4096) map(kCodeBase + i, place() + i, kWritable | kUser);
        restore_code(pages);
    }
    void restore_code(std::span<const u8> pages) {
        (void)memory_.write(place(), std::as_bytes(pages));
        const u64 exit = kKernelLinear + kExitStub;
        std::memcpy(ram_ + place() + (kExitSlot - kCodeBase), &exit, sizeof(exit));
    }
    void set_counter(u64 value) {
        std::memcpy(ram_ + place() + (kCounter - kCodeBase), &value, sizeof(value));
    }

    void run(const Registers& in, x86::CodeSize code_size, Registers& out) {
        x86::State& s = state_;
        s = base_;
        if (code_size == x86::CodeSize::Bits32) s.seg = flat_;
        s.gpr = in.gpr;
        s.rip = in.rip;
        s.rflags = in.rflags | 0x202;
        fp_to_state(in.fp, s);
        Cpu& cpu = engine_.cpu(0);
        cpu.set_state(s);
        const Exit exit = cpu.run();
        s = cpu.state();
        if (exit.reason == ExitReason::Kicked) {
            out.vector = kStopped;
            return;
        }
        if (exit.reason != ExitReason::Halted) {
            std::fprintf(stderr, "oracle: the guest ended with exit %d at rip %#lx, rsp %#lx\n",
                         static_cast<int>(exit.reason), s.rip, s.gpr[4]);
            out.vector = 0xff;
            return;
        }
        out.gpr = s.gpr;
        fp_from_state(s, out.fp);
        out.vector = static_cast<u32>((s.rip - 1 - (kKernelLinear + kStubs)) / kStubSize);
        const u8* frame = ram_ + (s.gpr[x86::Rsp] - kKernelLinear);
        out.error = 0;
        if (((kHasError >> out.vector) & 1) != 0) {
            out.error = get<u32>(frame);
            frame += 8;
        }
        out.rip = get<u64>(frame);
        out.rflags = get<u64>(frame + 16);
        out.gpr[x86::Rsp] = get<u64>(frame + 24);
        out.cr2 = s.cr2;
    }

    void stop() { engine_.cpu(0).kick(); }

private:
    [[nodiscard]] u64 place() const { return kCode + place_ * kCodeSize; }
    void map(u64 linear, u64 physical, u64 flags) {
        const u64 table = table_for(linear);
        put<u64>(ram_ + table + ((linear >> 12) & 511) * 8, physical | flags | kPresent | kAccessed | kDirty);
    }
    // One page table per 2 MiB in use, handed out in order of first use.
    u64 table_for(u64 linear) {
        u8* entry = ram_ + kDirectory + (linear >> 21) * 8;
        if (get<u64>(entry) == 0) {
            put<u64>(entry, next_table_ | kPresent | kWritable | kUser | kAccessed);
            next_table_ += 4096;
        }
        return get<u64>(entry) & ~u64{0xfff};
    }

    void prepare() {
        std::memset(ram_, 0, kRamSize);
        put<u64>(ram_ + kPml4, kPdpt | kPresent | kWritable | kUser | kAccessed);
        for (u64 i = 0; i < 4; ++i)
            put<u64>(ram_ + kPdpt + i * 8,
                     (kDirectory + i * 4096) | kPresent | kWritable | kUser | kAccessed);
        for (u64 i = 0; i < kDataSize; i += 4096)
            map(kDataBase + i, data_page(i), kWritable | kUser | kNoExecute);
        map(kReadOnlyBase, kReadOnly, kUser | kNoExecute);
        for (u64 p = kGdt; p < kKernelStack + 4096; p += 4096)
            map(kKernelLinear + p, p, p == kExitStub ? kUser : kWritable);
        for (u64 i = 0; i < 4096; ++i) ram_[kReadOnly + i] = static_cast<u8>(i * 37 + 11);

        put<u64>(ram_ + kGdt + kKernelCs, 0x00af'9b00'0000'ffff);
        put<u64>(ram_ + kGdt + 0x18, 0x00cf'9300'0000'ffff);
        put<u64>(ram_ + kGdt + (kUserSs & ~7), 0x00cf'f300'0000'ffff);
        put<u64>(ram_ + kGdt + (kUserCs & ~7), 0x00af'fb00'0000'ffff);
        put<u64>(ram_ + kGdt + (kUserCs32 & ~7), 0x00cf'fb00'0000'ffff);
        const u64 tss = kKernelLinear + kTss;
        put<u64>(ram_ + kGdt + kTssSelector,
                 0x67 | ((tss & 0xff'ffff) << 16) | (u64{0x8b} << 40) | ((tss >> 24 & 0xff) << 56));
        put<u16>(ram_ + kTss + 0x66, 0x68);  // no ports for ring 3
        put<u64>(ram_ + kTss + 4, kKernelLinear + kKernelStack + 0x800);
        for (u64 v = 0; v < 32; ++v) {
            const u64 stub = kKernelLinear + kStubs + v * kStubSize;
            ram_[kStubs + v * kStubSize] = 0xf4;  // hlt
            const u64 dpl = v == 3 || v == 4 ? 3 : 0;
            put<u64>(ram_ + kIdt + v * 16, (stub & 0xffff) | (u64{kKernelCs} << 16) |
                                               ((u64{0x8e} | (dpl << 5)) << 40) |
                                               ((stub >> 16 & 0xffff) << 48));
        }
        ram_[kExitStub] = 0xcc;  // int3
        (void)memory_.add("ram", RegionKind::Ram, 0, std::as_writable_bytes(std::span(ram_, kRamSize)));
    }

    FakeClock clock_;
    FakeTsc tsc_{clock_};
    MemoryMap memory_;
    IoBus ports_, mmio_;
    u64 next_table_ = kTables;
    u8* ram_;
    soft::SoftEngine engine_;
    x86::State base_, state_;
    std::array<x86::Segment, 6> flat_{};  // for 32-bit code
    unsigned place_ = 0;
};

Guest::Guest(const soft::SoftCpuConfig& config) : impl_(std::make_unique<Impl>(config)) {}
Guest::~Guest() = default;
void Guest::set_data(std::span<const u8> bytes) {
    impl_->set_data(bytes);
}
void Guest::get_data(std::span<u8> bytes) const {
    impl_->get_data(bytes);
}
void Guest::set_code(std::span<const u8> pages) {
    impl_->set_code(pages);
}
void Guest::restore_code(std::span<const u8> pages) {
    impl_->restore_code(pages);
}
void Guest::set_counter(u64 value) {
    impl_->set_counter(value);
}
void Guest::run(const Registers& in, x86::CodeSize code_size, Registers& out) {
    impl_->run(in, code_size, out);
}
void Guest::stop() {
    impl_->stop();
}

}  // namespace tessera::oracle
