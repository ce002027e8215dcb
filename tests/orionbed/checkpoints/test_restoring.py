"""A training that goes on from a checkpoint ends with the bits of one that was never broken off."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orionbed.checkpoints import as_json, newest, read, write
from orionbed.keys import Keyring, Trusted
from orionbed.scenario.schedules import QuantizeBoundary
from orionbed.scenario.training import InnerOptimizer
from orionbed.training.cursor import Cursor
from orionbed.training.optimizers.build import NAMES
from orionbed.training.shape import ModelShape
from orionbed.training.threads import with_threads
from orionbed.training.worker import StageWorker

torch = pytest.importorskip("torch")

SHAPE = ModelShape((1, 1), 32, 48, 4, 2, 64, 8, 2, QuantizeBoundary(kind="quantize", bits=8))
PER_STEP, TOTAL, BROKEN_OFF = 2, 6, 3


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with with_threads(1):
        yield


class Training:
    """Two stages, a micro-batch after the other, a step after every second one."""

    def __init__(self, optimizer: str, seed: int) -> None:
        settings = InnerOptimizer(kind=optimizer, learning_rate=1e-2, momentum=0.9, clip=0.5, warm_up=4)
        self.stages = [StageWorker(SHAPE, [stage], seed=seed, optimizer=settings, batches=None) for stage in (0, 1)]
        self.cursor = Cursor(0, 1)
        self.losses: list[float] = []

    def go(self, until: int) -> None:
        first, last = self.stages
        while self.cursor.ordinal < until:
            number = self.cursor.take()
            crossed = first.forward(0, number, None)
            first.backward(0, number, last.forward_backward(1, number, crossed))
            self.losses.append(last.take_loss(number))
            if self.cursor.ordinal % PER_STEP == 0:
                for stage in self.stages:
                    stage.step(PER_STEP)

    def contents(self) -> dict[str, dict[str, Any]]:
        return {
            f"s0{index}r0": {
                "state": stage.state(),
                "residuals": stage.residuals(),
                "gradients": stage.gradients(),
                "cursor": as_json(self.cursor.ordinal),
            }
            for index, stage in enumerate(self.stages)
        }

    def take(self, folder: Path, trusted: Trusted) -> None:
        found = read(folder, trusted)
        for stage, name in zip(self.stages, found.shards, strict=True):
            stage.load_state(found.bytes(name, "state"))
            stage.load_residuals(found.bytes(name, "residuals"))
            stage.set_gradients(found.tensor(name, "gradients"))
            self.cursor.go_on(found.json(name, "cursor"))


@pytest.mark.parametrize("optimizer", NAMES)
def test_going_on_is_as_if_nothing_had_been(optimizer: str, tmp_path: Path, keyring: Keyring) -> None:
    whole = Training(optimizer, seed=0)
    drawn = torch.get_rng_state()
    whole.go(BROKEN_OFF)
    assert any(stage.residuals().strip(b"\0") for stage in whole.stages), "error feedback has something left to send"
    write(tmp_path, whole.contents(), {"scenario": "tiny", "seed": 0, "position": BROKEN_OFF}, keys=keyring)
    whole.go(TOTAL)
    assert torch.equal(torch.get_rng_state(), drawn), "nothing is drawn from torch's own generator"
    resumed = Training(optimizer, seed=0)
    resumed.go(1)  # what was done before does not matter, but for the draws that the seed decides
    resumed.losses.clear()
    folder = newest(tmp_path)
    assert folder is not None
    resumed.take(folder, Trusted.of(keyring.keys.values()))
    resumed.go(TOTAL)
    assert resumed.losses == whole.losses[BROKEN_OFF:]
    for mine, theirs in zip(resumed.stages, whole.stages, strict=True):
        assert mine.state() == theirs.state()
        assert mine.residuals() == theirs.residuals()
