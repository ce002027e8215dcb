"""Putting off weight gradients costs no second recompute."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from orionbed.scenario.training import InnerOptimizer
from orionbed.training.worker import StageWorker


@contextmanager
def counting() -> Iterator[list[int]]:
    """Collect the FLOPs of every operation that reaches the device, by torch's own formulas."""
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils.flop_counter import flop_registry

    flops: list[int] = []

    class Mode(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = func(*args, **kwargs or {})
            formula = flop_registry.get(func.overloadpacket)
            if formula is not None:
                flops.append(formula(*args, **kwargs or {}, out_val=result))
            return result

    with Mode():
        yield flops


@pytest.fixture
def wide(small: Any) -> Any:
    return small(3, hidden=256, ffn=768, heads=4, kv_heads=2, sequence=64, sequences=1, boundary=8, dtype="float32")


def executed(shape: Any, *, split: bool, chunk: int = 1) -> tuple[int, int, int]:
    """FLOPs of forward, of the backward or its first half, and of the second half."""
    import torch

    worker = StageWorker(shape, [chunk], seed=0, optimizer=InnerOptimizer(learning_rate=1e-2))
    crossing = torch.ones(shape.boundary_shape)
    with counting() as forward:
        worker.forward(chunk, 0, crossing)
    with counting() as first:
        (worker.backward_input if split else worker.backward)(chunk, 0, None if shape.is_last(chunk) else crossing)
    with counting() as second:
        if split:
            worker.backward_weight(chunk, 0)
    return sum(forward), sum(first), sum(second)


@pytest.mark.parametrize("chunk", [1, 2])
def test_halves_with_recompute_cost_what_the_whole_costs(chunk: int, wide: Any) -> None:
    from dataclasses import replace

    shape = replace(wide, recompute=True)
    forward, whole, _ = executed(shape, split=False, chunk=chunk)
    _, first, second = executed(shape, split=True, chunk=chunk)
    assert first + second <= 1.06 * whole
    # Of the matrices: once again forward, once for the inputs, once for the weights.
    assert whole == pytest.approx(3 * forward, rel=0.01)
    assert first == pytest.approx(2 * forward, rel=0.01)
    assert second == pytest.approx(forward, rel=0.01)


def test_without_recompute(wide: Any) -> None:
    forward, whole, _ = executed(wide, split=False)
    _, first, second = executed(wide, split=True)
    assert first + second == whole == 2 * forward
    matrices = 2 * 256**2 + 2 * 256 * 128 + 3 * 256 * 768 + 2 * 256 * 8
    assert forward == 2 * 64 * matrices
