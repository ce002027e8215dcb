"""Who merges what: every slice by a pair, every value once, and the bytes that the published description gives."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orionbed.butterfly import butterfly_bytes, pairs_of, slice_bounds


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
