"""Simulated schedules, played: without staleness the model learns what the plain one does from the same steps."""

from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from orionbed import backends
from orionbed.learning.learning import Learning
from orionbed.learning.material import material_of
from orionbed.learning.planning import plan_training
from orionbed.scenario import apply, load
from orionbed.script import Line
from orionbed.training.serial import TOLERANCES, train_serially
from orionbed.training.threads import with_threads

COMMON: dict[str, Any] = {
    "pipeline.stages": 2,
    "pipeline.replicas": 1,
    "peers.sites": {"virginia": 2},
    "merge": "none",
    "churn": "none",
    "uncertain": {},
    "report": {"uplinks": []},
    "emulator": {"width": 32, "tokens": 8, "sequences": 2, "vocab": 32, "layers": 4, "dtype": "float64"},
    "training": {"microbatches": 12, "optimizer": {"learning_rate": 1e-2}, "evaluation_microbatches": 1, "samples": 0},
}
SYNC = {
    "pipeline.schedule": {"kind": "1f1b", "microbatches": 2},
    "pipeline.replicas": 2,
    "peers.sites": {"virginia": 4},
    "sync": {"algorithm": "ring", "compute": 0.1},
}
WINDOW_OF_ONE = {"pipeline.schedule": {"kind": "queue", "window": 1, "local_step_every": 1}}
QUIET = ("gpipe", "1f1b", "interleaved-1f1b", "zb-h1", "zb-v", "dualpipe-v")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    pytest.importorskip("torch")
    with with_threads(1):
        yield


def steps_of(lines: Sequence[Line], peers: set[int]) -> Iterator[list[int]]:
    """Yield the micro-batches of each step of some peers that step together, all of which hold the first chunk."""
    found: list[int] = []
    stepped = 0
    for line in lines:
        if line.peer not in peers:
            continue
        if line.does in {"B", "W"} and line.chunk == 0:
            found.append(line.microbatch)
        stepped += line.does == "STEP"
        if stepped == len(peers):
            yield sorted(found)
            found, stepped = [], 0


@pytest.mark.parametrize(
    "changes",
    [
        *({"pipeline.schedule": {"kind": kind, "microbatches": 4}} for kind in QUIET),
        SYNC,
        WINDOW_OF_ONE,
        WINDOW_OF_ONE | {"emulator": COMMON["emulator"] | {"dtype": "float32"}},
    ],
    ids=[*QUIET, "sync", "window of one", "float32"],
)
def test_weights_are_those_of_the_plain_model(changes: dict[str, Any]) -> None:
    import torch

    scenario = apply(load("minimal"), COMMON | changes)
    planned = plan_training(scenario, 0)
    lines: list[Line] = []
    backends.load("sim").run(planned.plan, seed=0, fetches=False, script=lines.append)  # type: ignore[call-arg]
    material = material_of(scenario.training.data, planned.shape, 0)
    learning = Learning(planned, lines, material, 0)
    # Stages may be a step apart when the run ends: all stop after the first steps.
    steps = list(steps_of(lines, {peer.index for peer in planned.plan.peers if peer.stage == 0}))[:2]
    assert len(steps) == 2
    counts = [0] * len(planned.plan.peers)
    for number, line in enumerate(lines):
        if line.peer < 0 or counts[line.peer] < len(steps):
            learning.player.play(number)
        if line.does == "STEP":
            counts[line.peer] += 1
    plain = train_serially(planned.shape, 0, steps, scenario.training.optimizer, material.batches)
    limit = 1e-5 if planned.shape.dtype == "float32" else TOLERANCES["float64"]
    largest = max(float(each.abs().max()) for each in plain)
    for seat in learning.player.seats:
        expected = torch.cat([plain[chunk] for chunk in seat.worker.chunks])
        assert float((seat.worker.weights() - expected).abs().max()) <= limit * largest
