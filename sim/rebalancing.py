"""Peers that move between stages so that no stage runs short of them (SWARM, Ryabinin et al., arXiv 2301.11913).

Every so often the stage with most peers gives one to the stage with fewest, and a peer that comes back from being away
may go to another stage than it left. A peer that moves leaves like one that is lost (what is on its way to it is sent
again to others), fetches the weights of its new stage and starts there as a new process. In the waterfall its time
stays with the stage that it began in.
"""

from collections.abc import Callable

from orionbed import tracing
from orionbed.policies import durations_of, queue_policy
from orionbed.streams import Block
from sim.engine import Engine
from sim.merging import Merging, Process
from sim.peer import SimPeer

MOVES_AT = 2
"""A stage gives a peer away when it has so many more than the poorest."""


class Rebalancing:
    """Counts peers per stage, moves them, takes them away and brings them into training."""

    def __init__(self, engine: Engine, merging: Merging | None) -> None:
        self._engine = engine
        self._merging = merging
        self._every_s = engine.plan.scenario.peers.rebalance_every
        self._rejoin = engine.plan.scenario.peers.rejoin
        self._random = engine.streams.get("rejoin")
        self._uniform = Block(engine.streams.get("router/moved").random).take
        self.num_moves = 0
        # Takes peers in, where there is an orchestrator.
        self.welcome: Callable[[SimPeer], object] | None = None

    def take(self, peer: SimPeer) -> None:
        """Take a peer away at once, whatever it does; a merge under way waits for it no longer."""
        self._engine.ending.lose(peer)
        if self._merging is not None:
            self._merging.lost(peer)

    def start(self) -> None:
        """Begin to move peers every so often, if that is wanted."""
        if self._every_s is not None:
            self._engine.clock.call_in(self._every_s, self._tick)

    def come_back(self, peer: SimPeer) -> None:
        """Let a peer that is benched fetch weights and train, or with merges only wait for the next epoch."""
        if self.welcome is not None:
            self.welcome(peer)
            return
        stage = peer.stage
        if self._rejoin == "random":
            stage = int(self._random.integers(self._engine.plan.num_stages))
        elif self._rejoin == "poorest":
            counts = self._counts(without=peer)
            stage = min(range(len(counts)), key=lambda s: (counts[s], s != peer.stage, s))
        if stage != peer.stage:
            self.place(peer, stage)
        if self._merging is None or self._engine.recovery.rejoins_at_once:
            self._engine.clock.process(self._fetch(peer))

    def _counts(self, without: SimPeer | None = None) -> list[int]:
        """Peers that work in each stage, or are about to."""
        counts = [0] * self._engine.plan.num_stages
        for peer in self._engine.peers:
            counts[peer.stage] += peer.status not in {"down", "kicked"} and peer is not without
        return counts

    def _tick(self, _: object) -> None:
        assert self._every_s is not None
        if self._engine.in_training:
            counts = self._counts()
            richest = max(range(len(counts)), key=lambda stage: (counts[stage], -stage))
            poorest = min(range(len(counts)), key=lambda stage: (counts[stage], stage))
            movable = [p for p in self._engine.peers if p.stage == richest and p.status == "training"]
            if counts[richest] - counts[poorest] >= MOVES_AT and movable:
                self._move(movable[-1], poorest)
        self._engine.clock.call_in(self._every_s, self._tick)

    def _move(self, peer: SimPeer, stage: int) -> None:
        engine = self._engine
        self.num_moves += 1
        self.take(peer)
        peer.charge(tracing.CAUSE_BENCHED, engine.clock.now)
        peer.status = "benched"
        self.place(peer, stage)
        if self._merging is None or engine.recovery.rejoins_at_once:
            engine.clock.process(self._fetch(peer))

    def place(self, peer: SimPeer, stage: int) -> None:
        """Make a peer one of another stage."""
        engine = self._engine
        engine.status.views[peer.stage].drop(peer.position)
        peer.stage = stage
        peer.position = engine.status.views[stage].add(peer.index, engine.plan.known_speed(peer.plan, stage))
        peer.policy = queue_policy(engine.plan, self._uniform, engine.ledger.create, stage, peer.replica)
        peer.durations = durations_of(engine.plan, stage, peer.plan.speed, peer.plan.hardware)

    def _fetch(self, peer: SimPeer) -> Process:
        """Fetch the stage's weights and go on, unless a merge is under way: then after it."""
        engine = self._engine
        yield engine.recovery.fetch_weights(peer)
        if peer.status == "benched" and (self._merging is None or engine.in_training):
            engine.start_training(peer)
