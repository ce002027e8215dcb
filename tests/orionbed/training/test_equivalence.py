"""A pipeline of workers trains as the whole model does, whatever the schedule, the boundary and the recompute."""

from typing import Any

import pytest

from orionbed.scenario.schedules import (
    BottleneckBoundary,
    Boundary,
    QuantizeBoundary,
    ResBMBoundary,
    SubspaceBoundary,
    TopKBoundary,
)
from orionbed.scenario.training import InnerOptimizer
from orionbed.schedule.catalogue import ENTRIES, Wanted
from orionbed.schedule.order import Order
from orionbed.schedule.timing import equal_times
from orionbed.training.serial import train_serially

NAMES = ["gpipe", "1f1b", "interleaved-1f1b", "zb-h1", "zb-h2", "zb-v", "dualpipe-v"]
BATCHES = [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
HOW = {"seed": 3, "optimizer": InnerOptimizer(learning_rate=1e-2)}


def order_of(name: str) -> Order:
    """Four chunks: on four stages, or two by two."""
    chunks = ENTRIES[name].chunks or 2
    return ENTRIES[name].make(Wanted(4 // chunks, 4, equal_times(4, 1.0, 1.0, 1.0), chunks=chunks))


SERIAL: dict[Any, Any] = {}


def serial(shape: Any, optimizer: str = "adamw") -> Any:
    """Weights of the reference, trained once per shape; recompute means nothing to it."""
    key = (repr(shape.boundary), shape.dtype, optimizer)
    if key not in SERIAL:
        SERIAL[key] = train_serially(shape, HOW["seed"], BATCHES, InnerOptimizer(kind=optimizer, learning_rate=1e-2))
    return SERIAL[key]


BOUNDARIES: dict[str, Boundary | None] = {
    "none": None,
    "resbm": ResBMBoundary(kind="resbm", width=6),
    "mlp": ResBMBoundary(kind="resbm", width=6, encoder="mlp"),
    "bottleneck": BottleneckBoundary(kind="bottleneck", width=6),
    "subspace": SubspaceBoundary(kind="subspace", width=6),
}


@pytest.mark.parametrize(
    ("boundary", "recompute"),
    [
        ("none", False), ("none", True), ("resbm", False), ("resbm", True), ("mlp", True), ("bottleneck", False),
        ("subspace", True),
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", NAMES)
def test_weights_after_three_steps_are_those_of_the_whole_model(
    name: str, boundary: str, recompute: bool, small: Any, pipeline: Any, relative_error: Any
) -> None:
    shape = small(boundary=BOUNDARIES[boundary], recompute=recompute)
    made = pipeline(order_of(name), shape, **HOW)
    begun = made.weights()
    for microbatches in BATCHES:
        made.step(microbatches)
    assert relative_error(made.weights(), serial(shape)) < 1e-10
    assert relative_error(begun, serial(shape)) > 1e-3, "training has moved the weights"
    assert all(worker.saved_bytes == 0 for worker in made.workers)


@pytest.mark.parametrize(
    "boundary",
    [
        QuantizeBoundary(kind="quantize", bits=8),
        QuantizeBoundary(kind="quantize", bits=4),
        TopKBoundary(kind="topk", keep=6),
        TopKBoundary(kind="topk", keep=6, error_feedback=True),
    ],
    ids=repr,
)
@pytest.mark.parametrize("name", ["gpipe", "1f1b", "zb-h1"])
def test_packed_boundaries_too_where_every_chunk_takes_micro_batches_in_order(
    name: str, boundary: Boundary, small: Any, pipeline: Any, relative_error: Any
) -> None:
    """What error feedback adds depends on the order, and is carried over from step to step."""
    shape = small(boundary=boundary)
    made = pipeline(order_of(name), shape, **HOW)
    for microbatches in BATCHES:
        made.step(microbatches)
    assert relative_error(made.weights(), serial(shape)) < 1e-10
    assert relative_error(made.weights(), serial(small())) > 1e-3, "packing has made a difference"


@pytest.mark.parametrize("name", ["1f1b", "zb-h2", "zb-v"])
def test_in_single_precision_too(name: str, small: Any, pipeline: Any, relative_error: Any) -> None:
    shape = small(boundary=6, recompute=True, dtype="float32")
    # Adam divides by the root of the second moment, which makes much of the rounding of tiny gradients: 5e-6 here.
    how = HOW | {"optimizer": InnerOptimizer(kind="sgd", learning_rate=1e-2)}
    made = pipeline(order_of(name), shape, **how)
    for microbatches in BATCHES:
        made.step(microbatches)
    assert relative_error(made.weights(), serial(shape, "sgd")) < 1e-6


def test_a_micro_batch_left_out_is_noticed(small: Any, pipeline: Any, relative_error: Any) -> None:
    made = pipeline(order_of("zb-h1"), small(), **HOW)
    for number, microbatches in enumerate(BATCHES):
        made.step(microbatches, lambda action, first=number == 0: first and action == ("W", 2, 1))
    assert relative_error(made.weights(), serial(small())) > 1e-4


def test_losses_are_those_of_the_whole_model(small: Any, pipeline: Any) -> None:
    from orionbed.training.serial import SerialModel

    model = SerialModel(small(), seed=3, optimizer=InnerOptimizer(learning_rate=1e-2))
    expected = {microbatch: model.loss(microbatch).item() for microbatch in BATCHES[0]}
    made = pipeline(order_of("dualpipe-v"), small(), **HOW)
    made.step(BATCHES[0])
    (holder,) = [worker for worker in made.workers if 3 in worker.chunks]
    assert holder.losses == pytest.approx(expected, rel=1e-12)
    assert holder.take_loss(2) == pytest.approx(expected[2])
    with pytest.raises(ValueError, match="no loss of micro-batch 2"):
        holder.take_loss(2)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_model_in_one_piece(optimizer: str, small: Any, relative_error: Any) -> None:
    from orionbed.training.worker import StageWorker

    settings = InnerOptimizer(kind=optimizer, learning_rate=1e-2)
    worker = StageWorker(small(1), [0], seed=3, optimizer=settings)
    for microbatches in BATCHES:
        for microbatch in microbatches:
            assert worker.forward_backward(0, microbatch, None) is None
        worker.step(len(microbatches))
    expected = train_serially(small(1), 3, BATCHES, settings)
    assert relative_error([worker.weights()], expected) < 1e-10


def test_replicas_that_add_their_gradients_are_one(small: Any) -> None:
    from orionbed.training.worker import StageWorker

    alone, one, other = (StageWorker(small(1), [0], **HOW) for _ in range(3))
    for microbatch in range(4):
        alone.forward_backward(0, microbatch, None)
        (one if microbatch < 3 else other).forward_backward(0, microbatch, None)
    assert (one.num_accumulated, other.num_accumulated) == (3, 1)
    total = one.gradients() + other.gradients()
    for worker in (one, other):
        worker.set_gradients(total)
        worker.step(4)
    alone.step(4)
    assert one.state_hash() == other.state_hash()
    assert (one.weights() - alone.weights()).abs().max() < 1e-12
