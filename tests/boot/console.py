"""Runs `tessera run` and talks to the guest's console: expect a text, send a line, wait for the end."""
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time

# A loaded machine under a sanitizer is slow; a guest that hangs is noticed all the same.
PATIENCE = float(os.environ.get("TESSERA_BOOT_TIMEOUT", "240"))
PROMPT = "tessera# "


class Failure(Exception):
    """What the test saw is not what it should be."""


class Console:
    """One guest. With `terminal`, the command has a terminal of its own instead of pipes."""

    def __init__(self, command, terminal=False):
        self.text = ""  # everything the guest has said
        self.seen = 0  # up to here it has been looked at
        self.command = command
        self.master = None
        self.hushed = False
        if terminal:
            self.master, slave = pty.openpty()
            self.before = termios.tcgetattr(slave)
            self.slave = slave
            self.process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=subprocess.PIPE)
            self.out, self.into = self.master, self.master
        else:
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                            stderr=subprocess.PIPE)
            self.out, self.into = self.process.stdout.fileno(), self.process.stdin.fileno()

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for file in (self.process.stdin, self.process.stdout, self.process.stderr):
            if file is not None:
                file.close()
        if self.master is not None:
            os.close(self.master)
            os.close(self.slave)
        if kind is not None:
            sys.stderr.write("---- " + " ".join(self.command) + "\n" + self.text[-6000:] + "\n----\n")

    def read_more(self, deadline):
        """False when the guest's output has ended."""
        ready, _, _ = select.select([self.out], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            raise Failure("no answer within the time")
        try:
            data = os.read(self.out, 65536)
        except OSError:  # a terminal without a far end
            return False
        self.text += data.decode("utf-8", "replace").replace("\x1b[6n", "").replace("\r", "")
        return data != b""

    def expect(self, pattern, patience=PATIENCE):
        """Waits until `pattern`, a regular expression, comes after what was seen before; returns the match."""
        deadline = time.monotonic() + patience
        while True:
            match = re.compile(pattern).search(self.text, self.seen)
            if match:
                self.seen = match.end()
                return match
            try:
                more = self.read_more(deadline)
            except Failure as failure:
                raise Failure(f"waited for {pattern!r}: {failure}") from None
            if not more:
                raise Failure(f"the output ended before {pattern!r}; stderr: {self.errors()}")

    def send(self, text):
        data = text.encode()
        while data:
            data = data[os.write(self.into, data):]

    def prompt(self):
        self.expect(re.escape(PROMPT))

    def hush(self):
        """At the prompt: the kernel's messages, which come at any time, stay out of what is read from now on."""
        if not self.hushed:
            self.hushed = True
            self.send("dmesg -n 1\n")
            self.prompt()

    def ask(self, line):
        """Sends a command to the shell at its prompt, and returns what it prints."""
        self.hush()
        # The mark is spelled differently in the echo of the command line.
        self.send(f"{line}; echo 'END'OF'ANSWER'\n")
        begin = self.expect(r"OF'ANSWER'\n").end()
        end = self.expect(r"ENDOFANSWER\n").start()
        self.prompt()
        return self.text[begin:end]

    def errors(self):
        return self.process.stderr.read().decode("utf-8", "replace")

    def end(self, patience=60.0):
        """Waits for the command to end; returns its exit code and what it wrote to standard error."""
        deadline = time.monotonic() + patience
        while self.process.poll() is None:
            ready, _, _ = select.select([self.out], [], [], 0.1)
            if ready and not self.read_more(deadline):
                break
            if time.monotonic() > deadline:
                raise Failure("the command does not end")
        try:
            code = self.process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise Failure("the command does not end") from None
        return code, self.errors()

    def signal(self, number=signal.SIGTERM):
        self.process.send_signal(number)


def check(condition, what):
    if not condition:
        raise Failure(what)


def equal(seen, expected, what):
    check(seen == expected, f"{what}: {seen!r} instead of {expected!r}")
