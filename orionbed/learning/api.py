"""Training a scenario: the simulator writes the script of the run, and a player plays it on a real model."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from orionbed.keys import Keyring
from orionbed.learning.block import training_block
from orionbed.learning.curve import HeldOut, Point
from orionbed.learning.learning import Learning, Playing
from orionbed.learning.material import material_of
from orionbed.learning.planning import plan_training
from orionbed.learning.resume import Keeper
from orionbed.results import RunResult
from orionbed.runs import git_state
from orionbed.scenario import Scenario
from orionbed.script import Line
from orionbed.summary import summarise
from orionbed.training.threads import with_threads

BACKEND = "train"
__all__ = ["BACKEND", "HeldOut", "Learned", "Playing", "Point", "train"]


@dataclass(frozen=True, slots=True)
class Learned:
    """What came of a training; `samples` are texts that the model has written.

    `result` is what the simulator said of the run, with the training's own block. `summary` is made of both, as plain
    data for JSON: the summary of the simulated run, and under `train` what was learned.
    """

    result: RunResult
    summary: dict[str, Any]
    curve: list[Point]
    held_out: list[HeldOut]
    samples: list[str]


def train(
    scenario: Scenario,
    *,
    seed: int,
    simulate: Callable[..., Any],
    folder: Path | None = None,
    progress: Callable[[Playing], None] | None = None,
    say: Callable[[str], None] | None = None,
) -> Learned:
    """Simulate `scenario` with `simulate`, the simulator's `run`, and train a model as the simulated peers would.

    With a `folder` the state is kept there every `training.checkpoint_every` micro-batches, and a training that was
    broken off goes on from there to the same result.

    Raises:
        BackendError: the scenario has what cannot be trained; the message lists it.
        TextError: its text is at fault.
        KeysError: what `training.keys` names cannot be used.
        CheckpointError: the state kept in `folder` is damaged, or not signed as it should be.

    """
    started, started_at = time.perf_counter(), datetime.now(UTC).isoformat(timespec="seconds")
    planned = plan_training(scenario, seed)
    material = material_of(scenario.training.data, planned.shape, seed)
    keys = None if scenario.training.keys is None else Keyring.read(Path(scenario.training.keys))
    lines: list[Line] = []
    result = simulate(planned.plan, seed=seed, fetches=False, script=lines.append)
    if say is not None:
        say(f"simulated {result.ledger.applied:,} micro-batches; the script has {len(lines):,} lines")
    with with_threads(1):
        learning = Learning(planned, lines, material, seed)
        keeper = _keeper(learning, folder, keys, say or (lambda _: None))
        began, before = time.perf_counter(), len(learning.curve.points)
        learning.go(progress, None if keeper is None else keeper.pause)
        training_s = time.perf_counter() - began
        block = training_block(learning, training_s, len(learning.curve.points) - before)
    result = replace(result, backend=BACKEND, backend_block=block, wall_s=time.perf_counter() - started)
    summary = summarise(result, None, git=git_state(), started_at=started_at)
    return Learned(result, summary, learning.curve.points, learning.held_out, block["samples"])


def _keeper(learning: Learning, folder: Path | None, keys: Keyring | None, say: Callable[[str], None]) -> Keeper | None:
    """Return what keeps the training's state, if it is to be kept, and go on from where it was."""
    every = learning.training.checkpoint_every
    if folder is None or every is None:
        return None
    keeper = Keeper(learning, folder, every, keys)
    if not keeper.can:
        say("no state is kept: passes are always under way, and only with recompute full can they be kept")
        return None
    count = keeper.go_on()
    if count:
        say(f"goes on after {count:,} micro-batches, where its state was kept last")
    return keeper
