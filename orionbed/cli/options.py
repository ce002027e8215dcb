"""Arguments and options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

ScenarioArgument = Annotated[
    str, typer.Argument(metavar="SCENARIO", help="A scenario file, or the name of one that ships with orionbed.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change one key, e.g. network.uplink.median='500 Mbps'."),
]
ProfileOption = Annotated[
    Path | None,
    typer.Option("--profile", metavar="FILE", help="A GPU profile, as `orionbed calibrate` writes it, for peers.gpu."),
]
SeedOption = Annotated[int | None, typer.Option(min=0, help="Seed of all random draws; the scenario's by default.")]
RunsOption = Annotated[Path, typer.Option("--runs", help="The folder that holds the runs.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON on stdout and nothing else there.")]

DEFAULT_RUNS = Path("runs")
