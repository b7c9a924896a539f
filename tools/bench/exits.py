"""tools/dev bench exits: what a guest pays for leaving its own code, under every engine that works here, in turn.

A small guest (bench/exits/exits.asm, started by PVH) does each thing many times and prints ticks of its time-stamp
counter, which are set against this host's clock. Rows are nanoseconds for each time, the median of nine batches; the rows
of wake-ups are how late the handler was, the median of 65. Exit code: 0 measured, 1 nothing could be measured or a guest
went wrong, 2 bad usage.
"""
import argparse
import math
import os
import re
import shutil
import statistics
import subprocess
import sys

import report
from engines import Failure, Guest

PATIENCE = 60  # seconds a guest may take
ROWS = {
    "loop": "the two instructions around each of the following",
    "cpuid": "CPUID",
    "rdtsc": "RDTSC",
    "rdmsr": "RDMSR of the default memory type",
    "wrmsr": "WRMSR of TSC_AUX",
    "hypercall": "a hypercall of KVM's interface that there is not",
    "cr3_write": "MOV CR3 with the value it has",
    "exception": "invalid opcode, and back",
    "int_instruction": "INT, and back",
    "port_out": "OUT to port 80h, where nobody is",
    "port_in_uart": "IN from the UART's line status",
    "port_out_uart": "OUT to the UART's scratch register",
    "port_in_pic": "IN from the 8259A's mask",
    "port_rep_outsb_64": "REP OUTSB of 64 bytes to port 80h",
    "mmio_read_ioapic": "read of the I/O APIC's version",
    "mmio_write_ioapic": "write of the I/O APIC's index",
    "mmio_read_hpet": "read of the HPET's counter",
    "mmio_write_hpet": "write of a comparator that is off",
    "apic_read": "read of the local APIC's version",
    "apic_write": "write of the local APIC's task priority",
    "virtio_kick": "a driver's word to a virtio device, which finds nothing to do",
    "virtio_kick_exit": "the same in 32 bits, which no doorbell takes",
    "virtio_request": "a byte of randomness, waited for awake",
    "virtio_request_exit": "the same, told in 32 bits",
    "self_ipi": "an interrupt to itself: ICR, handler, end of interrupt",
    "device_interrupt": "an interrupt of the UART: three port accesses, handler, end of interrupt",
    "timer_set": "setting the local APIC's timer",
    "timer_late": "how late the timer's handler begins, waiting awake",
    "hlt_wake": "the same, waiting in HLT",
    "deadline_set": "RDTSC and WRMSR of the TSC deadline",
    "deadline_late": "how late its handler begins, waiting awake",
    "hlt_wake_deadline": "the same, waiting in HLT",
    "ipi_running": "to the other processor and back, both awake",
    "ipi_halted": "the same, both in HLT meanwhile",
    "x2apic_self_ipi": "an interrupt to itself by MSRs: handler, end of interrupt",
}
SAMPLED = {"timer_late", "hlt_wake", "deadline_late", "hlt_wake_deadline"}


class Broken(Exception):
    """A guest that began and did not finish, or reported what cannot be."""


def tessera(engine):
    def command(options, append):
        return [options.tessera, "run", "--engine", engine, "--machine", options.machine, "--cpus", "2", "--memory", "128M",
                "--rng", "--no-reboot", "--kernel", options.guest, "--cmdline", append]
    return command


def qemu(*accelerator):
    def command(options, append):
        return ["qemu-system-x86_64", *accelerator, "-M", "q35", "-smp", "2", "-m", "128M", "-nodefaults",
                "-no-user-config", "-display", "none", "-serial", "stdio", "-no-reboot", "-kernel", options.guest,
                "-append", append]
    return command


# Who is measured, in the order of the table.
PEERS = {
    "kvm-kernel": tessera("kvm,irqchip=kernel"),
    "kvm-split": tessera("kvm,irqchip=split"),
    "kvm-user": tessera("kvm,irqchip=user"),
    "soft": tessera("soft,count=off"),
    "tcg": qemu("-accel", "tcg", "-cpu", "max"),
    "qemu-kvm": qemu("-accel", "kvm", "-cpu", "host"),
}
DEFAULT_PEERS = ["kvm-kernel", "kvm-split", "kvm-user", "soft", "tcg"]
RATIOS = [("soft", "tcg"), ("kvm-kernel", "soft"), ("kvm-kernel", "qemu-kvm")]


def parse(text):
    """Row -> (count, [ticks of each batch]), and the rows the machine cannot do."""
    rows, cannot = {}, []
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 4 and words[0] == "row" and all(word.isdigit() for word in words[2:]):
            rows[words[1]] = int(words[2]), [int(word) for word in words[3:]]
        elif len(words) == 2 and words[0] == "skip":
            cannot.append(words[1])
    return rows, cannot


def nanoseconds(rows, hz):
    """Row -> nanoseconds for each time."""
    return {name: statistics.median(ticks) / count / hz * 1e9 for name, (count, ticks) in rows.items() if count}


def run(command, patience=PATIENCE):
    """The rows of one guest in nanoseconds, the rows it cannot do, and the frequency of its counter. Failure: it did not begin."""
    with Guest(command, patience) as guest:
        begin, begin_at = guest.expect(r"exits begin ([0-9]+)\n")
        try:
            end, end_at = guest.expect(r"exits end ([0-9]+)\n")
        except Failure as failure:
            raise Broken(str(failure)) from failure
        hz = (int(end[1]) - int(begin[1])) / (end_at - begin_at)
        rows, cannot = parse(guest.text[begin.end():end.start()])
        guest.wait(3)
    missing = [name for name in ROWS if name not in rows and name not in cannot]
    if missing or hz <= 0:
        raise Broken(f"no word about {', '.join(missing) or 'time'}:\n{guest.text[-2000:]}")
    return nanoseconds(rows, hz), cannot, hz


def interpreted(options):
    """Whether this host's KVM interprets its guests: then hypercalls may never end."""
    try:
        said = subprocess.run([options.tessera, "doctor"], capture_output=True, text=True, timeout=20, check=False).stdout
    except OSError:
        return False
    return re.search(r"KVM.*not hardware", said) is not None


def why_not(failure):
    """The one line of a command that did not begin that says why."""
    said = [line.strip() for line in str(failure).splitlines()[1:]
            if line.strip() and not re.match(r"(ended|was not done) ", line)]
    complaints = [line for line in said if re.match(r"(tessera|qemu\S*): ", line)]
    return (complaints + said[::-1] + ["it said nothing"])[0]


def amount(nanos):
    return f"{nanos:,.0f}" if nanos >= 100 else f"{nanos:.1f}"


def table(results):
    peers = [peer for peer in PEERS if peer in results]
    pairs = [pair for pair in RATIOS if pair[0] in results and pair[1] in results]
    head = ["ns", *peers, *(f"{ours}/{theirs}" for ours, theirs in pairs)]
    lines = []
    for name in ROWS:
        if not any(name in rows for rows in results.values()):
            continue
        cells = [amount(results[peer][name]) if name in results[peer] else "-" for peer in peers]
        for ours, theirs in pairs:
            both = name in results[ours] and name in results[theirs] and results[theirs][name] > 0
            cells.append(report.times(results[ours][name] / results[theirs][name] if both else math.nan))
        lines.append([name, *cells])
    return head, lines


def parse_arguments(words):
    parser = argparse.ArgumentParser(prog="tools/dev bench exits", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", default=",".join(DEFAULT_PEERS), help="who is measured: " + ", ".join(PEERS))
    parser.add_argument("--ticks", type=int, default=1 << 25, help="how long a batch is to take at least (default: 2^25)")
    parser.add_argument("--machine", default="pc", choices=["pc", "microvm"], help="Tessera's machine")
    parser.add_argument("--markdown", action="store_true", help="the table for a document")
    parser.add_argument("--list", action="store_true", help="what the rows are")
    parser.add_argument("--tessera", default="build/release/src/app/tessera", help=argparse.SUPPRESS)
    parser.add_argument("--guest", default="build/release/bench/exits/exits.elf", help=argparse.SUPPRESS)
    options = parser.parse_args(words)
    options.peers = [peer for peer in options.peers.split(",") if peer]
    for peer in options.peers:
        if peer not in PEERS:
            parser.error(f"no peer {peer!r}; there are {', '.join(PEERS)}")
    return options


def main(words):
    options = parse_arguments(words)
    if options.list:
        print("\n".join(f"{name}\t{what}" for name, what in ROWS.items()))
        return 0
    results, status = {}, 0
    for peer in options.peers:
        no_hypercalls = " hypercalls=0" if "kvm" in peer and interpreted(options) else ""
        command = PEERS[peer](options, f"ticks={options.ticks}{no_hypercalls}")
        program = command[0]
        if not shutil.which(program) and not os.path.exists(program):
            print(f"skipped: {peer}: there is no {program}", flush=True)
            continue
        print(f"== {peer}", file=sys.stderr, flush=True)
        try:
            results[peer], cannot, hz = run(command)
        except Failure as failure:
            print(f"skipped: {peer}: {why_not(failure)}", flush=True)
            continue
        except Broken as broken:
            print(f"WRONG: {peer}: {broken}", flush=True)
            status = 1
            continue
        print(f"{peer}: time-stamp counter at {hz / 1e6:.0f} MHz" +
              (f", cannot do {', '.join(cannot)}" if cannot else ""))
    if not results:
        return 1
    print()
    print((report.markdown if options.markdown else report.plain)(*table(results)), end="")
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
