"""What the runner of `tools/dev bench disk|net|idle` makes of what it reads, and iobench on the host itself.

usage: devices_test.py IOBENCH
"""
import os
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))
import devices  # noqa: E402
import measure  # noqa: E402

IOBENCH = sys.argv.pop(1) if len(sys.argv) > 1 else None


class Rows(unittest.TestCase):
    def test_a_line_is_name_work_unit_and_interrupts(self):
        self.assertEqual(devices.parse_rows("raw_read_4k_1\t1234.5\trequest\t0.98\t617\n[    1.0] the kernel\n"),
                         {"raw_read_4k_1": (1234.5, "request", 0.98, 617)})

    def test_a_wrong_answer_stops_everything(self):
        with self.assertRaises(measure.Wrong):
            devices.parse_rows("read_4k_1\tWRONG\tblock\t4096\n")

    def test_the_better_of_two_counts(self):
        best = {"a": (1.0, "x", 2.0, 1, 7.0), "idle": (1.0, "%", 0.0, 0)}
        devices.merge(best, {"a": (2.0, "x", 1.0, 2), "idle": (2.0, "%", 0.0, 0), "b": (3.0, "x", 0.0, 3)})
        self.assertEqual(best, {"a": (2.0, "x", 1.0, 2, 7.0), "idle": (1.0, "%", 0.0, 0), "b": (3.0, "x", 0.0, 3)})

    def test_ratios_are_ours_to_theirs_and_the_other_way_round_for_idle(self):
        _, lines = devices.table({"tcg": {"a": (10.0, "byte", 1.0, 9), "idle": (4.0, "%", 0.0, 0)},
                                  "tessera": {"a": (30.0, "byte", 0.5, 9), "idle": (2.0, "%", 0.0, 0)}})
        self.assertEqual([line[5] for line in lines], ["3x", "2x"])
        self.assertEqual(lines[0][6], "-")

    def test_the_time_of_children_counts(self):
        before = devices.cpu_seconds(os.getpid())
        with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as child:
            while devices.cpu_seconds(os.getpid()) < before + 0.1:
                pass
            child.kill()


@unittest.skipUnless(IOBENCH, "no program named")
class Program(unittest.TestCase):
    def test_disk_rows(self):
        with tempfile.NamedTemporaryFile(prefix="tessera-iobench-") as file:
            os.truncate(file.name, 4 << 20)
            done = subprocess.run([IOBENCH, "disk", file.name, "p_", "0.01", "all"], capture_output=True, text=True, check=True,
                                  timeout=50)
            rows = devices.parse_rows(done.stdout)
            self.assertEqual(list(rows), ["p_seq_write", "p_seq_read", "p_read_4k_1", "p_read_4k_32", "p_write_4k_1",
                                          "p_write_4k_32"])
            self.assertTrue(all(row[0] > 0 for row in rows.values()))

    def test_net_rows(self):
        with subprocess.Popen([IOBENCH, "serve", "127.0.0.1"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                              text=True) as server:
            port = server.stdout.readline().strip()
            done = subprocess.run([IOBENCH, "net", "127.0.0.1", port, "", "0.02", "all"], capture_output=True, text=True, check=True,
                                  timeout=50)
            server.stdin.close()
            self.assertEqual(list(devices.parse_rows(done.stdout)),
                             ["tcp_send", "tcp_receive", "tcp_trip", "udp_send", "udp_echo"])


if __name__ == "__main__":
    unittest.main()
