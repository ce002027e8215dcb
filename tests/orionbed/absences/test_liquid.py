"""Liquid peers: one market for all, and more pay never loses a peer."""

from itertools import pairwise
from math import erfc, log, sqrt
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from orionbed.absences import Absence
from orionbed.absences.liquid import liquid_peers
from orionbed.absences.presence import presence
from orionbed.cost import cost_block
from orionbed.results import Mark
from orionbed.streams import Streams

HOUR_S = 3600.0
LIQUID: dict[str, Any] = {"market": 1.0, "sigma": 0.3, "reverts_in": 2 * HOUR_S, "spread": 0.2, "pay": 1.1}


def covers(outer: list[tuple[int, Absence]], inner: list[tuple[int, Absence]]) -> bool:
    """Whether a peer that is away by `inner` is away by `outer` too."""
    return all(
        any(other == peer and a.start_s <= b.start_s and b.end_s <= a.end_s for other, a in outer) for peer, b in inner
    )


def test_who_pays_more_loses_less_peer_by_peer(away: Any) -> None:
    by_pay = {pay: away({"liquid": LIQUID | {"pay": pay}}, 200.0, seed=4) for pay in (0.8, 1.0, 1.2, 1.6)}
    steps = [by_pay[pay] for pay in sorted(by_pay)]
    for less, more in pairwise(steps):
        assert covers(less, more)
    away_s = [sum(a.end_s - a.start_s for _, a in found) for found in steps]
    assert away_s == sorted(away_s, reverse=True)
    assert away_s[0] > 2 * away_s[2] > 0.0


@pytest.mark.parametrize(("pay", "spread"), [(1.0, 0.0), (1.2, 0.0), (1.3, 0.4)])
def test_the_share_of_time_away_is_that_of_a_normal_tail(away: Any, pay: float, spread: float) -> None:
    # ln(price x factor) is normal; factors are drawn once, so many peers are needed where they differ.
    found = away({"liquid": LIQUID | {"pay": pay, "spread": spread}}, 3000.0, stages=8, replicas=8)
    there = presence(found, [0] * 64, 0.0, 3000.0 * HOUR_S)
    tail = 0.5 * erfc(log(pay / 1.0) / sqrt(0.3**2 + spread**2) / sqrt(2))
    assert 1.0 - there.availability == pytest.approx(tail, abs=0.05)


def test_all_see_one_price_and_leave_on_the_same_grid(away: Any) -> None:
    found = away({"liquid": LIQUID | {"spread": 0.0, "repriced_every": 900.0}}, 100.0, start_s=7.0)
    mine = {peer: [a for p, a in found if p == peer] for peer in range(8)}
    assert all(mine[peer] == mine[0] for peer in range(8))
    assert all((a.start_s - 7.0) % 900.0 == 0.0 and (a.end_s - 7.0) % 900.0 == 0.0 for a in mine[0])


def test_a_larger_share_has_all_those_of_a_smaller_one(planned: Any) -> None:
    some, more = (liquid_peers(planned({"liquid": LIQUID | {"share": share}}), Streams(2)) for share in (0.25, 0.5))
    assert some < more
    assert (len(some), len(more)) == (2, 4)


def test_nobody_leaves_for_less_and_asking_comes_to_an_end(away: Any) -> None:
    assert away({"liquid": LIQUID | {"pay": 100.0, "repriced_every": HOUR_S}}, 1e5, stages=2, replicas=1) == []


def test_they_are_paid_what_they_are_offered_and_only_while_they_are_there(planned: Any) -> None:
    plan = planned({"liquid": LIQUID | {"share": 0.25}}, cost__gpu_hour=2.0)
    liquid = sorted(liquid_peers(plan, Streams(0)))
    marks = [Mark(0.0, 1800.0, "down", liquid[0], "liquid"), Mark(0.0, 1800.0, "down", liquid[1], "bulk")]

    def bill(plan: Any) -> dict[str, Any]:
        result: Any = SimpleNamespace(
            plan=plan, seed=0, duration_s=HOUR_S, bytes_up=np.zeros(8), bytes_storage_read=0.0, marks=marks
        )
        return cost_block(result, 1e6, None)

    assert bill(plan)["gpu_hours"] == pytest.approx(7.5)
    assert bill(plan)["gpu_usd"] == pytest.approx(6 * 2.0 + 1.5 * 1.1)
    unpaid = planned({"liquid": LIQUID | {"share": 0.25}}, cost__gpu_hour=2.0, cost__pay_absent=False)
    assert bill(unpaid)["gpu_usd"] == pytest.approx(6 * 2.0 + 1.0 * 1.1)
    paid = planned("none", cost__gpu_hour=2.0)
    assert bill(paid)["gpu_usd"] == pytest.approx(8 * 2.0)
