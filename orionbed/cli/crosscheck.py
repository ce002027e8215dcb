"""`orionbed crosscheck`: the same scenario on the simulator and another backend, and how far they are apart."""

import json
from math import isfinite
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orionbed.cli.ending import EXIT_FAILED, EXIT_VOID, InputError
from orionbed.cli.options import JsonOption, ProfileOption, ScenarioArgument, SetOption

if TYPE_CHECKING:
    from orionbed.crosscheck import Agreement


def crosscheck(
    scenario: ScenarioArgument,
    *,
    backend: Annotated[str, typer.Option(help="What to hold the simulator against: emulator or real.")] = "emulator",
    sets: SetOption = None,
    profile: ProfileOption = None,
    seeds: Annotated[int, typer.Option(min=0, help="Seeds to run; the median counts (0: 3 for queues, else 1).")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Run a scenario on the simulator and on another backend and compare throughput, order and times of operations."""
    from orionbed.crosscheck import DONE, median_error
    from orionbed.crosscheck import crosscheck as compare
    from orionbed.scenario import load

    if backend not in DONE:
        raise InputError(f"--backend {backend} has nothing of its own to compare; use {' or '.join(DONE)}")
    the_scenario = load(scenario, sets or (), profile=profile)
    count = seeds or (3 if the_scenario.pipeline.schedule.kind == "queue" else 1)
    first = the_scenario.run.seed
    say = None if as_json else typer.echo
    found, tolerance = compare(the_scenario, list(range(first, first + count)), say, backend=backend)
    error = median_error(found)
    orders = [one.same_order for one in found if one.same_order is not None]
    agrees = abs(error) <= tolerance and all(orders)
    if as_json:
        typer.echo(json.dumps(_plain(found, DONE[backend], error, tolerance, agrees=agrees), indent=2))
    else:
        for line in _lines(found, DONE[backend]):
            typer.echo(line)
        verdict = "agree" if agrees else "DISAGREE"
        typer.echo(f"{verdict}: median error {error:+.3%}, tolerance {tolerance:.1%}")
    if any(one.void for one in found):
        raise typer.Exit(EXIT_VOID)
    if not agrees:
        raise typer.Exit(EXIT_FAILED)


def _lines(found: "list[Agreement]", done: str) -> list[str]:
    lines = []
    for one in found:
        order = {True: ", same order of operations", False: ", ANOTHER ORDER of operations", None: ""}[one.same_order]
        lines.append(
            f"seed {one.seed}: simulated {one.simulated:.5g}, {done} {one.executed:.5g} micro-batches/s, "
            f"{one.error:+.3%}{order}"
        )
        lines += [
            f"  {name:8s} {simulated:.6g} s simulated, {executed:.6g} s {done} ({simulated / executed - 1.0:+.2%})"
            for name, (simulated, executed) in one.mean_s.items()
        ]
        if one.void:
            lines.append(f"  {one.void}")
    return lines


def _plain(found: "list[Agreement]", done: str, error: float, tolerance: float, *, agrees: bool) -> dict[str, Any]:
    rows = [
        {
            "seed": one.seed,
            "simulated_per_s": one.simulated,
            f"{done}_per_s": one.executed,
            "error": _number(one.error),
            "same_order": one.same_order,
            "void": one.void,
        }
        for one in found
    ]
    return {"agrees": agrees, "median_error": _number(error), "tolerance": tolerance, "runs": rows}


def _number(error: float) -> float | None:
    """Return the error as JSON knows it: null where the other backend did nothing and it is infinite."""
    return error if isfinite(error) else None
