// x87 status, control word and exceptions, whether or not the state is live in the host.
#include "cpu/soft/fp/x87_host.h"

#include "cpu/soft/fp/fp.h"

namespace tessera::soft {

namespace {

u16 host_status() {
    u16 status = 0;
    asm volatile("fnstsw %0" : "=m"(status));
    return status;
}

u16 raw_status(const Vcpu& c) {
    return c.x87_live ? host_status() : c.fpu.status;
}

}  // namespace

u16 x87_status(const Vcpu& c) {
    return x87_status_of(raw_status(c), c.fpu.control);
}

bool x87_pending(const Vcpu& c) {
    return (raw_status(c) & ~c.fpu.control & kX87Masks) != 0;
}

void raise_x87_error(Vcpu& c) {
    // GAP: with CR0.NE clear the error should go out on FERR# and come back as IRQ 13; there is no such wire.
    raise(c, x86::kMf);
}

void x87_prepare(Vcpu& c) {
    x87_begin_no_wait(c);
    if ((c.fp_traps & kTrapX87Unmasked) != 0 && x87_pending(c)) raise_x87_error(c);
    if (!c.x87_live) x87_load(c);
}

void x87_unmask_host(const Vcpu& c) {
    asm volatile("fldcw %0" : : "m"(c.fpu.control));
}

u16 x87_mask_host(const Vcpu& c) {
    HostEnvironment environment{};
    // FNSTENV does not wait, and masks all exceptions once it has stored; that also takes back the host's ES.
    asm volatile("fnstenv %0" : "=m"(environment));
    return static_cast<u16>(environment.status & ~c.fpu.control & kX87Masks);
}

void x87_set_control(Vcpu& c, u16 control) {
    c.fpu.control = static_cast<u16>((control & kX87ControlBits) | 0x40);
    if (c.x87_live) {
        const u16 masked = c.fpu.control | kX87Masks;
        asm volatile("fldcw %0" : : "m"(masked));
    } else {
        c.fpu.status = x87_status_of(c.fpu.status, c.fpu.control);
    }
    update_fp_enables(c);
}

void x87_init(Vcpu& c) {
    if (c.x87_live) asm volatile("fninit");
    if (!c.x87_live) set_x87_top(c.fpu, 0);
    c.fpu.control = 0x037f;
    c.fpu.status = 0;
    c.fpu.tag = 0xffff;
    c.fpu.opcode = 0;
    c.fpu.ip = c.fpu.dp = 0;
    c.fpu.cs = c.fpu.ds = 0;
    update_fp_enables(c);
}

void x87_clear_exceptions(Vcpu& c) {
    if (c.x87_live)
        asm volatile("fnclex");
    else
        c.fpu.status &= 0x7f00;
}

}  // namespace tessera::soft
