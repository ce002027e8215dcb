"""Nothing lost: a journal held against eight rules.

With a fixed batch per step the rules are strict: a micro-batch is applied on all chunks in one step, or on none.
Without (the queue-driven schedule) one that did not get through may have been applied on some chunks; it is then listed
as dropped, was lost with a crashed peer, or is in flight at the end. Where a run ends in the middle of things, what has
not happened yet is no fault, unless nothing has happened for as long as the recovery deadline.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from orionbed import audit_rules as rules
from orionbed.fates import History, read
from orionbed.faults import ResolvedFault
from orionbed.journal import Entry

NOT_CHECKED: Final = "not checked"
TEXTS: Final = {
    1: "Every micro-batch is applied exactly once on all chunks, or not and listed",
    2: "Created = applied + dropped + in flight; duplicates are refused",
    3: "The divisor of a step is the number of micro-batches applied in it",
    4: "Replicas are equal after a commit; a peer that returns adopts a committed version first",
    5: "A version is committed by all stages of a replica or by none",
    6: "Every sample is used once per epoch, or again after it was given up",
    7: "The final parameters equal those of one process that does what was applied again",
    8: "Every fault ends in recovery or a report within the deadline; no byte is unaccounted for",
}


@dataclass(slots=True)
class Rule:
    """One rule, how many things it was checked on, and what broke it. `note` says why nothing was checked."""

    rule: int
    text: str
    checked: int
    violations: list[str] = field(default_factory=list)
    note: str = ""

    @property
    def ok(self) -> bool:
        """Whether nothing broke it; a rule that was not checked is not broken."""
        return not self.violations


@dataclass(slots=True)
class Audit:
    """What the audit of a journal found.

    `counts` has created, applied, dropped, lost, in_flight (these four make up the first), and partial (applied on some
    chunks only, whatever became of them), refused and retried.
    """

    rules: list[Rule]
    counts: dict[str, int]

    @property
    def void(self) -> str:
        """Why a run that breaks a rule counts for nothing; empty when none is broken."""
        broken = next((rule for rule in self.rules if not rule.ok), None)
        return (
            ""
            if broken is None
            else f"void: the ledger breaks rule {broken.rule} ({broken.text}): {broken.violations[0]}"
        )

    @property
    def ok(self) -> bool:
        """Whether no rule was broken."""
        return all(rule.ok for rule in self.rules)

    @property
    def broken(self) -> list[int]:
        """Numbers of the rules that were broken."""
        return [rule.rule for rule in self.rules if not rule.ok]

    def as_json(self) -> dict[str, Any]:
        """Return plain data for summary and report."""
        return {"ok": self.ok, "rules": [asdict(rule) for rule in self.rules], "counts": dict(self.counts)}


def audit(
    entries: Iterable[Entry],
    *,
    num_chunks: int,
    fixed_batch: bool,
    end_s: float,
    recovery_deadline_s: float,
    faults: Sequence[ResolvedFault] = (),
    bytes_sent: int,
    bytes_delivered: int,
    bytes_in_flight: int,
    bytes_destroyed: int,
    synced: bool = False,
    samples_per_epoch: int | None = None,
    open_at_end: Collection[int] | None = None,
    reference_difference: float | None = None,
    reference_problem: str = "",
    tolerance: float = 1e-5,
) -> Audit:
    """Hold the journal of a run of `end_s` seconds against the eight rules of `TEXTS`.

    `synced`: the replicas share the gradients of a step. `samples_per_epoch`: None where no sample may come twice.
    `open_at_end`: the micro-batches that peers still hold, if that is known; any other that is undecided is lost.
    `reference_difference`: relative difference of the final parameters to the serial run's, if there was one;
    `reference_problem`: why it could not do again what the journal says.
    """
    history = read(entries, num_chunks, fixed_batch=fixed_batch)
    held = None if open_at_end is None else frozenset(open_at_end)
    scope = rules.Scope(end_s, recovery_deadline_s, synced, held, samples_per_epoch)
    by_fault, of_faults = rules.recovered(history, scope, faults)
    of_bytes = _bytes(bytes_sent, bytes_delivered, bytes_in_flight, bytes_destroyed)
    found = [
        rules.everywhere_or_nowhere(history, scope),
        rules.all_accounted_for(history, scope),
        rules.divisors(history, scope),
        rules.equal_replicas(history, scope),
        rules.committed_whole(history, scope),
        rules.samples_once(history, scope),
        _reference(reference_difference, reference_problem, tolerance),
        (by_fault + 1, of_faults + of_bytes),
    ]
    made = [Rule(number, TEXTS[number], *one) for number, one in enumerate(found, start=1)]
    for rule in made:
        if not rule.checked:
            rule.note = NOT_CHECKED
    return Audit(made, _counts(history))


def _counts(history: History) -> dict[str, int]:
    counts = dict.fromkeys(("created", "applied", "dropped", "lost", "in_flight", "partial", "refused", "retried"), 0)
    for fate in history.fates.values():
        counts["created"] += 1
        counts[fate.status(history.num_chunks).replace(" ", "_")] += 1
        counts["partial"] += 0 < len(fate.applied) < history.num_chunks
        counts["refused"] += fate.refused
        counts["retried"] += fate.retried
    return counts


def _reference(difference: float | None, problem: str, tolerance: float) -> rules.Found:
    if problem:
        return 1, [f"what the journal says cannot be done again: {problem}"]
    if difference is None:
        return 0, []
    if difference <= tolerance:  # false for nan
        return 1, []
    return 1, [f"the final parameters differ by {difference:.3g} from the serial run's, more than {tolerance:.3g}"]


def _bytes(sent: int, delivered: int, in_flight: int, destroyed: int) -> list[str]:
    known = delivered + in_flight + destroyed
    if sent == known:
        return []
    verb = "are missing" if sent > known else "came from nowhere"
    sums = f"{sent} sent, {delivered} delivered, {in_flight} in flight, {destroyed} destroyed"
    return [f"{abs(sent - known)} bytes {verb}: {sums}"]
