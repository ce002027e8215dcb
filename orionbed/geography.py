"""One-way delays between the places where peers are, from the tables in scenarios/delays."""

import csv
from collections.abc import Sequence
from math import asin, cos, inf, radians, sin, sqrt
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
FOLDER: Final = Path(__file__).resolve().parent.parent / "scenarios" / "delays"
COLUMNS: Final = ["site", "other", "one_way_ms", "kind"]
RATE_COLUMN: Final = "mbps"


EARTH_RADIUS_KM: Final = 6371.0


def great_circle_km(one: tuple[float, float], other: tuple[float, float]) -> float:
    """Return the distance between two places given as (latitude, longitude) in degrees."""
    (lat, lon), (other_lat, other_lon) = ((radians(a), radians(b)) for a, b in (one, other))
    half = sin((other_lat - lat) / 2) ** 2 + cos(lat) * cos(other_lat) * sin((other_lon - lon) / 2) ** 2
    return 2.0 * EARTH_RADIUS_KM * asin(sqrt(half))


def estimated_one_way_s(distance_km: float) -> float:
    """Return half of the round trip that backbones take over a distance: 4.5 ms + 0.0159 ms per km of great circle.

    A least-squares fit to 40 round trips between Azure regions in the US and Toronto (Microsoft's latency statistics of
    July 2023; R2 0.91, RMSE 4.9 ms). Across oceans it is too long, round obstacles too short: measured ways come first.
    """
    return (4.5 + 0.0159 * distance_km) / 2e3


def tables() -> list[str]:
    """Return the names of the packaged tables."""
    return sorted(path.stem for path in FOLDER.glob("*.csv"))


def one_way_delays(table: str, sites: Sequence[str]) -> Floats:
    """Return the one-way delays in seconds between sites, shape (sites, sites), symmetric.

    The diagonal is the delay between two peers of one site. ValueError for an unknown table or a pair not in it.
    """
    return _matrix(table, sites, 0)


def connection_rates(table: str, sites: Sequence[str]) -> Floats:
    """Return what one connection can carry between sites, bit/s, shape (sites, sites); infinite where nothing is said.

    ValueError for an unknown table or a pair not in it.
    """
    return _matrix(table, sites, 1)


def _matrix(table: str, sites: Sequence[str], column: int) -> Floats:
    if table not in tables():
        raise ValueError(f"no delay table {table!r}; tables are {', '.join(tables())}")
    ways = read(FOLDER / f"{table}.csv")
    known = sorted({site for pair in ways for site in pair})
    for site in sites:
        if site not in known:
            raise ValueError(f"no site {site!r} in delay table {table}; it has {', '.join(known)}")
    matrix = np.empty((len(sites), len(sites)))
    for i, site in enumerate(sites):
        for j, other in enumerate(sites):
            if (site, other) not in ways:
                raise ValueError(f"delay table {table} has no delay between {site} and {other}")
            matrix[i, j] = ways[site, other][column]
    return matrix


def read(path: Path) -> dict[tuple[str, str], tuple[float, float]]:
    """Read a table: (site, other), both ways round, -> one-way delay in seconds and bit/s of one connection.

    The rate is in a fifth column, in Mbit/s; a table without it, or an empty cell, says nothing of rates.
    ValueError names a wrong line.
    """
    ways: dict[tuple[str, str], tuple[float, float]] = {}
    lines = path.read_text(encoding="utf-8").splitlines()
    numbered = [(number, line) for number, line in enumerate(lines, 1) if line and not line.startswith("#")]
    columns = COLUMNS
    for (number, _), row in zip(numbered, csv.reader(line for _, line in numbered), strict=True):
        if number == numbered[0][0]:
            if row not in (COLUMNS, [*COLUMNS, RATE_COLUMN]):
                raise ValueError(f"{path}:{number}: the first line must read {','.join(COLUMNS)}[,{RATE_COLUMN}]")
            columns = row
            continue
        try:
            site, other, one_way_ms, _kind, mbps = [*row, *[""] * (len(columns) == len(COLUMNS))]
            way = (float(one_way_ms) / 1e3, float(mbps) * 1e6 if mbps else inf)
        except ValueError:
            raise ValueError(f"{path}:{number}: expected {','.join(columns)}, not {','.join(row)}") from None
        if (site, other) in ways:
            raise ValueError(f"{path}:{number}: {site} to {other} is given twice")
        ways[site, other] = ways[other, site] = way
    return ways
