"""Who merges what: every slice by a pair, every value once, and the bytes that the published description gives."""

from itertools import combinations, pairwise
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orionbed.merging.butterfly import (
    agreement,
    butterfly_bytes,
    coverage,
    pairs_of,
    random_pairs,
    slice_bounds,
)


def test_thirteen_gigabytes_at_three_peers_are_30_up_and_48_down() -> None:
    amounts = butterfly_bytes(13e9, 3)
    assert amounts.up == pytest.approx(13e9 + 2.0 * 2.0 / 3.0 * 13e9)
    assert amounts.down == pytest.approx((3.0 + 1.0) * 2.0 / 3.0 * 13e9 + 13e9)
    assert round(amounts.up / 1e9) == 30
    assert round(amounts.down / 1e9) == 48


@pytest.mark.parametrize("count", [1, 2])
def test_one_or_two_peers_handle_everything(count: int) -> None:
    amounts = butterfly_bytes(1.0, count)
    assert (amounts.gradients_up, amounts.partitions_up, amounts.weights_down) == (1.0, 2.0, 1.0)
    assert amounts.partitions_down == count + 1.0


def test_whoever_is_alone_merges_the_only_slice() -> None:
    assert pairs_of([4]) == [(4,)]


def test_the_order_of_members_does_not_matter() -> None:
    assert pairs_of([5, 1, 3]) == [(1, 3), (1, 5), (3, 5)]


@given(st.sets(st.integers(0, 99), min_size=2, max_size=9))
def test_every_pair_has_one_slice_and_every_peer_two_nths(members: set[int]) -> None:
    pairs, count = pairs_of(list(members)), len(members)
    assert len(pairs) == len(set(pairs)) == count * (count - 1) // 2
    for member in members:
        assert sum(member in pair for pair in pairs) / len(pairs) == pytest.approx(min(1.0, 2.0 / count))


@given(st.integers(0, 1000), st.integers(1, 50))
def test_slices_cover_every_value_once_and_are_of_almost_equal_length(num_values: int, num_slices: int) -> None:
    bounds = [slice_bounds(num_values, num_slices, number) for number in range(num_slices)]
    assert bounds[0][0] == 0
    assert bounds[-1][1] == num_values
    assert all(one[1] == other[0] for one, other in pairwise(bounds))
    lengths = [high - low for low, high in bounds]
    assert max(lengths) - min(lengths) <= 1


@given(st.sets(st.integers(0, 99), min_size=2, max_size=50))
def test_every_two_peers_share_exactly_one_slice(members: set[int]) -> None:
    shared = agreement(pairs_of(list(members)), sorted(members))
    expected = np.ones_like(shared)
    np.fill_diagonal(expected, len(members) - 1)
    assert (shared == expected).all()


@given(st.integers(2, 30), st.integers(0, 99))
def test_random_pairs_give_everybody_four_slices(count: int, seed: int) -> None:
    members = list(range(10, 10 + count))
    slices = random_pairs(members, np.random.default_rng(seed))
    assert len(slices) == 2 * count
    assert all(len(set(pair)) == 2 for pair in slices)
    assert agreement(slices, members).diagonal().tolist() == [4] * count
    assert random_pairs([3], np.random.default_rng(0)) == [(3,)]


@pytest.mark.parametrize("failed", range(11))
def test_the_share_without_a_holder_is_that_of_the_failed_pairs(failed: int) -> None:
    lost = 1.0 - coverage(pairs_of(range(10)), range(failed, 10))
    assert lost == pytest.approx(failed * (failed - 1) / (10 * 9))


@pytest.mark.parametrize("count", [2, 3, 5, 8])
@pytest.mark.parametrize("q", [0.0, 0.1, 0.35, 1.0])
@pytest.mark.parametrize("scheme", ["pairs", "2026"])
def test_expected_coverage_is_one_minus_q_squared(count: int, q: float, scheme: str) -> None:
    peers = list(range(count))
    slices = pairs_of(peers) if scheme == "pairs" else random_pairs(peers, np.random.default_rng(count))
    expected = 0.0
    for num_through in range(count + 1):
        chance = (1.0 - q) ** num_through * q ** (count - num_through)
        expected += chance * sum(coverage(slices, through) for through in combinations(peers, num_through))
    assert expected == pytest.approx(1.0 - q**2, abs=1e-12)


def test_drawn_failures_leave_one_minus_q_squared() -> None:
    random = np.random.default_rng(7)
    slices = pairs_of(range(50))
    seen = [coverage(slices, np.flatnonzero(random.random(50) >= 0.35)) for _ in range(200)]
    assert np.mean(seen) == pytest.approx(1.0 - 0.35**2, abs=4 * np.std(seen) / len(seen) ** 0.5)
    assert comb(50, 2) == len(slices)


def test_a_third_of_failures_is_what_a_floor_of_90_percent_bears() -> None:
    assert 1.0 - 0.316**2 >= 0.9 > 1.0 - 0.317**2
    assert round(1.0 - 0.35**2, 3) == 0.878
