"""What the runner of `tools/dev bench tcg` makes of what it reads, without any guest."""
import io
import math
import os
import struct
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))
import cpio  # noqa: E402
import engines  # noqa: E402
import measure  # noqa: E402
import probe  # noqa: E402
import report  # noqa: E402
import tcg  # noqa: E402


class Rows(unittest.TestCase):
    def test_a_line_is_name_work_and_unit(self):
        self.assertEqual(measure.parse_rows("alu\t6.25e+08\titeration\nfork\t760\tprocess\n"),
                         {"alu": (6.25e8, "iteration"), "fork": (760.0, "process")})

    def test_a_wrong_answer_stops_everything(self):
        with self.assertRaises(measure.Wrong):
            measure.parse_rows("alu\t1\titeration\nx87\tWRONG\titeration\t0x1 instead of 0x2\n")

    def test_what_a_machine_cannot_do_is_left_out(self):
        self.assertEqual(measure.parse_rows("busy_2\tSKIPPED\tround\n"), {})

    def test_the_kernels_own_lines_are_no_rows(self):
        self.assertEqual(measure.parse_rows("[    1.000000] random: crng init done\n"), {})

    def test_garbage_is_named(self):
        with self.assertRaises(engines.Failure):
            measure.parse_rows("alu\tfast\titeration\n")


class Clock(unittest.TestCase):
    def test_a_right_clock_has_no_error(self):
        self.assertEqual(measure.clock_error(10.05, 10.0), 0.0)

    def test_a_slow_clock_is_noticed(self):
        self.assertAlmostEqual(measure.clock_error(7.5, 10.0), -0.25)


class Waiting(unittest.TestCase):
    # 10 characters before the first row, rows of 5 and 6 characters; the third mark is of something else.
    MARKS = [(10, 1.0, {"cpu": (0.5, 0.5)}), (15, 2.0, {"cpu": (1.0, 1.0)}), (18, 2.5, {"cpu": (1.5, 1.0)}),
             (21, 3.0, {"cpu": (1.9, 1.1)})]

    def test_each_row_has_its_own_part(self):
        parts = measure.waiting(self.MARKS, 10, "a\t1s\n" + "bb\t1s\n")
        self.assertEqual((parts["a"], round(parts["bb"], 6)), (0.5, 0.1))

    def test_the_first_row_of_all_counts_from_the_start_of_the_command(self):
        self.assertEqual(measure.waiting([(5, 2.0, {"cpu": (1.0, 1.0)})], 0, "a\t1s\n"), {"a": 0.5})

    def test_two_working_processors_both_count_and_threads_that_hardly_run_do_not(self):
        before = (1, 1.0, {"cpu0": (1.0, 0.0), "cpu1": (0.0, 0.0), "loop": (0.1, 0.0)})
        now = (2, 2.0, {"cpu0": (1.8, 0.2), "cpu1": (0.6, 0.4), "loop": (0.11, 0.9)})
        self.assertAlmostEqual(measure.waited_part(before, now), 0.3)

    def test_of_several_numbers_the_best_counts_and_the_median_when_they_are_corrected(self):
        for busy_host, expected in ((False, {"alu": 9.0, "boot_init": 1.0}), (True, {"alu": 2.0, "boot_init": 2.0})):
            collector = tcg.Collector(busy_host)
            for value in (1.0, 9.0, 2.0):
                collector.add("tcg", {"alu": value, "boot_init": value})
            self.assertEqual(collector.results(), {"tcg": expected})

    def test_work_per_second_rises_and_time_falls_without_it(self):
        self.assertEqual((tcg.corrected("alu", 100.0, 0.5), tcg.corrected("boot_init", 4.0, 0.5)), (200.0, 2.0))


SMAPS = """\
7f0000000000-7f0010000000 rw-s 00000000 00:01 1332                       /memfd:tessera-ram (deleted)
Size:             262144 kB
Rss:              100000 kB
Pss:              100000 kB
7f0020000000-7f0020100000 rw-s 00000000 00:01 1332                       /memfd:tessera-ram (deleted)
Pss:                 512 kB
7f0030000000-7f0030400000 r-xs 00000000 00:01 1333                       /memfd:code (deleted)
Pss:                2048 kB
7f0040000000-7f0040400000 rw-s 00000000 00:01 1333                       /memfd:code (deleted)
Pss:                2048 kB
555500000000-555500010000 rw-p 00000000 00:00 0
Pss:                  40 kB
"""


class Memory(unittest.TestCase):
    def test_guest_memory_does_not_count_and_code_counts_once(self):
        self.assertEqual(measure.beyond_guest_memory(SMAPS, 262144), 2 * 2048 + 40)

    def test_guest_memory_that_cannot_be_found_is_an_error(self):
        with self.assertRaises(engines.Failure):
            measure.beyond_guest_memory(SMAPS, 131072)


class Stats(unittest.TestCase):
    def test_the_first_instruction_is_found(self):
        self.assertEqual(measure.stats_first_instruction("blocks 12\nfirst instruction after 12.5 ms\n"), 0.0125)

    def test_without_stats_there_is_none(self):
        self.assertIsNone(measure.stats_first_instruction("tessera: ended\n"))


class Report(unittest.TestCase):
    RESULTS = {"tcg": {"alu": 100.0, "chase_1m": 100.0, "chase_16m": 100.0, "boot_init": 2.0},
               "tessera": {"alu": 200.0, "chase_1m": 50.0, "chase_16m": 150.0, "boot_init": 1.0, "busy_1": 10.0,
                           "busy_2": 19.0}}

    def test_more_work_is_better_and_less_time_is_better(self):
        ratios = report.ratios(self.RESULTS, "tessera", "tcg")
        self.assertEqual((ratios["alu"], ratios["boot_init"]), (2.0, 2.0))

    def test_each_row_of_a_group_must_reach_the_aim(self):
        line = next(line for line in report.groups(self.RESULTS) if line[0].startswith("ALU"))
        self.assertEqual((line[1], line[4]), (0.5, "worst: chase_1m"))

    def test_two_processors_are_compared_with_one(self):
        line = next(line for line in report.groups(self.RESULTS) if line[0].startswith("2 vCPUs"))
        self.assertEqual((line[1], report.verdict(*line[1:4])), (1.9, "yes"))

    def test_what_the_monitor_says_of_the_real_kernel_counts_more_than_the_probe(self):
        results = {"tessera": {"first_instruction": 0.010, "first_instruction_kernel": 0.040}}
        self.assertEqual([line[1] for line in report.groups(results)], [0.5])

    def test_rows_nobody_measured_have_no_line(self):
        _, lines = report.row_table(self.RESULTS, {"alu": "iteration", "fork": "fork"})
        self.assertEqual([line[0] for line in lines], ["alu"])

    def test_geomean(self):
        self.assertAlmostEqual(report.geomean([1.0, 100.0]), 10.0)
        self.assertTrue(math.isnan(report.geomean([])))

    def test_verdicts(self):
        self.assertEqual([report.verdict(value, 2, 4) for value in (1.9, 2.0, 4.0)], ["NO", "yes", "aim reached"])

    def test_markdown_has_a_rule_below_its_head(self):
        self.assertEqual(report.markdown(["row", "x"], [["a", "1"]]), "| row | x |\n| --- | ---: |\n| a | 1 |\n")


class Files(unittest.TestCase):
    def test_an_archive_follows_the_newc_format(self):
        file = io.BytesIO(cpio.overlay(b"x" * 100, {"init": cpio.program(b"hello")}))
        self.assertEqual(file.read(512), b"x" * 100 + bytes(412))
        head = file.read(110)
        fields = [int(head[6 + 8 * i:14 + 8 * i], 16) for i in range(13)]
        self.assertEqual((head[:6], fields[1], fields[6], fields[11]), (b"070701", 0o100755, 5, 5))
        self.assertEqual(file.read(10 + 8), b"init\0\0" + b"hello\0\0\0" + b"0707")

    def test_the_firmware_starts_sixteen_bytes_before_its_end(self):
        rom = probe.firmware()
        self.assertEqual((len(rom), rom[0xfff0:0xfff5]), (65536, b"\xba\xf8\x03\xb0!"))

    def test_the_probe_kernel_has_the_size_and_entry_asked_for(self):
        elf = probe.kernel(100000)
        self.assertEqual((len(elf), elf[:4], struct.unpack_from("<Q", elf, 24)[0]), (100000, b"\x7fELF", 0x100000))


if __name__ == "__main__":
    unittest.main()
