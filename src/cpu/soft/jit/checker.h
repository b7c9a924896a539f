// Lockstep (--engine soft,check): a block runs in the interpreter first, is undone, runs translated, and both
// results are compared.
//
// While the interpreter's run is recorded the inline TLB is empty, so that every access passes the MMU, which
// tells the checker of it before it happens (note_access). What cannot be undone (devices, decoded code) ends
// the recording, and the block goes unchecked. One CPU only: others would see what is undone.
#pragma once

#include <array>
#include <string>
#include <vector>

#include "cpu/soft/jit/jit.h"
#include "cpu/soft/vcpu.h"

namespace tessera::soft::jit {

// Instructions that change more than the checker takes back. In lockstep they are blocks of their own.
[[nodiscard]] bool cannot_be_undone(const x86::Insn& in);

class Checker {
public:
    explicit Checker(u64 every) : every_(every), left_(1) {}

    // Whether this entry of translated code is one to check.
    [[nodiscard]] bool wanted() {
        --left_;
        if (left_ != 0) return false;
        left_ = every_;
        return true;
    }
    // Runs the block both ways and compares; Vcpu::rip is where to go on. Raises what the block raises.
    void run(Vcpu& c, const Op* head, Translation& t);

    // The MMU: the bytes at `host` are about to be written.
    void note_write(u8* host, unsigned size);
    // The MMU: this cannot be undone. Does not return.
    [[noreturn]] void give_up(Vcpu& c);

    [[nodiscard]] const std::string& failure() const { return failure_; }
    [[nodiscard]] u64 checked() const { return checked_; }
    [[nodiscard]] u64 skipped() const { return skipped_; }

private:
    struct Image {
        std::array<u64, 16> gpr{};
        u64 rip = 0, cr2 = 0, eflags = 0;
        u16 status = 0;
        u32 mxcsr = 0;
        std::array<std::array<u64, 4>, 16> ymm{};
        x86::Fpu fpu;
        bool faulted = false;
        Fault fault;
    };
    struct Kept {  // beyond Image
        std::array<u64, 3> slots{};
        u64 instructions = 0, pending_db = 0;
        u16 fp_traps = 0;
        u32 pauses = 0;
    };
    struct Write {
        u8* host;
        unsigned size;
        std::size_t before, after;  // in bytes_
    };

    static void take(Vcpu& c, Image& image);
    void interpret(Vcpu& c, const Op* first);
    void undo(Vcpu& c);
    void translated(Vcpu& c, Translation& t);
    [[nodiscard]] bool same(const Vcpu& c, const Translation& t) const;
    void compare(Vcpu& c, const Op* head, const Translation& t);

    u64 every_, left_;
    u64 checked_ = 0, skipped_ = 0;
    bool given_up_ = false, left_early_ = false;
    Image before_, interpreted_, translated_;
    Kept kept_;
    std::vector<Write> writes_;
    std::vector<u8> bytes_;
    std::jmp_buf outer_{};
    std::string failure_;
    alignas(64) std::array<TlbEntry, kTlbEntries> no_tlb_{};
};

}  // namespace tessera::soft::jit
