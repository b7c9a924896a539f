// The machines, with kernels of a few instructions: an ELF file whose code talks to the chips.
#include "machines/machine.h"

#include <cstring>
#include <filesystem>
#include <fstream>
#include <gtest/gtest.h>
#include <initializer_list>
#include <string>
#include <thread>
#include <vector>

#include "machines/board/board.h"

namespace tessera {
namespace {

boot::BoardDescription describe(const MachineConfig& config) {
    return describe_board(config, soft_cpuid(config));
}

// An ELF64 executable with one segment at 1 MiB, entered in 64-bit mode [ELF "ELF Header", "Program Header"].
std::vector<u8> elf_with(const std::vector<u8>& code) {
    constexpr u64 kLoadAddress = 0x10'0000;
    std::vector<u8> file;
    const auto put = [&](u64 value, unsigned bytes) {
        for (unsigned i = 0; i < bytes; ++i) file.push_back(static_cast<u8>(value >> (8 * i)));
    };
    for (const int byte : {0x7f, 0x45, 0x4c, 0x46, 2, 1, 1, 0}) put(static_cast<u64>(byte), 1);
    put(0, 8);
    put(2, 2);   // ET_EXEC
    put(62, 2);  // EM_X86_64
    put(1, 4);
    put(kLoadAddress, 8);  // entry
    put(64, 8);            // program headers
    put(0, 8);
    put(0, 4);
    put(64, 2);
    put(56, 2);
    put(1, 2);
    put(0, 6);
    put(1, 4);    // PT_LOAD
    put(7, 4);    // readable, writable, executable
    put(120, 8);  // offset
    put(kLoadAddress, 8);
    put(kLoadAddress, 8);
    put(code.size(), 8);
    put(code.size(), 8);
    put(1, 8);
    file.insert(file.end(), code.begin(), code.end());
    return file;
}

class Code {
public:
    Code& out_byte(u16 port, u8 value) {
        return add({0x66, 0xba, static_cast<u8>(port), static_cast<u8>(port >> 8), 0xb0, value, 0xee});
    }
    Code& out_word(u16 port, u16 value) {
        return add({0x66, 0xba, static_cast<u8>(port), static_cast<u8>(port >> 8), 0x66, 0xb8,
                    static_cast<u8>(value), static_cast<u8>(value >> 8), 0x66, 0xef});
    }
    Code& print(const std::string& text) {
        for (const char c : text) out_byte(0x3f8, static_cast<u8>(c));
        return *this;
    }
    // SLP_TYP 5, SLP_EN to PM1a_CNT.
    Code& power_off() { return out_word(0x604, 5 << 10 | 1 << 13).stop(); }
    Code& stop() { return add({0xfa, 0xf4, 0xeb, 0xfc}); }
    Code& add(std::initializer_list<int> bytes) {
        for (const int byte : bytes) bytes_.push_back(static_cast<u8>(byte));
        return *this;
    }
    [[nodiscard]] const std::vector<u8>& bytes() const { return bytes_; }

private:
    std::vector<u8> bytes_;
};

class Listener final : public CharBackend {
public:
    bool put(u8 byte) override {
        text += static_cast<char>(byte);
        return true;
    }
    void receive_ready() override {}
    void connect(CharPeer* /*peer*/) override {}
    std::string text;
};

struct MachineTest : testing::TestWithParam<MachineKind> {
    ~MachineTest() override { std::filesystem::remove(path); }
    void write_kernel(const std::vector<u8>& bytes) const {
        std::ofstream(path, std::ios::binary)
            .write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
    }
    [[nodiscard]] MachineConfig config() {
        return {.kind = GetParam(), .memory = 16 * kMiB, .kernel = path, .serial = &listener};
    }
    Ending run(const Code& code, OnReset on_reset = OnReset::End) {
        write_kernel(elf_with(code.bytes()));
        auto vm = Vm::create(1, on_reset);
        const auto built = build_machine(**vm, config());
        EXPECT_TRUE(built.has_value()) << built.error().message;
        if (!built) return {};
        (*vm)->start();
        Ending ending = (*vm)->wait();
        resets = (*vm)->resets();
        return ending;
    }
    // ctest runs each test in a process of its own, several at once.
    std::string path = testing::TempDir() + "tessera_machine_test_" + std::to_string(getpid());
    Listener listener;
    u64 resets = 0;
};

TEST_P(MachineTest, PrintsOnCom1AndPowersOff) {
    EXPECT_EQ(run(Code().print("hello").power_off()).kind, Ending::Kind::PoweredOff);
    EXPECT_EQ(listener.text, "hello");
}

TEST_P(MachineTest, TheResetRegisterAndTheKeyboardControllerReset) {
    Ending ending = run(Code().out_byte(0xcf9, 0x06).stop());
    EXPECT_EQ(ending.kind, Ending::Kind::Reset);
    EXPECT_EQ(ending.reset_source, ResetSource::ResetRegister);
    ending = run(Code().out_byte(0x64, 0xfe).stop());
    EXPECT_EQ(ending.kind, Ending::Kind::Reset);
    EXPECT_EQ(ending.reset_source, ResetSource::KeyboardController);
}

TEST_P(MachineTest, ATripleFaultEndsOrResets) {
    // LIDT of an empty table, then INT3.
    const Code fault = Code().add({0x6a, 0x00, 0x6a, 0x00, 0x0f, 0x01, 0x1c, 0x24, 0xcc});
    Code code;
    code.add({0x48, 0xc7, 0xc4, 0x00, 0x80, 0x00, 0x00});  // mov $0x8000, %rsp
    for (const u8 byte : fault.bytes()) code.add({byte});
    EXPECT_EQ(run(code).kind, Ending::Kind::TripleFault);
}

TEST_P(MachineTest, MemoryIsFreshAfterAReset) {
    Code code;
    code.add({0x80, 0x3c, 0x25, 0x00, 0x00, 0x20, 0x00, 0x00});  // cmpb $0, 0x200000
    code.add({0x75, 8 + 7 + 7 + 4});                             // jne stale
    code.add({0xc6, 0x04, 0x25, 0x00, 0x00, 0x20, 0x00, 0x01});  // movb $1, 0x200000
    code.out_byte(0x3f8, 'a').out_byte(0xcf9, 0x06).stop();
    code.print("stale").power_off();  // stale:
    write_kernel(elf_with(code.bytes()));
    auto vm = Vm::create(1, OnReset::Restart);
    ASSERT_TRUE(build_machine(**vm, config()).has_value());
    (*vm)->start();
    while ((*vm)->resets() < 3 && !(*vm)->ended()) std::this_thread::yield();
    (*vm)->stop();
    EXPECT_EQ((*vm)->wait().kind, Ending::Kind::Stopped);
    EXPECT_EQ(listener.text.find("stale"), std::string::npos);
    EXPECT_GE(listener.text.size(), 3U);
}

TEST_P(MachineTest, ASecondCpuStartsByInitAndSipi) {
    // The application processor: mov byte cs:[0xff0], 1; hlt. It is copied to 8000h and started there.
    const std::vector<u8> application{0x2e, 0xc6, 0x06, 0xf0, 0x0f, 0x01, 0xf4, 0xeb, 0xfd};
    Code code;
    code.add({0x48, 0x8d, 0x35, 0, 0, 0, 0});  // lea application(%rip), %rsi: patched below
    const std::size_t after_lea = code.bytes().size();
    code.add({0xbf, 0x00, 0x80, 0x00, 0x00, 0xb9, static_cast<int>(application.size()), 0, 0, 0, 0xf3, 0xa4});
    code.add({0xbb, 0x00, 0x00, 0xe0, 0xfe});                                // mov $0xfee00000, %ebx
    code.add({0xc7, 0x83, 0x10, 0x03, 0x00, 0x00, 0x00, 0x00, 0x00, 0x01});  // ICR high: APIC ID 1
    code.add({0xc7, 0x83, 0x00, 0x03, 0x00, 0x00, 0x00, 0x45, 0x00, 0x00});  // ICR: INIT, assert
    code.add({0xc7, 0x83, 0x00, 0x03, 0x00, 0x00, 0x08, 0x46, 0x00, 0x00});  // ICR: start-up at page 8
    code.add({0xf3, 0x90, 0x80, 0x3c, 0x25, 0xf0, 0x8f, 0x00, 0x00, 0x01});  // again: pause; cmpb $1, 0x8ff0
    code.add({0x75, 0xf4});                                                  // jne again
    code.print("two").power_off();
    std::vector<u8> bytes = code.bytes();
    bytes[after_lea - 4] = static_cast<u8>(bytes.size() - after_lea);
    ASSERT_LT(bytes.size() - after_lea, 256U);
    bytes.insert(bytes.end(), application.begin(), application.end());
    write_kernel(elf_with(bytes));
    auto vm = Vm::create(2, OnReset::End);
    MachineConfig two = config();
    two.cpus = 2;
    ASSERT_TRUE(build_machine(**vm, two).has_value());
    (*vm)->start();
    EXPECT_EQ((*vm)->wait().kind, Ending::Kind::PoweredOff);
    EXPECT_EQ(listener.text, "two");
}

// Base memory, memory above 1 MiB and the number of CPUs less one, as PC firmware notes them [RBIL CMOS.LST].
TEST_P(MachineTest, CmosTellsMemoryAndCpus) {
    Code code;
    for (const u8 index : std::initializer_list<u8>{0x15, 0x16, 0x17, 0x18, 0x5f}) {
        code.out_byte(0x70, index);
        code.add({0xe4, 0x71});                    // in $0x71, %al
        code.add({0x66, 0xba, 0xf8, 0x03, 0xee});  // mov $0x3f8, %dx; out %al, %dx
    }
    write_kernel(elf_with(code.power_off().bytes()));
    auto vm = Vm::create(3, OnReset::End);
    MachineConfig three = config();
    three.cpus = 3;
    ASSERT_TRUE(build_machine(**vm, three).has_value());
    (*vm)->start();
    EXPECT_EQ((*vm)->wait().kind, Ending::Kind::PoweredOff);
    // 640 KiB = 0280h; 15 MiB = 3c00h KiB.
    EXPECT_EQ(listener.text, std::string("\x80\x02\x00\x3c\x02", 5));
}

TEST_P(MachineTest, FirmwareDescribesTheProcessorAsCpuidDoes) {
    const boot::BoardDescription max = describe({.kind = GetParam(), .cpus = 2});
    EXPECT_EQ(max.cpu_count(), 2U);
    EXPECT_EQ(max.cpu_signature, 0x00a0'0f11U);                // family 19h, model 1, stepping 1
    EXPECT_EQ(max.cpu_features & 0x0780'0201U, 0x0780'0201U);  // FPU, APIC, MMX, FXSR, SSE, SSE2
    EXPECT_EQ(max.cpu_features & (1U << 28), 1U << 28);        // HTT: more than one
    EXPECT_EQ(describe({.kind = GetParam()}).cpu_features & (1U << 28), 0U);
    EXPECT_EQ(max.physical_address_bits, 48);
    EXPECT_EQ(max.identity.processor, "Tessera Software CPU");
}

// [SDM 3A 12.11.2.3]: the first variable range is the PCI hole, C0000000h to FFFFFFFFh of 48 address bits.
TEST_P(MachineTest, ThePciHoleIsUncached) {
    Code code;
    code.add({0xb9, 0x01, 0x02, 0x00, 0x00, 0x0f, 0x32});  // mov $0x201, %ecx; rdmsr
    code.add({0x89, 0xd3, 0x89, 0xc1});                    // mov %edx, %ebx; mov %eax, %ecx
    code.add({0x66, 0xba, 0xf8, 0x03});                    // mov $0x3f8, %dx
    for (int i = 0; i < 4; ++i)
        code.add({0x88, 0xc8, 0xee, 0xc1, 0xe9, 8});  // mov %cl, %al; out; shr $8, %ecx
    for (int i = 0; i < 4; ++i)
        code.add({0x88, 0xd8, 0xee, 0xc1, 0xeb, 8});  // mov %bl, %al; out; shr $8, %ebx
    EXPECT_EQ(run(code.power_off()).kind, Ending::Kind::PoweredOff);
    EXPECT_EQ(listener.text, std::string("\x00\x08\x00\xc0\xff\xff\x00\x00", 8));
}

// A disk that answers nothing; nobody asks it.
class IdleDisk final : public BlockBackend {
public:
    IdleDisk() {
        info_.size = 1 << 20;
        info_.name = "idle";
    }
    [[nodiscard]] const BlockInfo& info() const override { return info_; }
    void submit(std::span<BlockRequest* const> requests) override {
        for (BlockRequest* request : requests) request->done(BlockStatus::IoError);
    }

private:
    BlockInfo info_;
};

TEST_P(MachineTest, DisksAndOtherDevicesSurviveResets) {
    write_kernel(elf_with(Code().out_byte(0x3f8, 'a').out_byte(0xcf9, 0x06).stop().bytes()));
    IdleDisk disk;
    auto vm = Vm::create(1, OnReset::Restart);
    MachineConfig with = config();
    with.disks = {{.backend = &disk, .serial = "1", .queues = 4}};
    with.rng = true;
    const auto built = build_machine(**vm, with);
    ASSERT_TRUE(built.has_value()) << built.error().message;
    (*vm)->start();
    while ((*vm)->resets() < 3 && !(*vm)->ended()) std::this_thread::yield();
    (*vm)->stop();
    EXPECT_EQ((*vm)->wait().kind, Ending::Kind::Stopped);
}

TEST_P(MachineTest, DisksThatCannotBeAreRefusedByName) {
    write_kernel(elf_with(Code().power_off().bytes()));
    IdleDisk disk;
    MachineConfig with = config();
    with.disks = {{.backend = &disk, .queues = 17}};
    auto vm = Vm::create(1, OnReset::End);
    auto built = build_machine(**vm, with);
    ASSERT_FALSE(built.has_value());
    EXPECT_NE(built.error().message.find("disk idle: 17 queues"), std::string::npos);
    std::vector<IdleDisk> many(9);
    with.disks.clear();
    for (IdleDisk& one : many) with.disks.push_back({.backend = &one});
    vm = Vm::create(1, OnReset::End);
    built = build_machine(**vm, with);
    EXPECT_EQ(built.has_value(), GetParam() == MachineKind::Pc) << "microvm has room for eight";
}

// [HPET 2.3.9.2, SDM 3A 11.11] A periodic timer whose interrupts are messages to the local APIC.
TEST_P(MachineTest, TheHpetInterruptsByMessages) {
    if (GetParam() != MachineKind::Pc) GTEST_SKIP() << "no HPET";
    Code code;
    code.add({0x48, 0xc7, 0xc4, 0x00, 0x00, 0x21, 0x00});  // mov $0x210000, %rsp
    code.add({0x48, 0x8d, 0x05, 0, 0, 0, 0});              // lea handler(%rip), %rax: patched below
    const std::size_t after_lea = code.bytes().size();
    code.add({0x66, 0x89, 0x04, 0x25, 0x10, 0x04, 0x20, 0x00});  // mov %ax, 0x200410: the gate of vector 41h
    code.add({0x66, 0x8c, 0xc9});                                // mov %cs, %cx
    code.add({0x66, 0x89, 0x0c, 0x25, 0x12, 0x04, 0x20, 0x00});  // mov %cx, 0x200412
    code.add({0x66, 0xc7, 0x04, 0x25, 0x14, 0x04, 0x20, 0x00, 0x00, 0x8e});        // movw $0x8e00, 0x200414
    code.add({0xc1, 0xe8, 0x10});                                                  // shr $16, %eax
    code.add({0x89, 0x04, 0x25, 0x16, 0x04, 0x20, 0x00});                          // mov %eax, 0x200416
    code.add({0x66, 0xc7, 0x04, 0x25, 0x00, 0x10, 0x20, 0x00, 0xff, 0x0f});        // movw $0xfff, 0x201000
    code.add({0xc7, 0x04, 0x25, 0x02, 0x10, 0x20, 0x00, 0x00, 0x00, 0x20, 0x00});  // movl $0x200000, 0x201002
    code.add({0x0f, 0x01, 0x1c, 0x25, 0x00, 0x10, 0x20, 0x00});                    // lidt 0x201000
    code.add({0xbe, 0x00, 0x00, 0xe0, 0xfe});                                      // mov $0xfee00000, %esi
    code.add({0xc7, 0x86, 0xf0, 0x00, 0x00, 0x00, 0xff, 0x01, 0x00, 0x00});        // SVR: enabled
    code.add({0xbf, 0x00, 0x00, 0xd0, 0xfe});                                      // mov $0xfed00000, %edi
    code.add({0x48, 0xb8, 0x41, 0x00, 0x00, 0x00, 0x00, 0x00, 0xe0, 0xfe});        // vector 41h to FEE00000h
    code.add({0x48, 0x89, 0x87, 0x10, 0x01, 0x00, 0x00});                          // mov %rax, 0x110(%rdi)
    code.add({0xc7, 0x87, 0x00, 0x01, 0x00, 0x00, 0x4c, 0x40, 0x00, 0x00});  // message, value, periodic, on
    code.add({0xb8, 0xa0, 0x86, 0x01, 0x00});                                // mov $100000, %eax: 1 ms
    code.add({0x48, 0x89, 0x87, 0x08, 0x01, 0x00, 0x00});                    // mov %rax, 0x108(%rdi)
    code.add({0x31, 0xdb});                                                  // xor %ebx, %ebx
    code.add({0xc7, 0x47, 0x10, 0x01, 0x00, 0x00, 0x00, 0xfb});              // movl $1, 0x10(%rdi); sti
    code.add({0xf4, 0x83, 0xfb, 0x03, 0x72, 0xfa});                          // 1: hlt; cmp $3, %ebx; jb 1b
    code.add({0xfa}).print("three").power_off();
    std::vector<u8> bytes = code.bytes();
    bytes[after_lea - 4] = static_cast<u8>(bytes.size() - after_lea);
    ASSERT_LT(bytes.size() - after_lea, 256U);
    // handler: inc %ebx; EOI; iretq
    for (const int byte : {0xff, 0xc3, 0xc7, 0x86, 0xb0, 0, 0, 0, 0, 0, 0, 0, 0x48, 0xcf})
        bytes.push_back(static_cast<u8>(byte));
    write_kernel(elf_with(bytes));
    auto vm = Vm::create(1, OnReset::End);
    ASSERT_TRUE(build_machine(**vm, config()).has_value());
    (*vm)->start();
    EXPECT_EQ((*vm)->wait().kind, Ending::Kind::PoweredOff);
    EXPECT_EQ(listener.text, "three");
}

TEST_P(MachineTest, UnusableKernelsAreRefusedByName) {
    auto vm = Vm::create(1, OnReset::End);
    auto status = build_machine(**vm, config());
    ASSERT_FALSE(status.has_value());
    EXPECT_EQ(status.error().code, Errc::NotFound);
    EXPECT_NE(status.error().message.find(path), std::string::npos);
    write_kernel(std::vector<u8>(5000, 0x20));
    vm = Vm::create(1, OnReset::End);
    status = build_machine(**vm, config());
    ASSERT_FALSE(status.has_value());
    EXPECT_NE(status.error().code, Errc::HostFailure);
    EXPECT_NE(status.error().message.find(path), std::string::npos);
}

INSTANTIATE_TEST_SUITE_P(Kinds, MachineTest, testing::Values(MachineKind::Pc, MachineKind::Microvm));

}  // namespace
}  // namespace tessera
