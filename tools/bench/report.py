"""Ratios, groups and tables of what was measured."""
import math

# Rows measured by the runner count time or memory: less is better.
LESS_IS_BETTER = {"boot_kernel", "boot_init", "boot_prompt", "first_instruction", "first_instruction_kernel", "memory",
                  "compile"}

# What is asked for against TCG: (title, rows, how the rows make one number, at least, aim).
GROUPS = [
    ("boot to the first line of init", ["boot_init"], "each", 1.7, 3),
    ("integer, memory and calls (geomean)", ["mark", "streq", "qsort", "mpi", "tree", "fib", "icall"], "geomean", 2.5, 4),
    ("ALU, pointer chase (each)", ["alu", "chase_1m", "chase_16m"], "each", 1.0, 1.1),
    ("scalar SSE2, SSE, AVX2+FMA, x87 (geomean)", ["nbody", "saxpy", "avx2_fma", "x87"], "geomean", 10, 20),
    ("memcpy 61 B, 4 KiB, 8 MiB (each)", ["memcpy_61", "memcpy_4k", "memcpy_8m"], "each", 5, 10),
    ("rep movsb 4 KiB", ["rep_movsb_4k"], "each", 50, 100),
    ("system call, page fault, fork (each)", ["syscall", "fault", "fork"], "each", 1.5, 3),
    ("pipe ping-pong", ["pingpong"], "each", 4, 10),
    ("memory beyond guest RAM at the prompt", ["memory"], "each", 1, 2),
    ("every other row (each)", ["switch", "simd_int", "spawn", "busy_1", "busy_2", "boot_prompt", "compile"], "each", 1.0, 1.0),
]
FIRST_INSTRUCTION_LIMIT = 0.020
PAIR_LEAST, PAIR_AIM = 1.9, 2.0


def better(name, ours, theirs):
    """How many times better `ours` is."""
    if ours <= 0 or theirs <= 0:
        return math.nan
    return theirs / ours if name in LESS_IS_BETTER else ours / theirs


def geomean(numbers):
    return math.exp(sum(math.log(n) for n in numbers) / len(numbers)) if numbers else math.nan


def ratios(results, ours, theirs):
    """Row -> how many times better `ours` is, for the rows both have."""
    both = [name for name in results.get(ours, {}) if name in results.get(theirs, {})]
    return {name: better(name, results[ours][name], results[theirs][name]) for name in both}


def groups(results):
    """(title, ratio to TCG or nan, at least, aim, note) for each group."""
    against = ratios(results, "tessera", "tcg")
    lines = []
    for title, names, how, least, aim in GROUPS:
        there = {name: against[name] for name in names if name in against}
        note = "" if len(there) == len(names) else "not all rows measured"
        if not there:
            continue
        if how == "geomean":
            value = geomean(list(there.values()))
        else:
            worst = min(there, key=there.get)
            value = there[worst]
            note = note or (f"worst: {worst}" if len(names) > 1 else "")
        lines.append((title, value, least, aim, note))
    ours = results.get("tessera", {})
    if "busy_1" in ours and "busy_2" in ours:
        note = "".join(f"; {peer} {r['busy_2'] / r['busy_1']:.2f}" for peer, r in results.items()
                       if peer != "tessera" and "busy_1" in r and "busy_2" in r)
        lines.append(("2 vCPUs against 1, independent work", ours["busy_2"] / ours["busy_1"], PAIR_LEAST, PAIR_AIM,
                      note.removeprefix("; ")))
    took = ours.get("first_instruction_kernel", ours.get("first_instruction"))
    if took is not None:
        lines.append((f"first instruction within {FIRST_INSTRUCTION_LIMIT * 1000:.0f} ms",
                      FIRST_INSTRUCTION_LIMIT / took, 1.0, 1.0, f"{took * 1000:.0f} ms"))
    return lines


def verdict(value, least, aim):
    if value >= aim:
        return "aim reached"
    return "yes" if value >= least else "NO"


def amount(value, unit):
    """A number people can read, with the unit."""
    if unit == "s":
        return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.2f} s"
    if unit == "byte":
        return f"{value / 1e6:.1f} MB"
    for factor, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= factor:
            return f"{value / factor:.3g} {prefix}{unit}/s" if unit == "byte/s" else f"{value / factor:.3g} {prefix}"
    return f"{value:.3g} "


def times(value):
    if math.isnan(value):
        return "-"
    return f"{value:.3g}x" if value < 1000 else f"{value:.0f}x"


def row_table(results, units):
    """The head and the lines of the table of all rows."""
    head = ["row", "unit", "native", "TCG", "Tessera", "Tessera/TCG", "Tessera/native"]
    to_tcg, to_native = ratios(results, "tessera", "tcg"), ratios(results, "tessera", "native")
    lines = []
    for name, unit in units.items():
        if not any(name in rows for rows in results.values()):
            continue
        cells = [cell(results.get(peer, {}).get(name), name, unit) for peer in ("native", "tcg", "tessera")]
        counted = unit if name in LESS_IS_BETTER else f"{unit}s/s"
        lines.append([name, counted, *cells, times(to_tcg.get(name, math.nan)), times(to_native.get(name, math.nan))])
    return head, lines


def cell(value, name, unit):
    if value is None:
        return "-"
    return amount(value, unit if name in LESS_IS_BETTER else "").strip()


def group_table(results):
    head = ["against TCG", "measured", "at least", "aim", "met", ""]
    lines = [[title, times(value), f"{least:g}x", f"{aim:g}x", verdict(value, least, aim), note]
             for title, value, least, aim, note in groups(results)]
    return head, lines


def plain(head, lines):
    widths = [max(len(line[i]) for line in [head, *lines]) for i in range(len(head))]
    text = [[c.ljust(w) if i == 0 or head[i] in ("unit", "met", "") else c.rjust(w)
             for i, (c, w) in enumerate(zip(line, widths))] for line in [head, *lines]]
    return "\n".join("  ".join(line).rstrip() for line in text) + "\n"


def markdown(head, lines):
    rule = ["---" if i == 0 or h in ("unit", "met", "") else "---:" for i, h in enumerate(head)]
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, rule, *lines]) + "\n"
