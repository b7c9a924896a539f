"""Adds files to an initramfs: the kernel unpacks one archive after the other."""

ALIGN = 512  # of each archive's end; the format itself asks for 4


def entry(name, mode, data, number):
    """One file in the "newc" format."""
    encoded = name.encode() + b"\0"
    fields = [number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(encoded), 0]
    head = b"070701" + b"".join(b"%08x" % field for field in fields) + encoded
    return pad(head, 4) + pad(data, 4)


def pad(data, align):
    return data + b"\0" * (-len(data) % align)


def archive(files):
    """An archive of `files`: name -> (mode with the file type's bits, content)."""
    entries = [entry(name, mode, data, number) for number, (name, (mode, data)) in enumerate(files.items(), 1)]
    return pad(b"".join(entries) + entry("TRAILER!!!", 0, b"", 0), ALIGN)


def overlay(initrd, files):
    """The initramfs `initrd` with `files` added, where of two files of one name the new one counts."""
    return pad(initrd, ALIGN) + archive(files)


def program(data):
    return 0o100755, data


def folder():
    return 0o040755, b""


def link(target):
    return 0o120777, target.encode()
