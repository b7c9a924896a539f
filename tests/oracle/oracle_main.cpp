// cpu_oracle: random user-mode instructions natively, in Tessera's interpreter, and in its translator,
// compared in everything that is visible.
//   cpu_oracle [--cases N] [--seed S] [--length L] [--flow 0|1] [--bits 32|64] [--runs N] [--insn NAME]
//              [--from N] [--only CASE_SEED] [--keep-going N] [--seconds T]
// Each piece of code runs --runs times with different registers, which are as many cases: first interpreted,
// then translated, then linked. 32-bit code is compared between interpreter and translator only.
// Exit code 0: no difference. Every difference prints the seed of its code; --only repeats it. If that shows
// none, what was run before has a part in it: --from begins with the N-th piece of code.
#include <Zydis/Zydis.h>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
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
    bool flow = false;
    unsigned bits = 64;
    u64 runs = 1;
    u64 from = 0;
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

std::string disassemble(const Case& test, unsigned bits) {
    std::string text;
    ZydisDisassembledInstruction insn;
    std::size_t at = 0;
    const ZydisMachineMode mode = bits == 64 ? ZYDIS_MACHINE_MODE_LONG_64 : ZYDIS_MACHINE_MODE_LONG_COMPAT_32;
    while (at < test.code.size() - 6 &&
           ZYAN_SUCCESS(ZydisDisassembleIntel(mode, kCodeBase + test.code_offset + at, test.code.data() + at,
                                              test.code.size() - at, &insn))) {
        std::array<char, 8> offset{};
        (void)std::snprintf(offset.data(), offset.size(), "\n  %3zx ", at);
        text += offset.data();
        text += insn.text;
        at += insn.info.length;
    }
    text += "\n  [";
    for (std::size_t i = 0; i + 6 < test.code.size(); ++i) {
        std::array<char, 4> hex{};
        (void)std::snprintf(hex.data(), hex.size(), "%02x", test.code[i]);
        text += hex.data();
    }
    return text + "]";
}

class Report {
public:
    Report(const char* one, const char* other) : one_(one), other_(other) {}
    void difference(const char* what, u64 one, u64 other) {
        std::array<char, 128> line{};
        (void)std::snprintf(line.data(), line.size(), "    %-8s %s %016lx  %s %016lx\n", what, one_, one,
                            other_, other);
        text_ += line.data();
    }
    [[nodiscard]] bool empty() const { return text_.empty(); }
    [[nodiscard]] const std::string& text() const { return text_; }

private:
    const char* one_;
    const char* other_;
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

// Not a byte more than 64 bits at a time: these are most of the work.
bool same(const void* a, const void* b, std::size_t size) {
    return std::memcmp(a, b, size) == 0;
}

struct Side {
    const char* name = nullptr;
    Registers registers;
    std::array<u8, kDataSize> data{};
};

// faulting_flags: status flags count in what a fault shows. registers: what counts of each.
Report compare(const Case& test, const Side& one, const Side& other, bool faulting_flags, u64 registers) {
    static constexpr std::array<const char*, 16> kNames{"rax", "rcx", "rdx", "rbx", "rsp", "rbp",
                                                        "rsi", "rdi", "r8",  "r9",  "r10", "r11",
                                                        "r12", "r13", "r14", "r15"};
    Report report(one.name, other.name);
    const Registers& native = one.registers;
    const Registers& guest = other.registers;
    const std::span<const u8> native_bytes = one.data, guest_bytes = other.data;
    const bool finished = native.vector == kFinished;
    if (native.vector != guest.vector) report.difference("vector", native.vector, guest.vector);
    constexpr u32 kPageFault = 14;
    if (native.vector == guest.vector && native.vector != kFinished) {
        // Whether a page of the kernel's half, or the last one below it, is present is the host's own
        // business.
        constexpr u64 kKernelHalf = 0x7fff'ffff'f000;
        const bool kernel_page = native.vector == kPageFault && native.cr2 >= kKernelHalf;
        if (((native.error ^ guest.error) & ~u32{kernel_page}) != 0)
            report.difference("error", native.error, guest.error);
        // In which order these read is the processor's own business.
        const bool any_order = std::ranges::any_of(test.insns, [](const x86::Insn& in) {
            return in.mnemonic == x86::Mnemonic::Fldenv || in.mnemonic == x86::Mnemonic::Frstor;
        });
        const u64 address = any_order ? ~u64{0xfff} : ~u64{0};
        if (native.vector == kPageFault && ((native.cr2 ^ guest.cr2) & address) != 0)
            report.difference("cr2", native.cr2, guest.cr2);
    }
    if (!finished && (native.rip != guest.rip || native.vector != guest.vector)) {
        report.difference("rip", native.rip, guest.rip);
        report.difference("error", native.error, guest.error);
        report.difference("cr2", native.cr2, guest.cr2);
    }
    for (unsigned i = 0; i < 16; ++i)
        if (((native.gpr[i] ^ guest.gpr[i]) & registers) != 0)
            report.difference(kNames[i], native.gpr[i], guest.gpr[i]);
    u64 flags = kComparedFlags & ~u64{finished ? test.undefined_flags : test.ever_undefined};
    if (!finished && !faulting_flags) flags &= ~kStatusFlags;
    if ((native.rflags & flags) != (guest.rflags & flags))
        report.difference("rflags", native.rflags & flags, guest.rflags & flags);
    if (!same(&native.fp, &guest.fp, sizeof(native.fp))) compare_fp(report, native.fp, guest.fp);
    if (!same(native_bytes.data(), guest_bytes.data(), native_bytes.size()))
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

// What runs when something takes too long.
Guest* running = nullptr;

class Oracle {
public:
    explicit Oracle(const Options& options) : options_(options), base_data_(kDataSize) {}

    int run() {
        if (!native_setup()) return 2;
        native_watch([] {
            if (running != nullptr) running->stop();
        });
        fill_data(0, base_data_);
        wish_ = {.length = options_.length,
                 .code_size = options_.bits == 64 ? x86::CodeSize::Bits64 : x86::CodeSize::Bits32,
                 .flow = options_.flow,
                 .fs = native_has_fs(),
                 .insn = options_.insn};
        const auto start = std::chrono::steady_clock::now();
        for (u64 n = options_.from; cases_ < options_.cases && differences_ < options_.keep_going; ++n) {
            one(options_.has_only ? options_.only : options_.seed * 0x1'0000'0000 + n);
            if (options_.has_only) break;
            if (options_.seconds != 0 && n % 1024 == 0 &&
                std::chrono::steady_clock::now() - start > std::chrono::seconds(options_.seconds))
                break;
        }
        const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
        u64 mnemonics = 0;
        for (const u64 n : seen_) mnemonics += n != 0 ? 1 : 0;
        std::printf(
            "cpu_oracle: %lu cases of %u instructions, %lu mnemonics, %lu faults, %lu differences, "
            "%.1f s\n",
            cases_, options_.length, mnemonics, faults_, differences_, took.count());
        return differences_ == 0 ? 0 : 1;
    }

private:
    void one(u64 seed) {
        Case test = generate(seed, wish_);
        if (options_.has_only) std::printf("%s\n", disassemble(test, options_.bits).c_str());
        for (const auto& in : test.insns) ++seen_[static_cast<std::size_t>(in.mnemonic)];
        // Every other time what only a fault handler could see is right too; translation begins at once, or
        // when the code has run already.
        Guest& translator = seed % 2 == 0 ? strict_ : relaxed_;
        std::ranges::fill(pages_, kNoCode);
        std::ranges::copy(test.code, pages_.begin() + static_cast<s64>(test.code_offset));
        native_set_code(pages_);
        interpreter_.set_code(pages_);
        translator.set_code(pages_);
        for (u64 n = 0; n < options_.runs; ++n) {
            if (n != 0) vary(test, seed + (n << 56));
            if (n != 0 && test.changes_code) restore(translator);
            run_once(seed, n, test, translator);
        }
    }

    void restore(Guest& translator) {
        native_set_code(pages_);
        interpreter_.restore_code(pages_);
        translator.restore_code(pages_);
    }

    void run_once(u64 seed, u64 n, const Case& test, Guest& translator) {
        ++cases_;
        // A different stretch of one random text for each case costs less than a new text.
        const u64 shift = ((test.data_seed + n * 1201) % (kDataSize / 8)) * 8;
        const Side* first = &native_;
        if (options_.bits == 64) {
            set_data(native_data().data(), shift);
            std::memcpy(native_code().data() + (kCounter - kCodeBase), &test.counter, sizeof(test.counter));
            native_begin();
            native_run(test.in, native_.registers);
            std::ranges::copy(native_data(), native_.data.begin());
            normalize(native_.registers.fp);
        } else {
            first = &interpreted_;
            run_guest(interpreter_, test, shift, interpreted_);
        }
        faults_ += first->registers.vector != kFinished ? 1 : 0;
        if (first->registers.vector == kStopped) return;  // and there is nothing to compare
        if (first == &native_) {
            run_guest(interpreter_, test, shift, interpreted_);
            if (!check(seed, test, native_, interpreted_, true)) return;
        }
        run_guest(translator, test, shift, translated_);
        check(seed, test, *first, translated_, seed % 2 == 0);
    }

    void set_data(u8* to, u64 shift) const {
        std::memcpy(to, base_data_.data() + shift, kDataSize - shift);
        std::memcpy(to + kDataSize - shift, base_data_.data(), shift);
    }

    void run_guest(Guest& guest, const Case& test, u64 shift, Side& side) {
        set_data(side.data.data(), shift);
        guest.set_data(side.data);
        guest.set_counter(test.counter);
        native_begin();
        running = &guest;
        guest.run(test.in, wish_.code_size, side.registers);
        running = nullptr;
        guest.get_data(side.data);
        normalize(side.registers.fp);
    }

    bool check(u64 seed, const Case& test, const Side& one, const Side& other, bool faulting_flags) {
        const Report report =
            compare(test, one, other, faulting_flags, options_.bits == 64 ? ~u64{0} : 0xffff'ffff);
        if (report.empty()) return true;
        ++differences_;
        const std::string insn = options_.insn ? " --insn " + std::string(name(options_.insn->mnemonic)) : "";
        std::printf("case --only %lu --length %u --flow %d --bits %u --runs %lu%s: %s\n%s", seed,
                    options_.length, options_.flow ? 1 : 0, options_.bits, options_.runs, insn.c_str(),
                    disassemble(test, options_.bits).c_str(), report.text().c_str());
        if (options_.has_only) print_inputs(test.in);
        (void)std::fflush(stdout);
        return false;
    }

    static void print_inputs(const Registers& in) {
        for (unsigned i = 0; i < 16; ++i) std::printf("    in gpr%-2u %016lx\n", i, in.gpr[i]);
        std::printf("    in rflags %lx\n", in.rflags);
    }

    Options options_;
    Wish wish_;
    std::vector<u8> base_data_;
    std::array<u8, kCodeSize> pages_{};
    Guest interpreter_{{.jit = false}};
    Guest strict_{{.translate_after = 1, .strict_flags = true}};
    Guest relaxed_{{.translate_after = 2}};
    Side native_{.name = "native", .registers = {}, .data = {}};
    Side interpreted_{.name = "interpreter", .registers = {}, .data = {}};
    Side translated_{.name = "translator", .registers = {}, .data = {}};
    u64 cases_ = 0, differences_ = 0, faults_ = 0;
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
        else if (name == "--flow")
            options.flow = value != 0;
        else if (name == "--bits")
            options.bits = static_cast<unsigned>(value);
        else if (name == "--runs")
            options.runs = value;
        else if (name == "--from")
            options.from = value;
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
    return options.length >= 1 && options.length <= 64 && options.runs >= 1 &&
           (options.bits == 64 || options.bits == 32);
}

}  // namespace
}  // namespace tessera::oracle

int main(int argc, char** argv) {
    tessera::oracle::Options options;
    if (!tessera::oracle::parse(argc, argv, options)) {
        std::fprintf(stderr,
                     "usage: cpu_oracle [--cases N] [--seed S] [--length 1-64] [--flow 0|1] [--bits 32|64] "
                     "[--runs N] [--insn NAME] [--from N] [--only CASE] [--keep-going N] [--seconds T]\n");
        return 2;
    }
    if (options.seconds != 0) options.cases = ~0UL;
    return tessera::oracle::Oracle(options).run();
}
