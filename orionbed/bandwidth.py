"""How fast peers' links are, and how that varies in time.

A link's rate is C(t) = C0 exp(y - sigma^2 / 2) (1 - A (1 + sin(2 pi h / 24)) / 2) E(t) on a grid of ten seconds: y is a
first-order autoregressive process, h the hour of the run, E the rare excursions during which a peer gets a fraction of
its rate. The spreads of the presets follow the stability of rates between cloud machines that Skyplane measured in 2022
(0.6 % on shaped ports, 16 % on shared ones), the rare breaks Garcia-Dorado (arXiv 1512.01129); the time constants and
the shape of the excursions are assumptions.

Rates carry no unit here: profiles come out in the unit in which C0 goes in. Trace files are in bits per second.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import exp, inf, pi, sqrt
from typing import Final, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from orionbed.streams import Streams

Floats = NDArray[np.float64]
Direction = Literal["up", "down"]
Profile = Callable[[float], tuple[float, float]]
"""Time in seconds -> rate from then on, and until when. Times must not decrease from call to call."""

STEP_S: Final = 10.0
GOODPUT_SHARE_OF_L2: Final = 1448 / 1514
"""Payload of a full segment over the bytes of its Ethernet frame."""

_DAY_S: Final = 86400.0
_BLOCK: Final = 1024


class Distribution(Protocol):
    """Anything that draws `size` values."""

    def sample(self, rng: np.random.Generator, size: int) -> Floats:
        """Return `size` independent draws."""
        ...


def draw_links(
    num_peers: int, uplink: Distribution, downlink: Distribution, correlation: float, rng: np.random.Generator
) -> tuple[Floats, Floats]:
    """Return the up and down rates of `num_peers` peers, each (num_peers,), in the distributions' unit.

    The draws are paired so that fast uplinks tend to go with fast downlinks: `correlation` (-1 to 1) is that of the
    normal scores of the ranks, which for lognormal rates is the correlation of their logarithms.
    """
    up_score = rng.standard_normal(num_peers)
    down_score = correlation * up_score + sqrt(max(0.0, 1.0 - correlation**2)) * rng.standard_normal(num_peers)
    up = _in_order_of(up_score, uplink.sample(rng, num_peers))
    return up, _in_order_of(down_score, downlink.sample(rng, num_peers))


def _in_order_of(score: Floats, values: Floats) -> Floats:
    ordered = np.empty(len(score))
    ordered[np.argsort(score)] = np.sort(values)
    return ordered


@dataclass(frozen=True, slots=True)
class Variability:
    """Parameters of the process; `diurnal` is A, excursions last lognormal(median, sigma) and leave up to half."""

    sigma: float
    tau_s: float
    diurnal: float
    excursions_per_day: float = 1.0
    excursion_median_s: float = 60.0
    excursion_sigma: float = 1.0
    excursion_leaves: float = 0.5


PRESETS: Final[dict[str, Variability | None]] = {
    "constant": None,
    "shaped": Variability(0.01, 300.0, 0.0),
    "cloud": Variability(0.05, 300.0, 0.05),
    "shared": Variability(0.16, 120.0, 0.15),
    "bad": Variability(0.35, 60.0, 0.3),
}


class Excursions:
    """The times at which one peer gets only a fraction of its rates, both ways."""

    def __init__(self, variability: Variability, rng: np.random.Generator) -> None:
        self._variability = variability
        self._rng = rng
        self._all: list[tuple[float, float, float]] = []
        self._drawn_to_s = 0.0 if variability.excursions_per_day > 0.0 else inf

    def shares(self, start_s: float, size: int) -> Floats:
        """Return what is left in each of `size` grid steps from `start_s` on, averaged over the step."""
        end_s = start_s + size * STEP_S
        v = self._variability
        while self._drawn_to_s < end_s:
            self._drawn_to_s += self._rng.exponential(_DAY_S / v.excursions_per_day)
            lasts_s = v.excursion_median_s * self._rng.lognormal(0.0, v.excursion_sigma)
            left = self._rng.uniform(0.0, v.excursion_leaves)
            self._all.append((self._drawn_to_s, self._drawn_to_s + lasts_s, left))
        shares = np.ones(size)
        edges = start_s + STEP_S * np.arange(size)
        for begin_s, stop_s, left in self._all:
            if begin_s < end_s and stop_s > start_s:
                overlap_s = np.minimum(edges + STEP_S, stop_s) - np.maximum(edges, begin_s)
                shares *= 1.0 - (1.0 - left) * np.clip(overlap_s / STEP_S, 0.0, 1.0)
        return shares


class VaryingRate:
    """The rate of one link over time, drawn block by block as time goes on; a `Profile`."""

    def __init__(self, base: float, variability: Variability, rng: np.random.Generator, excursions: Excursions) -> None:
        self._base = base
        self._variability = variability
        self._rng = rng
        self._excursions = excursions
        self._phi = exp(-STEP_S / variability.tau_s)
        self._deviation = variability.sigma * rng.standard_normal()
        self._first = 0
        self._block: list[float] = []

    def __call__(self, time_s: float) -> tuple[float, float]:
        """Return the rate at `time_s` and the time of its next change; ValueError for a time before the last block."""
        step = int(time_s / STEP_S)
        place = step - self._first
        while place >= len(self._block):
            self._first += len(self._block)
            self._block = self._draw()
            place = step - self._first
        if place < 0:
            raise ValueError(f"{time_s} s lies before the block that was drawn last; ask for times in order")
        return self._block[place], (step + 1) * STEP_S

    def _draw(self) -> list[float]:
        v, phi = self._variability, self._phi
        noise = (sqrt(1.0 - phi**2) * v.sigma * self._rng.standard_normal(_BLOCK)).tolist()
        deviations = list(accumulate(noise, lambda y, e: phi * y + e, initial=self._deviation))
        self._deviation = deviations.pop()
        start_s = self._first * STEP_S
        angle = (start_s + STEP_S * np.arange(_BLOCK)) * (2.0 * pi / _DAY_S)
        day = 1.0 - v.diurnal * (1.0 + np.sin(angle)) / 2.0
        spread = np.exp(np.array(deviations) - v.sigma**2 / 2.0)
        rates: list[float] = (self._base * spread * day * self._excursions.shares(start_s, _BLOCK)).tolist()
        return rates


def varying_links(
    variability: Variability, uplink: Sequence[float] | Floats, downlink: Sequence[float] | Floats, streams: Streams
) -> Callable[[int, Direction], Profile]:
    """Return the function that makes the profile of a peer's link, around the given rates of each peer.

    Every link has a random stream of its own, and every peer one for the excursions that both its links take part in.
    """
    excursions: dict[int, Excursions] = {}

    def profile(peer: int, direction: Direction) -> Profile:
        if peer not in excursions:
            excursions[peer] = Excursions(variability, streams.get(f"bandwidth/excursions/{peer}"))
        base = float((uplink if direction == "up" else downlink)[peer])
        return VaryingRate(base, variability, streams.get(f"bandwidth/{direction}/{peer}"), excursions[peer])

    return profile
