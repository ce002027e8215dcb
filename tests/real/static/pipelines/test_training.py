"""Replicas that agree, spans, what is told meanwhile, memory of messages, and going on from a checkpoint."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from orionbed.scenario.schedules import ResBMBoundary
from orionbed.scenario.training import InnerOptimizer
from orionbed.schedule.classic import interleaved, one_forward_one_backward
from orionbed.schedule.v_shaped import zb_v
from orionbed.training.serial import SerialModel
from orionbed.training.shape import ModelShape
from real.static.training import held_by, receive_buffer_bytes

pytestmark = [pytest.mark.xdist_group("real"), pytest.mark.timeout(120)]

SHAPE: dict[str, Any] = {
    "hidden": 32, "ffn": 48, "heads": 4, "kv_heads": 2, "vocab": 64, "sequence": 8, "sequences": 2, "boundary": 6,
    "dtype": "float64",
}  # fmt: skip
NARROW: dict[str, Any] = SHAPE | {"boundary": ResBMBoundary(kind="resbm", width=6)}
"""The same for a shape; a rank is told the width."""
COUNT = 4
TWO_REPLICAS = [[0, 1], [2, 3]]


def serial(batches: list[list[int]]) -> tuple[list[Any], list[float]]:
    model = SerialModel(
        ModelShape(layers_per_chunk=(1, 1), **NARROW), seed=0, optimizer=InnerOptimizer(learning_rate=1e-2)
    )
    losses = [model.step(numbers) for numbers in batches]
    return model.weights(), losses


def difference(found: Any, expected: Any) -> float:
    largest: float = (found - expected).abs().max().item()
    return largest


@pytest.mark.parametrize("schedule", ["1f1b", "zb-h1"])
def test_replicas_that_agree_train_on_the_micro_batches_of_all(schedule: str, ranks: Any, numbers: Any) -> None:
    found = ranks.run(
        schedule=schedule, microbatches=COUNT, shape=SHAPE, steps=3, pipelines=TWO_REPLICAS, sync=True
    )  # fmt: skip
    weights, losses = serial([list(range(step * 2 * COUNT, (step + 1) * 2 * COUNT)) for step in range(3)])
    for rank, told in enumerate(found):
        assert difference(numbers(told["weights"]), weights[rank % 2]) < 1e-10
        for spans, (began_s, ended_s) in zip(told["spans"], told["sync"], strict=True):
            assert spans[-2][1] <= began_s <= ended_s <= spans[-1][0], "between the last backward and the STEP"
    for step in range(3):
        both = [loss for rank in (1, 3) for _, loss in found[rank]["losses"][step]]
        assert sum(both) / len(both) == pytest.approx(losses[step], abs=1e-10)


def test_replicas_that_do_not_agree_train_on_their_own(ranks: Any, numbers: Any) -> None:
    found = ranks.run(schedule="1f1b", microbatches=COUNT, shape=SHAPE, steps=2, pipelines=TWO_REPLICAS)
    for replica in range(2):
        numbers_of = [[(step * COUNT + m) * 2 + replica for m in range(COUNT)] for step in range(2)]
        weights, _ = serial(numbers_of)
        for stage in range(2):
            told = found[2 * replica + stage]
            assert difference(numbers(told["weights"]), weights[stage]) < 1e-10
            assert told["sync"] == [None, None]
            assert told["steps"] == 2


def test_an_operation_begins_when_the_one_before_has_ended_and_its_input_is_there(ranks: Any) -> None:
    first, second = ranks.run(schedule="zb-h1", microbatches=COUNT, shape=SHAPE, steps=2, pipelines=[[0, 1]])
    for told in (first, second):
        spans = [span for step in told["spans"] for span in step]
        assert all(start_s < end_s for start_s, end_s in spans)
        assert all(earlier[1] <= later[0] for earlier, later in pairwise(spans))
    for step in range(2):
        times = [
            dict(zip(map(tuple, told["operations"][step]), told["spans"][step], strict=True))
            for told in (first, second)
        ]
        for m in range(COUNT):
            assert times[0]["F", 0, m][1] <= times[1]["F", 1, m][0]
            assert times[1]["I", 1, m][1] <= times[0]["I", 0, m][0]


def test_what_is_being_done_is_told(ranks: Any) -> None:
    (first, *_) = ranks.run(
        schedule="gpipe", microbatches=2, shape=SHAPE, steps=1, pipelines=TWO_REPLICAS, sync=True
    )  # fmt: skip
    assert first["doing"] == ["0F0", "0F1", "0B0", "0B1", "agreeing with the other replicas", "0STEP"]


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_going_on_from_a_checkpoint_ends_with_the_same_bits(optimizer: str, ranks: Any, tmp_path: Path) -> None:
    case = {
        "schedule": "zb-v", "microbatches": COUNT, "shape": SHAPE, "pipelines": [[0, 1]], "optimizer": optimizer,
        "checkpoint": str(tmp_path),
    }  # fmt: skip
    whole = ranks.run(steps=5, **case)
    assert [told["versions"] for told in whole] == [[4, 5], [4, 5]], "the last two are kept"
    for path in tmp_path.glob("*-version-000000005.state"):
        path.unlink()
    resumed = ranks.run(steps=5, resume=True, **case)
    assert [len(told["operations"]) for told in resumed] == [1, 1]
    assert [told["weights"] for told in resumed] == [told["weights"] for told in whole]


def test_chunks_of_a_stage() -> None:
    assert held_by(zb_v(2, 4), 0) == (0, 3)
    assert held_by(interleaved(2, 4, 2), 1) == (1, 3)


def test_bytes_of_messages() -> None:
    """Per micro-batch: what comes in and what was sent, once each; between chunks of one stage only the former."""
    shape = ModelShape(layers_per_chunk=(1,) * 4, **NARROW)
    one = shape.boundary_bytes
    assert one == 2 * 8 * 6 * 8
    plain = one_forward_one_backward(4, 8)
    assert [receive_buffer_bytes(plain, stage, shape) for stage in range(4)] == [16 * one, 32 * one, 32 * one, 16 * one]
    folded = zb_v(2, 8)
    assert receive_buffer_bytes(folded, 0, shape) == (2 + 2) * 8 * one
    assert receive_buffer_bytes(folded, 1, shape) == (4 + 2) * 8 * one
