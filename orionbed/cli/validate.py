"""`orionbed validate`: published measurements, run again, with their errors."""

import json
from pathlib import Path
from typing import Annotated

import typer

from orionbed.cli.ending import EXIT_FAILED, InputError
from orionbed.cli.options import JsonOption


def validate(
    *,
    only: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Run this source alone; may be repeated.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Also run every row of the larger tables in this folder.")
    ] = None,
    document: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the page docs/accuracy.md is.")] = None,
    png: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw ours against the published figures.")] = None,
    jobs: Annotated[int, typer.Option(min=0, help="Processes; 0: one per core.")] = 0,
    summary: Annotated[bool, typer.Option("--summary", help="Print a line per source and no single cases.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Run published measurements on the simulator and print published, predicted, error, source and what was fitted.

    Ends with 1 when a source is outside its tolerance.
    """
    from orionbed.cli.progress import Console
    from orionbed.processes import num_cores
    from orionbed.validation.catalogue import SOURCES
    from orionbed.validation.data import data_sources
    from orionbed.validation.document import as_json as plain
    from orionbed.validation.document import document as page
    from orionbed.validation.document import lines
    from orionbed.validation.running import run_sources

    sources = [*SOURCES, *(data_sources(data) if data is not None else [])]
    sources = [source for source in sources if not only or source.name in only]
    unknown = [name for name in only or [] if name not in {source.name for source in sources}]
    if unknown:
        known = ", ".join(source.name for source in SOURCES)
        raise InputError(f"no source is called {', '.join(unknown)}; sources are {known}")
    with Console(quiet=as_json).count("sources", len(sources)) as progress:
        outcomes = run_sources(sources, jobs or num_cores(), progress)
    if as_json:
        typer.echo(json.dumps(plain(outcomes), indent=2, ensure_ascii=False))
    else:
        for line in lines(outcomes, cases=not summary):
            typer.echo(line)
    if document is not None:
        document.write_text(page(outcomes), encoding="utf-8")
    if png is not None:
        import reports

        reports.draw_parity(outcomes, png)
    if not all(outcome.verdict.passed for outcome in outcomes):
        raise typer.Exit(EXIT_FAILED)
