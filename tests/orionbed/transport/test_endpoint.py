"""Endpoints that reach one another: everything arrives, once, in order, whatever its size."""

import random
import sys
import threading
import time

import pytest

from tests.orionbed.transport.conftest import Peers, num_open

MIB = 1 << 20


@pytest.mark.parametrize("size", [0, 1, 1000, 64 * 1024, 64 * 1024 + 1, 256 * 1024, 3 * MIB + 7, 64 * MIB])
def test_a_message_of_any_size_arrives(peers: Peers, size: int) -> None:
    one, other = peers(2)
    body = random.Random(size).randbytes(size)
    number = one.endpoint.send(1, b"header", body)
    (came,) = other.wait_for(1)
    assert (came.source, came.sequence, came.header) == (0, number, b"header")
    assert came.body == body
    assert one.endpoint.flush(5.0)
    assert not one.lost


def test_thousands_of_small_messages_keep_their_order(peers: Peers) -> None:
    one, other = peers(2)
    numbers = [one.endpoint.send(1, b"%d" % i, b"x" * (i % 50)) for i in range(5000)]
    came = other.wait_for(5000)
    assert [one.sequence for one in came] == numbers == list(range(5000))
    assert [one.header for one in came] == [b"%d" % i for i in range(5000)]


def test_three_peers_send_in_all_directions_at_once(peers: Peers) -> None:
    three = peers(3)
    sizes = [0, 10, 100_000, 2 * MIB]
    for k in range(24):
        for one in three:
            for target in range(3):
                one.endpoint.send(target, b"%d" % k, bytes([one.endpoint.index]) * sizes[k % 4])
    for other in three:
        came = other.wait_for(72)
        for source in range(3):
            mine = [one for one in came if one.source == source]
            assert [one.header for one in mine] == [b"%d" % k for k in range(24)]
            assert all(one.body == bytes([source]) * sizes[k % 4] for k, one in enumerate(mine))


def test_a_body_may_be_a_function_that_waits(peers: Peers) -> None:
    one, other = peers(2)
    ready = threading.Event()
    threads = []

    def body() -> bytes:
        threads.append(threading.current_thread())
        assert ready.wait(10.0)
        return b"late"

    started = time.monotonic()
    one.endpoint.send(1, b"", body)
    one.endpoint.send(1, b"", memoryview(b"after"))
    assert time.monotonic() - started < 1.0
    ready.set()
    assert [bytes(came.body) for came in other.wait_for(2)] == [b"late", b"after"]
    assert threads[0] is not threading.current_thread()


def test_a_body_that_cannot_be_had_fails_alone(peers: Peers) -> None:
    one, other = peers(2)

    def body() -> bytes:
        raise RuntimeError("no such tensor")

    for each in (b"first", body, b"last"):
        one.endpoint.send(1, b"", each)
    assert [bytes(came.body) for came in other.wait_for(2)] == [b"first", b"last"]
    assert one.wait_for_loss() == [(1, b"", 1, "its body could not be had: no such tensor")]
    assert one.endpoint.flush(5.0)


def test_control_messages_overtake_data_that_waits(peers: Peers) -> None:
    one, other = peers(2)
    begun, ready = threading.Event(), threading.Event()

    def body() -> bytes:
        begun.set()
        assert ready.wait(10.0)
        return b"x"

    one.endpoint.send(1, b"data", body)
    assert begun.wait(10.0)
    for _ in range(3):
        one.endpoint.send(1, b"data", b"y")
    for _ in range(2):
        assert one.endpoint.send(1, b"control", b"z", control=True) >= 1 << 62
    ready.set()
    headers = [came.header for came in other.wait_for(6)]
    assert headers == [b"data", b"control", b"control", b"data", b"data", b"data"]


def test_a_slow_receiver_does_not_hold_up_others(peers: Peers) -> None:
    one, other = peers(2)
    blocked = threading.Event()
    (slow,) = peers(1)
    slow.endpoint._incoming._deliver = lambda _: blocked.wait(20.0)
    for _ in range(4):
        one.endpoint.send(2, b"", bytes(8 * MIB))
    one.endpoint.send(1, b"", b"quick")
    other.wait_for(1, within_s=5.0)
    blocked.set()


def test_what_is_too_large_is_refused_at_once(peers: Peers) -> None:
    one, _ = peers(2)
    with pytest.raises(ValueError, match="cannot send a header of 65537 bytes"):
        one.endpoint.send(1, bytes(65537), b"")


def test_the_counts_of_both_ends_agree(peers: Peers) -> None:
    one, other = peers(2)
    for size in (0, 10, 1000, MIB):
        one.endpoint.send(1, b"", bytes(size))
    other.wait_for(4)
    assert one.endpoint.flush(5.0)
    counters = one.endpoint.counters()
    (sent,), (received,) = counters.sent, other.endpoint.counters().received
    assert (sent.target, sent.num_messages, sent.num_bytes) == (1, 4, 1010 + MIB)
    assert (sent.num_acknowledged, sent.acknowledged_bytes) == (4, 1010 + MIB)
    assert (received.source, received.num_messages, received.num_bytes) == (0, 4, 1010 + MIB)
    assert (counters.num_corrupted, counters.num_resent, counters.num_reconnects) == (0, 0, 0)


def test_telemetry_knows_the_connection(peers: Peers) -> None:
    one, other = peers(2)
    assert one.endpoint.telemetry()[1].rtt_s is None
    one.endpoint.send(1, b"", bytes(MIB))
    other.wait_for(1)
    assert one.endpoint.flush(5.0)
    found = one.endpoint.telemetry()[1]
    assert found.message_s is not None
    assert 0.0 < found.message_s < 5.0
    assert found.large_bps is not None
    assert found.large_bps > 1e6
    if sys.platform == "linux":
        assert found.rtt_s is not None
        assert 0.0 < found.rtt_s < 5.0
        assert found.window_segments is not None
        assert found.window_segments >= 1


def test_warm_connections_are_there_before_they_are_needed(peers: Peers) -> None:
    one, other = peers(2)
    one.endpoint.warm([1])
    deadline = time.monotonic() + 10.0
    while not one.endpoint.counters().sent and time.monotonic() < deadline:
        time.sleep(0.01)
    assert one.endpoint.counters().sent[0].num_connections == 1
    assert one.endpoint.absent_s(1) is None
    assert other.endpoint.absent_s(0) is None
    one.endpoint.close()
    while other.endpoint.absent_s(0) is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert other.endpoint.absent_s(0) is not None


def test_closing_leaves_nothing_whatever_is_under_way(peers: Peers) -> None:
    before = num_open()
    one, other = peers(2)
    for _ in range(4):
        one.endpoint.send(1, b"", bytes(16 * MIB))
        other.endpoint.send(0, b"", bytes(16 * MIB))
    one.endpoint.send(9, b"", b"to nobody")
    started = time.monotonic()
    for _ in range(2):
        one.endpoint.close()
        other.endpoint.close()
    assert time.monotonic() - started < 5.0
    assert num_open() == before
    assert not one.lost
    with pytest.raises(ValueError, match="closed"):
        one.endpoint.send(1, b"", b"")
    with pytest.raises(ValueError, match="closed"):
        one.endpoint.send(5, b"", b"")
