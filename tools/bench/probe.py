"""Guests of one instruction that counts: each writes a '!' to the serial port, then halts for ever.

Between the start of the command and the '!' lies everything a monitor does before the guest's first instruction.
"""
import struct

MARK = b"!"
LOAD_ADDRESS = 0x100000
XEN_ELFNOTE_PHYS32_ENTRY = 18


def firmware():
    """A 64 KiB ROM for QEMU; the processor starts at its last 16 bytes in real mode."""
    code = bytes.fromhex("baf803 b021 ee f4 ebfd")  # mov $0x3f8,%dx; mov $'!',%al; out %al,(%dx); 1: hlt; jmp 1b
    return bytes(0xfff0) + code + bytes(16 - len(code))


def kernel(size):
    """An ELF kernel of `size` bytes with a PVH entry, so that loading it takes as long as loading a real one."""
    # The same in 32 and 64 bits.
    code = bytes.fromhex("66baf803 b021 ee f4 ebfd")
    header, segment = 64, 56
    note = struct.pack("<III4sQ", 4, 8, XEN_ELFNOTE_PHYS32_ENTRY, b"Xen\0", LOAD_ADDRESS)
    note_at, load_at = header + 2 * segment, 4096
    content = code.ljust(size - load_at, b"\xf4")
    ident = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9)
    elf = struct.pack("<16sHHIQQQIHHHHHH", ident, 2, 62, 1, LOAD_ADDRESS, header, 0, 0, header, segment, 2, 0, 0, 0)
    load = struct.pack("<IIQQQQQQ", 1, 7, load_at, LOAD_ADDRESS, LOAD_ADDRESS, len(content), len(content), 4096)
    notes = struct.pack("<IIQQQQQQ", 4, 4, note_at, 0, 0, len(note), len(note), 4)
    return (elf + load + notes + note).ljust(load_at, b"\0") + content
