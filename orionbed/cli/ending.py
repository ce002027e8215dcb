"""How a command ends: exit codes, signals, errors without tracebacks, a reader that went away."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import wraps
from types import FrameType
from typing import ParamSpec

import typer

EXIT_DONE, EXIT_FAILED, EXIT_INPUT, EXIT_VOID = 0, 1, 2, 3
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
P = ParamSpec("P")


class Interrupted(BaseException):
    """The user or the system wants the program to end.

    Its message says what stays; without one nothing does. No KeyboardInterrupt, which typer would turn into an exit
    code of its own.
    """


class InputError(ValueError):
    """What the command line says cannot be used; the message says which part of it and what to do."""


@contextmanager
def interruptible() -> Iterator[None]:
    """Let SIGINT and SIGTERM end the program, its worker processes included, by way of every `finally`."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:  # started with nohup, or in the background: stay so
            signal.signal(number, _interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)  # a second Ctrl-C would interrupt the tidying up
    # A pool waits for all its tasks before it lets an exception pass, unless its processes are gone.
    multiprocessing = sys.modules.get("multiprocessing")
    for child in multiprocessing.active_children() if multiprocessing else ():
        child.terminate()
    raise Interrupted


def tolerant(command: Callable[P, None]) -> Callable[P, None]:
    """Make a command end well when the reader of its output has seen enough, as in `orionbed ls | head`."""

    @wraps(command)
    def wrapped(*args: P.args, **options: P.kwargs) -> None:
        try:
            command(*args, **options)
        except BrokenPipeError:
            discard_stdout()
            raise typer.Exit(EXIT_DONE) from None

    return wrapped


def discard_stdout() -> None:
    """Send to nowhere what else goes to stdout, so that the interpreter's last flush does not complain."""
    with suppress(OSError, ValueError):  # there may be no file behind stdout
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def explained(error: Exception) -> tuple[int, str] | None:
    """Return exit code and message for an error that is the user's or the run's; `None` for a fault of the program."""
    from concurrent.futures.process import BrokenProcessPool

    from orionbed.backends import BackendError
    from orionbed.checkpoints.errors import CheckpointError
    from orionbed.keys import KeysError
    from orionbed.ledger import LedgerError
    from orionbed.runs import RunError
    from orionbed.scenario import ScenarioError
    from orionbed.schedule.order import ScheduleError
    from orionbed.training.text.problems import TextError
    from orionbed.validation.facts import DataError
    from orionbed.waterfall import WaterfallError

    of_the_user = BackendError | CheckpointError | DataError | InputError | KeysError | RunError | ScenarioError
    if isinstance(error, of_the_user | ScheduleError | TextError):
        return EXIT_INPUT, str(error)
    if isinstance(error, LedgerError | WaterfallError):
        return EXIT_VOID, f"the run is void, nothing was written: {error}; please report this with the scenario"
    if isinstance(error, BrokenProcessPool):
        return EXIT_VOID, "a worker process died, perhaps for want of memory; nothing was written, try fewer --jobs"
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return EXIT_INPUT, f"{where}{error.strerror or error}"
    return None
