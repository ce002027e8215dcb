"""Sweeps that train: short loss curves, and trainings that diverge."""

import json
from math import inf, nan
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from orionbed.scenario import apply, load
from orionbed.sweeps.curves import binned
from orionbed.sweeps.measures import known
from orionbed.sweeps.running import Mode, Record, one_run
from orionbed.sweeps.store import RUNS, Store

TRAINED = Mode(baseline=False, draws=False, trains=True)
TINY: dict[str, Any] = {
    "pipeline.stages": 2,
    "pipeline.replicas": 1,
    "peers.sites": {"virginia": 2},
    "merge": "none",
    "emulator": {"width": 32, "tokens": 8, "vocab": 32},
    "training": {"microbatches": 12, "evaluation_microbatches": 1, "samples": 0},
}


def test_a_short_curve_has_every_loss_in_one_mean() -> None:
    curve = [(10.0 * number, float(number % 7)) for number in range(1, 131)]
    short = binned(curve, 60)
    assert len(short) == 60
    ends = [0, *(round(tokens / 10) for tokens, _ in short)]
    assert ends[-1] == 130
    for (_, mean), low, high in zip(short, ends[:-1], ends[1:], strict=True):
        assert mean == fmean(loss for _, loss in curve[low:high])
    assert binned(curve[:3], 60) == curve[:3]
    assert binned([]) == []


def test_what_is_no_number_is_none() -> None:
    assert binned([(1.0, 2.0), (2.0, inf), (3.0, nan)]) == [(1.0, 2.0), (2.0, None), (3.0, None)]


def test_a_training_that_diverges_is_kept(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    wild = {"training.optimizer": {"kind": "sgd", "learning_rate": 1e12}}
    record = one_run(apply(load("minimal"), TINY | wild), "x", 3, TRAINED)
    assert record.curve[-1][1] is None
    assert record.numbers["train.loss.last"] is None
    Store(tmp_path, "mine-sweep-000000", force=False).keep(record)
    assert Store(tmp_path, "mine-sweep-000000", force=False).done == {("x", 3): record}


def test_records_from_before_there_were_curves_are_still_done(tmp_path: Path) -> None:
    store = Store(tmp_path, "mine-sweep-000000", force=False)
    record = Record("x", 0, "", {"mfu.in_phase": 0.5})
    store.keep(record)
    head, line, _ = (tmp_path / RUNS).read_text().split("\n")
    old = {key: value for key, value in json.loads(line).items() if key != "curve"}
    (tmp_path / RUNS).write_text(f"{head}\n{json.dumps(old)}\n")
    assert Store(tmp_path, "mine-sweep-000000", force=False).done == {("x", 0): record}


def test_a_training_has_measures_that_a_simulation_has_not() -> None:
    pytest.importorskip("torch")
    found = known(apply(load("minimal"), TINY), trains=True)
    assert {"train.loss.last", "train.held_out.loss", "mfu.in_phase"} <= set(found)
