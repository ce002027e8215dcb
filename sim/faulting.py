"""Faults of a scenario in the simulator: when each begins and ends, what it hits, and what it destroys."""

from collections import defaultdict
from math import isfinite
from typing import Any, Final

from orionbed.fault_effects import change_times
from orionbed.faults import ResolvedFault, resolve
from orionbed.streams import Streams
from sim.clock import CAPACITY
from sim.disturbing import DisturbedNetwork
from sim.engine import Engine
from sim.fault_links import LinkFaults
from sim.fault_peers import PeerFaults
from sim.fault_tally import Tally
from sim.merging import Merging
from sim.rebalancing import Rebalancing

OF_PEERS: Final = frozenset({"crash", "pause", "slow", "clock"})
_CLOCKS: Final = "in the simulator a clock is looked at only where others judge by it how old a peer's status is"


class Faulting:
    """Lets the faults of a run happen, and keeps what each of them did."""

    def __init__(
        self, engine: Engine, merging: Merging | None, rebalancing: Rebalancing, faults: tuple[ResolvedFault, ...]
    ) -> None:
        network = engine.network
        assert isinstance(network, DisturbedNetwork), "a scenario with faults has a network for them"
        self._engine = engine
        self._faults = faults
        self._tallies = {fault.id: Tally() for fault in faults}
        self._links = LinkFaults(engine, network, self._tallies)
        self._peers = PeerFaults(engine, network, merging, rebalancing, self._tallies)
        own_seed = engine.plan.scenario.faults.seed
        network.random = Streams(engine.streams.seed if own_seed is None else own_seed).child("faults")
        self._edges: dict[float, list[ResolvedFault]] = defaultdict(list)
        for fault in faults:
            (self._peers if fault.kind in OF_PEERS else self._links).add(fault)
            for at_s in change_times([fault]):
                self._edges[at_s].append(fault)
        # Faults that are over and have not been recovered from, with the number of micro-batches created until then.
        self._pending: dict[str, tuple[ResolvedFault, int]] = {}
        engine.on_applied = self._applied
        engine.stretched_s = self._peers.stretched_s
        engine.status.is_silent = self._peers.is_silent

    def start(self) -> None:
        """Put all changes on the clock, which must not have moved yet."""
        for at_s in sorted(self._edges):
            self._engine.clock.call_at(at_s, self._change, at_s, CAPACITY)

    def _change(self, at_s: float) -> None:
        """Let faults end and begin that have their time now."""
        concerned = self._edges[at_s]
        for fault in concerned:
            if fault.end_s == at_s:
                self._side_of(fault).end(fault)
        for fault in concerned:
            if fault.start_s == at_s:
                self._side_of(fault).begin(fault)
        moved = {peer for fault in concerned if fault.kind == "pause" for peer in fault.peers}
        self._links.update(concerned, moved, self._peers.paused)
        for fault in concerned:
            if at_s == (fault.end_s if isfinite(fault.end_s) else fault.start_s):
                self._pending[fault.id] = (fault, self._engine.ledger.created)

    def _side_of(self, fault: ResolvedFault) -> PeerFaults | LinkFaults:
        return self._peers if fault.kind in OF_PEERS else self._links

    def _applied(self, number: int) -> None:
        """Note which faults the run has got over.

        A fault is over at its end, or where it has none at its start. The run has got over it when those whom it took
        away and who were to come back are there again, and a micro-batch has been applied that was created after it.
        """
        for fault, created in list(self._pending.values()) if self._pending else ():
            if number >= created and self._peers.are_back(fault):
                del self._pending[fault.id]
                self._tallies[fault.id].recovered_s = self._engine.clock.now

    def close(self) -> None:
        """Note what the faults hit that last to the end of the run."""
        for fault in self._faults:
            if fault.kind not in OF_PEERS:
                self._links.end(fault)
        self._peers.close()

    def rows(self) -> list[dict[str, Any]]:
        """Return the summary's row of every fault, in the order of the file, then of time."""
        for fault in self._faults:
            tally = self._tallies[fault.id]
            if fault.kind == "clock" and not tally.hit:
                tally.remark = _CLOCKS
        return [self._tallies[fault.id].row(fault, self._engine.plan) for fault in self._faults]


def make_faulting(engine: Engine, merging: Merging | None, rebalancing: Rebalancing, *, seed: int) -> Faulting | None:
    """Return the faults of the engine's scenario, `None` where it has none.

    Raises:
        ScenarioError: the time of healing counts from an end of the run that nobody knows.

    """
    if not engine.plan.scenario.faults.list:
        return None
    return Faulting(engine, merging, rebalancing, resolve(engine.plan, seed))
