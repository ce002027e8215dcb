"""Machines dealt to stages: level in speed, within memory, never worse than as they stand in the file."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orionbed.placement import Floats, Order, candidates, exchanged, slowest, values_of

LEAST_SEEN = 0.93
"""Of 400 random cases of up to 3 stages and 9 machines 91.5 % were optimal, and the worst had 93.0 % of the optimum."""


def dealt(values: Floats, memory: list[float] | None = None) -> Order:
    found = candidates(values, memory or [1.0] * len(values))
    return max(found, key=lambda order: slowest(values, order))


def optimum(values: Floats) -> float:
    """The best that any order does: by trying them all."""
    num_machines, num_stages = values.shape
    each = num_machines // num_stages

    def best(stage: int, left: frozenset[int]) -> float:
        if stage == num_stages - 1:
            return float(sum(values[m, stage] for m in left))
        return max(
            min(sum(values[m, stage] for m in chosen), best(stage + 1, left - set(chosen)))
            for chosen in combinations(sorted(left), each)
        )

    return best(0, frozenset(range(num_machines)))


def random_values(seed: int) -> Floats:
    rng = np.random.default_rng(seed)
    num_stages, each = int(rng.integers(2, 4)), int(rng.integers(1, 4))
    speeds = rng.lognormal(0.0, 1.0, num_stages * each)
    return np.asarray(speeds[:, None] / rng.uniform(0.5, 2.0, num_stages)[None, :])


def test_the_result_is_close_to_the_optimum_on_small_cases() -> None:
    ratios = [slowest(values, dealt(values)) / optimum(values) for values in map(random_values, range(60))]
    assert max(ratios) <= 1.0 + 1e-9
    assert min(ratios) >= LEAST_SEEN
    assert np.median(ratios) == pytest.approx(1.0)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_it_is_a_rearrangement_and_never_worse_than_the_file(num_stages: int, each: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = values_of(
        rng.lognormal(0.0, 1.0, (num_stages * each, num_stages)), rng.random((num_stages * each, num_stages)) < 0.9
    )
    order = dealt(values, rng.lognormal(0.0, 1.0, len(values)).tolist())
    assert sorted(order) == list(range(len(values)))
    before = slowest(values, list(range(len(values))))
    assert slowest(values, order) >= before - 1e-12 * abs(before)


def test_machines_go_where_they_fit() -> None:
    # The fast machines are small, and fit the first stage only.
    rates = np.array([[9.0, 9.0], [9.0, 9.0], [1.0, 1.0], [1.0, 1.0]])
    fits = np.array([[True, False], [True, False], [True, True], [True, True]])
    values = values_of(rates, fits)
    assert sorted(dealt(values)[:2]) == [0, 1]
    assert slowest(values, dealt(values)) == 2.0


def test_equal_machines_stay_where_they_are() -> None:
    values = np.ones((6, 3))
    assert exchanged(values, list(range(6))) == list(range(6))


def test_fast_machines_come_first_in_their_stage() -> None:
    values = np.repeat(np.array([[1.0], [4.0], [2.0], [3.0]]), 2, axis=1)
    order = exchanged(values, [0, 2, 1, 3])
    assert [values[m, 0] for m in order] == [3.0, 2.0, 4.0, 1.0]
