"""`orionbed import-churn`: a public spot trace, made into a churn trace for the peers of a scenario."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from orionbed.cli.ending import InputError
from orionbed.cli.options import JsonOption, ScenarioArgument

if TYPE_CHECKING:
    from orionbed.absences.recorded import ChurnTrace
    from orionbed.plan import Plan


def import_churn(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A trace of spot machines; see --format.")],
    scenario: ScenarioArgument,
    *,
    fmt: Annotated[
        Literal["auto", "skypilot", "bamboo"],
        typer.Option(
            "--format",
            help="skypilot: JSON with gap_seconds and counts; bamboo: lines of time_ms,add|remove,node; auto: by name.",
        ),
    ] = "auto",
    out: Annotated[Path, typer.Option(metavar="FILE", help="The CSV to write, for churn.trace.")] = Path("churn.csv"),
    peer: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Only this peer of the scenario; may be repeated.")
    ] = None,
    each: Annotated[
        bool,
        typer.Option("--each", help="Every peer lives through the trace of one node, from a start of its own."),
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Seed of which peer stands for which node.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Make a churn trace (t,peer,state) for the peers of a scenario from a public trace of spot machines."""
    from orionbed.absences.recorded import write_churn_trace
    from orionbed.plan import make_plan
    from orionbed.scenario import load

    plan = make_plan(load(scenario))
    trace, end_s = _imported(file, fmt, _chosen(plan, peer), each=each, seed=seed)
    write_churn_trace(out, trace)
    found = _figures(plan, trace, end_s) | {"file": str(out)}
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    typer.echo(f"{found['hours']:.1f} h, {found['departures']} departures of {found['peers']} peers")
    typer.echo(f"availability {found['availability']:.1%}, {found['losses_per_peer_hour']:.3g} losses per peer-hour")
    typer.echo(f"csv      {out}")


def _chosen(plan: "Plan", wanted: list[str] | None) -> list[str]:
    names = [one.name for one in plan.peers]
    for name in wanted or []:
        if name not in names:
            raise InputError(f"--peer {name}: the scenario's peers go from {names[0]} to {names[-1]}")
    return list(dict.fromkeys(wanted or names))


def _imported(file: Path, fmt: str, peers: list[str], *, each: bool, seed: int) -> "tuple[ChurnTrace, float]":
    """Return the trace and its length in seconds."""
    from orionbed.absences import importing
    from orionbed.streams import Streams

    random = Streams(seed).get("import-churn")
    kind = importing.format_of(file) if fmt == "auto" else fmt
    if kind == "bamboo" and each:
        raise InputError("--each is for counts of one node, which is the format skypilot; leave it out")
    try:
        if kind == "bamboo":
            events = importing.read_events(file)
            return importing.from_events(events, peers, random), events[-1][0]
        counts = importing.read_counts(file)
        make = importing.each_from if each else importing.from_counts
        return make(counts, peers, random), counts[0] * len(counts[1])
    except (UnicodeDecodeError, ValueError) as error:
        text = str(error)
        raise InputError(text if text.startswith(str(file)) else f"{file}: {text}") from None


def _figures(plan: "Plan", trace: "ChurnTrace", end_s: float) -> dict[str, Any]:
    """Return what the trace amounts to for the peers that it names."""
    from orionbed.absences.presence import presence
    from orionbed.absences.recorded import away_by

    named = [one for one in plan.peers if one.name in trace]
    away = [(i, absence) for i, one in enumerate(named) for absence in away_by(trace[one.name], 0.0)]
    found = presence(away, [one.stage for one in named] or [0], 0.0, end_s)
    return {
        "hours": end_s / 3600.0,
        "peers": len(named),
        "departures": found.departures,
        "availability": found.availability,
        "losses_per_peer_hour": found.losses_per_peer_hour,
    }
