"""`orionbed merge-lab`: merge algorithms, intervals and failures on one scenario, as a table."""

import json
from pathlib import Path
from typing import Annotated

import typer

from orionbed.cli.ending import InputError
from orionbed.cli.options import JsonOption, ScenarioArgument, SeedOption, SetOption


def merge_lab(
    scenario: ScenarioArgument,
    *,
    algorithms: Annotated[
        str | None, typer.Option(metavar="NAME,...", help="Which ways to merge, by name; all of them by default.")
    ] = None,
    intervals: Annotated[
        str, typer.Option(metavar="TIME,...", help="Training times between two merges.")
    ] = "15min,30min,60min",
    failures: Annotated[
        str, typer.Option(metavar="CHANCE,...", help="Chances that a peer falls silent in a merge.")
    ] = "0,0.1,0.35",
    merges: Annotated[int, typer.Option(min=1, help="Merges per point.")] = 2,
    horizon: Annotated[
        str | None, typer.Option(metavar="TIME", help="Simulate each point for so long instead of so many merges.")
    ] = None,
    sets: SetOption = None,
    seed: SeedOption = None,
    jobs: Annotated[int, typer.Option(min=0, help="Processes; 0: one per core.")] = 0,
    png: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw the table.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Simulate a scenario with every way to merge, at every interval and, at the middle one, with failures.

    Prints the GPUs' duty cycle, MFU, bytes per peer and merge, how long a merge takes and what failures do.
    """
    from orionbed.cli.progress import Console
    from orionbed.merge_lab import CAUTION, lines, merge_table, points
    from orionbed.merging.presets import PRESETS
    from orionbed.processes import num_cores
    from orionbed.scenario import load

    the_scenario = load(scenario, sets or ())
    if isinstance(the_scenario.merge, str) or the_scenario.pipeline.schedule.kind != "queue":
        raise InputError(f"{the_scenario.name} has no merges between queues; give `merge` and kind: queue")
    names = list(PRESETS) if algorithms is None else algorithms.split(",")
    unknown = [name for name in names if name not in PRESETS]
    if unknown:
        raise InputError(
            f"--algorithms: no way to merge is called {', '.join(unknown)}; there are {', '.join(PRESETS)}"
        )
    wanted = points(names, _times("--intervals", intervals), _chances(failures))
    with Console(quiet=as_json).count("points", len(wanted)) as progress:
        rows = merge_table(
            the_scenario,
            wanted,
            seed=the_scenario.run.seed if seed is None else seed,
            merges=merges,
            horizon_s=None if horizon is None else _times("--horizon", horizon)[0],
            jobs=jobs or num_cores(),
            progress=progress,
        )
    if as_json:
        typer.echo(json.dumps({"rows": rows, "caution": CAUTION}, indent=2))
    else:
        for line in [*lines(rows), f"caution  {CAUTION}"]:
            typer.echo(line)
    if png is not None:
        import reports

        reports.draw_merges(rows, png)


def _times(option: str, text: str) -> list[float]:
    """Read durations with their units."""
    from orionbed import quantity

    try:
        found = [quantity.parse(part.strip(), quantity.DURATION) for part in text.split(",")]
    except quantity.QuantityError as error:
        raise InputError(f"{option}: {text!r} {error}") from None
    if min(found) <= 0.0:
        raise InputError(f"{option}: must be greater than 0, not {text!r}")
    return found


def _chances(text: str) -> list[float]:
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        found = [-1.0]
    if not all(0.0 <= chance <= 1.0 for chance in found):
        raise InputError(f"--failures: must be numbers from 0 to 1 with commas between them, not {text!r}")
    return found
