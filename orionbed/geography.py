"""One-way delays between the places where peers are, from the tables in scenarios/delays."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

FOLDER: Final = Path(__file__).resolve().parent.parent / "scenarios" / "delays"
COLUMNS: Final = ["site", "other", "one_way_ms", "kind"]


def tables() -> list[str]:
    """Return the names of the packaged tables."""
    return sorted(path.stem for path in FOLDER.glob("*.csv"))


def one_way_delays(table: str, sites: Sequence[str]) -> NDArray[np.float64]:
    """Return the one-way delays in seconds between sites, shape (sites, sites), symmetric.

    The diagonal is the delay between two peers of one site. ValueError for an unknown table or a pair not in it.
    """
    if table not in tables():
        raise ValueError(f"no delay table {table!r}; tables are {', '.join(tables())}")
    delays = read(FOLDER / f"{table}.csv")
    known = sorted({site for pair in delays for site in pair})
    for site in sites:
        if site not in known:
            raise ValueError(f"no site {site!r} in delay table {table}; it has {', '.join(known)}")
    matrix = np.empty((len(sites), len(sites)))
    for i, site in enumerate(sites):
        for j, other in enumerate(sites):
            if (site, other) not in delays:
                raise ValueError(f"delay table {table} has no delay between {site} and {other}")
            matrix[i, j] = delays[site, other]
    return matrix


def read(path: Path) -> dict[tuple[str, str], float]:
    """Read a table: (site, other) -> one-way delay in seconds, both ways round; ValueError names a wrong line."""
    delays: dict[tuple[str, str], float] = {}
    lines = path.read_text(encoding="utf-8").splitlines()
    numbered = [(number, line) for number, line in enumerate(lines, 1) if line and not line.startswith("#")]
    rows = csv.reader(line for _, line in numbered)
    for (number, _), row in zip(numbered, rows, strict=True):
        if number == numbered[0][0]:
            if row != COLUMNS:
                raise ValueError(f"{path}:{number}: the first line must read {','.join(COLUMNS)}")
            continue
        try:
            site, other, one_way_ms, _kind = row
            delay_s = float(one_way_ms) / 1e3
        except ValueError:
            raise ValueError(f"{path}:{number}: expected {','.join(COLUMNS)}, not {','.join(row)}") from None
        if (site, other) in delays:
            raise ValueError(f"{path}:{number}: {site} to {other} is given twice")
        delays[site, other] = delays[other, site] = delay_s
    return delays
