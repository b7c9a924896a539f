// Accesses that cross from one page into the next: all sizes at all distances from the boundary, with all
// that can be the matter with either page. Nothing may be written before both pages are known to take it [SDM
// 3A 4.7, 6.5], and the fault's address is the first byte that could not be accessed.
#include <csetjmp>
#include <cstdlib>
#include <gtest/gtest.h>
#include <string>
#include <vector>

#include "base/fake_clock.h"
#include "cpu/soft/blocks.h"
#include "cpu/soft/mmu.h"
#include "cpu/soft/soft_system.h"
#include "cpu/soft/system.h"
#include "cpu/soft/testing/kernel_rig.h"
#include "cpu/soft/x86_names.h"

namespace tessera::soft {
namespace {

constexpr u64 kPresent = 1, kWritable = 2, kUser = 4, kAccessed = 0x20, kDirty = 0x40;
constexpr u64 kAll = kPresent | kWritable | kUser;
constexpr u32 kErrPresent = 1, kErrWrite = 2, kErrUser = 4;
constexpr unsigned kLargest = 32;

// --- the functions behind the inline paths

// Keeps what was last written to it, and answers reads with a pattern.
class Recorder final : public IoDevice {
public:
    IoStatus read(u64 offset, std::span<std::byte> out) override {
        for (auto& byte : out) byte = static_cast<std::byte>(pattern(offset++));
        return IoStatus::Ok;
    }
    IoStatus write(u64 offset, std::span<const std::byte> in) override {
        for (const auto byte : in) {
            bytes[offset++ % kPageSize] = static_cast<u8>(byte);
            ++written;
        }
        return IoStatus::Ok;
    }
    static u8 pattern(u64 offset) { return static_cast<u8>(0x60 + offset % kPageSize * 5); }

    std::array<u8, kPageSize> bytes{};
    unsigned written = 0;
};

// 64-bit paging; kLin and the page after it are two pages of RAM that are not neighbours. 4 MiB above them,
// where their places in the first table are, is a large page.
class PageCrossingTest : public ::testing::Test {
protected:
    static constexpr u64 kRam = 4 * kMiB, kTables = 0x10000, kLin = 0x40000, kNext = kLin + kPageSize,
                         kFirst = 0x85000, kSecond = 0x83000, kDevice = 0x10000000;

    PageCrossingTest() {
        std::memset(ram_, 0, kRam);
        (void)memory_.add("ram", RegionKind::Ram, 0, std::span(ram_, kRam));
        (void)mmio_.add("recorder", kDevice, kPageSize, device_, lock_);
        put(kTables, (kTables + 0x1000) | kAll);
        put(kTables + 0x1000, (kTables + 0x2000) | kAll);
        put(kTables + 0x2000, (kTables + 0x3000) | kAll);
        constexpr u64 kLarge = 0x80;
        put(kTables + 0x2000 + 2 * 8, 0x200000 | kAll | kLarge);
        c_.interrupts = &interrupts_;
        c_.blocks = &blocks_;
        state_ = x86::reset_state();
        state_.cr0 = cr0::kPe | cr0::kEt | cr0::kNe | cr0::kWp | cr0::kPg;
        state_.cr3 = kTables;
        state_.cr4 = cr4::kPae | cr4::kPge;
        state_.msr.efer = efer::kLme | efer::kLma | efer::kNxe;
        for (auto& segment : state_.seg) segment = {.selector = 8, .base = 0, .limit = ~0u, .rights = 0xc0f3};
        state_.seg[Cs].rights = 0xa0fb;
        map(kFirst | kAll, kSecond | kAll);
    }
    ~PageCrossingTest() override { std::free(ram_); }

    void put(u64 address, u64 value) { std::memcpy(ram_ + address, &value, 8); }
    [[nodiscard]] u64 entry(u64 lin) const {
        u64 value = 0;
        std::memcpy(&value, ram_ + kTables + 0x3000 + (lin >> 12) * 8, 8);
        return value;
    }
    // Maps both pages, with nothing remembered and known bytes in both.
    void map(u64 first, u64 second) {
        put(kTables + 0x3000 + (kLin >> 12) * 8, first);
        put(kTables + 0x3000 + (kNext >> 12) * 8, second);
        for (unsigned i = 0; i < kPageSize; ++i) {
            ram_[kFirst + i] = std::byte(first_byte(i));
            ram_[kSecond + i] = std::byte(second_byte(i));
        }
        device_.written = 0;
        import_state(c_, state_);
    }
    static u8 first_byte(u64 offset) { return static_cast<u8>(0x11 + offset * 3); }
    static u8 second_byte(u64 offset) { return static_cast<u8>(0x22 + offset * 7); }
    static u8 new_byte(unsigned i) { return static_cast<u8>(0xc0 + i); }

    // How much is remembered when the access is made.
    enum class Known : u8 { Nothing, FirstPage, Both, BothInSecondTable };
    static constexpr std::array kKnown{Known::Nothing, Known::FirstPage, Known::Both,
                                       Known::BothInSecondTable};
    void learn(Known known, Access access) {
        const auto touch = [&](u64 lin) { (void)faults([&] { probe(c_, lin, 1, access, Ds); }); };
        if (known == Known::Nothing) return;
        touch(kLin);
        if (known == Known::FirstPage) return;
        touch(kNext);
        if (known == Known::Both) return;
        touch(kLin + 4 * kMiB);
        touch(kNext + 4 * kMiB);
        ASSERT_NE(tlb_entry(c_, kLin).tag_r, kLin);
        ASSERT_NE(tlb_entry(c_, kNext).tag_r, kNext);
    }

    template <typename Do>
    bool faults(const Do& what) {
        if (_setjmp(c_.fault_return) != 0) return true;
        what();
        return false;
    }
    bool load(u64 lin, unsigned size) {
        return faults([&] { load_bytes_slow(c_, lin, got_.data(), size, Ds); });
    }
    bool store(u64 lin, unsigned size) {
        for (unsigned i = 0; i < size; ++i) new_[i] = new_byte(i);
        return faults([&] { store_bytes_slow(c_, lin, new_.data(), size, Ds); });
    }
    // Each size at each distance that crosses.
    template <typename Do>
    static void each(const Do& what) {
        for (unsigned size = 2; size <= kLargest; ++size)
            for (unsigned before = 1; before < size; ++before) {
                SCOPED_TRACE(testing::Message() << size << " bytes, " << before << " before the boundary");
                what(size, before);
                if (testing::Test::HasFailure()) return;
            }
    }
    template <typename Do>
    void each_known(const Do& what) {
        for (const Known known : kKnown) {
            SCOPED_TRACE(testing::Message() << "known " << static_cast<unsigned>(known));
            each([&](unsigned size, unsigned before) { what(known, size, before); });
        }
    }
    // The first `stored` bytes of a store beginning `before` bytes before the boundary have arrived in RAM,
    // and nothing else has changed.
    void expect_ram(unsigned before, unsigned stored) {
        for (unsigned i = 0; i < 2 * kLargest; ++i) {
            const u64 offset = kPageSize - 2 * kLargest + i;
            const unsigned at = i - (2 * kLargest - before);  // in what was stored
            ASSERT_EQ(static_cast<u8>(ram_[kFirst + offset]), at < stored ? new_byte(at) : first_byte(offset))
                << i;
        }
        for (unsigned i = 0; i < 2 * kLargest; ++i)
            ASSERT_EQ(static_cast<u8>(ram_[kSecond + i]),
                      before + i < stored ? new_byte(before + i) : second_byte(i))
                << i;
    }
    void expect_page_fault(u32 error, u64 address) {
        ASSERT_EQ(c_.fault.vector, kPf);
        ASSERT_TRUE(c_.fault.has_error);
        ASSERT_EQ(c_.fault.error, error);
        ASSERT_EQ(c_.cr2, address);
    }

    std::byte* ram_ = static_cast<std::byte*>(std::aligned_alloc(kPageSize, kRam));
    FakeClock clock_;
    FakeTsc tsc_{clock_};
    MemoryMap memory_;
    IoBus ports_, mmio_;
    NullLock lock_;
    Recorder device_;
    NoInterrupts interrupts_;
    BlockCache blocks_{BlockCacheBounds::for_code_cache(kMiB)};
    SoftSystem system_{CpuWorld{memory_, ports_, mmio_, tsc_, nullptr, nullptr}, SoftCpuConfig{}};
    Vcpu& c_ = system_.vcpu(0);
    State state_;
    std::array<u8, kLargest> got_{}, new_{};
};

TEST_F(PageCrossingTest, LoadsTheBytesOfBothPages) {
    each_known([&](Known known, unsigned size, unsigned before) {
        map(kFirst | kAll, kSecond | kAll);
        learn(known, Access::Read);
        ASSERT_FALSE(load(kNext - before, size));
        for (unsigned i = 0; i < size; ++i)
            ASSERT_EQ(got_[i], i < before ? first_byte(kPageSize - before + i) : second_byte(i - before));
    });
}

TEST_F(PageCrossingTest, StoresToBothPages) {
    each_known([&](Known known, unsigned size, unsigned before) {
        map(kFirst | kAll, kSecond | kAll);
        learn(known, Access::Write);
        ASSERT_FALSE(store(kNext - before, size));
        expect_ram(before, size);
        ASSERT_EQ(entry(kLin) & (kAccessed | kDirty), kAccessed | kDirty);
        ASSERT_EQ(entry(kNext) & (kAccessed | kDirty), kAccessed | kDirty);
    });
}

TEST_F(PageCrossingTest, PageThatWasOnlyReadBecomesDirtyWithTheStore) {
    each([&](unsigned size, unsigned before) {
        map(kFirst | kAll, kSecond | kAll);
        learn(Known::Both, Access::Read);
        ASSERT_EQ(entry(kNext) & kDirty, 0U);
        ASSERT_FALSE(store(kNext - before, size));
        expect_ram(before, size);
        ASSERT_EQ(entry(kLin) & kDirty, kDirty);
        ASSERT_EQ(entry(kNext) & kDirty, kDirty);
    });
}

TEST_F(PageCrossingTest, SmallOperandsToo) {
    each_known([&](Known known, unsigned size, unsigned before) {
        if (size > 8) return;
        map(kFirst | kAll, kSecond | kAll);
        learn(known, Access::Write);
        u64 value = 0;
        for (unsigned i = 0; i < size; ++i) value |= u64{new_byte(i)} << (i * 8);
        ASSERT_FALSE(faults([&] { store_slow(c_, kNext - before, size, value, Ds); }));
        expect_ram(before, size);
        ASSERT_EQ(load_slow(c_, kNext - before, size, Ds), value);
    });
}

// What can be the matter with one of the pages.
struct Trouble {
    const char* name;
    u64 rights;
    u32 load_error, store_error;  // 0: no fault
};
constexpr Trouble kTroubles[] = {
    {"missing", 0, kErrUser, kErrUser | kErrWrite},
    {"read-only", kPresent | kUser, 0, kErrPresent | kErrUser | kErrWrite},
    {"supervisor's", kPresent | kWritable, kErrPresent | kErrUser, kErrPresent | kErrUser | kErrWrite},
};

TEST_F(PageCrossingTest, FaultsOfTheSecondPageAreAtItsStartAndLeaveTheFirstAlone) {
    for (const Trouble& trouble : kTroubles) {
        SCOPED_TRACE(trouble.name);
        each_known([&](Known known, unsigned size, unsigned before) {
            map(kFirst | kAll, kSecond | trouble.rights);
            learn(known, Access::Write);
            ASSERT_TRUE(store(kNext - before, size));
            expect_page_fault(trouble.store_error, kNext);
            expect_ram(before, 0);
            ASSERT_EQ(load(kNext - before, size), trouble.load_error != 0);
            if (trouble.load_error != 0) expect_page_fault(trouble.load_error, kNext);
        });
    }
}

TEST_F(PageCrossingTest, FaultsOfTheFirstPageAreAtTheAccessAndLeaveTheSecondAlone) {
    for (const Trouble& trouble : kTroubles) {
        SCOPED_TRACE(trouble.name);
        each_known([&](Known known, unsigned size, unsigned before) {
            map(kFirst | trouble.rights, kSecond | kAll);
            learn(known, Access::Write);
            ASSERT_TRUE(store(kNext - before, size));
            expect_page_fault(trouble.store_error, kNext - before);
            expect_ram(before, 0);
            ASSERT_EQ(load(kNext - before, size), trouble.load_error != 0);
            if (trouble.load_error != 0) expect_page_fault(trouble.load_error, kNext - before);
        });
    }
}

TEST_F(PageCrossingTest, ProbeRaisesWhatTheStoreWould) {
    for (const Trouble& trouble : kTroubles) {
        SCOPED_TRACE(trouble.name);
        each_known([&](Known known, unsigned size, unsigned before) {
            map(kFirst | kAll, kSecond | trouble.rights);
            learn(known, Access::Write);
            ASSERT_TRUE(faults([&] { probe(c_, kNext - before, size, Access::Write, Ds); }));
            expect_page_fault(trouble.store_error, kNext);
            expect_ram(before, 0);
        });
    }
    each_known([&](Known known, unsigned size, unsigned before) {
        map(kFirst | kAll, kSecond | kAll);
        learn(known, Access::Write);
        ASSERT_FALSE(faults([&] { probe(c_, kNext - before, size, Access::Write, Ds); }));
        expect_ram(before, 0);
        ASSERT_EQ(entry(kLin) & kDirty, kDirty);
        ASSERT_EQ(entry(kNext) & kDirty, kDirty);
    });
}

TEST_F(PageCrossingTest, DeviceGetsItsPartAndRamTheOther) {
    each_known([&](Known known, unsigned size, unsigned before) {
        map(kFirst | kAll, kDevice | kAll);
        learn(known, Access::Write);
        ASSERT_FALSE(store(kNext - before, size));
        expect_ram(before, before);
        ASSERT_EQ(device_.written, size - before);
        for (unsigned i = 0; i < size - before; ++i) ASSERT_EQ(device_.bytes[i], new_byte(before + i));
        ASSERT_FALSE(load(kNext - before, size));
        for (unsigned i = 0; i < size; ++i)
            ASSERT_EQ(got_[i], i < before ? new_byte(i) : Recorder::pattern(i - before));
    });
}

TEST_F(PageCrossingTest, RomIsReadAndKeepsItsBytes) {
    constexpr u64 kRom = 0x20000000;
    std::vector<std::byte> rom(2 * kPageSize);
    auto* page = rom.data() + (kPageSize - reinterpret_cast<u64>(rom.data()) % kPageSize) % kPageSize;
    for (unsigned i = 0; i < kPageSize; ++i) page[i] = std::byte(second_byte(i));
    ASSERT_TRUE(memory_.add("rom", RegionKind::Rom, kRom, std::span(page, kPageSize)));
    each_known([&](Known known, unsigned size, unsigned before) {
        map(kFirst | kAll, kRom | kAll);
        learn(known, Access::Write);
        ASSERT_FALSE(store(kNext - before, size));
        expect_ram(before, before);
        ASSERT_FALSE(load(kNext - before, size));
        for (unsigned i = 0; i < size; ++i)
            ASSERT_EQ(got_[i], i < before ? new_byte(i) : second_byte(i - before));
    });
}

TEST_F(PageCrossingTest, DecodedCodeInEitherPageIsToldOfStores) {
    const MemoryRegion* region = memory_.find(kFirst);
    ASSERT_NE(region, nullptr);
    each_known([&](Known known, unsigned size, unsigned before) {
        for (const u64 code : {kSecond, kFirst + kPageSize - 1}) {
            map(kFirst | kAll, kSecond | kAll);
            region->code_word(kFirst).store(0);
            region->code_word(kSecond).store(0);
            learn(known, Access::Write);
            system_.mark_code(c_, *region, code, 1);
            ASSERT_FALSE(load(kNext - before, size));
            ASSERT_NE(region->code_word(code).load(), 0U) << "a load is no reason";
            ASSERT_FALSE(store(kNext - before, size));
            ASSERT_EQ(region->code_word(code).load(), 0U);
            expect_ram(before, size);
        }
    });
}

TEST_F(PageCrossingTest, CodeElsewhereInThePageStaysDecoded) {
    const MemoryRegion* region = memory_.find(kFirst);
    ASSERT_NE(region, nullptr);
    each([&](unsigned size, unsigned before) {
        map(kFirst | kAll, kSecond | kAll);
        learn(Known::Both, Access::Write);
        system_.mark_code(c_, *region, kSecond + 64, 1);
        ASSERT_FALSE(store(kNext - before, size));
        ASSERT_NE(region->code_word(kSecond).load(), 0U);
        expect_ram(before, size);
    });
}

TEST_F(PageCrossingTest, NonCanonicalAddressAfterTheBoundaryIsAProtectionFault) {
    constexpr u64 kEnd = u64{1} << 47;
    // The last page of the lower half.
    put(kTables + 255 * 8, (kTables + 0x4000) | kAll);
    put(kTables + 0x4000 + 511 * 8, (kTables + 0x5000) | kAll);
    put(kTables + 0x5000 + 511 * 8, (kTables + 0x6000) | kAll);
    put(kTables + 0x6000 + 511 * 8, kFirst | kAll);
    map(kFirst | kAll, kSecond | kAll);
    ASSERT_FALSE(store(kEnd - 1, 1));
    each([&](unsigned size, unsigned before) {
        ASSERT_TRUE(store(kEnd - before, size));
        ASSERT_EQ(c_.fault.vector, kGp);
        ASSERT_TRUE(load(kEnd - before, size));
        ASSERT_EQ(c_.fault.vector, kGp);
    });
    ASSERT_EQ(static_cast<u8>(ram_[kFirst + kPageSize - 2]), first_byte(kPageSize - 2));
}

TEST_F(PageCrossingTest, DataBreakpointInTheSecondPageIsNoticed) {
    each_known([&](Known known, unsigned size, unsigned before) {
        state_.dr[0] = kNext;
        state_.dr7 = 0x400 | 2 | (u64{1} << 16);  // G0, one byte, stores
        map(kFirst | kAll, kSecond | kAll);
        learn(known, Access::Write);
        c_.pending_db = 0;
        ASSERT_FALSE(store(kNext - before, size));
        ASSERT_EQ(c_.pending_db & 1, 1U);
        expect_ram(before, size);
    });
}

// --- instructions, in interpreter and translator

enum class Where : u8 { Rax, Ymm0, X87 };
struct Form {
    const char* name;
    unsigned size;
    Where where;
    std::vector<u8> load, store;  // at [rdi]
};
const std::vector<Form>& forms() {
    static const std::vector<Form> all{
        {"mov16", 2, Where::Rax, {0x66, 0x8b, 0x07}, {0x66, 0x89, 0x07}},
        {"mov32", 4, Where::Rax, {0x8b, 0x07}, {0x89, 0x07}},
        {"mov64", 8, Where::Rax, {0x48, 0x8b, 0x07}, {0x48, 0x89, 0x07}},
        {"x87", 10, Where::X87, {0xdb, 0x2f}, {0xd9, 0xeb, 0xdb, 0x3f}},  // fldpi before the store
        {"movups", 16, Where::Ymm0, {0x0f, 0x10, 0x07}, {0x0f, 0x11, 0x07}},
        {"vmovups", 32, Where::Ymm0, {0xc5, 0xfc, 0x10, 0x07}, {0xc5, 0xfc, 0x11, 0x07}},
    };
    return all;
}
constexpr std::array<u8, 10> kPi{0x35, 0xc2, 0x68, 0x21, 0xa2, 0xda, 0x0f, 0xc9, 0x00, 0x40};

// With the translator or without. Each instruction is executed twice in the middle of a page first, so that
// translated code knows the page or both, and then across the boundary.
class CrossingInstructionTest : public ::testing::TestWithParam<bool> {
protected:
    static constexpr u64 kFirst = KernelRig::kUserCode + 0x4000, kNext = kFirst + kPageSize,
                         kFirstRam = 0x105000, kNeighbour = 0x106000, kElsewhere = 0x103000,
                         kDevice = 0x10000000;
    static constexpr int kBreakpoint = 3, kPageFault = 14;

    CrossingInstructionTest() { (void)rig_.mmio.add("recorder", kDevice, kPageSize, device_, lock_); }

    // Known bytes everywhere; what the second page is.
    void map(u64 second_ram, u64 rights) {
        second_ram_ = second_ram;
        second_pte_ = second_ram | rights;
        for (unsigned i = 0; i < kPageSize; ++i) {
            *rig_.ram(kFirstRam + i) = first_byte(i);
            if (second_ram < TestMachine::kRam) *rig_.ram(second_ram + i) = second_byte(i);
        }
        device_.written = 0;
    }
    static u8 first_byte(u64 offset) { return static_cast<u8>(0x31 + offset * 3); }
    static u8 second_byte(u64 offset) { return static_cast<u8>(0x42 + offset * 7); }
    static u8 stored_byte(const Form& form, unsigned i) {
        return form.where == Where::X87 ? kPi[i] : static_cast<u8>(0xc1 + i);
    }

    // Ends with INT3, unless it faults.
    enum class Known : u8 { FirstPage, Both };
    static constexpr std::array kKnown{Known::FirstPage, Known::Both};
    State run(const Form& form, const std::vector<u8>& insn, unsigned before,
              Known known = Known::FirstPage) {
        State s = rig_.kernel64(3);
        rig_.set_pte(kFirst, kFirstRam | kAll);
        rig_.set_pte(kNext, second_pte_);
        rig_.set_gate64(kBreakpoint, 0xee, 0);
        s.gpr[Rcx] = 3;
        s.gpr[Rdi] = kFirst + kPageSize / 2;
        s.gpr[Rdx] = (known == Known::Both ? kNext : kFirst) + kPageSize / 4;
        s.gpr[Rsi] = kNext - before;
        std::array<u8, kLargest> value{};
        for (unsigned i = 0; i < kLargest; ++i) value[i] = stored_byte(forms().front(), i);
        std::memcpy(&s.gpr[Rax], value.data(), 8);
        std::memcpy(s.ymm[0].data(), value.data(), kLargest);
        std::vector<u8> code = insn;
        code.insert(code.end(), {0x48, 0x89, 0xd7, 0x48, 0x89, 0xf2,  // mov rdi, rdx; mov rdx, rsi
                                 0xff, 0xc9, 0x75});                  // dec ecx; jnz
        code.push_back(static_cast<u8>(-static_cast<int>(code.size() + 1)));
        code.push_back(0xcc);
        access_rip_ = KernelRig::kUserCode + insn.size() - (form.where == Where::X87 ? 2 : insn.size());
        rig_.put(KernelRig::kUserCode, code);
        rig_.cpu().set_state(s);
        rig_.last_exit = rig_.cpu().run().reason;
        return rig_.cpu().state();
    }
    static std::array<u8, kLargest> loaded(const Form& form, const State& s) {
        std::array<u8, kLargest> value{};
        switch (form.where) {
            case Where::Rax: std::memcpy(value.data(), &s.gpr[Rax], 8); break;
            case Where::Ymm0: std::memcpy(value.data(), s.ymm[0].data(), kLargest); break;
            case Where::X87: std::memcpy(value.data(), s.fpu.st[0].data(), 10); break;
        }
        return value;
    }
    // Around the boundary: `stored` bytes of the store have arrived.
    void expect_ram(const Form& form, unsigned before, unsigned stored) {
        for (unsigned i = 0; i < 2 * kLargest; ++i) {
            const u64 offset = kPageSize - 2 * kLargest + i;
            const unsigned at = i - (2 * kLargest - before);
            ASSERT_EQ(*rig_.ram(kFirstRam + offset),
                      at < stored ? stored_byte(form, at) : first_byte(offset));
        }
        for (unsigned i = 0; second_ram_ < TestMachine::kRam && i < 2 * kLargest; ++i)
            ASSERT_EQ(*rig_.ram(second_ram_ + i),
                      before + i < stored ? stored_byte(form, before + i) : second_byte(i));
    }
    void expect_page_fault(const State& s, u32 error) {
        ASSERT_EQ(KernelRig::vector_of(s), kPageFault);
        ASSERT_EQ(s.cr2, kNext);
        const auto frame = rig_.frame64(s, true);
        ASSERT_EQ(frame.error, error);
        ASSERT_EQ(frame.rip, access_rip_);
        ASSERT_EQ(s.gpr[Rcx], 1U) << "in the third round";
    }

    template <typename Do>
    static void each(const Do& what) {
        for (const Form& form : forms())
            for (unsigned before = 1; before < form.size; ++before) {
                SCOPED_TRACE(testing::Message()
                             << form.name << ", " << before << " bytes before the boundary");
                what(form, before);
                if (testing::Test::HasFailure()) return;
            }
    }

    // The pages are neighbours in RAM or not; the second is known or not.
    template <typename Do>
    static void each_mapping(const Do& what) {
        for (const u64 second : {kElsewhere, kNeighbour})
            for (const Known known : kKnown) {
                SCOPED_TRACE(testing::Message() << (second == kNeighbour ? "neighbours" : "apart") << ", "
                                                << (known == Known::Both ? "both known" : "one known"));
                what(second, known);
                if (testing::Test::HasFailure()) return;
            }
    }

    Recorder device_;
    NullLock lock_;
    KernelRig rig_{SoftCpuConfig{.jit = GetParam(), .translate_after = 1}};
    u64 second_pte_ = 0, second_ram_ = 0, access_rip_ = 0;
};

TEST_P(CrossingInstructionTest, LoadsTheBytesOfBothPages) {
    each_mapping([&](u64 second, Known known) {
        each([&](const Form& form, unsigned before) {
            map(second, kAll);
            const State s = run(form, form.load, before, known);
            ASSERT_EQ(KernelRig::vector_of(s), kBreakpoint);
            const auto got = loaded(form, s);
            for (unsigned i = 0; i < form.size; ++i)
                ASSERT_EQ(got[i], i < before ? first_byte(kPageSize - before + i) : second_byte(i - before));
        });
    });
}

TEST_P(CrossingInstructionTest, StoresToBothPages) {
    each_mapping([&](u64 second, Known known) {
        each([&](const Form& form, unsigned before) {
            map(second, kAll);
            const State s = run(form, form.store, before, known);
            ASSERT_EQ(KernelRig::vector_of(s), kBreakpoint);
            expect_ram(form, before, form.size);
            ASSERT_EQ(rig_.pte(kNext) & kDirty, kDirty);
        });
    });
}

TEST_P(CrossingInstructionTest, FaultsOfTheSecondPageAreAtItsStartAndLeaveTheFirstAlone) {
    for (const Trouble& trouble : kTroubles) {
        SCOPED_TRACE(trouble.name);
        for (const u64 second : {kElsewhere, kNeighbour})
            each([&](const Form& form, unsigned before) {
                map(second, trouble.rights);
                State s = run(form, form.store, before);
                expect_page_fault(s, trouble.store_error);
                expect_ram(form, before, 0);
                s = run(form, form.load, before);
                if (trouble.load_error != 0)
                    expect_page_fault(s, trouble.load_error);
                else
                    ASSERT_EQ(KernelRig::vector_of(s), kBreakpoint);
            });
    }
}

TEST_P(CrossingInstructionTest, DeviceGetsItsPartAndRamTheOther) {
    each([&](const Form& form, unsigned before) {
        map(kDevice, kAll);
        State s = run(form, form.store, before);
        ASSERT_EQ(KernelRig::vector_of(s), kBreakpoint);
        expect_ram(form, before, before);
        ASSERT_EQ(device_.written, form.size - before);
        for (unsigned i = 0; i < form.size - before; ++i)
            ASSERT_EQ(device_.bytes[i], stored_byte(form, before + i));
        s = run(form, form.load, before);
        const auto got = loaded(form, s);
        for (unsigned i = before; i < form.size; ++i) ASSERT_EQ(got[i], Recorder::pattern(i - before));
    });
}

// The second page is the program's own: MOV EAX, imm32; RET at its start is called, overwritten in part, and
// called again.
TEST_P(CrossingInstructionTest, CodeInTheSecondPageIsExecutedAsStored) {
    constexpr u64 kData = KernelRig::kUserCode - kPageSize, kMain = KernelRig::kUserCode + 0x100;
    constexpr std::array<u8, 6> kOld{0xb8, 0x11, 0x22, 0x33, 0x44, 0xc3};
    constexpr std::array<u8, 6> kNew{0xb8, 0xa1, 0xa2, 0xa3, 0xa4, 0xc3};
    for (const u64 data_ram : {kData, kElsewhere})
        each([&](const Form& form, unsigned before) {
            if (form.where == Where::X87) return;
            State s = rig_.kernel64(3);
            rig_.set_pte(kData, data_ram | kAll);
            rig_.set_gate64(kBreakpoint, 0xee, 0);
            std::array<u8, kLargest> value{};
            std::array<u8, 6> expected = kOld;
            for (unsigned i = 0; before + i < form.size && i < kNew.size(); ++i)
                value[before + i] = expected[i] = kNew[i];
            std::memcpy(&s.gpr[R8], value.data(), 8);
            std::memcpy(s.ymm[0].data(), value.data(), kLargest);
            s.gpr[Rdi] = KernelRig::kUserCode - before;
            s.gpr[Rdx] = KernelRig::kUserCode;
            s.gpr[Rcx] = 3;
            s.rip = kMain;
            std::vector<u8> code{0xff, 0xd2,                     // call rdx
                                 0xff, 0xc9, 0x75, 0xfa,         // dec ecx; jnz
                                 0x89, 0xc3, 0x4c, 0x89, 0xc0};  // mov ebx, eax; mov rax, r8
            code.insert(code.end(), form.store.begin(), form.store.end());
            code.insert(code.end(), {0xff, 0xd2, 0xcc});  // call rdx; int3
            rig_.put(KernelRig::kUserCode, kOld);
            rig_.put(kMain, code);
            rig_.cpu().set_state(s);
            (void)rig_.cpu().run();
            s = rig_.cpu().state();
            ASSERT_EQ(KernelRig::vector_of(s), kBreakpoint);
            u32 first = 0, second = 0;
            std::memcpy(&first, &kOld[1], 4);
            std::memcpy(&second, &expected[1], 4);
            ASSERT_EQ(s.gpr[Rbx], first);
            ASSERT_EQ(s.gpr[Rax], second);
        });
}

// A locked instruction across the boundary is one access, and faults before it does anything.
TEST_P(CrossingInstructionTest, LockedAddReachesBothPages) {
    const Form add{"lock add", 8, Where::Rax, {}, {0xf0, 0x48, 0x01, 0x07}};
    each_mapping([&](u64 second, Known known) {
        for (unsigned before = 1; before < 8; ++before) {
            map(second, kAll);
            std::array<u8, 8> bytes{};
            for (unsigned i = 0; i < 8; ++i)
                bytes[i] = i < before ? first_byte(kPageSize - before + i) : second_byte(i - before);
            u64 was = 0, added = 0, is = 0;
            std::memcpy(&was, bytes.data(), 8);
            State s = run(add, add.store, before, known);
            ASSERT_EQ(KernelRig::vector_of(s), kBreakpoint);
            added = s.gpr[Rax];
            for (unsigned i = 0; i < 8; ++i)
                bytes[i] = i < before ? *rig_.ram(kFirstRam + kPageSize - before + i)
                                      : *rig_.ram(second + i - before);
            std::memcpy(&is, bytes.data(), 8);
            ASSERT_EQ(is, was + added);
            map(second, kPresent | kUser);
            s = run(add, add.store, before);
            expect_page_fault(s, kErrPresent | kErrUser | kErrWrite);
            expect_ram(add, before, 0);
        }
    });
}

INSTANTIATE_TEST_SUITE_P(Engines, CrossingInstructionTest, ::testing::Bool(), [](const auto& engine) {
    return std::string(engine.param ? "Translator" : "Interpreter");
});

}  // namespace
}  // namespace tessera::soft
