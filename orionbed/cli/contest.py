"""`orionbed contest`: routers against one another, against the random one and against what no router can beat."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orionbed.cli.options import JsonOption, SetOption

if TYPE_CHECKING:
    from orionbed.cli.progress import Console
    from orionbed.contest.results import SeedResult
    from orionbed.contest.running import UserRouter
    from orionbed.contest.schema import Contest
    from orionbed.contest.scoring import Standing


def contest(
    file: Annotated[
        str, typer.Argument(metavar="CONTEST", help="A contest file, or the name of one that ships: apex-routing.")
    ],
    *,
    router: Annotated[
        str | None, typer.Option(metavar="FILE:CLASS", help="Your router, like my_router.py:MyRouter.")
    ] = None,
    seeds: Annotated[int, typer.Option(metavar="N", min=1, help="Run seeds 0 to N-1.")] = 5,
    sets: SetOption = None,
    jobs: Annotated[int, typer.Option(min=0, help="Processes for the baselines; 0: one per core.")] = 0,
    png: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw the scores.")] = None,
    timing: Annotated[bool, typer.Option("--timing", help="Also say how long your router took.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Score routers: 0 is the random one, 1 what no router can reach.

    Your router runs in a process of its own, with a time limit; docs/how-to/routing-contest.md has its interface.
    """
    from orionbed.cli.ending import InputError
    from orionbed.cli.progress import Console
    from orionbed.contest.answering import RouterError
    from orionbed.contest.load import load_contest
    from orionbed.contest.running import parse_router
    from orionbed.contest.scoring import standings

    the_contest = load_contest(file, sets or ())
    console = Console(quiet=as_json)
    try:
        user = parse_router(router) if router is not None else None
        # The user's first: what is wrong with it comes out at once.
        results = _run_user(the_contest, user, seeds, console) if user is not None else []
    except RouterError as error:
        raise InputError(str(error)) from None
    found = standings(results + _run_baselines(the_contest, seeds, jobs, console))
    if as_json:
        typer.echo(json.dumps(_plain(the_contest, seeds, found), indent=2, ensure_ascii=False))
    else:
        for line in _lines(the_contest, seeds, found):
            typer.echo(line)
        if timing and results:
            typer.echo(_timing(results))
    if png is not None:
        from reports.figures.contest import draw

        png.write_bytes(draw(found, the_contest.title or the_contest.name).png())


def _run_user(contest: "Contest", user: "UserRouter", num_seeds: int, console: "Console") -> list["SeedResult"]:
    from orionbed.contest.running import run_user

    results = []
    with console.count("seeds of your router", num_seeds) as progress:
        for seed in range(num_seeds):
            results.append(run_user(contest, user, seed))
            progress(seed + 1)
    return results


def _run_baselines(contest: "Contest", num_seeds: int, jobs: int, console: "Console") -> list["SeedResult"]:
    from orionbed.contest.baselines import BASELINES
    from orionbed.contest.running import run_baseline
    from orionbed.processes import in_processes, num_cores

    runs = [(contest, name, seed) for name in BASELINES for seed in range(num_seeds)]
    with console.count("runs of the baselines", len(runs)) as progress:
        if (jobs or num_cores()) > 1 and len(runs) * contest.epochs.count * contest.epochs.activations > _WORTH_IT:
            found: list[SeedResult] = in_processes(run_baseline, runs, jobs or num_cores(), progress)
            return found
        results = []
        for run in runs:
            results.append(run_baseline(*run))
            progress(len(results))
        return results


_WORTH_IT = 10_000
"""Activations from which on it pays to start other processes."""


def _plain(contest: "Contest", num_seeds: int, found: list["Standing"]) -> dict[str, Any]:
    from orionbed.contest.interface import INTERFACE_VERSION

    return {
        "contest": contest.name,
        "interface": INTERFACE_VERSION,
        "seeds": list(range(num_seeds)),
        "routers": [standing.plain() for standing in found],
    }


def _lines(contest: "Contest", num_seeds: int, found: list["Standing"]) -> list[str]:
    epochs = contest.epochs
    which = "seed 0" if num_seeds == 1 else f"seeds 0 to {num_seeds - 1}"
    width = max(len(standing.router) for standing in found)
    ranked = sorted(found, key=lambda standing: -standing.score)
    lines = [
        f"{contest.name}  {contest.miners.count} miners, {epochs.count} x {epochs.activations} activations, {which}",
        f"{'router':<{width}}   score  lowest to highest  of ceiling     epoch    lost  fallbacks",
    ]
    for standing in ranked:
        low, high = standing.spread
        runs = standing.seeds
        created = sum(epoch.created for run in runs for epoch in run.epochs)
        lost = sum(epoch.lost for run in runs for epoch in run.epochs) / created
        fallbacks = sum(run.fallbacks for run in runs)
        lines.append(
            f"{standing.router:<{width}}  {standing.score:6.3f}  {low:6.3f} to {high:6.3f}  {standing.of_ceiling:10.1%}"
            f"  {standing.epoch_s:6.1f} s  {lost:5.1%}  {fallbacks:9,}"
        )
    for standing in ranked:
        lines += ["", f"epochs of {standing.router}, s (at least)"]
        for run in standing.seeds:
            times = "  ".join(f"{epoch.time_s:.1f} ({epoch.bound_s:.1f})" for epoch in run.epochs)
            lines.append(f"  seed {run.seed}, {run.num_layers} layers: {times}")
        lines += [f"  {line}" for line in _faults(standing.seeds)]
    return lines


def _faults(runs: "tuple[SeedResult, ...]") -> list[str]:
    """Say what went wrong now and then."""
    faults: dict[str, int] = {}
    for run in runs:
        for kind, count in run.faults.items():
            faults[kind] = faults.get(kind, 0) + count
    if not faults:
        return []
    first = next(run.first_fault for run in runs if run.first_fault)
    counts = ", ".join(f"{count} {kind}" for kind, count in sorted(faults.items()))
    return [f"of {sum(run.calls for run in runs):,} calls {counts}; the first: {first}"]


def _timing(results: list["SeedResult"]) -> str:
    calls = sum(result.calls for result in results)
    asking_s = sum(result.asking_s for result in results)
    thinking_s = sum(result.thinking_s for result in results)
    return (
        f"{calls:,} calls took {asking_s:.2f} s: {thinking_s / calls * 1e3:.2f} ms each in the router, "
        f"{(asking_s - thinking_s) / calls * 1e3:.2f} ms to ask it"
    )
