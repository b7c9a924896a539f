"""The Debian that tools/guests/disk puts on a disk, booted by systemd to its login. Each case is one ctest case.

usage: debian_test.py --tessera PROGRAM CASE
"""
import hashlib
import http.server
import json
import os
import pathlib
import random
import re
import socket
import subprocess
import sys
import tempfile
import threading

sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))
import boot_test  # noqa: E402
from console import Console, check, equal  # noqa: E402

DISK = boot_test.CACHE / "disk" / "root.img"


def tool(*words):
    """Runs a command that has to end well; returns what it prints."""
    done = subprocess.run([str(word) for word in words], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          check=False, timeout=120)
    check(done.returncode == 0, f"{words} ended with {done.returncode}: {done.stdout[-1000:]}{done.stderr[-1000:]}")
    return done.stdout


class Server:
    """One file on a port of this host's loopback."""

    def __init__(self, content):
        class Files(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_):
                pass

        self.server = http.server.HTTPServer(("127.0.0.1", 0), Files)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.port = self.server.server_port


def debian(folder, cpus, extra=(), disk_settings="", kernel="amd64", root="/dev/vda"):
    """A guest with a disk of its own in `folder`, which begins as the one that was made."""
    check(DISK.exists(), f"no disk {DISK}: run tools/guests/disk")
    kernel, initrd = boot_test.guest(kernel)
    disk = pathlib.Path(folder) / "debian.qcow2"
    if not disk.exists():
        tool(boot_test.OPTIONS.tessera, "disk", "create", disk, "--backing-file", DISK, "--backing-format", "raw")
    return Console([boot_test.OPTIONS.tessera, "run", "--kernel", kernel, "--initrd", initrd, "--memory", "1G", "--cpus", str(cpus), "--engine", "soft",
                    "--cmdline", f"console=ttyS0 root={root}", "--disk", f"{disk},backing=on{disk_settings}", *extra])


def log_in(console):
    console.expect("tessera login: ")
    console.send("root\n")
    console.expect(re.escape("root@tessera:~# "))
    # The same shell for all tests: no colours, no marks around what is pasted.
    console.send("bind 'set enable-bracketed-paste off'; unset PROMPT_COMMAND; PS1='tesse''ra# '\n")
    console.prompt()
    console.send("stty columns 200\n")
    console.prompt()


def check_system(console):
    """Everything systemd wanted to start has started, and nobody complains."""
    equal(console.ask("systemctl is-system-running --wait").strip(), "running",
          "the system's state, with " + console.ask("systemctl --failed --no-legend --plain"))
    boot_test.check_messages(console, r"CONFIG_IMA_DISABLE_HTABLE")
    equal(console.ask("journalctl -b -q -p err --no-pager").strip(), "", "errors in the journal")


def check_network(console, card, server, content):
    console.ask("/usr/lib/systemd/systemd-networkd-wait-online --timeout 60")
    addresses = json.loads(console.ask(f"ip -json -4 address show dev {card}"))
    equal([(a["local"], a["prefixlen"]) for a in addresses[0]["addr_info"]], [("10.0.2.15", 24)], "address by DHCP")
    routes = json.loads(console.ask("ip -json route show default"))
    equal(routes[0]["gateway"], "10.0.2.2", "gateway by DHCP")
    check("10.0.2.3" in console.ask(f"resolvectl dns {card}"), "no resolver by DHCP")
    console.ask("ping -q -c 3 -i 0.2 10.0.2.2 > /dev/null || echo no echo")
    console.ask(f"/usr/lib/apt/apt-helper -qq download-file http://10.0.2.2:{server.port}/ /tmp/file")
    equal(console.ask("sha256sum < /tmp/file").split()[0], hashlib.sha256(content).hexdigest(), "what arrived by TCP")
    name = "deb.debian.org"
    try:
        socket.getaddrinfo(name, 80)
    except OSError:
        print(f"this host does not know {name}: no question to the resolver")
        return
    check(name in console.ask(f"getent hosts {name}"), f"no answer for {name}")


def check_hardware(console, card):
    """What the tools show is what was configured."""
    functions = dict(line.split(" ", 1) for line in console.ask("lspci -n").splitlines())
    ids = sorted(words.split()[1] for words in functions.values())
    equal([i for i in ids if i.startswith("1af4:")], ["1af4:1041", "1af4:1042", "1af4:1042", "1af4:1044"], "virtio functions")
    verbose = console.ask("lspci -vv")
    equal(verbose.count("MSI-X: Enable+"), 4, "functions that use MSI-X")
    check("<access denied>" not in verbose and "!!!" not in verbose, f"lspci: {verbose}")
    equal(verbose.count("Kernel driver in use: virtio-pci"), 4, "functions with a driver")
    disks = json.loads(console.ask("lsblk -J -b -d -o NAME,SIZE,SERIAL,RO,DISC-MAX,LOG-SEC,TRAN"))["blockdevices"]
    equal([(d["name"], d["size"], d["serial"], d["ro"]) for d in disks],
          [("vda", 4 << 30, "root-disk", False), ("vdb", 3 << 20, "second", True)], "disks")
    check(disks[0]["disc-max"] > 0, "the disk takes no discards")
    equal(console.ask("cat /sys/block/vda/queue/write_cache").strip(), "write back", "cache")
    console.ask("fstrim / || echo no trim")
    driver = console.ask(f"ethtool -i {card}")
    check("driver: virtio_net" in driver and "bus-info: 0000:00:0" in driver, f"ethtool -i: {driver}")
    features = console.ask(f"ethtool -k {card}")
    for feature in ("rx-checksumming", "tx-checksumming", "tcp-segmentation-offload", "generic-receive-offload"):
        check(re.search(rf"^{feature}: on", features, re.MULTILINE), f"{feature} is not on: {features}")
    check("Link detected: yes" in console.ask(f"ethtool {card}"), "no link")
    equal(console.ask(f"cat /sys/class/net/{card}/address").strip(), "52:54:00:01:02:03", "MAC")
    equal(console.ask("hdparm -r /dev/vdb | grep -o 'readonly .*'").strip(), "readonly      =  1 (on)", "hdparm")


def power_off(console):
    console.hushed = False
    console.send("poweroff\n")
    code, errors = console.end(120)
    equal((code, errors), (0, ""), "exit code and messages after poweroff")


def check_file_system(folder):
    """The disk's file system and the image around it are whole."""
    disk, raw = pathlib.Path(folder) / "debian.qcow2", pathlib.Path(folder) / "debian.raw"
    tool(boot_test.OPTIONS.tessera, "disk", "check", disk)
    tool(boot_test.OPTIONS.tessera, "disk", "convert", disk, raw, "--backing", "on")
    tool("/sbin/e2fsck", "-f", "-n", raw)


def boot(cpus, again):
    content = random.Random(3).randbytes(5 << 20)
    server = Server(content)
    with tempfile.TemporaryDirectory(prefix="tessera-debian-") as folder:
        second = pathlib.Path(folder) / "second.img"
        second.write_bytes(bytes(3 << 20))
        with debian(folder, cpus, ("--net", "user,host-loopback=on,mac=52:54:00:01:02:03", "--rng", "--disk",
                                   f"{second},ro,serial=second"), ",serial=root-disk") as console:
            log_in(console)
            print(re.search(r"This prompt came .*", console.text)[0])
            check_system(console)
            card = console.ask("cd /sys/class/net; echo en*; cd").strip()  # its name is made of its slot
            check_network(console, card, server, content)
            check_hardware(console, card)
            if again:
                console.ask("cp /tmp/file /srv/kept")
                console.hushed = False
                console.send("reboot\n")
                log_in(console)
                equal(console.ask("sha256sum < /srv/kept").split()[0], hashlib.sha256(content).hexdigest(), "a file kept")
                check_system(console)
            power_off(console)
        check_file_system(folder)


def case_debian():
    boot(1, again=False)


def case_debian_smp():
    boot(2, again=True)


def case_debian_ahci():
    """The same disk behind AHCI, for which the kernel of clouds has no driver."""
    with tempfile.TemporaryDirectory(prefix="tessera-debian-") as folder:
        second = pathlib.Path(folder) / "second.img"
        second.write_bytes(bytes(3 << 20))
        with debian(folder, 1, ("--disk", f"{second},if=ahci,serial=second"), ",if=ahci,serial=root-disk", "generic",
                    "LABEL=tessera-root") as console:  # which of two is sda is chance
            log_in(console)
            print(re.search(r"This prompt came .*", console.text)[0])
            equal(console.ask("systemctl is-system-running --wait").strip(), "running",
                  "the system's state, with " + console.ask("systemctl --failed --no-legend --plain"))
            # The disk has the other kernel's modules.
            boot_test.check_messages(console, r"CONFIG_IMA_DISABLE_HTABLE|Failed to find module 'autofs4'")
            disks = json.loads(console.ask("lsblk -J -b -d -o NAME,SIZE,SERIAL,TRAN"))["blockdevices"]
            equal(sorted((d["serial"], d["size"], d["tran"]) for d in disks if d["name"].startswith("sd")),
                  [("root-disk", 4 << 30, "sata"), ("second", 3 << 20, "sata")], "disks")
            disk = next(d["name"] for d in disks if d["serial"] == "root-disk")
            identity = console.ask(f"hdparm -I /dev/{disk}")
            for pattern in (r"Model Number: +\S", r"Serial Number: +root-disk", r"Queue depth: 32",
                            r"Native Command Queueing", r"\*\s+Write cache", r"\*\s+48-bit Address",
                            r"\*\s+Mandatory FLUSH_CACHE", r"device size with M = 1024\*1024: +4096 MBytes"):
                check(re.search(pattern, identity), f"hdparm -I has no {pattern!r}: {identity}")
            check("write-caching =  1 (on)" in console.ask(f"hdparm -W /dev/{disk}"), "hdparm -W")
            check("drive state is:  active/idle" in console.ask(f"hdparm -C /dev/{disk}"), "hdparm -C")
            power_off(console)
        check_file_system(folder)


if __name__ == "__main__":
    sys.exit(boot_test.run(globals()))
