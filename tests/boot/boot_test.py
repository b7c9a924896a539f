"""Whole boots of stock Debian kernels, judged by the console. Each case is one ctest case.

usage: boot_test.py --tessera PROGRAM [--embed PROGRAM] CASE
"""
import argparse
import fcntl
import gzip
import hashlib
import http.server
import os
import pathlib
import random
import re
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time

sys.path[:0] = [os.path.dirname(os.path.realpath(__file__)),
                os.path.realpath(os.path.join(os.path.dirname(__file__), "..", "..", "tools", "bench"))]
import cpio  # noqa: E402
from console import Console, Failure, check, equal  # noqa: E402

CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME", os.path.expanduser("~/.cache"))) / "tessera" / "guests"
OPTIONS = None

# Lines of level "warning" and worse that say nothing about our hardware.
HARMLESS = [
    r"Spectre V2|Spectre V1|Speculative|Retbleed|RETBleed|SRSO|Transient|GDS|MMIO Stale|mitigat|Mitigat",
    r"process '.*' started with executable stack",
    # A busy host takes the processor away in the middle of a measuring loop or of an interrupt; the guest notices.
    r"tsc: (PIT calibration deviates from PMTIMER|Unable to calibrate against PIT)",
    r"hrtimer: interrupt took \d+ ns",
]
COMPLAINTS = [
    r"ACPI.*(Error|Warning|Exception)", r"Firmware Bug", r"Firmware Warn", r"BIOS bug", r"\bBUG\b", r"Call Trace",
    r"WARNING:", r"nobody cared", r"[Uu]nstable", r"timed out", r"i8042: (No controller|Can't|Failed)",
    r"Unknown NMI", r"(?i)spurious", r"TSC ADJUST", r"MP-BIOS", r"unexpected IRQ", r"rcu:.*(stall|starved)",
    r"clocksource:.*skew", r"probably unhandled", r"unchecked MSR", r"Machine check",
]


def guest(arch):
    """Kernel and initrd of `arch`, as tools/guests/fetch leaves them."""
    kernel, initrd = CACHE / arch / "vmlinuz", CACHE / arch / "initrd"
    check(kernel.exists() and initrd.exists(), f"no guest in {CACHE / arch}: run tools/guests/fetch")
    return str(kernel), str(initrd)


def run_command(arch="amd64", cpus=1, memory="512M", cmdline="console=ttyS0", extra=()):
    kernel, initrd = guest(arch)
    engine = () if "--engine" in extra else ("--engine", "soft")  # the same on every host; case_kvm has the other
    return [OPTIONS.tessera, "run", "--kernel", kernel, "--initrd", initrd, "--cmdline", cmdline, "--memory", memory,
            "--cpus", str(cpus), *engine, *extra]


# The microvm has no PCI, and Linux calls that fatal before it goes on.
NO_PCI = r"PCI: Fatal: No config space access function found|PCI: System does not support PCI"


def check_messages(console, also_harmless="(?!)"):
    """The kernel has no complaint about the hardware."""
    log = console.ask("dmesg -r")
    bad = []
    for line in log.splitlines():
        match = re.match(r"<(\d+)>(.*)", line)
        if not match:
            continue
        text = match[2]
        serious = (int(match[1]) & 7) <= 4 or any(re.search(p, text) for p in COMPLAINTS)
        if serious and not any(re.search(p, text) for p in [*HARMLESS, also_harmless]):
            bad.append(line)
    check(not bad, "the kernel complains:\n" + "\n".join(bad))
    return log


def check_time(console):
    """Two seconds are two seconds, and the clock is right."""
    uptime = float(console.ask("cut -d' ' -f1 /proc/uptime"))
    begin = time.monotonic()
    console.ask("sleep 2")
    host = time.monotonic() - begin
    # Not less than slept; more only by what the commands themselves take on a busy machine.
    check(2.0 <= host < 10.0, f"'sleep 2' took {host:.2f} s of the host's time")
    guest_seconds = float(console.ask("cut -d' ' -f1 /proc/uptime")) - uptime
    outer = time.monotonic() - begin
    check(1.9 <= guest_seconds <= outer + 5.0, f"'sleep 2' took {guest_seconds:.2f} s of the guest's time")
    off = int(console.ask("date +%s")) - time.time()
    check(abs(off) < 10, f"the guest's clock is off by {off:.0f} s")
    off = int(console.ask("cat /sys/class/rtc/rtc0/since_epoch 2>/dev/null || date +%s")) - time.time()
    check(abs(off) < 10, f"the guest's RTC is off by {off:.0f} s")


def check_shell(console, cpus):
    equal(console.ask("nproc"), f"{cpus}\n", "nproc")
    equal(console.ask("echo $((6 * 7)) | tr 0-9 a-j"), "ec\n", "arithmetic in a pipe")
    equal(console.ask("seq 1 20000 | md5sum"), digest("md5", 20000) + "  -\n", "a digest")
    console.ask("for i in 1 2 3 4; do seq 1 5000 | sha256sum > /tmp/$i & done; wait")
    equal(console.ask("cat /tmp/[1-4] | sort -u"), digest("sha256", 5000) + "  -\n", "digests by four processes at once")


def digest(algorithm, count):
    return hashlib.new(algorithm, "".join(f"{i}\n" for i in range(1, count + 1)).encode()).hexdigest()


def restart(console):
    console.send("reboot\n")
    console.hushed = False
    console.expect("Linux version")  # the shell prompts once more before it is killed
    console.prompt()


def power_off(console):
    console.send("poweroff\n")
    code, errors = console.end()
    equal((code, errors), (0, ""), "exit code and messages after poweroff")


def boot(arch, cpus, extra=(), memory="512M", word="x86_64"):
    with Console(run_command(arch, cpus, memory, extra=extra)) as console:
        console.prompt()
        check(console.ask("uname -m").strip() == word, "another architecture than expected")
        check_shell(console, cpus)
        check_messages(console, NO_PCI if "microvm" in extra else "(?!)")
        check_time(console)
        power_off(console)


def case_amd64():
    boot("amd64", 1)


def kernel_text(console):
    """Virtual and physical address of the kernel's text."""
    virtual = console.ask("grep ' _text$' /proc/kallsyms").split()[0]
    physical = console.ask("grep 'Kernel code' /proc/iomem").split("-")[0].strip()
    return virtual, physical


def boot_to_text(arch, cmdline, extra=()):
    with Console(run_command(arch, cmdline=cmdline, extra=extra)) as console:
        console.prompt()
        check_messages(console)
        place = kernel_text(console)
        power_off(console)
    return place


def check_translator(arch, every):
    """Every so many-th block is run by the interpreter as well; a difference ends the run with code 8."""
    with Console(run_command(arch, extra=["--engine", f"soft,check={every}"])) as console:
        console.prompt()
        power_off(console)


def case_lockstep():
    check_translator("amd64", 1)


def case_lockstep_i386():
    check_translator("i386", 100)


def case_lockstep_smp_refused():
    kernel, _ = guest("amd64")
    result = subprocess.run([OPTIONS.tessera, "run", "--kernel", kernel, "--cpus", "2", "--engine", "soft,check"],
                            capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL, check=False)
    equal(result.returncode, 2, "exit code")
    check("--cpus 1" in result.stderr, f"no way out is named: {result.stderr!r}")


def soak(arch, word):
    """Twenty boots in a row with 1, 2 and 4 CPUs; all failures are told, not only the first."""
    failures = []
    for cpus in (1, 2, 4):
        for n in range(20):
            begin = time.monotonic()
            try:
                with Console(run_command(arch, cpus)) as console:
                    console.prompt()
                    check(console.ask("uname -m").strip() == word, "another architecture than expected")
                    check_shell(console, cpus)
                    check_messages(console)
                    power_off(console)
                verdict = "good"
            except Failure as failure:
                verdict = str(failure)
                failures.append(f"{cpus} CPUs, boot {n + 1}: {verdict}")
            print(f"{arch}, {cpus} CPUs, boot {n + 1}: {verdict} ({time.monotonic() - begin:.1f} s)", flush=True)
    check(not failures, "\n".join(failures))


def case_soak():
    soak("amd64", "x86_64")


def case_soak_i386():
    soak("i386", "i686")


def case_kernel_entry_direct():
    """Entered directly the kernel lies at random places, unless it is told not to."""
    first, second = (boot_to_text("amd64", "console=ttyS0", ["--kernel-entry", "direct"]) for _ in range(2))
    check(first != second, f"the kernel lies at {first} twice")
    check(first[0] != "ffffffff81000000" or second[0] != "ffffffff81000000", "its virtual address is not random")
    fixed = boot_to_text("amd64", "console=ttyS0 nokaslr", ["--kernel-entry", "direct"])
    equal(fixed, ("ffffffff81000000", "01000000"), "places with nokaslr")


def case_kernel_entry_direct_i386():
    """A 32-bit kernel is moved as a whole."""
    places = set()
    # It has a few dozen places only: twice the same may be chance, four times is not.
    for _ in range(4):
        virtual, physical = boot_to_text("i386", "console=ttyS0", ["--kernel-entry", "direct"])
        equal(int(virtual, 16) - int(physical, 16), 0xc0000000, "virtual less physical address")
        places.add(virtual)
        if len(places) > 1:
            return
    raise Failure(f"the kernel lies at {places} four times")


def case_kernel_entry_stub():
    """The kernel's own decompressor works as well, and there is nothing to note."""
    boot("amd64", 1, extra=["--kernel-entry", "stub"])


def case_kernel_entry_stub_i386():
    boot("i386", 1, extra=["--kernel-entry", "stub"], word="i686")


def case_kernel_entry_note():
    """A kernel that has to unpack itself starts all the same, with a note; unless it must not."""
    kernel, initrd = guest("amd64")
    image = bytearray(pathlib.Path(kernel).read_bytes())
    image[0x24c:0x250] = bytes(4)  # payload_length: the header does not tell
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "secretive"
        path.write_bytes(image)
        refused(path, 3, ["secretive", "cannot be unpacked"], extra=["--kernel-entry", "direct"])
        with Console([OPTIONS.tessera, "run", "--kernel", str(path), "--initrd", initrd]) as console:
            console.prompt()
            console.send("poweroff\n")
            code, errors = console.end()
            equal(code, 0, "exit code")
            check("secretive" in errors and "unpacks itself" in errors, f"no note: {errors!r}")


def case_amd64_smp():
    boot("amd64", 2)


def case_microvm():
    boot("amd64", 1, extra=["--machine", "microvm"], memory="128M")


def case_microvm_smp():
    boot("amd64", 2, extra=["--machine", "microvm"])


def check_virtio(machine, arch="amd64", also_harmless="(?!)"):
    """Two disks and an entropy device, as a guest sees and uses them."""
    with tempfile.TemporaryDirectory() as folder:
        first = pathlib.Path(folder) / "first.img"
        second = pathlib.Path(folder) / "second.img"
        content = random.Random(1).randbytes(8 << 20)
        first.write_bytes(content)
        second.write_bytes(content[: 1 << 20])
        command = run_command(arch=arch, cpus=2, extra=(
            "--machine", machine, "--rng", "--disk", f"{first},serial=disk-one,queues=2",
            "--disk", f"{second},ro"))
        with Console(command) as console:
            console.prompt()
            check_messages(console, also_harmless)
            equal(console.ask("cat /sys/block/vda/size /sys/block/vdb/size").split(), ["16384", "2048"], "sizes")
            equal(console.ask("cat /sys/block/vda/serial").strip(), "disk-one", "serial number")
            equal(console.ask("ls /sys/block/vda/mq").split(), ["0", "1"], "queues")
            equal(console.ask("cat /sys/block/vda/ro /sys/block/vdb/ro").split(), ["0", "1"], "read only")
            equal(console.ask("cat /sys/block/vda/cache_type").strip(), "write back", "cache")
            equal(console.ask("md5sum < /dev/vda").split()[0], hashlib.md5(content).hexdigest(), "what is read")
            console.ask("yes tessera | dd of=/dev/vda bs=64k count=16 iflag=fullblock oflag=direct conv=fsync")
            console.ask("blkdiscard -o 4194304 -l 1048576 /dev/vda")
            equal(console.ask("cat /sys/class/misc/hw_random/rng_current").strip(), "virtio_rng.0", "entropy")
            equal(console.ask("head -c 1000 /dev/hwrng | wc -c").strip(), "1000", "random bytes")
            power_off(console)
        now = first.read_bytes()
        check(now[: 1 << 20] == (b"tessera\n" * (1 << 17)), "what was written is not in the file")
        check(now[4 << 20: 5 << 20] == bytes(1 << 20), "what was discarded is still there")
        check(now[1 << 20: 4 << 20] == content[1 << 20: 4 << 20], "what was not written has changed")


# By slot and IDs: host bridge, the network card there is without --net, ISA bridge.
PCI_OF_PC = {"0000": "7e550001", "0008": "1af41041", "00f8": "7e550002"}


def case_pci():
    """The kernel finds the bus by every way there is, and has nothing to say against it."""
    for cpus, options in ((2, ""), (1, "pci=nommconf"), (1, "pci=nomsi,noaer"), (1, "pci=realloc,assign-busses")):
        with Console(run_command(cpus=cpus, cmdline=f"console=ttyS0 {options}")) as console:
            console.prompt()
            log = check_messages(console)
            lines = [line.split()[:2] for line in console.ask("cat /proc/bus/pci/devices").splitlines()]
            equal(dict(lines), PCI_OF_PC, f"functions on the bus with {options!r}")
            for line in log.splitlines():
                check(not re.search(r"(?i)(pci|acpi).*(can't|cannot|conflict|no compatible|failed|invalid|bogus)", line),
                      f"with {options!r}: {line}")
            if not options:
                check("MMCONFIG at [mem 0xe0000000-0xefffffff] reserved in E820" in log, "ECAM is not used")
                check("hpet0: 3 comparators, 64-bit 100.000000 MHz counter" in log, "no HPET")
                head = console.ask("od -An -tx4 -N16 /proc/bus/pci/00/1f.0").split()
                equal(head[0::2], ["00027e55", "06010000"], "the ISA bridge's header")
            power_off(console)


def case_hpet():
    """The HPET as the only clock: by the I/O APIC, and by the 8259s."""
    for options in ("nolapic_timer", "noapic nolapic", "noapic nolapic highres=off nohz=off"):
        with Console(run_command(cmdline=f"console=ttyS0 no-kvmclock clocksource=hpet {options}")) as console:
            console.prompt()
            equal(console.ask("cat /sys/devices/system/clocksource/clocksource0/current_clocksource").strip(), "hpet",
                  f"clock source with {options!r}")
            check("Clock Event Device: hpet" in console.ask("cat /proc/timer_list"), f"{options!r}: another timer")
            check_time(console)
            power_off(console)


def pci_serial(arch, options, irq, controller, place=()):
    kernel, initrd = guest(arch)
    result = subprocess.run([OPTIONS.pci_serial, kernel, initrd, f"quiet {options}", *place], stdin=subprocess.DEVNULL,
                            capture_output=True, text=True, errors="replace", timeout=300, check=False)
    text = result.stdout.replace("\r", "")
    equal((result.returncode, result.stderr), (0, ""), "exit code and messages")
    for pattern in (r"\ngot echo hello\n", r"\nlines 200\n", rf"\n *{irq}: .*{controller}.*ttyS", r"\n0\n"):
        check(re.search(pattern, text), f"{pattern!r} is not in\n{text[-3000:]}")
    check("bad" not in text.replace("bad $A", ""), f"a line was wrong:\n{text[-3000:]}")


def case_pci_serial():
    """A PCI interrupt pin by _PRT to the I/O APIC."""
    pci_serial("amd64", "", 17, "IO-APIC +17-fasteoi")


def case_pci_serial_port():
    """Behind a root port."""
    pci_serial("amd64", "", 17, "IO-APIC +17-fasteoi", ["port"])


def case_pci_serial_pic():
    """By the link devices to the 8259s."""
    pci_serial("amd64", "noapic nolapic", 11, "XT-PIC")


def case_pci_serial_mp_table():
    """By the MP table, which only the 32-bit kernel reads."""
    pci_serial("i386", "acpi=off", 17, "IO-APIC +17-fasteoi")


def case_virtio_pci():
    check_virtio("pc")


def case_virtio_mmio():
    check_virtio("microvm", also_harmless=NO_PCI)


def case_virtio_i386():
    check_virtio("pc", arch="i386")


def sata_device(console, port):
    """The name of what is at a port; drivers look for it in their own time, and give names in any order."""
    place = f"/sys/devices/pci*/*/ata{port}/host*/target*/*/block/*"
    found = console.ask(f"n=0; while ! ls -d {place} > /dev/null 2>&1 && [ $n -lt 100 ]; do sleep 0.1; n=$((n + 1)); "
                        f"done; ls -d {place}")
    return found.strip().rpartition("/")[2]


def check_ahci(arch):
    """Two SATA disks, as a guest sees and uses them; the cloud kernel has no driver for them."""
    with tempfile.TemporaryDirectory() as folder:
        first = pathlib.Path(folder) / "first.img"
        second = pathlib.Path(folder) / "second.img"
        content = random.Random(1).randbytes(8 << 20)
        first.write_bytes(content)
        second.write_bytes(content[: 1 << 20])
        command = run_command(arch=arch, cpus=2, extra=(
            "--disk", f"{first},if=ahci,serial=disk-one", "--disk", f"{second},if=ahci,cache=directsync"))
        with Console(command) as console:
            console.prompt()
            one, two = sata_device(console, 1), sata_device(console, 2)
            log = check_messages(console)
            for pattern in (r"ata1: SATA link up 6\.0 Gbps", r"ata1\.00: ATA-\d+: Tessera disk",
                            r"ata1\.00: 16384 sectors, multi 16: LBA48 NCQ \(depth 32\)",
                            rf"\[{one}\] Write cache: enabled, read cache: enabled",
                            rf"\[{two}\] Write cache: disabled, read cache: enabled"):
                check(re.search(pattern, log), f"no {pattern!r} in dmesg")
            equal(console.ask(f"cat /sys/block/{one}/size /sys/block/{two}/size").split(), ["16384", "2048"], "sizes")
            equal(console.ask(f"cat /sys/block/{one}/queue/rotational").strip(), "0", "rotational")
            equal(console.ask(f"cat /sys/block/{one}/device/queue_depth").strip(), "32", "queue depth")
            page = console.ask(f"tail -c +5 /sys/block/{one}/device/vpd_pg80")
            check("disk-one" in page, f"serial number: {page!r}")
            equal(console.ask(f"md5sum < /dev/{one}").split()[0], hashlib.md5(content).hexdigest(), "what is read")
            console.ask(f"for n in 0 1 2 3; do yes tessera | dd of=/dev/{one} bs=64k seek=$((4 * n)) count=4 "
                        "iflag=fullblock oflag=direct conv=fsync,notrunc & done; wait")
            console.ask(f"blkdiscard -o 4194304 -l 1048576 /dev/{one}")
            console.ask(f"yes x | dd of=/dev/{two} bs=4k count=2 iflag=fullblock oflag=direct")
            check_messages(console)
            power_off(console)
        now = first.read_bytes()
        check(now[: 1 << 20] == (b"tessera\n" * (1 << 17)), "what was written is not in the file")
        check(now[4 << 20: 5 << 20] == bytes(1 << 20), "what was discarded is still there")
        check(now[1 << 20: 4 << 20] == content[1 << 20: 4 << 20], "what was not written has changed")
        check(second.read_bytes()[: 8 << 10] == b"x\n" * (4 << 10), "what was written is not in the second file")


def iso_image(name, content):
    """The least ISO 9660 image: one file in the root directory [ECMA-119]."""
    def both(value, size):
        return value.to_bytes(size, "little") + value.to_bytes(size, "big")

    def record(called, block, size, flags):
        data = bytes([0]) + both(block, 4) + both(size, 4) + bytes([126, 1, 1, 0, 0, 0, 0, flags, 0, 0]) + both(1, 2)
        data += bytes([len(called)]) + called + bytes(1 - len(called) % 2)
        return bytes([len(data) + 1]) + data

    def block(data):
        return data + bytes(-len(data) % 2048)

    blocks = 21 + (len(content) + 2047) // 2048
    path_table = bytes([1, 0]) + (20).to_bytes(4, "little") + bytes([1, 0, 0, 0])
    path_table_big = bytes([1, 0]) + (20).to_bytes(4, "big") + bytes([0, 1, 0, 0])
    root = record(b"\0", 20, 2048, 2)
    volume = (b"\1CD001\1\0" + b" " * 32 + b"TESSERA".ljust(32) + bytes(8) + both(blocks, 4) + bytes(32) + both(1, 2)
              + both(1, 2) + both(2048, 2) + both(len(path_table), 4) + (18).to_bytes(4, "little") + bytes(4)
              + (19).to_bytes(4, "big") + bytes(4) + root + b" " * 623 + (b"0" * 16 + b"\0") * 4 + b"\1")
    directory = root + record(b"\1", 20, 2048, 2) + record(name.encode() + b";1", 21, len(content), 0)
    return (bytes(16 * 2048) + block(volume) + block(b"\xffCD001\1") + block(path_table) + block(path_table_big)
            + block(directory) + block(content))


def check_cdrom(arch):
    """A disc and an empty drive; the disc is read as a whole and as a file system."""
    with tempfile.TemporaryDirectory() as folder:
        disc = pathlib.Path(folder) / "disc.iso"
        content = random.Random(2).randbytes(3_000_001)
        image = iso_image("FILE.BIN", content)
        disc.write_bytes(image)
        with Console(run_command(arch=arch, extra=("--cdrom", str(disc), "--cdrom", "none"))) as console:
            console.prompt()
            full, empty = sata_device(console, 1), sata_device(console, 2)
            log = check_messages(console)
            check("ata1.00: ATAPI: Tessera CD-ROM" in log, "no CD drive in dmesg")
            equal(console.ask(f"cat /sys/block/{full}/size").strip(), str(len(image) // 512), "size")
            equal(console.ask(f"md5sum < /dev/{full}").split()[0], hashlib.md5(image).hexdigest(), "what is read")
            console.ask("mkdir /tmp/cd")
            console.ask(f"mount -o ro /dev/{full} /tmp/cd")
            equal(console.ask("md5sum < /tmp/cd/file.bin").split()[0], hashlib.md5(content).hexdigest(), "the file")
            check("No medium found" in console.ask(f"dd if=/dev/{empty} of=/dev/null count=1 2>&1"), "a disc in sr1")
            check("Read-only file system" in console.ask("touch /tmp/cd/x 2>&1"), "the disc can be written")
            console.ask("umount /tmp/cd")
            check_messages(console)
            power_off(console)


def case_cdrom():
    check_cdrom("generic")


def case_cdrom_i386():
    check_cdrom("i386")


def case_ahci():
    check_ahci("generic")


def case_ahci_i386():
    check_ahci("i386")


def resident(process):
    """Bytes of the host's memory a process has."""
    with open(f"/proc/{process.pid}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def wait_for(what, true):
    deadline = time.monotonic() + 60
    while not true():
        check(time.monotonic() < deadline, what)
        time.sleep(0.2)


def balloon_pages(console):
    counts = dict(line.split() for line in console.ask("grep balloon_ /proc/vmstat").splitlines() if line.startswith("balloon_"))
    return int(counts["balloon_inflate"]) - int(counts["balloon_deflate"])


def case_balloon():
    """A guest gives back what it is asked for (Linux counts it out only if it cannot take it back), and what it has
    freed."""
    with Console(run_command(memory="512M", extra=("--balloon", "128M,deflate-on-oom=off"))) as console:
        console.prompt()
        check_messages(console)
        # To the end: pages that the balloon takes between those of the file would keep them from being given back.
        wait_for("the balloon is not as large as wanted", lambda: balloon_pages(console) == (128 << 20) // 4096)
        total = int(console.ask("grep MemTotal /proc/meminfo").split()[1]) << 10
        check(total < (400 << 20), f"the guest still has {total >> 20} MiB")
        before = resident(console.process)
        console.ask("dd if=/dev/zero of=/tmp/much bs=1M count=150")
        filled = resident(console.process)
        check(filled > before + (120 << 20), "the guest has used no memory")
        console.ask("rm /tmp/much")
        wait_for("the guest's free memory was not given back", lambda: resident(console.process) < before + (50 << 20))
        power_off(console)


def set_size(console, columns, rows):
    fcntl.ioctl(console.slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    console.signal(signal.SIGWINCH)


class Client:
    """A program of the host at a Unix socket."""

    def __init__(self, path, patience=60):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(patience)
        self.socket.connect(str(path))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data)

    def read(self, size):
        data = b""
        while len(data) < size:
            some = self.socket.recv(size - len(data))
            if not some:
                break
            data += some
        return data


def check_console(machine, also_harmless="(?!)"):
    """A virtio console as the terminal, and two ports that programs of the host reach."""
    content = random.Random(3).randbytes(1 << 20)
    with tempfile.TemporaryDirectory() as folder:
        agent, other = (pathlib.Path(folder) / name for name in ("agent", "other"))
        command = run_command(cmdline="console=hvc0", extra=(
            "--machine", machine, "--console", "virtio", "--port", f"name=org.tessera.agent,path={agent}",
            "--port", f"name=other,path={other}"))
        with Console(command, terminal=True) as console:
            set_size(console, 200, 50)
            console.prompt()
            equal(console.ask("tty").strip(), "/dev/hvc0", "terminal")
            # The driver is a module, which the kernel calls a mistake before it is loaded.
            check_messages(console, f"unable to open an initial console|{also_harmless}")
            equal(console.ask("stty size").split(), ["50", "200"], "size of the terminal")
            set_size(console, 210, 60)
            wait_for("the guest does not follow the terminal's size",
                     lambda: console.ask("stty size").split() == ["60", "210"])
            names = console.ask("cd /sys/class/virtio-ports; grep . */name; cd").split()
            ports = dict(reversed(line.split("/name:")) for line in names if ":" in line)
            equal(sorted(ports), ["org.tessera.agent", "other"], "names of the ports")
            console.ask(f"A=/dev/{ports['org.tessera.agent']}; B=/dev/{ports['other']}")
            with Client(agent) as client:
                client.send(b"hello guest\n")
                equal(console.ask("head -c 12 $A").strip(), "hello guest", "what the guest hears")
                console.ask("echo hello host > $A")
                equal(client.read(11), b"hello host\n", "what the host hears")
            # Nobody is there: what is written is lost, and the next program starts afresh.
            with Client(agent) as client:
                console.send("head -c 1048576 $A > /tmp/much; md5sum < /tmp/much\n")
                client.send(content)
                console.expect(hashlib.md5(content).hexdigest())
                console.prompt()
            with Client(other) as client:
                console.send("cat /tmp/much > $B; echo all is sent\n")
                time.sleep(1)  # a reader that takes its time holds the guest up, and nothing else
                equal(hashlib.md5(client.read(len(content))).digest(), hashlib.md5(content).digest(), "what came")
                console.expect("\nall is sent")
                console.prompt()
            power_off(console)
        check(not agent.exists(), "the socket is still there")


def vsock_initrd(folder):
    """The guest's initramfs with the modules for its sockets, and the program that uses them."""
    _, initrd = guest("amd64")
    modules = CACHE / "amd64" / "modules"
    files = {"vsock": cpio.folder(), "vsock/vsock": cpio.program(pathlib.Path(OPTIONS.vsock_guest).read_bytes())}
    for name in ("vsock", "vmw_vsock_virtio_transport_common", "vmw_vsock_virtio_transport"):
        (module,) = modules.rglob(f"{name}.ko")
        files[f"vsock/{name}.ko"] = cpio.program(module.read_bytes())
    path = folder / "initrd"
    path.write_bytes(cpio.overlay(pathlib.Path(initrd).read_bytes(), files))
    return path


def check_vsock(machine, also_harmless="(?!)"):
    """Sockets both ways, whole and half ends, and refusals."""
    content = random.Random(4).randbytes(3 << 20)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        path = folder / "sockets"
        kernel, _ = guest("amd64")
        command = [OPTIONS.tessera, "run", "--kernel", kernel, "--initrd", str(vsock_initrd(folder)), "--machine",
                   machine, "--cpus", "2", "--vsock", f"cid=42,path={path}"]
        with Console(command) as console:
            console.prompt()
            console.ask("cd /vsock; for m in vsock vmw_vsock_virtio_transport_common vmw_vsock_virtio_transport; "
                        "do insmod $m.ko; done")
            check_messages(console, also_harmless)
            # The host reaches the guest.
            with Client(path) as client:
                client.send(b"CONNECT 99\n")
                equal(client.read(1), b"", "an answer of a guest that does not listen")
            console.send("./vsock echo 99 3 &\n")
            console.expect("listening\n")
            for _ in range(2):
                with Client(path) as client:
                    client.send(b"CONNECT 99\n")
                    answer = client.read(3)
                    while not answer.endswith(b"\n"):
                        answer += client.read(1)
                    check(re.fullmatch(rb"OK \d+\n", answer), f"answer to CONNECT: {answer!r}")
                    sender = threading.Thread(target=lambda: (client.send(content),
                                                              client.socket.shutdown(socket.SHUT_WR)))
                    sender.start()
                    came = client.read(len(content))
                    sender.join()
                    check(came == content, f"{len(came)} bytes came back, and not those that were sent")
                    equal(client.read(1), b"", "what comes after the end")
                console.expect("served 2\n")
            # A program that goes away in the middle ends it for the guest.
            with Client(path) as client:
                client.send(b"CONNECT 99\n")
                client.read(4)
                client.send(content[:100000])
            console.expect("(echo: .*|served 2)\n")
            # The guest reaches the host.
            check("Connection reset" in console.ask("echo | ./vsock send 2 1234"), "nobody listens, and it connects")
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(f"{path}_1234")
                listener.listen()
                listener.settimeout(60)
                console.send("head -c 3000000 /dev/zero | tr '\\0' x | ./vsock send 2 1234; echo code $?\n")
                connection, _ = listener.accept()
                with connection:
                    connection.settimeout(60)
                    data = b""
                    while some := connection.recv(65536):
                        data += some
                    check(data == b"x" * 3000000, f"{len(data)} bytes came")
                    connection.sendall(b"thanks\n")
                console.expect("thanks\ncode 0\n")
            console.send("\n")
            console.prompt()
            check_messages(console, also_harmless)
            power_off(console)
        check(not path.exists(), "the socket is still there")


def case_vsock_pci():
    check_vsock("pc")


def case_vsock_mmio():
    check_vsock("microvm", also_harmless=NO_PCI)


def case_console_pci():
    check_console("pc")


def case_console_mmio():
    check_console("microvm", also_harmless=NO_PCI)


def case_serial_socket():
    """A serial port on a PCI card, at a Unix socket."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "serial"
        with Console(run_command(extra=("--serial", f"path={path}"))) as console:
            console.prompt()
            port = re.search(r"(ttyS[1-9]\d*) at I/O .* is a 16550A", console.ask("dmesg"))
            check(port, "the kernel has not found the card")
            with Client(path) as client:
                console.ask(f"stty -F /dev/{port[1]} raw -echo; exec 3<>/dev/{port[1]}; echo hello host >&3")
                equal(client.read(11), b"hello host\n", "what the host hears")
                client.send(b"hello guest\n")
                equal(console.ask("head -n 1 <&3").strip(), "hello guest", "what the guest hears")
            power_off(console)


def check_net(machine, also_harmless="(?!)", arch="amd64", card="", prepare=None, megabytes=8):
    """A card on the user-mode network: the host's files arrive whole, and a port of the host leads to the guest."""
    content = random.Random(2).randbytes(megabytes << 20)

    class Files(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Files)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = run_command(arch, extra=(
        "--machine", machine, "--net", f"user,host-loopback=on,mac=02:00:00:00:00:09{card}", "-p", f"{port}:7"))
    with Console(command) as console:
        console.prompt()
        if prepare is not None:
            prepare(console)
        check_messages(console, also_harmless)
        equal(console.ask("cat /sys/class/net/eth0/address").strip(), "02:00:00:00:00:09", "MAC")
        use_dhcp(console)
        digest_seen = console.ask(f"wget -q -O - http://10.0.2.2:{server.server_port}/ | md5sum").split()[0]
        equal(digest_seen, hashlib.md5(content).hexdigest(), "what arrived")
        console.ask("(echo from the guest | nc -l -p 7) > /tmp/got < /dev/null & sleep 1")
        with socket.create_connection(("127.0.0.1", port), timeout=30) as peer:
            peer.sendall(b"from the host\n")
            peer.shutdown(socket.SHUT_WR)
            answer = b""
            while part := peer.recv(100):
                answer += part
        equal(answer, b"from the guest\n", "through the port")
        equal(console.ask("wait; cat /tmp/got"), "from the host\n", "through the port")
        power_off(console)
    server.shutdown()


def helpers_of(console):
    """The processes that the command has started."""
    threads = pathlib.Path(f"/proc/{console.process.pid}/task")
    return [child for thread in threads.iterdir() for child in (thread / "children").read_text().split()]


# What the guest does with what DHCP says.
DHCP_SCRIPT = r"""#!/bin/sh
if [ "$1" = bound ]; then
    ip addr add "$ip/$mask" dev "$interface"
    ip route add default via "$router"
    echo "nameserver $dns" > /tmp/resolv
fi
"""


def use_dhcp(console):
    """Configures eth0 by busybox's DHCP client and reaches the gateway."""
    console.ask("cat > /tmp/dhcp << 'EOF'\n" + DHCP_SCRIPT + "EOF\nchmod +x /tmp/dhcp; ip link set eth0 up")
    said = console.ask("udhcpc -i eth0 -n -q -f -s /tmp/dhcp 2>&1")
    check("lease of 10.0.2.15 obtained from 10.0.2.2" in said, f"no lease: {said}")
    check("inet 10.0.2.15/24" in console.ask("ip addr show dev eth0"), "the address is not there")
    equal(console.ask("cat /tmp/resolv"), "nameserver 10.0.2.3\n", "the resolver")
    check("1 packets received" in console.ask("ping -c 1 10.0.2.2"), "the gateway does not answer")


def check_default_net(machine, also_harmless="(?!)"):
    """Without --net there is a card; its network's process is there once the guest sends something."""
    with Console(run_command(extra=("--machine", machine))) as console:
        console.prompt()
        equal(console.ask("cat /sys/class/net/eth0/address").strip(), "52:54:00:12:34:56", "MAC")
        equal(helpers_of(console), [], "processes before the network is used")
        use_dhcp(console)
        equal(len(helpers_of(console)), 1, "processes of the network")
        check_messages(console, also_harmless)
        power_off(console)
    with Console(run_command(extra=("--machine", machine, "--net", "none"))) as console:
        console.prompt()
        equal(console.ask("ls /sys/class/net").split(), ["lo"], "cards with --net none")
        power_off(console)


def case_net_default():
    check_default_net("pc")


def case_net_default_mmio():
    check_default_net("microvm", also_harmless=NO_PCI)


def case_net_pci():
    check_net("pc")


def case_net_mmio():
    check_net("microvm", also_harmless=NO_PCI)


def case_net_ne2000_pci():
    def named(console):
        check("RealTek RTL-8029" in console.ask("dmesg"), "another card than the RTL8029AS was found")

    check_net("pc", arch="i386", card=",model=ne2000-pci", prepare=named, megabytes=2)


def case_net_ne2000_isa():
    """The ISA card where it is said to be, by its driver's own looking."""
    def load(console):
        console.ask("insmod /lib/modules/8390p.ko; insmod /lib/modules/ne.ko io=0x300")
        check(re.search(r"NE2000 found at 0x300, using IRQ 5", console.ask("dmesg")), "the card was not found")

    # It looks for the interrupt by causing one, which Linux delivers once more when the driver asks for it; and it
    # prints the address as a line of its own.
    check_net("pc", also_harmless=r"interrupt from stopped card|^\[[ .0-9]+\] ([0-9a-f]{2}:){5}[0-9a-f]{2}$", arch="i386", card=",model=ne2000-isa", prepare=load,
              megabytes=2)


def case_i386():
    boot("i386", 1, word="i686")


def case_i386_smp():
    boot("i386", 2, word="i686")


def case_x86_64_v2():
    boot("amd64", 1, extra=["--cpu", "x86-64-v2"])


def case_large_memory():
    """RAM above 4 GiB; the host gives only what is touched."""
    with Console(run_command(memory="6G")) as console:
        console.prompt()
        total = int(console.ask("awk '/MemTotal/ { print $2 }' /proc/meminfo"))
        check(5_500_000 < total < 6_300_000, f"{total} KiB of 6 GiB")
        check_messages(console)
        power_off(console)


def case_reboot():
    """A reboot comes back on the same console, twice; the last thing is a power-off."""
    with Console(run_command()) as console:
        console.prompt()
        for _ in range(2):
            console.ask("touch /tmp/left-behind")
            restart(console)
            equal(console.ask("ls /tmp"), "", "files after the reboot")
            check(float(console.ask("cut -d' ' -f1 /proc/uptime")) < 200, "the uptime did not begin again")
        check_messages(console)
        power_off(console)


def case_reboot_smp():
    with Console(run_command(cpus=2)) as console:
        console.prompt()
        restart(console)
        equal(console.ask("nproc"), "2\n", "CPUs after the reboot")
        power_off(console)


def case_no_reboot():
    with Console(run_command(extra=["--no-reboot"])) as console:
        console.prompt()
        console.send("reboot\n")
        code, errors = console.end()
        equal(code, 6, "exit code of a reset")
        check("--no-reboot" in errors, f"no word about --no-reboot: {errors}")


def case_triple_fault():
    with Console(run_command(cmdline="console=ttyS0 reboot=triple", extra=["--no-reboot"])) as console:
        console.prompt()
        console.send("reboot\n")
        code, errors = console.end()
        equal(code, 5, "exit code of a triple fault")
        check("triple" in errors, f"no word about the triple fault: {errors}")


def case_terminal():
    """Keys, and a terminal as it was before."""
    with Console(run_command(), terminal=True) as console:
        console.expect("Ctrl-a x quits")
        check(not termios.tcgetattr(console.slave)[3] & termios.ICANON, "the terminal is not raw")
        console.prompt()
        console.hush()
        console.send("echo a'sleep'; sleep 1000\n")
        console.expect("asleep\n")
        console.send("\x03")  # the guest's, not ours
        console.prompt()
        console.send("\x01h")
        console.expect("send Ctrl-a to the guest")
        console.send("\x01x")
        code, errors = console.end()
        equal((code, errors), (7, ""), "exit code of Ctrl-a x")
        equal(termios.tcgetattr(console.slave), console.before, "the terminal's settings")


def case_statistics():
    """--stats at the end, Ctrl-a s at any time; on standard error."""
    with Console(run_command(extra=["--stats"], cpus=2), terminal=True) as console:
        console.prompt()
        console.send("\x01s")
        console.ask("true")
        console.send("\x01x")
        code, errors = console.end()
        equal(code, 7, "exit code")
        for pattern in (r"first instruction after [0-9.]+ ms", r"CPU 0 +CPU 1 +all",
                        r"instructions( +[0-9,]+){3}\r?\n", r"MIPS while it ran( +[0-9.]+){3}\r?\n",
                        r"chain rate( +[0-9.]+ %){3}\r?\n", r"page slot hit rate( +[0-9.]+ %){3}\r?\n",
                        r"TLB hit rate( +[0-9.]+ %){3}\r?\n",
                        r"exits: halted( +[0-9,]+){3}\r?\n"):
            equal(len(re.findall(pattern, errors)), 2, f"tables with {pattern!r} in {errors}")


def case_signal():
    with Console(run_command()) as console:
        console.expect("Linux version")
        console.signal()
        equal(console.end()[0], 7, "exit code after SIGTERM")


def case_paste():
    """Far more input than a FIFO holds: nothing is lost."""
    with Console(run_command()) as console:
        console.prompt()
        text = "".join(f"line {i} of a long text that arrives at once\n" for i in range(300))
        console.hush()
        console.send("stty -echo; cat > /tmp/pasted; stty echo\n")
        console.expect("stty echo\n")
        console.send(text + "\x04")
        console.prompt()
        equal(console.ask("wc -c < /tmp/pasted").strip(), str(len(text)), "bytes pasted")
        power_off(console)


def case_trace():
    lines = {
        "exec": r"cpu0 [0-9a-f]{4}:[0-9a-f]{16}  ([0-9a-f]{2} )+ +[a-z]",
        "int": r"cpu0 (exception|interrupt|software|nmi) +0x[0-9a-f]{2} error 0x[0-9a-f]+ at [0-9a-f]{4}:[0-9a-f]{16}",
        "io": r"(read |write) [0-9a-f]{4} 0x[0-9a-f]+ .+",
        "mmio": r"(read |write) [0-9a-f]{16} 0x[0-9a-f]+ .+",
        "msr": r"cpu0 (rd|wr)msr 0x[0-9a-f]{8} 0x[0-9a-f]{16}",
    }
    with tempfile.TemporaryDirectory() as folder:
        # Instructions alone for a moment: a boot has a thousand million of them.
        path = f"{folder}/exec"
        with Console(run_command(extra=["--trace", f"exec={path}"])) as console:
            limit = time.monotonic() + 100
            while time.monotonic() < limit and (not os.path.exists(path) or os.path.getsize(path) < 100_000):
                time.sleep(0.05)
            console.signal()
            equal(console.end()[0], 7, "exit code")
        rest = [name for name in lines if name != "exec"]
        extra = [word for name in rest for word in ("--trace", f"{name}={folder}/{name}")]
        with Console(run_command(extra=extra)) as console:
            console.prompt()
            power_off(console)
        for name, pattern in lines.items():
            with open(f"{folder}/{name}", encoding="utf-8") as file:
                first = file.readline()
            check(re.match(pattern, first), f"--trace {name}: not as documented: {first!r}")


def refused(kernel, code, words, extra=(), initrd=None):
    """The command refuses with this code, and its message holds all the words."""
    command = [OPTIONS.tessera, "run", "--kernel", str(kernel), *extra]
    if initrd is not None:
        command += ["--initrd", str(initrd)]
    result = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False)
    message = result.stderr.decode()
    equal(result.returncode, code, f"exit code of {' '.join(command)} ({message.strip()})")
    for word in words:
        check(word in message, f"no {word!r} in: {message}")


def case_refusals():
    """Files that cannot be used are refused with code 3 and a message that names them."""
    kernel, initrd = guest("amd64")
    image = pathlib.Path(kernel).read_bytes()
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)

        def made(name, data):
            (folder / name).write_bytes(data)
            return folder / name

        refused(folder / "nothing", 3, ["nothing", "no such file"])
        refused(folder, 3, ["directory"])
        refused(made("empty", b""), 3, ["empty"])
        refused(made("text", b"#!/bin/sh\n" * 1000), 3, ["text"])
        refused(made("random", random.Random(1).randbytes(100_000)), 3, ["random"])
        refused(made("compressed", gzip.compress(image[:100_000])), 3, ["compressed", "gzip"])
        for size in (1, 511, 600, 4096, 20_000, len(image) // 2):
            refused(made(f"cut-{size}", image[:size]), 3, [f"cut-{size}"])
        damaged = bytearray(image)
        damaged[0x202:0x206] = b"XXXX"
        refused(made("magic", bytes(damaged)), 3, ["magic"])
        damaged = bytearray(image)
        damaged[0x1f4:0x1f8] = b"\xff\xff\xff\x7f"  # syssize
        refused(made("absurd", bytes(damaged)), 3, ["absurd"])
        damaged = bytearray(image)
        damaged[len(image) // 2] ^= 0xff
        damaged[len(image) // 2 + 1 : len(image) // 2 + 5000] = bytes(4999)
        refused(made("rotten", bytes(damaged)), 3, ["rotten", "damaged"])
        refused(kernel, 3, ["initrd-missing"], initrd=folder / "initrd-missing")
        big = folder / "big"
        with open(big, "wb") as file:
            file.truncate(200 << 20)
        refused(kernel, 3, ["big"], extra=["--memory", "128M"], initrd=big)
        refused(kernel, 3, ["vmlinuz"], extra=["--memory", "16M"])
        refused(kernel, 3, ["vmlinuz"], extra=["--cmdline", "x" * 5000])
        refused(kernel, 3, ["nowhere"], extra=["--trace", "io=/nowhere/file"])
        if not os.path.exists("/dev/kvm"):
            refused(kernel, 4, ["no /dev/kvm", "--engine soft"], extra=["--engine", "kvm"])
        refused(kernel, 2, ["--engine kvm", "traces"], extra=["--engine", "kvm", "--trace", f"exec={folder}/exec"])
        refused(kernel, 2, ["--cpu host", "x86-64-v3"], extra=["--engine", "soft", "--cpu", "host"])
        refused(kernel, 2, ["--memory"], extra=["--memory", "many"])


def case_not_enough_host_memory():
    kernel, _ = guest("amd64")
    with open("/proc/meminfo", encoding="utf-8") as file:
        kib = int(next(line for line in file if line.startswith("MemTotal")).split()[1])
    if kib * 1024 >= 512 << 30:
        print("this host has more than the largest guest may have")
        return
    refused(kernel, 4, ["host memory"], extra=["--memory", "512G"])


SKIPPED = 77  # CMakeLists.txt tells ctest


def need_kvm():
    """Where KVM is no hardware a kernel takes half an hour."""
    report = subprocess.run([OPTIONS.tessera, "doctor"], capture_output=True, timeout=60, check=True).stdout.decode()
    found = next(line for line in report.splitlines() if line.startswith("KVM")).removeprefix("KVM").strip()
    if not found.startswith("hardware"):
        print(f"skipped: KVM here is {found}")
        sys.exit(SKIPPED)


def case_kvm():
    """By the host's KVM, with each place of the interrupt chips, on both machines."""
    need_kvm()
    for irqchip in ("kernel", "split", "user"):
        for cpus in (1, 2):
            boot("amd64", cpus, extra=["--engine", f"kvm,irqchip={irqchip}"])
    boot("amd64", 2, extra=["--engine", "kvm", "--machine", "microvm"])
    boot("amd64", 1, extra=["--engine", "kvm", "--cpu", "x86-64-v2"])
    boot("i386", 2, extra=["--engine", "kvm"], word="i686")
    boot("amd64", 1, extra=["--engine", "auto"])


def case_embed():
    kernel, initrd = guest("amd64")
    result = subprocess.run([OPTIONS.embed, kernel, initrd], stdin=subprocess.DEVNULL, capture_output=True, timeout=300,
                            check=False)
    equal(result.returncode, 0, f"exit code ({result.stderr.decode()})")
    check(re.fullmatch(r"kernel: 6\.[0-9.a-z-]+\r?\n", result.stdout.decode()), f"said {result.stdout!r}")


def run(names, *options):
    """The command line of a program of tests: cases are the functions among `names` called case_NAME. Sets OPTIONS."""
    global OPTIONS
    cases = {name[5:]: f for name, f in names.items() if name.startswith("case_")}
    parser = argparse.ArgumentParser()
    parser.add_argument("--tessera", required=True)
    for option in options:
        parser.add_argument(option)
    parser.add_argument("case", choices=cases)
    OPTIONS = parser.parse_args()
    begin = time.monotonic()
    try:
        cases[OPTIONS.case]()
    except Failure as failure:
        print(f"FAILED: {failure}", file=sys.stderr)
        return 1
    print(f"ok, {time.monotonic() - begin:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(run(globals(), "--embed", "--pci-serial", "--vsock-guest"))
