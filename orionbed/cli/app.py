"""All commands in one application, and what their exit codes mean."""

import sys
from collections.abc import Callable
from typing import Annotated

import typer

from orionbed.cli.check import check
from orionbed.cli.inspect_runs import compare, list_command, report, show
from orionbed.cli.run import run
from orionbed.cli.upkeep import clean, doctor, schema

EXIT_FAILED, EXIT_INPUT, EXIT_VOID = 1, 2, 3

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
    "report": report,
    "ls": list_command,
    "show": show,
    "compare": compare,
    "schema": schema,
    "doctor": doctor,
    "clean": clean,
}
for _name, _command in COMMANDS.items():
    app.command(_name)(_command)


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        from orionbed.runs import version as installed

        typer.echo(f"orionbed {installed()}")
        raise typer.Exit


def main() -> None:
    """Run the command line. Wrong input ends with exit code 2 and a message on stderr, never with a traceback."""
    from orionbed.backends import BackendError
    from orionbed.runs import RunError
    from orionbed.scenario import ScenarioError

    try:
        app()
    except (BackendError, RunError, ScenarioError) as error:
        typer.echo(str(error), err=True)
        sys.exit(EXIT_INPUT)
    except KeyboardInterrupt:
        typer.echo("interrupted; nothing was written", err=True)
        sys.exit(EXIT_VOID)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)
