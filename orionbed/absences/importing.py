"""Public spot traces, made into churn traces of a scenario's peers.

Two formats: the per-tick counts of skypilot-org/spot-traces, `{"metadata": {"gap_seconds": 300}, "data": [16, 15]}`,
and the events of Bamboo (uclasystem/bamboo), lines of `time_ms,add|remove,node`. Neither knows peers: which peer stands
for which node is drawn. Nodes beyond the number of peers are left out.
"""

import csv
import json
from collections.abc import Sequence
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Final

from orionbed.absences.recorded import ChurnTrace

if TYPE_CHECKING:
    import numpy as np

FORMATS: Final = ("skypilot", "bamboo")

Counts = tuple[float, list[int]]
"""Seconds between ticks, and the nodes there were at each."""

Events = list[tuple[float, bool, str]]
"""(seconds since the first event, whether the node comes, its name) in order of time."""


def format_of(path: Path) -> str:
    """Return which of the formats a file is probably in: counts are JSON."""
    return "skypilot" if path.suffix == ".json" else "bamboo"


def read_counts(path: Path) -> Counts:
    """Read per-tick counts; ValueError says what is wrong."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        gap_s, counts = data["metadata"]["gap_seconds"], data["data"]
    except (ValueError, TypeError, KeyError):
        text = 'must be JSON with {"metadata": {"gap_seconds": ...}, "data": [...]}'
        raise ValueError(f"{path}: {text}") from None
    if not isinstance(gap_s, int | float) or isinstance(gap_s, bool) or not 0 < gap_s < 1e9:
        raise ValueError(f"{path}: gap_seconds must be a number above 0, not {gap_s!r}")
    if not isinstance(counts, list) or not counts:
        raise ValueError(f"{path}: data must be a list of counts")
    for tick, count in enumerate(counts):
        if not isinstance(count, int) or isinstance(count, bool) or count < 0:
            raise ValueError(f"{path}: data[{tick}] must be a whole number of nodes, not {count!r}")
    return float(gap_s), counts


def read_events(path: Path) -> Events:
    """Read nodes that come and go, with or without a line of headings; ValueError names the line that is wrong."""
    events: Events = []
    there: set[str] = set()
    with path.open(newline="", encoding="utf-8") as file:
        for number, row in enumerate(csv.reader(file), 1):
            place = f"{path}:{number}"
            if len(row) != 3 or row[1] not in {"add", "remove"}:
                if number == 1 and len(row) == 3 and not row[0].strip().isdecimal():
                    continue
                raise ValueError(f"{place}: must read time_ms,add|remove,node, not {','.join(row)}")
            time_s, comes, node = _seconds(row[0], place), row[1] == "add", row[2]
            if events and time_s < events[-1][0]:
                raise ValueError(f"{place}: goes back in time, from {events[-1][0]:g} s to {time_s:g} s")
            if comes == (node in there):
                raise ValueError(f"{place}: {node} is {'there already' if comes else 'not there'}")
            there ^= {node}
            events.append((time_s, comes, node))
    if not events:
        raise ValueError(f"{path}: has no events")
    first_s = events[0][0]
    return [(time_s - first_s, comes, node) for time_s, comes, node in events]


def from_counts(counts: Counts, peers: Sequence[str], random: "np.random.Generator") -> ChurnTrace:
    """Let as many peers be up at every tick as there were nodes, at most all; who leaves and comes is drawn."""
    gap_s, numbers = counts
    _enough(max(numbers), peers)
    up: set[str] = set()
    states = []
    for number in numbers:
        wanted = min(number, len(peers))
        candidates = [peer for peer in peers if (peer in up) == (wanted < len(up))]
        changed = random.permutation(len(candidates))[: abs(wanted - len(up))]
        up = up ^ {candidates[i] for i in changed}
        states.append(up)
    return _trace([(tick * gap_s, state) for tick, state in enumerate(states)], peers)


def from_events(events: Events, peers: Sequence[str], random: "np.random.Generator") -> ChurnTrace:
    """Let each node that comes be the next free peer, in an order that is drawn, until it goes."""
    order = [peers[i] for i in random.permutation(len(peers))]
    peer_of: dict[str, str] = {}
    states: list[tuple[float, set[str]]] = []
    for time_s, comes, node in events:
        if comes:
            free = [peer for peer in order if peer not in peer_of.values()]
            if free:
                peer_of[node] = free[0]
        else:
            peer_of.pop(node, None)
        if states and states[-1][0] == time_s:
            states.pop()
        states.append((time_s, set(peer_of.values())))
    _enough(max(len(up) for _, up in states), peers)
    return _trace(states, peers)


def each_from(counts: Counts, peers: Sequence[str], random: "np.random.Generator") -> ChurnTrace:
    """Let every peer live through the trace of one node, from a tick that is drawn, and round again."""
    gap_s, numbers = counts
    if max(numbers) > 1:
        raise ValueError(f"has {max(numbers)} nodes, not one; leave --each out")
    trace: ChurnTrace = {}
    for peer, start in zip(peers, random.integers(len(numbers), size=len(peers)).tolist(), strict=True):
        turned = numbers[start:] + numbers[:start]
        trace |= _trace([(tick * gap_s, {peer} if up else set()) for tick, up in enumerate(turned)], [peer])
    return trace


def _enough(most: int, peers: Sequence[str]) -> None:
    if most < len(peers):
        text = f"has at most {most} nodes at a time, and {len(peers)} peers would never all be there"
        hint = ", or --each" if most == 1 else ""
        raise ValueError(f"{text}; name {most} of them with --peer{hint}")


def _trace(states: Sequence[tuple[float, set[str]]], peers: Sequence[str]) -> ChurnTrace:
    """Return the changes of each peer, given who is up from each time on; those away at first have a row for that."""
    trace: ChurnTrace = {}
    for peer in peers:
        was_up, changes = True, []
        for time_s, up in states:
            if (peer in up) != was_up:
                was_up = not was_up
                changes.append((time_s, was_up))
        if changes:
            trace[peer] = changes
    return trace


def _seconds(text: str, place: str) -> float:
    try:
        milliseconds = float(text)
    except ValueError:
        milliseconds = -1.0
    if not isfinite(milliseconds) or milliseconds < 0.0:
        raise ValueError(f"{place}: the time must be a number of milliseconds, not {text!r}")
    return milliseconds / 1e3
