"""Real programs in the guest, whose answers are known: compilers compared with themselves on the host, and stress-ng.

usage: load_test.py --tessera PROGRAM [--cpus N] [--seconds S] CASE

A case is repeated until S seconds have passed (by default TESSERA_LOAD_SECONDS, or one round). TESSERA_RUN_OPTIONS holds
options for `tessera run`, as in "--engine soft,jit=off".
"""
import argparse
import hashlib
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(os.path.realpath(__file__)).parents[2]
sys.path[:0] = [str(ROOT / "tests" / "boot"), str(ROOT / "tools" / "bench")]
os.environ.setdefault("TESSERA_BOOT_TIMEOUT", "1200")  # seconds a guest may take for one answer
import cpio  # noqa: E402
import program  # noqa: E402
from console import Console, Failure, check, equal  # noqa: E402

CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME", os.path.expanduser("~/.cache"))) / "tessera" / "guests"
LOADS = CACHE / "loads" / "root"
LIBRARIES = "lib/x86_64-linux-gnu"
CC1 = "usr/lib/gcc/x86_64-linux-gnu/12/cc1"
SMALL, LARGE = 400, 60  # functions in the source for tcc and for cc1, which thinks more about each

# Stressors of stress-ng that check what they compute or that are hard for a translator (code written while it runs,
# signals, threads, page faults), and that a small guest without disk and network can run.
STRESSORS = """
    cpu matrix matrix-3d fp fp-error vecmath vecfp vecshuf vecwide nop rotate regs sparsematrix
    qsort heapsort mergesort radixsort shellsort bsearch hsearch lsearch tsearch tree skiplist list judy
    str wcs hash crypt zlib jpeg ipsec-mb
    memcpy memfd memrate memthrash mcontend cache l1cache cacheline icache flushcache prefetch stream lockbus misaligned
    vm vm-rw vm-addr vm-segv mmap mmapfork mmapfixed mmapmany munmap mremap malloc bigheap brk stack stackmmap bad-altstack
    fault userfaultfd madvise mprotect mincore msync shm shm-sysv remap revio pkey tlb-shootdown randlist
    atomic dekker peterson mutex futex sem sem-sysv rseq membarrier pthread clone fork vfork exec zombie wait switch yield
    spawn daemon session pipe pipeherd ring-pipe eventfd fifo poll epoll msg mq sock sockpair udp splice tee
    sigabrt sigchld sigfd sigfpe sigpending sigpipe sigq sigrt sigsegv sigsuspend sigtrap signal signest kill ptrace
    timer timerfd itimer clock nanosleep hrtimers alarm cyclic sleep context goto branch funccall funcret longjmp far-branch
    tsc rdrand x86cpuid x86syscall get getrandom sysinfo utime seek dup open close null zero full urandom env vdso
    priv-instr opcode seccomp usersyscall sysbadaddr
""".split()
GOOD = "successful run"
OPTIONS = None


def native(name, *arguments, cwd):
    """The same binary the guest runs, with the same libraries, on the host."""
    done = subprocess.run([LOADS / "lib64/ld-linux-x86-64.so.2", "--library-path", LOADS / LIBRARIES,
                           LOADS / name, *arguments], cwd=cwd, capture_output=True, check=False, timeout=300)
    check(done.returncode == 0, f"{name} fails on the host: {done.stderr.decode()}")
    return done.stdout


def files_of(names):
    """For the initramfs: `names` below the fetched root, all libraries, and the folders on the way."""
    paths = [LOADS / name for name in names] + sorted((LOADS / LIBRARIES).iterdir())
    paths.append(LOADS / "lib64/ld-linux-x86-64.so.2")
    files = {}
    for path in paths:
        inside = path.relative_to(LOADS)
        for folder in reversed(inside.parents[:-1]):
            files.setdefault(str(folder), cpio.folder())
        files[str(inside)] = cpio.program(path.read_bytes())
    return files


def boot(folder, files):
    """A console of a guest with `files` added to its initramfs."""
    check((CACHE / "amd64" / "vmlinuz").exists() and LOADS.exists(), "no guests: run tools/guests/fetch amd64 and loads")
    initrd = pathlib.Path(folder) / "initrd"
    initrd.write_bytes(cpio.overlay((CACHE / "amd64" / "initrd").read_bytes(), files))
    return Console([OPTIONS.tessera, "run", *os.environ.get("TESSERA_RUN_OPTIONS", "").split(), "--memory", "1G",
                    "--cpus", str(OPTIONS.cpus), "--kernel", str(CACHE / "amd64" / "vmlinuz"), "--initrd", str(initrd),
                    "--cmdline", "console=ttyS0 quiet"])


def repeat():
    """Counts rounds until the time is over; at least one."""
    end = time.monotonic() + OPTIONS.seconds
    number = 0
    while number == 0 or time.monotonic() < end:
        yield number
        number += 1
    print(f"{number} rounds")


def power_off(console):
    console.send("poweroff\n")
    equal(console.end(), (0, ""), "exit code and messages after poweroff")


def compile_case(compiler, functions, command, output):
    """`command` makes the same `output` in the guest, on all its processors at once, as on the host."""
    with tempfile.TemporaryDirectory(prefix="tessera-load-") as folder:
        (pathlib.Path(folder) / "program.c").write_text(program.write(functions), encoding="ascii")
        native(compiler, *command.split(), cwd=folder)
        expected = hashlib.sha256((pathlib.Path(folder) / output).read_bytes()).hexdigest()
        # A line of the console is 80 characters, so what is longer is a script.
        script = (f"for i in $(seq {OPTIONS.cpus}); do (mkdir -p /tmp/$i; cd /tmp/$i; cp /load/program.c .; "
                  f"/{compiler} {command} && sha256sum {output}; rm -f {output}) & done; wait\n")
        files = {**files_of([compiler]), "load": cpio.folder(), "load/compile": cpio.program(script.encode()),
                 "load/program.c": (0o100644, (pathlib.Path(folder) / "program.c").read_bytes())}
        with boot(folder, files) as console:
            console.prompt()
            for _ in repeat():
                said = console.ask("sh /load/compile")
                equal(re.findall(r"^([0-9a-f]{64}) ", said, re.MULTILINE), [expected] * OPTIONS.cpus,
                      f"digests of what the compiler wrote, which said {said!r}")
            power_off(console)


def tcc():
    """A small compiler on a large source: the machine code is the same."""
    compile_case("usr/bin/tcc", SMALL, "-nostdlib -c program.c -o program.o", "program.o")


def cc1():
    """GCC's C compiler proper, 30 MB of code: the assembly is the same."""
    compile_case(CC1, LARGE, "-quiet -fpreprocessed -O2 program.c -o program.s", "program.s")


def tcc_run():
    """Code that a compiler has written into its own memory and runs there prints the same checksum."""
    command = "-B{lib} -L{lib} -run program.c"
    with tempfile.TemporaryDirectory(prefix="tessera-load-") as folder:
        source = program.write(SMALL)
        (pathlib.Path(folder) / "program.c").write_text(source, encoding="ascii")
        expected = native("usr/bin/tcc", *command.format(lib=LOADS / LIBRARIES).split(), cwd=folder).decode()
        check(re.fullmatch(r"[0-9a-f]{16}\n", expected), f"on the host it prints {expected!r}")
        script = f"cd /load; tcc {command.format(lib='/' + LIBRARIES)}\n"
        files = {**files_of(["usr/bin/tcc"]), "load": cpio.folder(), "load/run": cpio.program(script.encode()),
                 "load/program.c": (0o100644, source.encode())}
        with boot(folder, files) as console:
            console.prompt()
            for _ in repeat():
                equal(console.ask("sh /load/run"), expected, "checksum")
            power_off(console)


def stress():
    """stress-ng finds nothing wrong; each stressor for two seconds on every processor."""
    with tempfile.TemporaryDirectory(prefix="tessera-load-") as folder:
        script = (f"cd /tmp; stress-ng --$1 {OPTIONS.cpus} --verify --timeout 2s --oomable > log 2>&1\n"
                  f"grep -E 'fail|error|skipped' log; grep -o '{GOOD}' log\n")
        files = {**files_of(["usr/bin/stress-ng"]), "load": cpio.folder(), "load/stress": cpio.program(script.encode())}
        with boot(folder, files) as console:
            console.prompt()
            known = set(re.findall(r"[a-z0-9-]+", console.ask("stress-ng --stressors")))
            chosen = OPTIONS.only.split(",") if OPTIONS.only else [name for name in STRESSORS if name in known]
            check(chosen, "stress-ng knows none of the stressors")
            for _ in repeat():
                for name in chosen:
                    run_stressor(console, name)
            power_off(console)


def run_stressor(console, name):
    said = console.ask(f"sh /load/stress {name}")
    skipped = "skipped" in said or "No stress workers invoked" in said  # exec, for one, refuses to be root
    print(f"{name}: {'skipped' if skipped else 'ok' if GOOD in said else 'FAILED'}", flush=True)
    check(skipped or GOOD in said, f"stress-ng --{name}:\n{said}")


CASES = {"tcc": tcc, "cc1": cc1, "tcc_run": tcc_run, "stress": stress}


def main():
    global OPTIONS
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tessera", required=True)
    parser.add_argument("--cpus", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=float(os.environ.get("TESSERA_LOAD_SECONDS", "0")))
    parser.add_argument("--only", default="", help="stressors, comma-separated")
    parser.add_argument("case", choices=sorted(CASES))
    OPTIONS = parser.parse_args()
    try:
        CASES[OPTIONS.case]()
    except Failure as failure:
        sys.exit(f"{OPTIONS.case}: {failure}")


if __name__ == "__main__":
    main()
