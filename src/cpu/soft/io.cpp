// Ports: who may access them, and the access.
#include "cpu/soft/debug.h"
#include "cpu/soft/exits.h"
#include "cpu/soft/soft_system.h"
#include "cpu/soft/system.h"
#include "cpu/soft/x86_names.h"

namespace tessera::soft {

void check_io(Vcpu& c, u16 port, unsigned size) {
    if (!c.protected_mode()) return;
    if (!c.v8086() && c.cpl <= c.iopl()) return;
    // [SDM 1 19.5.2] Two bytes of the bitmap are always read, and must both lie inside the TSS. A 286 TSS has
    // none.
    const bool wide = (c.tr.rights & 8) != 0;
    constexpr u32 kIoMapBase = 0x66;
    if (!wide || kIoMapBase + 1 > c.tr.limit) raise_gp0(c);
    const u64 base = load_system(c, c.tr.base + kIoMapBase, 2);
    const u64 offset = base + port / 8;
    if (offset + 1 > c.tr.limit) raise_gp0(c);
    const u64 map = load_system(c, c.tr.base + offset, 2);
    const u64 asked = ((u64{1} << size) - 1) << (port % 8);
    if ((map & asked) != 0) raise_gp0(c);
}

u32 port_in(Vcpu& c, u16 port, unsigned size) {
    note_io_access(c, port, size);
    u32 value = 0;
    const u64 begun = exit_begin(c);
    c.system->world().ports.read(port, std::as_writable_bytes(std::span(&value, 1)).first(size));
    exit_end(c, ExitCause::PortRead, begun);
    return value;
}

void port_out(Vcpu& c, u16 port, unsigned size, u32 value) {
    note_io_access(c, port, size);
    const u64 begun = exit_begin(c);
    c.system->world().ports.write(port, std::as_bytes(std::span(&value, 1)).first(size));
    exit_end(c, ExitCause::PortWrite, begun);
}

}  // namespace tessera::soft
