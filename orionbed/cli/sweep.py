"""`orionbed sweep`: a scenario with a few keys varied, every case with the same seeds, differences with intervals."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orionbed.cli.options import DEFAULT_RUNS, JsonOption, RunsOption, SetOption

if TYPE_CHECKING:
    from orionbed.cli.progress import Console
    from orionbed.sweeps.loading import Loaded
    from orionbed.sweeps.store import Store


def sweep(
    sweep: Annotated[str, typer.Argument(metavar="SWEEP", help="A sweep's file, or the name of a packaged one.")],
    *,
    sets: SetOption = None,
    seeds: Annotated[int, typer.Option(min=0, help="Seeds every case is run with; 0: as many as the file says.")] = 0,
    jobs: Annotated[int, typer.Option(min=0, help="Processes; 0: one per core.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Write the sweep's files straight into this folder.")] = None,
    runs: RunsOption = DEFAULT_RUNS,
    force: Annotated[bool, typer.Option("--force", help="Run again what is done, and replace it.")] = False,
    png: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write the figure here.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Simulate every case of a sweep with the same seeds and print means, spreads and differences to the first case.

    Runs that are done are kept: the same command again goes on where it was interrupted, and more seeds only add runs.
    """
    import reports
    from orionbed.cli.progress import Console
    from orionbed.sweeps.loading import load_sweep
    from orionbed.sweeps.store import Store, identity_of

    the_sweep = load_sweep(sweep, sets or (), seeds or None)
    identity = identity_of(the_sweep)
    console = Console(quiet=as_json)
    store = Store(out if out is not None else runs / identity, identity, force=force)
    console.line(f"sweep {identity}")
    _run(the_sweep, store, jobs, console)
    result = _write(the_sweep, store, identity)
    if png is not None:
        png.write_bytes((store.folder / "sweep.png").read_bytes())
    if as_json:
        typer.echo(json.dumps(result, indent=2, ensure_ascii=False))
        return
    for line in reports.sweep_lines(result):
        console.line(line)
    console.line(f"report  {store.folder / 'report.html'}")


def _run(the_sweep: "Loaded", store: "Store", jobs: int, console: "Console") -> None:
    """Run what is not done yet; when that is interrupted, say what is kept."""
    from orionbed.cli.ending import Interrupted
    from orionbed.processes import num_cores
    from orionbed.sweeps.running import run_missing

    try:
        with console.count("runs", the_sweep.num_runs) as progress:
            run_missing(the_sweep, store.done, store.keep, jobs=jobs or num_cores(), progress=progress)
    except Interrupted:
        store.give_up()
        if store.done:
            kept = f"{len(store.done)} runs are kept in {store.folder}"
            raise Interrupted(f"{kept}; the same command goes on from there") from None
        raise


def _write(the_sweep: "Loaded", store: "Store", identity: str) -> dict[str, Any]:
    """Write the results and return them."""
    import reports
    from orionbed.runs import command_line, git_state, version, write_json
    from orionbed.sweeps.outcome import outcome, records_of, rows
    from orionbed.tables import write_csv

    records = records_of(the_sweep, store.done)
    result = outcome(the_sweep, identity, records)
    with store.results() as folder:
        (folder / "sweep.yaml").write_bytes(the_sweep.given)
        write_csv(folder / "sweep.csv", *rows(the_sweep, records))
        write_json(folder / "sweep.json", result)
        made = {"sweep": identity, "command": command_line(), "git": git_state(), "orionbed": version()}
        write_json(folder / "manifest.json", made)
        reports.build_sweep(result, folder)
    return result
