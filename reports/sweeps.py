"""A sweep as lines on a terminal, as a page and as a figure, from what is written as sweep.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from orionbed.aligned import aligned
from reports import formatting as fmt
from reports.figures import learning
from reports.figures import sweep as figure
from reports.page import environment
from reports.quantities import label, show, show_difference

COLUMNS: Final = ("mean", "least", "greatest", "difference", "from", "to", "")
_VERDICTS: Final = {
    "no interval": "one seed: no interval",
    "the same": "the same with every seed",
}


@dataclass(frozen=True)
class Row:
    """A case and one measure, printed: its labels, the cells of `COLUMNS`, and what to know of it."""

    labels: Sequence[str]
    cells: Sequence[str]
    notes: Sequence[str]


def sweep_lines(result: Mapping[str, Any]) -> list[str]:
    """Return what a terminal shows of a sweep: a table per measure, differences to the first case."""
    found = [heading(result)]
    for key in result["measures"]:
        table = rows(result, key)
        heads = (*(axis["name"] for axis in result["axes"]), *COLUMNS)
        cells = [heads, *((*row.labels, *row.cells) for row in table)]
        head, *lines = aligned(cells, left=(*range(len(result["axes"])), len(heads) - 1), indent="  ")
        found += ["", label(key), head]
        for row, line in zip(table, lines, strict=True):
            found.append(line)
            found += [f"    {note}" for note in row.notes] if key == result["measures"][0] else []
    return [*found, ""]


def heading(result: Mapping[str, Any]) -> str:
    """Return in one line what was swept."""
    cases, seeds = len(result["cases"]), result["seeds"]
    which = f"seeds {seeds[0]} to {seeds[-1]}" if len(seeds) > 1 else f"seed {seeds[0]}"
    title = f"{result['title']}: " if result["title"] else ""
    return f"{title}{result['scenario']}, {cases} cases, {which}; differences are to the first case, 95 % intervals"


def rows(result: Mapping[str, Any], key: str) -> list[Row]:
    """Return one measure of every case, printed."""
    return [_row(case, key, first=index == 0) for index, case in enumerate(result["cases"])]


def _row(case: Mapping[str, Any], key: str, *, first: bool) -> Row:
    one = case["results"][key]
    cells = [show(key, one[name]) for name in ("mean", "least", "greatest")]
    against = one["difference"]
    if against is None:
        cells += ["", "", "", "first case" if first else "not measured"]
    else:
        cells += [show_difference(key, against["mean"])]
        cells += [
            show_difference(key, against[end]) if against[end] is not None else fmt.ABSENT for end in ("low", "high")
        ]
        cells += [_VERDICTS.get(against["verdict"], against["verdict"])]
    notes = [f"does not fit: {case['misfit']}"] if case["misfit"] else []
    notes += [f"seed {seed} ended early: {why}" for seed, why in case["aborted"].items()]
    return Row(case["labels"], cells, notes)


def build_sweep(result: Mapping[str, Any], folder: Path) -> None:
    """Write sweep.png, report.html and, of a training, curves.png and curves.csv into a folder. Raises OSError."""
    plot = figure.draw(result)
    (folder / "sweep.png").write_bytes(plot.png())
    curves = learning.draw(result)
    if curves is not None:
        (folder / "curves.png").write_bytes(curves.png())
        (folder / "curves.csv").write_text(curves.csv(), encoding="utf-8")
    tables = [{"title": label(key), "rows": rows(result, key)} for key in result["measures"]]
    page = (
        environment()
        .get_template("sweep.html")
        .render(
            title=result["title"] or result["name"],
            heading=heading(result),
            identity=result["sweep"],
            figure=plot.inline(),
            reading=plot.reading,
            curves=curves,
            heads=[axis["name"] for axis in result["axes"]],
            columns=COLUMNS,
            tables=tables,
        )
    )
    (folder / "report.html").write_text(page, encoding="utf-8")
