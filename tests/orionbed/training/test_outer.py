"""The outer optimizer by itself: torch's own steps, closed forms, means with weights, number formats."""

from typing import Any

import numpy as np
import pytest

from orionbed.training.outer import (
    RATE,
    mean_slice,
    merged_slice,
    momentum_at,
    narrowed,
    nesterov,
    weighted_mean,
    widened,
)

torch = pytest.importorskip("torch")


def test_momentum_is_warmed_up_in_a_line() -> None:
    assert [momentum_at(merge) for merge in (0, 5, 10, 20, 21, 1000)] == pytest.approx([0.5, 0.6, 0.7, 0.9, 0.9, 0.9])


def draws(seed: int, *shape: int) -> Any:
    return np.random.default_rng(seed).normal(size=shape)


def test_steps_are_those_of_torchs_sgd_with_nesterov_momentum() -> None:
    weights = draws(0, 1001)
    velocity = np.zeros_like(weights)
    parameter = torch.nn.Parameter(torch.tensor(weights))
    optimizer = torch.optim.SGD([parameter], lr=RATE, momentum=momentum_at(0), nesterov=True)
    for merge in range(25):
        gradient = draws(merge + 1, 1001)
        optimizer.param_groups[0]["momentum"] = momentum_at(merge)
        parameter.grad = torch.tensor(gradient)
        optimizer.step()
        weights, velocity = nesterov(weights, gradient, velocity, momentum_at(merge))
        assert np.array_equal(velocity, optimizer.state[parameter]["momentum_buffer"].numpy())
        # Of weights to the last bit only where torch does not fuse: ATEN_CPU_CAPABILITY=default.
        after = parameter.detach().numpy()
        assert np.abs(weights - after).max() <= 4 * np.spacing(np.abs(after).max() + np.abs(velocity).max())
        weights = after.copy()


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_a_constant_gradient_adds_up_as_a_geometric_series(momentum: float) -> None:
    weights, velocity = np.zeros(3), np.zeros(3)
    gradient = np.array([1.0, -2.0, 0.5])
    num_steps = 40
    for _ in range(num_steps):
        weights, velocity = nesterov(weights, gradient, velocity, momentum)
    grown = [sum(momentum**power for power in range(step)) for step in range(1, num_steps + 1)]
    assert velocity == pytest.approx(grown[-1] * gradient, rel=1e-13)
    assert weights == pytest.approx(-RATE * sum(1.0 + momentum * each for each in grown) * gradient, rel=1e-13)
    # in the end every step is as long as 1 / (1 - momentum) plain ones
    last = nesterov(weights, gradient, velocity, momentum)[0] - weights
    assert last == pytest.approx(-RATE * gradient / (1.0 - momentum), rel=0.02)


@pytest.mark.parametrize("works", [[3, 1, 2], [0, 5, 5], [7, 0, 0]])
def test_means_are_weighted_with_work(works: list[int]) -> None:
    rows = draws(1, 3, 50)
    assert weighted_mean(rows, works) == pytest.approx(np.average(rows, axis=0, weights=works), rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("works", [[0, 0, 0], [4, 4, 4]])
def test_equal_works_make_the_plain_mean_to_the_bit(works: list[int], dtype: str) -> None:
    rows = draws(2, 3, 50).astype(dtype)
    assert mean_slice([row.tobytes() for row in rows], works, dtype) == rows.mean(axis=0).tobytes()


def test_the_first_merge_begins_the_momentum_with_the_pseudo_gradient() -> None:
    old, rows = draws(3, 20), draws(4, 2, 20)
    bodies = [row.tobytes() for row in rows]
    weights, velocity = merged_slice(bodies, [1, 1], old.tobytes(), bytes(160), merge=0, number_format="float64")
    gradient = old - rows.mean(axis=0)
    assert np.frombuffer(velocity) == pytest.approx(gradient, rel=1e-12)
    assert np.frombuffer(weights) == pytest.approx(old - RATE * 1.5 * gradient, rel=1e-12)


@pytest.mark.parametrize("num_rows", [1, 2, 3])
def test_bfloat16_is_torchs_and_its_sums_are_wider(num_rows: int) -> None:
    old, velocity, *rows = (each.to(torch.bfloat16) for each in torch.tensor(draws(5, 2 + num_rows, 1000)))
    gradient = torch.stack([old.float() - row.float() for row in rows]).mean(dim=0)
    after = 0.5 * velocity.float() + gradient
    expected = (old.float() - RATE * (gradient + 0.5 * after)).to(torch.bfloat16), after.to(torch.bfloat16)
    bodies = [each.view(torch.int16).numpy().tobytes() for each in (old, velocity, *rows)]
    merged = merged_slice(bodies[2:], [1] * num_rows, *bodies[:2], merge=0, number_format="bfloat16")
    for found, wanted in zip(merged, expected, strict=True):
        values = torch.frombuffer(bytearray(found), dtype=torch.bfloat16)
        assert torch.allclose(values.float(), wanted.float(), rtol=2**-7, atol=0.0)
        assert float((values != wanted).float().mean()) < 0.01  # a sum in another order may round the other way


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
def test_values_of_a_format_stay_as_they_are(dtype: str) -> None:
    body = narrowed(draws(6, 100), dtype)
    assert narrowed(widened(body, dtype), dtype) == body
    assert widened(body, dtype) == pytest.approx(draws(6, 100), rel=2**-8)


@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_an_empty_slice_stays_empty(dtype: str) -> None:
    assert merged_slice([b"", b""], [1, 2], b"", b"", merge=0, number_format=dtype) == (b"", b"")
    assert mean_slice([b"", b""], [1, 2], dtype) == b""
