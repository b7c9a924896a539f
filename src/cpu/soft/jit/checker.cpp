#include "cpu/soft/jit/checker.h"

#include <algorithm>
#include <fmt/format.h>

#include "cpu/soft/exec.h"
#include "cpu/soft/fp/fp.h"
#include "cpu/soft/fp/fp_state.h"
#include "cpu/soft/jit/runtime.h"
#include "cpu/soft/soft_system.h"
#include "cpu/soft/system.h"

namespace tessera::soft::jit {

namespace {

std::string hex(const u8* bytes, std::size_t size) {
    std::string text;
    for (std::size_t i = 0; i < size; ++i) text += fmt::format("{:02x}", bytes[i]);
    return text;
}

// Flags as Vcpu::status has them: as LAHF and SETO leave them.
u16 status_form(u16 flags) {
    return static_cast<u16>((flags & 0xd5) << 8 | (flags >> 11 & 1));
}

}  // namespace

bool cannot_be_undone(const x86::Insn& in) {
    return in.insn_class == x86::InsnClass::System || in.insn_class == x86::InsnClass::XState ||
           in.mnemonic == x86::Mnemonic::Popf || in.mnemonic == x86::Mnemonic::Pause;
}

void Checker::note_write(u8* host, unsigned size) {
    writes_.push_back({.host = host, .size = size, .before = bytes_.size(), .after = 0});
    bytes_.insert(bytes_.end(), host, host + size);
}

void Checker::give_up(Vcpu& c) {
    given_up_ = true;
    _longjmp(c.fault_return, 1);
}

void Checker::take(Vcpu& c, Image& image) {
    x87_save(c);
    std::copy_n(c.reg.begin(), image.gpr.size(), image.gpr.begin());
    image.rip = c.rip;
    image.cr2 = c.cr2;
    image.eflags = c.eflags;
    image.status = c.status;
    sync_mxcsr(c);
    image.mxcsr = c.mxcsr;
    image.ymm = c.ymm;
    image.fpu = c.fpu;
}

void Checker::interpret(Vcpu& c, const Op* first) {
    std::memcpy(&outer_, &c.fault_return, sizeof outer_);
    TlbEntry* const tlb = c.tlb;
    if (c.tlb != c.tlb_sets[kTlbNone].data()) c.tlb = no_tlb_.data();
    given_up_ = false;
    writes_.clear();
    bytes_.clear();
    interpreted_.faulted = false;
    c.cur = nullptr;
    c.recording = true;
    c.attention.fetch_or(kAttendSingle);
    if (_setjmp(c.fault_return) == 0)
        first->fn(c, first);
    else
        interpreted_.faulted = !given_up_;
    c.recording = false;
    c.attention.fetch_and(~u32{kAttendSingle});
    c.tlb = tlb;
    std::memcpy(&c.fault_return, &outer_, sizeof outer_);
    if (interpreted_.faulted) {
        c.rip = c.cur != nullptr ? insn_rip(c, *c.cur) : c.rip;
        interpreted_.fault = c.fault;
    }
    take(c, interpreted_);
    for (Write& w : writes_) {
        w.after = bytes_.size();
        bytes_.insert(bytes_.end(), w.host, w.host + w.size);
    }
}

void Checker::undo(Vcpu& c) {
    for (std::size_t i = writes_.size(); i-- > 0;)
        std::memcpy(writes_[i].host, bytes_.data() + writes_[i].before, writes_[i].size);
    std::copy(before_.gpr.begin(), before_.gpr.end(), c.reg.begin());
    std::copy(kept_.slots.begin(), kept_.slots.end(), c.reg.begin() + before_.gpr.size());
    c.rip = before_.rip;
    c.cr2 = before_.cr2;
    c.eflags = before_.eflags;
    c.status = before_.status;
    c.ymm = before_.ymm;
    c.fpu = before_.fpu;
    c.mxcsr = before_.mxcsr;
    load_mxcsr(c);
    c.fp_traps = kept_.fp_traps;
    c.instructions = kept_.instructions;
    c.pending_db = kept_.pending_db;
    c.pauses = kept_.pauses;
    c.rmw_slow = false;
    c.cur = nullptr;
}

void Checker::translated(Vcpu& c, Translation& t) {
    translated_.faulted = false;
    left_early_ = false;
    if (_setjmp(c.fault_return) == 0) {
        Runtime::run_once(c, t);
        left_early_ = c.jit_stale;
    } else {
        translated_.faulted = true;
        translated_.fault = c.fault;
    }
    c.attention.fetch_and(~u32{kAttendSingle});
    std::memcpy(&c.fault_return, &outer_, sizeof outer_);
    const u64 rip = c.rip;
    if (translated_.faulted && c.cur != nullptr) c.rip = insn_rip(c, *c.cur);
    take(c, translated_);
    if (translated_.faulted) c.rip = rip;
}

// The same question as compare's, without the words.
bool Checker::same(const Vcpu& c, const Translation& t) const {
    const Image& i = interpreted_;
    const Image& j = translated_;
    if (i.faulted != j.faulted || i.rip != j.rip || i.eflags != j.eflags || i.mxcsr != j.mxcsr) return false;
    if (i.faulted && (i.fault.vector != j.fault.vector || i.fault.error != j.fault.error || i.cr2 != j.cr2))
        return false;
    if (((i.status ^ j.status) & ~status_form(t.undefined_flags)) != 0) return false;
    const u64 width = c.code64() ? ~u64{0} : 0xffff'ffff;
    for (unsigned n = 0; n < i.gpr.size(); ++n)
        if (((i.gpr[n] ^ j.gpr[n]) & width) != 0) return false;
    if (i.ymm != j.ymm || i.fpu.control != j.fpu.control || i.fpu.status != j.fpu.status ||
        i.fpu.tag != j.fpu.tag || i.fpu.ip != j.fpu.ip || i.fpu.dp != j.fpu.dp || i.fpu.st != j.fpu.st)
        return false;
    return std::ranges::all_of(writes_, [this](const Write& w) {
        return std::memcmp(w.host, bytes_.data() + w.after, w.size) == 0;
    });
}

void Checker::compare(Vcpu& c, const Op* head, const Translation& t) {
    if (same(c, t)) [[likely]]
        return;
    std::string text;
    const auto differ = [&](std::string_view what, u64 interpreter, u64 translator) {
        if (interpreter != translator)
            text += fmt::format("  {:<6} interpreter {:016x}  translator {:016x}\n", what, interpreter,
                                translator);
    };
    const Image& i = interpreted_;
    const Image& j = translated_;
    differ("fault", i.faulted ? i.fault.vector : ~u64{0}, j.faulted ? j.fault.vector : ~u64{0});
    if (i.faulted && j.faulted) differ("error", i.fault.error, j.fault.error);
    if (i.faulted) differ("cr2", i.cr2, j.cr2);
    const bool wide = c.code64();
    differ("rip", i.rip, j.rip);
    for (unsigned n = 0; n < 16; ++n)
        differ(fmt::format("r{}", n), wide ? i.gpr[n] : static_cast<u32>(i.gpr[n]),
               wide ? j.gpr[n] : static_cast<u32>(j.gpr[n]));
    const u16 undefined = status_form(t.undefined_flags);
    differ("status", i.status & ~undefined, j.status & ~undefined);
    differ("eflags", i.eflags, j.eflags);
    differ("mxcsr", i.mxcsr, j.mxcsr);
    for (unsigned n = 0; n < 16; ++n)
        for (unsigned k = 0; k < 4; ++k) differ(fmt::format("ymm{}.{}", n, k), i.ymm[n][k], j.ymm[n][k]);
    differ("fcw", i.fpu.control, j.fpu.control);
    differ("fsw", i.fpu.status, j.fpu.status);
    differ("ftw", i.fpu.tag, j.fpu.tag);
    differ("fip", i.fpu.ip, j.fpu.ip);
    differ("fdp", i.fpu.dp, j.fpu.dp);
    for (unsigned n = 0; n < 8; ++n)
        if (i.fpu.st[n] != j.fpu.st[n])
            text += fmt::format("  st{}    interpreter {}  translator {}\n", n, hex(i.fpu.st[n].data(), 10),
                                hex(j.fpu.st[n].data(), 10));
    for (const Write& w : writes_)
        if (std::memcmp(w.host, bytes_.data() + w.after, w.size) != 0)
            text += fmt::format("  {} bytes stored: interpreter {}  translator {}\n", w.size,
                                hex(bytes_.data() + w.after, w.size), hex(w.host, w.size));
    if (text.empty()) return;
    std::string report = fmt::format("{} in a block at {:#x} (CPL {}, {} bits)\n{}before:\n", kCheckFailure,
                                     t.page + head[1].ip, c.cpl, wide ? 64 : 32, text);
    for (unsigned n = 0; n < 16; ++n)
        report += fmt::format("  r{:<2} {:016x}{}", n, before_.gpr[n], n % 4 == 3 ? "\n" : "");
    report += fmt::format("  status {:04x} mxcsr {:x}\ninstructions:\n", before_.status, before_.mxcsr);
    const FetchEntry& page = fetch_entry(c, t.page);
    for (const Op* op = head + 1; op->len != 0; ++op)
        if (op[1].ip != op->ip && page.tag == t.page && page.host != nullptr)
            report += fmt::format("  {:x}: {}\n", t.page + op->ip, hex(page.host + op->ip, op->len));
    report += fmt::format("host code:\n  {}\n  {}",
                          hex(t.entry_attended, static_cast<std::size_t>(t.end - t.entry_attended)),
                          hex(t.stubs, static_cast<std::size_t>(t.stubs_end - t.stubs)));
    failure_ = std::move(report);
}

void Checker::run(Vcpu& c, const Op* head, Translation& t) {
    c.rip = insn_rip(c, head[1]);
    take(c, before_);
    std::copy_n(c.reg.begin() + before_.gpr.size(), kept_.slots.size(), kept_.slots.begin());
    kept_.instructions = c.instructions;
    kept_.pending_db = c.pending_db;
    kept_.fp_traps = c.fp_traps;
    kept_.pauses = c.pauses;
    interpret(c, head + 1);
    undo(c);
    const bool given_up = given_up_;
    translated(c, t);
    // Interrupted REP instructions go on later; and that may have been asked for at any moment.
    if (given_up || left_early_ || c.attention.load() != 0) {
        ++skipped_;
    } else {
        ++checked_;
        compare(c, head, t);
        if (!failure_.empty()) c.attention.fetch_or(kAttendInterrupts);
    }
    if (translated_.faulted) _longjmp(c.fault_return, 1);
}

}  // namespace tessera::soft::jit
