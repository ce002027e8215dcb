"""A whole contest of one router on one seed: epochs, merges between them, and what came of each."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final

from orionbed.contest.answering import Answering, Facts, RouterError
from orionbed.contest.refereeing import Referee
from orionbed.contest.results import EpochResult, SeedResult
from orionbed.contest.schema import Contest
from orionbed.streams import Streams
from sim.contest.bound import least_epoch_s
from sim.contest.epoch import Epoch
from sim.contest.miner import ContestMiner
from sim.contest.presence import Presence
from sim.contest.telling import told_rows
from sim.contest.world import World, draw_world, drifted

LONGEST: Final = 1000.0
"""An epoch that takes this many times its bound is given up."""


def run_contest(contest: Contest, seed: int, name: str, make: Callable[[Facts], Answering]) -> SeedResult:
    """Simulate all epochs of one seed with the router that `make` makes.

    The miners, their drift and their coming and going depend on the seed alone. Raises RouterError.
    """
    streams = Streams(seed)
    world = draw_world(contest, streams)
    links = contest.network
    message_s = links.overhead + links.global_latency
    answering = make(Facts(seed, world.num_layers, contest.miners.cache, links.activation, message_s))
    try:
        referee = Referee(name, answering, contest.router, streams.get("contest/fallback").random)
        epochs = _Play(contest, streams, world, referee).run()
        return SeedResult(
            router=name,
            seed=seed,
            num_layers=world.num_layers,
            epochs=tuple(epochs),
            calls=answering.num_calls,
            fallbacks=referee.num_fallbacks,
            faults=dict(sorted(referee.faults.items())),
            first_fault=referee.first_fault,
            asking_s=answering.asking_s,
            thinking_s=answering.thinking_s,
        )
    finally:
        answering.close()


class _Play:
    """One seed as it goes on: the time, the miners as they are now, and the number of the next activation."""

    def __init__(self, contest: Contest, streams: Streams, world: World, referee: Referee) -> None:
        self.contest, self.streams, self.world, self.referee = contest, streams, world, referee
        self.presence = Presence(contest, world.kind, streams)
        self.phases = (1.0 - streams.get("contest/status").random(world.num_layers)).tolist()
        self.now_s = 0.0
        self.number = 0

    def run(self) -> Iterator[EpochResult]:
        """Yield what comes of each epoch, with a merge between two."""
        self.referee.begin(self.world.num_layers)
        yield self._epoch(0, 0)
        for index in range(1, self.contest.epochs.count):
            self.now_s += self.contest.epochs.merge
            self.presence.advance(self.now_s)
            self.world = drifted(self.world, self.contest, self.streams, index)
            yield self._epoch(index, self._rebalance(index - 1))

    def _epoch(self, index: int, num_moved: int) -> EpochResult:
        bound_s = least_epoch_s(self.contest, self.world, may_move=index > 0)
        epoch = Epoch(
            self.contest,
            self.world,
            self.presence,
            self.referee,
            index=index,
            start_s=self.now_s,
            first_number=self.number,
            phases=self.phases,
        )
        end_s = epoch.run(LONGEST * bound_s)
        if end_s is None:
            raise RouterError(
                f"router {self.referee.name}: epoch {index} of seed {self.streams.seed} has {epoch.completed} of "
                f"{self.contest.epochs.activations} activations after {LONGEST:g} times the least it can take"
            )
        time_s, self.now_s = end_s - self.now_s, end_s
        self.number += epoch.created
        return EpochResult(
            time_s=time_s,
            bound_s=bound_s,
            created=epoch.created,
            completed=epoch.completed,
            lost=epoch.lost,
            flushed=epoch.flushed,
            moved=num_moved,
        )

    def _rebalance(self, epoch: int) -> int:
        """Move miners as the router wants them for the next epoch, and return how many."""
        world = self.world
        empty = [ContestMiner(m, world.layers_of(m), self.contest.miners.cache) for m in range(world.num_miners)]
        for layer in range(world.num_layers):
            self.referee.tell(layer, self.now_s, told_rows(world, self.presence.here, empty, layer))
        moves = self.referee.rebalance(self.now_s, epoch, world.width, self.presence.here)
        first = tuple(moves.get(miner, layer) for miner, layer in enumerate(world.first))
        self.world = replace(world, first=first)
        return sum(before != after for before, after in zip(world.first, first, strict=True))
