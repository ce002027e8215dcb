"""`orionbed deadlines`: fixed, median-based, quorum and relaxing deadlines on the same arrivals."""

import json
from pathlib import Path
from typing import Annotated

import typer

from orionbed.cli.ending import InputError
from orionbed.cli.options import JsonOption, ScenarioArgument, SeedOption, SetOption


def deadlines(
    scenario: ScenarioArgument,
    *,
    merges: Annotated[int, typer.Option(min=1, help="Merges whose arrivals are recorded.")] = 2,
    only: Annotated[str | None, typer.Option(metavar="RULE", help="Print the rules of this family alone.")] = None,
    sets: SetOption = None,
    seed: SeedOption = None,
    png: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw what each rule waits and cuts off.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Record when uploads of a few merges arrive, and let every rule decide whom to wait for.

    The same is done with made-up arrivals of the same median: lognormal, and with a tenth of peers that never come.
    """
    from orionbed import backends
    from orionbed.deadline_lab import compare, lines, synthetic
    from orionbed.scenario import load

    the_scenario = load(scenario, sets or ())
    block = the_scenario.merge
    if isinstance(block, str):
        raise InputError(f"{the_scenario.name} has no merges to wait for; give `merge`")
    if block.algorithm == "gossip":
        raise InputError("merge.algorithm gossip: it has no barrier, so there is no deadline; choose another one")
    number = the_scenario.run.seed if seed is None else seed
    recorded = backends.load_merging().merge_arrivals(the_scenario, number, merges)
    sets_of_arrivals = {"simulated": recorded, **synthetic(recorded, number)}
    rows = [
        row
        for name, arrivals in sets_of_arrivals.items()
        for row in compare(name, arrivals, block)
        if only is None or row["family"] == only
    ]
    if not rows:
        raise InputError(f"--only: no rule is called {only}; there are all, fixed, mad, quorum-grace, relaxing-quorum")
    if as_json:
        typer.echo(json.dumps({"arrivals_s": recorded, "rows": rows}, indent=2))
    else:
        for line in lines(rows):
            typer.echo(line)
    if png is not None:
        import reports

        reports.draw_deadlines(rows, png)
