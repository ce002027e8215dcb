"""What faults do to messages: closed forms, bytes that do not pass, chunks that are sent again."""

import csv
from collections.abc import Callable
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orionbed import tcp
from orionbed.fault_effects import LinkState, num_chunks
from orionbed.links import Jitter
from orionbed.streams import Streams
from sim.clock import CAPACITY, Clock
from sim.disturbing import CALM, Disturbance, DisturbedInOrderNetwork, DisturbedNetwork
from sim.links import PeerLinks, Storage, Transport
from sim.network import Network
from sim.transfer import Transfer

CASES = Path(__file__).parent.parent / "data" / "network" / "network_cases.csv"
MBPS = 1e6 / 8.0
START_S = 100.0
OPEN = Transport(window_bytes=inf, tls=False)
BLOCKED = Disturbance(there=LinkState(blocked="blackhole"))
both = pytest.mark.parametrize("make", [DisturbedNetwork, DisturbedInOrderNetwork])


class Bench:
    """Peers with links of `rate` bytes/s, `delay_s` apart; times are counted from START_S on."""

    def __init__(
        self,
        make: Callable[..., Network] = DisturbedNetwork,
        *,
        num_peers: int = 3,
        rate: float = 100e6,
        delay_s: float = 0.0,
        transport: Transport = OPEN,
        **options: Any,
    ) -> None:
        self.clock = Clock()
        rates = np.full(num_peers, rate)
        links = PeerLinks(rates, rates, np.arange(num_peers), np.full((num_peers, num_peers), delay_s))
        self.network = make(self.clock, links, Streams(0), transport=transport, **options)
        self.arrived: dict[str, float] = {}
        for source in range(num_peers):
            for target in range(num_peers):
                self.network.send(source, target, 0.0, lambda _: None)
        self.clock.run_to(START_S)

    def send(self, name: str, source: int, target: int, num_bytes: float, at_s: float = 0.0) -> list[Transfer]:
        sent: list[Transfer] = []
        self.clock.call_at(
            START_S + at_s, lambda _: sent.append(self.network.send(source, target, num_bytes, self.deliver, name))
        )
        return sent

    def deliver(self, name: str) -> None:
        assert name not in self.arrived
        self.arrived[name] = self.clock.now - START_S

    def disturb(self, at_s: float, *pairs: tuple[int, int], **what: Any) -> None:
        disturbance = Disturbance(**what)
        assert isinstance(self.network, DisturbedNetwork)
        network = self.network
        self.clock.call_at(
            START_S + at_s, lambda _: network.disturb(dict.fromkeys(pairs, disturbance)), priority=CAPACITY
        )

    def block(self, at_s: float, until_s: float, *pairs: tuple[int, int]) -> None:
        self.disturb(at_s, *pairs, there=LinkState(blocked="blackhole"))
        self.disturb(until_s, *pairs)


def of_case(name: str) -> dict[str, float]:
    with CASES.open() as file:
        return {row["flow"]: float(row["drained_s"]) for row in csv.DictReader(file) if row["case"].startswith(name)}


@both
def test_a_link_at_a_tenth_for_a_second(make: Callable[..., Network]) -> None:
    bench = Bench(make, rate=800 * MBPS)
    bench.send("f1", 0, 1, 100e6)
    bench.disturb(0.4, (0, 1), capacity=80 * MBPS)
    bench.disturb(1.4, (0, 1))
    bench.clock.run()
    assert bench.arrived == {"f1": pytest.approx(of_case("c11")["f1"], rel=1e-9)}


@both
def test_a_partition_for_two_seconds(make: Callable[..., Network]) -> None:
    bench = Bench(make, rate=800 * MBPS, num_peers=4)
    bench.send("f1", 0, 1, 100e6)
    bench.send("f2", 2, 3, 100e6)
    bench.block(0.5, 2.5, (0, 1))
    bench.clock.run()
    expected = of_case("c12")
    assert bench.arrived == {name: pytest.approx(expected[name], rel=1e-9) for name in ("f1", "f2")}


def test_messages_of_a_pair_share_its_capacity() -> None:
    bench = Bench()
    bench.disturb(0.0, (0, 1), capacity=10e6)
    for name in ("a", "b"):
        bench.send(name, 0, 1, 10e6)
    bench.send("other", 0, 2, 80e6)
    bench.clock.run()
    assert bench.arrived == {"a": pytest.approx(2.0), "b": pytest.approx(2.0), "other": pytest.approx(80.0 / 90.0)}


@both
@pytest.mark.parametrize("size", [0.0, 1e6, 30e6, 200e6])
def test_nothing_passes_a_blocked_way(make: Callable[..., Network], size: float) -> None:
    """Neither what was under way, nor what is sent meanwhile; what had left arrives within the one-way delay."""
    bench = Bench(make, delay_s=0.1)
    bench.block(1.0, 3.0, (0, 1))
    for number in range(40):
        bench.send(f"m{number}", 0, 1, size, at_s=number * 0.1)
    downlink = []
    for at_s in (1.0, 1.5, 2.9999):
        bench.clock.call_at(START_S + at_s, lambda _: downlink.append(bench.network.bytes_down[1]))
    bench.clock.run()
    assert len(bench.arrived) == 40
    assert not [at_s for at_s in bench.arrived.values() if 1.1 < at_s < 3.0]
    assert downlink[0] == pytest.approx(downlink[1], abs=1.0) == pytest.approx(downlink[2], abs=1.0)
    assert bench.network.bytes_delivered == pytest.approx(40 * size)


@both
def test_what_was_under_way_goes_on_where_it_stopped(make: Callable[..., Network]) -> None:
    bench = Bench(make, delay_s=0.05)
    bench.send("whole", 0, 1, 100e6)
    bench.block(0.25, 0.5, (0, 1))
    bench.block(0.75, 2.0, (0, 1))
    bench.clock.run()
    assert bench.arrived == {"whole": pytest.approx(1.0 + 0.25 + 1.25 + 0.05, rel=1e-9)}


def test_a_longer_delay_holds_for_what_is_sent_from_then_on() -> None:
    bench = Bench(delay_s=0.1)
    bench.send("before", 0, 1, 10e6)
    bench.disturb(0.05, (0, 1), there=LinkState(extra_owd_s=0.2))
    bench.send("while", 0, 1, 10e6, at_s=0.5)
    bench.send("back", 1, 0, 10e6, at_s=0.5)
    bench.disturb(0.55, (0, 1))
    bench.send("after", 0, 1, 10e6, at_s=1.0)
    bench.clock.run()
    assert bench.arrived == {
        "before": pytest.approx(0.2), "while": pytest.approx(0.9), "back": pytest.approx(0.7),
        "after": pytest.approx(1.2),
    }  # fmt: skip


@pytest.mark.parametrize("way", [(0, 1), (1, 0)])
def test_a_longer_round_trip_lowers_the_window_ceiling_both_ways(way: tuple[int, int]) -> None:
    bench = Bench(delay_s=0.05, transport=Transport(window_bytes=1e6, tls=False))
    both_ways = [(0, 1), (1, 0)]
    for pair in both_ways:
        there, back = (LinkState(extra_owd_s=0.1) if end == way else LinkState() for end in (pair, pair[::-1]))
        bench.disturb(0.0, pair, there=there, back=back)
    bench.send("m", 0, 1, 10e6)
    bench.clock.run()
    assert bench.arrived["m"] == pytest.approx(10e6 / (1e6 / 0.2) + (0.15 if way == (0, 1) else 0.05))


def test_lost_packets_bound_the_rate() -> None:
    scenario_loss, more = 1e-4, 1e-3
    bench = Bench(rate=1e9, delay_s=0.03, transport=Transport(window_bytes=inf, loss=scenario_loss, tls=False))
    bench.disturb(0.0, (0, 1), there=LinkState(loss=more))
    bench.send("m", 0, 1, 10e6)
    bench.clock.run()
    ceiling = tcp.loss_ceiling("cubic", scenario_loss + more - scenario_loss * more, 0.06)
    assert bench.arrived["m"] == pytest.approx(10e6 / ceiling + 0.03)


def test_jitter_is_added_and_comes_from_its_own_stream() -> None:
    jitter = Jitter(sd_s=0.001, spike_probability=0.0)
    plain, disturbed = (Bench(delay_s=0.1, jitter=jitter) for _ in range(2))
    disturbed.disturb(0.0, (0, 1), there=LinkState(jitter_sd_s=0.01))
    for bench in (plain, disturbed):
        for number in range(400):
            bench.send(f"m{number}", 0, 1, 1e3, at_s=number * 1.0)
            bench.send(f"n{number}", 1, 2, 1e3, at_s=number * 1.0 + 0.5)
        bench.clock.run()
    extra = np.array([disturbed.arrived[f"m{i}"] - plain.arrived[f"m{i}"] for i in range(400)])
    assert np.std(extra) == pytest.approx(0.01, rel=0.1)
    assert all(disturbed.arrived[f"n{i}"] == plain.arrived[f"n{i}"] for i in range(400))


# ---------------------------------------------------------------- acknowledgements, pauses, resets


def test_a_way_whose_acknowledgements_are_cut_stalls_after_a_window() -> None:
    bench = Bench(transport=Transport(window_bytes=10e6, tls=False), delay_s=0.01)
    bench.disturb(0.0, (0, 1), back=LinkState(blocked="blackhole"))
    bench.disturb(5.0, (0, 1))
    for number in range(3):
        bench.send(f"m{number}", 0, 1, 8e6, at_s=number * 1.0)
    bench.clock.run()
    assert [round(bench.arrived[f"m{i}"], 6) for i in range(3)] == [0.09, 1.09, 5.09]


def test_a_connection_cannot_be_opened_without_acknowledgements() -> None:
    bench = Bench(delay_s=0.01)
    bench.network.cancel_peer(0)
    bench.disturb(0.0, (0, 1), back=LinkState(blocked="blackhole"))
    bench.disturb(5.0, (0, 1))
    bench.send("m", 0, 1, 1e6)
    bench.clock.run()
    assert bench.arrived["m"] == pytest.approx(5.0 + 0.01 + 0.01)


@pytest.mark.parametrize("at_s", [0.05, 0.15])
def test_a_paused_peer_takes_in_what_has_reached_it_when_it_goes_on(at_s: float) -> None:
    """The message drains at 0.1 s and would arrive at 0.2 s; if it has not drained, the rest follows afterwards."""
    bench = Bench(delay_s=0.1)
    bench.send("m", 0, 1, 10e6)
    network = bench.network
    assert isinstance(network, DisturbedNetwork)
    bench.disturb(at_s, (0, 1), paused=True)
    bench.clock.call_at(START_S + at_s, lambda _: network.hold(1, START_S + 2.0), priority=CAPACITY)
    bench.disturb(2.0, (0, 1))
    bench.clock.run()
    assert bench.arrived["m"] == pytest.approx(2.0 + 0.05 + 0.1 if at_s < 0.1 else 2.0)


@both
def test_a_message_that_begins_anew_counts_its_first_bytes_too(make: Callable[..., Network]) -> None:
    bench = Bench(make, delay_s=0.1)
    bench.send("m", 0, 1, 100e6)
    bench.send("next", 0, 1, 10e6, at_s=5.0)
    network = bench.network
    assert isinstance(network, DisturbedNetwork)

    def reset(_: object) -> None:
        (transfer,) = network.cut({(0, 1)})
        assert network.begin_anew(transfer) == pytest.approx(50e6)

    bench.clock.call_at(START_S + 0.5, reset, priority=CAPACITY)
    bench.clock.run()
    # The handshake, and the first windows of a new connection.
    slow_s = tcp.slow_start_s(100e6, 100e6, 0.2)
    assert bench.arrived == {"m": pytest.approx(0.5 + 0.2 + slow_s + 0.1), "next": pytest.approx(5.2)}
    assert network.bytes_sent == network.bytes_delivered == pytest.approx(160e6)


def test_a_way_that_resets_refuses_within_a_round_trip() -> None:
    bench = Bench(delay_s=0.1)
    network = bench.network
    assert isinstance(network, DisturbedNetwork)
    refused: list[tuple[float, float]] = []

    def see_to(transfer: Transfer) -> bool:
        refused.append((bench.clock.now - START_S, network.cancel(transfer)))
        return True

    network.refused = see_to
    bench.disturb(0.0, (0, 1), there=LinkState(blocked="reset"))
    bench.send("m", 0, 1, 1e6, at_s=1.0)
    bench.send("other", 0, 2, 1e6, at_s=1.0)
    bench.clock.run()
    assert refused == [(pytest.approx(1.2), 1e6)]
    assert list(bench.arrived) == ["other"]


# ---------------------------------------------------------------- corruption


def test_chunks_are_those_of_the_emulator() -> None:
    assert num_chunks(0.0, 1e6) == 0
    assert num_chunks(1000.0, 1e9) == 1
    assert num_chunks(64 * 1024 * 10, 1e9) == 10
    assert num_chunks(8000.0, 1e6) == 8  # 1 ms each
    assert num_chunks(1e6, 1e6) == 250  # an eighth is too much, 4 ms each
    assert num_chunks(640.0, 1e3) == 10  # no fewer than 64 B


def test_every_corrupted_chunk_is_sent_again() -> None:
    bench = Bench(delay_s=0.01)
    network = bench.network
    assert isinstance(network, DisturbedNetwork)
    bench.disturb(0.0, (0, 1), there=LinkState(corrupt=0.05))
    chunk, number = 64 * 1024, 2000
    for message in range(number // 20):
        bench.send(f"m{message}", 0, 1, 20.0 * chunk, at_s=message * 1.0)
    bench.clock.run()
    corrupted = network.corrupted[0, 1]
    # Each chunk is corrupted 0.05 / 0.95 times on average; 5 standard deviations of a count of about 105.
    assert corrupted == pytest.approx(number * 0.05 / 0.95, abs=5 * np.sqrt(number * 0.05))
    assert network.resent_bytes[0, 1] == pytest.approx(corrupted * chunk)
    assert network.bytes_sent == network.bytes_delivered == pytest.approx((number + corrupted) * chunk)
    assert network.bytes_up[0] == pytest.approx((number + corrupted) * chunk)
    assert len(bench.arrived) == number // 20


def test_a_corrupted_message_takes_its_bytes_longer_and_a_round_trip_at_most() -> None:
    bench = Bench(delay_s=0.05)
    network = bench.network
    assert isinstance(network, DisturbedNetwork)
    bench.disturb(0.0, (0, 1), there=LinkState(corrupt=0.02))
    size = 50 * 64 * 1024.0
    for message in range(60):
        bench.send(f"m{message}", 0, 1, size, at_s=message * 1.0)
    bench.clock.run()
    lengths = [bench.arrived[f"m{message}"] - message for message in range(60)]
    alone_s = size / 100e6 + 0.05
    assert min(lengths) == pytest.approx(alone_s)
    late = [length - alone_s for length in lengths if length > alone_s + 1e-9]
    assert late
    assert min(late) >= 64 * 1024 / 100e6
    assert sum(late) >= network.resent_bytes[0, 1] / 100e6


# ---------------------------------------------------------------- nothing is lost, nothing is slower without faults

DISTURBANCES = st.sampled_from(
    [
        CALM,
        BLOCKED,
        Disturbance(back=LinkState(blocked="blackhole")),
        Disturbance(capacity=3e6),
        Disturbance(there=LinkState(extra_owd_s=0.1, loss=1e-3, jitter_sd_s=0.01)),
        Disturbance(there=LinkState(corrupt=0.2)),
        Disturbance(paused=True),
    ]
)
PAIRS = st.tuples(st.integers(0, 2), st.integers(0, 3)).filter(lambda pair: pair[0] != pair[1])
EVENTS = st.lists(st.tuples(st.floats(0.0, 4.0), PAIRS, DISTURBANCES), max_size=12)
SENDS = st.lists(st.tuples(st.floats(0.0, 4.0), PAIRS, st.sampled_from([0.0, 1e4, 1e6, 3e7])), min_size=1, max_size=12)


@settings(max_examples=150, deadline=None)
@given(events=EVENTS, sends=SENDS, in_order=st.booleans(), cold=st.booleans(), keep_warm=st.booleans())
def test_bytes_are_conserved_and_all_arrive_once_it_is_over(
    events: list[Any], sends: list[Any], in_order: bool, cold: bool, keep_warm: bool
) -> None:
    bench = Bench(
        DisturbedInOrderNetwork if in_order else DisturbedNetwork,
        rate=1e7,
        delay_s=0.05,
        transport=Transport(window_bytes=2e6, keep_warm=keep_warm),
        storage=Storage(0.02, 2),
    )
    network = bench.network
    assert isinstance(network, DisturbedNetwork)
    if cold:
        network.cancel_peer(1)
    for at_s, pair, disturbance in events:
        bench.clock.call_at(START_S + at_s, lambda what: network.disturb(dict([what])), (pair, disturbance), CAPACITY)
    for number, (at_s, (source, target), size) in enumerate(sends):
        bench.send(f"m{number}", source, target, size, at_s)
    for at_s in np.linspace(0.1, 6.0, 20):
        bench.clock.call_at(START_S + float(at_s), lambda _: conserved(network))
    everything = {(a, b): CALM for a in range(3) for b in range(4) if a != b}
    bench.clock.call_at(START_S + 5.0, lambda _: network.disturb(everything), priority=CAPACITY)
    bench.clock.run()
    assert len(bench.arrived) == len(sends)
    resent = sum(network.resent_bytes.values())
    assert network.bytes_sent == pytest.approx(sum(size for *_, size in sends) + resent)
    assert network.bytes_in_flight == 0.0
    assert network.bytes_delivered == pytest.approx(network.bytes_sent)


def conserved(network: Network) -> None:
    up, down = network.bytes_up.sum(), network.bytes_down.sum()
    stored, read = network.bytes_stored
    assert up + read == pytest.approx(down + stored)
    assert network.bytes_delivered == pytest.approx(up + read)


@settings(max_examples=40, deadline=None)
@given(sends=SENDS, in_order=st.booleans())
def test_without_disturbances_it_is_the_plain_network_to_the_bit(sends: list[Any], in_order: bool) -> None:
    from sim.in_order import InOrderNetwork

    makes = (DisturbedInOrderNetwork, InOrderNetwork) if in_order else (DisturbedNetwork, Network)
    found = []
    for make in makes:
        bench = Bench(make, rate=1e7, delay_s=0.05, storage=Storage(0.02, 2))
        for number, (at_s, (source, target), size) in enumerate(sends):
            bench.send(f"m{number}", source, target, size, at_s)
        bench.clock.run()
        found.append((bench.arrived, bench.clock.events, bench.network.bytes_up.tobytes()))
    assert found[0] == found[1]
