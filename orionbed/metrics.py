"""From what a backend measured to the numbers people ask for."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from orionbed.orchestration import MERGING, TRAINING, UPLOADING
from orionbed.results import Epoch, Floats, RunResult

PHASE_OF_STATE: Final = {TRAINING: "training", UPLOADING: "uploading", MERGING: "merging"}
"""An orchestrator's states as phases of the timeline; without one there are `training` and `merge`."""


@dataclass(frozen=True, slots=True)
class Peak:
    """The best window of a run: micro-batches per second in it, and where it starts."""

    per_s: float
    start_s: float
    window_s: float


def best_window(times_s: Floats, window_s: float, from_s: float, to_s: float, epochs: Sequence[Epoch] = ()) -> Peak:
    """Find the window of `window_s` seconds within [from_s, to_s] with most events per second; `times_s` is sorted.

    With `epochs` the rate is per second of training in the window, so merges do not dilute it. A run shorter than the
    window is its own window. Only windows that start at an event, or end with the run, are tried: one of them is best.
    """
    length = to_s - from_s
    if length <= 0.0 or len(times_s) == 0:
        return Peak(0.0, from_s, max(length, 0.0))
    window_s = min(window_s, length)
    starts = np.append(times_s[times_s <= to_s - window_s], to_s - window_s)
    # Half-open windows: an event at the start counts, one at the end does not, unless it ends the run.
    ends = np.searchsorted(times_s, starts + window_s, side="left")
    ends[-1] = len(times_s)
    counts = ends - np.searchsorted(times_s, starts, side="left")
    if epochs:
        seconds = training_clock(starts + window_s, epochs) - training_clock(starts, epochs)
    else:
        seconds = np.full(len(starts), window_s)
    per_s = np.where(seconds > 0.0, counts / np.maximum(seconds, 1e-9), 0.0)
    best = int(np.argmax(per_s))
    return Peak(float(per_s[best]), float(starts[best]), window_s)


def training_clock(times_s: Floats, epochs: Sequence[Epoch]) -> Floats:
    """Map times of the run to seconds of training so far: merges and start-up take no time on this clock."""
    if not epochs:
        return np.zeros_like(times_s)
    starts = np.array([epoch.start_s for epoch in epochs])
    lengths = np.array([epoch.training_end_s - epoch.start_s for epoch in epochs])
    before = np.concatenate(([0.0], np.cumsum(lengths)[:-1]))
    index = np.clip(np.searchsorted(starts, times_s, side="right") - 1, 0, len(epochs) - 1)
    return np.asarray(before[index] + np.minimum(times_s - starts[index], lengths[index]))


@dataclass(frozen=True, slots=True)
class Rates:
    """Micro-batches per second, in the three averages and at the peaks.

    `peak` counts training seconds only, as a trainer's own MFU does; `peak_with_merges` counts all seconds.
    """

    in_phase: float
    with_merges: float
    wall_clock: float
    peak: Peak
    peak_with_merges: Peak

    def scaled(self, factor: float) -> dict[str, float]:
        """All rates times `factor`, by name."""
        return {
            "in_phase": self.in_phase * factor,
            "with_merges": self.with_merges * factor,
            "wall_clock": self.wall_clock * factor,
            "peak_sustained": self.peak.per_s * factor,
            "peak_with_merges": self.peak_with_merges.per_s * factor,
        }


def rates(result: RunResult) -> Rates:
    """Return the run's rates of applied micro-batches."""
    applied = float(result.ledger.applied)

    def per(seconds: float) -> float:
        return applied / seconds if seconds > 0.0 else 0.0

    window = (result.applied_s, result.plan.scenario.run.peak_window, result.startup_s, result.duration_s)
    return Rates(
        in_phase=per(result.training_s),
        with_merges=per(result.training_s + result.merging_s),
        wall_clock=per(result.duration_s),
        peak=best_window(*window, result.epochs),
        peak_with_merges=best_window(*window),
    )


def mfu_per_rate(result: RunResult, *, attention: bool = False) -> float:
    """MFU for one applied micro-batch per second, in the 6N convention, or with causal attention added.

    Where stages were skipped, what they did not do is not counted.
    """
    plan = result.plan
    flops = plan.useful_flops_per_microbatch + (plan.attention_flops_per_microbatch if attention else 0.0)
    return result.ledger.completeness * flops / plan.peak_flops


def executed_flops(result: RunResult) -> float:
    """FLOPs the GPUs executed in finished operations: model, recompute and boundaries, thrown-away work too."""
    plan = result.plan
    total = 0.0
    for peer in plan.peers:
        for kind, cost in plan.stages[peer.stage].costs.items():
            total += float(result.num_done[kind][peer.index]) * cost.executed_flops
    return total


def timeline(result: RunResult, step_s: float = 60.0) -> list[dict[str, object]]:
    """Return tokens, MFU, peers up and phase for each `step_s` of the run."""
    plan = result.plan
    num_steps = max(1, int(np.ceil(result.duration_s / step_s)))
    edges = np.minimum(np.arange(num_steps + 1) * step_s, result.duration_s)
    counts, _ = np.histogram(result.applied_s, bins=np.append(edges[:-1], max(edges[-1], edges[-2] + 1e-9)))
    away = np.zeros(num_steps)
    for mark in result.marks:
        if mark.kind == "down":
            overlap = np.minimum(edges[1:], mark.end_s) - np.maximum(edges[:-1], mark.start_s)
            away += np.clip(overlap, 0.0, None) / np.maximum(np.diff(edges), 1e-9)
    middles = (edges[:-1] + edges[1:]) / 2
    factor = mfu_per_rate(result)
    return [
        {
            "t_s": float(edges[i]),
            "tokens": int(counts[i]) * plan.tokens_per_microbatch,
            "mfu": float(counts[i]) / max(float(edges[i + 1] - edges[i]), 1e-9) * factor,
            "peers_up": round(len(plan.peers) - float(away[i]), 3),
            "phase": _phase(float(middles[i]), result),
        }
        for i in range(num_steps)
    ]


def _phase(t_s: float, result: RunResult) -> str:
    if t_s < result.startup_s:
        return "startup"
    state = next((m.detail for m in result.marks if m.kind == "state" and m.start_s <= t_s < m.end_s), None)
    if state is not None:
        return PHASE_OF_STATE[state]
    return "merge" if any(e.training_end_s <= t_s < e.end_s for e in result.epochs) else "training"
