"""What the audit of a run of real processes found: a line for the first screen and a table of its rules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from reports import formatting as fmt
from reports.run_folder import Run
from reports.sections import Line

_SHOWN: Final = 5


@dataclass(frozen=True)
class Row:
    """One rule of the audit, printed; `violations` are the first few that broke it."""

    rule: str
    text: str
    checked: str
    outcome: str
    violations: tuple[str, ...]
    broken: bool


def rows(run: Run) -> list[Row]:
    """Return the rules in their order; none when the run was not audited."""
    return [_row(entry) for entry in run.items(_key(run, "rules"))]


def failure(run: Run) -> str:
    """Return the sentence that says which rules were broken; nothing when none was."""
    if not _is_audited(run):
        return ""
    broken = [row for row in rows(run) if row.broken]
    if broken:
        rules = "; ".join(f"{row.rule}, “{row.text}”" for row in broken)
        return f"{'Rule' if len(broken) == 1 else 'Rules'} {rules} did not hold."
    return "A rule did not hold." if run.get(_key(run, "ok")) is False else ""


def line(run: Run) -> Line | None:
    """Return the audit's result in a line, or None when the run was not audited."""
    if not _is_audited(run):
        return None
    found = rows(run)
    unchecked = [row.rule for row in found if row.outcome == "not checked"]
    note = ""
    if found:
        note = f"{fmt.number(len(found) - len(unchecked))} of {fmt.number(len(found))} rules checked"
        note += f", not checked: {', '.join(unchecked)}" if unchecked else ""
    if failure(run):
        return Line("audit", "FAILED", note)
    if found and len(unchecked) == len(found):
        return Line("audit", "not checked", note)
    return Line("audit", "passed", note)


def sentence(run: Run) -> str:
    """Return the sentence above the table: what an audit is, and whether its count agrees with the account."""
    text = "Peers wrote down what they did with every micro-batch, and the rules were held against that journal."
    theirs = next((n for key in ("applied", "counts.applied") if (n := run.number(_key(run, key))) is not None), None)
    ours = run.number("microbatches.applied")
    if theirs is None or ours is None:
        return text
    found = f"{fmt.number(theirs)} micro-batches were applied"
    if theirs == ours:
        return f"{text} By its own count {found}, as in the account below."
    if theirs < ours:
        own = "which leaves out gradients that no optimizer step had used by the end"
        return f"{text} By its own count, {own}, {found}; the account below has {fmt.number(ours)}."
    return f"{text} BY ITS OWN COUNT {found}, MORE THAN THE ACCOUNT HAS, {fmt.number(ours)}."


def _key(run: Run, name: str) -> str:
    """Return where something of the audit stands in the block of the backend that ran."""
    return f"{run.block}.audit.{name}"


def _is_audited(run: Run) -> bool:
    return isinstance(run.get(f"{run.block}.audit"), dict)


def _row(entry: dict[str, Any]) -> Row:
    violations = entry.get("violations")
    found = [str(one) for one in violations] if isinstance(violations, list) else []
    checked = entry.get("checked")
    shown = found[:_SHOWN]
    if len(found) > _SHOWN:
        shown.append(f"and {fmt.number(len(found) - _SHOWN)} more")
    if found:
        outcome = f"broken {fmt.number(len(found))}×"
    elif checked:
        outcome = "holds"
    else:
        outcome = "not checked"
    return Row(
        str(entry.get("rule", "")),
        str(entry.get("text") or ""),
        fmt.number(checked),
        outcome,
        tuple(shown),
        bool(found),
    )
