"""The labs' points, tables and sentences; the simulations behind them are tested with the simulator."""

from math import inf

import pytest

from orionbed import deadline_lab, merge_lab
from orionbed.scenario.merging import Merge

ROW = {
    "algorithm": "ring", "every_s": 900.0, "failure": 0.1, "duty": 0.9, "mfu_in_phase": 0.3, "mfu_with_merges": 0.27,
    "tokens_per_s": 7000.0, "bytes_up": 16.6e9, "bytes_down": 16.6e9, "delay_s": 427.0, "covered": None, "missed": 0.0,
    "failures": 1, "retries": 2, "refused": 3, "num_merges": 2,
}  # fmt: skip


def test_failures_are_tried_at_the_middle_interval_alone() -> None:
    found = merge_lab.points(["a", "b"], [60.0, 180.0, 120.0], [0.0, 0.5])
    assert found == [
        ("a", 60.0, 0.0), ("a", 180.0, 0.0), ("a", 120.0, 0.0), ("a", 120.0, 0.5),
        ("b", 60.0, 0.0), ("b", 180.0, 0.0), ("b", 120.0, 0.0), ("b", 120.0, 0.5),
    ]  # fmt: skip


def test_a_row_reads_well() -> None:
    heads, row = merge_lab.lines([ROW])
    assert heads.split()[:3] == ["algorithm", "every", "q"]
    assert row.split() == [
        "ring", "15", "min", "0.1", "90.0%", "30.0%", "27.0%", "7,000", "16.600", "16.600", "427", "s", "-", "0%", "2",
        "3",
    ]  # fmt: skip


def test_rules_are_compared_on_the_same_arrivals() -> None:
    rows = deadline_lab.compare("x", [[10.0, 20.0, 30.0, 400.0]], Merge(every=3600.0, quorum_every=1.0))
    by_setting = {(row["family"], row["setting"]): row for row in rows}
    everybody = by_setting["all", "everybody"]
    assert (everybody["wait_s"], everybody["cut_off"], everybody["waiting_gpu_s"]) == (400.0, 0.0, 1600.0)
    hasty = by_setting["fixed", "1 x median"]
    assert (hasty["wait_s"], hasty["cut_off"], hasty["wasted_gpu_s"]) == (25.0, 0.5, 2 * 3600.0)
    assert by_setting["relaxing-quorum", "as the scenario says"]["wait_s"] == 30.0
    assert everybody["best"]
    assert not any(
        one["best"] and other["wait_s"] <= one["wait_s"] and other["cut_off"] < one["cut_off"]
        for one in rows
        for other in rows
    )
    assert deadline_lab.lines(rows)[0].split()[0] == "arrivals"


def test_made_up_arrivals_are_the_same_for_the_same_seed() -> None:
    recorded = [[10.0, 20.0, 30.0]]
    found = deadline_lab.synthetic(recorded, 3)
    assert found == deadline_lab.synthetic(recorded, 3) != deadline_lab.synthetic(recorded, 4)
    never = [at_s for one in found["churny"] for at_s in one if at_s == inf]
    assert len(never) / (3 * deadline_lab.NUM_SYNTHETIC) == pytest.approx(deadline_lab.NEVER, abs=0.08)
