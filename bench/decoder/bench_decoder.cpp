// Nanoseconds per decoded instruction over the code of 64-bit ELF programs, beside Zydis on the same bytes in
// turn. Usage: bench_decoder [FILE...]   (without arguments: busybox and the C library, as far as they are
// there)
#include <Zydis/Zydis.h>
#include <algorithm>
#include <cstring>
#include <elf.h>
#include <fmt/format.h>
#include <fstream>
#include <iterator>
#include <span>
#include <string>
#include <time.h>
#include <vector>

#include "cpu/x86/insn.h"

namespace {

using namespace tessera;  // NOLINT(google-build-using-namespace): a program of one file

// The bytes of the executable segments.
std::vector<u8> read_code(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    const std::vector<char> content{std::istreambuf_iterator<char>(file), {}};
    std::vector<u8> code;
    Elf64_Ehdr header{};
    if (content.size() < sizeof header) return code;
    std::memcpy(&header, content.data(), sizeof header);
    if (std::memcmp(header.e_ident, ELFMAG, SELFMAG) != 0 || header.e_ident[EI_CLASS] != ELFCLASS64)
        return code;
    for (unsigned i = 0; i < header.e_phnum; ++i) {
        Elf64_Phdr segment{};
        const u64 at = header.e_phoff + u64{i} * sizeof segment;
        if (at + sizeof segment > content.size()) break;
        std::memcpy(&segment, content.data() + at, sizeof segment);
        if (segment.p_type != PT_LOAD || (segment.p_flags & PF_X) == 0) continue;
        if (segment.p_offset > content.size() || segment.p_filesz > content.size() - segment.p_offset)
            continue;
        const auto* begin = content.data() + segment.p_offset;
        code.insert(code.end(), begin, begin + segment.p_filesz);
    }
    return code;
}

// Processor time of this thread, so that other load on the machine disturbs less.
double cpu_nanoseconds() {
    timespec now{};
    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return 1e9 * static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec);
}

struct Pass {
    u64 instructions = 0;
    u64 invalid = 0;
    double nanoseconds = 0;
};

// Walks the code from its start; what is no instruction is stepped over by a byte.
template <typename Length>
Pass walk(std::span<const u8> code, Length length) {
    Pass pass;
    const double begin = cpu_nanoseconds();
    while (!code.empty()) {
        size_t taken = length(code);
        pass.instructions += taken != 0;
        pass.invalid += taken == 0;
        taken = std::max<size_t>(taken, 1);
        code = code.subspan(taken);
    }
    pass.nanoseconds = (cpu_nanoseconds() - begin) / static_cast<double>(std::max<u64>(pass.instructions, 1));
    return pass;
}

void measure(const std::string& path) {
    const std::vector<u8> code = read_code(path);
    if (code.empty()) {
        fmt::print("{}: no 64-bit ELF file with code\n", path);
        return;
    }
    ZydisDecoder zydis;
    ZydisDecoderInit(&zydis, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    x86::Insn insn;
    ZydisDecodedInstruction theirs;
    ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
    Pass best, zydis_best;
    for (unsigned round = 0; round < 5; ++round) {
        const Pass ours = walk(code, [&](std::span<const u8> at) -> size_t {
            return x86::decode(at, x86::CodeSize::Bits64, insn) == x86::DecodeStatus::Ok ? insn.length : 0;
        });
        const Pass other = walk(code, [&](std::span<const u8> at) -> size_t {
            return ZYAN_SUCCESS(ZydisDecoderDecodeFull(&zydis, at.data(), at.size(), &theirs, operands))
                       ? theirs.length
                       : 0;
        });
        if (round == 0 || ours.nanoseconds < best.nanoseconds) best = ours;
        if (round == 0 || other.nanoseconds < zydis_best.nanoseconds) zydis_best = other;
    }
    fmt::print("{}: {} instructions, {} bytes are none; {:.1f} ns each; Zydis {:.1f} ns ({:.1f}x)\n", path,
               best.instructions, best.invalid, best.nanoseconds, zydis_best.nanoseconds,
               zydis_best.nanoseconds / best.nanoseconds);
}

}  // namespace

int main(int argc, char** argv) {
    std::vector<std::string> paths(argv + 1, argv + argc);
    if (paths.empty()) paths = {"/bin/busybox", "/lib/x86_64-linux-gnu/libc.so.6"};
    for (const std::string& path : paths) measure(path);
    return 0;
}
