"""How many Mbit/s it takes to reach a share of datacenter speed, read off the bandwidth curve."""

from collections.abc import Sequence
from itertools import pairwise
from math import exp, log
from typing import Any

SHARES = (0.50, 0.75, 0.90, 0.95, 0.99)


def bandwidth_needed(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the median uplink at which each boundary reaches each share of its own best speed and of the datacenter's.

    `uplink_bps` is the uplink for that share of the datacenter, `uplink_bps_of_best` for that share of the highest
    point of the boundary's own curve; `None` where the curve never gets there. Between two points the logarithm of the
    uplink is interpolated; a curve that is there from its first point on gives that point.
    """
    found = []
    for boundary in dict.fromkeys(row["boundary"] for row in rows):
        curve = sorted((float(r["uplink_bps"]), float(r["relative_speed"])) for r in rows if r["boundary"] == boundary)
        best = max(speed for _, speed in curve)
        found += [
            {
                "share": share,
                "boundary": boundary,
                "uplink_bps": _crossing(curve, share),
                "uplink_bps_of_best": _crossing(curve, share * best) if best > 0.0 else None,
            }
            for share in SHARES
        ]
    return found


def _crossing(curve: list[tuple[float, float]], wanted: float) -> float | None:
    if curve[0][1] >= wanted:
        return curve[0][0]
    for (low, at_low), (high, at_high) in pairwise(curve):
        if at_low < wanted <= at_high:
            part = (wanted - at_low) / (at_high - at_low)
            return exp(log(low) + part * (log(high) - log(low)))
    return None
