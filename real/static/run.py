"""A run with a fixed batch per step, from the start of its processes to its result."""

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from math import ceil, isfinite
from typing import Any, Final

from orionbed.fleet.losses import losses_of
from orionbed.fleet.progress import Progress
from orionbed.fleet.supervising import AbortedRunError
from orionbed.plan import Plan
from orionbed.results import RunResult
from orionbed.training.serial import TOLERANCES
from orionbed.training.shape import BYTES_PER_VALUE, parameters_of
from orionbed.training.text import sample_of
from orionbed.warn import warning
from real.devices import devices_of
from real.prepared import Prepared
from real.static.outcome import audited, finals_of, recorded, result_of
from real.static.reference import difference_of
from real.static.reports import Reports
from real.static.supervisor import StaticSupervisor

TRUNCATED: Final = (0.05, 0.95)


async def run_static(prepared: Prepared, progress: Callable[[Any], None], say: Callable[[str], None]) -> RunResult:
    """Run the plan and return its result; a run that loses a process returns what there is of it, marked as aborted.

    Raises:
        BackendError: it could not begin.

    """
    plan = prepared.plan
    started_s = time.perf_counter()

    def tell(reports: Reports) -> None:
        assert plan.order is not None
        per_step = plan.order.num_microbatches * plan.num_replicas
        progress(Progress(reports.end_s, reports.num_complete * per_step, _target(plan)))

    supervisor = StaticSupervisor(prepared.job, prepared.layout, say, tell)
    aborted = ""
    try:
        await supervisor.run()
    except AbortedRunError as error:
        aborted = str(error)
    return _result(prepared, supervisor, aborted, time.perf_counter() - started_s)


def _target(plan: Plan) -> int | None:
    tokens = plan.scenario.run.tokens
    return None if tokens is None else ceil(tokens / plan.tokens_per_microbatch)


def _result(prepared: Prepared, supervisor: StaticSupervisor, aborted: str, wall_s: float) -> RunResult:
    plan, shape, reports = prepared.plan, prepared.job.shape, supervisor.reports
    told = [member.final or {} for member in supervisor.members]
    sample = partial(sample_of, plan.scenario.training.data, shape, prepared.job.seed)
    record = recorded(plan, reports, shape.boundary_bytes, sample)
    moved = finals_of(plan, reports, shape.boundary_bytes, _sync_bytes(prepared))
    for member, counted in zip(supervisor.members, moved, strict=True):
        member.final = (member.final or {}) | counted
    result = result_of(plan, record, supervisor.members, seed=prepared.job.seed, wall_s=wall_s, aborted=aborted)
    difference = difference_of(prepared, reports, told) if plan.scenario.real.reference and not aborted else None
    found = audited(plan, record, result.duration_s, difference, TOLERANCES[shape.dtype])
    result.aborted = result.aborted or found.void
    result.backend_block = _block(prepared, supervisor, told) | {
        "audit": found.as_json(),
        "reference_difference": difference if difference is None or isfinite(difference) else None,
        "loss": _losses(reports),
    }
    # All processes of a kind have the same to say.
    said = dict.fromkeys(text for final in told for text in final.get("warnings", []))
    result.warnings += [warning("not-as-asked", text, "see docs/how-to/gpu.md") for text in said]
    return result


def _sync_bytes(prepared: Prepared) -> list[float]:
    """Return what each process sends in a ring all-reduce of its gradients."""
    plan, shape = prepared.plan, prepared.job.shape
    share = 2.0 * (plan.num_replicas - 1) / plan.num_replicas
    of_stage = [
        share * BYTES_PER_VALUE[shape.dtype] * sum(parameters_of(shape, chunk) for chunk in plan.chunks_of(stage))
        for stage in range(plan.num_stages)
    ]
    return [of_stage[peer.stage] for peer in plan.peers]


def _block(prepared: Prepared, supervisor: StaticSupervisor, told: Sequence[dict[str, Any]]) -> dict[str, Any]:
    plan, reports = prepared.plan, supervisor.reports
    return {
        **devices_of(final.get("device", {}) for final in told),
        "steps": {
            "warm_up": plan.scenario.real.warm_up,
            "measured": reports.num_complete,
            **_spread(_step_times(reports)),
        },
        "operations": _operations(prepared, reports),
        "memory": [
            {
                "peer": peer.name,
                "peak_bytes": final.get("peak_memory_bytes", 0),
                "planned_bytes": plan.stages[peer.stage].memory.total_bytes,
                "receive_buffer_bytes": final.get("receive_buffer_bytes", 0),
            }
            for peer, final in zip(plan.peers, told, strict=True)
        ],
        "restarts": [{"at_s": at_s, "step": step} for at_s, step in reports.restarts],
        "num_steps_done_again": len({report.step for _, report in reports.wasted}),
        "clock_uncertain_s": max((final.get("clock_uncertain_s", 0.0) for final in told), default=0.0),
    }


def _step_times(reports: Reports) -> list[float]:
    """Return the seconds from one optimizer step of the first peer to its next; the first counts from second 0."""
    ends = [report.operations[-1].end_s for report in reports.of(0) if report.operations]
    return [later - earlier for earlier, later in zip([0.0, *ends], ends, strict=False)]


def _losses(reports: Reports) -> dict[str, Any]:
    """Return the mean loss of each step, and those of the first and the last tenth of the run."""
    by_step: dict[int, list[float]] = defaultdict(list)
    ends_s: dict[int, float] = {}
    for step, of_ranks in sorted(reports.steps.items()):
        for report in of_ranks.values():
            by_step[step] += [loss for _, loss in report.losses]
            ends_s[step] = max(ends_s.get(step, 0.0), report.operations[-1].end_s)
    curve = [(ends_s[step], statistics.fmean(losses)) for step, losses in by_step.items() if losses]
    return losses_of(curve)


def _spread(values: Sequence[float]) -> dict[str, float]:
    if not values:
        return {"median_s": 0.0, "p5_s": 0.0, "p95_s": 0.0}
    ordered = sorted(values)
    low, high = (ordered[round(share * (len(ordered) - 1))] for share in TRUNCATED)
    return {"median_s": statistics.median(ordered), "p5_s": low, "p95_s": high}


def _operations(prepared: Prepared, reports: Reports) -> list[dict[str, Any]]:
    """Return median and spread of each kind of operation by chunk, beside what the plan says."""
    times: dict[tuple[int, str], list[float]] = defaultdict(list)
    plan = prepared.plan
    for peer in plan.peers:
        for report in reports.of(peer.index):
            for operation in report.operations:
                times[operation.chunk, operation.kind].append(operation.end_s - operation.start_s)
    rows = []
    for (chunk, kind), found in sorted(times.items()):
        costs = plan.stages[plan.stage_of[chunk]].costs if kind == "STEP" else plan.chunk_costs[chunk]
        predicted_s = costs[kind].duration_s if kind in costs else None
        rows.append(
            {"chunk": chunk, "kind": kind, "count": len(found), **_spread(found)}
            | {"predicted_s": predicted_s if prepared.profile_is_of_device else None}
        )
    return rows
