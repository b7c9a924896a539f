// Descriptors and the checks of protected-mode segmentation, for the privileged side of the interpreter.
#pragma once

#include "cpu/soft/mmu.h"
#include "cpu/soft/vcpu.h"

namespace tessera::soft {

// System segment types [SDM 3A table 3-2].
enum class SystemType : u8 {
    Tss16Available = 1,
    Ldt = 2,
    Tss16Busy = 3,
    CallGate16 = 4,
    TaskGate = 5,
    InterruptGate16 = 6,
    TrapGate16 = 7,
    Tss32Available = 9,
    Tss32Busy = 11,
    CallGate32 = 12,
    InterruptGate32 = 14,
    TrapGate32 = 15,
};

// Eight bytes of a descriptor table [SDM 3A 3.4.5]; gates [SDM 3A 5.8.3].
struct Descriptor {
    u64 raw = 0;
    u64 address = 0;  // linear, of the descriptor itself

    [[nodiscard]] u32 high() const { return static_cast<u32>(raw >> 32); }
    [[nodiscard]] unsigned type() const { return (high() >> 8) & 0xf; }
    [[nodiscard]] SystemType system_type() const { return static_cast<SystemType>(type()); }
    [[nodiscard]] bool is_system() const { return (high() & (1 << 12)) == 0; }
    [[nodiscard]] bool is_code() const { return !is_system() && (type() & 8) != 0; }
    [[nodiscard]] bool is_data() const { return !is_system() && (type() & 8) == 0; }
    [[nodiscard]] bool is_conforming() const { return is_code() && (type() & 4) != 0; }
    [[nodiscard]] bool is_readable() const { return is_data() || (is_code() && (type() & 2) != 0); }
    [[nodiscard]] bool is_writable() const { return is_data() && (type() & 2) != 0; }
    [[nodiscard]] bool accessed() const { return (type() & 1) != 0; }
    [[nodiscard]] unsigned dpl() const { return (high() >> 13) & 3; }
    [[nodiscard]] bool present() const { return (high() & (1 << 15)) != 0; }
    [[nodiscard]] bool is_long() const { return (high() & (1 << 21)) != 0; }
    [[nodiscard]] bool is_big() const { return (high() & (1 << 22)) != 0; }
    [[nodiscard]] u32 base() const {
        return static_cast<u32>((raw >> 16) & 0xff'ffff) | (high() & 0xff00'0000);
    }
    [[nodiscard]] u32 limit() const {
        const u32 limit = static_cast<u32>(raw & 0xffff) | (high() & 0xf'0000);
        return (high() & (1 << 23)) != 0 ? (limit << 12) | 0xfff : limit;
    }
    // In the form of x86::Segment.
    [[nodiscard]] u32 access_rights() const { return (high() >> 8) & 0xf0ff; }

    // Gates.
    [[nodiscard]] u16 gate_selector() const { return static_cast<u16>(raw >> 16); }
    [[nodiscard]] u32 gate_offset() const { return static_cast<u32>(raw & 0xffff) | (high() & 0xffff'0000); }
    [[nodiscard]] unsigned gate_parameters() const { return high() & 0x1f; }
};

[[nodiscard]] inline bool is_null(u16 selector) {
    return (selector & ~3) == 0;
}
[[nodiscard]] inline unsigned rpl_of(u16 selector) {
    return selector & 3;
}

// Reads the descriptor `selector` names, from the GDT or the LDT. False if it is outside the table.
[[nodiscard]] bool read_descriptor(Vcpu& c, u16 selector, Descriptor& out);
// The upper half (base 63:32, or offset 63:32) of a 16-byte descriptor of long mode.
[[nodiscard]] u64 read_descriptor_upper(Vcpu& c, const Descriptor& d);
[[nodiscard]] bool fits_upper_half(const Vcpu& c, u16 selector);

// Raises `vector` with the selector (and EXT) as error code.
[[noreturn]] void raise_selector(Vcpu& c, u8 vector, u16 selector);
// Bit EXT of error codes: 1 while an event is delivered that no INT instruction asked for.
[[nodiscard]] u32 external_bit(const Vcpu& c);

// Sets the accessed bit in the descriptor table if it is not set, and in `d`.
void mark_accessed(Vcpu& c, Descriptor& d);
[[nodiscard]] x86::Segment segment_of(u16 selector, const Descriptor& d);

// Puts a code segment (checked by the caller) into CS with RPL = cpl, and makes cpl the CPL by way of SS's
// DPL being set by the caller first. Call update_segments afterwards.
void set_code_segment(Vcpu& c, u16 selector, Descriptor& d, unsigned cpl);

// Real mode and virtual-8086 mode: base = selector * 16.
void set_real_segment(Vcpu& c, x86::Seg seg, u16 selector);

// Checks a new SS for privilege level `cpl` as inner stacks and returns to outer levels want it: `vector` is
// #TS or #GP. Present is checked with #SS. Sets the accessed bit.
x86::Segment checked_stack_segment(Vcpu& c, u16 selector, unsigned cpl, u8 vector);
// The null SS of 64-bit mode.
[[nodiscard]] x86::Segment null_stack_segment(u16 selector, unsigned cpl);
[[nodiscard]] x86::Segment null_segment(u16 selector);

// Loads TR's cache from a checked, available or busy TSS descriptor; and LDTR's from an LDT descriptor.
[[nodiscard]] x86::Segment system_segment_of(Vcpu& c, u16 selector, const Descriptor& d);

// After a return to an outer level: data segments that it may not use become null [SDM 3A 5.8.6].
void drop_inner_segments(Vcpu& c);

}  // namespace tessera::soft
