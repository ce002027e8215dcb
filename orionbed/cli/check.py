"""`orionbed check`: validate, resolve, fit into memory, estimate the cost; never run."""

import json

import typer

from orionbed.cli.options import JsonOption, ScenarioArgument, SetOption


def check(scenario: ScenarioArgument, sets: SetOption = None, as_json: JsonOption = False) -> None:
    """Validate a scenario, show what it resolves to, whether it fits, and what it would cost. Never runs it."""
    from orionbed.estimate import estimate
    from orionbed.plan import make_plan
    from orionbed.scenario import load

    plan = make_plan(load(scenario, sets or ()))
    found = estimate(plan)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    else:
        for line in _lines(found):
            typer.echo(line)
    if not plan.fits:
        raise typer.Exit(1)


def _lines(found: dict[str, object]) -> list[str]:
    head = "ok " if found["fits"] else "does not fit "
    lines = [
        f"{head} {found['scenario']}  {found['num_stages']} stages x {found['num_replicas']} replicas = "
        f"{found['num_peers']} peers, {found['gpu']}, schedule {found['schedule']}",
        f"model      {found['num_parameters']:,} parameters; layers per stage {found['layers_per_stage']}",
        f"boundary   {found['boundary_bytes']:,} bytes, {found['compression_ratio']:g}x narrower than "
        f"{found['boundary_bytes_uncompressed']:,}",
        f"memory     {found['memory_line']}",
        f"compute    {found['compute_line']}",
        f"estimate   at most {found['max_tokens_per_s']:,.0f} tokens/s ({found['max_mfu']:.1%} MFU) while training; "
        f"{found['estimate_line']}",
    ]
    return lines
