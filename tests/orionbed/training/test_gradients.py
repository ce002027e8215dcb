"""Without compression and staleness a pipeline has the plain model's gradients and weights, whatever the schedule."""

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest

from orionbed.scenario.training import InnerOptimizer
from orionbed.schedule.catalogue import ENTRIES, Wanted
from orionbed.schedule.order import Order
from orionbed.schedule.timing import equal_times
from orionbed.training.serial import SerialModel
from orionbed.training.shape import ModelShape, parameters_of

BATCHES = [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
# Adam divides by the root of the second moment: what rounding makes of a tiny gradient can turn a whole step round.
# So in single precision gradients are compared, and the weights after steps along them.
SGD = InnerOptimizer(kind="sgd", learning_rate=1e-2)
TOLERANCES = {"float64": 1e-10, "float32": 1e-5}


def order_of(name: str) -> Order:
    """Four chunks: on four stages, or two by two; `opportunistic` with its backwards in halves."""
    chunks = ENTRIES[name].chunks or 2
    wanted = Wanted(4 // chunks, 4, equal_times(4, 1.0, 1.0, 1.0), chunks=chunks, splits=True)
    return ENTRIES[name].make(wanted)


@cache
def expected(shape: ModelShape) -> tuple[list[Any], list[Any]]:
    """Return the plain model's gradients of the first step, chunk by chunk, and its weights after all."""
    import torch

    model = SerialModel(shape, seed=3, optimizer=SGD)
    torch.stack([model.loss(microbatch) for microbatch in BATCHES[0]]).mean().backward()  # type: ignore[no-untyped-call]
    gradients = [torch.cat([p.grad.flatten() for p in m.parameters() if p.grad is not None]) for m in model.modules]
    plain = SerialModel(shape, seed=3, optimizer=SGD)
    for microbatches in BATCHES:
        plain.step(microbatches)
    return gradients, plain.weights()


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("name", ENTRIES)
def test_gradients_and_weights_are_the_plain_models(
    name: str, dtype: str, small: Callable[..., ModelShape], pipeline: Any, relative_error: Any
) -> None:
    shape = small(dtype=dtype)
    made = pipeline(order_of(name), shape, seed=3, optimizer=SGD)
    found: dict[int, Any] = {}

    def step(worker: Any, take: Callable[[int], None], num_microbatches: int) -> None:
        if len(found) < shape.num_chunks:
            counts = [parameters_of(shape, chunk) for chunk in worker.chunks]
            mean = worker.gradients() / num_microbatches
            found.update(zip(worker.chunks, mean.split(counts), strict=True))
        take(num_microbatches)

    for worker in made.workers:
        worker.step = lambda number, worker=worker, take=worker.step: step(worker, take, number)
    for microbatches in BATCHES:
        made.step(microbatches)
    gradients, weights = expected(shape)
    assert relative_error([found[chunk] for chunk in range(shape.num_chunks)], gradients) < TOLERANCES[dtype]
    assert relative_error(made.weights(), weights) < TOLERANCES[dtype]
