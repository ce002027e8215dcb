"""A small model, one torch thread, and an executor that runs an order's lists on workers."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from orionbed.schedule.actions import Action
from orionbed.schedule.order import Order
from orionbed.training.shape import ModelShape
from orionbed.training.worker import StageWorker


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def small() -> Callable[..., ModelShape]:
    """Make a small shape; what is not said is one layer per chunk, full boundary, float64."""

    def make(num_chunks: int = 4, **changes: Any) -> ModelShape:
        fields: dict[str, Any] = {
            "layers_per_chunk": (1,) * num_chunks,
            "hidden": 32,
            "ffn": 48,
            "heads": 4,
            "kv_heads": 2,
            "vocab": 64,
            "sequence": 8,
            "sequences": 2,
            "boundary": None,
            "dtype": "float64",
        }
        return ModelShape(**fields | changes)

    return make


@dataclass
class Pipeline:
    """One worker per stage of an order; tensors pass from list to list as their receivers come to need them."""

    order: Order
    workers: list[StageWorker]
    _ready: dict[tuple[str, int, int], Any] = field(default_factory=dict)

    def step(self, microbatches: Sequence[int], leave_out: Callable[[Action], bool] = lambda _: False) -> None:
        """Run the order once; its micro-batch i is `microbatches[i]`."""
        lists = [list(actions) for actions in self.order.lists]
        while any(lists):
            moved = False
            for worker, actions in zip(self.workers, lists, strict=True):
                while actions and self._can(actions[0]._replace(microbatch=microbatches[actions[0].microbatch])):
                    action = actions.pop(0)
                    moved = True
                    if not leave_out(action):
                        self._do(worker, action._replace(microbatch=microbatches[action.microbatch]))
            assert moved, "deadlock"
        for worker in self.workers:
            worker.step(len(microbatches))

    def _can(self, action: Action) -> bool:
        kind, chunk, microbatch = action
        if kind == "W" or (kind == "F" and chunk == 0):
            return True
        if kind == "F":
            return ("F", chunk - 1, microbatch) in self._ready
        if chunk == self.order.num_chunks - 1:
            return ("F", chunk, microbatch) in self._ready
        return ("B", chunk + 1, microbatch) in self._ready

    def _do(self, worker: StageWorker, action: Action) -> None:
        kind, chunk, microbatch = action
        if kind == "W":
            worker.backward_weight(chunk, microbatch)
        elif kind == "F":
            inputs = self._ready.pop(("F", chunk - 1, microbatch)) if chunk else None
            self._ready["F", chunk, microbatch] = worker.forward(chunk, microbatch, inputs)
        else:
            last = chunk == self.order.num_chunks - 1
            gradient = self._ready.pop(("F", chunk, microbatch) if last else ("B", chunk + 1, microbatch))
            run = worker.backward if kind == "B" else worker.backward_input
            self._ready["B", chunk, microbatch] = run(chunk, microbatch, gradient)

    def weights(self) -> list[Any]:
        """Return the weights of each chunk along the model."""
        from orionbed.training.shape import parameters_of

        found: dict[int, Any] = {}
        for worker in self.workers:
            counts = [parameters_of(worker.shape, chunk) for chunk in worker.chunks]
            found |= dict(zip(worker.chunks, worker.weights().split(counts), strict=True))
        return [found[chunk] for chunk in range(self.order.num_chunks)]


@pytest.fixture
def pipeline() -> Callable[..., Pipeline]:
    """Make the workers of an order."""

    def make(order: Order, shape: ModelShape, **how: Any) -> Pipeline:
        held = [[c for c, stage in enumerate(order.stage_of) if stage == s] for s in range(order.num_stages)]
        return Pipeline(order, [StageWorker(shape, chunks, **how) for chunks in held])

    return make


@pytest.fixture
def relative_error() -> Callable[..., float]:
    """Largest difference between two lists of weights, relative to the largest weight."""

    def error(found: Sequence[Any], expected: Sequence[Any]) -> float:
        largest = max(float(tensor.abs().max()) for tensor in expected)
        return max(float((a - b).abs().max()) for a, b in zip(found, expected, strict=True)) / largest

    return error
