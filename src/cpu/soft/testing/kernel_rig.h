// A TestMachine with descriptor tables, TSS, interrupt handlers that halt, and page tables of 4 KiB pages, so
// that a test can run a few instructions at any level and see which handler they end in.
#pragma once

#include "cpu/soft/testing/test_machine.h"

namespace tessera::soft {

class KernelRig : public TestMachine {
public:
    // Where things are. Handler n is a HLT at kHandlers + 16 * n.
    static constexpr u64 kGdt = 0x30000, kIdt = 0x31000, kTss = 0x32000, kHandlers = 0x34000,
                         kKernelStack = 0x3a000, kIstStack = 0x3c000, kUserCode = 0x40000,
                         kUserStack = 0x48000, kPages = 0x50000;
    // Selectors: flat segments in the order SYSCALL and SYSRET want them.
    static constexpr u16 kKernelCode = 0x08, kKernelData = 0x10, kUserCode32 = 0x1b, kUserData = 0x23,
                         kUserCode64 = 0x2b, kTssSelector = 0x30, kKernelCode32 = 0x40, kSpare = 0x48;

    using TestMachine::TestMachine;

    static constexpr u64 descriptor(u32 base, u32 limit, unsigned access, unsigned flags) {
        return (limit & 0xffff) | (u64{base & 0xff'ffff} << 16) | (u64{access} << 40) |
               (u64{(limit >> 16) & 0xf} << 48) | (u64{flags} << 52) | (u64{base >> 24} << 56);
    }
    void set_descriptor(u16 selector, u64 value) { write<u64>(kGdt + (selector & ~7u), value); }

    // 64-bit kernel at CPL 0 (or user code at CPL 3), 4 KiB pages: everything below 2 MiB is mapped one to
    // one, user pages where `user` says so.
    x86::State kernel64(unsigned cpl = 0) {
        x86::State s = long_mode_state(cpl);
        set_descriptor(kKernelCode, descriptor(0, 0xfffff, 0x9b, 0xa));
        set_descriptor(kKernelData, descriptor(0, 0xfffff, 0x93, 0xc));
        set_descriptor(kUserCode32, descriptor(0, 0xfffff, 0xfb, 0xc));
        set_descriptor(kUserData, descriptor(0, 0xfffff, 0xf3, 0xc));
        set_descriptor(kUserCode64, descriptor(0, 0xfffff, 0xfb, 0xa));
        set_descriptor(kTssSelector, descriptor(kTss, 0x2067, 0x8b, 0));
        write<u64>(kGdt + kTssSelector + 8, 0);
        set_descriptor(kKernelCode32, descriptor(0, 0xfffff, 0x9b, 0xc));
        for (unsigned v = 0; v < 256; ++v) set_gate64(v, 0x8e, 0);
        write<u64>(kTss + 4, kKernelStack);
        write<u64>(kTss + 0x24, kIstStack);
        write<u16>(kTss + 0x66, 0x68);
        put_handlers();
        map_pages();
        s.gdtr = {.base = kGdt, .limit = 0xff};
        s.idtr = {.base = kIdt, .limit = 0xfff};
        s.tr = {.selector = kTssSelector, .base = kTss, .limit = 0x2067, .rights = 0x8b};
        s.ldtr = {.selector = 0, .base = 0, .limit = 0, .rights = x86::rights::kUnusable};
        s.seg[x86::Cs].selector = cpl == 0 ? kKernelCode : kUserCode64;
        for (const auto seg : {x86::Es, x86::Ss, x86::Ds, x86::Fs, x86::Gs})
            s.seg[seg].selector = cpl == 0 ? kKernelData : kUserData;
        s.cr3 = kPages;
        s.rip = cpl == 0 ? kCode : kUserCode;
        s.gpr[x86::Rsp] = cpl == 0 ? kStack : kUserStack;
        s.msr.star = (u64{kUserCode32} << 48) | (u64{kKernelCode} << 32);
        return s;
    }
    void set_gate64(unsigned vector, unsigned type, unsigned ist) {
        const u64 handler = kHandlers + 16 * vector;
        write<u64>(kIdt + vector * 16, (handler & 0xffff) | (u64{kKernelCode} << 16) | (u64{ist} << 32) |
                                           (u64{type} << 40) | ((handler >> 16 & 0xffff) << 48));
        write<u64>(kIdt + vector * 16 + 8, 0);
    }

    // Page table entry of the 4 KiB page at `lin` (below 2 MiB).
    static constexpr u64 pte_address(u64 lin) { return kPages + 0x3000 + (lin >> 12) * 8; }
    [[nodiscard]] u64 pte(u64 lin) { return read<u64>(pte_address(lin)); }
    void set_pte(u64 lin, u64 value) { write<u64>(pte_address(lin), value); }

    // 32-bit protected mode with the same tables, 8-byte gates and a 32-bit TSS; no paging.
    x86::State kernel32(unsigned cpl = 0) {
        x86::State s = protected_mode_state(cpl);
        set_descriptor(kKernelCode, descriptor(0, 0xfffff, 0x9b, 0xc));
        set_descriptor(kKernelData, descriptor(0, 0xfffff, 0x93, 0xc));
        set_descriptor(kUserCode32, descriptor(0, 0xfffff, 0xfb, 0xc));
        set_descriptor(kUserData, descriptor(0, 0xfffff, 0xf3, 0xc));
        set_descriptor(kTssSelector, descriptor(kTss, 0x2067, 0x8b, 0));
        for (unsigned v = 0; v < 256; ++v) set_gate32(v, 0x8e, kKernelCode, kHandlers + 16 * v);
        write<u32>(kTss + 4, kKernelStack);
        write<u16>(kTss + 8, kKernelData);
        write<u16>(kTss + 0x66, 0x68);
        put_handlers();
        s.gdtr = {.base = kGdt, .limit = 0xff};
        s.idtr = {.base = kIdt, .limit = 0x7ff};
        s.tr = {.selector = kTssSelector, .base = kTss, .limit = 0x2067, .rights = 0x8b};
        s.ldtr = {.selector = 0, .base = 0, .limit = 0, .rights = x86::rights::kUnusable};
        s.seg[x86::Cs].selector = cpl == 0 ? kKernelCode : kUserCode32;
        for (const auto seg : {x86::Es, x86::Ss, x86::Ds, x86::Fs, x86::Gs})
            s.seg[seg].selector = cpl == 0 ? kKernelData : kUserData;
        s.rip = cpl == 0 ? kCode : kUserCode;
        s.gpr[x86::Rsp] = cpl == 0 ? kStack : kUserStack;
        return s;
    }
    void set_gate32(unsigned vector, unsigned type, u16 selector, u64 offset) {
        write<u64>(kIdt + vector * 8, (offset & 0xffff) | (u64{selector} << 16) | (u64{type} << 40) |
                                          ((offset >> 16 & 0xffff) << 48));
    }

    // Runs from `s` until HLT (or shutdown).
    x86::State go(const x86::State& s, std::initializer_list<u8> code) {
        put(s.seg[x86::Cs].base + s.rip, code);
        cpu().set_state(s);
        last_exit = cpu().run().reason;
        return cpu().state();
    }
    // The handler a halted CPU is in, -1 if none.
    static int vector_of(const x86::State& s) {
        const u64 at = s.rip - 1 - kHandlers;
        return s.activity == x86::Activity::Halted && at % 16 == 0 && at / 16 < 256
                   ? static_cast<int>(at / 16)
                   : -1;
    }
    // What a 64-bit handler without (error = false) or with error code finds on its stack.
    struct Frame {
        u64 error, rip, cs, rflags, rsp, ss;
    };
    Frame frame64(const x86::State& s, bool error) {
        u64 at = s.gpr[x86::Rsp];
        Frame f{};
        if (error) {
            f.error = read<u64>(at);
            at += 8;
        }
        f.rip = read<u64>(at);
        f.cs = read<u64>(at + 8);
        f.rflags = read<u64>(at + 16);
        f.rsp = read<u64>(at + 24);
        f.ss = read<u64>(at + 32);
        return f;
    }

private:
    void put_handlers() {
        for (unsigned v = 0; v < 256; ++v) put(kHandlers + 16 * v, {0xf4});
    }
    void map_pages() {
        write<u64>(kPages, (kPages + 0x1000) | 7);
        write<u64>(kPages + 0x1000, (kPages + 0x2000) | 7);
        write<u64>(kPages + 0x2000, (kPages + 0x3000) | 7);
        for (u64 page = 0; page < 512; ++page) {
            const u64 at = page << 12;
            const bool user = at >= kUserCode && at < kUserCode + 0x10000;
            set_pte(at, at | 3 | (user ? 4 : 0));
        }
    }
};

}  // namespace tessera::soft
