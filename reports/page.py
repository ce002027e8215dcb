"""The report: one self-contained page for one run or several, beside it figures, their data and the Chrome trace."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from reports import (
    audits,
    beside,
    chrome_trace,
    emulated,
    exchanges,
    faults,
    gantt,
    hardware,
    learned,
    orders,
    predicted,
    sections,
    verdict,
)
from reports import formatting as fmt
from reports.compare import compare
from reports.figures import bands, bandwidth, links, loss, operations, stages, timeline, waterfall
from reports.figures import gantt as gantt_figure
from reports.figures import learned as learned_figure
from reports.figures.drawing import Plot
from reports.run_folder import Run, load_all

if TYPE_CHECKING:
    from jinja2 import Environment

_TEMPLATES: Final = Path(__file__).parent / "templates"
_FIGURES: Final = (waterfall, operations, timeline, stages, loss, learned_figure, bandwidth, bands, links)


@dataclass(frozen=True)
class Picture:
    """A figure as the template shows it: `svg` markup, or the address of an embedded PNG when it is too dense."""

    title: str
    reading: str
    svg: str
    png: str


def build(run_dirs: Sequence[Path | str], out: Path | str) -> Path:
    """Write the page, and beside it `figures/` and `trace.json.gz`, and return the page's path.

    `out` is the page's own path, or the folder that gets a `report.html`.
    With several runs the page begins with a table that compares them, and figures and traces carry the run's number.
    The same runs give the same bytes. Raises ReportError when a folder is no finished run, TraceError for a broken
    trace.
    """
    runs = load_all(run_dirs)
    comparison = _comparison(runs) if len(runs) > 1 else None
    path = Path(out) if Path(out).suffix == ".html" else Path(out) / "report.html"
    out = path.parent
    (out / "figures").mkdir(parents=True, exist_ok=True)
    articles = []
    for number, run in enumerate(runs, start=1):
        prefix = f"run{number}-" if len(runs) > 1 else ""
        articles.append(_article(run, prefix, out))
    page = (
        environment()
        .get_template("report.html")
        .render(
            title=runs[0].get("title") or runs[0].get("scenario") or runs[0].name
            if len(runs) == 1
            else "Runs compared",
            articles=articles,
            comparison=comparison,
        )
    )
    path.write_text(page, encoding="utf-8")
    return path


def _article(run: Run, prefix: str, out: Path) -> dict[str, Any]:
    pictures = {}
    for module in _FIGURES:
        plot = module.draw(run)
        if plot is not None:
            pictures[plot.name] = _picture(plot, prefix, out)
    window = _window(run)
    if window is not None:
        plot = gantt_figure.draw(window)
        pictures[plot.name] = _picture(plot, prefix, out)
    if run.trace is not None:
        chrome_trace.write(run.trace, out / f"{prefix}trace.json.gz")
    ledger, balance = sections.ledger(run)
    cost, cost_sentence = sections.cost(run)
    return {
        "prefix": prefix,
        "name": run.name,
        "title": run.get("title") or run.get("scenario") or run.name,
        "backend": run.get("backend"),
        "facts": sections.facts(run),
        "verdict": verdict.sentence(run),
        "tiles": verdict.tiles(run),
        "panel": emulated.panel(run) or hardware.panel(run),
        "hardware": predicted.section(run),
        "audit": audits.rows(run),
        "audit_sentence": audits.sentence(run),
        "memory": emulated.memory(run),
        "learned": learned.section(run),
        "faults": faults.rows(run),
        "faults_sentence": faults.sentence(run),
        "warnings": sections.warnings(run),
        "published": verdict.published_rows(run),
        "contradictions": sections.contradictions(run),
        "baselines": sections.baselines(run),
        "convention": run.get("model.flops_convention") or "",
        "pictures": pictures,
        "gantt": window.data() if window else None,
        "gantt_length": fmt.duration(window.until_s - window.from_s) if window else "",
        "gantt_rows_left_out": window.num_rows_left_out if window else 0,
        "schedule": orders.table(run),
        "needed": sections.bandwidth_needed(run),
        "bands": _bands(run),
        "slowest": sections.slowest_peers(run),
        "traffic": exchanges.traffic(run),
        "peers_lost": exchanges.peers_lost(run),
        "ledger": ledger,
        "balance": balance,
        "cost": cost,
        "cost_sentence": cost_sentence,
        "assumptions": sections.assumptions(run),
        "kinds": sections.KIND_ORDER,
        "command": sections.command(run),
        "reproduce": sections.reproduce(run),
        "files": run.files(),
        "has_trace": run.trace is not None,
    }


def _picture(plot: Plot, prefix: str, out: Path) -> Picture:
    """Write a figure's three files and return what the page embeds."""
    base = out / "figures" / f"{prefix}{plot.name}"
    png = plot.png()
    base.with_name(f"{base.name}.svg").write_text(plot.svg(), encoding="utf-8")
    base.with_name(f"{base.name}.png").write_bytes(png)
    base.with_name(f"{base.name}.csv").write_text(plot.csv(), encoding="utf-8")
    address = f"data:image/png;base64,{base64.b64encode(png).decode()}" if plot.raster else ""
    return Picture(plot.title, plot.reading, "" if plot.raster else plot.inline(prefix), address)


def _window(run: Run) -> gantt.Window | None:
    if run.trace is None or not run.trace.num_spans:
        return None
    return gantt.window(gantt.with_absences(run.trace, run.table("marks")))


def _bands(run: Run) -> list[list[str]]:
    from reports.quantities import label, show

    return [[label(key), *(show(key, value) for value in band)] for key, band in bands.of(run).items()]


def _comparison(runs: Sequence[Run]) -> dict[str, Any]:
    """Return the table that sets every run beside the first."""
    against = [{row.quantity: row for row in compare(runs[0].summary, run.summary)} for run in runs[1:]]
    quantities = list(dict.fromkeys(quantity for rows in against for quantity in rows))
    lines = []
    for quantity in quantities:
        present = [rows.get(quantity) for rows in against]
        first = next(row for row in present if row is not None)
        cells = [first.printed()[0]]
        for row in present:
            _, value, difference = row.printed() if row else ("", fmt.ABSENT, fmt.ABSENT)
            cells += [value, difference]
        lines.append({"label": first.label, "cells": cells, "waterfall": quantity.startswith("waterfall.")})
    return {"names": [run.name for run in runs], "lines": lines, "notes": beside.notes(runs)}


def environment() -> Environment:
    """Return what renders the templates: escaped, strict about names, the same bytes for the same data."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        autoescape=True,
        loader=FileSystemLoader(_TEMPLATES),
        lstrip_blocks=True,
        trim_blocks=True,
        undefined=StrictUndefined,
    )
    environment.policies["json.dumps_kwargs"] = {"sort_keys": True, "separators": (",", ":")}
    environment.globals["own"] = lambda name: Markup((_TEMPLATES / name).read_text(encoding="utf-8"))  # noqa: S704
    environment.filters["drawing"] = Markup  # only for SVG that matplotlib escaped
    return environment
