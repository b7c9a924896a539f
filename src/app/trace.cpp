#include "app/trace.h"

#include <Zydis/Zydis.h>
#include <cerrno>
#include <fmt/format.h>
#include <system_error>

namespace tessera::app {

namespace {

const char* name_of(IoStatus status) {
    switch (status) {
        case IoStatus::Ok: return "";
        case IoStatus::NoRegister: return " (no register)";
        case IoStatus::BadWidth: return " (bad width)";
        case IoStatus::Unaligned: return " (unaligned)";
        case IoStatus::Deferred: return " (deferred)";
    }
    return "";
}

// Little-endian bytes as a number, most significant digit first.
std::string hex_number(std::span<const std::byte> data) {
    std::string text = "0x";
    for (std::size_t i = data.size(); i > 0; --i)
        text += fmt::format("{:02x}", std::to_integer<unsigned>(data[i - 1]));
    return text;
}

const char* name_of(CpuTracer::Cause cause) {
    switch (cause) {
        case CpuTracer::Cause::Exception: return "exception";
        case CpuTracer::Cause::Interrupt: return "interrupt";
        case CpuTracer::Cause::Nmi: return "nmi";
        case CpuTracer::Cause::Software: return "software";
    }
    return "";
}

}  // namespace

std::string disassemble(u64 rip, std::span<const u8> bytes, unsigned bits) {
    const ZydisMachineMode mode = bits == 64   ? ZYDIS_MACHINE_MODE_LONG_64
                                  : bits == 32 ? ZYDIS_MACHINE_MODE_LEGACY_32
                                               : ZYDIS_MACHINE_MODE_LEGACY_16;
    std::string raw;
    for (const u8 byte : bytes) raw += fmt::format("{:02x} ", byte);
    ZydisDisassembledInstruction instruction;
    const bool known =
        ZYAN_SUCCESS(ZydisDisassembleIntel(mode, rip, bytes.data(), bytes.size(), &instruction));
    return fmt::format("{:016x}  {:<24} {}", rip, raw, known ? instruction.text : "(bad)");
}

Result<std::unique_ptr<TraceFile>> TraceFile::open(const std::string& path) {
    std::FILE* file = std::fopen(path.c_str(), "we");
    if (file == nullptr)
        return fail(Errc::InvalidArgument, fmt::format("{}: the trace cannot be written: {}", path,
                                                       std::generic_category().message(errno)));
    return std::unique_ptr<TraceFile>(new TraceFile(file));
}

TraceFile::~TraceFile() {
    (void)std::fclose(file_);
}

void TraceFile::line(const std::string& text) {
    const std::scoped_lock guard(mutex_);
    (void)std::fwrite(text.data(), 1, text.size(), file_);
    (void)std::fputc('\n', file_);
}

void BusTrace::line(const char* what, u64 address, std::span<const std::byte> data, IoStatus status,
                    const char* device) {
    file_.line(
        fmt::format("{} {:0{}x} {} {}{}", what, address, digits_, hex_number(data), device, name_of(status)));
}

void BusTrace::on_read(u64 address, std::span<const std::byte> data, IoStatus status, const char* device) {
    line("read ", address, data, status, device);
}

void BusTrace::on_write(u64 address, std::span<const std::byte> data, IoStatus status, const char* device) {
    line("write", address, data, status, device);
}

Result<std::unique_ptr<Traces>> Traces::open(std::span<const TraceRequest> requests) {
    constexpr unsigned kPortDigits = 4;
    constexpr unsigned kAddressDigits = 16;
    std::unique_ptr<Traces> traces(new Traces);
    for (const TraceRequest& request : requests) {
        auto file = TraceFile::open(request.path);
        if (!file) return std::unexpected(std::move(file.error()));
        traces->files_.push_back(std::move(*file));
        TraceFile& out = *traces->files_.back();
        switch (request.kind) {
            case TraceKind::Exec:
                traces->exec_ = &out;
                traces->CpuTracer::instructions = true;
                break;
            case TraceKind::Int:
                traces->interrupts_ = &out;
                traces->CpuTracer::interrupts = true;
                break;
            case TraceKind::Msr:
                traces->msrs_ = &out;
                traces->CpuTracer::msrs = true;
                break;
            case TraceKind::Io: traces->ports_ = std::make_unique<BusTrace>(out, kPortDigits); break;
            case TraceKind::Mmio: traces->mmio_ = std::make_unique<BusTrace>(out, kAddressDigits); break;
        }
    }
    return traces;
}

CpuTracer* Traces::cpu() {
    return exec_ != nullptr || interrupts_ != nullptr || msrs_ != nullptr ? static_cast<CpuTracer*>(this)
                                                                          : nullptr;
}

void Traces::on_instruction(unsigned cpu, const x86::State& state, std::span<const u8> bytes, unsigned bits) {
    if (exec_ == nullptr) return;
    exec_->line(fmt::format("cpu{} {:04x}:{}", cpu, state.seg[x86::Cs].selector,
                            disassemble(state.rip, bytes, bits)));
}

void Traces::on_interrupt(unsigned cpu, Cause cause, u8 vector, u32 error, u64 cs, u64 rip) {
    if (interrupts_ == nullptr) return;
    interrupts_->line(fmt::format("cpu{} {:<9} {:#04x} error {:#x} at {:04x}:{:016x}", cpu, name_of(cause),
                                  vector, error, cs, rip));
}

void Traces::on_msr(unsigned cpu, bool write, u32 index, u64 value, bool fault) {
    if (msrs_ == nullptr) return;
    msrs_->line(fmt::format("cpu{} {} {:#010x} {:#018x}{}", cpu, write ? "wrmsr" : "rdmsr", index, value,
                            fault ? " #GP" : ""));
}

}  // namespace tessera::app
