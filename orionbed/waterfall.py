"""Where every GPU-second of a run went: each belongs to exactly one cause, and the parts add up to the whole."""

import numpy as np

from orionbed import tracing
from orionbed.compute import Cost
from orionbed.plan import Plan
from orionbed.results import Floats, RunResult
from orionbed.schedule.actions import Kind
from orionbed.tracing import CAUSES

# Idle time that a stage with less work than the fullest one has in any case may sit in any of these.
_IDLE = (tracing.CAUSE_UPSTREAM, tracing.CAUSE_WINDOW, tracing.CAUSE_TRANSFER, tracing.CAUSE_ENCRYPTION)
_TOLERANCE = 1e-9


class WaterfallError(Exception):
    """The parts do not add up to the GPU-seconds of the run."""


def gpu_seconds(result: RunResult) -> Floats:
    """Return the seconds of each peer by cause, shape (peers, causes).

    Raises:
        WaterfallError: a peer's parts differ from the run's duration by more than 1e-9 of it.

    """
    seconds = result.other_s.copy()
    for kind in result.work_s:
        _add_work(seconds, result, kind)
    _explain_idle(seconds, result)
    total = seconds.sum()
    expected = result.duration_s * len(result.plan.peers)
    if abs(total - expected) > _TOLERANCE * expected:
        raise WaterfallError(f"the parts sum to {total!r} GPU-seconds, the run has {expected!r}")
    return seconds


def _add_work(seconds: Floats, result: RunResult, kind: Kind) -> None:
    """Split the seconds of one kind of operation into useful work and its overheads."""
    plan = result.plan
    thrown, unfinished = result.thrown_s[kind], result.unfinished_s[kind]
    applied = result.work_s[kind] - thrown - unfinished
    seconds[:, tracing.CAUSE_THROWN_AWAY] += thrown
    seconds[:, tracing.CAUSE_FILL] += unfinished
    # A peer that has moved may have done what its first stage never does: as the first stage that does it.
    elsewhere = [_anywhere(plan, kind, hardware) for hardware in range(1 + len(plan.others))]
    costs = [plan.stage_costs_on(peer.hardware, peer.stage).get(kind, elsewhere[peer.hardware]) for peer in plan.peers]
    durations = np.array([cost.duration_s for cost in costs])

    def part(name: str) -> Floats:
        share = np.array([getattr(cost, name) for cost in costs]) / np.where(durations > 0.0, durations, 1.0)
        return applied * share

    useful = _useful_seconds(result, kind, applied)
    seconds[:, tracing.CAUSE_USEFUL] += useful
    seconds[:, tracing.CAUSE_KERNEL] += part("model_s") - useful
    seconds[:, tracing.CAUSE_RECOMPUTE] += part("recompute_s")
    seconds[:, tracing.CAUSE_BOUNDARY] += part("boundary_s")
    seconds[:, tracing.CAUSE_OPTIMIZER] += part("optimizer_s")


def _anywhere(plan: Plan, kind: Kind, hardware: int) -> Cost:
    """Return what an operation costs in the first stage that has it."""
    costs = (plan.stage_costs_on(hardware, stage) for stage in range(plan.num_stages))
    return next((one[kind] for one in costs if kind in one), Cost())


def _useful_seconds(result: RunResult, kind: Kind, applied_s: Floats) -> Floats:
    """Seconds the credited FLOPs would take at each peer's own peak.

    The credit of a stage is shared among its peers by the work they did.
    """
    plan = result.plan
    useful = np.zeros(len(plan.peers))
    done = applied_s * _rates_of(plan, kind)
    peaks = np.array([plan.peer_peak_flops(peer) for peer in plan.peers])
    stages = np.array([peer.stage for peer in plan.peers])
    whole = result.ledger.completeness * result.ledger.applied
    for stage in plan.stages:
        members = stages == stage.index
        credited_s = whole * stage.useful_flops.get(kind, 0.0) / peaks[members]
        total = done[members].sum()
        if total > 0.0:
            useful[members] = credited_s * done[members] / total
    return useful


def _rates_of(plan: Plan, kind: Kind) -> Floats:
    """Work of one kind that each peer does per second, in seconds of the first kind of machine at speed 1."""
    rates = np.array([peer.speed for peer in plan.peers])
    for peer in plan.peers:
        mine, first = (plan.stage_costs_on(hardware, peer.stage).get(kind) for hardware in (peer.hardware, 0))
        if peer.hardware and mine is not None and first is not None and mine.duration_s > 0.0:
            rates[peer.index] *= first.duration_s / mine.duration_s
    return rates


def busy_s_per_microbatch(plan: Plan) -> Floats:
    """Seconds one micro-batch keeps a peer of each stage busy, with its share of optimizer steps, shape (stages,).

    Where peers come in groups, the peers of a stage share its micro-batches as they are fast, all of them busy as long;
    otherwise they are taken as equal.
    """
    every = plan.microbatches_per_step
    if not plan.is_mixed:
        return np.array([stage.microbatch_s + stage.costs["STEP"].duration_s / every for stage in plan.stages])
    per_s = np.zeros(plan.num_stages)
    for peer in plan.peers:
        per_s[peer.stage] += 1.0 / plan.pace_s(peer, peer.stage)
    return np.asarray(plan.num_replicas / per_s)


def _explain_idle(seconds: Floats, result: RunResult) -> None:
    """Refine why peers waited, from how busy all of them were.

    Idle time is imbalance as far as the stage had less to do than the fullest stage would have had. What a static
    schedule waits for beyond that is its fill and drain, as far as (stages - 1) times the fullest stage per step. And a
    window is not to blame for what a peer waits because another one is busier than itself.
    """
    busy_s = sum(result.work_s.values()) + np.zeros(len(seconds))
    imbalance_s = _split_off_imbalance(seconds, result)
    if result.plan.scenario.pipeline.schedule.kind != "queue":
        _split_off_fill(seconds, result)
        return
    waited_s = seconds[:, list(_IDLE)].sum(axis=1) + imbalance_s
    share = busy_s / np.maximum(busy_s + waited_s, 1e-12)
    slower_s = np.maximum(0.0, (share.max() - share) * (busy_s + waited_s) - imbalance_s)
    window, upstream = seconds[:, tracing.CAUSE_WINDOW], seconds[:, tracing.CAUSE_UPSTREAM]
    moved_s = np.minimum(window, np.maximum(0.0, slower_s - upstream))
    seconds[:, tracing.CAUSE_WINDOW] -= moved_s
    seconds[:, tracing.CAUSE_UPSTREAM] += moved_s


def _split_off_imbalance(seconds: Floats, result: RunResult) -> Floats:
    """Move structural idle time to imbalance; return it per peer."""
    plan = result.plan
    busy = busy_s_per_microbatch(plan)
    stages = np.array([peer.stage for peer in plan.peers])
    columns = np.array(_IDLE)
    for stage in range(plan.num_stages):
        members = np.flatnonzero(stages == stage)
        finished = sum(float(result.num_done[kind][members].sum()) for kind in ("B", "W"))
        structural = finished / plan.stages[stage].num_chunks * (busy.max() - busy[stage])
        idle = seconds[np.ix_(members, columns)]
        total = float(idle.sum())
        if total <= 0.0 or structural <= 0.0:
            continue
        moved = idle * min(1.0, structural / total)
        seconds[np.ix_(members, columns)] = idle - moved
        seconds[members, tracing.CAUSE_IMBALANCE] += moved.sum(axis=1)
    return seconds[:, tracing.CAUSE_IMBALANCE]


def _split_off_fill(seconds: Floats, result: RunResult) -> None:
    """Call the bubble of a static schedule by its name."""
    plan = result.plan
    per_step_s = (plan.num_stages - 1) * float(busy_s_per_microbatch(plan).max())
    waiting = seconds[:, tracing.CAUSE_UPSTREAM]
    # A step that the run's end or a lost peer cut short has had its fill too.
    moved_s = np.minimum(waiting, (result.num_done["STEP"] + 1) * per_step_s)
    seconds[:, tracing.CAUSE_UPSTREAM] -= moved_s
    seconds[:, tracing.CAUSE_FILL] += moved_s


def waterfall(seconds: Floats) -> list[dict[str, object]]:
    """Return the summary's `waterfall` block from GPU-seconds by peer and cause, in the order of `CAUSES`."""
    total = float(seconds.sum())
    by_cause = seconds.sum(axis=0)
    return [
        {
            "cause": name,
            "label": tracing.CAUSE_LABELS[name],
            "fraction": float(by_cause[code]) / total,
            "gpu_s": float(by_cause[code]),
        }
        for code, name in enumerate(CAUSES)
        if name != "none"
    ]
