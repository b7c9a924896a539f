// Control registers and RFLAGS: which writes are refused, and what has to be thought of when one succeeds.
#include "cpu/soft/control.h"

#include "cpu/soft/fp/fp.h"
#include "cpu/soft/jit/slots.h"
#include "cpu/soft/mmu.h"
#include "cpu/soft/soft_system.h"
#include "cpu/soft/system.h"
#include "cpu/soft/x86_names.h"

namespace tessera::soft {

void update_tlb_set(Vcpu& c) {
    const bool ac = (c.eflags & eflags::kAc) != 0;
    TlbSet set = kTlbSupervisor;
    if (c.cpl == 3)
        set = ac && (c.cr0 & cr0::kAm) != 0 ? kTlbNone : static_cast<TlbSet>(kTlbUser + c.spaces.current);
    else if (ac && (c.cr4 & cr4::kSmap) != 0)
        set = kTlbSupervisorAc;
    if (set == kTlbNone) jit::empty_user_slots(c);  // every access is checked for alignment
    c.tlb = c.tlb_sets[set].data();
    c.clac_tlb = c.tlb_sets[kTlbSupervisor].data();
    c.stac_tlb = (c.cr4 & cr4::kSmap) != 0 ? c.tlb_sets[kTlbSupervisorAc].data() : c.clac_tlb;
    c.fetch = c.fetch_sets[c.cpl == 3 ? 1 + c.spaces.current : 0].data();
}

void set_eflags(Vcpu& c, u64 rflags) {
    const u64 before = c.eflags;
    c.eflags = (rflags & kRflagsMask & ~eflags::kStatus) | eflags::kOne;
    const u64 changed = before ^ c.eflags;
    if ((changed & eflags::kVm) != 0) {
        update_segments(c);
        update_fp_enables(c);
    } else if ((changed & eflags::kAc) != 0) {
        update_tlb_set(c);
    }
    // What has waited for IF or TF is looked at once the instruction is done. What comes from now on asks for
    // attention itself.
    const u64 set = changed & c.eflags;
    if ((set & eflags::kIf) != 0 && c.interrupt_waits != 0)
        c.interrupt_waits = c.interrupts->interrupt_pending() ? 1 : 0;
    if ((set & eflags::kTf) != 0 || ((set & eflags::kIf) != 0 && c.interrupt_waits != 0))
        c.attention.fetch_or(kAttendInterrupts);
}

namespace {

constexpr u64 kCr0Mask = cr0::kPe | cr0::kMp | cr0::kEm | cr0::kTs | cr0::kEt | cr0::kNe | cr0::kWp |
                         cr0::kAm | cr0::kNw | cr0::kCd | cr0::kPg;

// CR0.PG goes from 0 to 1 [SDM 3A 9.8.5].
void check_enter_paging(Vcpu& c) {
    if ((c.msr.efer & efer::kLme) != 0) {
        const bool tss16 = (c.tr.rights & 8) == 0;
        if ((c.cr4 & cr4::kPae) == 0 || (c.seg[Cs].rights & rights::kLong) != 0 || tss16) raise_gp0(c);
        return;
    }
    if ((c.cr4 & cr4::kPae) != 0 && !load_pdptes(c, c.cr3)) raise_gp0(c);
}

}  // namespace

void set_cr0(Vcpu& c, u64 value) {
    if (value >> 32 != 0) raise_gp0(c);
    value = (value & kCr0Mask) | cr0::kEt;
    const bool pg = (value & cr0::kPg) != 0;
    if (pg && (value & cr0::kPe) == 0) raise_gp0(c);
    if ((value & cr0::kNw) != 0 && (value & cr0::kCd) == 0) raise_gp0(c);
    const u64 changed = c.cr0 ^ value;
    if ((changed & cr0::kPg) != 0) {
        if (pg) {
            check_enter_paging(c);
        } else {
            if (c.code64() || (c.cr4 & cr4::kPcide) != 0) raise_gp0(c);
        }
    }
    c.cr0 = value;
    if ((changed & cr0::kPg) != 0) {
        const bool lma = pg && (c.msr.efer & efer::kLme) != 0;
        c.msr.efer = (c.msr.efer & ~efer::kLma) | (lma ? efer::kLma : 0);
    }
    if ((changed & (cr0::kPg | cr0::kPe | cr0::kWp)) != 0) flush_tlb(c, true);
    if ((changed & (cr0::kPg | cr0::kPe)) != 0)
        update_segments(c);
    else
        update_tlb_set(c);
    update_fp_enables(c);
}

void set_cr3(Vcpu& c, u64 value) {
    // [SDM 3A 4.10.4.1] With PCIDs, bit 63 asks to keep the new PCID's entries.
    const bool pcids = (c.cr4 & cr4::kPcide) != 0;
    const bool keep = pcids && value >> 63 != 0;
    if (pcids) value &= ~(u64{1} << 63);
    if (c.long_mode() && (value & ~kPhysicalMask) != 0) raise_gp0(c);
    const bool legacy_pae = (c.cr0 & cr0::kPg) != 0 && (c.cr4 & cr4::kPae) != 0 && !c.long_mode();
    if (legacy_pae && !load_pdptes(c, value)) raise_gp0(c);
    c.cr3 = value;
    switch_address_space(c, pcids ? static_cast<u16>(value & 0xfff) : u16{0},
                         keep ? Translations::Keep : Translations::Flush);
}

u64 cr4_mask(CpuModel model) {
    u64 mask = cr4::kVme | cr4::kPvi | cr4::kTsd | cr4::kDe | cr4::kPse | cr4::kPae | cr4::kMce | cr4::kPge |
               cr4::kPce | cr4::kOsfxsr | cr4::kOsxmmexcpt | cr4::kUmip | cr4::kFsgsbase | cr4::kPcide |
               cr4::kSmep | cr4::kSmap;
    if (model != CpuModel::X86_64_V2) mask |= cr4::kOsxsave;
    return mask;
}

void set_cr4(Vcpu& c, u64 value) {
    if ((value & ~cr4_mask(c.system->config().model)) != 0) raise_gp0(c);
    const u64 changed = c.cr4 ^ value;
    if (c.long_mode() && (value & cr4::kPae) == 0) raise_gp0(c);
    if ((changed & value & cr4::kPcide) != 0 && (!c.long_mode() || (c.cr3 & 0xfff) != 0)) raise_gp0(c);
    const u64 paging_bits = cr4::kPse | cr4::kPae | cr4::kPge | cr4::kSmep | cr4::kSmap;
    const bool legacy_pae = (c.cr0 & cr0::kPg) != 0 && (value & cr4::kPae) != 0 && !c.long_mode();
    // [SDM 3A 4.4.1]
    if (legacy_pae && (changed & (cr4::kPae | cr4::kPge | cr4::kPse | cr4::kSmep)) != 0 &&
        !load_pdptes(c, c.cr3))
        raise_gp0(c);
    c.cr4 = value;
    // [SDM 3A 4.10.4.1] PCIDE flushes when it goes from 1 to 0. All else that entries have been checked for:
    // flushing more than is asked for is allowed.
    if ((changed & paging_bits) != 0 || (changed & ~value & cr4::kPcide) != 0) flush_tlb(c, true);
    if ((changed & cr4::kPcide) != 0) switch_address_space(c, 0, Translations::Keep);
    update_tlb_set(c);
    update_fp_enables(c);
}

void set_cr8(Vcpu& c, u64 value) {
    if ((value & ~u64{0xf}) != 0) raise_gp0(c);
    c.interrupts->set_cr8(static_cast<u8>(value));
    c.attention.fetch_or(kAttendInterrupts);  // a lower priority may let one through
}

void set_efer(Vcpu& c, u64 value) {
    if ((value & ~kEferMask) != 0) raise_gp0(c);
    const u64 changed = c.msr.efer ^ value;
    if ((changed & efer::kLme) != 0 && (c.cr0 & cr0::kPg) != 0) raise_gp0(c);
    c.msr.efer = (value & ~efer::kLma) | (c.msr.efer & efer::kLma);
    if ((changed & efer::kNxe) != 0) flush_tlb(c, true);
}

}  // namespace tessera::soft
