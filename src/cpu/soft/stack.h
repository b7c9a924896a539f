// A stack that is read or written by a far transfer before SS and RSP themselves are changed, so that a fault
// on the way leaves them as they were.
#pragma once

#include "cpu/soft/segment.h"

namespace tessera::soft {

class Stack {
public:
    // The stack in use.
    static Stack current(Vcpu& c) {
        return {c, c.seg[x86::Ss], c.reg[x86::Rsp], c.code64(), Privilege::Current, 0};
    }
    // The stack in use or another one of this level (IST), as 64-bit code sees it whatever runs now.
    static Stack wide(Vcpu& c, u64 sp) { return {c, c.seg[x86::Ss], sp, true, Privilege::Current, 0}; }
    // A stack of an inner level that is about to be switched to. Limit faults name its selector.
    static Stack inner(Vcpu& c, const x86::Segment& ss, u64 sp, bool wide) {
        return {c, ss, sp, wide, Privilege::Supervisor, wide ? u16{0} : ss.selector};
    }

    void push(u64 value, unsigned size) {
        const u64 sp = next(static_cast<u64>(0) - size);
        store_as(*c_, address(sp, size, Access::Write), size, value, privilege_, x86::Ss);
        sp_ = sp;
    }
    [[nodiscard]] u64 pop(unsigned size) {
        const u64 value = load_as(*c_, address(sp_, size, Access::Read), size, privilege_, x86::Ss);
        sp_ = next(size);
        return value;
    }
    // Releases `size` bytes unread.
    void skip(u64 size) { sp_ = next(size); }
    // What RSP becomes: 16-bit stacks leave its upper part alone.
    [[nodiscard]] u64 sp() const { return sp_; }

private:
    Stack(Vcpu& c, const x86::Segment& ss, u64 sp, bool wide, Privilege privilege, u16 error)
        : c_(&c), ss_(ss), sp_(sp), wide_(wide), privilege_(privilege), error_(error) {
        mask_ = wide ? ~u64{0} : (ss.rights & x86::rights::kDb) != 0 ? 0xffff'ffff : 0xffff;
    }

    [[nodiscard]] u64 next(u64 distance) const { return (sp_ & ~mask_) | ((sp_ + distance) & mask_); }
    [[nodiscard]] u64 address(u64 sp, unsigned size, Access access) const;

    Vcpu* c_;
    x86::Segment ss_;
    u64 sp_;
    u64 mask_;
    bool wide_;  // 64-bit addressing: no base, no limit
    Privilege privilege_;
    u16 error_;
};

// SSn:ESPn of the current TSS; #TS(TR) if it is too short [SDM 3A 5.8.5].
struct InnerStack {
    u16 ss;
    u64 sp;
};
[[nodiscard]] InnerStack tss_stack(Vcpu& c, unsigned level);
// RSPn (n 0-2) and ISTn (n 1-7) of the 64-bit TSS.
[[nodiscard]] u64 tss_rsp(Vcpu& c, unsigned level);
[[nodiscard]] u64 tss_ist(Vcpu& c, unsigned ist);

// Whether an instruction pointer may be loaded with a code segment; else #GP(0) (with EXT).
void check_target(Vcpu& c, u64 rip, const Descriptor& code);

// Puts RSP, SS and CS (and with them the CPL) in place, then the derived state.
struct FarTarget {
    u16 selector = 0;
    Descriptor code;
    u64 rip = 0;
    unsigned cpl = 0;
};
void commit_code(Vcpu& c, FarTarget& target);

}  // namespace tessera::soft
