"""A run on hardware held against what was predicted of it: operations, the step, memory; and its connections."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from reports import formatting as fmt
from reports.palette import WORK_LABELS
from reports.run_folder import Run
from reports.sections import Line

MOST_ROWS: Final = 24
_MOST_PEERS: Final = 16
_KINDS: Final = ("F", "B", "I", "W", "STEP")
_ABOUT_RIGHT: Final = 0.05
_ROUNDING: Final = 5e-4


@dataclass(frozen=True)
class Operation:
    """One kind of operation on one chunk; seconds, None where the run does not say. `place` is in words."""

    place: str
    order: float
    kind: str
    count: float | None
    median_s: float
    p5_s: float | None
    p95_s: float | None
    predicted_s: float | None

    @property
    def label(self) -> str:
        """The kind in words."""
        return WORK_LABELS.get("step" if self.kind == "STEP" else self.kind, self.kind)

    @property
    def difference(self) -> float | None:
        """How much longer it took than predicted, as a fraction of that."""
        return self.median_s / self.predicted_s - 1 if self.predicted_s else None

    @property
    def total_s(self) -> float:
        """About how long all of them took together."""
        return self.median_s * (self.count or 1)


def operations(run: Run) -> list[Operation]:
    """Return what was measured of operations, by kind and chunk (or stage, with queues)."""
    found = [operation for entry in run.items("real.operations") if (operation := _operation(entry))]
    known = {kind: place for place, kind in enumerate(_KINDS)}
    return sorted(found, key=lambda one: (known.get(one.kind, len(known)), one.kind, one.order))


def heaviest(found: Sequence[Operation]) -> list[Operation]:
    """Return the operations that took the most time altogether, as many as a table holds, in their order."""
    kept = sorted(found, key=lambda one: -one.total_s)[:MOST_ROWS]
    return [one for one in found if one in kept]


def section(run: Run) -> dict[str, Any] | None:
    """Return the section's tables and sentences, or None when the run is none on hardware or measured nothing."""
    found = operations(run)
    step, memory, connections = _step(run, found), _memory(run), _connections(run)
    if not (found or step or memory["rows"] or connections["rows"]):
        return None
    shown = heaviest(found)
    is_predicted = any(one.predicted_s for one in found)
    return {
        "lead": _lead(run, found),
        "operations": [_row(one) for one in shown],
        "is_predicted": is_predicted,
        "left_out": _left_out(len(found) - len(shown)),
        "step": step,
        "reading": _READING if is_predicted else "",
        "memory": memory,
        "connections": connections,
    }


_READING: Final = (
    "Operations that take longer than predicted share their cores with other work, run at other clocks, or have shapes "
    "that the profile does not cover. A step that is longer than its operations explain waits: for transport, for "
    "a neighbour’s result, or for what it costs to start each operation; transfer, upstream and polling in the "
    "waterfall say how much for each."
)


def _operation(entry: dict[str, Any]) -> Operation | None:
    median_s = _number(entry.get("median_s"))
    if not median_s:
        return None
    place = next((name for name in ("chunk", "stage") if _number(entry.get(name)) is not None), "")
    order = _number(entry.get(place)) if place else None
    return Operation(
        place=f"{place} {fmt.number(order)}" if order is not None else fmt.ABSENT,
        order=-1.0 if order is None else order,
        kind=str(entry.get("kind") or ""),
        count=_number(entry.get("count")),
        median_s=median_s,
        p5_s=_number(entry.get("p5_s")),
        p95_s=_number(entry.get("p95_s")),
        predicted_s=_number(entry.get("predicted_s")),
    )


def _row(one: Operation) -> dict[str, str]:
    low, high = fmt.milliseconds(one.p5_s), fmt.milliseconds(one.p95_s)
    return {
        "place": one.place,
        "kind": one.label,
        "count": fmt.number(one.count),
        "median": fmt.milliseconds(one.median_s),
        "spread": f"{low} to {high}" if one.p5_s is not None else f"to {high}" if one.p95_s is not None else fmt.ABSENT,
        "predicted": fmt.milliseconds(one.predicted_s),
        "difference": fmt.signed_percent(one.difference),
    }


def _left_out(count: int) -> str:
    if not count:
        return ""
    return f"{fmt.number(count)} more took less time altogether; figures/operations.csv has them."


def _lead(run: Run, found: Sequence[Operation]) -> str:
    profile = run.get("real.profile.name") or "in use"
    if not any(one.predicted_s for one in found):
        return _why_nothing_is_predicted(run, str(profile))
    both = [one for one in found if one.predicted_s]
    measured_s = sum(one.total_s for one in both)
    predicted_s = sum((one.predicted_s or 0.0) * (one.count or 1) for one in both)
    overall = measured_s / predicted_s - 1
    text = f"Predicted by the profile {profile}, measured here. All operations together took {_longer(overall)}"
    worst = max(both, key=lambda one: abs(one.difference or 0.0))
    if abs(worst.difference or 0.0) < _ABOUT_RIGHT:
        return f"{text}; none is off by {fmt.percent(_ABOUT_RIGHT, 0)}."
    return f"{text}; furthest off is {worst.label} of {worst.place}, {fmt.signed_percent(worst.difference)}."


def _why_nothing_is_predicted(run: Run, profile: str) -> str:
    if run.get("real.profile.is_of_device") is False:
        return (
            f"Nothing is predicted here, because the profile {profile} is not of the device that ran: measure the "
            "device with orionbed calibrate and run again with --profile."
        )
    return "The run has no predicted times of operations."


def _longer(difference: float) -> str:
    if abs(difference) < _ROUNDING:
        return "as long as predicted"
    return f"{fmt.percent(abs(difference))} {'longer' if difference > 0 else 'less'} than predicted"


def _step(run: Run, found: Sequence[Operation]) -> list[Line]:
    """Return the measured step beside the plan's, which is without contention and without an optimizer step."""
    median_s = run.number("real.steps.median_s")
    if not median_s:
        return []
    low, high = (fmt.duration(run.number(f"real.steps.{key}")) for key in ("p5_s", "p95_s"))
    lines = [Line("step, measured", fmt.duration(median_s), f"median; 5 % to 95 %: {low} to {high}")]
    order_s = run.number("schedule.step_s_without_contention")
    if not order_s or run.get("real.profile.is_of_device") is False:
        return lines
    update_s = max((one.predicted_s or 0.0 for one in found if one.kind == "STEP"), default=0.0)
    note = f"{fmt.duration(order_s)} for the order on the plan’s times and hops, without contention"
    note += f", and {fmt.duration(update_s)} for the optimizer" if update_s else ""
    predicted_s = order_s + update_s
    return [
        *lines,
        Line("step, predicted", fmt.duration(predicted_s), note),
        Line("difference", fmt.signed_percent(median_s / predicted_s - 1), "measured against predicted"),
    ]


def _memory(run: Run) -> dict[str, Any]:
    entries = [entry for entry in run.items("real.memory") if _number(entry.get("peak_bytes"))]
    entries.sort(key=lambda entry: -(_number(entry.get("peak_bytes")) or 0.0))
    whole = run.get("real.device_kind") == "cpu"
    sentence = (
        "On a CPU the peak is all of a process, with Python and torch in it, and the plan is of the model alone."
        if whole
        else "The peak is what torch allocated; what the driver and other libraries take comes on top."
    )
    more = len(entries) - _MOST_PEERS
    if more > 0:
        sentence += f" {fmt.number(more)} more peers needed less."
    rows = [_memory_row(entry) for entry in entries[:_MOST_PEERS]]
    return {"rows": rows, "sentence": sentence}


def _memory_row(entry: dict[str, Any]) -> dict[str, str]:
    peak, planned, buffers = (_number(entry.get(f"{key}_bytes")) for key in ("peak", "planned", "receive_buffer"))
    beyond = None if peak is None or planned is None else peak - planned - (buffers or 0.0)
    sign = "+" if beyond is not None and beyond > 0 else ""
    return {
        "peer": str(entry.get("peer") or fmt.ABSENT),
        "peak": fmt.data(peak),
        "planned": fmt.data(planned),
        "buffers": fmt.data(buffers),
        "beyond": sign + fmt.data(beyond),
    }


_CONNECTION: Final = (
    ("round trip", ("rtt_s",), fmt.milliseconds),
    ("sent again", ("retransmits", "retransmitted_segments"), fmt.number),
    ("a message takes", ("message_s",), fmt.milliseconds),
    ("rate", ("bytes_per_s",), lambda value: fmt.rate(None if value is None else 8 * value)),
    ("rate of large messages", ("large_bps",), fmt.rate),
    ("delivery rate", ("delivery_bps",), fmt.rate),
)
"""Columns of the table of connections: heading, keys of which an entry has one, how it is printed."""


def _connections(run: Run) -> dict[str, Any]:
    entries = run.items("real.telemetry") or run.items("real.connections")
    entries.sort(key=lambda entry: -(_first(entry, ("rtt_s",)) or 0.0))
    columns = [column for column in _CONNECTION if any(_first(entry, column[1]) is not None for entry in entries)]
    rows = [
        [
            f"{entry.get('peer') or entry.get('from') or fmt.ABSENT} to {entry.get('to', fmt.ABSENT)}",
            *(show(_first(entry, keys)) for _, keys, show in columns),
        ]
        for entry in entries[:_MOST_PEERS]
    ]
    more = len(entries) - len(rows)
    return {
        "heads": ["connection", *(head for head, _, _ in columns)],
        "rows": rows if columns else [],
        "sentence": "As the kernel and the processes saw them at the end of the run, the longest round trip first."
        + (f" {fmt.number(more)} more are not shown." if more else ""),
    }


def _first(entry: dict[str, Any], keys: Sequence[str]) -> float | None:
    return next((value for key in keys if (value := _number(entry.get(key))) is not None), None)


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
