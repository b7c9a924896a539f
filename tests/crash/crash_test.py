"""Crashes of a machine with ext4 on its disk, raw or qcow2: nothing that a flush acknowledged is lost.

A guest writes files with fsync and says on its console what is durable. All that reached the disk's file is recorded, with
what was said in between. Then the machine is crashed at many points of that log: what came before the last flush is on the
disk, of what came after it any part is, torn at sectors. Of each such disk the image has to be free of corruption, ext4
consistent once its journal was replayed, and every file as it was said to be.

usage: crash_test.py --tessera PROGRAM --record PROGRAM --writer PROGRAM [--crashes N] [--seed N] raw|qcow2
"""
import argparse
import os
import pathlib
import random
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(os.path.realpath(__file__)).parents[2]
sys.path[:0] = [str(ROOT / "tests" / "boot"), str(ROOT / "tools" / "bench")]
import cpio  # noqa: E402
from console import Failure, check, equal  # noqa: E402

CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME", os.path.expanduser("~/.cache"))) / "tessera" / "guests" / "amd64"
SECTOR, SLOT_SECTORS = 512, 8
DISK_MIB = 48
ROUNDS = 30
WRITE, SYNC, HOLE, ZEROES, SIZE, SAID = range(6)
OPTIONS = None

INIT = f"""#!/bin/sh
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
/bin/busybox --install -s
. /etc/drivers
mkdir /mnt
mount -t ext4 /dev/vda /mnt && crash_writer /mnt {ROUNDS}
echo "writer ended with $?"
poweroff -n -f
"""


def run(*words, codes=(0,)):
    done = subprocess.run([str(word) for word in words], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          errors="replace", check=False, timeout=600)
    check(done.returncode in codes, f"{' '.join(map(str, words))} ended with {done.returncode}:\n"
          f"{done.stdout[-3000:]}{done.stderr[-3000:]}")
    return done.stdout


def record(folder):
    """The disk's file as it began, and the log: (kind, offset, length, bytes) for each event."""
    raw, image, log = folder / "begin.raw", folder / f"begin.{OPTIONS.format}", folder / "log"
    run("/sbin/mke2fs", "-q", "-t", "ext4", "-E", "lazy_itable_init=0,lazy_journal_init=0", raw, f"{DISK_MIB}M")
    if OPTIONS.format == "qcow2":
        run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, image)
    check((CACHE / "initrd").exists(), "no guest: run tools/guests/fetch amd64")
    initrd = folder / "initrd"
    initrd.write_bytes(cpio.overlay((CACHE / "initrd").read_bytes(), {
        "crash": cpio.program(INIT.encode()), "bin/crash_writer": cpio.program(pathlib.Path(OPTIONS.writer).read_bytes())}))
    run(OPTIONS.record, CACHE / "vmlinuz", initrd, OPTIONS.format, image, log)
    return image.read_bytes(), list(events(log.read_bytes()))


def events(data):
    at = 0
    while at < len(data):
        kind, offset, length = struct.unpack_from("<QQQ", data, at)
        at += 24
        content = b""
        if kind in (WRITE, SAID):
            content = data[at: at + length]
            at += length
        yield kind, offset, length, content


def apply(disk, event, sectors=None):
    """Does to the bytearray what the event did to the file; of a write only `sectors`, if given."""
    kind, offset, length, content = event
    if kind == SIZE:
        if offset < len(disk):
            del disk[offset:]
        disk.extend(bytes(offset - len(disk)))
        return
    if kind not in (WRITE, HOLE, ZEROES):
        return
    if kind != HOLE and len(disk) < offset + length:
        disk.extend(bytes(offset + length - len(disk)))
    if kind != WRITE:
        length = min(length, max(0, len(disk) - offset))
        disk[offset: offset + length] = bytes(length)
    elif sectors is None:
        disk[offset: offset + length] = content
    else:
        for n in sectors:
            part = content[n * SECTOR: (n + 1) * SECTOR]
            disk[offset + n * SECTOR: offset + n * SECTOR + len(part)] = part


class Promises:
    """What the guest may rely on, from what was said up to the crash."""

    def __init__(self):
        self.new, self.going, self.gone = {}, set(), set()
        self.append, self.current, self.place = {}, {}, {}

    def hear(self, line):
        words = line.split()
        if not words or words[0] not in ("new", "going", "gone", "append", "current", "place"):
            return
        worker, numbers = words[1], [int(word) for word in words[2:]]
        if words[0] == "new":
            self.new[worker, numbers[0]] = numbers[1]
        elif words[0] == "going":
            self.going.add((worker, numbers[0]))
        elif words[0] == "gone":
            self.gone.add((worker, numbers[0]))
        elif words[0] == "place":
            self.place[worker, numbers[0]] = numbers[1]
        else:
            getattr(self, words[0])[worker] = numbers[0]

    def count(self):
        return sum(map(len, (self.new, self.gone, self.append, self.current, self.place)))

    def verify(self, folder):
        for (worker, n), sectors in self.new.items():
            if (worker, n) not in self.going:
                whole(folder / worker / f"new-{n}", f"new-{n}", 0, sectors)
        for worker, n in self.gone:
            check(not (folder / worker / f"new-{n}").exists(), f"{worker}/new-{n} is back")
        for worker, sectors in self.append.items():
            content = read(folder / worker / "append")[: sectors * SECTOR]
            equal(len(content), sectors * SECTOR, f"length of {worker}/append")
            check(content == b"".join(sector("append", 0, i) for i in range(sectors)), f"{worker}/append is damaged")
        for worker, n in self.current.items():
            path = folder / worker / "current"
            version = int(read(path)[:SECTOR].split()[1])
            check(version >= n, f"{path} has version {version}, {n} was durable")
            whole(path, "current", version, 8 + version % 9)
        for (worker, slot), n in self.place.items():
            content = read(folder / worker / "place")
            for i in range(slot * SLOT_SECTORS, (slot + 1) * SLOT_SECTORS):
                found = content[i * SECTOR: (i + 1) * SECTOR]
                version = int(found.split()[1]) if found.startswith(b"place ") else -1
                check(version >= n, f"{worker}/place, sector {i}: version {version}, {n} was durable")
                check(found == sector("place", version, i), f"{worker}/place, sector {i} is damaged")


def read(path):
    check(path.exists(), f"{path.parent.name}/{path.name} is not there")
    return path.read_bytes()


def sector(name, version, number):
    return f"{name} {version} {number}\n".encode().ljust(SECTOR, b".")


def whole(path, name, version, sectors):
    check(read(path) == b"".join(sector(name, version, i) for i in range(sectors)), f"{path.parent.name}/{path.name} is damaged")


def lost_and_kept(pick, disk, unflushed, how):
    """Applies of what was not flushed: all of it, nothing, or any part."""
    for event in unflushed:
        if how == "all" or (how == "some" and pick.random() < 0.5):
            torn = how == "some" and event[0] == WRITE and event[2] > SECTOR and pick.random() < 0.3
            count = -(-event[2] // SECTOR)
            apply(disk, event, pick.sample(range(count), pick.randint(1, count)) if torn else None)


def judge(folder, disk, promises):
    """The disk after a crash is what its guest may expect."""
    raw, files = folder / "crashed.raw", folder / "files"
    if OPTIONS.format == "qcow2":
        image = folder / "crashed.qcow2"
        image.write_bytes(disk)
        run("qemu-img", "check", "-q", "-f", "qcow2", image, codes=(0, 3))  # 3: clusters lost, nothing corrupt
        run(OPTIONS.tessera, "disk", "check", "--progress", "none", image, codes=(0, 10))
        run("qemu-img", "convert", "-f", "qcow2", "-O", "raw", image, raw)
    else:
        raw.write_bytes(disk)
    run("/sbin/e2fsck", "-y", raw, codes=(0, 1))  # replays the journal, as a mount does
    run("/sbin/e2fsck", "-f", "-n", raw)
    shutil.rmtree(files, ignore_errors=True)
    files.mkdir()
    run("/sbin/debugfs", "-R", f"rdump / {files}", raw)
    promises.verify(files)


def choose(pick, log, count):
    """Points of the log, as (number of events before the crash, what becomes of what was not flushed)."""
    syncs = [i for i, event in enumerate(log) if event[0] == SYNC]
    every = [(i, "all") for i in syncs] + [(i + 1, "none") for i in syncs]
    changes = [i + 1 for i, event in enumerate(log) if event[0] not in (SYNC, SAID)]
    if count >= len(every) + len(changes):
        return sorted(every + [(i, "some") for i in changes])
    chosen = pick.sample(every, min(len(every), count // 3))
    return sorted(chosen + [(pick.choice(changes), "some") for _ in range(count - len(chosen))] + [(len(log), "all")])


def replay(folder, begin, log):
    pick = random.Random(OPTIONS.seed)
    points = choose(pick, log, OPTIONS.crashes)
    durable, promises, unflushed, told = bytearray(begin), Promises(), [], 0
    at = 0
    for point, how in points:
        for event in log[at:point]:
            if event[0] == SAID:
                promises.hear(event[3].decode("utf-8", "replace"))
            elif event[0] == SYNC:
                for one in unflushed:
                    apply(durable, one)
                unflushed = []
            else:
                unflushed.append(event)
        at = point
        disk = bytearray(durable)
        lost_and_kept(pick, disk, unflushed, how)
        try:
            judge(folder, disk, promises)
        except Failure as failure:
            raise Failure(f"crash after {point} of {len(log)} events, {how} of {len(unflushed)} unflushed, seed "
                          f"{OPTIONS.seed}: {failure}") from None
        told = promises.count()
    return len(points), told


def main():
    global OPTIONS
    parser = argparse.ArgumentParser()
    parser.add_argument("--tessera", required=True)
    parser.add_argument("--record", required=True)
    parser.add_argument("--writer", required=True)
    parser.add_argument("--crashes", type=int, default=int(os.environ.get("TESSERA_CRASHES", "60")))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("format", choices=("raw", "qcow2"))
    OPTIONS = parser.parse_args()
    begin = time.monotonic()
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    try:
        with tempfile.TemporaryDirectory(prefix="tessera-crash-", dir=memory) as name:
            folder = pathlib.Path(name)
            start, log = record(folder)
            recorded = time.monotonic() - begin
            said = "".join(event[3].decode("utf-8", "replace") for event in log if event[0] == SAID)
            check(re.search(r"writer ended with 0", said), f"the guest said:\n{said[-3000:]}")
            flushes = sum(1 for event in log if event[0] == SYNC)
            crashes, promises = replay(folder, start, log)
    except Failure as failure:
        print(f"FAILED: {failure}", file=sys.stderr)
        return 1
    print(f"ok: {len(log)} events with {flushes} flushes in {recorded:.1f} s; {crashes} crashes, {promises} promises at the "
          f"end, {time.monotonic() - begin:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
