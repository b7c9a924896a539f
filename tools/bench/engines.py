"""Starts the guests of the comparison, under QEMU's TCG and under Tessera, from the same files."""
import copy
import os
import pathlib
import re
import select
import subprocess
import tempfile
import time

import cpio
import probe

# PID 1 of a measuring guest. "boot" goes on to the usual init and its shell; otherwise the arguments are guestbench's.
INIT = b"""#!/bin/sh
echo 'first line of init'
if [ "$1" = boot ]; then exec /init; fi
mount -t devtmpfs dev /dev
mount -t proc proc /proc
read -r up rest < /proc/uptime
echo "guestbench begins at $up"
/bin/guestbench "$@"
code=$?
read -r up rest < /proc/uptime
echo "guestbench ends at $up with $code"
/bin/busybox poweroff -f
"""
# Each with its line's end: a console brings a line byte by byte.
COMPILE_BEGIN = r"compile begins at ([0-9.]+)\n"
COMPILE_END = r"compile ends at ([0-9.]+) with ([0-9]+) ([0-9a-f]{64}) .*\n"
FIRST_LINE = r"first line of init\n"
BEGIN = r"guestbench begins at ([0-9.]+)\n"
END = r"guestbench ends at ([0-9.]+) with ([0-9]+)\n"
PROMPT = r"tessera# "


# PID 1 of the guest that compiles.
COMPILE_INIT = b"""#!/bin/sh
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t tmpfs tmp /tmp
cd /load
read -r up rest < /proc/uptime
echo "compile begins at $up"
sh compile > /dev/null 2>&1
code=$?
read -r up rest < /proc/uptime
echo "compile ends at $up with $code $(/bin/busybox sha256sum /tmp/program.s)"
/bin/busybox poweroff -f
"""


class Failure(Exception):
    """A guest did not do what it was started for."""


class Guest:
    """A running command whose output is read together with the time it came.

    `marks` says for each piece of output with a line's end: the length of the text then, the seconds since the start,
    and what `threads` said.
    """

    def __init__(self, command, patience, folder=None):
        self.command = command
        self.errors = tempfile.TemporaryFile()
        self.text = ""
        self.seen = 0
        self.marks = []
        self.start = time.monotonic()
        self.deadline = self.start + patience
        self.process = subprocess.Popen(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self.errors)

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        self.errors.close()

    def expect(self, pattern):
        """Waits for `pattern` after what was seen before; returns the match and the seconds since the start."""
        while True:
            match = re.compile(pattern).search(self.text, self.seen)
            if match:
                self.seen = match.end()
                return match, time.monotonic() - self.start
            self.read_more(pattern)

    def read_more(self, pattern):
        pipe = self.process.stdout.fileno()
        ready, _, _ = select.select([pipe], [], [], max(0.0, self.deadline - time.monotonic()))
        data = os.read(pipe, 65536) if ready else b""
        if not data:
            why = "ended" if ready else "was not done within its time"
            raise Failure(f"{' '.join(self.command)}\n{why} before {pattern!r}; it said:\n"
                          f"{self.text[-2000:]}\n{self.said_on_error()[-2000:]}")
        self.text += data.decode("utf-8", "replace").replace("\r", "")
        if b"\n" in data:
            self.marks.append((len(self.text), time.monotonic() - self.start, self.threads()))

    def threads(self):
        """Thread -> (seconds run, seconds ready but not run), as the host's scheduler counts."""
        counted = {}
        for file in pathlib.Path(f"/proc/{self.process.pid}/task").glob("*/schedstat"):
            try:
                ran, waited = (int(word) / 1e9 for word in file.read_text(encoding="ascii").split()[:2])
            except (OSError, ValueError):  # the thread has ended, or the host does not count
                continue
            counted[file.parent.name] = ran, waited
        return counted

    def watch(self):
        """Waits for a command that writes nothing; returns the last that `threads` said."""
        threads = {}
        while self.process.poll() is None:
            threads = self.threads() or threads
            try:
                self.process.wait(0.02)
            except subprocess.TimeoutExpired:
                pass
        return threads

    def wait(self, seconds):
        """Gives the command time to end by itself; False if it does not."""
        try:
            self.process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def said_on_error(self):
        self.errors.seek(0)
        return self.errors.read().decode("utf-8", "replace")


class Machine:
    """What both monitors have in common: files, sizes, and how their guests are watched."""

    def __init__(self, files, memory_mib):
        self.files = files
        self.memory_mib = memory_mib

    def with_initrd(self, initrd, memory_mib):
        """The same machine with other files and another size."""
        other = copy.copy(self)
        other.files, other.memory_mib = copy.copy(self.files), memory_mib
        other.files.initrd = initrd
        return other

    def guest(self, cmdline, cpus, patience):
        return Guest(self.command(self.files.kernel, self.files.initrd, cmdline, cpus), patience)


class Tcg(Machine):
    """QEMU without KVM on its leanest machine. Without ACPI it boots faster, but has no second processor."""
    name = "tcg"

    def command(self, kernel, initrd, cmdline, cpus):
        machine = "microvm,acpi=off" if cpus == 1 else "microvm"
        return ["qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-M", machine, "-smp", str(cpus),
                "-m", f"{self.memory_mib}M", "-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio",
                "-no-reboot", "-kernel", kernel, "-initrd", initrd, "-append", cmdline]

    def probe(self, patience):
        return Guest([*self.command(self.files.kernel, self.files.initrd, "", 1), "-bios", self.files.probe_firmware],
                     patience)


class Tessera(Machine):
    """`tessera run` with the engine and machine asked for."""
    name = "tessera"

    def __init__(self, files, memory_mib, program, engine, machine, extra):
        super().__init__(files, memory_mib)
        # Counting for --stats would be measured too.
        if engine.startswith("soft") and "count=" not in engine:
            engine += ",count=off"
        self.start = [program, "run", "--engine", engine, "--machine", machine, *extra]

    def command(self, kernel, initrd, cmdline, cpus):
        return [*self.start, "--cpus", str(cpus), "--memory", f"{self.memory_mib}M", "--no-reboot",
                "--kernel", kernel, "--initrd", initrd, "--cmdline", cmdline]

    def probe(self, patience):
        return Guest(self.command(self.files.probe_kernel, self.files.initrd, "", 1), patience)


class Files:
    """Kernel, initramfs with guestbench, and the probes, in a folder that is removed at the end."""

    def __init__(self, guest_folder, guestbench, folder):
        guest_folder, folder = pathlib.Path(guest_folder), pathlib.Path(folder)
        self.kernel = str(guest_folder / "vmlinuz")
        base = (guest_folder / "initrd").read_bytes()
        added = {"bench": cpio.program(INIT), "bin/guestbench": cpio.program(pathlib.Path(guestbench).read_bytes())}
        self.initrd = self.put(folder / "initrd", cpio.overlay(base, added))
        self.probe_firmware = self.put(folder / "probe.bin", probe.firmware())
        self.probe_kernel = self.put(folder / "probe.elf", probe.kernel(os.path.getsize(self.kernel)))

    @staticmethod
    def put(path, data):
        path.write_bytes(data)
        return str(path)
