"""tools/dev bench tcg: what a guest gets done natively, under QEMU's TCG and under Tessera, in turn.

Same kernel, initramfs and static benchmark program (bench/tcg) for all. The best of all repeats counts, with
--busy-host the median. Exit code: 0 measured, 1 a guest failed or gave a wrong answer, 2 bad usage.
"""
import argparse
import datetime
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile

import measure
import report
from compile_row import CompileRow
from engines import Failure, Files, Tcg, Tessera

PEERS = ("native", "tcg", "tessera")


def parse_arguments(words):
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME", os.path.expanduser("~/.cache"))) / "tessera"
    parser = argparse.ArgumentParser(prog="tools/dev bench tcg", description=__doc__.split("\n\n", 1)[0])
    parser.add_argument("--only", default="", metavar="NAMES", help="rows, comma-separated (--list names them)")
    parser.add_argument("--list", action="store_true", help="name all rows and end")
    parser.add_argument("--peers", default=",".join(PEERS), metavar="NAMES", help="of native,tcg,tessera")
    parser.add_argument("--baseline", metavar="FILE", help="take peers that are not run from this --json file")
    parser.add_argument("--repeat", type=int, default=1, metavar="N", help="run all N times, in turn")
    parser.add_argument("--boots", type=int, default=3, metavar="N", help="boots and starts for each repeat")
    parser.add_argument("--seconds", type=float, default=0.3, help="a measurement's length in the guest")
    parser.add_argument("--best-of", type=int, default=3, metavar="N", help="measurements of a row in one guest")
    parser.add_argument("--memory", type=int, default=256, metavar="MIB", help="the guest's memory")
    parser.add_argument("--engine", default="soft", metavar="SPEC", help="for tessera, as in soft,jit=off")
    parser.add_argument("--machine", default="pc", help="for tessera: pc or microvm")
    parser.add_argument("--busy-host", action="store_true",
                        help="take out the time in which others had the processor (implies --best-of 1; use --repeat)")
    parser.add_argument("--stats", action="store_true", help="show what tessera run --stats says")
    parser.add_argument("--json", metavar="FILE", help="write all that was measured")
    parser.add_argument("--markdown", action="store_true", help="print the tables as docs/performance.md has them")
    parser.add_argument("--guests", default=str(cache / "guests" / "amd64"), help=argparse.SUPPRESS)
    parser.add_argument("--tessera", default="build/release/src/app/tessera", help=argparse.SUPPRESS)
    parser.add_argument("--guestbench", default="build/release/bench/tcg/guestbench", help=argparse.SUPPRESS)
    options = parser.parse_args(words)
    options.peers = options.peers.split(",")
    for peer in options.peers:
        if peer not in PEERS:
            parser.error(f"no peer {peer!r}; there are {', '.join(PEERS)}")
    if options.repeat < 1 or options.boots < 1 or options.best_of < 1 or not 0 < options.seconds <= 60:
        parser.error("--repeat, --boots, --best-of and --seconds must be more than nothing")
    if options.busy_host:
        options.best_of = 1  # what was waited is known of a row's whole time, not of its best part
    return parser, options


def say(text):
    print(f"== {text}", file=sys.stderr, flush=True)


def all_units(options):
    """Row -> unit, in the order of the table."""
    listed = subprocess.run([options.guestbench, "--list"], capture_output=True, text=True, check=True).stdout
    return {**dict(line.split("\t") for line in listed.splitlines()), **measure.BOOT_ROWS}


def corrected(name, value, waited):
    """What the number had been without the part of the time spent waiting."""
    if name in report.LESS_IS_BETTER:
        return value * (1 - waited)
    return value / (1 - waited)


class Collector:
    """Keeps the numbers of each row and peer, and how much of the time went to others on the host.

    Of several numbers the best counts: what disturbs makes slower. Corrected numbers err to both sides, so of those it
    is the median.
    """

    def __init__(self, busy_host):
        self.numbers = {}
        self.busy_host = busy_host
        self.waited = {}

    def add_measured(self, peer, rows, waiting):
        """As add; `waiting` says of which row what part of its time somebody else had the processor."""
        self.waited.setdefault(peer, []).extend(waiting[name] for name in rows if name in waiting)
        if self.busy_host:
            rows = {name: corrected(name, value, waiting.get(name, 0.0)) for name, value in rows.items()}
        self.add(peer, rows)

    def waited_on_average(self):
        return {peer: sum(parts) / len(parts) for peer, parts in self.waited.items() if parts}

    def add(self, peer, rows):
        kept = self.numbers.setdefault(peer, {})
        for name, value in rows.items():
            kept.setdefault(name, []).append(value)

    def results(self):
        return {peer: {name: self.choose(name, values) for name, values in rows.items()}
                for peer, rows in self.numbers.items()}

    def choose(self, name, values):
        if self.busy_host:
            return statistics.median(values)
        return min(values) if name in report.LESS_IS_BETTER else max(values)


def run_rows(peer, machine, names, options, collector):
    """The rows guestbench measures: those of one processor in one guest, those of two in another."""
    single = [name for name in names if name not in measure.PAIR_ROWS and name not in measure.BOOT_ROWS]
    pair = [name for name in names if name in measure.PAIR_ROWS]
    for rows, cpus in ((single, 1), (pair, 2)):
        if not rows:
            continue
        arguments = ["--seconds", str(options.seconds), "--best-of", str(options.best_of), "--only", ",".join(rows)]
        say(f"{peer}: {len(rows)} rows, {cpus} CPU(s)")
        if machine is None:
            measured, waiting = measure.native_rows(options.guestbench, arguments)
        else:
            measured, waiting, errors = measure.guest_rows(machine, arguments, cpus, options.tsc_khz, say)
            show_stats(peer, errors, options)
        for name in set(rows) - set(measured):
            say(f"{peer}: cannot do {name}")
        collector.add_measured(peer, {name: value for name, (value, _) in measured.items()}, waiting)


def run_boots(peer, machine, names, options, collector):
    if any(name in names for name in measure.BOOT_ROWS if name not in ("first_instruction", "compile")):
        for number in range(options.boots):
            say(f"{peer}: boot {number + 1} of {options.boots}")
            measured, waiting, errors = measure.guest_boot(machine)
            collector.add_measured(peer, {name: value for name, value in measured.items() if name in names}, waiting)
            show_stats(peer, errors, options)
    if "first_instruction" in names:
        say(f"{peer}: start to the first instruction")
        for _ in range(3 * options.boots):
            collector.add(peer, {"first_instruction": measure.first_instruction(machine)})


def run_compile(peer, machine, compile_row, options, collector):
    say(f"{peer}: compile")
    took, waited = compile_row.native() if machine is None else compile_row.guest(machine, options.tsc_khz)
    collector.add_measured(peer, {"compile": took}, {"compile": waited})


def show_stats(peer, errors, options):
    if options.stats and peer == "tessera" and errors.strip():
        print(errors.rstrip(), file=sys.stderr, flush=True)


def first_line(command):
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except OSError:
        return "?"
    return (done.stdout.splitlines() or ["?"])[0]


def knows_stats(options):
    done = subprocess.run([options.tessera, "help", "run"], capture_output=True, text=True, timeout=20, check=False)
    return "--stats" in done.stdout


def describe(options):
    """The machine and the programs, as words."""
    model = "?"
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        text = file.read()
        for line in text.splitlines():
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    virtual = ", itself a virtual machine" if " hypervisor" in text else ""
    return {
        "date": datetime.date.today().isoformat(),
        "machine": f"{model}, {os.cpu_count()} CPUs{virtual}, Linux {platform.release()}",
        "qemu": first_line(["qemu-system-x86_64", "--version"]),
        "tessera": f"{first_line([options.tessera, 'version'])}, commit {first_line(['git', 'describe', '--always', '--dirty'])}, "
                   f"--engine {options.engine} --machine {options.machine}",
        "kernel": (pathlib.Path(options.guests) / "VERSION").read_text(encoding="utf-8").strip(),
        "load": f"{os.getloadavg()[0]:.1f} (average of one minute, before)",
    }


def print_report(results, units, about, options):
    table = report.markdown if options.markdown else report.plain
    for key, value in about.items():
        print(f"* {key}: {value}" if options.markdown else f"{key}: {value}")
    print()
    print(table(*report.row_table(results, units)))
    head, lines = report.group_table(results)
    if lines:
        print(table(head, lines), end="")


def main(words):
    parser, options = parse_arguments(words)
    units = all_units(options)
    if options.list:
        print("\n".join(f"{name}\t{unit}" for name, unit in units.items()))
        return 0
    names = [name for name in options.only.split(",") if name] or list(units)
    for name in names:
        if name not in units:
            parser.error(f"no row {name!r}; --list names them")
    units = {name: unit for name, unit in units.items() if name in names}
    about = describe(options)
    options.tsc_khz = measure.tsc_khz(options.guestbench)
    collector = Collector(options.busy_host)
    if options.baseline:
        with open(options.baseline, encoding="utf-8") as file:
            for peer, rows in json.load(file)["results"].items():
                if peer not in options.peers:
                    collector.add(peer, {name: value for name, value in rows.items() if name in units})
    with tempfile.TemporaryDirectory(prefix="tessera-bench-") as folder:
        files = Files(options.guests, options.guestbench, folder)
        compile_row = CompileRow(options.guests, folder) if "compile" in names else None
        extra = ["--stats"] if knows_stats(options) else []
        machines = {"native": None, "tcg": Tcg(files, options.memory),
                    "tessera": Tessera(files, options.memory, options.tessera, options.engine, options.machine, extra)}
        for number in range(options.repeat):
            if options.repeat > 1:
                say(f"round {number + 1} of {options.repeat}")
            for peer in options.peers:
                run_rows(peer, machines[peer], names, options, collector)
                if compile_row is not None:
                    run_compile(peer, machines[peer], compile_row, options, collector)
                if machines[peer] is not None:
                    run_boots(peer, machines[peer], names, options, collector)
    waited = collector.waited_on_average()
    if waited:
        about["waited for a processor"] = ", ".join(f"{peer} {part:.0%}" for peer, part in waited.items()) + (
            "; taken out" if options.busy_host else "; not taken out")
    if not options.busy_host and any(part > 0.1 for part in waited.values()):
        say("this host is busy with something else; --busy-host takes that out of the numbers")
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump({"about": about, "units": units, "results": collector.results()}, file, indent=1)
            file.write("\n")
    print_report(collector.results(), units, about, options)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except measure.Wrong as wrong:
        sys.exit(f"wrong answer: {wrong}")
    except Failure as failure:
        sys.exit(f"bench tcg: {failure}")
    except KeyboardInterrupt:
        sys.exit(130)
