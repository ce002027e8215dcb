"""What a queue-driven run on hardware says of itself beside its figures."""

from collections import defaultdict
from typing import Any

import numpy as np

from orionbed import tracing
from orionbed.account import KIND_CODES
from orionbed.fleet.losses import losses_of
from orionbed.fleet.record import Record
from real.devices import devices_of
from real.prepared import Prepared
from real.queued.supervisor import QueueSupervisor

_KINDS = {code: kind for kind, code in KIND_CODES.items()}


def observed(prepared: Prepared, supervisor: QueueSupervisor) -> dict[str, Any]:
    """Return the part of the summary's `real` block that queues alone have, as plain data."""
    plan = prepared.plan
    finals = {member.index: member.final for member in supervisor.members if member.final is not None}
    names = [supervisor.name(member) for member in supervisor.members]
    clocks = [{"peer": names[index], **final["clock"]} for index, final in finals.items()]
    return {
        "processes": [
            {"name": names[member.index], "machine": member.host, "lives": 1 + member.life}
            for member in supervisor.members
        ],
        **devices_of(supervisor.devices.values()),
        "memory": [
            {
                "peer": peer.name,
                "peak_bytes": finals.get(peer.index, {}).get("peak_memory_bytes", 0),
                "planned_bytes": plan.stages[peer.stage].memory.total_bytes,
            }
            for peer in plan.peers
        ],
        "operations": operations(prepared, supervisor.record),
        "connections": [
            {"from": names[index], **row, "to": names[row["to"]]}
            for index, final in finals.items()
            for row in final["telemetry"]
        ],
        "lateness": quantiles([late for final in finals.values() for late in final["late_s"]]),
        "clocks": [clock for clock in clocks if clock["uncertainty_s"]],
        "clock_uncertain_s": max((clock["uncertainty_s"] for clock in clocks), default=0.0),
        "restarts": supervisor.restarts,
        "loss": losses_of(supervisor.record.loss_curve()),
    }


def operations(prepared: Prepared, record: Record) -> list[dict[str, Any]]:
    """Return median and spread of the seconds of each kind of operation by stage, beside what the plan says."""
    plan = prepared.plan
    times: dict[tuple[int, str], list[float]] = defaultdict(list)
    for span in record.spans:
        if span.lane == tracing.LANE_COMPUTE and span.kind in _KINDS:
            times[plan.peers[span.peer].stage, _KINDS[span.kind]].append(span.end_s - span.start_s)
    rows = []
    for (stage, kind), found in sorted(times.items()):
        costs = {str(name): cost for name, cost in plan.stages[stage].costs.items()}
        predicted_s = costs[kind].duration_s if kind in costs and prepared.profile_is_of_device else None
        median_s, p95_s = (float(value) for value in np.quantile(found, [0.5, 0.95]))
        rows.append(
            {"stage": stage, "kind": kind, "count": len(found), "median_s": median_s, "p95_s": p95_s}
            | {"predicted_s": predicted_s}
        )
    return rows


def quantiles(values: list[float]) -> dict[str, float]:
    """Return median, 99th percentile and maximum of some seconds, and how many there were."""
    if not values:
        return {"p50_s": 0.0, "p99_s": 0.0, "max_s": 0.0, "count": 0}
    p50_s, p99_s = (float(value) for value in np.quantile(values, [0.5, 0.99]))
    return {"p50_s": p50_s, "p99_s": p99_s, "max_s": max(values), "count": len(values)}
