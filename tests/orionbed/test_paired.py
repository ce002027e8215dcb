"""Paired differences and their intervals."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orionbed.paired import Difference, difference, quantile

# Student's t, 97.5 %, as every table has it.
TABLE = {1: 12.7062, 2: 4.3027, 3: 3.1824, 4: 2.7764, 5: 2.5706, 9: 2.2622, 10: 2.2281, 30: 2.0423, 100: 1.9840}


@pytest.mark.parametrize(("freedom", "expected"), TABLE.items())
def test_quantiles_are_those_of_the_tables(freedom: int, expected: float) -> None:
    assert quantile(freedom) == pytest.approx(expected, abs=5e-5)


def test_an_interval_by_hand() -> None:
    # Differences 1, 2, 3: mean 2, standard deviation 1, standard error 1/sqrt(3), t = 4.3027.
    found = difference([11.0, 22.0, 33.0], [10.0, 20.0, 30.0])
    assert found is not None
    assert (found.mean, found.num_pairs) == (2.0, 3)
    assert found.low == pytest.approx(2.0 - 4.3027 / 3**0.5, abs=1e-4)
    assert found.high == pytest.approx(2.0 + 4.3027 / 3**0.5, abs=1e-4)
    assert found.verdict == "not distinguishable"


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ([2.0, 2.1, 1.9], "higher"),
        ([-2.0, -2.1, -1.9], "lower"),
        ([1.0, -1.0, 0.5], "not distinguishable"),
        ([0.0, 0.0], "the same"),
        ([3.0], "no interval"),
        ([1.0, 1.0], "higher"),
    ],
)
def test_verdicts(values: list[float], verdict: str) -> None:
    found = difference(values, [0.0] * len(values))
    assert found is not None
    assert found.verdict == verdict


def test_pairs_that_lack_a_value_are_left_out() -> None:
    assert difference([1.0, None, 5.0], [0.0, 0.0, None]) == Difference(1.0, None, None, 1)
    assert difference([None], [1.0]) is None
    with pytest.raises(ValueError, match="argument"):
        difference([1.0], [])


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=8), st.floats(-1e3, 1e3))
def test_what_both_share_cancels(values: list[float], shift: float) -> None:
    """Adding the same to both sides of every pair changes nothing: that is what pairing is for."""
    zeros = [0.0] * len(values)
    plain, shifted = difference(values, zeros), difference([v + shift for v in values], [shift] * len(values))
    assert plain is not None
    assert shifted is not None
    assert shifted.mean == pytest.approx(plain.mean, abs=1e-6)
    assert shifted.high == pytest.approx(plain.high, abs=1e-4)
    assert plain.low is not None
    assert plain.high is not None
    assert plain.low <= plain.mean <= plain.high
