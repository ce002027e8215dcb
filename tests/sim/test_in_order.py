"""Messages of one connection follow one another; everything else is as in any network."""

import random
from math import inf
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orionbed import tcp
from orionbed.bandwidth import PRESETS, varying_links
from orionbed.links import Jitter
from orionbed.streams import Streams
from sim.clock import Clock
from sim.filling import Profile
from sim.in_order import InOrderNetwork
from sim.links import PeerLinks, Storage, Transport
from sim.transfer import OVER, Transfer

START_S = 100.0
NUM_PEERS = 5
RATE = 1e6
DELAY_S = 0.25
OPEN = Transport(window_bytes=inf, tls=False)
both = pytest.mark.parametrize("fast", [True, False])


class Bench:
    """Five peers with links of 1 MB/s, a quarter of a second apart; times are counted from START_S on."""

    def __init__(
        self, *, fast: bool = True, transport: Transport = OPEN, jitter: Jitter | None = None, **links: Any
    ) -> None:
        self.clock = Clock()
        rates = np.full(NUM_PEERS, RATE)
        sites = np.zeros(NUM_PEERS, int)
        self.network = InOrderNetwork(
            self.clock,
            PeerLinks(rates, rates, sites, np.full((1, 1), DELAY_S), **links),
            Streams(0),
            transport=transport,
            jitter=jitter,
            fast=fast,
        )
        self.arrived: dict[str, float] = {}

    def warm(self) -> None:
        for source in range(NUM_PEERS):
            for target in range(NUM_PEERS):
                self.network.send(source, target, 0.0, lambda _: None)
        self.clock.run_to(START_S)

    def send(self, name: str, source: int, target: int, size_bytes: float) -> Transfer:
        return self.network.send(source, target, size_bytes, self.deliver, name)

    def deliver(self, name: str) -> None:
        assert name not in self.arrived
        self.arrived[name] = round(self.clock.now - START_S, 9)


@both
def test_the_second_message_of_a_connection_comes_one_transfer_after_the_first(fast: bool) -> None:
    bench = Bench(fast=fast)
    bench.warm()
    for name in ("first", "second", "third"):
        bench.send(name, 0, 1, 2e6)
    bench.clock.run()
    assert bench.arrived == {"first": 2.25, "second": 4.25, "third": 6.25}


@both
def test_a_message_that_comes_while_another_is_under_way_waits_for_it(fast: bool) -> None:
    bench = Bench(fast=fast)
    bench.warm()
    bench.send("first", 0, 1, 2e6)
    bench.clock.run_to(START_S + 1.5)
    bench.send("second", 0, 1, 1e6)
    bench.clock.run_to(START_S + 2.0)
    bench.send("at the very end", 0, 1, 1e6)
    bench.clock.run_to(START_S + 10.0)
    bench.send("later", 0, 1, 1e6)
    bench.clock.run()
    assert bench.arrived == {"first": 2.25, "second": 3.25, "at the very end": 4.25, "later": 11.25}


@both
def test_connections_share_an_uplink_and_each_shares_it_with_one_message_only(fast: bool) -> None:
    bench = Bench(fast=fast)
    bench.warm()
    bench.send("left", 0, 1, 1e6)
    bench.send("left again", 0, 1, 1e6)
    bench.send("right", 0, 2, 2e6)
    bench.clock.run()
    # Half the link each, though three messages want it: in 2 s one of two on the left, and half of the right.
    assert bench.arrived == {"left": 2.25, "left again": 4.25, "right": 4.25}


@both
def test_the_ways_there_and_back_are_two_connections(fast: bool) -> None:
    bench = Bench(fast=fast)
    bench.warm()
    bench.send("there", 0, 1, 2e6)
    bench.send("back", 1, 0, 2e6)
    bench.clock.run()
    assert bench.arrived == {"there": 2.25, "back": 2.25}


@both
def test_a_message_to_oneself_takes_no_time_and_waits_for_none(fast: bool) -> None:
    bench = Bench(fast=fast)
    bench.warm()
    for name in ("one", "two"):
        bench.send(name, 0, 0, 5e6)
    bench.clock.run()
    assert bench.arrived == {"one": 0.0, "two": 0.0}


@both
def test_empty_messages_keep_their_order(fast: bool) -> None:
    bench = Bench(fast=fast)
    bench.warm()
    for number in range(5):
        bench.send(str(number), 0, 1, 0.0)
    bench.clock.run()
    assert list(bench.arrived) == ["0", "1", "2", "3", "4"]
    assert set(bench.arrived.values()) == {0.25}


@both
def test_an_answer_sent_on_arrival_keeps_to_the_order(fast: bool) -> None:
    bench = Bench(fast=fast)
    bench.warm()
    bench.send("first", 0, 1, 1e6)
    bench.send("second", 0, 1, 1e6)
    bench.clock.call_at(START_S + 1.0, lambda _: bench.send("third", 0, 1, 1e6))
    bench.clock.run()
    assert bench.arrived == {"first": 1.25, "second": 2.25, "third": 3.25}


@both
def test_the_first_message_opens_the_connection_and_the_second_finds_it_open(fast: bool) -> None:
    bench = Bench(fast=fast, transport=Transport(window_bytes=inf))
    bench.clock.run_to(START_S)
    bench.send("first", 0, 1, 2e6)
    bench.send("second", 0, 1, 2e6)
    bench.clock.run()
    # Two round trips with TLS, then slow start for the first message alone.
    handshake_s = 4 * DELAY_S
    first_s = handshake_s + tcp.slow_start_s(2e6, RATE, 2 * DELAY_S) + DELAY_S
    assert bench.arrived == {"first": pytest.approx(first_s), "second": pytest.approx(first_s + 2.0)}


@both
def test_after_idle_slow_start_begins_anew_but_not_between_messages_in_a_row(fast: bool) -> None:
    bench = Bench(fast=fast, transport=Transport(window_bytes=inf, tls=False, slow_start_after_idle=True))
    bench.warm()
    bench.send("first", 0, 1, 2e6)
    bench.send("second", 0, 1, 2e6)
    bench.clock.run()
    slow_s = tcp.slow_start_s(2e6, RATE, 2 * DELAY_S) + DELAY_S
    assert bench.arrived == {"first": pytest.approx(slow_s), "second": pytest.approx(slow_s + 2.0)}


@both
def test_the_next_message_meets_the_capacity_of_its_own_time(fast: bool) -> None:
    def profile(peer: int, direction: str) -> Profile:
        return lambda now_s: (RATE, START_S + 3.0) if now_s < START_S + 3.0 else (RATE / 2.0, inf)

    bench = Bench(fast=fast, profile=profile)
    bench.warm()
    for name in ("first", "second", "third"):
        bench.send(name, 0, 1, 2e6)
    bench.clock.run()
    assert bench.arrived == {"first": 2.25, "second": 5.25, "third": 9.25}


@both
def test_a_crash_destroys_what_is_queued_and_a_later_message_works(fast: bool) -> None:
    bench = Bench(fast=fast)
    bench.warm()
    under_way = bench.send("under way", 0, 1, 2e6)
    bench.send("queued", 0, 1, 2e6)
    bench.send("of others", 2, 3, 2e6)
    bench.send("of others too", 2, 3, 2e6)
    bench.clock.run_to(START_S + 1.0)
    assert bench.network.cancel_peer(1) == [under_way]
    bench.send("later", 0, 1, 0.0)
    bench.clock.run()
    # The connection is closed, so it is opened again by a round trip.
    assert bench.arrived == {"of others": 2.25, "of others too": 4.25, "later": pytest.approx(1.0 + 0.5 + 0.25)}
    assert bench.network.bytes_sent == 6e6
    assert bench.network.bytes_destroyed == 1e6


@both
def test_cancelling_one_message_lets_the_next_begin(fast: bool) -> None:
    bench = Bench(fast=fast)
    bench.warm()
    first = bench.send("first", 0, 1, 2e6)
    bench.send("second", 0, 1, 2e6)
    bench.clock.run_to(START_S + 0.5)
    assert bench.network.cancel(first) == 1.5e6
    bench.clock.run()
    assert bench.arrived == {"second": 0.5 + 2.25}


def test_a_message_that_waits_can_be_asked_about_but_not_cancelled() -> None:
    bench = Bench()
    bench.warm()
    bench.send("first", 0, 1, 2e6)
    waiting = bench.send("second", 0, 1, 2e6)
    assert (waiting.source, waiting.target, waiting.size_bytes, waiting.state) == (0, 1, 2e6, OVER)
    assert bench.network.left(waiting) == bench.network.cancel(waiting) == 0.0
    bench.clock.run()
    assert bench.arrived == {"first": 2.25, "second": 4.25}


@pytest.mark.parametrize("size_bytes", [-1.0, float("nan")])
def test_a_size_that_is_none_is_told_at_once_also_when_the_message_would_wait(size_bytes: float) -> None:
    bench = Bench()
    bench.warm()
    bench.send("first", 0, 1, 2e6)
    with pytest.raises(ValueError, match="cannot send"):
        bench.send("second", 0, 1, size_bytes)


# ------------------------------------------------------------------------------------------------- random traffic

TRANSPORTS = {
    "warm": Transport(window_bytes=2e6),
    "two streams": Transport(streams=2, window_bytes=1e6),
    "cold": Transport(keep_warm=False),
    "after idle": Transport(slow_start_after_idle=True, tls=False),
    "lossy": Transport(loss=1e-5),
}


def make_network(
    clock: Clock, seed: int, transport: Transport, *, jitter: bool = False, caps: bool = False, **switches: Any
) -> InOrderNetwork:
    streams = Streams(seed)
    rng = random.Random(seed)
    bad = PRESETS["bad"]
    assert bad is not None
    up = np.array([rng.choice([1e7, 2e7, 5e7, 1e8]) for _ in range(NUM_PEERS)])
    down = np.array([rng.choice([1e7, 3e7, 1.5e8]) for _ in range(NUM_PEERS)])
    links = PeerLinks(
        up,
        down,
        np.arange(NUM_PEERS) % 2,
        np.array([[0.0, 0.02], [0.02, 0.005]]),
        profile=varying_links(bad, up, down, streams),
        site_uplink=6e7 if caps else inf,
        wan=4e7 if caps else inf,
    )
    return InOrderNetwork(
        clock, links, streams, transport=transport, jitter=Jitter(0.002, 0.02) if jitter else None,
        storage=Storage(0.015, 4, 1e8 if caps else inf), **switches,
    )  # fmt: skip


def arrivals(seed: int, transport: str, number: int = 200, **options: Any) -> dict[int, float]:
    clock = Clock()
    network = make_network(clock, seed, TRANSPORTS[transport], **options)
    rng = random.Random(seed)
    arrived: dict[int, float] = {}
    ways: dict[tuple[int, int], list[int]] = {}
    sent = 0.0

    def send(what: tuple[int, int, int, float]) -> None:
        index, source, target, size_bytes = what
        ways.setdefault((source, target), []).append(index)
        network.send(source, target, size_bytes, lambda i: arrived.setdefault(i, clock.now), index)

    for index in range(number):
        source, target = rng.sample(range(NUM_PEERS + 1), 2)
        size_bytes = float(rng.choice([0, 1500, 2_300_000, 2_300_000, 20_000_000, 100_000_000]))
        at_s = rng.choice([round(rng.uniform(0.0, 60.0), 1), rng.uniform(0.0, 60.0)])
        clock.call_at(at_s, send, (index, source, target, size_bytes))
        sent += size_bytes
    clock.run()
    assert len(arrived) == number
    assert network.bytes_in_flight == 0.0
    assert network.bytes_sent == network.bytes_delivered == sent
    for messages in ways.values():
        times = [arrived[index] for index in messages]
        assert times == sorted(times)
    return arrived


@pytest.mark.parametrize("jitter", [False, True])
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_the_quick_way_agrees_with_the_solver(transport: str, jitter: bool) -> None:
    for seed in range(8):
        quick = arrivals(seed, transport, jitter=jitter)
        slow = arrivals(seed, transport, jitter=jitter, fast=False)
        assert quick == pytest.approx(slow, rel=1e-9, abs=0.0), seed


@pytest.mark.parametrize("caps", [False, True])
def test_pruning_changes_nothing(caps: bool) -> None:
    for seed in range(8):
        assert arrivals(seed, "two streams", caps=caps) == arrivals(seed, "two streams", caps=caps, pruned=False)


operations = st.lists(
    st.tuples(
        st.sampled_from(["send", "send", "send", "cancel", "crash", "wait"]),
        st.integers(0, NUM_PEERS),
        st.integers(0, NUM_PEERS),
        st.integers(0, 50_000_000),
        st.floats(0.0, 3.0),
    ),
    max_size=40,
)


@settings(max_examples=100, deadline=None)
@given(operations, st.sampled_from(sorted(TRANSPORTS)), st.booleans(), st.booleans())
def test_every_byte_that_has_begun_is_delivered_destroyed_or_in_flight(
    ops: list[tuple[str, int, int, int, float]], transport: str, caps: bool, fast: bool
) -> None:
    clock = Clock()
    network = make_network(clock, 5, TRANSPORTS[transport], jitter=True, caps=caps, fast=fast)
    given_bytes = 0.0
    handed_over: list[tuple[Transfer, int]] = []
    arrived: list[int] = []
    doomed: set[int] = set()
    for kind, a, b, size_bytes, pause_s in ops:
        if kind == "send":
            transfer = network.send(a, b, float(size_bytes), arrived.append, len(handed_over))
            handed_over.append((transfer, len(handed_over)))
            given_bytes += size_bytes
        elif kind == "cancel" and handed_over:
            transfer, number = handed_over[a % len(handed_over)]
            if transfer.state != OVER:
                network.cancel(transfer)
                doomed.add(number)
        elif kind == "crash" and a < NUM_PEERS:
            network.cancel_peer(a)
            doomed |= {number for transfer, number in handed_over if a in {transfer.source, transfer.target}}
        else:
            clock.run_to(clock.now + pause_s)
        assert network.bytes_sent <= given_bytes
        parts = network.bytes_delivered + network.bytes_destroyed + network.bytes_in_flight
        assert parts == pytest.approx(network.bytes_sent, rel=1e-12)
    clock.run()
    assert network.bytes_in_flight == 0.0
    assert not network.fair_share.flows
    assert network.bytes_delivered + network.bytes_destroyed == network.bytes_sent
    assert len(arrived) == len(set(arrived))
    # Nothing that nobody cancelled is forgotten in a queue.
    assert {number for _, number in handed_over} - doomed <= set(arrived)


def test_messages_draw_their_jitter_in_one_order_when_much_happens_at_one_instant() -> None:
    def arrived(*, fast: bool) -> dict[str, float]:
        bench = Bench(fast=fast, jitter=Jitter(0.01))
        bench.warm()
        # At 2 s the first message has drained, and the next of its connection and one of another begin.
        bench.clock.call_at(START_S + 2.0, lambda _: bench.send("other", 2, 3, 1e6))
        bench.send("first", 0, 1, 2e6)
        bench.send("next", 0, 1, 2e6)
        bench.clock.run()
        return bench.arrived

    assert arrived(fast=True) == arrived(fast=False)
