"""Lifetimes: draws that never change, closed forms, and presets against the traces that they were fitted to."""

from itertools import pairwise
from math import gamma
from typing import Any

import pytest

from orionbed.absences.presence import presence
from orionbed.scenario import assumptions, load
from orionbed.scenario.churn_presets import PRESETS
from orionbed.streams import Streams

HOUR_S = 3600.0
YEARS_H = 20 * 8766.0


def test_draws_are_those_of_a_stream_per_peer_in_turn(away: Any, planned: Any) -> None:
    churn = {"up": {"dist": "weibull", "shape": 0.7, "scale": 3600.0}, "down": {"dist": "exponential", "mean": 600.0}}
    up, down = planned(churn).scenario.churn.lifetimes
    found = [absence for peer, absence in away(churn, 20.0, seed=5, start_s=17.3) if peer == 3]
    random, now_s = Streams(5).get("churn/3"), 17.3
    for absence in found:
        now_s += float(up.sample(random, 1)[0])
        assert absence.start_s == now_s
        now_s += float(down.sample(random, 1)[0])
        assert absence.end_s == now_s
        assert absence.reason == "lifetime"
    assert len(found) > 5


def test_other_parts_move_nothing_in_the_lifetimes(away: Any) -> None:
    churn = {"up": {"dist": "exponential", "mean": 36000.0}, "down": 600.0}
    window = {"at": 60.0, "for": 1.0}
    alone, both = away(churn, 90.0), away(churn | {"windows": [window]}, 90.0)
    assert [pair for pair in both if pair[1].reason == "lifetime"] == alone
    assert len(both) == len(alone) + 8


@pytest.mark.parametrize(
    ("up", "down"),
    [
        ({"dist": "exponential", "mean": 9.0}, {"dist": "exponential", "mean": 1.0}),
        ({"dist": "weibull", "shape": 0.67, "scale": 5.0}, {"dist": "exponential", "mean": 2.0}),
    ],
)
def test_availability_and_losses_of_a_renewal_process(away: Any, up: Any, down: Any) -> None:
    mean_up_h = up["mean"] if up["dist"] == "exponential" else up["scale"] * gamma(1 + 1 / up["shape"])
    churn = {
        "up": {k: v * HOUR_S if k in {"mean", "scale"} else v for k, v in up.items()},
        "down": {k: v * HOUR_S if k in {"mean", "scale"} else v for k, v in down.items()},
    }
    hours = 4000.0
    found = presence(away(churn, hours), [0] * 8, 0.0, hours * HOUR_S)
    assert found.availability == pytest.approx(mean_up_h / (mean_up_h + down["mean"]), abs=0.015)
    assert found.losses_per_peer_hour == pytest.approx(1.0 / mean_up_h, rel=0.06)
    # One renewal per up and down; exact in the long run whatever the distributions.
    assert found.departures / (8 * hours) == pytest.approx(1.0 / (mean_up_h + down["mean"]), rel=0.05)


# Mean time up in hours and availability of the traces themselves (churn statistics of skypilot-org/spot-traces). A fit
# of two numbers has lighter tails than they have; the tolerance is what each misses by, rounded up.
TRACES = {
    "spot-aws-v100": (5.76, 0.883, 0.16, 0.03),
    "spot-aws-v100-calm": (9.75, 0.905, 0.18, 0.03),
    "spot-aws-v100-scarce": (0.72, 0.167, 0.02, 0.03),
}


@pytest.mark.parametrize("name", TRACES)
def test_a_preset_is_close_to_the_trace_that_it_was_fitted_to(away: Any, planned: Any, name: str) -> None:
    mean_up_h, availability, off_mean, off_availability = TRACES[name]
    up, down = planned({"preset": name}).scenario.churn.lifetimes
    fitted_up_h, fitted_down_h = (d.scale / HOUR_S * gamma(1 + 1 / d.shape) for d in (up, down))
    assert fitted_up_h == pytest.approx(mean_up_h, rel=off_mean)
    assert fitted_up_h / (fitted_up_h + fitted_down_h) == pytest.approx(availability, abs=off_availability)
    drawn = presence(away({"preset": name}, 1500.0), [0] * 8, 0.0, 1500.0 * HOUR_S)
    assert drawn.availability == pytest.approx(availability, abs=off_availability + 0.02)


def test_preemptible_machines_never_outlive_their_limit(away: Any) -> None:
    found = [absence for peer, absence in away({"preset": "google-preemptible"}, 2000.0) if peer == 0]
    stays_h = [(b.start_s - a.end_s) / HOUR_S for a, b in pairwise(found)]
    assert 23.9 < max(stays_h) <= 24.0
    early, late = (sum(lo <= h < hi for h in stays_h) / len(stays_h) for lo, hi in ((0.0, 3.0), (21.0, 24.1)))
    assert early == pytest.approx(0.5 * 0.95, abs=0.1)  # 1 - e^-3 of one half
    assert late == pytest.approx(0.5, abs=0.1)


def test_hardware_fails_once_in_a_thousand_hours_of_48_gpus(planned: Any) -> None:
    up, _ = planned({"preset": "hardware-llama3"}).scenario.churn.lifetimes
    assert up.mean / HOUR_S / 48 == pytest.approx(1056.0, abs=1.0)  # one in 44 days


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_brings_its_source(name: str) -> None:
    rows = {row["key"]: row for row in assumptions(load("minimal", [f"churn={{preset: {name}}}"]))}
    assert rows["churn.preset"]["kind"] in {"derived", "assumed"}
    assert len(rows["churn.preset"]["source"]) > 30


def test_one_of_the_two_may_be_given_beside_a_preset(planned: Any) -> None:
    up, down = planned({"preset": "marketplace", "down": 60.0}).scenario.churn.lifetimes
    assert (up.shape, up.scale, down.median) == (0.67, 5400.0, 60.0)


def test_flapping_peers_are_a_share_and_leave_often(away: Any) -> None:
    churn = {"flapping": {"share": 0.25, "up": {"dist": "exponential", "mean": 540.0}, "down": 60.0}}
    found = away(churn, 200.0)
    assert len({peer for peer, _ in found}) == 2
    assert {absence.reason for _, absence in found} == {"flapping"}
    there = presence(found, [0] * 8, 0.0, 200.0 * HOUR_S)
    assert there.availability == pytest.approx(1.0 - 0.25 * 0.1, abs=0.002)
