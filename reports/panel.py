"""What the first screen says of a run of real processes, whichever backend started them: how it ran, and why not."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from reports import audits, faults
from reports import formatting as fmt
from reports.run_folder import Run
from reports.sections import Line

WARNING: Final = "Read no number of this page as a result."


@dataclass(frozen=True)
class Panel:
    """The panel of the first screen, whose anchor is `name`.

    `stops` say in a word and a sentence why the run is no result, or not whole; `lead` says what kind of run it is.
    """

    name: str
    title: str
    lead: str
    void: bool
    stops: Sequence[Line]
    lines: Sequence[Line]


def make(run: Run, name: str, title: str, lead: str, *, void: str, lines: Iterable[Line]) -> Panel:
    """Return the panel of a run with its audit and its faults below `lines`; `void` says why it is no result."""
    stops = [Line("VOID.", void), Line("Ended early:", "" if run.is_void else stopped(run.get("aborted")))]
    if failure := audits.failure(run):
        stops.append(Line("The audit failed.", f"{failure} {WARNING}"))
    below = [line for line in (audits.line(run), faults.line(run)) if line is not None]
    return Panel(
        name=name,
        title=title,
        lead=lead,
        void=run.is_void,
        stops=[line for line in stops if line.value],
        lines=[line for line in (*lines, *below) if line.value != fmt.ABSENT],
    )


def why_void(run: Run) -> str:
    """Return in plain words why a run is void as far as its audit and its end tell; nothing for one that is not."""
    if not run.is_void:
        return ""
    if audits.failure(run):
        return f"The run’s account is wrong. {WARNING}"
    why = stopped(str(run.get("aborted") or "").removeprefix("void: "))
    return f"{why[:1].upper()}{why[1:]} {WARNING}".strip()


def stopped(text: Any) -> str:
    """Return a reason as a sentence."""
    words = str(text or "").strip()
    return words if not words or words.endswith(".") else f"{words}."
