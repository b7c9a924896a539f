"""tools/dev bench disk|net|debian|idle: disks and networks of a guest under QEMU's TCG and under Tessera, and of the host, in turn.

Same kernel, initramfs and static program (bench/io) for all. The best of all repeats counts. Exit code: 0 measured, 1 a guest
failed or gave a wrong answer, 2 bad usage.

disk    virtio-blk on a raw file and on a qcow2 image, and AHCI on a raw file, all in the page cache of the host
        (cache=writeback, a file system in memory) and past the page cache of the guest; native is the same program on such
        a file.
net     virtio-net on the user-mode network and on a TAP interface, against a server in the same network namespace, which is
        made for this; native is loopback.
debian  from the start of the command to the login of the Debian that `tools/dev demo --disk` boots.
idle    what part of a processor of the host a guest takes that waits at its prompt, with a disk, a network and all else.

--accesses counts how often a guest touches its device for each request, which would be the exits of a processor with help
for virtualization: in runs of their own, because they are traced.
"""
import argparse
import contextlib
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

import cpio
import measure
import report
import tcg as runner
from engines import PROMPT, Failure, Guest

INIT = b"""#!/bin/sh
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
/bin/busybox --install -s
. /etc/drivers
if [ "$1" = net ]; then
    ip link set lo up
    ip link set eth0 up
    ip address add $7 dev eth0
    set -- "$1" "$2" "$3" "$4" "$5" "$6"
    sleep 1
fi
read -r up rest < /proc/uptime
echo "iobench begins at $up"
iobench "$@"
code=$?
read -r up rest < /proc/uptime
echo "iobench ends at $up with $code"
poweroff -f
"""
BEGIN = r"iobench begins at ([0-9.]+)\n"
END = r"iobench ends at ([0-9.]+) with ([0-9]+)\n"
PATIENCE = 300  # seconds a guest may take
TAP, TAP_HOST, TAP_GUEST = "tessera-bench", "192.168.77.1", "192.168.77.2/24"
USER_HOST, USER_GUEST = "10.0.2.2", "10.0.2.15/24"  # of both monitors' user-mode networks
PEERS = ("native", "tcg", "tessera")


class Tcg:
    """QEMU without KVM, with the devices a user of a server's guest would take."""
    name = "tcg"

    def __init__(self, options):
        self.options = options

    def command(self, guest, cmdline, devices, memory="256M"):
        return ["qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-M", "q35", "-smp", str(self.options.cpus), "-m", memory,
                "-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio", "-no-reboot",
                "-kernel", guest.kernel, "-initrd", guest.initrd, "-append", cmdline, *devices]

    @staticmethod
    def disk(path, kind, controller="virtio", throw_away=False):
        device = "virtio-blk-pci" if controller == "virtio" else "ide-hd"
        return ["-drive", f"if=none,id=d,file={path},format={kind},cache=writeback,snapshot={'on' if throw_away else 'off'}",
                "-device", f"{device},drive=d"]

    @staticmethod
    def net(kind):
        backend = "user,id=n" if kind == "user" else f"tap,id=n,ifname={TAP},script=no,downscript=no,vhost=off"
        return ["-netdev", backend, "-device", "virtio-net-pci,netdev=n"]

    REST = ["-device", "virtio-rng-pci", "-device", "virtio-balloon-pci"]


class Tessera:
    name = "tessera"

    def __init__(self, options):
        self.options = options

    def command(self, guest, cmdline, devices, memory="256M"):
        no_net = [] if "--net" in devices else ["--net", "none"]
        return [self.options.tessera, "run", "--engine", self.options.engine, "--cpus", str(self.options.cpus),
                "--memory", memory, "--no-reboot", "--kernel", guest.kernel, "--initrd", guest.initrd, "--cmdline", cmdline,
                *no_net, *devices]

    @staticmethod
    def disk(path, kind, controller="virtio", throw_away=False):
        return ["--disk", f"{path},format={kind},if={controller}{',snapshot' if throw_away else ''}"]

    @staticmethod
    def net(kind):
        return ["--net", "user,host-loopback=on" if kind == "user" else f"tap={TAP}"]

    REST = ["--rng", "--balloon", "0"]


class Files:
    """A kernel, and its initramfs with iobench added."""

    def __init__(self, options, name, folder):
        source = pathlib.Path(options.guests) / name
        self.kernel = str(source / "vmlinuz")
        initrd = folder / f"initrd-{name}"
        initrd.write_bytes(cpio.overlay((source / "initrd").read_bytes(), {
            "iobench": cpio.program(INIT), "bin/iobench": cpio.program(pathlib.Path(options.iobench).read_bytes())}))
        self.initrd = str(initrd)


def say(text):
    print(f"== {text}", file=sys.stderr, flush=True)


def parse_rows(text):
    """Name -> (per second, unit, interrupts for each operation, operations)."""
    rows = {}
    for line in text.splitlines():
        words = line.strip().split("\t")
        if len(words) != 5 and words[1:2] != ["WRONG"]:
            continue
        if words[1] == "WRONG":
            raise measure.Wrong(line.strip())
        rows[words[0]] = float(words[1]), words[2], float(words[3]), int(words[4])
    return rows


def guest_rows(machine, options, files, devices, words):
    """The rows of `iobench WORDS` in a guest with these devices."""
    cmdline = f"console=ttyS0 quiet tsc_early_khz={options.tsc_khz} tsc=reliable rdinit=/iobench -- {' '.join(words)}"
    with Guest(machine.command(files, cmdline, devices), PATIENCE) as guest:
        begin, begin_at = guest.expect(BEGIN)
        text_from = guest.seen
        end, end_at = guest.expect(END)
        text = guest.text[text_from:end.start()]
        error = measure.clock_error(float(end[1]) - float(begin[1]), end_at - begin_at)
        if abs(error) > 0.02:
            say(f"{machine.name}: the guest's clock ran {error:+.1%} wrong; its numbers are off by as much")
        rows = parse_rows(text)
        if end[2] != "0":
            raise Failure(f"iobench ended with {end[2]} under {machine.name}: {text}")
        guest.wait(3)
        return rows


def native_rows(options, words):
    done = subprocess.run([options.iobench, *words], capture_output=True, text=True, timeout=PATIENCE, check=False)
    rows = parse_rows(done.stdout)
    if done.returncode != 0:
        raise Failure(f"iobench ended with {done.returncode} on the host: {done.stderr}")
    return rows


DISKS = (("raw", "raw", "virtio"), ("qcow2", "qcow2", "virtio"), ("ahci", "raw", "ahci"))
DISK_ROWS = ("seq_write", "seq_read", "read_4k_1", "read_4k_32", "write_4k_1", "write_4k_32")
NET_ROWS = ("tcp_send", "tcp_receive", "tcp_trip", "udp_send", "udp_echo")


def disk_rows(peer, machine, options, folder):
    rows = {}
    if machine is None:
        say(f"{peer}: file")
        path = folder / "native"
        path.write_bytes(b"")
        os.truncate(path, options.size << 20)
        native = native_rows(options, ["disk", str(path), "", str(options.seconds), "all"])
        path.unlink()
        return {f"{prefix}_{name}": value for prefix, _, _ in DISKS for name, value in native.items()}
    for prefix, kind, controller in DISKS:
        say(f"{peer}: {prefix}")
        path = folder / f"disk.{kind}"
        subprocess.run([options.tessera, "disk", "create", str(path), f"{options.size}M"], check=True)
        files = options.cloud if controller == "virtio" else options.generic
        words = ["disk", "/dev/vda" if controller == "virtio" else "/dev/sda", f"{prefix}_", str(options.seconds)]
        devices = machine.disk(path, kind, controller)
        rows.update(guest_rows(machine, options, files, devices, [*words, "all"]))
        if options.accesses and machine.name == "tessera":
            add_accesses(rows, f"{prefix}_", DISK_ROWS, folder,
                         lambda name, trace: guest_rows(machine, options, files, [*devices, *trace], [*words, name]))
        path.unlink()
    return rows


def add_accesses(rows, prefix, names, folder, run):
    """Adds to each row how often the guest accessed its device for an operation: in runs with this row alone, less what a
    run without any takes."""
    trace = folder / "trace"

    def count(name):
        say(f"accesses of {prefix}{name}")
        measured = run(name, ["--trace", f"mmio={trace}"])
        with open(trace, encoding="utf-8") as file:
            accesses = sum(1 for line in file if re.search(r"virtio|AHCI|ahci", line))
        trace.unlink()
        return accesses, measured

    before, _ = count("none")
    for name in names:
        accesses, measured = count(name)
        rows[prefix + name] = (*rows[prefix + name][:4], (accesses - before) / max(1, measured[prefix + name][3]))


@contextlib.contextmanager
def server(options, address):
    """`iobench serve` on the host; gives its port."""
    with subprocess.Popen([options.iobench, "serve", address], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process.stdout.readline().strip()
        finally:
            process.stdin.close()


def net_rows(peer, machine, options, folder):
    rows = {}
    for kind, bind, seen, guest in (("user", "127.0.0.1", USER_HOST, USER_GUEST), ("tap", TAP_HOST, TAP_HOST, TAP_GUEST)):
        say(f"{peer}: {kind}")
        with server(options, bind) as port:
            words = ["net", bind if machine is None else seen, port, f"{kind}_", str(options.seconds)]
            if machine is None:
                rows.update(native_rows(options, [*words, "all"]))
                continue
            devices = machine.net(kind)
            rows.update(guest_rows(machine, options, options.cloud, devices, [*words, "all", guest]))
            if options.accesses and machine.name == "tessera":
                add_accesses(rows, f"{kind}_", NET_ROWS, folder, lambda name, trace: guest_rows(
                    machine, options, options.cloud, [*devices, *trace], [*words, name, guest]))
    return rows


def debian_rows(peer, machine, options, _folder):
    if machine is None:
        return {}
    say(f"{peer}: Debian")
    disk = pathlib.Path(options.guests) / "disk" / "root.img"
    devices = [*machine.disk(disk, "raw", throw_away=True), *machine.net("user"), *machine.REST]
    with Guest(machine.command(options.cloud, "console=ttyS0 root=/dev/vda", devices, "1G"), PATIENCE) as guest:
        return {"login": (guest.expect("tessera login: ")[1], "s", 0.0, 0)}


def cpu_seconds(root):
    """Of a process and all its descendants."""
    times, parents = {}, {}
    for file in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            words = file.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except OSError:
            continue
        number = int(file.parent.name)
        parents[number] = int(words[1])
        times[number] = (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")
    total = 0.0
    for number, spent in times.items():
        above = number
        while above not in (0, 1, root):
            above = parents.get(above, 0)
        total += spent if above == root else 0.0
    return total


def idle_rows(peer, machine, options, folder):
    if machine is None:
        return {}
    say(f"{peer}: idle for {options.idle:g} s")
    path = folder / "idle.img"
    path.write_bytes(b"")
    os.truncate(path, 64 << 20)
    devices = [*machine.disk(path, "raw"), *machine.net("user"), *machine.REST]
    with Guest(machine.command(options.cloud, "console=ttyS0 quiet", devices), PATIENCE) as guest:
        guest.expect(PROMPT)
        time.sleep(5)
        before, begin = cpu_seconds(guest.process.pid), time.monotonic()
        time.sleep(options.idle)
        used = (cpu_seconds(guest.process.pid) - before) / (time.monotonic() - begin)
    return {"idle": (100 * used, "% of a processor", 0.0, 0)}


GROUPS = {"disk": disk_rows, "net": net_rows, "debian": debian_rows, "idle": idle_rows}
LESS_IS_BETTER = ("idle", "login")


def table(results):
    """Head and lines: a row for each thing measured."""
    head = ["row", "unit", "native", "TCG", "Tessera", "Tessera/TCG", "Tessera/native", "interrupts TCG", "interrupts Tessera"]
    counted = any(len(row) > 4 for row in results.get("tessera", {}).values())
    head += ["accesses Tessera"] if counted else []
    lines = []
    names = [name for peer in reversed(PEERS) for name in results.get(peer, {})]
    for name in dict.fromkeys(names):
        native, theirs, ours = (results.get(peer, {}).get(name) for peer in PEERS)
        unit = next(row[1] for row in (native, theirs, ours) if row)
        less = name in LESS_IS_BETTER

        def ratio(a, b):
            if not a or not b or not a[0] or not b[0]:
                return "-"
            return report.times(b[0] / a[0] if less else a[0] / b[0])

        def cell(row):
            if not row:
                return "-"
            return f"{row[0]:.2f}" if less else report.amount(row[0], "").strip()

        def interrupts(row):
            return f"{row[2]:.2g}" if row and not less else "-"

        lines.append([name, unit if less else f"{unit}s/s", cell(native), cell(theirs), cell(ours), ratio(ours, theirs),
                      ratio(ours, native), interrupts(theirs), interrupts(ours),
                      *([f"{ours[4]:.2g}" if ours and len(ours) > 4 else "-"] if counted else [])])
    return head, lines


def merge(best, rows):
    """Keeps the better of two measurements."""
    for name, row in rows.items():
        if name not in best or (row[0] < best[name][0] if name in LESS_IS_BETTER else row[0] > best[name][0]):
            # What was counted in a run of its own is kept.
            best[name] = row if len(row) > 4 or name not in best else (*row[:4], *best[name][4:])


def parse_arguments(words):
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME", os.path.expanduser("~/.cache"))) / "tessera"
    parser = argparse.ArgumentParser(prog="tools/dev bench", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("group", choices=GROUPS)
    parser.add_argument("--peers", default=",".join(PEERS), metavar="NAMES", help="of native,tcg,tessera")
    parser.add_argument("--repeat", type=int, default=2, metavar="N", help="run all N times, in turn")
    parser.add_argument("--seconds", type=float, default=1.0, help="a row's length")
    parser.add_argument("--size", type=int, default=256, metavar="MIB", help="the disk's")
    parser.add_argument("--idle", type=float, default=20.0, metavar="SECONDS", help="how long to look at an idle guest")
    parser.add_argument("--cpus", type=int, default=1, help="of the guest")
    parser.add_argument("--engine", default="soft,count=off", metavar="SPEC", help="for tessera")
    parser.add_argument("--accesses", action="store_true", help="count accesses to devices, in runs of their own")
    parser.add_argument("--markdown", action="store_true", help="print the table as docs/performance.md has it")
    parser.add_argument("--guests", default=str(cache / "guests"), help=argparse.SUPPRESS)
    parser.add_argument("--tessera", default="build/release/src/app/tessera", help=argparse.SUPPRESS)
    parser.add_argument("--iobench", default="build/release/bench/io/iobench", help=argparse.SUPPRESS)
    parser.add_argument("--guestbench", default="build/release/bench/tcg/guestbench", help=argparse.SUPPRESS)
    options = parser.parse_args(words)
    options.peers = options.peers.split(",")
    for peer in options.peers:
        if peer not in PEERS:
            parser.error(f"no peer {peer!r}; there are {', '.join(PEERS)}")
    options.machine = "pc"
    return options


def enter_namespace(words):
    """Goes on in a network namespace of our own, where TAP interfaces may be made."""
    if os.environ.get("TESSERA_BENCH_NAMESPACE"):
        for command in ("ip link set lo up", f"ip tuntap add {TAP} mode tap", f"ip address add {TAP_HOST}/24 dev {TAP}",
                        f"ip link set {TAP} up"):
            subprocess.run(command.split(), check=True)
        return
    os.environ["TESSERA_BENCH_NAMESPACE"] = "1"
    os.execvp("unshare", ["unshare", "--user", "--map-root-user", "--net", sys.executable, os.path.realpath(__file__), *words])


def main(words):
    options = parse_arguments(words)
    about = runner.describe(argparse.Namespace(**{**vars(options), "guests": str(pathlib.Path(options.guests) / "amd64")}))
    if options.group == "net":
        enter_namespace(words)
    options.tsc_khz = measure.tsc_khz(options.guestbench)
    machines = {"native": None, "tcg": Tcg(options), "tessera": Tessera(options)}
    results = {}
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="tessera-bench-", dir=memory) as name:
        folder = pathlib.Path(name)
        options.cloud = Files(options, "amd64", folder)
        if options.group == "disk":
            options.generic = Files(options, "generic", folder)
        for number in range(options.repeat):
            options.accesses = options.accesses and number == 0
            for peer in options.peers:
                merge(results.setdefault(peer, {}), GROUPS[options.group](peer, machines[peer], options, folder))
    for key, value in about.items():
        print(f"* {key}: {value}" if options.markdown else f"{key}: {value}")
    print()
    print((report.markdown if options.markdown else report.plain)(*table(results)), end="")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except measure.Wrong as wrong:
        sys.exit(f"wrong answer: {wrong}")
    except Failure as failure:
        sys.exit(f"bench: {failure}")
    except KeyboardInterrupt:
        sys.exit(130)
