// The table of model-specific registers. [SDM 4], [APM 2 appendix A].
// The local APIC answers for its own (IA32_APIC_BASE, IA32_TSC_DEADLINE, 0x800-0x8ff).
// GAP: performance counters, LBR and BTF, machine-check banks (MCG_CAP says there are none), SVM.
#include "cpu/soft/msr.h"

#include <algorithm>

#include "cpu/soft/control.h"
#include "cpu/soft/mmu.h"
#include "cpu/soft/paravirt.h"
#include "cpu/soft/soft_system.h"
#include "cpu/soft/system.h"
#include "cpu/soft/x86_names.h"

namespace tessera::soft {

u64 guest_tsc(const Vcpu& c) {
    return c.system->world().tsc.ticks() + static_cast<u64>(c.msr.tsc_offset);
}

namespace {

using Read = bool (*)(Vcpu& c, u32 index, u64& value);
using Write = bool (*)(Vcpu& c, u32 index, u64 value);

struct MsrEntry {
    u32 first, last;
    Read read;
    Write write;
};

// --- shapes most entries have

template <auto Member>
bool read_member(Vcpu& c, u32 /*index*/, u64& value) {
    value = c.msr.*Member;
    return true;
}
template <auto Member>
bool write_member(Vcpu& c, u32 /*index*/, u64 value) {
    c.msr.*Member = value;
    return true;
}
// 32-bit registers: the upper half reads as zero whatever is written.
template <auto Member>
bool write_low(Vcpu& c, u32 /*index*/, u64 value) {
    c.msr.*Member = static_cast<u32>(value);
    return true;
}
template <auto Member>
bool write_canonical(Vcpu& c, u32 /*index*/, u64 value) {
    if (!is_canonical(value)) return false;
    c.msr.*Member = value;
    return true;
}
template <u64 Value>
bool read_constant(Vcpu& /*c*/, u32 /*index*/, u64& value) {
    value = Value;
    return true;
}
bool refuse(Vcpu& /*c*/, u32 /*index*/, u64 /*value*/) {
    return false;
}
bool ignore(Vcpu& /*c*/, u32 /*index*/, u64 /*value*/) {
    return true;
}
template <u64 Allowed>
bool ignore_bits(Vcpu& /*c*/, u32 /*index*/, u64 value) {
    return (value & ~Allowed) == 0;
}

// --- time

bool read_tsc(Vcpu& c, u32 /*index*/, u64& value) {
    value = guest_tsc(c);
    return true;
}
void move_tsc(Vcpu& c, u64 distance) {
    c.msr.tsc_offset = static_cast<s64>(static_cast<u64>(c.msr.tsc_offset) + distance);
    c.msr.tsc_adjust += distance;
    c.interrupts->set_tsc_offset(c.msr.tsc_offset);
    refresh_paravirt_clock(c);
}
// [SDM 3B 17.17.3] Writing one of the two moves both.
bool write_tsc(Vcpu& c, u32 /*index*/, u64 value) {
    move_tsc(c, value - guest_tsc(c));
    return true;
}
bool write_tsc_adjust(Vcpu& c, u32 /*index*/, u64 value) {
    move_tsc(c, value - c.msr.tsc_adjust);
    return true;
}

// --- the local APIC's

bool read_apic(Vcpu& c, u32 index, u64& value) {
    if (c.paravirt_eoi_offered) poll_paravirt_eoi(c);
    return c.interrupts->read_msr(index, value) == MsrResult::Ok;
}
bool write_apic(Vcpu& c, u32 index, u64 value) {
    if (c.paravirt_eoi_offered) end_paravirt_eoi(c);
    if (c.interrupts->write_msr(index, value) != MsrResult::Ok) return false;
    constexpr u32 kApicBase = 0x1b;
    if (index == kApicBase) flush_tlb(c, true);  // the APIC page may have moved
    c.attention.fetch_or(kAttendInterrupts);
    return true;
}

// --- memory types [SDM 3A 11.11, 11.12], [APM 2 7.7]

[[nodiscard]] bool is_mtrr_type(u64 type) {
    return type <= 6 && type != 2 && type != 3;
}
constexpr u64 kMtrrCapabilities =
    8 | (1 << 8) | (1 << 10);  // 8 variable ranges, fixed ranges, write combining

bool write_pat(Vcpu& c, u32 /*index*/, u64 value) {
    for (unsigned i = 0; i < 8; ++i) {
        const u64 type = value >> (8 * i) & 0xff;
        if (type > 7 || type == 2 || type == 3) return false;
    }
    c.msr.pat = value;
    return true;
}

bool write_mtrr_def_type(Vcpu& c, u32 /*index*/, u64 value) {
    constexpr u64 kFixedEnable = 1 << 10, kEnable = 1 << 11;
    if ((value & ~(u64{0xff} | kFixedEnable | kEnable)) != 0 || !is_mtrr_type(value & 0xff)) return false;
    c.msr.mtrr_def_type = value;
    return true;
}

[[nodiscard]] unsigned fixed_mtrr(u32 index) {
    if (index == 0x250) return 0;
    return index <= 0x259 ? index - 0x258 + 1 : index - 0x268 + 3;
}
bool read_fixed_mtrr(Vcpu& c, u32 index, u64& value) {
    value = c.msr.mtrr_fixed[fixed_mtrr(index)];
    return true;
}
bool write_fixed_mtrr(Vcpu& c, u32 index, u64 value) {
    for (unsigned i = 0; i < 8; ++i)
        if (!is_mtrr_type(value >> (8 * i) & 0xff)) return false;
    c.msr.mtrr_fixed[fixed_mtrr(index)] = value;
    return true;
}
bool read_variable_mtrr(Vcpu& c, u32 index, u64& value) {
    value = c.msr.mtrr_variable[index - 0x200];
    return true;
}
bool write_variable_mtrr(Vcpu& c, u32 index, u64 value) {
    const bool mask = (index & 1) != 0;
    if ((value & ~kPhysicalMask) != 0) return false;
    if (mask ? (value & 0x7ff) != 0 : (value & 0xf00) != 0 || !is_mtrr_type(value & 0xff)) return false;
    c.msr.mtrr_variable[index - 0x200] = value;
    return true;
}

// --- the rest

bool write_efer(Vcpu& c, u32 /*index*/, u64 value) {
    set_efer(c, value);
    return true;
}
bool write_mcg_status(Vcpu& c, u32 /*index*/, u64 value) {
    if ((value & ~u64{7}) != 0) return false;
    c.msr.mcg_status = value;
    return true;
}
bool write_xss(Vcpu& /*c*/, u32 /*index*/, u64 value) {
    return value == 0;
}  // no supervisor states
bool read_xss(Vcpu& c, u32 /*index*/, u64& value) {
    value = c.msr.xss;
    return has_feature(feature_level(c.system->config().model), x86::Feature::Xsaves);
}

template <Seg Register>
bool read_base(Vcpu& c, u32 /*index*/, u64& value) {
    value = c.seg[Register].base;
    return true;
}
template <Seg Register>
bool write_base(Vcpu& c, u32 /*index*/, u64 value) {
    if (!is_canonical(value)) return false;
    c.seg[Register].base = value;
    c.seg_base[Register] = value;
    return true;
}

// [PPR 19h] HWCR: bit 24 TscFreqSel, the TSC counts at the P0 frequency (which the kernel insists on).
constexpr u64 kHwcr = 1 << 24;
// DE_CFG bit 1: LFENCE serializes.
constexpr u64 kDeCfg = 1 << 1;

constexpr MsrEntry kMsrs[] = {
    {0x0000'0010, 0x0000'0010, read_tsc, write_tsc},
    {0x0000'001b, 0x0000'001b, read_apic, write_apic},
    {0x0000'003b, 0x0000'003b, read_member<&Msrs::tsc_adjust>, write_tsc_adjust},
    {0x0000'008b, 0x0000'008b, read_constant<0>, refuse},  // PATCH_LEVEL
    {0x0000'00fe, 0x0000'00fe, read_constant<kMtrrCapabilities>, refuse},
    {0x0000'0174, 0x0000'0174, read_member<&Msrs::sysenter_cs>, write_low<&Msrs::sysenter_cs>},
    {0x0000'0175, 0x0000'0175, read_member<&Msrs::sysenter_esp>, write_low<&Msrs::sysenter_esp>},
    {0x0000'0176, 0x0000'0176, read_member<&Msrs::sysenter_eip>, write_low<&Msrs::sysenter_eip>},
    {0x0000'0179, 0x0000'0179, read_constant<0>, refuse},  // MCG_CAP: no banks
    {0x0000'017a, 0x0000'017a, read_member<&Msrs::mcg_status>, write_mcg_status},
    {0x0000'01d9, 0x0000'01d9, read_constant<0>, ignore_bits<0x3f>},  // DEBUGCTL
    {0x0000'01db, 0x0000'01de, read_constant<0>, refuse},             // last branch and exception
    {0x0000'0200, 0x0000'020f, read_variable_mtrr, write_variable_mtrr},
    {0x0000'0250, 0x0000'0250, read_fixed_mtrr, write_fixed_mtrr},
    {0x0000'0258, 0x0000'0259, read_fixed_mtrr, write_fixed_mtrr},
    {0x0000'0268, 0x0000'026f, read_fixed_mtrr, write_fixed_mtrr},
    {0x0000'0277, 0x0000'0277, read_member<&Msrs::pat>, write_pat},
    {0x0000'02ff, 0x0000'02ff, read_member<&Msrs::mtrr_def_type>, write_mtrr_def_type},
    {0x0000'06e0, 0x0000'06e0, read_apic, write_apic},
    {0x0000'0800, 0x0000'08ff, read_apic, write_apic},
    {0x0000'0da0, 0x0000'0da0, read_xss, write_xss},
    {0x4b56'4d00, 0x4b56'4d06, read_paravirt_msr, write_paravirt_msr},
    {0xc000'0080, 0xc000'0080, read_member<&Msrs::efer>, write_efer},
    {0xc000'0081, 0xc000'0081, read_member<&Msrs::star>, write_member<&Msrs::star>},
    {0xc000'0082, 0xc000'0082, read_member<&Msrs::lstar>, write_canonical<&Msrs::lstar>},
    {0xc000'0083, 0xc000'0083, read_member<&Msrs::cstar>, write_canonical<&Msrs::cstar>},
    {0xc000'0084, 0xc000'0084, read_member<&Msrs::fmask>, write_low<&Msrs::fmask>},
    {0xc000'0100, 0xc000'0100, read_base<Fs>, write_base<Fs>},
    {0xc000'0101, 0xc000'0101, read_base<Gs>, write_base<Gs>},
    {0xc000'0102, 0xc000'0102, read_member<&Msrs::kernel_gs_base>, write_canonical<&Msrs::kernel_gs_base>},
    {0xc000'0103, 0xc000'0103, read_member<&Msrs::tsc_aux>, write_low<&Msrs::tsc_aux>},
    // What follows belongs to AMD's chipset side. Kernels of family 19h read these without expecting a fault;
    // there is nothing behind them here. GAP: writes are not kept.
    {0xc001'0010, 0xc001'0010, read_constant<0>, ignore},  // SYSCFG
    {0xc001'0015, 0xc001'0015, read_constant<kHwcr>, ignore},
    {0xc001'0016, 0xc001'0019, read_constant<0>, ignore},     // IORR
    {0xc001'001a, 0xc001'001a, read_constant<0>, ignore},     // TOP_MEM
    {0xc001'001d, 0xc001'001d, read_constant<0>, ignore},     // TOP_MEM2
    {0xc001'001f, 0xc001'001f, read_constant<0>, ignore},     // NB_CFG
    {0xc001'0055, 0xc001'0055, read_constant<0>, ignore},     // INT_PENDING
    {0xc001'0114, 0xc001'0114, read_constant<0x10>, refuse},  // VM_CR: SVM disabled
    {0xc001'1020, 0xc001'1023, read_constant<0>, ignore},     // LS_CFG, IC_CFG, DC_CFG
    {0xc001'1029, 0xc001'1029, read_constant<kDeCfg>, ignore},
};
static_assert(std::ranges::is_sorted(kMsrs, {}, &MsrEntry::first));

const MsrEntry* find(u32 index) {
    const auto* after = std::ranges::upper_bound(kMsrs, index, {}, &MsrEntry::first);
    if (after == std::begin(kMsrs)) return nullptr;
    const MsrEntry* entry = after - 1;
    return index <= entry->last ? entry : nullptr;
}

}  // namespace

bool read_msr(Vcpu& c, u32 index, u64& value) {
    const MsrEntry* entry = find(index);
    value = 0;
    return entry != nullptr && entry->read(c, index, value);
}

bool write_msr(Vcpu& c, u32 index, u64 value) {
    const MsrEntry* entry = find(index);
    return entry != nullptr && entry->write(c, index, value);
}

}  // namespace tessera::soft
