"""What `orionbed validate` says: as lines, as JSON, and as docs/accuracy.md."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from orionbed.validation.case import Case, Rule, Source, Verdict

RULES: dict[Rule, str] = {
    "mean": "mean error within {:.0%}",
    "each": "every error within {:.0%}",
    "shown": "shown only",
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """One source, run and judged."""

    source: Source
    cases: tuple[Case, ...]
    verdict: Verdict

    @property
    def asked(self) -> str:
        """What is asked of the source, in words."""
        asked = RULES[self.source.rule].format(self.source.tolerance)
        return f"{asked}, order right" if self.source.ranked else asked


def lines(outcomes: Sequence[Outcome], *, cases: bool) -> Iterator[str]:
    """Lines for a terminal: every case if `cases`, then a line per source."""
    for outcome in outcomes if cases else ():
        yield f"{outcome.source.name}: {outcome.source.title} ({outcome.source.unit})"
        yield f"  source  {outcome.source.citation}"
        yield f"  fitted  {outcome.source.fitted}"
        for case in outcome.cases:
            note = "  (set on this)" if case.calibration else ""
            yield f"  {case.label:<64} {case.published:>10.4g} {case.predicted:>10.4g} {case.error:>+8.1%}{note}"
    yield f"{'source':<36} {'cases':>5} {'mean':>7} {'worst':>7} {'bias':>7}   asked"
    for outcome in outcomes:
        verdict = outcome.verdict
        said = "" if outcome.source.rule == "shown" else "  ok" if verdict.passed else "  FAILED"
        yield (
            f"{outcome.source.name:<36} {verdict.num_cases:>5} {verdict.mean_error:>7.1%} {verdict.worst_error:>7.1%} "
            f"{verdict.bias:>+7.1%}   {outcome.asked}{said}"
        )
        for pair in verdict.misranked:
            yield f"  wrong order: {pair}"


def as_json(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """Plain data for `--json`."""
    return [
        {
            "source": outcome.source.name,
            "title": outcome.source.title,
            "citation": outcome.source.citation,
            "unit": outcome.source.unit,
            "asked": outcome.asked,
            "fitted": outcome.source.fitted,
            "assumed": outcome.source.assumed,
            "num_cases": outcome.verdict.num_cases,
            "mean_error": outcome.verdict.mean_error,
            "worst_error": outcome.verdict.worst_error,
            "bias": outcome.verdict.bias,
            "misranked": list(outcome.verdict.misranked),
            "passed": outcome.verdict.passed,
            "cases": [
                {
                    "label": case.label,
                    "published": case.published,
                    "predicted": case.predicted,
                    "error": case.error,
                    "calibration": case.calibration,
                }
                for case in outcome.cases
            ],
        }
        for outcome in outcomes
    ]


HEAD = """\
# Accuracy

What the simulator predicts of published, measured runs, beside what was measured. `orionbed validate` computes
everything on this page and writes it with `--document docs/accuracy.md`; a test compares.

Errors are ours against the published figure. *Mean* is the mean of absolute errors, *bias* of signed ones. Rows that
something was set on are marked *set* and counted in neither. One set of constants holds for all rows of a source.
"""


def document(outcomes: Sequence[Outcome]) -> str:
    """Return docs/accuracy.md."""
    parts = [HEAD, _overview(outcomes), *(_section(outcome) for outcome in outcomes)]
    return "\n".join(parts)


def _overview(outcomes: Sequence[Outcome]) -> str:
    rows = [
        "| source | cases | mean | worst | bias | asked | other tools on the same figures |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for outcome in outcomes:
        verdict = outcome.verdict
        rivals = "; ".join(f"{who}: {error}" for who, error in outcome.source.rivals)
        met = "" if outcome.source.rule == "shown" else " (met)" if verdict.passed else " (missed)"
        rows.append(
            f"| [{outcome.source.title}](#{outcome.source.name}) | {verdict.num_cases} | {verdict.mean_error:.1%} | "
            f"{verdict.worst_error:.1%} | {verdict.bias:+.1%} | {outcome.asked}{met} | {rivals} |"
        )
    return "\n".join([*rows, ""])


def _section(outcome: Outcome) -> str:
    source = outcome.source
    rows = [f"## {source.name}", "", f"{source.title}. Published: {source.citation}."]
    rows.append(f"Fitted: {source.fitted}." + (f" Assumed: {source.assumed}." if source.assumed else ""))
    rows += ["", f"| | published ({source.unit}) | ours | error |", "| --- | --- | --- | --- |"]
    return "\n".join([*rows, *map(case_row, outcome.cases), ""])


def case_row(case: Case) -> str:
    """Return a case's row in the table of its source."""
    error = "set" if case.calibration else f"{case.error:+.1%}"
    return f"| {case.label} | {case.published:.4g} | {case.predicted:.4g} | {error} |"
