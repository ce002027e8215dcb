"""torch's runtime against the plain model: the contract of the adapter with torch's private parts.

Everything here fails, and says so, when another torch has changed what the adapter rests on.
"""

import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from orionbed.backends import BackendError
from orionbed.pinned import TORCH
from orionbed.scenario.schedules import ResBMBoundary
from orionbed.scenario.training import InnerOptimizer
from orionbed.schedule.catalogue import ENTRIES, Wanted, chunks_of
from orionbed.schedule.order import Order
from orionbed.schedule.timing import equal_times
from orionbed.training.shape import ModelShape

pytestmark = [pytest.mark.xdist_group("real"), pytest.mark.timeout(120)]

SHAPE: dict[str, Any] = {
    "hidden": 32, "ffn": 48, "heads": 4, "kv_heads": 2, "vocab": 64, "sequence": 8, "sequences": 2, "boundary": None,
    "dtype": "float64",
}  # fmt: skip
STEPS = 3
TOLERANCE = 1e-10
CASES = [
    *((2, boundary, recompute) for boundary in (None, 6) for recompute in ("none", "selective", "full")),
    *((4, 6, recompute) for recompute in ("none", "selective", "full")),
]


def microbatches(num_stages: int) -> int:
    return 2 * num_stages


def order_of(schedule: str, num_stages: int) -> Order:
    times = equal_times(num_stages * chunks_of(schedule, 2), 1.0, 1.0, 1.0)
    return ENTRIES[schedule].make(Wanted(num_stages, microbatches(num_stages), times, splits=True))


def held(order: Order, stage: int) -> list[int]:
    return [chunk for chunk, holder in enumerate(order.stage_of) if holder == stage]


@cache
def serial(num_chunks: int, boundary: int | None, per_step: int) -> tuple[list[Any], list[Any], list[list[float]]]:
    """Gradients of the first step, weights after all, and losses of each micro-batch, of the plain model."""
    import torch

    from orionbed.training.serial import SerialModel

    narrow = None if boundary is None else ResBMBoundary(kind="resbm", width=boundary)
    shape = ModelShape(**({"layers_per_chunk": (1,) * num_chunks} | SHAPE | {"boundary": narrow}))
    model = SerialModel(shape, seed=0, optimizer=InnerOptimizer(learning_rate=1e-2))
    gradients: list[Any] = []
    losses = []
    for step in range(STEPS):
        numbers = range(step * per_step, (step + 1) * per_step)
        found = [model.loss(number) for number in numbers]
        losses.append([loss.item() for loss in found])
        if not gradients:
            for module in model.modules:
                each = torch.autograd.grad(sum(found), list(module.parameters()), retain_graph=True)
                gradients.append(torch.cat([gradient.flatten() for gradient in each]))
        model.step(numbers)
    return gradients, model.weights(), losses


def largest_difference(found: Any, expected: list[Any], chunks: list[int]) -> float:
    import torch

    difference: float = (found - torch.cat([expected[chunk] for chunk in chunks])).abs().max().item()
    return difference


@pytest.mark.parametrize(("num_stages", "boundary", "recompute"), CASES)
@pytest.mark.parametrize("schedule", ENTRIES)
def test_every_schedule_trains_like_the_plain_model(
    schedule: str, num_stages: int, boundary: int | None, recompute: str, ranks: Any, numbers: Any
) -> None:
    order, count = order_of(schedule, num_stages), microbatches(num_stages)
    found = ranks.run(
        schedule=schedule,
        microbatches=count,
        shape=SHAPE | {"boundary": boundary},
        steps=STEPS,
        recompute=recompute,
        pipelines=[list(range(num_stages))],
        buffers=True,
        defer=recompute == "selective",
    )
    gradients, weights, losses = serial(order.num_chunks, boundary, count)
    assert len(found) == num_stages
    for stage, told in enumerate(found):
        chunks = held(order, stage)
        assert largest_difference(numbers(told["gradients"]), gradients, chunks) < TOLERANCE
        assert largest_difference(numbers(told["weights"]), weights, chunks) < TOLERANCE
        expected = [*map(list, order.lists[stage]), ["STEP", order.lists[stage][0].chunk, -1]]
        assert told["operations"] == [expected] * STEPS
        assert told["found_bytes"] == [told["planned_bytes"]] * STEPS
    (last,) = [told for told in found if told["losses"][0]]
    for step in range(STEPS):
        assert [microbatch for microbatch, _ in last["losses"][step]] == list(range(count))
        assert [loss for _, loss in last["losses"][step]] == pytest.approx(losses[step], abs=TOLERANCE)


@pytest.mark.parametrize(("schedule", "left_out"), [("1f1b", False), ("zb-h1", False), ("zb-v", True)])
def test_late_receives_are_left_out_where_they_would_take_one_anothers_messages(
    schedule: str, left_out: bool, ranks: Any
) -> None:
    found = ranks.run(schedule=schedule, microbatches=8, shape=SHAPE, pipelines=[[0, 1, 2, 3]], defer=True)
    for told in found:
        assert [warning.startswith("real.defer_receives was left out") for warning in told["warnings"]] == [
            True
        ] * left_out


def test_one_altered_microbatch_is_noticed(ranks: Any, numbers: Any) -> None:
    (first, _) = ranks.run(
        schedule="1f1b", microbatches=4, shape=SHAPE, steps=STEPS, pipelines=[[0, 1]], altered=1
    )  # fmt: skip
    gradients, weights, _ = serial(2, None, 4)
    assert largest_difference(numbers(first["gradients"]), gradients, [0]) > 1e-3
    assert largest_difference(numbers(first["weights"]), weights, [0]) > 1e-3


def test_microbatches_may_come_in_any_order(ranks: Any, numbers: Any) -> None:
    lists = ["0F2 0F0 0F1 0F3 0B0 0I3 0B2 0W3 0B1", "1F2 1F0 1I0 1F1 1F3 1B3 1W0 1B2 1B1"]
    found = ranks.run(lists=lists, microbatches=4, shape=SHAPE, steps=STEPS, pipelines=[[0, 1]])
    _, weights, losses = serial(2, None, 4)
    for stage, told in enumerate(found):
        assert largest_difference(numbers(told["weights"]), weights, [stage]) < TOLERANCE
        assert [f"{chunk}{kind}{m}" for kind, chunk, m in told["operations"][0][:-1]] == lists[stage].split()
    assert [loss for _, loss in found[1]["losses"][0]] == pytest.approx(losses[0], abs=TOLERANCE)


def test_halved_backwards_do_the_recompute_once(ranks: Any) -> None:
    wide = SHAPE | {"hidden": 64, "ffn": 192, "sequence": 32, "boundary": 8, "dtype": "float32"}

    def flops(schedule: str, recompute: str) -> int:
        told = ranks.run(
            schedule=schedule, microbatches=8, shape=wide, recompute=recompute, pipelines=[[0, 1, 2, 3]], flops=True
        )  # fmt: skip
        return sum(each["flops"] for each in told)

    whole, plain = flops("1f1b", "full"), flops("1f1b", "none")
    assert flops("zb-h1", "none") == plain
    assert whole <= flops("zb-h1", "full") <= 1.06 * whole
    assert whole / plain == pytest.approx(4 / 3, rel=0.02), "8N against 6N"


@pytest.mark.parametrize("schedule", ["1f1b", "zb-v"])
@pytest.mark.parametrize("recompute", ["none", "full"])
def test_bfloat16_runs_and_stays_near(schedule: str, recompute: str, ranks: Any) -> None:
    narrow = SHAPE | {"dtype": "bfloat16", "boundary": 6}
    order, count = order_of(schedule, 2), microbatches(2)
    found = ranks.run(schedule=schedule, microbatches=count, shape=narrow, recompute=recompute, pipelines=[[0, 1]])
    (last,) = [told for told in found if told["losses"][0]]
    _, _, losses = serial(order.num_chunks, 6, count)
    assert [loss for _, loss in last["losses"][0]] == pytest.approx(losses[0], rel=0.02)


def test_a_pipeline_of_one_stage(ranks: Any, numbers: Any) -> None:
    (alone,) = ranks.run(schedule="gpipe", microbatches=4, shape=SHAPE, steps=STEPS, pipelines=[[0]])
    _, weights, _ = serial(1, None, 4)
    assert largest_difference(numbers(alone["weights"]), weights, [0]) < TOLERANCE


@pytest.mark.parametrize("schedule", ["1f1b", "zb-v"])
def test_over_the_transport_of_the_internet(schedule: str, ranks: Any, numbers: Any) -> None:
    order, count = order_of(schedule, 2), microbatches(2)
    found = ranks.run(
        schedule=schedule, microbatches=count, shape=SHAPE | {"boundary": 6}, steps=STEPS, pipelines=[[0, 1], [2, 3]],
        backend="orionbed",
    )  # fmt: skip
    assert len(found) == 4
    _, weights, _ = serial(order.num_chunks, 6, count)
    assert largest_difference(numbers(found[0]["weights"]), weights, held(order, 0)) > TOLERANCE, "half of the data"
    together = ranks.run(
        schedule=schedule, microbatches=count // 2, shape=SHAPE | {"boundary": 6}, steps=STEPS,
        pipelines=[[0, 1], [2, 3]], backend="orionbed", sync=True,
    )  # fmt: skip
    for rank, told in enumerate(together):
        assert largest_difference(numbers(told["weights"]), weights, held(order, rank % 2)) < TOLERANCE


def test_another_torch_is_refused() -> None:
    pytest.importorskip("torch")
    from real.static.pipelining import check_version

    check_version(TORCH)
    check_version(TORCH + "+cpu")
    for other in ("2.11.0", "2.14.0", "3.0.0"):
        with pytest.raises(BackendError, match=rf"and this is torch {other}: pip install torch=={TORCH}"):
            check_version(other)


def test_the_list_that_torch_reads_is_gone_afterwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    from types import SimpleNamespace

    from real.static import pipelining

    read: list[str] = []
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    fake = SimpleNamespace(
        _load_csv=lambda name, **_: read.append(Path(name).read_text()), pipeline_order_with_comms={}
    )  # fmt: skip
    monkeypatch.setattr(pipelining, "_Runtime", lambda *_args, **_kwargs: fake)
    order = order_of("dualpipe-v", 2)
    shape = ModelShape(**({"layers_per_chunk": (1,) * order.num_chunks} | SHAPE))
    pipelining.make_pipeline(order, {}, shape, group=None, device=None, timed=None, defer_receives=False)  # type: ignore[arg-type]
    assert len(read[0].splitlines()) == 2
    assert "OVERLAP_F_B" in read[0]
    assert list(tmp_path.iterdir()) == []
