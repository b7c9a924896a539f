"""What the runner of `tools/dev bench exits` makes of what it reads, and the guest under the software CPU.

usage: exits_test.py [TESSERA GUEST]
"""
import os
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))
import exits  # noqa: E402
from engines import Failure  # noqa: E402

PROGRAMS = sys.argv[1:3]
del sys.argv[1:3]


class Rows(unittest.TestCase):
    def test_a_row_is_name_count_and_the_ticks_of_each_batch(self):
        self.assertEqual(exits.parse("row cpuid 1000 50000 40000 60000\nskip hypercall\nnoise\nrow x y z\n"),
                         ({"cpuid": (1000, [50000, 40000, 60000])}, ["hypercall"]))

    def test_the_median_batch_counts(self):
        self.assertEqual(exits.nanoseconds({"cpuid": (1000, [50000, 40000, 900000])}, 2e9), {"cpuid": 25.0})

    def test_ratios_need_both(self):
        head, lines = exits.table({"soft": {"cpuid": 30.0, "hypercall": 200.0}, "tcg": {"cpuid": 10.0}})
        self.assertEqual(head, ["ns", "soft", "tcg", "soft/tcg"])
        self.assertEqual(lines, [["cpuid", "30.0", "10.0", "3x"], ["hypercall", "200", "-", "-"]])

    def test_who_does_not_begin_is_skipped_by_what_it_said(self):
        self.assertEqual(exits.why_not(Failure("tessera run\nended before 'x'; it said:\n\ntessera: no KVM here\nTry help.\n")),
                         "tessera: no KVM here")


@unittest.skipUnless(len(PROGRAMS) == 2, "no programs named")
class Guest(unittest.TestCase):
    def run_guest(self, machine):
        options = exits.parse_arguments(["--tessera", PROGRAMS[0], "--guest", PROGRAMS[1], "--machine", machine])
        return exits.run(exits.PEERS["soft"](options, "ticks=20000"), patience=100)

    def test_the_software_cpu_can_do_every_row(self):
        rows, cannot, _ = self.run_guest("pc")
        self.assertEqual(cannot, [])
        self.assertEqual(list(rows), list(exits.ROWS))
        self.assertTrue(all(rows[name] > 0 for name in rows if name not in exits.SAMPLED))

    def test_the_smaller_machine_lacks_the_hpet_and_wide_kicks_only(self):
        _, cannot, _ = self.run_guest("microvm")
        self.assertEqual(cannot, ["mmio_read_hpet", "mmio_write_hpet", "virtio_kick_exit", "virtio_request_exit"])


if __name__ == "__main__":
    unittest.main()
