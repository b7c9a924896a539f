"""Prints the command that preprocesses FILE, from BUILD/compile_commands.json; fails if FILE is not compiled.

usage: compile_command.py BUILD FILE
"""
import json
import os
import shlex
import sys


def main() -> int:
    build, name = sys.argv[1], os.path.realpath(sys.argv[2])
    with open(os.path.join(build, "compile_commands.json"), encoding="utf-8") as file:
        for entry in json.load(file):
            if os.path.realpath(os.path.join(entry["directory"], entry["file"])) != name:
                continue
            words = shlex.split(entry["command"])
            words = words[next(i for i, word in enumerate(words) if "clang" in os.path.basename(word)):]
            out = words.index("-o")
            del words[out:out + 2]
            at = words.index("-c")
            words[at:at + 1] = ["-E", "-P", "-C"]  # no paths of this checkout, but the NOLINT comments
            print(f"cd {shlex.quote(entry['directory'])} && {shlex.join(words)}")
            return 0
    return 1


if __name__ == "__main__":
    sys.exit(main())
