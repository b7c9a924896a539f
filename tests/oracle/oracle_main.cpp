// cpu_oracle: random user-mode instructions, natively and in Tessera's CPU, compared in everything that is
// visible.
//   cpu_oracle [--cases N] [--seed S] [--length L] [--insn NAME] [--only CASE_SEED] [--keep-going N]
//              [--seconds T]
// Exit code 0: no difference. Every difference prints the case's seed; --only repeats it.
#include <Zydis/Zydis.h>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <unistd.h>

#include "tests/oracle/generate.h"
#include "tests/oracle/guest.h"
#include "tests/oracle/native.h"

namespace tessera::oracle {
namespace {

struct Options {
    u64 cases = 500'000;
    u64 seed = 1;
    unsigned length = 1;
    u64 only = 0;
    bool has_only = false;
    std::optional<Encoding> insn;
    u64 keep_going = 10;
    u64 seconds = 0;
};

constexpr u64 kStatusFlags = 0x8d5;
constexpr u64 kComparedFlags = kStatusFlags | 0x400;

// XSAVE leaves components in their initial state out: puts the initial values in.
void normalize(XsaveImage& image) {
    u8* legacy = image.legacy.data();
    const u64 present = image.header[0];
    if ((present & 1) == 0) {
        const u16 control = 0x37f;
        std::memcpy(legacy, &control, 2);
        std::memset(legacy + 2, 0, 3);
        std::memset(legacy + 32, 0, 128);
    }
    if ((present & 2) == 0) std::memset(legacy + 160, 0, 256);
    if ((present & 4) == 0) image.ymm_high = {};
    for (unsigned i = 0; i < 8; ++i) std::memset(legacy + 32 + i * 16 + 10, 0, 6);
}

std::string disassemble(const Case& test) {
    std::string text;
    ZydisDisassembledInstruction insn;
    std::size_t at = 0;
    while (at < test.code.size() - 6 &&
           ZYAN_SUCCESS(ZydisDisassembleIntel(ZYDIS_MACHINE_MODE_LONG_64, kCodeBase + at,
                                              test.code.data() + at, test.code.size() - at, &insn))) {
        text += insn.text;
        text += "; ";
        at += insn.info.length;
    }
    text += " [";
    for (std::size_t i = 0; i + 6 < test.code.size(); ++i) {
        std::array<char, 4> hex{};
        (void)std::snprintf(hex.data(), hex.size(), "%02x", test.code[i]);
        text += hex.data();
    }
    return text + "]";
}

class Report {
public:
    void difference(const char* what, u64 native, u64 guest) {
        std::array<char, 128> line{};
        (void)std::snprintf(line.data(), line.size(), "    %-8s native %016lx  tessera %016lx\n", what,
                            native, guest);
        text_ += line.data();
    }
    [[nodiscard]] bool empty() const { return text_.empty(); }
    [[nodiscard]] const std::string& text() const { return text_; }

private:
    std::string text_;
};

void compare_lanes(Report& report, const char* name, unsigned index, const void* native, const void* guest,
                   unsigned lanes) {
    for (unsigned i = 0; i < lanes; ++i) {
        u64 a = 0, b = 0;
        std::memcpy(&a, static_cast<const u8*>(native) + i * 8, 8);
        std::memcpy(&b, static_cast<const u8*>(guest) + i * 8, 8);
        if (a == b) continue;
        std::array<char, 32> what{};
        (void)std::snprintf(what.data(), what.size(), "%s%u.%u", name, index, i);
        report.difference(what.data(), a, b);
    }
}

void compare_fp(Report& report, const XsaveImage& native, const XsaveImage& guest) {
    const auto word = [](const XsaveImage& image, unsigned at, unsigned size) {
        u64 value = 0;
        std::memcpy(&value, image.legacy.data() + at, size);
        return value;
    };
    const auto field = [&](const char* what, unsigned at, unsigned size) {
        if (word(native, at, size) != word(guest, at, size))
            report.difference(what, word(native, at, size), word(guest, at, size));
    };
    field("fcw", 0, 2);
    field("fsw", 2, 2);
    field("ftw", 4, 1);
    field("mxcsr", 24, 4);
    for (unsigned i = 0; i < 8; ++i)
        compare_lanes(report, "st", i, native.legacy.data() + 32 + i * 16, guest.legacy.data() + 32 + i * 16,
                      2);
    for (unsigned i = 0; i < 16; ++i) {
        compare_lanes(report, "xmm", i, native.legacy.data() + 160 + i * 16,
                      guest.legacy.data() + 160 + i * 16, 2);
        compare_lanes(report, "ymmh", i, &native.ymm_high[i], &guest.ymm_high[i], 2);
    }
}

Report compare(const Case& test, Registers& native, Registers& guest, std::span<const u8> native_bytes,
               std::span<const u8> guest_bytes) {
    static constexpr std::array<const char*, 16> kNames{"rax", "rcx", "rdx", "rbx", "rsp", "rbp",
                                                        "rsi", "rdi", "r8",  "r9",  "r10", "r11",
                                                        "r12", "r13", "r14", "r15"};
    Report report;
    if (native.vector != guest.vector) report.difference("vector", native.vector, guest.vector);
    constexpr u32 kPageFault = 14;
    if (native.vector == guest.vector && native.vector != kFinished) {
        // Whether a page of the kernel's half is present is the host's own business.
        constexpr u64 kKernelHalf = u64{1} << 63;
        const bool kernel_page = native.vector == kPageFault && native.cr2 >= kKernelHalf;
        if (((native.error ^ guest.error) & ~u32{kernel_page}) != 0)
            report.difference("error", native.error, guest.error);
        if (native.rip != guest.rip) report.difference("rip", native.rip, guest.rip);
        if (native.vector == kPageFault && native.cr2 != guest.cr2)
            report.difference("cr2", native.cr2, guest.cr2);
    }
    for (unsigned i = 0; i < 16; ++i)
        if (native.gpr[i] != guest.gpr[i]) report.difference(kNames[i], native.gpr[i], guest.gpr[i]);
    const u64 flags = kComparedFlags & ~u64{test.undefined_flags};
    if ((native.rflags & flags) != (guest.rflags & flags))
        report.difference("rflags", native.rflags & flags, guest.rflags & flags);
    normalize(native.fp);
    normalize(guest.fp);
    compare_fp(report, native.fp, guest.fp);
    if (std::memcmp(native_bytes.data(), guest_bytes.data(), native_bytes.size()) != 0)
        for (std::size_t i = 0; i < native_bytes.size(); i += 8) {
            u64 a = 0, b = 0;
            std::memcpy(&a, native_bytes.data() + i, 8);
            std::memcpy(&b, guest_bytes.data() + i, 8);
            if (a == b) continue;
            std::array<char, 32> what{};
            (void)std::snprintf(what.data(), what.size(), "[%zx]", kDataBase + i);
            report.difference(what.data(), a, b);
        }
    return report;
}

class Oracle {
public:
    explicit Oracle(const Options& options) : options_(options), base_data_(kDataSize) {}

    int run() {
        if (!native_setup()) return 2;
        fill_data(0, base_data_);
        const auto start = std::chrono::steady_clock::now();
        u64 done = 0;
        for (; done < options_.cases && differences_ < options_.keep_going; ++done) {
            one(options_.has_only ? options_.only : options_.seed * 0x1'0000'0000 + done);
            if (options_.has_only) break;
            if (options_.seconds != 0 && done % 1024 == 0 &&
                std::chrono::steady_clock::now() - start > std::chrono::seconds(options_.seconds))
                break;
        }
        const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
        u64 mnemonics = 0;
        for (const u64 n : seen_) mnemonics += n != 0 ? 1 : 0;
        std::printf(
            "cpu_oracle: %lu cases of %u instructions, %lu mnemonics, %lu faults, %lu differences, %.1f s\n",
            done, options_.length, mnemonics, faults_, differences_, took.count());
        return differences_ == 0 ? 0 : 1;
    }

private:
    void one(u64 seed) {
        const Case test = generate(seed, options_.length, options_.insn);
        for (const auto& in : test.insns) ++seen_[static_cast<std::size_t>(in.mnemonic)];
        // A different stretch of one random text for each case costs less than a new text.
        std::rotate_copy(base_data_.begin(),
                         base_data_.begin() + static_cast<s64>(test.data_seed % (kDataSize / 8)) * 8,
                         base_data_.end(), native_data().begin());
        std::memcpy(guest_.data().data(), native_data().data(), kDataSize);
        std::memcpy(native_code().data(), test.code.data(), test.code.size());
        guest_.set_code(test.code);

        Registers native, guest;
        current_ = seed;
        ::alarm(5);
        native_run(test.in, native);
        guest_.run(test.in, guest);
        faults_ += native.vector != kFinished ? 1 : 0;
        const Report report = compare(test, native, guest, native_data(), guest_.data());
        if (report.empty()) return;
        ++differences_;
        const std::string insn = options_.insn ? " --insn " + std::string(name(options_.insn->mnemonic)) : "";
        std::printf("case --only %lu --length %u%s: %s\n%s", seed, options_.length, insn.c_str(),
                    disassemble(test).c_str(), report.text().c_str());
        if (options_.has_only) print_inputs(test.in);
        (void)std::fflush(stdout);
    }

    static void print_inputs(const Registers& in) {
        for (unsigned i = 0; i < 16; ++i) std::printf("    in gpr%-2u %016lx\n", i, in.gpr[i]);
        std::printf("    in rflags %lx\n", in.rflags);
    }

    Options options_;
    std::vector<u8> base_data_;
    Guest guest_;
    u64 differences_ = 0, faults_ = 0, current_ = 0;
    std::array<u64, 2048> seen_{};
};

// By Intel's name, in lower case.
std::optional<Encoding> encoding_named(std::string_view text) {
    for (unsigned m = 0; m < x86::kMnemonicCount; ++m)
        if (const auto mnemonic = static_cast<x86::Mnemonic>(m); x86::name(mnemonic) == text)
            return encoding_of(mnemonic);
    return std::nullopt;
}

bool parse(int argc, char** argv, Options& options) {
    for (int i = 1; i < argc; i += 2) {
        if (i + 1 >= argc) return false;
        const std::string name = argv[i];
        const u64 value = std::strtoull(argv[i + 1], nullptr, 0);
        if (name == "--cases")
            options.cases = value;
        else if (name == "--seed")
            options.seed = value;
        else if (name == "--length")
            options.length = static_cast<unsigned>(value);
        else if (name == "--keep-going")
            options.keep_going = value;
        else if (name == "--seconds")
            options.seconds = value;
        else if (name == "--insn") {
            options.insn = encoding_named(argv[i + 1]);
            if (!options.insn) return false;
        } else if (name == "--only") {
            options.only = value;
            options.has_only = true;
        } else
            return false;
    }
    return options.length >= 1 && options.length <= 64;
}

}  // namespace
}  // namespace tessera::oracle

int main(int argc, char** argv) {
    tessera::oracle::Options options;
    if (!tessera::oracle::parse(argc, argv, options)) {
        std::fprintf(stderr,
                     "usage: cpu_oracle [--cases N] [--seed S] [--length 1-64] [--insn NAME] [--only CASE] "
                     "[--keep-going N] [--seconds T]\n");
        return 2;
    }
    if (options.seconds != 0) options.cases = ~0UL;
    return tessera::oracle::Oracle(options).run();
}
