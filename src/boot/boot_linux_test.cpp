#include "boot/boot_linux.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "boot/testing/guest_memory.h"
#include "boot/testing/kernel_files.h"
#include "boot/testing/packed_kernels.h"

namespace tessera::boot {
namespace {

using testing::HasSubstr;

class BootLinuxTest : public testing::Test {
protected:
    Result<StartState> boot(GuestMemory& memory) {
        BootRequest request{.kernel = {.name = "vmlinuz", .bytes = kernel},
                            .initrd = {},
                            .cmdline = cmdline,
                            .board = board,
                            .entry = entry,
                            .random_seed = seed};
        if (!unpacked.empty()) {
            kernel = make_packed_bzimage(pack(Compression::Lz4, unpacked));
            request.kernel.bytes = kernel;
            request.direct = DirectStart{.random = request_random};
        }
        if (!initrd.empty()) request.initrd = BootFile{.name = "initrd.img", .bytes = initrd};
        return boot_linux(request, memory.map);
    }
    StartState start(GuestMemory& memory) {
        auto result = boot(memory);
        EXPECT_TRUE(result) << result.error().message;
        return result ? *std::move(result) : StartState{};
    }
    std::string refusal(GuestMemory& memory) {
        const auto result = boot(memory);
        return result ? "accepted" : result.error().message;
    }

    // A bzImage that asks for 16 MiB, and what was in it.
    void unpack(bool is64 = true) { unpacked = make_vmlinux(is64); }
    // A minimal cpio archive: its trailer, padded with zeros.
    static Bytes make_initrd(std::size_t size) {
        Bytes file(size);
        poke_text(file, 0,
                  "070701000000000000000000000000000000000000000100000000000000000000000000000000"
                  "00000000000000000000000B00000000TRAILER!!!");
        return file;
    }

    Bytes kernel = make_bzimage();
    Bytes unpacked;
    std::optional<std::array<u64, 2>> request_random;
    Bytes initrd;
    std::string cmdline = "console=ttyS0";
    BoardDescription board = pc_board(2);
    KernelEntry entry = KernelEntry::Auto;
    Bytes seed;
};

constexpr u64 kM = 1 << 20;

TEST_F(BootLinuxTest, SixtyFourBitEntryIsInLongModeWithIdentityMapping) {
    GuestMemory memory(64 * kM);
    const StartState s = start(memory);
    const x86::State& cpu = s.bootstrap;
    EXPECT_EQ(cpu.rip, 0x1000200U);
    EXPECT_EQ(cpu.cr0 & 0xe000'0001, 0x8000'0001U);  // paging and protection on, caches on
    EXPECT_EQ(cpu.cr4 & 0x20, 0x20U);
    EXPECT_EQ(cpu.msr.efer, 0x500U);
    EXPECT_EQ(cpu.rflags, 2U);
    EXPECT_EQ(cpu.seg[x86::Cs].selector, 0x10);
    EXPECT_EQ(cpu.seg[x86::Cs].rights, 0xa09bU);
    for (const auto seg : {x86::Ds, x86::Es, x86::Ss}) {
        EXPECT_EQ(cpu.seg[seg].selector, 0x18);
        EXPECT_EQ(cpu.seg[seg].rights, 0xc093U);
        EXPECT_EQ(cpu.seg[seg].limit, 0xffffffffU);
    }
    EXPECT_EQ(memory.get<u64>(cpu.gdtr.base + 0x10), 0x00af'9b00'0000'ffffU);
    EXPECT_EQ(memory.get<u64>(cpu.gdtr.base + 0x18), 0x00cf'9300'0000'ffffU);
    // Walk the tables at some addresses, the last of the first 4 GiB among them.
    for (const u64 address : {u64{0}, u64{0x1000200}, u64{0x9fc00}, u64{0xffffffff}}) {
        const auto pml4e = memory.get<u64>(cpu.cr3 + (address >> 39) * 8);
        ASSERT_EQ(pml4e & 0x83, 3U);
        const auto pdpte = memory.get<u64>((pml4e & ~0xfffULL) + (address >> 30 & 511) * 8);
        ASSERT_EQ(pdpte & 0x83, 3U);
        const auto pde = memory.get<u64>((pdpte & ~0xfffULL) + (address >> 21 & 511) * 8);
        EXPECT_EQ(pde, (address & ~0x1fffffULL) | 0x83);
    }
}

TEST_F(BootLinuxTest, BootParamsPointToEverything) {
    GuestMemory memory(64 * kM);
    initrd = make_initrd(5000);
    seed = Bytes(32, std::byte{0x5a});
    const StartState s = start(memory);
    const u64 page = s.bootstrap.gpr[x86::Rsi];
    EXPECT_EQ(memory.get<u8>(page + 0x1ef), 0);  // sentinel
    EXPECT_EQ(memory.get<u32>(page + 0x202), 0x53726448U);
    EXPECT_EQ(memory.get<u8>(page + 0x210), 0xff);
    EXPECT_EQ(memory.text(memory.get<u32>(page + 0x228)), "console=ttyS0");
    EXPECT_EQ(memory.get<u32>(page + 0x21c), 5000U);
    const u64 image = memory.get<u32>(page + 0x218);
    EXPECT_EQ(image, s.initrd_address);
    EXPECT_EQ(image, 64 * kM - 8192);  // as high as it goes, page aligned
    EXPECT_EQ(memory.bytes(image, 5000), initrd);
    const u64 data = memory.get<u64>(page + 0x250);
    EXPECT_EQ(memory.get<u64>(data), 0U);
    EXPECT_EQ(memory.get<u32>(data + 8), 9U);  // SETUP_RNG_SEED
    EXPECT_EQ(memory.get<u32>(data + 12), 32U);
    EXPECT_EQ(memory.bytes(data + 16, 32), seed);
    EXPECT_EQ(memory.get<u64>(page + 0x070), s.rsdp_address);
    EXPECT_EQ(memory.get<u32>(page + 0x1e0), 63U * 1024);
    EXPECT_EQ(memory.get<u64>(0x1000000), 0xcccc'cccc'cccc'ccccU);
}

TEST_F(BootLinuxTest, E820ListsMemoryAroundTheHoles) {
    GuestMemory memory(0xc000'0000, 2048 * kM);
    const StartState s = start(memory);
    const u64 page = s.bootstrap.gpr[x86::Rsi];
    struct Entry {
        u64 base, size;
        u32 type;
    };
    const Entry expected[] = {{0, 0x9fc00, 1},
                              {0x9fc00, 0x400, 2},
                              {0xe0000, 0x20000, 2},
                              {0x100000, 0xbff0'0000, 1},
                              {0xe000'0000, 0x1000'0000, 2},  // ECAM
                              {0x1'0000'0000, 0x8000'0000, 1}};
    ASSERT_EQ(memory.get<u8>(page + 0x1e8), std::size(expected));
    for (std::size_t n = 0; n < std::size(expected); ++n) {
        EXPECT_EQ(memory.get<u64>(page + 0x2d0 + n * 20), expected[n].base);
        EXPECT_EQ(memory.get<u64>(page + 0x2d0 + n * 20 + 8), expected[n].size);
        EXPECT_EQ(memory.get<u32>(page + 0x2d0 + n * 20 + 16), expected[n].type);
    }
}

TEST_F(BootLinuxTest, ThirtyTwoBitEntryIsFlatProtectedMode) {
    GuestMemory memory(64 * kM);
    entry = KernelEntry::Linux32;
    const x86::State cpu = start(memory).bootstrap;
    EXPECT_EQ(cpu.rip, 0x1000000U);
    EXPECT_EQ(cpu.cr0 & 0xe000'0001, 1U);
    EXPECT_EQ(cpu.msr.efer, 0U);
    EXPECT_EQ(cpu.seg[x86::Cs].selector, 0x10);
    EXPECT_EQ(cpu.seg[x86::Cs].rights, 0xc09bU);
    EXPECT_EQ(cpu.gpr[x86::Rbx] | cpu.gpr[x86::Rbp] | cpu.gpr[x86::Rdi], 0U);
    EXPECT_EQ(memory.get<u32>(cpu.gpr[x86::Rsi] + 0x214), 0x1000000U);
}

TEST_F(BootLinuxTest, KernelsWithoutA64BitEntryGetThe32BitOne) {
    GuestMemory memory(64 * kM);
    poke<u16>(kernel, 0x236, 0);
    EXPECT_EQ(start(memory).kernel.entry, KernelEntry::Linux32);
    entry = KernelEntry::Linux64;
    EXPECT_THAT(refusal(memory), HasSubstr("vmlinuz: the kernel has no 64-bit entry"));
}

TEST_F(BootLinuxTest, OldestProtocolGetsItsCommandLineByOffset) {
    GuestMemory memory(64 * kM);
    poke<u16>(kernel, 0x206, 0x0200);
    const u64 page = start(memory).bootstrap.gpr[x86::Rsi];
    EXPECT_EQ(memory.get<u16>(page + 0x20), 0xa33f);
    EXPECT_EQ(memory.text(page + memory.get<u16>(page + 0x22)), "console=ttyS0");
}

TEST_F(BootLinuxTest, PvhEntryGetsStartInfo) {
    GuestMemory memory(64 * kM);
    kernel = make_elf({.pvh = true});
    initrd = make_initrd(4096);
    const StartState s = start(memory);
    EXPECT_EQ(s.kernel.entry, KernelEntry::Pvh);
    EXPECT_EQ(s.bootstrap.rip, 0x100020U);
    EXPECT_EQ(s.bootstrap.cr0 & 0xe000'0001, 1U);
    EXPECT_EQ(s.bootstrap.cr4, 0U);
    const u64 info = s.bootstrap.gpr[x86::Rbx];
    EXPECT_EQ(memory.get<u32>(info), 0x336ec578U);
    EXPECT_EQ(memory.get<u32>(info + 4), 1U);
    EXPECT_EQ(memory.get<u32>(info + 12), 1U);
    const auto module = memory.get<u64>(info + 16);
    EXPECT_EQ(memory.get<u64>(module), s.initrd_address);
    EXPECT_EQ(memory.get<u64>(module + 8), 4096U);
    EXPECT_EQ(memory.text(memory.get<u64>(info + 24)), "console=ttyS0");
    EXPECT_EQ(memory.get<u64>(info + 32), s.rsdp_address);
    const u64 usable = memory.get<u64>(info + 40) + 3 * u64{24};  // the fourth entry
    ASSERT_EQ(memory.get<u32>(info + 48), 5U);
    EXPECT_EQ(memory.get<u64>(usable), 0x100000U);
    EXPECT_EQ(memory.get<u64>(usable + 8), 63 * kM);
    EXPECT_EQ(memory.get<u32>(usable + 16), 1U);
}

TEST_F(BootLinuxTest, VmlinuxWithoutPvhIsEnteredByItsClass) {
    GuestMemory memory(64 * kM);
    kernel = make_elf();
    StartState s = start(memory);
    EXPECT_EQ(s.kernel.entry, KernelEntry::Linux64);
    EXPECT_EQ(s.bootstrap.rip, 0x100010U);
    EXPECT_EQ(memory.get<u32>(s.bootstrap.gpr[x86::Rsi] + 0x202), 0x53726448U);
    kernel = make_elf({.is64 = false});
    s = start(memory);
    EXPECT_EQ(s.kernel.entry, KernelEntry::Linux32);
    EXPECT_EQ(s.bootstrap.rip, 0x100010U);
}

TEST_F(BootLinuxTest, PagesOfZerosAreNotWritten) {
    // Memory is zero before; dirt shows what was left alone, and hence not taken from the host.
    GuestMemory memory(64 * kM);
    kernel = make_elf({.memory_size = 0x5000});
    poke<u64>(kernel, 64 + 32, 0x3000);  // p_filesz: two pages more, of which the second is not all zero
    kernel.resize(0x4000);
    poke<u8>(kernel, 0x3fff, 0x77);
    const Bytes dirt(1, std::byte{0xff});
    for (const u64 page : {0x100000, 0x101000, 0x102000, 0x103000}) ASSERT_TRUE(memory.map.write(page, dirt));
    start(memory);
    EXPECT_EQ(memory.get<u8>(0x100000), 0x90);
    EXPECT_EQ(memory.get<u8>(0x101000), 0xff);
    EXPECT_EQ(memory.get<u8>(0x102000), 0x00);
    EXPECT_EQ(memory.get<u8>(0x102fff), 0x77);
    EXPECT_EQ(memory.get<u8>(0x103000), 0xff);
}

TEST_F(BootLinuxTest, AnUnpackedKernelIsEnteredWhereItWasLinkedWithItsOwnHeader) {
    GuestMemory memory(64 * kM);
    seed = Bytes(32, std::byte{0x5a});
    unpack();
    const StartState s = start(memory);
    EXPECT_EQ(s.kernel.entry, KernelEntry::Linux64);
    EXPECT_EQ(s.bootstrap.rip, 0x1000010U);
    EXPECT_EQ(s.kernel.begin, 0x1000000U);
    EXPECT_EQ(s.kernel.end, 0x1000000U + 16 * kM) << "init_size counts from the start";
    EXPECT_EQ(memory.get<u32>(0x1000300), 0x8100'0020U) << "not moved";
    EXPECT_EQ(memory.get<u8>(0x1000000), 0x90);
    const u64 page = s.bootstrap.gpr[x86::Rsi];
    EXPECT_EQ(memory.get<u16>(page + 0x206), 0x020f);
    EXPECT_EQ(memory.get<u32>(page + 0x260), 16 * kM) << "the bzImage's header";
    EXPECT_EQ(memory.get<u8>(page + 0x211) & 2, 0) << "KASLR_FLAG";
    EXPECT_NE(memory.get<u64>(page + 0x250), 0U) << "setup_data";
    EXPECT_EQ(memory.get<u64>(page + 0x070), s.rsdp_address);
}

TEST_F(BootLinuxTest, RandomNumbersMoveAnUnpackedKernelAndItIsTold) {
    GuestMemory memory(512 * kM);
    initrd = make_initrd(5 * kM);
    unpack();
    request_random = std::array<u64, 2>{3, 100};
    const StartState s = start(memory);
    EXPECT_EQ(s.kernel.begin, 16 * kM + 200 * kM);
    EXPECT_EQ(s.kernel.virtual_offset, 6 * kM);
    EXPECT_EQ(s.bootstrap.rip, s.kernel.begin + 16);
    EXPECT_EQ(memory.get<u64>(s.kernel.begin + 0x100), 0xffff'ffff'8100'0010U + 6 * kM);
    EXPECT_EQ(memory.get<u32>(s.kernel.begin + 0x300), 0x8100'0020U + 6 * kM);
    EXPECT_EQ(memory.get<u8>(s.bootstrap.gpr[x86::Rsi] + 0x211) & 2, 2) << "KASLR_FLAG";
    EXPECT_GE(s.initrd_address, s.kernel.end);
    // Whatever the numbers, the initrd has its room.
    for (u64 n = 0; n < 300; ++n) {
        GuestMemory fresh(64 * kM);
        unpack();
        request_random = std::array<u64, 2>{n, n};
        const StartState other = start(fresh);
        EXPECT_GE(other.initrd_address, other.kernel.end);
        EXPECT_LE(other.initrd_address + other.initrd_size, 64 * kM);
    }
}

TEST_F(BootLinuxTest, NothingIsLeftOfTheFileAKernelWasUnpackedFrom) {
    for (const bool is64 : {true, false}) {
        GuestMemory memory(64 * kM);
        unpack(is64);
        const StartState s = start(memory);
        Bytes high = memory.bytes(kM, 63 * kM);
        const Bytes contents(unpacked.begin() + 0x1000, unpacked.begin() + 0x2000);
        EXPECT_EQ(memory.bytes(s.kernel.begin, 0x1000), contents);
        std::fill_n(high.begin() + static_cast<std::ptrdiff_t>(s.kernel.begin - kM), 0x1000, std::byte{0});
        EXPECT_TRUE(std::ranges::all_of(high, [](std::byte b) { return b == std::byte{0}; })) << is64;
    }
}

// Two segments that stand in the file in the other order than in memory: they cannot be moved in place.
TEST_F(BootLinuxTest, SegmentsMayStandInAnyOrderInTheFile) {
    GuestMemory memory(64 * kM);
    unpacked = make_elf({.address = 0x1000000, .memory_size = 0x1000});
    unpacked.resize(0x3000);
    std::memset(unpacked.data() + 0x2000, 0x22, 0x1000);
    poke<u16>(unpacked, 56, 2);
    std::memcpy(unpacked.data() + 120, unpacked.data() + 64, 56);
    poke<u64>(unpacked, 64 + 8, 0x2000);  // the first in memory is the last in the file
    poke<u64>(unpacked, 120 + 24, 0x1000000 + 0x1000);
    const StartState s = start(memory);
    EXPECT_EQ(memory.get<u8>(0x1000000), 0x22);
    EXPECT_EQ(memory.get<u8>(0x1000fff), 0x22);
    EXPECT_EQ(memory.get<u8>(0x1001000), 0x90);
    EXPECT_EQ(memory.get<u8>(0x1001fff), 0x90);
    EXPECT_EQ(memory.get<u8>(0x1002000), 0);
    EXPECT_EQ(memory.get<u8>(0x1000000 - 2 * kM), 0) << "the file's header";
    EXPECT_EQ(s.kernel.begin, 0x1000000U);
}

// Memory that begins where the kernel does: there is no room for the file's headers before it.
TEST_F(BootLinuxTest, AKernelAtTheBeginningOfMemoryIsUnpackedElsewhere) {
    GuestMemory memory(64 * kM);
    unpacked = make_elf({.address = 0x100000});
    entry = KernelEntry::Linux64;
    kernel = make_packed_bzimage(pack(Compression::Lz4, unpacked));
    poke<u64>(kernel, 0x258, 0x100000);  // pref_address
    const Bytes file = std::exchange(kernel, {});
    const BootRequest request{.kernel = {.name = "vmlinuz", .bytes = file},
                              .initrd = {},
                              .cmdline = cmdline,
                              .board = board,
                              .random_seed = {},
                              .direct = DirectStart{}};
    const auto s = boot_linux(request, memory.map);
    ASSERT_TRUE(s) << s.error().message;
    EXPECT_EQ(s->kernel.begin, 0x100000U);
    EXPECT_EQ(memory.get<u8>(0x100000), 0x90);
    EXPECT_EQ(memory.get<u8>(0x101000), 0);
}

TEST_F(BootLinuxTest, NokaslrIsObeyed) {
    GuestMemory memory(512 * kM);
    cmdline = "console=ttyS0 nokaslr quiet";
    unpack();
    request_random = std::array<u64, 2>{3, 100};
    const StartState s = start(memory);
    EXPECT_EQ(s.kernel.begin, 16 * kM);
    EXPECT_EQ(s.kernel.virtual_offset, 0U);
    EXPECT_EQ(memory.get<u8>(s.bootstrap.gpr[x86::Rsi] + 0x211) & 2, 0);
}

TEST_F(BootLinuxTest, AnUnpacked32BitKernelIsEnteredInProtectedMode) {
    GuestMemory memory(512 * kM);
    unpack(false);
    request_random = std::array<u64, 2>{0, 4};
    const StartState s = start(memory);
    EXPECT_EQ(s.kernel.entry, KernelEntry::Linux32);
    EXPECT_EQ(s.bootstrap.cr0 & 0x8000'0001U, 1U);
    EXPECT_EQ(s.kernel.begin, 24 * kM);
    EXPECT_EQ(s.bootstrap.rip, 24 * kM + 16);
    EXPECT_EQ(memory.get<u32>(s.kernel.begin + 0x300), 0xc100'0020U + 8 * kM);
}

TEST_F(BootLinuxTest, AnUnpackedKernelIsRefusedWhenItCannotBeUsed) {
    GuestMemory memory(32 * kM - 1 * kM);
    unpack();
    EXPECT_THAT(refusal(memory), HasSubstr("memory too small"));
    GuestMemory enough(64 * kM);
    unpacked.resize(100);
    EXPECT_THAT(refusal(enough), HasSubstr("vmlinuz: "));
    unpack();
    poke<u64>(unpacked, 24, 0x3000000);  // e_entry
    EXPECT_THAT(refusal(enough), HasSubstr("entry"));
    unpack();
    request_random = std::array<u64, 2>{1, 1};
    poke<u32>(unpacked, unpacked.size(), 0x12345678);
    EXPECT_THAT(refusal(enough), HasSubstr("relocations are damaged")) << "four bytes more in the last part";
    unpack();
    entry = KernelEntry::Linux32;
    EXPECT_THAT(refusal(enough), HasSubstr("no 32-bit entry"));
}

TEST_F(BootLinuxTest, InitrdStaysBelowTheKernelsLimit) {
    GuestMemory memory(0xc000'0000);
    initrd = make_initrd(kM);
    EXPECT_EQ(start(memory).initrd_address, 0x8000'0000 - kM);
}

TEST_F(BootLinuxTest, InitrdGoesAbove4GWhenItFitsOnlyThereAndTheKernelAllows) {
    GuestMemory memory(32 * kM, 32 * kM);
    initrd = make_initrd(14 * kM);
    const StartState s = start(memory);
    EXPECT_EQ(s.initrd_address, 0x1'0000'0000 + 18 * kM);
    const u64 page = s.bootstrap.gpr[x86::Rsi];
    EXPECT_EQ(memory.get<u32>(page + 0x0c0), 1U);
    EXPECT_EQ(memory.get<u32>(page + 0x218), 18 * kM);
    poke<u16>(kernel, 0x236, 1);  // may not
    EXPECT_THAT(refusal(memory),
                HasSubstr("initrd.img: the initrd does not fit: it has 14 MiB, above the kernel "
                          "there are 13 MiB; give the machine at least 33 MiB"));
}

TEST_F(BootLinuxTest, FilesThatAreNoInitrdAreRefusedByName) {
    GuestMemory memory(64 * kM);
    initrd = kernel;
    EXPECT_THAT(refusal(memory), HasSubstr("initrd.img: not an initrd but a kernel"));
    kernel = make_elf({.pvh = true});  // a module of any kind
    EXPECT_EQ(refusal(memory), "accepted");
}

TEST_F(BootLinuxTest, CommandLineLimitIsTheKernels) {
    GuestMemory memory(64 * kM);
    cmdline = std::string(2047, 'x');
    EXPECT_EQ(refusal(memory), "accepted");
    cmdline += 'x';
    EXPECT_THAT(refusal(memory),
                HasSubstr("command line too long: 2048 characters, vmlinuz takes at most 2047"));
    poke<u32>(kernel, 0x238, 0xffffffff);
    cmdline = std::string(61000, 'x');
    EXPECT_THAT(refusal(memory), HasSubstr("command line too long"));
    cmdline = std::string("a\0b", 3);
    EXPECT_THAT(refusal(memory), HasSubstr("zero byte"));
}

TEST_F(BootLinuxTest, SmallMemoryIsRefusedWithTheSizeNeeded) {
    GuestMemory sixteen(16 * kM);
    EXPECT_THAT(refusal(sixteen), HasSubstr("vmlinuz: memory too small"));
    EXPECT_THAT(refusal(sixteen), HasSubstr("at least 19 MiB"));
    GuestMemory one(kM);
    EXPECT_THAT(refusal(one), HasSubstr("memory too small"));
}

TEST_F(BootLinuxTest, KnownOtherFilesGetAHint) {
    GuestMemory memory(64 * kM);
    const std::pair<std::string_view, std::string_view> files[] = {{"\x1f\x8b\x08", "gzip"},
                                                                   {"\x28\xb5\x2f\xfd", "zstd"},
                                                                   {"070701", "initramfs"},
                                                                   {"#!/bin/sh", "script"}};
    for (const auto& [magic, hint] : files) {
        kernel = Bytes(2048);
        poke_text(kernel, 0, magic);
        EXPECT_THAT(refusal(memory), HasSubstr(hint));
    }
    kernel = Bytes(2048);
    poke_text(kernel, 0x38, "ARM\x64");
    EXPECT_THAT(refusal(memory), HasSubstr("arm64"));
    kernel = Bytes(2048);
    EXPECT_THAT(refusal(memory), HasSubstr("vmlinuz: not a bzImage"));
    kernel.clear();
    EXPECT_THAT(refusal(memory), HasSubstr("empty"));
}

TEST_F(BootLinuxTest, ElfOutsideOfMemoryIsRefused) {
    GuestMemory memory(64 * kM, 64 * kM);
    for (const u64 address :
         {u64{0}, u64{0x9f000}, u64{64 * kM - 0x1000}, u64{0x1'0000'0000}, u64{0xffff'f000}}) {
        kernel = make_elf({.address = address});
        EXPECT_NE(refusal(memory), "accepted") << address;
    }
    kernel = make_elf();
    poke<u64>(kernel, 24, 0x103000);
    EXPECT_THAT(refusal(memory), HasSubstr("entry 0x103000"));
}

TEST_F(BootLinuxTest, OtherCpusWaitWithTheSameMemoryTypes) {
    GuestMemory memory(64 * kM);
    board.physical_address_bits = 40;
    const StartState s = start(memory);
    EXPECT_EQ(s.application.activity, x86::Activity::WaitForSipi);
    EXPECT_EQ(s.application.msr.mtrr_def_type, 0xc06U);
    EXPECT_EQ(s.application.msr.mtrr_def_type, s.bootstrap.msr.mtrr_def_type);
    EXPECT_EQ(s.application.msr.mtrr_fixed, s.bootstrap.msr.mtrr_fixed);
    EXPECT_EQ(s.application.msr.mtrr_variable, s.bootstrap.msr.mtrr_variable);
    EXPECT_EQ(s.application.msr.mtrr_variable[0], 0xc000'0000U);
    EXPECT_EQ(s.application.msr.mtrr_variable[1], 0xff'c000'0800U);
}

TEST_F(BootLinuxTest, BiosDataSaysWhereSerialPortAndEbdaAre) {
    GuestMemory memory(64 * kM);
    start(memory);
    EXPECT_EQ(memory.get<u16>(0x400), 0x3f8);
    EXPECT_EQ(memory.get<u16>(0x402), 0);
    EXPECT_EQ(memory.get<u16>(0x40e), 0x9fc0);
    EXPECT_EQ(memory.get<u16>(0x413), 639);
    EXPECT_EQ(memory.get<u8>(0x9fc00), 1);
}

TEST_F(BootLinuxTest, CmosTellsMemorySizes) {
    GuestMemory memory(0xc000'0000, 2048 * kM);
    std::map<u8, u8> cmos;
    for (const auto& byte : start(memory).cmos) cmos[byte.index] = byte.value;
    EXPECT_EQ(cmos[0x15] | cmos[0x16] << 8, 640);
    EXPECT_EQ(cmos[0x17] | cmos[0x18] << 8, 0xffff);
    EXPECT_EQ(cmos[0x34] | cmos[0x35] << 8, (3072 - 16) * 16);
    EXPECT_EQ(cmos[0x5b] | cmos[0x5c] << 8 | cmos[0x5d] << 16, 2048 * 16);
    EXPECT_EQ(cmos[0x5f], 1);
    unsigned sum = 0;
    for (unsigned index = 0x10; index <= 0x2d; ++index) sum += cmos[static_cast<u8>(index)];
    EXPECT_EQ(static_cast<unsigned>(cmos[0x2e] << 8 | cmos[0x2f]), sum);
}

}  // namespace
}  // namespace tessera::boot
