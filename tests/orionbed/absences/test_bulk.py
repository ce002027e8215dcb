"""Bulk losses: who is lost with whom, how often, and how many."""

from typing import Any

import pytest

from orionbed.absences import Absence
from orionbed.absences.presence import presence
from orionbed.scenario import ScenarioError

HOUR_S = 3600.0
BULK: dict[str, Any] = {"rate_per_hour": 0.05, "down": 600.0}


def by_instant(found: list[tuple[int, Absence]]) -> dict[float, list[int]]:
    together: dict[float, list[int]] = {}
    for peer, absence in found:
        together.setdefault(absence.start_s, []).append(peer)
    return together


@pytest.mark.parametrize(("of", "groups"), [("site", 2), ("replica", 2), ("stage", 4), ("all", 1)])
def test_a_whole_group_is_lost_and_returns_together(away: Any, planned: Any, of: str, groups: int) -> None:
    hours = 4000.0
    found = away({"bulk": BULK | {"of": of}}, hours)
    peers = planned("none").peers
    members = {tuple(p.index for p in peers if of == "all" or getattr(p, of) == getattr(q, of)) for q in peers}
    together = by_instant(found)
    assert {tuple(lost) for lost in together.values()} == members
    assert len(members) == groups
    # A Poisson process each; one that is hit while it is away loses nobody anew.
    assert len(together) == pytest.approx(groups * 0.05 * hours, rel=0.12)
    assert {round(a.end_s - a.start_s, 6) for _, a in found if a.end_s - a.start_s < 601.0} == {600.0}


def test_sizes_are_geometric_with_the_mean_that_is_given(away: Any) -> None:
    churn = {"bulk": BULK | {"of": "all", "mean_size": 2.0}}
    hours = 20_000.0
    found = away(churn, hours, stages=12, replicas=2)
    there = presence(found, [0] * 24, 0.0, hours * HOUR_S)
    assert there.num_bulk == pytest.approx(0.05 * hours, rel=0.1)
    assert there.mean_bulk_size == pytest.approx(2.0, abs=0.1)
    sizes = [len(lost) for lost in by_instant(found).values()]
    for size in (1, 2, 3):
        assert sizes.count(size) / len(sizes) == pytest.approx(0.5**size, abs=0.05)
    # Losses per peer and hour are the rate times the mean over the peers of a group.
    assert there.losses_per_peer_hour == pytest.approx(0.05 * 2.0 / 24, rel=0.1)


def test_no_more_are_lost_than_there_are(away: Any) -> None:
    found = away({"bulk": BULK | {"of": "stage", "mean_size": 50.0}}, 500.0)
    assert max(len(lost) for lost in by_instant(found).values()) == 2


def test_a_share_is_rounded_and_at_least_one(away: Any) -> None:
    for share, size in ((0.3, 1), (0.5, 2), (0.01, 1)):
        found = away({"bulk": BULK | {"of": "site", "share": share}}, 400.0)
        assert {len(lost) for lost in by_instant(found).values()} == {size}


def test_who_asks_first_makes_no_difference(planned: Any) -> None:
    from itertools import islice

    from orionbed.absences import Absences

    plan = planned({"bulk": BULK | {"mean_size": 2.0}})
    one, other = Absences(plan, 3), Absences(plan, 3)
    forward = {i: list(islice(one.of(i), 20)) for i in range(8)}
    backward = {i: list(islice(other.of(i), 20)) for i in reversed(range(8))}
    assert forward == backward


def test_size_and_share_exclude_one_another(planned: Any) -> None:
    with pytest.raises(ScenarioError, match=r"churn\.bulk\.share: cannot be given with `mean_size`"):
        planned({"bulk": BULK | {"mean_size": 2.0, "share": 0.5}})


def test_groups_need_groups(planned: Any) -> None:
    with pytest.raises(ScenarioError, match=r"churn\.bulk\.of: is group, but there are no peers\.groups"):
        planned({"bulk": BULK | {"of": "group"}})
