"""`orionbed peer`: let peers of a run that goes on elsewhere live on this machine."""

from pathlib import Path
from typing import Annotated

import typer


def peer(
    *,
    join: Annotated[str, typer.Option(metavar="HOST:PORT", help="Where the supervisor of the run listens.")] = "",
    token: Annotated[
        str, typer.Option(metavar="TOKEN", envvar="ORIONBED_TOKEN", help="The token that the supervisor prints.")
    ] = "",
    slots: Annotated[int, typer.Option(min=0, metavar="N", help="Most peers to take; 0: one per core.")] = 0,
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Where peers listen; by default the address towards the supervisor.")
    ] = "",
    certificates: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Keep the certificate here, for joining again; else in memory.")
    ] = None,
    key: Annotated[
        Path | None, typer.Option(metavar="FILE", help="This machine's private key, where the supervisor asks for one.")
    ] = None,
    trusted: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Public keys, of which the supervisor must have one.")
    ] = None,
) -> None:
    """Join a run of the emulator on another machine, and let some of its peers live here until it is over."""
    from orionbed import backends
    from orionbed.cli.ending import EXIT_VOID, InputError, Interrupted

    if not join or not token:
        missing = "--join HOST:PORT" if not join else "--token TOKEN (or ORIONBED_TOKEN in the environment)"
        raise InputError(f"{missing} is missing; the supervisor prints the whole command when its run waits for hosts")
    ending = backends.load_joining().join(
        join, token, slots=slots, host=host, certificates=certificates, key=key, trusted=trusted, say=typer.echo
    )
    if ending == "interrupted":
        raise Interrupted
    if ending == "gone":
        typer.echo(f"the supervisor at {join} is gone, and its peers here with it", err=True)
        raise typer.Exit(EXIT_VOID)
    typer.echo("the run is over")
