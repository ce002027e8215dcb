"""Who is there when: each miner drops and comes back by chance, whatever the router does."""

from collections.abc import Iterator
from math import inf

import numpy as np

from orionbed.contest.schema import Contest, MinerClass
from orionbed.streams import Streams


class Presence:
    """Whether each miner is there, and when that changes next; times in seconds of the contest."""

    def __init__(self, contest: Contest, kinds: tuple[str, ...], streams: Streams) -> None:
        classes = contest.miners.classes
        self.here: list[bool] = []
        self._changes: list[Iterator[float]] = []
        for miner, kind in enumerate(kinds):
            rng = streams.get(f"contest/presence/{miner}")
            entry = classes[kind]
            here = bool(rng.random() < entry.join / (entry.join + entry.drop))
            self.here.append(here)
            self._changes.append(_changes(rng, entry, here, contest.miners.check_every))
        self.next_s = [next(changes) for changes in self._changes]

    def change(self, miner: int) -> None:
        """Let a miner's next change happen."""
        self.here[miner] = not self.here[miner]
        self.next_s[miner] = next(self._changes[miner])

    def advance(self, to_s: float) -> None:
        """Let everything up to `to_s` happen, when nothing is in flight that could be lost."""
        for miner in range(len(self.here)):
            while self.next_s[miner] <= to_s:
                self.change(miner)


def _changes(rng: np.random.Generator, entry: MinerClass, here: bool, every_s: float) -> Iterator[float]:  # noqa: FBT001
    """Yield the times at which a miner goes or comes: multiples of `every_s`, as often as its class says."""
    checks = 0
    while True:
        chance = entry.drop if here else entry.join
        if chance == 0.0:
            yield inf
            return
        checks += int(rng.geometric(chance))
        yield checks * every_s
        here = not here
