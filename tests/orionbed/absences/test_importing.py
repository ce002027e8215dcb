"""Public trace formats: counts are kept at every tick, nodes keep their peers, and mistakes are named."""

import json
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orionbed.absences.importing import each_from, format_of, from_counts, from_events, read_counts, read_events
from orionbed.absences.recorded import ChurnTrace
from orionbed.streams import Streams

PEERS = ["s00r0", "s00r1", "s01r0", "s01r1"]


def random(seed: int = 0):  # type: ignore[no-untyped-def]
    return Streams(seed).get("import-churn")


def up_at(trace: ChurnTrace, peers: list[str], time_s: float) -> set[str]:
    def is_up(peer: str) -> bool:
        changes = trace.get(peer, [])
        before = [up for t, up in changes if t <= time_s]
        return before[-1] if before else not changes or not changes[0][1]

    return {peer for peer in peers if is_up(peer)}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=30), st.integers(0, 5))
def test_as_many_peers_are_up_as_there_were_nodes(numbers: list[int], seed: int) -> None:
    numbers = [*numbers, 4]
    trace = from_counts((300.0, numbers), PEERS, random(seed))
    for tick, number in enumerate(numbers):
        assert len(up_at(trace, PEERS, 300.0 * tick)) == min(number, 4)
    changes = sum(len(rows) for rows in trace.values())
    held = [min(number, 4) for number in numbers]
    assert changes == abs(held[0] - 4) + sum(abs(a - b) for a, b in pairwise(held))


def test_nodes_keep_their_peers_and_free_ones_are_taken_again(tmp_path: Path) -> None:
    file = tmp_path / "events.csv"
    file.write_text(
        "time_ms,event,node\n5000,add,a\n5000,add,b\n9000,remove,a\n9000,add,c\n15000,remove,b\n25000,add,d\n"
    )
    events = read_events(file)
    assert events[0] == (0.0, True, "a")
    trace = from_events(events, PEERS[:2], random())
    # c comes in the instant in which a goes, so that one peer is never away; the other is, from 10 s to 20 s.
    assert list(trace.values()) == [[(10.0, False), (20.0, True)]]


def test_nodes_beyond_the_peers_are_left_out() -> None:
    events = [(0.0, True, "a"), (0.0, True, "b"), (3.0, True, "c"), (7.0, False, "a"), (8.0, False, "c")]
    trace = from_events(events, PEERS[:2], random())
    assert list(trace.values()) == [[(7.0, False)]]


def test_each_peer_lives_through_the_trace_of_one_node() -> None:
    numbers = [1, 1, 0, 1, 0, 0, 1, 1, 1, 0]
    trace = each_from((60.0, numbers), PEERS, random(1))
    for peer in PEERS:
        states = [peer in up_at(trace, PEERS, 60.0 * tick) for tick in range(10)]
        turns = [[bool(n) for n in numbers[i:] + numbers[:i]] for i in range(10)]
        assert states in turns
    with pytest.raises(ValueError, match="has 2 nodes, not one"):
        each_from((60.0, [1, 2]), PEERS, random())


@pytest.mark.parametrize("numbers", [[1, 0, 1], [3, 2]])
def test_more_peers_than_nodes_would_never_be_there(numbers: list[int]) -> None:
    with pytest.raises(ValueError, match=rf"has at most {max(numbers)} nodes at a time, and 4 peers"):
        from_counts((60.0, numbers), PEERS, random())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "must be JSON with"),
        ("{", "must be JSON with"),
        ('{"metadata": {"gap_seconds": 0}, "data": [1]}', "gap_seconds must be a number above 0, not 0"),
        ('{"metadata": {"gap_seconds": 1}, "data": []}', "data must be a list of counts"),
        ('{"metadata": {"gap_seconds": 1}, "data": [1, 0.5]}', "data[1] must be a whole number of nodes, not 0.5"),
    ],
)
def test_wrong_counts_are_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "counts.json"
    file.write_text(text)
    with pytest.raises(ValueError, match=r"counts\.json: ") as caught:
        read_counts(file)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "events.csv: has no events"),
        ("1,add,a\n2,start,b\n", "events.csv:2: must read time_ms,add|remove,node, not 2,start,b"),
        ("5,add,a\n2,add,b\n", "events.csv:2: goes back in time, from 0.005 s to 0.002 s"),
        ("5,add,a\n6,add,a\n", "events.csv:2: a is there already"),
        ("5,remove,a\n", "events.csv:1: a is not there"),
        ("soon,add,a\n", "events.csv:1: the time must be a number of milliseconds, not 'soon'"),
    ],
)
def test_wrong_events_are_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "events.csv"
    file.write_text(text)
    with pytest.raises(ValueError, match=r"events\.csv") as caught:
        read_events(file)
    assert message in str(caught.value)


def test_counts_are_told_from_events_by_name(tmp_path: Path) -> None:
    assert [format_of(Path(name)) for name in ("a.json", "p3-trace.csv", "x.txt")] == ["skypilot", "bamboo", "bamboo"]
    file = tmp_path / "a.json"
    file.write_text(json.dumps({"metadata": {"gap_seconds": 195}, "data": [0, 1, 1]}))
    assert read_counts(file) == (195.0, [0, 1, 1])
