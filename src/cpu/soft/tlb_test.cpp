// What is remembered of the page tables and how long: the numbers that translated code relies on
// (Vcpu::exec_gen_*), and which table the inline paths look at.
#include "cpu/soft/tlb.h"

#include <cstdlib>
#include <gtest/gtest.h>

#include "base/fake_clock.h"
#include "cpu/soft/blocks.h"
#include "cpu/soft/mmu.h"
#include "cpu/soft/msr.h"
#include "cpu/soft/soft_system.h"
#include "cpu/soft/system.h"

namespace tessera::soft {
namespace {

constexpr u64 kPresent = 1, kWritable = 2, kUser = 4, kLarge = 0x80, kGlobal = 0x100;
constexpr u64 kAll = kPresent | kWritable | kUser;
constexpr u64 kKeep = u64{1} << 63;

// A CPU in 64-bit mode with PCIDs and global pages. Linear 0-2 MiB by 4 KiB pages, 2-4 MiB by a large one;
// the same again, as global pages, at 512 GiB; and once more at 1 TiB as supervisor pages that are not
// global.
class TlbTest : public ::testing::Test {
protected:
    static constexpr u64 kRam = 4 * kMiB, kTables = 0x10000, kGlobals = u64{1} << 39, kLocals = u64{2} << 39;

    TlbTest() {
        std::memset(ram_, 0, kRam);
        (void)memory_.add("ram", RegionKind::Ram, 0, std::span(ram_, kRam));
        put(kTables, (kTables + 0x1000) | kAll);
        put(kTables + 0x1000, (kTables + 0x2000) | kAll);
        tables(kTables + 0x2000, kAll);
        put(kTables + 8, (kTables + 0x8000) | kAll);
        put(kTables + 0x8000, (kTables + 0x9000) | kAll);
        tables(kTables + 0x9000, kAll | kGlobal);
        put(kTables + 16, (kTables + 0xc000) | kAll);
        put(kTables + 0xc000, (kTables + 0xd000) | kAll);
        tables(kTables + 0xd000, kPresent | kWritable);
        c_.interrupts = &interrupts_;
        c_.blocks = &blocks_;
        x86::State s = x86::reset_state();
        s.cr0 = x86::cr0::kPe | x86::cr0::kEt | x86::cr0::kNe | x86::cr0::kWp | x86::cr0::kPg;
        s.cr3 = kTables;
        s.cr4 = x86::cr4::kPae | x86::cr4::kPge | x86::cr4::kPcide;
        s.msr.efer = x86::efer::kLme | x86::efer::kLma | x86::efer::kNxe;
        for (auto& segment : s.seg) segment = {.selector = 8, .base = 0, .limit = ~0u, .rights = 0xc093};
        s.seg[x86::Cs].rights = 0xa09b;
        import_state(c_, s);
    }
    ~TlbTest() override { std::free(ram_); }

    void put(u64 address, u64 value) { std::memcpy(ram_ + address, &value, 8); }
    void tables(u64 directory, u64 rights) {
        put(directory, (directory + 0x1000) | kAll);
        for (u64 page = 0; page < 512; ++page) put(directory + 0x1000 + page * 8, (page << 12) | rights);
        put(directory + 8, 0x200000 | rights | kLarge);
    }
    void level(unsigned cpl) {
        c_.seg[x86::Ss].rights = (c_.seg[x86::Ss].rights & ~x86::rights::kDpl) | (cpl << 5);
        update_segments(c_);
    }
    void fetch(unsigned cpl, u64 lin) {
        level(cpl);
        (void)fetch_page(c_, lin);
        level(0);
    }
    void use(unsigned cpl, u64 lin) {
        level(cpl);
        (void)load<u32>(c_, lin, x86::Ds);
        level(0);
    }
    // Whether the inline path would find the page.
    bool remembered(unsigned cpl, u64 lin) {
        level(cpl);
        const bool hit = tlb_entry(c_, lin).tag_r == lin;
        level(0);
        return hit;
    }
    void cr3(u64 pcid, u64 keep) { set_cr3(c_, kTables | pcid | keep); }

    std::byte* ram_ = static_cast<std::byte*>(std::aligned_alloc(kPageSize, kRam));
    FakeClock clock_;
    FakeTsc tsc_{clock_};
    MemoryMap memory_;
    IoBus ports_, mmio_;
    NoInterrupts interrupts_;
    BlockCache blocks_{BlockCacheBounds::for_code_cache(kMiB)};
    SoftSystem system_{CpuWorld{memory_, ports_, mmio_, tsc_, nullptr, nullptr}, SoftCpuConfig{}};
    Vcpu& c_ = system_.vcpu(0);
};

TEST_F(TlbTest, UserCodeGenerationComesBackWithItsAddressSpace) {
    cr3(1, 0);
    fetch(3, 0x40000);
    const u32 first = c_.exec_gen_user;
    cr3(2, 0);
    fetch(3, 0x40000);
    const u32 second = c_.exec_gen_user;
    EXPECT_NE(first, second);
    cr3(1, kKeep);
    EXPECT_EQ(c_.exec_gen_user, first);
    cr3(2, kKeep);
    EXPECT_EQ(c_.exec_gen_user, second);
}

TEST_F(TlbTest, UserCodeGenerationIsNewAfterEveryFlushOfItsSpace) {
    const auto changes = [&](const char* what, auto&& flush) {
        cr3(1, kKeep);
        fetch(3, 0x40000);
        const u32 before = c_.exec_gen_user;
        flush();
        cr3(1, kKeep);
        EXPECT_NE(c_.exec_gen_user, before) << what;
    };
    changes("CR3", [&] { cr3(1, 0); });
    changes("CR3 from another PCID", [&] {
        cr3(2, 0);
        cr3(1, 0);
    });
    changes("INVLPG", [&] { flush_tlb_page(c_, 0x40123); });
    changes("INVPCID 0", [&] { flush_pcid_page(c_, 1, 0x40123); });
    changes("INVPCID 0 of another", [&] {
        cr3(2, 0);
        flush_pcid_page(c_, 1, 0x40123);
    });
    changes("INVPCID 1", [&] { flush_pcid(c_, 1); });
    changes("INVPCID 1 of another", [&] {
        cr3(2, kKeep);
        flush_pcid(c_, 1);
    });
    changes("INVPCID 2", [&] { flush_tlb(c_, true); });
    changes("INVPCID 3", [&] { flush_all_pcids(c_); });
    changes("CR4", [&] { set_cr4(c_, c_.cr4 ^ x86::cr4::kPge); });
    changes("CR4", [&] { set_cr4(c_, c_.cr4 ^ x86::cr4::kSmep); });
}

TEST_F(TlbTest, UserCodeGenerationStaysWhenOtherPagesAreFlushed) {
    cr3(1, 0);
    fetch(3, 0x40000);
    use(3, 0x60000);
    const u32 before = c_.exec_gen_user;
    flush_tlb_page(c_, 0x60000);
    flush_pcid(c_, 7);
    flush_pcid_page(c_, 7, 0x40000);
    EXPECT_EQ(c_.exec_gen_user, before);
}

TEST_F(TlbTest, GlobalKernelCodeOutlivesCr3ButNotInvlpg) {
    cr3(1, 0);
    fetch(0, kGlobals + 0x40000);
    const u32 before = c_.exec_gen_kernel;
    cr3(1, 0);
    cr3(2, 0);
    flush_all_pcids(c_);
    flush_tlb_page(c_, kGlobals + 0x41000);
    EXPECT_EQ(c_.exec_gen_kernel, before);
    flush_tlb_page(c_, kGlobals + 0x40000);
    EXPECT_NE(c_.exec_gen_kernel, before);
}

TEST_F(TlbTest, KernelCodeThatIsNotGlobalEndsWithItsAddressSpace) {
    cr3(1, 0);
    fetch(0, kLocals + 0x40000);
    const u32 before = c_.exec_gen_kernel;
    cr3(2, kKeep);
    const u32 second = c_.exec_gen_kernel;
    EXPECT_NE(second, before);
    cr3(1, kKeep);
    EXPECT_EQ(c_.exec_gen_kernel, second) << "nothing was fetched meanwhile";
}

TEST_F(TlbTest, InvlpgAnywhereInALargePageOfCodeCounts) {
    cr3(1, 0);
    fetch(0, kGlobals + 0x234000);
    fetch(3, 0x234000);
    const u32 kernel = c_.exec_gen_kernel, user = c_.exec_gen_user;
    flush_tlb_page(c_, kGlobals + 0x3ff000);
    EXPECT_NE(c_.exec_gen_kernel, kernel);
    EXPECT_EQ(c_.exec_gen_user, user);
    flush_tlb_page(c_, 0x200000);
    EXPECT_NE(c_.exec_gen_user, user);
}

// A direct-mapped table forgets pages that translated code still relies on.
TEST_F(TlbTest, InvlpgCountsForCodeThatTheFetchTableHasForgotten) {
    cr3(1, 0);
    fetch(0, kGlobals + 0x1000);
    fetch(0, kLocals + 0x1000);  // the same place in the table
    const u32 before = c_.exec_gen_kernel;
    flush_tlb_page(c_, kGlobals + 0x1000);
    EXPECT_NE(c_.exec_gen_kernel, before);
}

TEST_F(TlbTest, GenerationsNeverRepeat) {
    std::vector<u32> seen;
    for (unsigned i = 0; i < 100; ++i) {
        cr3(i % 13, i % 3 == 0 ? kKeep : 0);
        fetch(3, 0x40000);
        fetch(0, kLocals + 0x40000);
        flush_pcid(c_, static_cast<u16>(i % 13));
        seen.push_back(c_.exec_gen_user);
        seen.push_back(c_.exec_gen_kernel);
    }
    std::ranges::sort(seen);
    EXPECT_EQ(std::ranges::adjacent_find(seen), seen.end());
}

TEST_F(TlbTest, WhenGenerationsRunOutAllDecodedCodeIsDropped) {
    cr3(1, 0);
    fetch(3, 0x40000);
    c_.attention = 0;
    c_.spaces.last_exec_gen = ~0u;
    cr3(1, 0);
    EXPECT_NE(c_.attention & kAttendCodeWrites, 0u);
    const u64 drops = blocks_.drops();
    system_.take_code_writes(c_);
    EXPECT_GT(blocks_.drops(), drops);
}

TEST_F(TlbTest, UserPagesStayWithTheirPcid) {
    cr3(1, 0);
    use(3, 0x40000);
    EXPECT_TRUE(remembered(3, 0x40000));
    cr3(2, 0);
    EXPECT_FALSE(remembered(3, 0x40000));
    cr3(1, kKeep);
    EXPECT_TRUE(remembered(3, 0x40000));
    cr3(2, kKeep);
    cr3(1, 0);
    EXPECT_FALSE(remembered(3, 0x40000));
}

TEST_F(TlbTest, SupervisorSetsKeepOnlyGlobalPagesBeyondTheirPcid) {
    cr3(1, 0);
    use(0, kGlobals + 0x40000);
    use(0, kLocals + 0x41000);
    use(0, 0x42000);
    cr3(1, kKeep);
    EXPECT_TRUE(remembered(0, kLocals + 0x41000)) << "the same PCID once more";
    EXPECT_TRUE(remembered(0, 0x42000));
    cr3(2, kKeep);
    EXPECT_TRUE(remembered(0, kGlobals + 0x40000));
    EXPECT_FALSE(remembered(0, kLocals + 0x41000));
    EXPECT_FALSE(remembered(0, 0x42000));
}

TEST_F(TlbTest, InvlpgDropsGlobalPagesOfRing3InAllPcids) {
    cr3(1, 0);
    use(3, kGlobals + 0x40000);
    use(3, 0x41000);
    cr3(2, 0);
    flush_tlb_page(c_, kGlobals + 0x40000);
    flush_tlb_page(c_, 0x41000);
    cr3(1, kKeep);
    EXPECT_FALSE(remembered(3, kGlobals + 0x40000));
    EXPECT_TRUE(remembered(3, 0x41000)) << "of another PCID, not global";
}

// [SDM 3A 4.10.2.3] The pieces of a large page that the first table holds go together, also those that came
// from the second table.
TEST_F(TlbTest, InvlpgAnywhereInALargePageDropsAllItsPieces) {
    for (const u64 base : {u64{0}, kLocals, kGlobals})
        for (const unsigned cpl : {0U, 3U}) {
            if (cpl == 3 && base == kLocals) continue;
            cr3(1, 0);
            use(cpl, base + 0x234000);
            cr3(2, kKeep);
            cr3(1, kKeep);
            use(cpl, base + 0x234000);
            use(cpl, base + 0x3ff000);
            ASSERT_TRUE(remembered(cpl, base + 0x234000));
            flush_tlb_page(c_, base + 0x280000);
            EXPECT_FALSE(remembered(cpl, base + 0x234000)) << base << " at " << cpl;
            EXPECT_FALSE(remembered(cpl, base + 0x3ff000)) << base << " at " << cpl;
            SecondTlb::Found found;
            EXPECT_FALSE(find_second(c_, base + 0x234000, found));
        }
}

TEST_F(TlbTest, InvpcidAddressLeavesGlobalPages) {
    cr3(1, 0);
    use(0, kGlobals + 0x40000);
    flush_pcid_page(c_, 1, kGlobals + 0x40000);
    EXPECT_TRUE(remembered(0, kGlobals + 0x40000));
    flush_tlb(c_, true);
    EXPECT_FALSE(remembered(0, kGlobals + 0x40000));
}

TEST_F(TlbTest, ThePcidNotUsedForLongestMakesRoom) {
    for (unsigned pcid = 1; pcid <= kAddressSpaces; ++pcid) {
        cr3(pcid, kKeep);
        use(3, 0x40000);
    }
    cr3(1, kKeep);
    EXPECT_TRUE(remembered(3, 0x40000));
    cr3(100, kKeep);  // instead of 2
    EXPECT_FALSE(remembered(3, 0x40000));
    cr3(3, kKeep);
    EXPECT_TRUE(remembered(3, 0x40000));
    cr3(2, kKeep);
    EXPECT_FALSE(remembered(3, 0x40000));
}

TEST_F(TlbTest, DecodedCodeTakesWritePermissionFromEverySet) {
    for (const u64 pcid : {1, 2}) {
        cr3(pcid, kKeep);
        level(3);
        store<u32>(c_, 0x40000, 1, x86::Ds);
        level(0);
    }
    store<u32>(c_, kGlobals + 0x40000, 1, x86::Ds);
    purge_write_tags(c_, 0x40000);
    EXPECT_NE(tlb_entry(c_, kGlobals + 0x40000).tag_w, kGlobals + 0x40000);
    for (const u64 pcid : {1, 2}) {
        cr3(pcid, kKeep);
        level(3);
        EXPECT_NE(tlb_entry(c_, 0x40000).tag_w, 0x40000u);
        EXPECT_EQ(tlb_entry(c_, 0x40000).tag_r, 0x40000u);
        level(0);
    }
}

TEST_F(TlbTest, TheSecondTableKnowsWhatTheFirstHasForgotten) {
    cr3(1, 0);
    use(0, 0x40000);
    put(kTables + 0x3000 + 0x40 * 8, 0x41000 | kAll);  // nobody flushes: the old page may be seen
    cr3(2, kKeep);
    cr3(1, kKeep);
    EXPECT_FALSE(remembered(0, 0x40000));
    SecondTlb::Found found;
    ASSERT_TRUE(find_second(c_, 0x40123, found));
    EXPECT_EQ(found.page, 0x40000u);
    EXPECT_TRUE(found.rights.user);
    EXPECT_FALSE(found.rights.dirty);
    EXPECT_FALSE(found.rights.global);
    cr3(2, kKeep);
    EXPECT_FALSE(find_second(c_, 0x40123, found)) << "of another PCID";
}

TEST_F(TlbTest, TheSecondTableFindsPagesOfAllSizesWhicheverWasFoundLast) {
    constexpr u64 kLargeUser = 0x234000, kLargeGlobal = kGlobals + 0x212000;
    cr3(1, 0);
    for (const u64 lin : {u64{0x40000}, kLargeUser, kGlobals + 0x41000, kLargeGlobal}) use(0, lin);
    SecondTlb::Found found;
    for (unsigned i = 0; i < 16; ++i) {
        const bool large = (i >> (i % 4) & 1) != 0, global = (i % 3) == 0;
        ASSERT_TRUE(find_second(
            c_, global ? (large ? kLargeGlobal : kGlobals + 0x41000) : (large ? kLargeUser : 0x40000),
            found));
        EXPECT_EQ(found.shift, large ? 21 : 12);
        EXPECT_EQ(found.rights.global, global);
    }
}

// Its registers are where IA32_APIC_BASE says, RAM or not.
class ApicInRam final : public CpuInterrupts {
public:
    Events take_events() override { return {}; }
    [[nodiscard]] bool interrupt_pending() override { return false; }
    std::optional<u8> acknowledge() override { return std::nullopt; }
    [[nodiscard]] u8 cr8() override { return 0; }
    void set_cr8(u8 /*value*/) override {}
    MsrResult read_msr(u32 index, u64& value) override {
        if (index != 0x1b) return MsrResult::NotMine;
        value = page | 0x900;
        return MsrResult::Ok;
    }
    MsrResult write_msr(u32 /*index*/, u64 value) override {
        page = value & ~kPageMask;
        return MsrResult::Ok;
    }
    [[nodiscard]] bool owns_page(u64 address) const override { return address == page; }
    u32 read_register(u32 /*offset*/) override { return 0x600dca11; }
    void write_register(u32 /*offset*/, u32 /*value*/) override {}
    [[nodiscard]] u32 apic_id() const override { return 0; }
    [[nodiscard]] bool is_bootstrap() const override { return true; }
    [[nodiscard]] bool globally_enabled() const override { return true; }
    void set_tsc_offset(s64 /*offset*/) override {}
    void init_reset() override {}

    u64 page = 0x2ff000;
};

TEST_F(TlbTest, ApicInTheMiddleOfALargePageOfRamIsNeverTakenForRam) {
    ApicInRam apic;
    c_.interrupts = &apic;
    cr3(1, 0);
    const auto read = [&](u64 lin) { return load<u32>(c_, lin, x86::Ds); };
    for (unsigned i = 0; i < 3; ++i) {
        EXPECT_EQ(read(kLocals + 0x2fe020), 0u);
        EXPECT_EQ(read(kLocals + 0x2ff020), 0x600dca11u);
        cr3(2, kKeep);
        cr3(1, kKeep);  // the first table has forgotten both
    }
    EXPECT_TRUE(write_msr(c_, 0x1b, 0x201900));
    for (unsigned i = 0; i < 3; ++i) {
        EXPECT_EQ(read(kLocals + 0x2ff020), 0u);
        EXPECT_EQ(read(kLocals + 0x201020), 0x600dca11u);
        cr3(2, kKeep);
        cr3(1, kKeep);
    }
    EXPECT_TRUE(write_msr(c_, 0x1b, 0xfee00900));
    for (unsigned i = 0; i < 3; ++i) {
        EXPECT_EQ(read(kLocals + 0x201020), 0u);
        EXPECT_EQ(read(kLocals + 0x2ff020), 0u);
        cr3(2, kKeep);
        cr3(1, kKeep);
    }
    c_.interrupts = &interrupts_;
}

TEST_F(TlbTest, WhenIdsRunOutTheSecondTableIsEmpty) {
    cr3(1, 0);
    use(0, 0x40000);
    use(0, kGlobals + 0x40000);
    c_.spaces.last_second_id = SecondTlb::kLastId;
    cr3(2, kKeep);
    SecondTlb::Found found;
    EXPECT_TRUE(find_second(c_, kGlobals + 0x40000, found));
    use(0, 0x41000);
    flush_pcid(c_, 2);
    EXPECT_FALSE(find_second(c_, 0x41000, found));
    EXPECT_FALSE(find_second(c_, kGlobals + 0x40000, found));
    cr3(1, kKeep);
    EXPECT_FALSE(find_second(c_, 0x40000, found));
    use(0, 0x42000);
    EXPECT_TRUE(find_second(c_, 0x42000, found));
}

TEST(SecondTlbTest, PagesOfAllSizesAreFoundByAnyAddressInThem) {
    auto tlb = std::make_unique<SecondTlb>();
    const PageRights rights{.writable = false, .user = true, .nx = true, .dirty = true, .global = true};
    constexpr u64 kHigh = 0xffff'8000'0000'0000;
    tlb->insert(kHigh + 0x12345000, 0x777000, 12, rights, true, 5);
    tlb->insert(0x40212000, 0x812000, 21, rights, true, 5);
    tlb->insert(0x80345000, 0x40345000, 30, {}, false, 5);
    tlb->insert(0xc0345000, 0x10345000, 22, {}, true, 5);
    SecondTlb::Found found;
    ASSERT_TRUE(tlb->find(kHigh + 0x12345fff, 12, 5, found));
    EXPECT_EQ(found.page, 0x777000u);
    EXPECT_EQ(found.shift, 12);
    EXPECT_TRUE(found.in_memory);
    EXPECT_FALSE(found.rights.writable);
    EXPECT_TRUE(found.rights.user && found.rights.nx && found.rights.dirty && found.rights.global);
    EXPECT_FALSE(tlb->find(0x12345000, 12, 5, found)) << "the lower half";
    EXPECT_FALSE(tlb->find(kHigh + 0x12345000, 12, 6, found)) << "another owner";
    ASSERT_TRUE(tlb->find(0x403fe123, 21, 5, found));
    EXPECT_EQ(found.page, 0x9fe000u);
    EXPECT_EQ(found.shift, 21);
    EXPECT_TRUE(found.in_memory);
    ASSERT_TRUE(tlb->find(0xbffff000, 30, 5, found));
    EXPECT_EQ(found.page, 0x7ffff000u);
    EXPECT_FALSE(found.in_memory);
    EXPECT_FALSE(found.rights.nx);
    ASSERT_TRUE(tlb->find(0xc03ff000, 21, 5, found));
    EXPECT_EQ(found.page, 0x103ff000u);
    EXPECT_EQ(found.shift, 22);
    EXPECT_FALSE(tlb->find(0xc01ff000, 21, 5, found)) << "the half that was not used";
    tlb->erase(0x403ff000, 21, 5);
    EXPECT_FALSE(tlb->find(0x40212000, 21, 5, found));
    EXPECT_TRUE(tlb->find(kHigh + 0x12345000, 12, 5, found));
}

TEST(SecondTlbTest, ANewWordOnAPageReplacesTheOldOne) {
    auto tlb = std::make_unique<SecondTlb>();
    tlb->insert(0x5000, 0x1000, 12, {.dirty = false}, true, 1);
    tlb->insert(0x5000, 0x2000, 12, {.dirty = true}, true, 1);
    SecondTlb::Found found;
    ASSERT_TRUE(tlb->find(0x5000, 12, 1, found));
    EXPECT_EQ(found.page, 0x2000u);
    EXPECT_TRUE(found.rights.dirty);
    tlb->erase(0x5000, 12, 1);
    EXPECT_FALSE(tlb->find(0x5000, 12, 1, found));
}

TEST(PageFilterTest, NeverForgetsAPageAndKnowsLargeOnesByAnyAddress) {
    PageFilter filter;
    EXPECT_TRUE(filter.empty());
    for (u64 i = 0; i < 5000; ++i) filter.add(i * 0x1357000, 12);
    for (u64 i = 0; i < 5000; ++i) EXPECT_TRUE(filter.may_hold(i * 0x1357000 + 0xfff));
    filter.clear();
    EXPECT_FALSE(filter.may_hold(0));
    filter.add(0x40200000, 21);
    EXPECT_TRUE(filter.may_hold(0x403fffff));
    EXPECT_FALSE(filter.may_hold(0x40400000));
    filter.add(u64{5} << 30, 30);
    EXPECT_TRUE(filter.may_hold((u64{6} << 30) - 1));
    EXPECT_FALSE(filter.may_hold(u64{6} << 30));
    filter.clear();
    filter.add(0xffff'8000'0040'0000, 22);
    EXPECT_TRUE(filter.may_hold(0xffff'8000'007f'f000));
    EXPECT_FALSE(filter.empty());
}

}  // namespace
}  // namespace tessera::soft
