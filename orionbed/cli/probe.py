"""`orionbed probe`: what a stage could read out of the tensors that it is sent."""

import json
from typing import Annotated

import typer

from orionbed.cli.options import JsonOption, ScenarioArgument, SeedOption, SetOption


def probe(
    scenario: ScenarioArgument,
    *,
    microbatches: Annotated[
        int, typer.Option(min=0, help="Micro-batches that the model is trained on first; 0: random weights alone.")
    ] = 300,
    neighbours: Annotated[
        bool, typer.Option("--neighbours", help="Ask for the token before and the next one as well.")
    ] = False,
    hidden: Annotated[
        int | None, typer.Option(min=1, metavar="WIDTH", help="Attack with a hidden layer; by default it is linear.")
    ] = None,
    sets: SetOption = None,
    seed: SeedOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train the scenario's model a little, then guess its input from what crosses each boundary.

    Prints which share of the tokens of unseen text a probe names, beside naming the most frequent token always.
    """
    from orionbed.cli.progress import Console
    from orionbed.learning.exposure import CAUTION, exposure, lines
    from orionbed.scenario import load

    the_scenario = load(scenario, sets or ())
    with Console(quiet=as_json).count("micro-batches", microbatches) as progress:
        rows = exposure(
            the_scenario,
            the_scenario.run.seed if seed is None else seed,
            microbatches=microbatches,
            offsets=(0, -1, 1) if neighbours else (0,),
            hidden=hidden,
            progress=progress,
        )
    if as_json:
        typer.echo(json.dumps({"rows": rows, "caution": CAUTION}, indent=2))
        return
    for line in [*lines(rows), f"caution  {CAUTION}"]:
        typer.echo(line)
