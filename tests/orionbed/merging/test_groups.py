"""Who averages with whom: everybody once per round, and the exact mean where a grid is full."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orionbed.merging.groups import grid_groups, num_rounds, random_partners


@given(st.integers(1, 40), st.integers(0, 99))
def test_gossip_leaves_nobody_out_but_an_odd_one(count: int, seed: int) -> None:
    pairs = random_partners(range(count), np.random.default_rng(seed))
    assert sorted(member for pair in pairs for member in pair) == list(range(count))
    assert [len(pair) for pair in pairs] == [2] * (count // 2) + [1] * (count % 2)


@given(st.integers(1, 70), st.integers(2, 5), st.integers(0, 5))
def test_a_round_puts_everybody_in_one_group(count: int, size: int, number: int) -> None:
    dimensions = num_rounds(count, size)
    assert size ** (dimensions - 1) < count <= size**dimensions or dimensions == 1
    groups = grid_groups(range(count), size, dimensions, number)
    assert sorted(member for group in groups for member in group) == list(range(count))
    assert all(len(group) <= size for group in groups)


@given(st.integers(2, 4), st.integers(1, 3), st.data())
def test_a_full_grid_has_the_exact_mean_after_one_round_per_dimension(
    size: int, dimensions: int, data: st.DataObject
) -> None:
    count = size**dimensions
    values = [Fraction(data.draw(st.integers(-9, 9))) for _ in range(count)]
    now = list(values)
    for number in range(dimensions):
        for group in grid_groups(range(count), size, dimensions, number):
            mean = sum((now[member] for member in group), Fraction()) / len(group)
            for member in group:
                now[member] = mean
    assert now == [sum(values, Fraction()) / count] * count


def test_nine_peers_in_threes_are_rows_and_columns() -> None:
    assert grid_groups(range(9), 3, 2, 0) == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    assert grid_groups(range(9), 3, 2, 1) == [[0, 3, 6], [1, 4, 7], [2, 5, 8]]
    assert grid_groups(range(5), 3, 2, 1) == [[0, 3], [1, 4], [2]]
    assert grid_groups(range(9), 3, 2, 2) == grid_groups(range(9), 3, 2, 0)


@pytest.mark.parametrize(("count", "size", "rounds"), [(1, 4, 1), (4, 4, 1), (5, 4, 2), (16, 4, 2), (17, 4, 3)])
def test_rounds_of_a_grid(count: int, size: int, rounds: int) -> None:
    assert num_rounds(count, size) == rounds
