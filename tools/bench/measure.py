"""One measurement of each kind: the rows of guestbench, a boot, the memory at the prompt, the first instruction."""
import re
import subprocess

from engines import BEGIN, END, FIRST_LINE, PROMPT, Failure, Guest
from probe import MARK

PATIENCE = 900  # seconds a guest may take
PAIR_ROWS = ("busy_1", "busy_2")  # these need two processors; all others are measured with one
# Measured by the runner, not by guestbench; smaller is better.
BOOT_ROWS = {"boot_kernel": "s", "boot_init": "s", "boot_prompt": "s", "first_instruction": "s",
             "first_instruction_kernel": "s", "memory": "byte", "compile": "s"}
# What `tessera run --stats` says when it says it.
STATS_FIRST_INSTRUCTION = r"first instruction\D*([0-9.]+) *ms"


class Wrong(Exception):
    """A row's answer was not the known one: no number counts."""


def parse_rows(text):
    """Name -> (work per second, unit) from guestbench's output; rows the machine cannot do are left out."""
    rows = {}
    for line in text.splitlines():
        words = line.strip().split("\t")
        if len(words) < 3:
            continue
        if words[1] == "WRONG":
            raise Wrong(line.strip())
        if words[1] == "SKIPPED":
            continue
        try:
            rows[words[0]] = float(words[1]), words[2]
        except ValueError:
            raise Failure(f"not a line of guestbench: {line!r}") from None
    return rows


def clock_error(guest_seconds, host_seconds):
    """By how much the guest's clock ran wrong while it measured; within 0.1 s nobody can tell."""
    off = guest_seconds - host_seconds
    return off / host_seconds if host_seconds > 0 and abs(off) > 0.1 else 0.0


def waiting(marks, begin, text):
    """Row -> the part of its time in which it waited for a processor, from the marks of a guest from `begin` on."""
    parts, at = {}, begin
    before = mark_at(marks, begin)
    for line in text.splitlines(keepends=True):
        at += len(line)
        now = mark_at(marks, at)
        part = waited_part(before, now)
        if part is not None:
            parts[line.split("\t")[0]] = part
        before = now
    return parts


def waited_part(before, now):
    """Of the time in which virtual CPUs wanted to run between two marks, the part in which they did not.

    They are the threads that ran a good part of it; the others start up often and have little to do with the speed.
    """
    ran_sum, waited_sum = 0.0, 0.0
    for thread, (ran, waited) in now[2].items():
        ran_before, waited_before = before[2].get(thread, (0.0, 0.0))
        if ran - ran_before >= 0.1 * (now[1] - before[1]):
            ran_sum += ran - ran_before
            waited_sum += waited - waited_before
    return waited_sum / (ran_sum + waited_sum) if ran_sum > 0 else None


def mark_at(marks, length):
    """The first mark made when the text was at least so long; for no text, the start of the command."""
    start = (0, 0.0, {})
    return next((mark for mark in marks if mark[0] >= length), start) if length > 0 else start


def native_rows(program, arguments):
    """(rows, the parts of their time they waited) on the host."""
    with Guest([program, *arguments], PATIENCE) as host:
        try:
            while True:
                host.read_more("its end")
        except Failure:
            host.wait(5)
        rows = parse_rows(host.text)
        if host.process.returncode != 0:
            raise Failure(f"guestbench ended with {host.process.returncode} on the host: {host.said_on_error()}")
        return rows, waiting(host.marks, 0, host.text)


def guest_rows(machine, arguments, cpus, tsc_khz, warn):
    """(rows, the parts of their time they waited, messages); `warn` hears of a clock that runs wrong.

    The guest is told the frequency of the time stamp counter, which is the host's in all of them: on QEMU's microvm it
    would otherwise count timer interrupts, lose some of them, and find itself faster than it is.
    """
    cmdline = f"console=ttyS0 quiet tsc_early_khz={tsc_khz} tsc=reliable rdinit=/bench -- " + " ".join(arguments)
    with machine.guest(cmdline, cpus, PATIENCE) as guest:
        begin, begin_at = guest.expect(BEGIN)
        text_from = guest.seen
        end, end_at = guest.expect(END)
        text = guest.text[text_from:end.start()]
        rows = parse_rows(text)
        error = clock_error(float(end[1]) - float(begin[1]), end_at - begin_at)
        if abs(error) > 0.02:
            warn(f"{machine.name}: the guest's clock ran {error:+.1%} wrong; its numbers are off by as much")
        if end[2] != "0":
            raise Failure(f"guestbench ended with {end[2]} under {machine.name}")
        guest.wait(3)  # the power goes off, where the machine has a switch
        return rows, waiting(guest.marks, text_from, text), guest.said_on_error()


def tsc_khz(program):
    """The frequency of the host's time stamp counter."""
    return int(subprocess.run([program, "--tsc-khz"], capture_output=True, text=True, check=True, timeout=20).stdout)


def guest_boot(machine):
    """(rows, the parts of their time they waited, messages): seconds to the first line of the kernel, to init's, to
    the prompt, and bytes used there beyond guest memory.

    A monitor that says when the first instruction ran says it of this kernel, with all that unpacking it took.
    """
    with machine.guest("console=ttyS0 rdinit=/bench -- boot", 1, PATIENCE) as guest:
        measured, parts = {}, {}
        for name, pattern in (("boot_kernel", "Linux version"), ("boot_init", FIRST_LINE), ("boot_prompt", PROMPT)):
            _, measured[name] = guest.expect(pattern)
            # With one virtual CPU it is the thread that ran longest; it also sleeps while it boots.
            parts[name] = min(0.99, max(guest.threads().values(), default=(0, 0))[1] / measured[name])
        with open(f"/proc/{guest.process.pid}/smaps", encoding="ascii", errors="replace") as file:
            memory = beyond_guest_memory(file.read(), machine.memory_mib * 1024)
        guest.process.terminate()
        guest.wait(5)
        errors = guest.said_on_error()
    own = stats_first_instruction(errors)
    measured["memory"] = memory * 1024
    if own is not None:
        measured["first_instruction_kernel"] = own
    return measured, parts, errors


def beyond_guest_memory(smaps, ram_kib):
    """KiB a process has resident, without its mappings of the guest's memory.

    Proportional sizes: memory that is mapped twice (code that is written through one mapping and run through another)
    counts once. The guest's memory is the mapping of just its size, and any other mapping of the same file.
    """
    mappings = []
    for line in smaps.splitlines():
        head = re.match(r"([0-9a-f]+)-([0-9a-f]+) \S+ \S+ \S+ \S+ *(.*)", line)
        if head:
            size = (int(head[2], 16) - int(head[1], 16)) // 1024
            mappings.append({"size": size, "name": head[3], "pss": 0})
        elif line.startswith("Pss:"):
            mappings[-1]["pss"] = int(line.split()[1])
    ram = [mapping for mapping in mappings if mapping["size"] == ram_kib]
    if not ram:
        raise Failure(f"no mapping of {ram_kib} KiB: which is the guest's memory?")
    names = {mapping["name"] for mapping in ram if mapping["name"].startswith("/memfd:")}
    return sum(m["pss"] for m in mappings if m["size"] != ram_kib and m["name"] not in names)


def first_instruction(machine):
    """Seconds from the start of the command to what the guest's first instructions write to the serial port."""
    with machine.probe(30) as guest:
        return guest.expect(re.escape(MARK.decode()))[1]


def stats_first_instruction(errors):
    """The same as the monitor itself saw it, in seconds, if it said so."""
    match = re.search(STATS_FIRST_INSTRUCTION, errors)
    return float(match[1]) / 1000 if match else None
