"""What an emulated run says of itself on the first screen: its clock, its scales, what stood in, how late it was."""

from __future__ import annotations

from typing import Any, Final

from reports import formatting as fmt
from reports.panel import WARNING, Panel, make, why_void
from reports.run_folder import Run
from reports.sections import Line

_WHAT: Final = ("operations", "messages")
_QUANTILES: Final = ("p50_s", "p99_s", "max_s", "count")
_LEAD: Final = (
    "Real processes exchanged real bytes and trained a scaled-down model; times are seconds of the run, lateness is of "
    "this machine."
)
_REMEDY: Final = "Run it again with a larger emulator.time_dilation, or leave the machine alone meanwhile."
_CLOCKS: Final = {
    "virtual": "messages carry times and nobody waits: no second of this machine belongs to one of the run",
    "cpu": "as virtual, but an operation takes the processor time that was measured for it, which drifts",
}


def panel(run: Run) -> Panel | None:
    """Return what the first screen says of an emulation, or None when the run is none."""
    if not isinstance(run.get("emulator"), dict):
        return None
    lines = [_clock(run), _length(run), _processes(run), _bytes(run), _model(run), *lateness(run)]
    return make(run, "emulated", "Emulated", _LEAD, void=void(run), lines=lines)


def lateness(run: Run) -> list[Line]:
    """Return by how much operations and messages were late; one line that says so where nothing was measured."""
    limit, lines = run.number("emulator.lateness_limit_s"), []
    for what in _WHAT:
        p50, p99, most, count = (run.number(f"emulator.lateness.{what}.{key}") for key in _QUANTILES)
        if count:
            value = f"p99 {fmt.milliseconds(p99)}" + (", OVER THE LIMIT" if what in _too_late(run) else "")
            note = f"limit {fmt.milliseconds(limit)}; p50 {fmt.milliseconds(p50)}, max {fmt.milliseconds(most)}"
            lines.append(Line(f"lateness of {what}", value, f"{note}; {fmt.number(count)} measured"))
    if not lines and run.get("emulator.clock") in _CLOCKS:
        return [Line("lateness", "none", "nothing waited for a clock, so nothing could be late")]
    return lines or [Line("lateness", "not measured", "no peer has reported")]


def void(run: Run) -> str:
    """Return in plain words that and why a run is void; nothing for one that is not."""
    if not run.is_void:
        return ""
    late = [f"one in a hundred {what} was later than {fmt.milliseconds(p99)}" for what, p99 in _too_late(run).items()]
    if not late:
        return why_void(run)
    limit = fmt.milliseconds(run.number("emulator.lateness_limit_s"))
    return f"This machine fell behind: {' and '.join(late)}, and the limit is {limit}. {WARNING} {_REMEDY}"


def memory(run: Run) -> Line | None:
    """Return the line on the memory that the peers' processes really took, or None when none has reported."""
    values = run.get("emulator.memory_bytes_per_peer")
    found = sorted(float(v) for v in values if isinstance(v, int | float) and v) if isinstance(values, list) else []
    if not found:
        return None
    middle = len(found) // 2
    median = found[middle] if len(found) % 2 else (found[middle - 1] + found[middle]) / 2
    total = f"{fmt.data(sum(found))} over {fmt.number(len(found))} peers"
    note = f"{fmt.data(found[0])} to {fmt.data(found[-1])}, {total}; what processes share counts in each of them"
    if len(found) < len(values):
        note += f"; {fmt.number(len(values) - len(found))} did not report"
    return Line("peak memory of a peer’s process, median", fmt.data(median), note)


def _too_late(run: Run) -> dict[str, float]:
    """Return the p99 of what broke the limit, by what it is."""
    limit = run.number("emulator.lateness_limit_s")
    p99_s = {what: run.number(f"emulator.lateness.{what}.p99_s") for what in _WHAT}
    return {what: late for what, late in p99_s.items() if late is not None and limit is not None and late > limit}


def _clock(run: Run) -> Line:
    clock, dilation = str(run.get("emulator.clock") or fmt.ABSENT), run.number("emulator.time_dilation")
    if clock in _CLOCKS or dilation is None:
        return Line("clock", clock, _CLOCKS.get(clock, ""))
    return Line("clock", clock, f"one second of the run took {fmt.number(dilation)}\u00a0s here")


def _length(run: Run) -> Line:
    training, merging = (run.number(f"duration_s.{key}") for key in ("training", "merging"))
    note = f"{fmt.duration(training)} of it training" + (f", {fmt.duration(merging)} merging" if merging else "")
    return Line("length", fmt.duration(run.number("duration_s.total")), f"{note}; averages are over that alone")


def _processes(run: Run) -> Line:
    count, peers = run.number("emulator.num_processes"), run.number("layout.num_peers")
    note = ""
    if count is not None and peers:
        note = "one for each peer" + (" and one for the store" if count == peers + 1 else "")
    return Line("processes", fmt.number(count), note)


def _bytes(run: Run) -> Line:
    scale = run.number("emulator.payload_scale")
    if scale == 1.0:
        return Line("bytes", "as they are")
    if scale is None:
        return Line("bytes", fmt.ABSENT)
    paced = run.get("emulator.clock") == "paced"
    note = "like rates and windows, so that transfers take their true time" if paced else "times are of the true bytes"
    return Line("bytes", f"divided by {fmt.number(scale)}", note)


def _model(run: Run) -> Line:
    number, key = run.number, "emulator.model"
    if number(f"{key}.width") is None:
        return Line("model", fmt.ABSENT)
    parts = [
        _layers(run.get(f"{key}.layers_per_chunk")),
        f"{fmt.number(number(f'{key}.tokens'))} tokens a micro-batch" if number(f"{key}.tokens") else "",
        f"boundary {fmt.number(number(f'{key}.boundary_width'))} wide" if number(f"{key}.boundary_width") else "",
        str(run.get(f"{key}.dtype") or ""),
    ]
    note = ", ".join(part for part in parts if part)
    parameters, layers = number("model.num_parameters"), number("model.num_layers")
    if parameters:
        stands_for = f"{fmt.count(parameters)} parameters" + (f" in {fmt.number(layers)} layers" if layers else "")
        note += f"; it stands in for the scenario’s {stands_for}"
    return Line("scaled-down model", f"{fmt.number(number(f'{key}.width'))} wide", note)


def _layers(per_chunk: Any) -> str:
    if not isinstance(per_chunk, list) or not per_chunk:
        return ""
    if len(set(per_chunk)) == 1:
        each = f"{per_chunk[0]} {'layer' if per_chunk[0] == 1 else 'layers'}"
        return f"{len(per_chunk)} chunks of {each}"
    return f"chunks of {', '.join(map(str, per_chunk))} layers"
