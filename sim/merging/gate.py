"""Waiting until enough peers have finished a phase of a merge."""

from collections.abc import Callable, Generator, Iterable
from math import floor
from typing import Any

import simpy

from orionbed.deadlines import relaxed_quorum, rule_of
from orionbed.scenario.merging import Merge
from sim.engine import Engine
from sim.peer import SimPeer

Process = Generator[simpy.Event, Any, None]


class PhaseGate:
    """Opens when enough peers have finished a phase, by the rule of the scenario's merges.

    A quorum that relaxes is looked at whenever somebody finishes and at every tick; the other rules say by themselves
    when they open next.
    """

    def __init__(self, engine: Engine, peers: Iterable[SimPeer]) -> None:
        self._engine = engine
        self._pending = {peer.index: peer for peer in peers}
        self._num_peers = len(self._pending)
        self._changed = engine.clock.event()
        self._lost: set[int] = set()
        self._began_s = engine.clock.now
        self._gone_s: list[float] = []
        self.arrivals_s: list[float] = []

    def lost(self, peer: SimPeer) -> None:
        """`peer` left, with all that it had: nothing more will come of it, even if it comes back within the phase."""
        self._lost.add(peer.index)
        self._is_through(peer, self._gone_s)

    def is_lost(self, peer: SimPeer) -> bool:
        """Whether `peer` left during the phase."""
        return peer.index in self._lost

    def finished(self, peer: SimPeer) -> None:
        """`peer` is through."""
        self._is_through(peer, self.arrivals_s)

    def _is_through(self, peer: SimPeer, times_s: list[float]) -> None:
        if self._pending.pop(peer.index, None) is not None:
            times_s.append(self._engine.clock.now - self._began_s)
            self._changed.succeed()
            self._changed = self._engine.clock.event()

    def waits_for(self, peer: SimPeer) -> bool:
        """Whether `peer` has yet to finish."""
        return peer.index in self._pending

    @property
    def late(self) -> list[SimPeer]:
        """Peers that have not finished."""
        return list(self._pending.values())

    def wait(self, block: Merge) -> Process:
        """Wait until enough are through, at most the phase's timeout."""
        if block.gate.kind != "relaxing-quorum":
            yield from self._wait_by_rule(block)
            return
        clock = self._engine.clock
        started_s = clock.now
        while self._pending and clock.now - started_s < block.timeout:
            ticks = floor((clock.now - started_s) / block.quorum_every + 1e-9)
            if (self._num_peers - len(self._pending)) / self._num_peers >= relaxed_quorum(block, clock.now - started_s):
                return
            next_tick = started_s + (ticks + 1) * block.quorum_every
            yield self._changed | clock.timeout(next_tick - clock.now)

    def _wait_by_rule(self, block: Merge) -> Process:
        clock, rule = self._engine.clock, rule_of(block)
        started_s = clock.now
        while self._pending:
            opens_s = started_s + min(rule(sorted(self.arrivals_s + self._gone_s), self._num_peers), block.timeout)
            if clock.now >= opens_s:
                return
            yield self._changed | clock.timeout(opens_s - clock.now)

    def wait_for(self, enough: Callable[[], bool], timeout_s: float) -> Process:
        """Wait until `enough` says so, at most `timeout_s`; it is asked whenever a peer is through."""
        clock = self._engine.clock
        end_s = clock.now + timeout_s
        while self._pending and not enough() and clock.now < end_s:
            yield self._changed | clock.timeout(end_s - clock.now)


def succeed(event: simpy.Event) -> None:
    """Trigger an event; what a transfer of a process calls when it is delivered."""
    event.succeed()
