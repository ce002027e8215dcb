"""Liquid peers: away while somebody else pays more. All of them see one price; what they make of it is their own.

The price is market exp(sigma z) on a grid of `repriced_every`, z a stationary first-order autoregressive process of
unit variance. A peer is away in a step in which the price times its own factor exceeds what it is paid here, so that
who pays more, with the same seed, never loses a peer that it would have kept for less.
"""

from collections.abc import Iterator
from itertools import accumulate, count
from math import exp, sqrt
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from orionbed.absences.absence import HORIZON_S, Absence
from orionbed.absences.who import some_of

if TYPE_CHECKING:
    from orionbed.plan import PeerPlan, Plan
    from orionbed.scenario.churn import Liquid
    from orionbed.streams import Streams

Floats = NDArray[np.float64]
_BLOCK: Final = 4096


def liquid_peers(plan: "Plan", streams: "Streams") -> frozenset[int]:
    """Return who of a plan's peers is liquid; nobody without such a block."""
    churn = plan.scenario.churn
    if isinstance(churn, str) or churn.liquid is None:
        return frozenset()
    # A generator of its own: asking again, for the costs, must give the same peers.
    return some_of(plan.peers, churn.liquid.who, churn.liquid.share, streams.child("churn/liquid").get("who"))


def pay_per_hour(plan: "Plan", peer: "PeerPlan") -> float:
    """Return what a liquid peer is paid here for each of its GPUs, in US dollars per hour."""
    churn = plan.scenario.churn
    liquid = None if isinstance(churn, str) else churn.liquid
    return plan.price_of(peer) if liquid is None or liquid.pay is None else liquid.pay


class LiquidPeers:
    """The market of one run and the peers that follow it."""

    def __init__(self, block: "Liquid", plan: "Plan", streams: "Streams", start_s: float) -> None:
        self._step_s = block.repriced_every
        self._start_s = start_s
        self._peers = liquid_peers(plan, streams)
        # Drawn for every peer, so that a peer's worth does not depend on who else is liquid.
        worth = np.exp(block.spread * streams.get("churn/liquid/worth").standard_normal(len(plan.peers)))
        self._leaves_above = np.array([pay_per_hour(plan, peer) for peer in plan.peers]) / worth
        self._market = _Market(block, streams.get("churn/market"))

    def of(self, index: int) -> Iterator[Absence]:
        """Yield the absences of a peer, each some whole steps long."""
        if index not in self._peers:
            return
        gone_at: int | None = None
        for number in count():
            first = number * _BLOCK
            if first * self._step_s > HORIZON_S:
                break
            away = self._market.prices(number) > self._leaves_above[index]
            changes = np.flatnonzero(np.diff(away, prepend=gone_at is not None))
            for step in changes.tolist():
                if gone_at is None:
                    gone_at = first + step
                else:
                    yield self._absence(gone_at, first + step)
                    gone_at = None
        if gone_at is not None:
            yield Absence(self._start_s + gone_at * self._step_s, float("inf"), "liquid")

    def _absence(self, gone_at: int, back_at: int) -> Absence:
        return Absence(self._start_s + gone_at * self._step_s, self._start_s + back_at * self._step_s, "liquid")


class _Market:
    """The price elsewhere in US dollars per hour, block by block of steps, drawn as far as anybody has asked."""

    def __init__(self, block: "Liquid", random: np.random.Generator) -> None:
        self._median, self._sigma = block.market, block.sigma
        self._kept = exp(-block.repriced_every / block.reverts_in)
        self._random = random
        self._deviation = float(random.standard_normal())
        self._blocks: list[Floats] = []

    def prices(self, number: int) -> Floats:
        """Return the prices of a block of steps; blocks must be asked for without gaps."""
        while len(self._blocks) <= number:
            new = sqrt(1.0 - self._kept**2) * self._random.standard_normal(_BLOCK)
            path = list(accumulate(new.tolist(), lambda z, e: self._kept * z + e, initial=self._deviation))
            self._deviation = path.pop()
            self._blocks.append(self._median * np.exp(self._sigma * np.array(path)))
        return self._blocks[number]
