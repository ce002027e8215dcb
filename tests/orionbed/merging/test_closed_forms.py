"""Closed forms: what adds up, and what failures leave, against enumeration."""

from collections.abc import Callable
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orionbed.merging.closed_forms import Case, bytes_per_peer, expected_coverage, seconds

NAMES = ("ring", "tree", "central-ps", "sharded-ps", "gossip", "grouped", "gather", "butterfly")


def enumerated(n: int, q: float, attempts: int, succeeds: Callable[[list[int], set[int]], bool]) -> float:
    """Chance that a try succeeds when those who were silent are left out of the next, by going through all of them."""

    def from_here(left: list[int], tries: int) -> float:
        if not left or not tries:
            return 0.0
        total = 0.0
        for pattern in product((False, True), repeat=len(left)):
            silent = {peer for peer, is_silent in zip(left, pattern, strict=True) if is_silent}
            chance = q ** len(silent) * (1.0 - q) ** (len(left) - len(silent))
            others = [peer for peer in left if peer not in silent]
            total += chance * (1.0 if succeeds(left, silent) else from_here(others, tries - 1))
        return total

    return from_here(list(range(n)), attempts)


@pytest.mark.parametrize("n", [1, 2, 3, 5])
@pytest.mark.parametrize("q", [0.0, 0.1, 0.35, 1.0])
@pytest.mark.parametrize("attempts", [1, 3])
def test_retries_leave_what_enumeration_says(n: int, q: float, attempts: int) -> None:
    everybody = enumerated(n, q, attempts, lambda _left, silent: not silent)
    server = enumerated(n, q, attempts, lambda left, silent: left[0] not in silent)
    assert expected_coverage("ring", n, q, attempts) == pytest.approx(everybody, abs=1e-12)
    assert expected_coverage("tree", n, q, attempts) == pytest.approx(everybody, abs=1e-12)
    assert expected_coverage("central-ps", n, q, attempts) == pytest.approx(server, abs=1e-12)


@given(st.sampled_from(NAMES), st.integers(2, 20), st.floats(0.0, 1.0), st.integers(1, 4))
def test_coverage_falls_with_failures_and_grows_with_tries(name: str, n: int, q: float, attempts: int) -> None:
    found = expected_coverage(name, n, q, attempts)
    assert -1e-12 <= found <= 1.0 + 1e-12
    # With retries a ring of few is easier to get together than one of many, so that more failures may leave more.
    assert expected_coverage(name, n, q, 1) <= expected_coverage(name, n, 0.5 * q, 1) + 1e-12
    assert found <= expected_coverage(name, n, q, attempts + 1) + 1e-12


@given(st.sampled_from(NAMES), st.integers(1, 30), st.floats(1.0, 1e10))
def test_what_is_sent_is_received_and_twice_as_much_takes_twice_as_long(name: str, n: int, size: float) -> None:
    one, two = (Case(name, n, scale * size, scale * size) for scale in (1.0, 2.0))
    sent, received = bytes_per_peer(one)
    if name not in {"butterfly", "gather"}:
        assert sent == received
    assert bytes_per_peer(two) == pytest.approx((2.0 * sent, 2.0 * received))
    assert seconds(two, 1e6, 0.0) == pytest.approx(2.0 * seconds(one, 1e6, 0.0))


def test_orion_by_hand() -> None:
    weight_bytes, rate = 12.97e9, 107e6
    ring, tree = (Case(name, 3, weight_bytes) for name in ("ring", "tree"))
    assert bytes_per_peer(ring)[0] == pytest.approx(4 / 3 * weight_bytes)
    assert seconds(ring, rate, 0.0) == pytest.approx(4 / 3 * weight_bytes / rate)
    assert seconds(tree, rate, 0.0) == pytest.approx(4 * weight_bytes / rate)
