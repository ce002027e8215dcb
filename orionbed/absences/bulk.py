"""Several peers lost at the same instant: a site without power, a provider that wants its machines back."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from math import floor
from typing import TYPE_CHECKING

from orionbed.absences.absence import HORIZON_S, Absence

if TYPE_CHECKING:
    import numpy as np

    from orionbed.plan import PeerPlan
    from orionbed.scenario.churn import Bulk
    from orionbed.streams import Streams

_HOUR_S = 3600.0


class BulkLosses:
    """The losses of every group: each has a Poisson process and a stream of its own."""

    def __init__(self, block: "Bulk", peers: "Sequence[PeerPlan]", streams: "Streams", start_s: float) -> None:
        members: dict[str, list[int]] = defaultdict(list)
        for peer in peers:
            members["*" if block.of == "all" else str(getattr(peer, block.of))].append(peer.index)
        self._group_of = {index: name for name, group in members.items() for index in group}
        self._groups = {
            name: _Group(block, group, streams.get(f"churn/bulk/{block.of}:{name}"), start_s)
            for name, group in members.items()
        }

    def of(self, index: int) -> Iterator[Absence]:
        """Yield the losses of a peer; they may overlap, for a group may be hit again while it is away."""
        return self._groups[self._group_of[index]].losses_of(index)


class _Group:
    """What befalls one group, drawn as far as anybody has asked."""

    def __init__(self, block: "Bulk", members: list[int], random: "np.random.Generator", start_s: float) -> None:
        self._block = block
        self._members = members
        self._random = random
        self._drawn: list[tuple[Absence, frozenset[int]]] = []
        self._now_s = start_s
        self._last_s = start_s + HORIZON_S

    def losses_of(self, index: int) -> Iterator[Absence]:
        number = 0
        while True:
            if number == len(self._drawn):
                if self._now_s > self._last_s:
                    return
                self._draw()
            absence, victims = self._drawn[number]
            number += 1
            if index in victims:
                yield absence

    def _draw(self) -> None:
        """Draw the next loss: when, how many, who, how long; in this order."""
        random, block = self._random, self._block
        self._now_s += float(random.exponential(_HOUR_S / block.rate_per_hour))
        number = len(self._members)
        if block.mean_size is not None:
            number = min(number, int(random.geometric(1.0 / block.mean_size)))
        elif block.share is not None:
            number = max(1, floor(block.share * number + 0.5))
        victims = frozenset(self._members[i] for i in random.permutation(len(self._members))[:number])
        away_s = float(block.down.sample(random, 1)[0])
        self._drawn.append((Absence(self._now_s, self._now_s + away_s, "bulk", block.notice), victims))
