"""Faults of links, partitions, corruption and flaps: what they make of the ways between peers, and what they hit."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from math import inf

from orionbed.fault_effects import LinkState, link_state
from orionbed.faults import ResolvedFault
from orionbed.hops import bytes_per_s_per_bps
from sim.disturbing import Disturbance, DisturbedNetwork, Pair
from sim.engine import Engine
from sim.fault_tally import Tally
from sim.transfer import Transfer


class LinkFaults:
    """Brings the network up to date when faults of pairs begin, end or flap, and when peers stand still."""

    def __init__(self, engine: Engine, network: DisturbedNetwork, tallies: dict[str, Tally]) -> None:
        self._engine = engine
        self._network = network
        self._tallies = tallies
        self._by_pair: dict[Pair, list[ResolvedFault]] = defaultdict(list)
        # How often each fault's pairs had been touched when it began, and chunks corrupted with their bytes.
        self._before: dict[str, tuple[int, int, float]] = {}
        self._factor = bytes_per_s_per_bps(engine.plan.scenario.network)
        network.refused = self._refused

    def add(self, fault: ResolvedFault) -> None:
        """Let a fault have its part in what happens to its pairs."""
        for pair in fault.pairs:
            self._by_pair[pair].append(fault)

    def begin(self, fault: ResolvedFault) -> None:
        """A fault begins; `update` comes after this."""
        self._before[fault.id] = self._counts(fault)
        if fault.parameters.get("mode") == "reset":
            self._reset(fault)

    def end(self, fault: ResolvedFault) -> None:
        """A fault ends, or the run does: note what it has hit; `update` comes after this."""
        before = self._before.pop(fault.id, None)
        if before is None:
            return
        tally = self._tallies[fault.id]
        touched, corrupted, resent = (now - then for now, then in zip(self._counts(fault), before, strict=True))
        if fault.kind == "corrupt":
            tally.hit |= corrupted > 0
            tally.corrupted_chunks = int(corrupted)
            tally.destroyed_bytes += resent
        else:
            tally.hit |= touched > 0

    def update(self, faults: Iterable[ResolvedFault], moved: Iterable[int], paused: set[int]) -> None:
        """Bring up to date the pairs of `faults`, and those of peers that have `moved`: stopped, or gone on."""
        pairs: dict[Pair, None] = {}
        for fault in faults:
            for source, target in fault.pairs:
                pairs[source, target] = pairs[target, source] = None
        for peer in moved:
            for other in range(self._network.storage + 1):
                if other != peer:
                    pairs[peer, other] = pairs[other, peer] = None
        if pairs:
            self._network.disturb({pair: self._disturbance(pair, paused) for pair in pairs})

    def _disturbance(self, pair: Pair, paused: set[int]) -> Disturbance:
        source, target = pair
        now = self._engine.clock.now
        there = link_state(self._by_pair.get(pair, ()), source, target, now)
        back = link_state(self._by_pair.get((target, source), ()), target, source, now)
        capacity = inf
        if there.capacity_bps is not None or there.capacity_factor != 1.0:
            peers = self._engine.plan.peers
            capacity = there.capacity(min(peers[source].uplink_bps, peers[target].downlink_bps)) * self._factor
        return Disturbance(
            there=there,
            back=LinkState(extra_owd_s=back.extra_owd_s, owd_s=back.owd_s, blocked=back.blocked),
            paused=source in paused or target in paused,
            capacity=capacity,
        )

    def _counts(self, fault: ResolvedFault) -> tuple[int, int, float]:
        network = self._network
        return (
            sum(network.touched[pair] for pair in fault.pairs),
            sum(network.corrupted[pair] for pair in fault.pairs),
            sum(network.resent_bytes[pair] for pair in fault.pairs),
        )

    # ---------------------------------------------------------------- resets

    def _reset(self, fault: ResolvedFault) -> None:
        """Break the connections of a fault's pairs, both ways: what has not drained is lost."""
        tally = self._tallies[fault.id]
        both = {pair for source, target in fault.pairs for pair in ((source, target), (target, source))}
        for transfer in self._network.cut(both):
            tally.hit = True
            if self._engine.handing_on.sends(transfer):
                tally.destroyed_bytes += self._network.cancel(transfer)
                self._engine.handing_on.failed(transfer)
            else:
                tally.destroyed_bytes += self._network.begin_anew(transfer)

    def _refused(self, transfer: Transfer) -> bool:
        """A transfer was begun over a way that resets it: a message is tried again, whatever else waits."""
        if not self._engine.handing_on.sends(transfer):
            return False
        destroyed_bytes = self._network.cancel(transfer)
        for fault in self._resetting((transfer.source, transfer.target)):
            self._tallies[fault.id].destroyed_bytes += destroyed_bytes
        self._engine.handing_on.failed(transfer)
        return True

    def _resetting(self, pair: Pair) -> Iterator[ResolvedFault]:
        now = self._engine.clock.now
        for fault in self._by_pair.get(pair, ()):
            if fault.parameters.get("mode") == "reset" and fault.hits(pair, now):
                yield fault
                return
