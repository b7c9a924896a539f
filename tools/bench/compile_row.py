"""The row "compile": seconds GCC's C compiler takes for a generated source of a thousand lines.

Thirty megabytes of code, of which little runs often: what short loops do not show. The compiler comes with
`tools/guests/fetch loads`; its output must be that of the same binary on the host.
"""
import hashlib
import os
import pathlib
import sys
import time

import cpio
from engines import COMPILE_BEGIN, COMPILE_END, COMPILE_INIT, Failure, Guest
from measure import PATIENCE, Wrong, waited_part

sys.path.append(str(pathlib.Path(os.path.realpath(__file__)).parents[2] / "tests" / "loads"))
import program  # noqa: E402

FUNCTIONS = 60
COMPILER = "usr/lib/gcc/x86_64-linux-gnu/12/cc1"
LIBRARIES = "lib/x86_64-linux-gnu"
LOADER = "lib64/ld-linux-x86-64.so.2"
ARGUMENTS = "-quiet -fpreprocessed -O2 program.c -o"
MEMORY_MIB = 512


class CompileRow:
    """The files for it, made once; `folder` is for what they are made of."""

    def __init__(self, guests, folder):
        self.root = pathlib.Path(guests).parent / "loads" / "root"
        self.folder = pathlib.Path(folder)
        self.source = program.write(FUNCTIONS).encode()
        (self.folder / "program.c").write_bytes(self.source)
        self.initrd = self.folder / "compile-initrd"
        files = {name: cpio.folder() for name in ("load", "lib", "lib64", LIBRARIES, *self.folders_of(COMPILER))}
        for path in [self.root / COMPILER, self.root / LOADER, *sorted((self.root / LIBRARIES).glob("*.so.*"))]:
            files[str(path.relative_to(self.root))] = cpio.program(path.read_bytes())
        files["load/program.c"] = cpio.program(self.source)
        files["load/compile"] = cpio.program(f"/{COMPILER} {ARGUMENTS} /tmp/program.s\n".encode())
        files["bench"] = cpio.program(COMPILE_INIT)
        self.initrd.write_bytes(cpio.overlay((pathlib.Path(guests) / "initrd").read_bytes(), files))
        self.expected = None

    @staticmethod
    def folders_of(name):
        return [str(folder) for folder in reversed(pathlib.PurePath(name).parents[:-1])]

    def native(self):
        """(seconds, the part of them it waited) on the host."""
        output = self.folder / "program.s"
        start = time.monotonic()
        command = [str(self.root / LOADER), "--library-path", str(self.root / LIBRARIES), str(self.root / COMPILER),
                   *ARGUMENTS.split(), str(output)]
        with Guest(command, PATIENCE, self.folder) as host:
            threads = host.watch()
        took = time.monotonic() - start
        if host.process.returncode != 0:
            raise Failure("the compiler fails on the host")
        return took, waited_part((0, 0.0, {}), (0, took, threads)) or 0.0

    def guest(self, machine, tsc_khz):
        """The same in a guest, by the host's clock."""
        cmdline = f"console=ttyS0 quiet tsc_early_khz={tsc_khz} tsc=reliable rdinit=/bench"
        with machine.with_initrd(str(self.initrd), MEMORY_MIB).guest(cmdline, 1, PATIENCE) as guest:
            _, begin = guest.expect(COMPILE_BEGIN)
            before = guest.marks[-1]
            end, finish = guest.expect(COMPILE_END)
            now = guest.marks[-1]
        if end[2] != "0" or end[3] != self.digest():
            raise Wrong(f"compile: {machine.name} ends with {end[2]} and {end[3][:16]}, the host with {self.digest()[:16]}")
        return finish - begin, waited_part(before, now) or 0.0

    def digest(self):
        """Of what the compiler writes on the host."""
        if self.expected is None:
            self.native()
            self.expected = hashlib.sha256((self.folder / "program.s").read_bytes()).hexdigest()
        return self.expected
