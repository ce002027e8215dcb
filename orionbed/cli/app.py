"""All commands in one application, and what their exit codes mean."""

import sys
from collections.abc import Callable
from typing import Annotated

import typer

from orionbed.cli.calibrate import calibrate
from orionbed.cli.check import check
from orionbed.cli.contest import contest
from orionbed.cli.crosscheck import crosscheck
from orionbed.cli.deadlines import deadlines
from orionbed.cli.ending import EXIT_VOID, Interrupted, explained, interruptible, tolerant
from orionbed.cli.import_churn import import_churn
from orionbed.cli.inspect_runs import compare, list_command, report, show
from orionbed.cli.keys import keys
from orionbed.cli.merge_lab import merge_lab
from orionbed.cli.peer import peer
from orionbed.cli.probe import probe
from orionbed.cli.run import run
from orionbed.cli.schedule import schedule
from orionbed.cli.sweep import sweep
from orionbed.cli.train import train
from orionbed.cli.upkeep import clean, doctor, schema
from orionbed.cli.validate import validate
from orionbed.cli.value import value
from orionbed.cli.verify_checkpoint import verify_checkpoint

app = typer.Typer(
    name="orionbed",
    help="A testbed for training large language models as a pipeline of single-GPU peers across the internet.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

COMMANDS: dict[str, Callable[..., None]] = {
    "check": check,
    "run": run,
    "train": train,
    "peer": peer,
    "report": report,
    "ls": list_command,
    "show": show,
    "compare": compare,
    "schedule": schedule,
    "sweep": sweep,
    "value": value,
    "merge-lab": merge_lab,
    "deadlines": deadlines,
    "validate": validate,
    "contest": contest,
    "crosscheck": crosscheck,
    "probe": probe,
    "calibrate": calibrate,
    "import-churn": import_churn,
    "keys": keys,
    "verify-checkpoint": verify_checkpoint,
    "schema": schema,
    "doctor": doctor,
    "clean": clean,
}
for _name, _command in COMMANDS.items():
    app.command(_name)(tolerant(_command))


def _print_version(wanted: bool) -> None:  # noqa: FBT001  (typer hands a callback its value plainly)
    if wanted:
        from orionbed.runs import version

        typer.echo(f"orionbed {version()}")
        raise typer.Exit


@app.callback()
def _options(
    *,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    del version  # its callback does it all


def main() -> None:
    """Run the command line.

    Exit codes: 0 done; 1 a check failed; 2 the input is wrong, with a message on stderr and no traceback; 3 the run is
    void or was interrupted.
    """
    with interruptible():
        try:
            app()
        except Interrupted as error:
            kept = str(error) or "a run that is not finished leaves nothing behind"
            typer.echo(f"interrupted; {kept}", err=True)
            sys.exit(EXIT_VOID)
        except Exception as error:
            found = explained(error)
            if found is None:
                raise
            code, message = found
            typer.echo(message, err=True)
            sys.exit(code)
