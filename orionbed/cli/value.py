"""`orionbed value`: what each peer is worth to a run, by running it with and without the peer."""

import json
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from orionbed.cli.ending import InputError
from orionbed.cli.options import JsonOption, ProfileOption, ScenarioArgument, SetOption

DEFAULT_HORIZON = "2 h"


def value(
    scenario: ScenarioArgument,
    *,
    sets: SetOption = None,
    profile: ProfileOption = None,
    peers: Annotated[
        str, typer.Option(metavar="NAMES", help="Peers, replicas or sites to value, with commas between them.")
    ] = "all",
    by: Annotated[str, typer.Option(help="What is left out at a time: peer, replica or site.")] = "peer",
    seeds: Annotated[
        int, typer.Option(min=1, help="Pairs of runs for each of them; two or more give an interval.")
    ] = 5,
    horizon: Annotated[str, typer.Option(metavar="TIME", help="How long each run is.")] = DEFAULT_HORIZON,
    jobs: Annotated[int, typer.Option(min=0, help="Processes; 0: one per core.")] = 0,
    png: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw what each of them adds.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Simulate a scenario with and without each peer, with the same seeds, and print what the peer adds and costs."""
    import reports
    from orionbed.cli.progress import Console
    from orionbed.peer_value import By, groups_of, plain, plan_of, values
    from orionbed.processes import num_cores
    from orionbed.scenario import load

    if by not in get_args(By):
        raise InputError(f"--by {by} is unknown; use {', '.join(get_args(By)[:-1])} or {get_args(By)[-1]}")
    horizon_s = _seconds(horizon)
    plan = plan_of(load(scenario, sets or (), profile=profile), horizon_s)
    names = [] if peers == "all" else [name.strip() for name in peers.split(",")]
    groups = groups_of(plan, by, names)  # type: ignore[arg-type]  # checked above
    console = Console(quiet=as_json)
    merge, first = plan.scenario.merge, plan.scenario.run.seed
    if not isinstance(merge, str) and merge.every >= horizon_s:
        console.line(f"merges come every {merge.every / 60.0:g} min: within {horizon} there is none")
    with console.count("runs", seeds * (len(groups) + 1)) as progress:
        every = range(first, first + seeds)
        found = values(plan, groups, every, jobs=jobs or num_cores(), progress=progress)
    result = _result(plan.scenario.name, by, list(every), horizon_s, plain(found))
    if png is not None:
        png.write_bytes(reports.draw_values(result))
    if as_json:
        typer.echo(json.dumps(result, indent=2, ensure_ascii=False))
        return
    for line in reports.value_lines(result):
        console.line(line)


def _result(name: str, by: str, seeds: list[int], horizon_s: float, found: list[dict[str, Any]]) -> dict[str, Any]:
    return {"scenario": name, "by": by, "seeds": seeds, "horizon_s": horizon_s, "values": found}


def _seconds(text: str) -> float:
    from orionbed import quantity

    try:
        found = quantity.parse(text, quantity.DURATION)
    except quantity.QuantityError as error:
        raise InputError(f"--horizon {error}") from None
    if found <= 0.0:
        raise InputError(f"--horizon must be longer than nothing, like {DEFAULT_HORIZON}")
    return found
