// Makes a GoogleTest case of every test of every image. With --trace the executed instructions are printed.
#include <Zydis/Zydis.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

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
                [&image = *image, &test]() -> testing::Test* { return new GuestCase(image, test); });
    }
}

}  // namespace
}  // namespace tessera::guests

int main(int argc, char** argv) {
    testing::InitGoogleTest(&argc, argv);
    static tessera::guests::PrintingTracer printing;
    for (int i = 1; i < argc; ++i)
        if (std::string_view(argv[i]) == "--trace") tessera::guests::tracer = &printing;
    tessera::guests::add_all();
    return RUN_ALL_TESTS();
}
