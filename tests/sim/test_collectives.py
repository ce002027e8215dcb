"""Collectives alone on equal links: their times and bytes are those of the closed forms."""

from collections.abc import Callable
from math import ceil, inf, log2
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orionbed.streams import Streams
from sim.clock import Clock
from sim.collectives import ALGORITHMS
from sim.in_order import InOrderNetwork
from sim.links import PeerLinks, Storage, Transport
from sim.network import Network

START_S = 100.0

CLOSED_FORMS: dict[str, Callable[[int, float, float, float], float]] = {
    "ring": lambda n, b, r, d: 2 * (n - 1) * (b / n / r + d),
    "tree": lambda n, b, r, d: 2 * ceil(log2(n)) * (b / r + d),
    "sharded-ps": lambda n, b, r, d: 2 * ((n - 1) / n * b / r + d),
    "central-ps": lambda n, b, r, d: 2 * ((n - 1) * b / r + d),
    "gather": lambda n, b, r, d: n * b / r + 2 * d,
    "all-to-all": lambda n, b, r, d: (n - 1) * b / r + d,
}
ALL_BYTES: dict[str, Callable[[int, float], float]] = {
    "ring": lambda n, b: 2 * (n - 1) * b,
    "tree": lambda n, b: 2 * (n - 1) * b,
    "sharded-ps": lambda n, b: 2 * (n - 1) * b,
    "central-ps": lambda n, b: 2 * (n - 1) * b,
    "gather": lambda n, b: n * b,
    "all-to-all": lambda n, b: n * (n - 1) * b,
}
SHAPES: dict[str, Any] = {
    "count": st.integers(1, 9),
    "num_bytes": st.one_of(st.just(0.0), st.floats(1e3, 1e9)),
    "rate": st.floats(1e5, 1e9),
    "delay_s": st.one_of(st.just(0.0), st.floats(1e-4, 0.5)),
}
algorithms = pytest.mark.parametrize("algorithm", sorted(ALGORITHMS))
networks = pytest.mark.parametrize("make", [Network, InOrderNetwork])


class Bench:
    """Peers that have all met before, with equal links; and when an exchange between some of them was done."""

    def __init__(
        self, make: type[Network], count: int, rate: float, delay_s: float, uplinks: dict[int, float] | None = None
    ) -> None:
        self.clock = Clock()
        up = np.full(count, rate)
        for peer, slower in (uplinks or {}).items():
            up[peer] = slower
        links = PeerLinks(up, np.full(count, rate), np.zeros(count, int), np.full((1, 1), delay_s))
        transport = Transport(window_bytes=inf, tls=False)
        self.network = make(self.clock, links, Streams(0), transport=transport, storage=Storage(delay_s))
        for source in range(count + 1):
            for target in range(count + 1):
                self.network.send(source, target, 0.0, lambda _: None)
        self.clock.run_to(START_S)
        self.done_s: list[float] = []

    def exchange(self, algorithm: str, peers: list[int], num_bytes: float) -> Any:
        return ALGORITHMS[algorithm](
            self.network, peers, num_bytes, lambda: self.done_s.append(self.clock.now - START_S)
        )


@networks
@algorithms
@settings(max_examples=25, deadline=None)
@given(**SHAPES)
def test_an_exchange_takes_what_its_closed_form_says(
    make: type[Network], algorithm: str, count: int, num_bytes: float, rate: float, delay_s: float
) -> None:
    bench = Bench(make, count, rate, delay_s)
    exchange = bench.exchange(algorithm, list(range(count)), num_bytes)
    bench.clock.run()
    expected_s = CLOSED_FORMS[algorithm](count, num_bytes, rate, delay_s) if count > 1 else 0.0
    assert bench.done_s == [pytest.approx(expected_s, rel=1e-9, abs=1e-9)]
    expected_bytes = ALL_BYTES[algorithm](count, num_bytes) if count > 1 else 0.0
    assert exchange.sent_bytes == pytest.approx(expected_bytes, rel=1e-12)
    assert bench.network.bytes_up.sum() == pytest.approx(expected_bytes, rel=1e-12)


@algorithms
def test_one_peer_agrees_with_itself_at_once(algorithm: str) -> None:
    bench = Bench(Network, 3, 1e6, 0.1)
    exchange = bench.exchange(algorithm, [1], 5e6)
    assert bench.done_s == [0.0]
    assert exchange.sent_bytes == bench.network.bytes_sent == 0.0


SENT: dict[str, list[float]] = {
    "ring": [7.5e6] * 4,
    # Peer 2 gives its own and that of 3 to peer 0, and gets for both; 1 and 3 only give.
    "tree": [10e6, 5e6, 10e6, 5e6],
    "sharded-ps": [7.5e6] * 4,
    "central-ps": [15e6, 5e6, 5e6, 5e6],
    "gather": [5e6] * 4,
    "all-to-all": [15e6] * 4,
}
RECEIVED = SENT | {"gather": [15e6] * 4}


@algorithms
def test_each_of_four_peers_moves_its_part(algorithm: str) -> None:
    bench = Bench(Network, 6, 1e6, 0.1)
    bench.exchange(algorithm, [5, 3, 1, 4], 5e6)
    bench.clock.run()
    assert bench.network.bytes_up[[5, 3, 1, 4]].tolist() == SENT[algorithm]
    assert bench.network.bytes_down[[5, 3, 1, 4]].tolist() == RECEIVED[algorithm]
    assert bench.network.bytes_up[[0, 2]].tolist() == [0.0, 0.0]


@algorithms
@settings(max_examples=25, deadline=None)
@given(count=st.integers(2, 6), part=st.floats(0.0, 0.999))
def test_what_is_abandoned_is_never_done(algorithm: str, count: int, part: float) -> None:
    whole_s = CLOSED_FORMS[algorithm](count, 4e6, 1e6, 0.2)
    bench = Bench(Network, count, 1e6, 0.2)
    exchange = bench.exchange(algorithm, list(range(count)), 4e6)
    bench.clock.run_to(START_S + part * whole_s)
    so_far = exchange.sent_bytes
    exchange.abandon()
    bench.clock.run()
    assert bench.done_s == []
    assert exchange.sent_bytes == so_far == pytest.approx(bench.network.bytes_up.sum(), rel=1e-12)


@algorithms
def test_two_exchanges_of_different_peers_do_not_meet(algorithm: str) -> None:
    bench = Bench(Network, 6, 1e6, 0.1)
    bench.exchange(algorithm, [0, 1, 2], 3e6)
    bench.exchange(algorithm, [3, 4, 5], 3e6)
    bench.clock.run()
    assert bench.done_s == [pytest.approx(CLOSED_FORMS[algorithm](3, 3e6, 1e6, 0.1), rel=1e-9)] * 2


def test_a_ring_waits_for_its_slowest_uplink_in_every_round() -> None:
    bench = Bench(InOrderNetwork, 4, 1e6, 0.1, uplinks={2: 0.5e6})
    bench.exchange("ring", [0, 1, 2, 3], 4e6)
    bench.clock.run()
    # The six parts of peer 2 follow one another without a pause: two seconds each, while those it needs come in one.
    # The first of them sets out at once and the last arrives a delay later; nobody waits for more than that.
    assert bench.done_s[0] == pytest.approx(6 * 2.0 + 0.1, rel=1e-9)
