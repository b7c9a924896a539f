// Makes a GoogleTest case of every test of every image. With --trace the executed instructions are printed;
// with --kvm the host's KVM executes them.
#include <Zydis/Zydis.h>
#include <cstdlib>
#include <fmt/format.h>
#include <fstream>
#include <gtest/gtest.h>
#include <map>

#include "cpu/kvm/probe.h"
#include "tests/guests/guest_machine.h"

namespace tessera::guests {
namespace {

class PrintingTracer final : public CpuTracer {
public:
    PrintingTracer() {
        instructions = true;
        interrupts = true;
    }
    void on_instruction(unsigned cpu, const x86::State& s, std::span<const u8> bytes,
                        unsigned bits) override {
        const ZydisMachineMode mode = bits == 64   ? ZYDIS_MACHINE_MODE_LONG_64
                                      : bits == 32 ? ZYDIS_MACHINE_MODE_LEGACY_32
                                                   : ZYDIS_MACHINE_MODE_LEGACY_16;
        ZydisDisassembledInstruction text;
        const bool known =
            ZYAN_SUCCESS(ZydisDisassembleIntel(mode, s.rip, bytes.data(), bytes.size(), &text));
        fmt::print("cpu{} {:04x}:{:08x} {:<40} ax={:x} cx={:x} dx={:x} sp={:x} fl={:x}\n", cpu,
                   s.seg[x86::Cs].selector, s.rip, known ? static_cast<const char*>(text.text) : "(bad)",
                   s.gpr[x86::Rax], s.gpr[x86::Rcx], s.gpr[x86::Rdx], s.gpr[x86::Rsp], s.rflags);
    }
    void on_interrupt(unsigned cpu, Cause /*cause*/, u8 vector, u32 error, u64 cs, u64 rip) override {
        fmt::print("cpu{} event {:#x} error {:#x} at {:04x}:{:08x}\n", cpu, vector, error, cs, rip);
    }
    void on_msr(unsigned /*cpu*/, bool /*write*/, u32 /*index*/, u64 /*value*/, bool /*fault*/) override {}
};

CpuTracer* tracer = nullptr;

// Stands for an image that cannot be read or lists nothing.
class EmptyImage final : public testing::Test {
    void TestBody() override { FAIL() << "the image has no tests"; }
};

class GuestCase final : public testing::Test {
public:
    GuestCase(const GuestImage& image, const GuestTest& guest) : image_(image), guest_(guest) {}

private:
    void TestBody() override {
        EXPECT_EQ(run_guest(image_, guest_, Stepping::Blocks, tracer), "") << "by blocks";
        EXPECT_EQ(run_guest(image_, guest_, Stepping::Single, tracer), "") << "one instruction at a time";
        EXPECT_EQ(run_guest(image_, guest_, Stepping::Translated, tracer), "") << "translated";
    }
    const GuestImage& image_;
    const GuestTest& guest_;
};

// What the emulator of a KVM that is no hardware does otherwise than processors do: "topic.test reason" a
// line.
std::map<std::string, std::string> read_differences() {
    std::map<std::string, std::string> differences;
    std::ifstream file(GUEST_KVM_DIFFERENCES);
    for (std::string line; std::getline(file, line);) {
        if (line.empty() || line.starts_with('#')) continue;
        const auto end = line.find(' ');
        differences[line.substr(0, end)] = end == std::string::npos ? "" : line.substr(end + 1);
    }
    return differences;
}

class KvmCase final : public testing::Test {
public:
    KvmCase(const GuestImage& image, const GuestTest& guest) : image_(image), guest_(guest) {}

private:
    void TestBody() override {
        static const kvm::Finding finding = kvm::probe();
        static const auto differences = read_differences();
        const bool interpreted = finding.verdict == kvm::Verdict::Interpreted;
        if (!interpreted && !finding.usable()) GTEST_SKIP() << kvm::describe(finding);
        const auto known = differences.find(image_.topic + "." + guest_.name);
        if (known != differences.end() && std::getenv("GUESTS_ALL") == nullptr) {
            if (known->second.starts_with("own interface")) GTEST_SKIP() << known->second;
            if (interpreted) GTEST_SKIP() << "KVM here is no hardware: " << known->second;
        }
        EXPECT_EQ(run_guest(image_, guest_, Stepping::Kvm, nullptr), "") << "by KVM";
    }
    const GuestImage& image_;
    const GuestTest& guest_;
};

bool by_kvm = false;

testing::Test* make_case(const GuestImage& image, const GuestTest& test) {
    if (by_kvm) return new KvmCase(image, test);
    return new GuestCase(image, test);
}

void add_all() {
    static std::vector<std::unique_ptr<GuestImage>> images;
    std::string topics = GUEST_TOPICS;
    for (std::size_t start = 0; start < topics.size();) {
        const std::size_t end = std::min(topics.find(' ', start), topics.size());
        images.push_back(std::make_unique<GuestImage>(
            GuestImage::load(GUEST_DIRECTORY, topics.substr(start, end - start))));
        start = end + 1;
    }
    for (const auto& image : images) {
        if (image->tests.empty())
            testing::RegisterTest(image->topic.c_str(), "has_tests", nullptr, nullptr, __FILE__, __LINE__,
                                  []() -> testing::Test* { return new EmptyImage; });
        for (const GuestTest& test : image->tests)
            testing::RegisterTest(
                image->topic.c_str(), test.name.c_str(), nullptr, nullptr, __FILE__, __LINE__,
                [&image = *image, &test]() -> testing::Test* { return make_case(image, test); });
    }
}

}  // namespace
}  // namespace tessera::guests

int main(int argc, char** argv) {
    testing::InitGoogleTest(&argc, argv);
    static tessera::guests::PrintingTracer printing;
    for (int i = 1; i < argc; ++i)
        if (std::string_view(argv[i]) == "--trace")
            tessera::guests::tracer = &printing;
        else if (std::string_view(argv[i]) == "--kvm")
            tessera::guests::by_kvm = true;
    tessera::guests::add_all();
    return RUN_ALL_TESTS();
}
