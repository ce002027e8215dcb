"""Peers that came back to an epoch: warm-up, or the optimizer state of another peer of their stage."""

from typing import Any, Final

from sim.engine import Engine
from sim.merging import Process, succeed
from sim.peer import SimPeer
from sim.store_traffic import StoreTraffic

_STATE_BYTES_PER_PARAMETER: Final = 4
"""Both moments of the inner optimizer in bf16."""


class Newcomers:
    """Counts the backward passes whose local update is discarded, and fetches states where that is shared.

    A newcomer that fetches a state stays benched until it has it, and then has no warm-up.
    """

    def __init__(self, engine: Engine, traffic: StoreTraffic, warm_up: int, *, shares: bool) -> None:
        self._engine = engine
        self._traffic = traffic
        self._warm_up = warm_up
        self._shares = shares
        self._left: dict[int, int] = {}
        self._before: dict[int, int] = {}
        # Newcomers that fetch a state, each with the epoch in which it began to.
        self._fetching: dict[int, int] = {}
        self.num_discarded = self.num_states = 0
        if shares:
            engine.holds_back = self.holds_back

    def joined(self, peer: SimPeer) -> None:
        """A peer has registered again: its optimizer state is gone."""
        self._fetching.pop(peer.index, None)
        if self._engine.scribe is not None:
            self._engine.scribe.lost(peer)
        if self._warm_up or self._shares:
            self._left[peer.index] = self._warm_up
            self._before[peer.index] = peer.num_done["B"]

    def epoch_begins(self) -> None:
        """Count from here."""
        for index in self._left:
            self._before[index] = self._engine.peers[index].num_done["B"]

    def training_ends(self) -> None:
        """Add up what the epoch's newcomers have done in vain; those who trained are an epoch further."""
        for index in list(self._left):
            peer = self._engine.peers[index]
            if index not in self._fetching:
                self.num_discarded += peer.num_done["B"] - self._before[index]
                if self._engine.scribe is not None and peer.status == "training":
                    self._engine.scribe.merges.discards(index)
            self._before[index] = peer.num_done["B"]
            if peer.status == "training":
                self._left[index] -= 1
                if self._left[index] <= 0:
                    del self._left[index]

    def holds_back(self, peer: SimPeer) -> bool:
        """Whether `peer` has to fetch a state first; it joins the training by itself when it has it."""
        epoch = self._engine.recording.epoch
        if peer.index not in self._left:
            return False
        if self._fetching.get(peer.index) == epoch:
            return True
        donor = next((p for p in self._engine.peers if self._can_give(p, peer)), None)
        if donor is None:
            return False
        self._fetching[peer.index] = epoch
        peer.charge_status(self._engine.clock.now)
        peer.status = "benched"
        self._engine.clock.process(self._fetch(peer, donor, epoch))
        return True

    def _can_give(self, donor: SimPeer, peer: SimPeer) -> bool:
        # At an epoch's beginning the others are about to start.
        there = donor.status in {"training", "merging"}
        return there and donor.stage == peer.stage and donor.index not in self._left

    def _fetch(self, peer: SimPeer, donor: SimPeer, epoch: int) -> Process:
        """Let `donor` upload its state and `peer` download it. If either leaves, the next epoch begins anew."""
        engine = self._engine
        num_bytes = float(_STATE_BYTES_PER_PARAMETER * engine.plan.stages[peer.stage].parameters)
        for move, who in ((self._traffic.up, donor), (self._traffic.down, peer)):
            moved = engine.clock.event()
            move(who.index, num_bytes, succeed, moved)
            yield moved
            if self._fetching.get(peer.index) != epoch:
                return
        del self._fetching[peer.index], self._left[peer.index]
        self.num_states += 1
        if engine.scribe is not None:
            engine.scribe.has_state_of(peer, donor)
        if peer.status == "benched" and engine.in_training:
            engine.start_training(peer)

    def summary(self) -> dict[str, Any]:
        """Return the summary's part about newcomers."""
        return {"updates_discarded": self.num_discarded, "optimizer_states_fetched": self.num_states}
