"""Connections that break, bytes that flip, peers that go: what can arrive does, once and in order; the rest fails."""

import random
import threading
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.orionbed.transport.conftest import Peer, Peers, introduce
from tests.orionbed.transport.proxies import Proxy

MIB = 1 << 20


def test_a_connection_that_breaks_in_the_middle_of_a_message_loses_nothing(peers: Peers) -> None:
    one, other = peers(2)
    bodies = [random.Random(i).randbytes(MIB) for i in range(6)]
    with Proxy(other.endpoint.address, cut={0: 2 * MIB + MIB // 2, 1: MIB // 3, 2: 300}) as proxy:
        one.endpoint.set_address(1, proxy.address)
        for body in bodies:
            one.endpoint.send(1, b"", body)
        came = other.wait_for(6)
        assert one.endpoint.flush(10.0)
        assert proxy.num_connections == 4
    assert [each.body for each in came] == bodies
    assert [each.sequence for each in came] == list(range(6))
    assert len(other.delivered) == 6
    assert not one.lost
    counters = one.endpoint.counters()
    assert counters.num_reconnects >= 2
    assert counters.num_resent >= 1


def test_cuts_at_both_ends_lose_nothing(peers: Peers) -> None:
    one, other = peers(2)
    for i in range(60):
        one.endpoint.send(1, b"%d" % i, bytes(200_000))
        if i % 10 == 5:
            (one if i % 20 == 5 else other).endpoint.cut(1 if i % 20 == 5 else 0, "a test")
            time.sleep(0.01)
    came = other.wait_for(60)
    assert one.endpoint.flush(10.0)
    assert [each.header for each in came] == [b"%d" % i for i in range(60)]
    assert len(other.delivered) == 60


@pytest.mark.parametrize("at", [700, 400_000, 1_900_000])
def test_damaged_bytes_are_refused_and_sent_again(peers: Peers, at: int) -> None:
    one, other = peers(2)
    bodies = [random.Random(i).randbytes(500_000) for i in range(6)]
    with Proxy(other.endpoint.address, flip={0: [at]}) as proxy:
        one.endpoint.set_address(1, proxy.address)
        for body in bodies:
            one.endpoint.send(1, b"", body)
        came = other.wait_for(6)
        assert one.endpoint.flush(10.0)
        assert proxy.num_connections == 1
    assert [each.body for each in came] == bodies
    assert other.endpoint.counters().num_corrupted == 1
    assert one.endpoint.counters().num_resent >= 1


def test_a_damaged_head_breaks_the_connection_and_loses_nothing(peers: Peers) -> None:
    one, other = peers(2)
    greeting = 52 + 32  # of the source: what it says of itself, and its proof
    with Proxy(other.endpoint.address, flip={0: [greeting + 6]}) as proxy:
        one.endpoint.set_address(1, proxy.address)
        one.endpoint.send(1, b"", b"body")
        (came,) = other.wait_for(1)
        assert proxy.num_connections == 2
    assert came.body == b"body"


def test_a_message_that_always_arrives_damaged_fails_alone(peers: Peers) -> None:
    one, other = peers(2)
    every = list(range(10_000, 20_000_000, 300_000))
    with Proxy(other.endpoint.address, flip={0: every}) as proxy:
        one.endpoint.set_address(1, proxy.address)
        one.endpoint.send(1, b"small", b"before")
        one.endpoint.send(1, b"large", bytes(MIB))
        one.endpoint.send(1, b"small", b"after")
        ((target, header, sequence, reason),) = one.wait_for_loss()
        assert (target, header, sequence) == (1, b"large", 1)
        assert "damaged 9 times" in reason
        assert [bytes(each.body) for each in other.wait_for(2)] == [b"before", b"after"]


def test_messages_to_nobody_fail_in_bounded_time(peers: Peers) -> None:
    one, other = peers(2, patience_s=0.7)
    other.endpoint.close()
    started = time.monotonic()
    for i in range(3):
        one.endpoint.send(1, b"%d" % i, b"x")
    lost = one.wait_for_loss(3, within_s=5.0)
    assert 0.5 < time.monotonic() - started < 3.0
    assert [header for _, header, _, _ in lost] == [b"0", b"1", b"2"]
    assert "no connection to peer 1 for 0.7 s" in lost[0][3]
    assert one.endpoint.counters().sent[0].num_unsent == 3


def test_what_waits_for_a_peer_that_is_gone_fails_at_once(peers: Peers) -> None:
    one, other = peers(2)
    other.endpoint.close()
    one.endpoint.send(1, b"", b"x")
    one.endpoint.set_address(1, None)
    one.endpoint.send(1, b"", b"y")
    assert [reason for *_, reason in one.wait_for_loss(2, within_s=2.0)] == ["the peer is gone"] * 2


def test_a_peer_that_was_away_for_less_than_the_patience_gets_everything() -> None:
    one, other = Peer(0), Peer(1)
    other.endpoint.close()
    port = other.endpoint.address[1]
    one.endpoint.set_address(1, ("127.0.0.1", port))
    for i in range(5):
        one.endpoint.send(1, b"%d" % i, b"x")
    time.sleep(0.3)
    again = Peer(1, port=port)
    try:
        assert [each.header for each in again.wait_for(5)] == [b"%d" % i for i in range(5)]
    finally:
        for peer in (one, again):
            peer.endpoint.close()


def test_a_new_life_begins_anew_and_the_earlier_one_is_not_heard_any_more(peers: Peers) -> None:
    _, other = peers(2)
    first, second = Peer(7, life=1), Peer(7, life=2, patience_s=0.5)
    lives = [first, second]
    old = Peer(7, life=0, patience_s=0.5)
    try:
        for k, life in enumerate(lives):
            life.endpoint.set_address(1, other.endpoint.address)
            life.endpoint.send(1, b"life", b"%d" % k)
            life.endpoint.flush(5.0)
        assert [(each.sequence, bytes(each.body)) for each in other.wait_for(2)] == [(0, b"0"), (0, b"1")]
        old.endpoint.set_address(1, other.endpoint.address)
        old.endpoint.send(1, b"", b"a ghost")
        old.wait_for_loss()
        assert len(other.delivered) == 2
        assert [count.life for count in other.endpoint.counters().received] == [1, 2]
    finally:
        for peer in (*lives, old):
            peer.endpoint.close()


def test_a_peer_that_is_started_anew_where_it_was_gets_what_comes_then(peers: Peers) -> None:
    (one,) = peers(1)
    other = Peer(1)
    port = other.endpoint.address[1]
    one.endpoint.set_address(1, other.endpoint.address)
    one.endpoint.send(1, b"", b"before")
    other.wait_for(1)
    one.endpoint.flush(5.0)
    other.endpoint.close()
    again = Peer(1, port=port, life=1)
    try:
        one.endpoint.send(1, b"", b"after")
        assert [bytes(each.body) for each in again.wait_for(1)] == [b"after"]
        assert not one.lost
    finally:
        again.endpoint.close()


def test_what_an_earlier_life_may_have_had_fails(peers: Peers) -> None:
    (one,) = peers(1)
    held, other = threading.Event(), Peer(1)
    port = other.endpoint.address[1]
    other.endpoint._incoming._deliver = lambda _: held.wait(10.0)
    one.endpoint.set_address(1, other.endpoint.address)
    one.endpoint.send(1, b"perhaps", b"x")
    deadline = time.monotonic() + 5.0
    while not one.endpoint.counters().sent and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.1)
    other.endpoint._incoming.close()  # as when its process is killed: nothing is acknowledged any more
    held.set()
    other.endpoint.close()
    again = Peer(1, port=port, life=1)
    try:
        one.endpoint.send(1, b"", b"after")
        assert [bytes(each.body) for each in again.wait_for(1)] == [b"after"]
        assert one.wait_for_loss() == [(1, b"perhaps", 0, "the peer was started anew")]
        assert one.endpoint.counters().sent[0].num_failed == 1
    finally:
        again.endpoint.close()


def test_an_idle_connection_that_breaks_is_opened_again(peers: Peers) -> None:
    one, other = peers(2)
    one.endpoint.send(1, b"", b"x")
    other.wait_for(1)
    other.endpoint.cut(0, "a test")
    deadline = time.monotonic() + 5.0
    while one.endpoint.counters().num_reconnects == 0 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert one.endpoint.counters().num_reconnects == 1
    assert other.endpoint.absent_s(0) is None


Happening = st.one_of(
    st.tuples(st.just("send"), st.integers(0, 200_000), st.booleans()),
    st.tuples(st.just("cut"), st.booleans(), st.booleans()),
    st.tuples(st.just("pause"), st.floats(0.0, 0.01), st.booleans()),
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(Happening, max_size=40))
def test_any_interleaving_of_sends_and_cuts_delivers_each_message_once_and_in_order(
    happenings: list[tuple[str, float, bool]],
) -> None:
    one, other = Peer(0), Peer(1)
    introduce([one, other])
    sent: dict[bool, list[int]] = {False: [], True: []}
    try:
        for what, value, flag in happenings:
            if what == "send":
                sent[flag].append(one.endpoint.send(1, b"", b"x" * int(value), control=flag))
            elif what == "cut":
                (one if value else other).endpoint.cut(1 if value else 0, "a test")
            else:
                time.sleep(value)
        assert one.endpoint.flush(20.0)
        came = [each.sequence for each in other.delivered]
        assert [number for number in came if number < 1 << 62] == sent[False]
        assert [number for number in came if number >= 1 << 62] == sent[True]
        assert not one.lost
    finally:
        one.endpoint.close()
        other.endpoint.close()
