"""780 cases of five schedules from an independent evaluator, and Table 5 of Zero Bubble, met by orders and timing."""

import csv
from pathlib import Path
from typing import Any

import pytest
import yaml

from orionbed.schedule.catalogue import ENTRIES, Wanted
from orionbed.schedule.timing import Hops, equal_times, peak_activations, time_order

ROOT = Path(__file__).resolve().parents[3]
VECTORS = ROOT / "tests" / "data" / "schedules" / "vectors.csv"
PUBLISHED = ROOT / "scenarios" / "published"
NAMES = {"interleaved_1f1b": "interleaved-1f1b", "zb_h1": "zb-h1", "zb_h2": "zb-h2"}


def vectors() -> list[dict[str, str]]:
    with VECTORS.open(encoding="utf-8") as file:
        return list(csv.DictReader(line for line in file if not line.startswith("#")))


def test_there_are_780() -> None:
    assert len(vectors()) == 780


@pytest.mark.parametrize("name", ["gpipe", "1f1b", "interleaved_1f1b", "zb_h1", "zb_h2"])
def test_orders_take_as_long_and_hold_as_much(name: str) -> None:
    for row in vectors():
        if row["schedule"] != name:
            continue
        stages, microbatches, chunks = (int(row[key]) for key in ("stages", "num_microbatches", "chunks"))
        times = equal_times(stages * chunks, *(float(row[key]) / chunks for key in ("T_F", "T_B", "T_W")))
        order = ENTRIES[NAMES.get(name, name)].make(Wanted(stages, microbatches, times, chunks=chunks))
        timed = time_order(order, times, Hops(float(row["latency"])))
        step_s = timed.span_s if name.startswith("zb") else timed.makespan_s
        assert step_s == pytest.approx(float(row["makespan"]), abs=1e-6), row
        assert timed.bubble(step_s) == pytest.approx(float(row["bubble_rate"]), abs=1e-6), row
        assert max(peak_activations(order)) == pytest.approx(float(row["peak_activation"]), abs=1e-6), row


def table_5() -> list[dict[str, Any]]:
    found = yaml.safe_load((PUBLISHED / "zero-bubble.yaml").read_text(encoding="utf-8"))
    return [dict(zip(found["columns"], row, strict=True)) for row in found["rows"]]


@pytest.mark.parametrize("row", table_5(), ids=lambda row: f"{row['model']}-{row['microbatches']}")
def test_bubble_rates_of_zero_bubbles_table_5(row: dict[str, Any]) -> None:
    stages, squares = row["stages"], 5.0 * row["heads"] * row["sequence"] / row["hidden"]
    times = equal_times(stages, *(row[key] / 1e3 for key in ("forward_ms", "input_ms", "weight_ms")))
    hops = Hops(row["hop_ms"] / 1e3)
    wanted = Wanted(stages, row["microbatches"], times, hops, kept_for_weights=32.0 / (34.0 + squares))
    for name in ("1f1b", "zb-h1", "zb-h2", "zb-1p", "zb-2p"):
        timed = time_order(ENTRIES[name].make(wanted), times, hops)
        bubble = row[f"bubble_{name.replace('-', '_')}"]
        assert timed.bubble(timed.span_s) == pytest.approx(bubble, abs=5.1e-5), name
