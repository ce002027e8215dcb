"""`orionbed calibrate`: measure this machine, write a GPU profile, and check what it predicts."""

import json
from pathlib import Path
from typing import Annotated, Final, Literal

import typer

from orionbed.cli.ending import EXIT_FAILED
from orionbed.cli.options import JsonOption, SetOption

SMALL: Final = (
    "model={layers: 4, hidden: 512, ffn: 1408, heads: 8, kv_heads: 4, vocab: 1024, dtype: fp32}",
    "batch={sequence: 128, sequences: 2}",
    "pipeline.stages=2",
    "pipeline.replicas=1",
    "pipeline.boundary={kind: resbm, width: 64}",
    "peers.sites={virginia: 1, oregon: 1}",
)
"""What makes the scenario `minimal` small enough for one core; it is measured on a CPU where no scenario is named."""


def calibrate(
    scenario: Annotated[
        str | None,
        typer.Argument(
            metavar="[SCENARIO]",
            help="Whose stages are measured; by default a small model on a CPU, orion-100b on a GPU.",
        ),
    ] = None,
    *,
    device: Annotated[Literal["cpu", "cuda"], typer.Option(help="What is measured: cpu or cuda.")] = "cpu",
    stage: Annotated[
        int | None,
        typer.Option(min=0, metavar="N", help="The stage to check the profile on; by default first, middle and last."),
    ] = None,
    threads: Annotated[int, typer.Option(min=1, metavar="N", help="Threads on a CPU.")] = 1,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The profile; shapes of this device that are in it already stay there."),
    ] = None,
    check_only: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Check this profile on whole stages and write nothing.")
    ] = None,
    repetitions: Annotated[int, typer.Option(min=3, metavar="N", help="How often everything is timed.")] = 30,
    sets: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure a device and write a GPU profile that `run`, `check` and `crosscheck` take with --profile.

    Ends with 1 when the profile is more than 5 % off a whole stage.
    """
    from orionbed import backends
    from orionbed.cli.progress import Console
    from orionbed.scenario import load

    _refuse(out, check_only)
    console = Console(quiet=as_json)
    if scenario is None and device == "cuda":
        scenario, stage = "orion-100b", 1 if stage is None else stage
    given = load(scenario, sets or ()) if scenario else load("minimal", [*SMALL, *(sets or ())])
    found = backends.load_calibrating().calibrate(
        given,
        device=device,
        stage=stage,
        threads=threads,
        out=out,
        check_only=check_only,
        repetitions=repetitions,
        say=console.line,
    )
    if as_json:
        typer.echo(json.dumps(found.plain, indent=2))
    for line in found.lines:
        console.line(line)
    if not found.passed:
        raise typer.Exit(EXIT_FAILED)


def _refuse(out: Path | None, check_only: Path | None) -> None:
    """Raise InputError for files that cannot be meant."""
    from orionbed.cli.ending import InputError

    if out is not None and check_only is not None:
        raise InputError("--check-only writes nothing; leave --out away")
    if out is not None and (out.suffix != ".yaml" or not out.parent.is_dir()):
        raise InputError(f"--out {out}: must end in .yaml, in a folder that is there")
