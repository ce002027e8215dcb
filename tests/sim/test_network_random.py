"""Random traffic: the quick way and the solver agree, no byte is lost or made, no link carries more than it can."""

import random
from math import inf

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orionbed.bandwidth import PRESETS, varying_links
from orionbed.links import Jitter
from orionbed.streams import Streams
from sim.clock import Clock
from sim.links import PeerLinks, Storage, Transport
from sim.network import Network
from sim.transfer import ALONE

NUM_PEERS = 6
TRANSPORTS = {
    "warm": Transport(window_bytes=2e6),
    "two streams": Transport(streams=2, window_bytes=1e6),
    "cold": Transport(keep_warm=False),
    "after idle": Transport(slow_start_after_idle=True, tls=False),
    "lossy": Transport(loss=1e-5),
}


def make_network(clock, seed, transport=None, *, jitter=False, varying=True, caps=False, delays=True, **switches):
    streams = Streams(seed)
    rng = random.Random(seed)
    up = np.array([rng.choice([1e7, 2e7, 5e7, 1e8]) for _ in range(NUM_PEERS)])
    down = np.array([rng.choice([1e7, 3e7, 1.5e8]) for _ in range(NUM_PEERS)])
    links = PeerLinks(
        up,
        down,
        np.arange(NUM_PEERS) % 3,
        np.array([[0.0, 0.01, 0.03], [0.01, 0.00025, 0.02], [0.03, 0.02, 0.005]]) * delays,
        profile=varying_links(PRESETS["bad"], up, down, streams) if varying else None,
        site_uplink=6e7 if caps else inf,
        wan=4e7 if caps else inf,
    )
    storage = Storage(0.015 * delays, 4, 1e8 if caps else inf)
    return Network(
        clock, links, streams, transport=transport, jitter=Jitter(0.002, 0.02) if jitter else None, storage=storage,
        **switches,
    )  # fmt: skip


def random_messages(seed, number, span_s):
    """(time, source, target, bytes), some through the store, some large enough to last over capacity changes."""
    rng = random.Random(seed)
    for _ in range(number):
        source, target = rng.sample(range(NUM_PEERS + 1), 2)
        at = rng.choice([round(rng.uniform(0.0, span_s), 1), rng.uniform(0.0, span_s)])
        yield at, source, target, float(rng.choice([0, 1500, 2_300_000, 2_300_000, 20_000_000, 300_000_000]))


def schedule(clock, network, messages, deliver):
    for i, (at, *message) in enumerate(messages):
        clock.call_at(at, lambda args: network.send(*args), (*message, deliver, i))


def arrivals(seed, number=150, span_s=60.0, **options):
    clock = Clock()
    network = make_network(clock, seed, **options)
    arrived = {}
    schedule(clock, network, random_messages(seed, number, span_s), lambda i: arrived.setdefault(i, clock.now))
    clock.run()
    assert len(arrived) == number
    assert network.bytes_in_flight == 0.0
    return arrived, network


@pytest.mark.parametrize("jitter", [False, True])
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_the_quick_way_agrees_with_the_solver(transport, jitter):
    num_quick = 0
    for seed in range(25):
        options = {"transport": TRANSPORTS[transport], "jitter": jitter}
        quick, network = arrivals(seed, **options)
        slow, solver = arrivals(seed, fast=False, **options)
        assert quick == pytest.approx(slow, rel=1e-12, abs=0.0), seed
        num_quick += network.fair_share.num_solves < solver.fair_share.num_solves
    assert num_quick == 25


def test_the_quick_way_is_exact_to_the_bit_without_slow_start():
    for seed in range(25):
        assert arrivals(seed, delays=False)[0] == arrivals(seed, delays=False, fast=False)[0]


@pytest.mark.parametrize("caps", [False, True])
def test_pruning_changes_nothing(caps):
    for seed in range(15):
        options = {"transport": TRANSPORTS["two streams"], "caps": caps, "jitter": True}
        assert arrivals(seed, **options)[0] == arrivals(seed, pruned=False, **options)[0]


def test_the_same_seed_gives_the_same_arrivals():
    assert arrivals(3, jitter=True)[0] == arrivals(3, jitter=True)[0]
    assert arrivals(3, jitter=True)[0] != arrivals(4, jitter=True)[0]


@pytest.mark.parametrize("caps", [False, True])
def test_no_link_carries_more_than_it_can(caps):
    for seed in range(6):
        clock = Clock()
        network = make_network(clock, seed, TRANSPORTS["warm"], caps=caps)
        schedule(clock, network, random_messages(seed, 150, 60.0), lambda _: None)
        resources = network._routes._resources
        num_busy = 0
        for now in np.arange(0.05, 70.0, 0.37):
            clock.run_to(float(now))
            for r in resources.values():
                load = sum(flow.rate for flow in r.flows)
                if not r.flows and now < r.busy_until_s:
                    assert r.guest.state == ALONE
                    load = r.guest.rate
                num_busy += load > 0.0
                if load > 0.0:
                    assert load <= r.capacity * (1 + 1e-12)
        assert num_busy > 100


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


@settings(max_examples=150, deadline=None)
@given(operations, st.sampled_from(sorted(TRANSPORTS)), st.booleans(), st.booleans())
def test_every_byte_is_accounted_for(ops, transport, caps, fast):
    clock = Clock()
    network = make_network(clock, 5, TRANSPORTS[transport], jitter=True, caps=caps, fast=fast)
    sent = destroyed = 0.0
    arrived, cut, transfers = set(), set(), []

    def check():
        assert network.bytes_sent == sent
        assert network.bytes_destroyed == destroyed
        assert network.bytes_delivered + network.bytes_in_flight + destroyed == pytest.approx(sent, rel=1e-12)
        whole = [t for t in transfers if t not in cut and t not in arrived]
        assert network.bytes_in_flight <= sum(t.size_bytes for t in whole) * (1 + 1e-12)
        assert not arrived & cut

    for kind, a, b, size, pause_s in ops:
        if kind == "send":
            transfer = network.send(a, b, float(size), lambda i: arrived.add(transfers[i]), len(transfers))
            transfers.append(transfer)
            assert (transfer.source, transfer.target, transfer.size_bytes) == (a, b, size)
            sent += size
        elif kind == "cancel" and transfers:
            transfer = transfers[a % len(transfers)]
            left = network.left(transfer)
            lost = network.cancel(transfer)
            assert lost == pytest.approx(left, abs=0.5)
            assert lost == int(lost)
            assert network.cancel(transfer) == 0.0
            destroyed += lost
            if transfer not in arrived:
                cut.add(transfer)
        elif kind == "crash" and a < NUM_PEERS:
            before = network.bytes_destroyed
            doomed = network.cancel_peer(a)
            assert set(doomed) == {t for t in transfers if a in {t.source, t.target}} - arrived - cut
            destroyed += network.bytes_destroyed - before
            cut.update(doomed)
        else:
            clock.run_to(clock.now + pause_s)
        check()
    clock.run()
    check()
    assert arrived == set(transfers) - cut
    assert network.bytes_in_flight == 0.0
    # Whole bytes, so to the last one.
    assert network.bytes_delivered + network.bytes_destroyed == sent
    totals = np.zeros((2, NUM_PEERS + 1))
    for transfer in set(transfers) - cut:
        totals[0, transfer.source] += transfer.size_bytes
        totals[1, transfer.target] += transfer.size_bytes
    assert np.all(network.bytes_up >= totals[0, :-1])
    assert np.all(network.bytes_down >= totals[1, :-1])
    if not destroyed and not cut:
        assert np.array_equal(network.bytes_up, totals[0, :-1])
        assert np.array_equal(network.bytes_down, totals[1, :-1])
    assert not network.fair_share.flows


def test_a_crash_closes_connections():
    clock = Clock()
    network = make_network(clock, 1, TRANSPORTS["warm"], varying=False)
    arrived = []
    network.send(0, 1, 0.0, arrived.append, "opening")
    clock.run_to(10.0)
    assert network.cancel_peer(1) == []
    network.send(0, 1, 0.0, lambda _: arrived.append(clock.now), None)
    clock.run()
    # Two round trips of 20 ms, then the message.
    assert arrived == ["opening", pytest.approx(10.0 + 0.04 + 0.01)]


def test_cancelling_lets_others_have_the_link():
    clock = Clock()
    links = PeerLinks(np.full(3, 1e7), np.full(3, 1e9), np.zeros(3, int), np.zeros((1, 1)))
    network = Network(clock, links, Streams(0))
    arrived = {}
    first, second, third = (
        network.send(0, target, 1e7, lambda name: arrived.setdefault(name, clock.now), target) for target in (1, 2, 2)
    )
    clock.run_to(1.5)
    assert network.left(first) == network.left(second) == 5e6
    assert network.cancel(first) == 5e6
    clock.run_to(2.0)
    assert network.cancel_peer(2) == [second, third]
    assert network.bytes_up.tolist() == [2e7, 0.0, 0.0]
    assert network.bytes_down.tolist() == [0.0, 5e6, 1.5e7]
    network.send(0, 1, 1e7, lambda name: arrived.setdefault(name, clock.now), "alone")
    clock.run()
    assert arrived == {"alone": 3.0}


def test_cancelling_the_only_message_frees_its_links():
    clock = Clock()
    links = PeerLinks(np.full(2, 1e7), np.full(2, 1e9), np.zeros(2, int), np.zeros((1, 1)))
    network = Network(clock, links, Streams(0))
    arrived = []
    alone = network.send(0, 1, 1e7, arrived.append, "never")
    clock.run_to(0.25)
    assert network.bytes_in_flight == 7.5e6
    assert network.cancel(alone) == 7.5e6
    network.send(0, 1, 1e7, lambda _: arrived.append(clock.now))
    clock.run()
    assert arrived == [1.25]
    assert network.fair_share.num_solves == 0
    assert network.cancel(alone) == 0.0
