"""Some of the peers that a selector means."""

from collections.abc import Sequence
from math import floor
from typing import TYPE_CHECKING

from orionbed.faults import selected

if TYPE_CHECKING:
    import numpy as np

    from orionbed.plan import PeerPlan


def some_of(peers: "Sequence[PeerPlan]", who: str, share: float, random: "np.random.Generator") -> frozenset[int]:
    """Return a share of the selected peers, rounded and at least one; a larger share has all those of a smaller one."""
    among = selected(who, peers)
    number = max(1, floor(share * len(among) + 0.5))
    return frozenset(among[i] for i in random.permutation(len(among))[:number])
