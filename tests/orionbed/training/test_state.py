"""What a worker saves: it continues bit for bit, and what is not its own is refused and changes nothing."""

from typing import Any

import pytest

from orionbed.scenario.training import InnerOptimizer
from orionbed.training.shape import parameters_of
from orionbed.training.worker import StageWorker


def trained(shape: Any, *, steps: int, optimizer: str = "adamw") -> StageWorker:
    worker = StageWorker(shape, [0, 1], seed=5, optimizer=InnerOptimizer(kind=optimizer, learning_rate=1e-2))
    go_on(worker, range(steps))
    return worker


def go_on(worker: StageWorker, microbatches: range) -> None:
    for microbatch in microbatches:
        worker.forward(1, microbatch, worker.forward(0, microbatch, None))
        worker.backward(0, microbatch, worker.backward(1, microbatch, None))
        worker.step(1)


@pytest.mark.parametrize("optimizer", ["adamw", "nadam", "muon", "sgd"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_it_continues_bit_for_bit(optimizer: str, dtype: str, small: Any) -> None:
    worker = trained(small(2, dtype=dtype), steps=3, optimizer=optimizer)
    state = worker.state()
    go_on(worker, range(3, 5))

    other = trained(small(2, dtype=dtype), steps=0, optimizer=optimizer)
    assert other.state_hash() != worker.state_hash()
    other.load_state(state)
    assert other.state() == state
    go_on(other, range(3, 5))
    assert other.state_hash() == worker.state_hash()
    assert other.weights_hash() == worker.weights_hash()

    num_weights = sum(parameters_of(worker.shape, chunk) for chunk in (0, 1))
    in_matrices = 2 * (2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 48)
    width = {"float32": 4, "float64": 8}[dtype]
    num_values = {"adamw": 3 * num_weights, "sgd": num_weights}
    num_values |= {"nadam": 3 * num_weights, "muon": 3 * num_weights - in_matrices}
    assert len(state) == 40 + num_values[optimizer] * width


@pytest.mark.parametrize("optimizer", ["adamw", "nadam", "muon", "sgd"])
def test_a_worker_that_has_gone_further_goes_back_bit_for_bit(optimizer: str, small: Any) -> None:
    worker = trained(small(2), steps=2, optimizer=optimizer)
    state = worker.state()
    go_on(worker, range(2, 4))
    expected = worker.state_hash()
    worker.load_state(state)
    go_on(worker, range(2, 4))
    assert worker.state_hash() == expected


def test_momentum_of_sgd_is_saved(small: Any) -> None:
    plain = InnerOptimizer(kind="sgd", learning_rate=1e-2)
    one, other, without = (
        StageWorker(small(1), [0], seed=5, optimizer=settings)
        for settings in [plain.model_copy(update={"momentum": 0.9})] * 2 + [plain]
    )
    one.forward_backward(0, 0, None)
    one.step(1)
    other.load_state(one.state())
    for worker in (one, other):
        worker.forward_backward(0, 1, None)
        worker.step(1)
    assert one.state_hash() == other.state_hash()
    with pytest.raises(ValueError, match="should have"):
        without.load_state(one.state())


def test_loading_drops_what_was_begun(small: Any) -> None:
    worker = trained(small(2), steps=1)
    state = worker.state()
    worker.forward(1, 8, worker.forward(0, 8, None))
    worker.backward(1, 8, None)
    worker.load_state(state)
    assert (worker.num_accumulated, worker.saved_bytes) == (0, 0)
    assert not worker.gradients().any()


def test_the_steps_taken_matter_to_adam(small: Any) -> None:
    worker, copy = trained(small(2), steps=3), trained(small(2), steps=0)
    copy.load_weights(worker.weights())
    assert copy.weights_hash() == worker.weights_hash()
    assert copy.state_hash() != worker.state_hash()
    go_on(worker, range(3, 4))
    go_on(copy, range(3, 4))
    assert copy.weights_hash() != worker.weights_hash()


def flipped(state: bytes, position: int) -> bytes:
    return state[:position] + bytes([state[position] ^ 1]) + state[position + 1 :]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda _state, _small: b"", "do not begin like a saved state"),
        (lambda state, _small: state[:39], "do not begin like a saved state"),
        (lambda state, _small: b"PK" + state[2:], "do not begin like a saved state"),
        (lambda state, _small: state[:-1], "cut off"),
        (lambda state, _small: state[:40], "cut off"),
        (lambda state, _small: state + b"0", "should have"),
        (lambda state, _small: flipped(state, 1000), "checksum"),
        (lambda _state, small: trained(small(2), steps=1, optimizer="sgd").state(), "another optimizer"),
        (lambda _state, small: trained(small(2), steps=1, optimizer="nadam").state(), "another optimizer"),
        (lambda _state, small: trained(small(2, dtype="float32"), steps=1).state(), "number format"),
        (lambda _state, small: trained(small(2, hidden=40), steps=1).state(), "another model"),
        (lambda _state, small: trained(small(2, heads=8), steps=1).state(), "another model"),
        (lambda _state, small: trained(small(3), steps=0).state(), "another piece"),
    ],
)
def test_what_is_not_its_state_is_refused_and_changes_nothing(spoil: Any, message: str, small: Any) -> None:
    worker = trained(small(2), steps=2)
    before = worker.state_hash()
    with pytest.raises(ValueError, match=message):
        worker.load_state(spoil(worker.state(), small))
    assert worker.state_hash() == before


def test_pieces_of_equal_size_are_told_apart(small: Any) -> None:
    shape = small(4)
    second, third = (
        StageWorker(shape, [chunk], seed=5, optimizer=InnerOptimizer(learning_rate=1e-2)) for chunk in (1, 2)
    )
    assert len(second.state()) == len(third.state())
    with pytest.raises(ValueError, match="another piece"):
        second.load_state(third.state())
