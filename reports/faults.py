"""What was done to a run on purpose: the faults that were injected, whom they hit, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from reports import formatting as fmt
from reports.run_folder import Run
from reports.sections import Line

_NAMES_SHOWN: Final = 6
_NOTHING: Final = "hit nothing"
_NOT_RECOVERED: Final = "NOT BY THE END"


@dataclass(frozen=True)
class Row:
    """One fault, printed."""

    name: str
    kind: str
    start: str
    end: str
    who: str
    what: str
    hit: str
    destroyed: str
    recovered: str


def rows(run: Run) -> list[Row]:
    """Return the faults in the order of the summary; none when there were none."""
    return [_row(entry) for entry in run.items("faults")]


def line(run: Run) -> Line | None:
    """Return the faults in a line for the first screen, or None when there were none."""
    found = rows(run)
    if not found:
        return None
    parts = [
        f"{fmt.number(count)} {words}"
        for words, count in (
            ("hit nothing", sum(row.hit == _NOTHING for row in found)),
            ("not recovered from by the end", sum(row.recovered == _NOT_RECOVERED for row in found)),
        )
        if count
    ]
    return Line("faults", fmt.number(len(found)), ", ".join(parts))


def sentence(run: Run) -> str:
    """Return what the faults did in sentences."""
    found = rows(run)
    text = f"{fmt.number(len(found))} {'fault was' if len(found) == 1 else 'faults were'} injected."
    missed = [f"“{row.name}”" for row in found if row.hit == _NOTHING]
    if missed:
        text += (
            f" {_listed(missed)} hit nothing, so this run shows nothing about {'it' if len(missed) == 1 else 'them'}."
        )
    lost = [f"“{row.name}”" for row in found if row.recovered == _NOT_RECOVERED]
    if lost:
        text += f" By its end the run had not recovered from {_listed(lost)}."
    destroyed = [entry.get("destroyed_bytes") for entry in run.items("faults")]
    total = sum(value for value in destroyed if isinstance(value, int | float))
    if total:
        text += f" {fmt.data(total)} under way were destroyed."
    dropped = sum(entry.get("dropped") or 0 for entry in run.items("faults"))
    if dropped:
        text += f" {fmt.number(dropped)} micro-batches were dropped at once."
    return text


def _row(entry: dict[str, Any]) -> Row:
    end = entry.get("end_s")
    return Row(
        name=str(entry.get("id") or fmt.ABSENT),
        kind=str(entry.get("kind") or fmt.ABSENT),
        start=fmt.duration(entry.get("start_s")),
        end="the end" if end is None and "end_s" in entry else fmt.duration(end),
        who=_who(entry.get("who")),
        what="; ".join(str(entry[key]) for key in ("what", "remark") if entry.get(key)),
        hit=_hit(entry.get("hit")),
        destroyed=_destroyed(entry),
        recovered=_recovered(entry),
    )


def _who(names: Any) -> str:
    if not isinstance(names, list):
        return str(names or fmt.ABSENT)
    shown = [str(name) for name in names[:_NAMES_SHOWN]]
    if len(names) > _NAMES_SHOWN:
        shown.append(f"and {fmt.number(len(names) - _NAMES_SHOWN)} more")
    return "; ".join(shown) or "nobody"


def _hit(value: Any) -> str:
    if value is None:
        return fmt.ABSENT
    if not value:
        return _NOTHING
    return "yes" if value is True else fmt.number(value) if isinstance(value, int | float) else str(value)


def _destroyed(entry: dict[str, Any]) -> str:
    """Return what a fault destroyed: bytes, and micro-batches or chunks where it is known which."""
    parts = [fmt.data(entry.get("destroyed_bytes"))]
    for key, words in (("corrupted_chunks", "chunks sent again"), ("dropped", "micro-batches")):
        if entry.get(key):
            parts.append(f"{fmt.number(entry[key])} {words}")
    return ", ".join(parts)


def _recovered(entry: dict[str, Any]) -> str:
    """Return when the run was over the fault; what hit nothing leaves nothing to recover from."""
    at_s, value = entry.get("recovered_s"), entry.get("recovered")
    if at_s is not None:
        return f"at {fmt.duration(at_s)}"
    if isinstance(value, str):
        return value
    if value:
        return "yes" if value is True else f"at {fmt.duration(value)}"
    known = value is not None or "recovered_s" in entry
    return _NOT_RECOVERED if known and _hit(entry.get("hit")) != _NOTHING else fmt.ABSENT


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
