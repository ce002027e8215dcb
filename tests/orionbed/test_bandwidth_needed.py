"""Reading the bandwidth curve: between two points the logarithm of the uplink is interpolated."""

from typing import Any

import pytest

from orionbed.bandwidth_needed import SHARES, bandwidth_needed


def rows(*points: tuple[float, float], boundary: str = "resbm") -> list[dict[str, Any]]:
    return [{"uplink_bps": uplink, "boundary": boundary, "relative_speed": speed} for uplink, speed in points]


def found(curve: list[dict[str, Any]], share: float, boundary: str = "resbm") -> dict[str, Any]:
    (row,) = [r for r in bandwidth_needed(curve) if r["boundary"] == boundary and r["share"] == share]
    return row


def test_halfway_in_speed_is_the_geometric_mean_of_the_uplinks() -> None:
    row = found(rows((1e7, 0.4), (1e9, 0.6)), 0.5)
    assert row["uplink_bps"] == pytest.approx(1e8)


def test_a_point_of_the_curve_gives_itself() -> None:
    row = found(rows((1e7, 0.2), (1e8, 0.5), (1e9, 0.9)), 0.5)
    assert row["uplink_bps"] == pytest.approx(1e8)
    assert found(rows((1e7, 0.2), (1e8, 0.5), (1e9, 0.9)), 0.9)["uplink_bps"] == pytest.approx(1e9)


def test_a_share_of_the_datacenter_that_is_never_reached() -> None:
    row = found(rows((1e7, 0.2), (1e9, 0.8)), 0.9)
    assert row["uplink_bps"] is None
    # 0.9 x 0.8 = 0.72 is 13/15 of the way from 0.2 to 0.8.
    assert row["uplink_bps_of_best"] == pytest.approx(10 ** (7 + 2 * 13 / 15))


def test_a_curve_that_starts_above_gives_its_first_point() -> None:
    row = found(rows((1e7, 0.8), (1e9, 0.9)), 0.5)
    assert row["uplink_bps"] == row["uplink_bps_of_best"] == 1e7


def test_the_first_crossing_counts_on_a_curve_that_is_not_monotone() -> None:
    assert found(rows((1e6, 0.0), (1e7, 1.0), (1e8, 0.2), (1e9, 1.0)), 0.5)["uplink_bps"] == pytest.approx(10**6.5)


def test_the_order_of_the_rows_does_not_matter() -> None:
    points = rows((1e7, 0.2), (1e8, 0.5), (1e9, 0.9))
    assert bandwidth_needed(points[::-1]) == bandwidth_needed(points)


def test_every_boundary_has_a_curve_of_its_own() -> None:
    curve = rows((1e7, 0.4), (1e9, 0.6)) + rows((1e8, 0.4), (1e10, 0.6), boundary="none")
    table = bandwidth_needed(curve)
    assert [(row["boundary"], row["share"]) for row in table] == [
        (boundary, share) for boundary in ("resbm", "none") for share in SHARES
    ]
    assert found(curve, 0.5)["uplink_bps"] == pytest.approx(1e8)
    assert found(curve, 0.5, "none")["uplink_bps"] == pytest.approx(1e9)


def test_one_point_and_no_point() -> None:
    assert found(rows((1e7, 0.6)), 0.5)["uplink_bps"] == 1e7
    assert found(rows((1e7, 0.6)), 0.75)["uplink_bps"] is None
    assert bandwidth_needed([]) == []


def test_a_curve_at_zero_needs_nothing_and_reaches_nothing() -> None:
    row = found(rows((1e7, 0.0), (1e9, 0.0)), 0.5)
    assert row["uplink_bps"] is None
    assert row["uplink_bps_of_best"] is None
