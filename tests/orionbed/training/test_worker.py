"""One worker: halves, what it keeps and drops, what it refuses, and that it learns."""

from typing import Any

import pytest

from orionbed.scenario.training import InnerOptimizer
from orionbed.training.shape import parameters_of
from orionbed.training.worker import StageWorker


def worker_of(shape: Any, *chunks: int, **changes: Any) -> StageWorker:
    return StageWorker(shape, chunks, **{"seed": 5, "optimizer": InnerOptimizer(learning_rate=1e-2)} | changes)


def crossing(shape: Any, seed: int = 0) -> Any:
    import torch

    return torch.randn(shape.boundary_shape, generator=torch.Generator().manual_seed(seed), dtype=shape.torch_dtype)


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("chunk", [0, 1, 2])
def test_two_halves_make_the_whole_bit_for_bit(chunk: int, recompute: bool, small: Any) -> None:
    import torch

    shape = small(3, boundary=6, dtype="float32", recompute=recompute)
    whole, split = worker_of(shape, chunk), worker_of(shape, chunk)
    results = []
    for microbatch in range(3):
        inputs = crossing(shape, microbatch) if chunk else None
        gradient = crossing(shape, 9 + microbatch) if chunk < 2 else None
        for worker in (whole, split):
            worker.forward(chunk, microbatch, inputs)
        results.append((whole.backward(chunk, microbatch, gradient), split.backward_input(chunk, microbatch, gradient)))
    assert split.num_accumulated == 0
    assert not split.gradients().any()
    for microbatch in range(3):
        split.backward_weight(chunk, microbatch)
    assert split.num_accumulated == whole.num_accumulated == 3
    assert torch.equal(whole.gradients(), split.gradients())
    assert whole.gradients().count_nonzero() > 0.9 * parameters_of(shape, chunk) - shape.vocab * shape.hidden
    assert all(a is b is None if chunk == 0 else torch.equal(a, b) for a, b in results)


def test_turning_round_at_once_is_forward_and_backward(small: Any) -> None:
    import torch

    shape = small(2, recompute=True)
    turning, taking_turns = worker_of(shape, 1), worker_of(shape, 1)
    at_once = turning.forward_backward(1, 7, crossing(shape))
    assert taking_turns.forward(1, 7, crossing(shape)) is None
    later = taking_turns.backward(1, 7, None)
    assert at_once is not None
    assert later is not None
    assert torch.equal(at_once, later)
    assert turning.losses == taking_turns.losses
    assert torch.equal(turning.gradients(), taking_turns.gradients())
    with pytest.raises(ValueError, match="only the last chunk"):
        worker_of(shape, 0).forward_backward(0, 0, None)


@pytest.mark.parametrize("until", ["forward", "input half"])
def test_what_is_forgotten_leaves_no_gradient_behind(until: str, small: Any) -> None:
    import torch

    shape = small(2)
    with_it, without = worker_of(shape, 0, 1), worker_of(shape, 0, 1)
    for microbatch in (0, 1, 2):
        for worker in (with_it, without):
            if microbatch == 1 and worker is without:
                continue
            inputs = worker.forward(0, microbatch, None)
            worker.forward(1, microbatch, inputs)
            if microbatch == 1:
                if until == "input half":
                    worker.backward_input(1, 1, None)
                worker.forget(1)
                continue
            gradient = worker.backward_input(1, microbatch, None)
            worker.backward(0, microbatch, gradient)
            worker.backward_weight(1, microbatch)
    assert torch.equal(with_it.gradients(), without.gradients())
    assert with_it.num_accumulated == 2
    assert with_it.saved_bytes == 0
    assert set(with_it.losses) == {0, 2}
    with pytest.raises(ValueError, match="keeps no forward of micro-batch 1"):
        with_it.backward(1, 1, None)
    with_it.forward(0, 1, None)  # and it may be done again


def test_reset_drops_everything_but_weights_and_state(small: Any) -> None:
    worker = worker_of(small(1), 0)
    worker.forward_backward(0, 0, None)
    worker.step(1)
    state = worker.state_hash()
    worker.forward_backward(0, 1, None)
    worker.forward(0, 2, None)
    worker.backward_input(0, 2, None)
    worker.forward(0, 3, None)
    worker.reset()
    assert not worker.gradients().any()
    assert (worker.num_accumulated, worker.saved_bytes, worker.losses) == (0, 0, {})
    assert worker.state_hash() == state
    worker.step(0)
    assert worker.state_hash() == state


def test_the_weights_may_change_between_forward_and_backward(small: Any) -> None:
    worker = worker_of(small(1, recompute=False), 0)
    worker.forward(0, 0, None)
    worker.forward_backward(0, 1, None)
    worker.step(1)
    worker.backward(0, 0, None)
    assert worker.gradients().any()


def test_kept_bytes(small: Any) -> None:
    shape = small(2, recompute=True)
    worker = worker_of(shape, 1)
    for microbatch in range(3):
        worker.forward(1, microbatch, crossing(shape))
    assert worker.saved_bytes == 3 * shape.boundary_bytes
    worker.backward_input(1, 0, None)
    half = worker.saved_bytes - 2 * shape.boundary_bytes
    per_value = 8
    # Inputs and output gradients of the matrices (q, k and v share an input, gate and up too), and gradients of norms.
    kv = 16
    widths = 4 * shape.hidden + shape.ffn + shape.hidden + 2 * kv + 2 * shape.ffn + shape.hidden
    assert half == pytest.approx(shape.tokens * (widths + shape.hidden + shape.vocab) * per_value, rel=0.15)
    worker.backward_weight(1, 0)
    assert worker.saved_bytes == 2 * shape.boundary_bytes

    keeping = worker_of(small(2), 0)
    keeping.forward(0, 0, None)
    first = keeping.saved_bytes
    keeping.forward(0, 1, None)
    assert keeping.saved_bytes == 2 * first
    # Six times hidden, k and v, and three times ffn are the least; torch keeps a few more for norms and rotation.
    least = shape.tokens * (6 * shape.hidden + 2 * kv + 3 * shape.ffn) * per_value
    assert least < first < 1.7 * least


def test_initial_weights_depend_on_seed_and_chunk_alone(small: Any) -> None:
    import torch

    shape = small(3)
    both = worker_of(shape, 2, 1).weights()
    apart = torch.cat([worker_of(shape, 1).weights(), worker_of(shape, 2).weights()])
    assert torch.equal(both, apart)
    assert worker_of(shape, 1).weights_hash() == worker_of(shape, 1).weights_hash()
    assert worker_of(shape, 1).weights_hash() != worker_of(shape, 1, seed=6).weights_hash()


def test_the_loss_falls(small: Any) -> None:
    shape = small(2, boundary=8, dtype="float32", sequences=4)
    worker = worker_of(shape, 0, 1)
    losses = []
    for step in range(60):
        for microbatch in (2 * step, 2 * step + 1):
            worker.forward(1, microbatch, worker.forward(0, microbatch, None))
            worker.backward(0, microbatch, worker.backward(1, microbatch, None))
            losses.append(worker.take_loss(microbatch))
        worker.step(2)
    assert 4.0 < losses[0] < 5.5  # a guess is ln 64 = 4.16
    assert sum(losses[-10:]) / 10 < losses[0] - 1.0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda w, _s: w.forward(1, 0, None), "inputs of chunk 1: nothing, where"),
        (lambda w, s: w.forward(1, 0, crossing(s)[:1]), r"inputs of chunk 1: \(1, 8, 32\) of torch.float64, where"),
        (lambda w, s: w.forward(1, 0, crossing(s).float()), "of torch.float32, where"),
        (lambda w, s: w.forward(0, 0, crossing(s)), "chunk 0 draws its own tokens"),
        (lambda w, s: w.forward(2, 0, crossing(s)), "chunk 2 is not held here, but 0, 1"),
        (lambda w, s: w.backward(0, 0, crossing(s)), "chunk 0 keeps no forward of micro-batch 0"),
        (lambda w, _s: (w.forward(0, 0, None), w.backward(0, 0, None)), "gradient at chunk 0: nothing"),
        (lambda w, _s: (w.forward(0, 0, None), w.forward(0, 0, None)), "at work on micro-batch 0 already"),
        (lambda w, _s: w.backward_weight(0, 0), "no weight gradient of micro-batch 0"),
        (lambda w, _s: w.step(-1), "0 micro-batches or more"),
        (lambda w, _s: w.load_weights(w.weights()[1:]), "weights must be"),
        (lambda w, _s: w.set_gradients(w.weights().float()), "gradients must be"),
    ],
)
def test_what_does_not_fit_is_refused(call: Any, message: str, small: Any) -> None:
    shape = small(3)
    with pytest.raises(ValueError, match=message):
        call(worker_of(shape, 0, 1), shape)


def test_the_last_chunk_takes_no_gradient(small: Any) -> None:
    shape = small(2)
    worker = worker_of(shape, 1)
    worker.forward(1, 0, crossing(shape))
    with pytest.raises(ValueError, match="takes no gradient"):
        worker.backward(1, 0, crossing(shape))
    worker.backward(1, 0, None)  # the refusal has cost nothing


@pytest.mark.parametrize("chunks", [[], [0, 0], [3], [-1]])
def test_chunks_must_exist(chunks: list[int], small: Any) -> None:
    with pytest.raises(ValueError, match="distinct numbers from 0 to 2"):
        worker_of(small(3), *chunks)
