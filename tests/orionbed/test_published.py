"""Published figures beside ours, and against one another."""

from types import SimpleNamespace
from typing import Any

import pytest

from orionbed.published import compare_published, contradictions, fitted_quantities, lookup

SUMMARY = {
    "mfu": {"wall_clock": 0.33, "in_phase": 0.4, "peak_sustained": 0.4},
    "tokens": {"total": 7.2e6, "per_s": {"in_phase": 400.0, "with_merges": 360.0, "wall_clock": 330.0}},
    "layout": {"peak_flops": 1e6, "num_peers": 2, "gpus_per_peer": 1, "fits": True, "gpu": "a100"},
    "model": {"flops_per_token": 2e3},  # so 1000 tokens/s are an MFU of 1
    "datacenter": {"relative_speed": None},
}


def entry(quantity: str, value: float, kind: str = "prediction", note: str = "") -> Any:
    return SimpleNamespace(quantity=quantity, value=value, kind=kind, note=note, source=f"source of {quantity}")


def scenario(*published: Any, provenance: dict[str, str] | None = None, tokens: float | None = 3.6e6) -> Any:
    return SimpleNamespace(published=published, provenance=provenance or {}, run=SimpleNamespace(tokens=tokens))


def compared(published: Any, **options: Any) -> dict[str, Any]:
    (row,) = compare_published(scenario(published, **options), SUMMARY)
    return row


def test_lookup() -> None:
    assert lookup(SUMMARY, "tokens.per_s.in_phase") == 400.0
    assert lookup(SUMMARY, "tokens.per_s.nowhere") is None
    assert lookup(SUMMARY, "tokens.total.deeper") is None


def test_a_prediction_and_its_error() -> None:
    assert compared(entry("mfu.wall_clock", 0.3, note="average")) == {
        "quantity": "mfu.wall_clock",
        "published": 0.3,
        "ours": 0.33,
        "error": pytest.approx(0.1),
        "kind": "predicted",
        "source": "source of mfu.wall_clock",
        "note": "average",
    }


def test_an_input_is_called_one() -> None:
    assert compared(entry("layout.num_peers", 2, kind="input"))["kind"] == "input"


def test_what_something_was_fitted_to_is_no_prediction() -> None:
    provenance = {
        "peers.kernel_scale": "fitted: mfu.wall_clock = 0.3; by bisection",
        "merge.every": "fitted : tokens.total=7e6; by hand",
        "churn": "assumed: fitted: mfu.in_phase = 1; no",
    }
    assert fitted_quantities(scenario(provenance=provenance)) == {"mfu.wall_clock", "tokens.total"}
    assert compared(entry("mfu.wall_clock", 0.3), provenance=provenance)["kind"] == "fitted"
    # Also when the scenario calls it an input: fitted is the weaker claim.
    assert compared(entry("tokens.total", 7e6, kind="input"), provenance=provenance)["kind"] == "fitted"
    assert compared(entry("mfu.in_phase", 0.3), provenance=provenance)["kind"] == "predicted"


@pytest.mark.parametrize("quantity", ["mfu.nowhere", "datacenter.relative_speed", "layout.gpu", "layout.fits"])
def test_what_is_no_number_has_no_error(quantity: str) -> None:
    row = compared(entry(quantity, 0.3))
    assert row["ours"] is None
    assert row["error"] is None


def test_a_published_nought_has_no_relative_error() -> None:
    row = compared(entry("mfu.wall_clock", 0.0))
    assert row["ours"] == 0.33
    assert row["error"] is None


def test_the_error_of_a_negative_figure_keeps_its_direction() -> None:
    assert compared(entry("mfu.wall_clock", -0.33))["error"] == pytest.approx(2.0)  # ours is higher


def test_readings_side_by_side() -> None:
    rows = contradictions(
        scenario(
            entry("mfu.wall_clock", 0.3, note="average MFU"),
            entry("tokens.per_s.in_phase", 500.0),
            entry("duration_s.total", 9000.0),
            entry("mfu.peak_sustained", 0.38),
            entry("layout.num_peers", 2),
        ),
        SUMMARY,
    )
    assert [row["reading"] for row in rows] == [
        "average MFU",
        "tokens.per_s.in_phase",
        "duration_s.total",
        "this run, training phases only",
        "this run, with merges",
        "this run, all",
    ]
    assert [row["tokens_per_s"] for row in rows] == pytest.approx([300.0, 500.0, 400.0, 400.0, 360.0, 330.0])
    assert [row["mfu"] for row in rows] == pytest.approx([0.3, 0.5, 0.4, 0.4, 0.36, 0.33])
    # 3.6 million tokens: 1000 tokens/s are one hour.
    assert [row["hours"] for row in rows] == pytest.approx([10 / 3, 2.0, 2.5, 2.5, 1 / 0.36, 1 / 0.33])
    assert [row["source"] for row in rows[2:4]] == ["source of duration_s.total", "this run"]


@pytest.mark.parametrize(
    "published",
    [
        [],
        [entry("mfu.wall_clock", 0.3)],
        [entry("mfu.wall_clock", 0.3), entry("mfu.in_phase", 0.4)],
        [entry("mfu.peak_sustained", 0.4), entry("tokens.per_s.in_phase", 500.0)],
        [entry("tokens.per_s.in_phase", 500.0), entry("duration_s.total", 7200.0)],
        [entry("mfu.wall_clock", 0.0), entry("tokens.per_s.in_phase", 500.0)],
    ],
    ids=["nothing", "one", "two of a kind", "a peak", "no MFU", "nought"],
)
def test_nothing_that_could_contradict(published: list[Any]) -> None:
    assert contradictions(scenario(*published), SUMMARY) == []


def test_without_a_number_of_tokens_a_duration_says_nothing() -> None:
    published = (
        *(entry("mfu.wall_clock", 0.3), entry("tokens.per_s.in_phase", 500.0)),
        entry("duration_s.total", 7200.0),
    )
    rows = contradictions(scenario(*published, tokens=None), SUMMARY)
    assert len(rows) == 5
    assert rows[1]["hours"] == pytest.approx(4.0)  # for the run's own 7.2 million tokens


def test_a_run_that_stood_still_took_no_number_of_hours() -> None:
    still = {**SUMMARY, "tokens": {"total": 0, "per_s": dict.fromkeys(("in_phase", "with_merges", "wall_clock"), 0.0)}}
    rows = contradictions(scenario(entry("mfu.wall_clock", 0.3), entry("tokens.per_s.in_phase", 5.0)), still)
    assert [row["hours"] for row in rows[2:]] == [None, None, None]


def test_a_reading_stands_against_other_figures_only() -> None:
    published = (
        entry("mfu.wall_clock", 0.3),
        entry("tokens.per_s.in_phase", 400.0),
        entry("duration_s.total", 12_000.0, note="the same as 0.3, in hours"),
        entry("duration_s.total", 18_000.0, kind="reading", note="taken literally"),
    )
    assert [row["quantity"] for row in compare_published(scenario(*published), SUMMARY)] == [
        "mfu.wall_clock",
        "tokens.per_s.in_phase",
        "duration_s.total",
    ]
    rows = contradictions(scenario(*published), SUMMARY)
    assert [row["tokens_per_s"] for row in rows[:3]] == pytest.approx([300.0, 400.0, 200.0])
    assert rows[2]["reading"] == "taken literally"
