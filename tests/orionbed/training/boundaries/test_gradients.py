"""Gradients through two workers in float64: of smooth boundaries by differences, of packed ones by their estimator."""

from typing import Any

import pytest

from orionbed.scenario.training import InnerOptimizer
from orionbed.training.boundaries.packing import packing_of
from orionbed.training.boundaries.sending import Boundaries
from orionbed.training.worker import StageWorker

HOW: Any = {"seed": 3, "optimizer": InnerOptimizer(learning_rate=1e-2)}
STEP = 1e-5


@pytest.mark.parametrize("halves", [False, True])
def test_gradients_of_both_stages_are_those_of_the_loss(smooth: Any, halves: bool, small: Any) -> None:
    import torch

    shape = small(2, boundary=smooth, recompute=halves)
    workers = [StageWorker(shape, [chunk], **HOW) for chunk in range(2)]
    crossed = workers[0].forward(0, 0, None)
    workers[1].forward(1, 0, crossed)
    back = None
    for chunk in (1, 0):
        run = workers[chunk].backward_input if halves else workers[chunk].backward
        back = run(chunk, 0, back)
        if halves:
            workers[chunk].backward_weight(chunk, 0)

    workers[1].take_loss(0)
    for chunk, worker in enumerate(workers):
        weights, gradients = worker.weights(), worker.gradients()
        direction = torch.randn(weights.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(chunk))
        ends = []
        for sign in (1.0, -1.0):
            worker.load_weights(weights + sign * STEP * direction)
            ends.append(loss_of(workers, 0))
        worker.load_weights(weights)
        slope = (ends[0] - ends[1]) / (2 * STEP)
        assert slope == pytest.approx((gradients * direction).sum().item(), rel=1e-6)
        assert abs(slope) > 1e-3


def loss_of(workers: list[StageWorker], number: int) -> float:
    """Loss of a micro-batch, of which nothing is kept."""
    workers[1].forward(1, number, workers[0].forward(0, number, None))
    found = workers[1].take_loss(number)
    for worker in workers:
        worker.forget(number)
    return found


def test_the_gradient_that_crosses_is_that_of_what_crossed(smooth: Any, small: Any) -> None:
    import torch

    shape = small(2, boundary=smooth)
    worker = StageWorker(shape, [1], **HOW)
    crossed = torch.randn(shape.boundary_shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def loss(inputs: Any) -> float:
        worker.forward(1, 0, inputs)
        found = worker.take_loss(0)
        worker.forget(0)
        return found

    worker.forward(1, 0, crossed)
    gradient = worker.backward(1, 0, None)
    assert gradient is not None
    for place in [(0, 0, 0), (1, 3, 5), (0, 7, 2)]:
        there = torch.zeros_like(crossed)
        there[place] = STEP
        slope = (loss(crossed + there) - loss(crossed - there)) / (2 * STEP)
        assert slope == pytest.approx(gradient[place].item(), rel=1e-5, abs=1e-9)


def test_packing_counts_as_the_identity(packed: Any, small: Any) -> None:
    """Both stages see packed bytes of one another; gradients of each are those of the plain stage at that input."""
    import torch

    shape = small(2, boundary=packed)
    first, second = (StageWorker(shape, [chunk], **HOW) for chunk in range(2))
    plain_first, plain_second = (StageWorker(small(2), [chunk], **HOW) for chunk in range(2))
    packing, sender = packing_of(shape), Boundaries(shape)
    assert packing is not None
    for number in range(3):
        crossed = first.forward(0, number, None)
        whole = plain_first.forward(0, number, None)
        assert crossed is not None
        assert whole is not None
        assert crossed.equal(sender.send((0, "F"), whole))
        second.forward(1, number, crossed)
        plain_second.forward(1, number, packing.unpack(crossed))
        assert second.take_loss(number) == plain_second.take_loss(number)
        back, plain_back = second.backward(1, number, None), plain_second.backward(1, number, None)
        assert back is not None
        assert plain_back is not None
        assert back.equal(sender.send((1, "B"), plain_back)), "the gradient is packed like any tensor, by itself"
        first.backward(0, number, back)
        plain_first.backward(0, number, packing.unpack(back))
    for worker, plain in ((first, plain_first), (second, plain_second)):
        torch.testing.assert_close(worker.gradients(), plain.gradients(), rtol=0, atol=0)


def test_what_waits_for_its_backward_takes_what_crossed(every: Any, small: Any) -> None:
    shape = small(2, boundary=every, recompute=True)
    first, second = (StageWorker(shape, [chunk], **HOW) for chunk in range(2))
    crossed = first.forward(0, 0, None)
    assert crossed is not None
    assert crossed.nbytes == shape.boundary_bytes
    second.forward(1, 0, crossed)
    assert second.saved_bytes == shape.boundary_bytes


def test_a_float_tensor_is_no_packed_one(packed: Any, small: Any) -> None:
    import torch

    worker = StageWorker(small(2, boundary=packed), [1], **HOW)
    with pytest.raises(ValueError, match=r"of torch\.uint8 is expected"):
        worker.forward(1, 0, torch.zeros(2, 8, 32, dtype=torch.float64))
