"""What a run on hardware says of itself on the first screen: on what, over what, a share of what, how steadily."""

from __future__ import annotations

from typing import Any, Final

from reports import formatting as fmt
from reports.panel import Panel, make, why_void
from reports.quantities import show
from reports.run_folder import Run
from reports.sections import Line
from reports.verdict import device_name

_LEAD: Final = (
    "Processes trained the scenario’s own model at its true size on this hardware: times, losses and memory on this "
    "page are measured, unless it says predicted."
)
_PRINTED: Final = ("name", "kind")
_MACHINES_APART: Final = "clocks of machines are that uncertain: times of two machines compare no better"


def panel(run: Run) -> Panel | None:
    """Return what the first screen says of a run on hardware, or None when the run is none."""
    if not isinstance(run.get("real"), dict):
        return None
    lines = [_device(run), _processes(run), _transport(run), _dtype(run), _peak(run), _steps(run)]
    lines += [_restarts(run), _reference(run), _clocks(run)]
    return make(run, "measured", "Measured on hardware", _LEAD, void=why_void(run), lines=lines)


def _device(run: Run) -> Line:
    facts = run.get("real.device")
    found = {k: v for k, v in facts.items() if k not in _PRINTED} if isinstance(facts, dict) else {}
    note = ", ".join(f"{_words(key)} {show(key, value)}" for key, value in found.items() if _is_plain(value))
    return Line("device", device_name(run), note)


def _words(key: str) -> str:
    return key.removesuffix("_bytes").removesuffix("_s").replace("_", " ")


def _is_plain(value: Any) -> bool:
    return isinstance(value, str | int | float) and value != ""


def _processes(run: Run) -> Line:
    machines, threads = (run.number(f"real.{key}") for key in ("num_nodes", "threads"))
    parts = [
        "" if machines is None else "on one machine" if machines == 1 else f"on {fmt.number(machines)} machines",
        f"{fmt.number(threads)} {'thread' if threads == 1 else 'threads'} each"
        if threads and run.get("real.device_kind") == "cpu"
        else "",
    ]
    return Line("processes", fmt.number(run.number("real.num_processes")), ", ".join(part for part in parts if part))


def _transport(run: Run) -> Line:
    encrypted = run.get("real.encrypted")
    note = "encrypted" if encrypted else "not encrypted" if encrypted is False else ""
    return Line("transport", str(run.get("real.transport") or fmt.ABSENT), note)


def _dtype(run: Run) -> Line:
    return Line("number format", str(run.get("real.dtype") or fmt.ABSENT), "of weights and activations")


def _peak(run: Run) -> Line:
    source = str(run.get("real.profile.peak_source") or "")
    share = "MFU is a share of this"
    return Line("peak", fmt.flops(run.number("real.profile.peak_flops")), f"of each process, {source}; {share}".strip())


def _steps(run: Run) -> Line:
    median, low, high = (run.number(f"real.steps.{key}") for key in ("median_s", "p5_s", "p95_s"))
    measured, warm_up = (run.number(f"real.steps.{key}") for key in ("measured", "warm_up"))
    if not median:
        return Line("step", fmt.ABSENT)
    parts = [f"5 % to 95 %: {fmt.duration(low)} to {fmt.duration(high)}"] if low is not None else []
    if measured is not None:
        after = f" after {fmt.number(warm_up)} to warm up, which count nowhere" if warm_up else ""
        parts.append(f"{fmt.number(measured)} measured{after}")
    return Line("step, median", fmt.duration(median), "; ".join(parts))


def _restarts(run: Run) -> Line:
    """Nought restarts are said as well: a run that may go on after a loss would not look different."""
    told = run.get("real.restarts")
    if not isinstance(told, list):
        return Line("restarts", fmt.ABSENT)
    each = "; ".join(_restart(entry) for entry in run.items("real.restarts"))
    again = run.number("real.num_steps_done_again")
    if again:
        each += f"; {fmt.number(again)} {'step' if again == 1 else 'steps'} done again"
    return Line("restarts", fmt.number(len(told)) if told else "none", each)


def _restart(entry: dict[str, Any]) -> str:
    at_s, step = entry.get("at_s"), entry.get("step")
    words = f"{entry['peer']} " if entry.get("peer") else ""
    words += f"at {fmt.duration(at_s)}" if at_s is not None else ""
    return words + (f", from step {fmt.number(step)}" if step is not None else "")


def _reference(run: Run) -> Line:
    difference = run.number("real.reference_difference")
    value = fmt.ABSENT if difference is None else "none" if difference == 0 else _small(difference)
    note = "largest of any weight, relative to the largest weight, after the same micro-batches in one process"
    return Line("difference to the plain model", value, note)


def _small(value: float) -> str:
    digits, _, power = f"{value:.1e}".partition("e")
    return f"{digits}e{int(power)}"


def _clocks(run: Run) -> Line:
    uncertain = run.number("real.clock_uncertain_s")
    return Line("clocks", f"±{fmt.duration(uncertain)}" if uncertain else fmt.ABSENT, _MACHINES_APART)
