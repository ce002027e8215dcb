"""Peers that stay and are away in turn for times that are drawn: lifetimes, and the short ones of flapping peers."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from orionbed.absences.absence import Absence

if TYPE_CHECKING:
    import numpy as np

    from orionbed.scenario.distributions import Distribution


def alternating(
    up: "Distribution", down: "Distribution", random: "np.random.Generator", start_s: float, reason: str
) -> Iterator[Absence]:
    """Yield absences of `down` after stays of `up`, drawn in this order, from `start_s` on and without end."""
    now_s = start_s
    while True:
        gone_s = now_s + float(up.sample(random, 1)[0])
        now_s = gone_s + float(down.sample(random, 1)[0])
        yield Absence(gone_s, now_s, reason)
