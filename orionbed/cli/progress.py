"""What a user sees while a run goes on: a bar on a terminal, plain lines elsewhere, nothing with --json."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import typer

from orionbed.cli.ending import discard_stdout
from orionbed.plan import Plan
from orionbed.runs import RunId

PLAIN_EVERY_S = 5.0


class Console:
    """Prints progress and keeps the log. Lines go to stdout; a quiet console only keeps them."""

    def __init__(self, *, quiet: bool) -> None:
        self.quiet = quiet
        self.log: list[str] = []

    def line(self, text: str) -> None:
        """Print and keep one line."""
        self.log.append(text)
        self._print(text)

    def _print(self, text: str) -> None:
        if self.quiet:
            return
        try:
            typer.echo(text)
        except BrokenPipeError:
            # Nobody reads any more; the run goes on for its folder's sake.
            self.quiet = True
            discard_stdout()

    @contextmanager
    def run(self, plan: Plan, identity: RunId) -> Iterator[Callable[[Any], None]]:
        """Show the progress of one run: its time, tokens, and MFU so far, where the peak is known beforehand."""
        self.line(f"run {identity}")
        per_rate = plan.useful_flops_per_microbatch / plan.peak_flops

        def text(state: Any) -> str:
            tokens = state.applied * plan.tokens_per_microbatch
            per_s = state.applied / state.now_s if state.now_s else 0.0
            if identity.backend == "real":
                per_s *= plan.tokens_per_microbatch
                return f"{state.now_s:8.1f} s   {tokens / 1e6:8.3f} M tokens   {per_s:,.0f} tokens/s so far"
            done = f"{state.now_s / 3600.0:6.2f} h simulated   {tokens / 1e6:8.1f} M tokens"
            return f"{done}   MFU so far {per_s * per_rate:.1%}"

        def share(state: Any) -> float:
            known: float | None = getattr(state, "share", None)
            if known is not None:
                return known
            duration = plan.scenario.run.duration
            by_time = state.now_s / duration if duration else 0.0
            # Whichever end comes first.
            return max(by_time, state.applied / state.target if state.target else 0.0)

        with self._progress(text, share) as report:
            yield report

    @contextmanager
    def training(self) -> Iterator[Callable[[Any], None]]:
        """Show how far a training has got: micro-batches learned from, the loss, and how fast."""
        started: list[tuple[float, int]] = []

        def text(state: Any) -> str:
            if not started:  # it may go on where it was broken off
                started.append((time.monotonic(), state.tokens))
            since_s, before = started[0]
            per_s = (state.tokens - before) / max(time.monotonic() - since_s, 1e-9)
            return f"{state.microbatches:7,} micro-batches   loss {state.loss:.3f}   {per_s:,.0f} tokens/s"

        with self._progress(text, lambda state: state.lines / state.of_lines) as report:
            yield report

    @contextmanager
    def count(self, noun: str, total: int) -> Iterator[Callable[[int], None]]:
        """Show how many of `total` things are done."""
        with self._progress(lambda n: f"{n} of {total} {noun}", lambda n: n / total) as report:
            yield report

    @contextmanager
    def _progress(self, text: Callable[[Any], str], share: Callable[[Any], float]) -> Iterator[Callable[[Any], None]]:
        if self.quiet:
            yield lambda _: None
        elif _draws_bars():
            with _bar(text, share) as report:
                yield report
        else:
            yield self._plain(text, share)

    def _plain(self, text: Callable[[Any], str], share: Callable[[Any], float]) -> Callable[[Any], None]:
        last = time.monotonic()

        def report(state: Any) -> None:
            nonlocal last
            if time.monotonic() - last >= PLAIN_EVERY_S:
                last = time.monotonic()
                self._print(f"{min(share(state), 1.0):4.0%}  {text(state)}")

        return report


def _draws_bars() -> bool:
    """Whether stdout is a terminal that can redraw a line; colours forced into a file do not make it one."""
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


@contextmanager
def _bar(text: Callable[[Any], str], share: Callable[[Any], float]) -> Iterator[Callable[[Any], None]]:
    from rich.console import Console as RichConsole
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), TaskProgressColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
    with Progress(*columns, console=RichConsole(highlight=False, markup=False), transient=True) as bar:
        task = bar.add_task("", total=1.0)
        yield lambda state: bar.update(task, completed=share(state), description=text(state))
