"""`orionbed check`: validate, resolve, fit into memory, estimate the cost; never run."""

import json
from typing import Any

import typer

from orionbed.cli.ending import EXIT_FAILED
from orionbed.cli.options import JsonOption, ProfileOption, ScenarioArgument, SetOption


def check(
    scenario: ScenarioArgument, *, sets: SetOption = None, profile: ProfileOption = None, as_json: JsonOption = False
) -> None:
    """Validate a scenario, show what it resolves to, whether it fits, and what it would cost. Never runs it."""
    from orionbed.estimate import estimate
    from orionbed.plan import make_plan
    from orionbed.scenario import load
    from orionbed.warn import about_profile

    plan = make_plan(load(scenario, sets or (), profile=profile))
    found = estimate(plan)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    else:
        for line in [*_lines(found), *(f"warning    {one['message']}; {one['advice']}" for one in about_profile(plan))]:
            typer.echo(line)
    if not plan.fits:
        raise typer.Exit(EXIT_FAILED)


def _lines(found: dict[str, Any]) -> list[str]:
    layout = (
        f"{found['scenario']}  {found['num_stages']} stages x {found['num_replicas']} replicas = "
        f"{found['num_peers']} peers, {found['gpu']}, schedule {found['schedule']}"
    )
    boundary = f"{found['boundary_bytes']:,} bytes"
    if found["boundary_bytes"] != found["boundary_bytes_uncompressed"]:
        boundary += f", {found['compression_ratio']:g}x narrower than {found['boundary_bytes_uncompressed']:,}"
    limit = f"at most {found['max_tokens_per_s']:,.0f} tokens/s ({found['max_mfu']:.1%} MFU) while training"
    return [
        f"{'ok' if found['fits'] else 'does not fit'}  {layout}",
        f"model      {found['num_parameters']:,} parameters; layers per stage {found['layers_per_stage']}",
        f"boundary   {boundary}",
        f"memory     {found['memory_line']}",
        f"compute    {found['compute_line']}",
        f"estimate   {limit}; {found['estimate_line']}",
    ]
