"""How much an emulation is stretched in time and shrunk in bytes, from measured work and the plan's sizes."""

from math import ceil

import numpy as np

from orionbed.emulation import Scales, model_shape
from orionbed.plan import Plan
from orionbed.processes import num_cores

HEADROOM = 2.5
"""Real work may fill this part of the cores, the rest is for sockets and for the unevenness of arrivals."""
LEAST_OPERATION_S = 0.025
"""An operation shall last so long in real time that a few milliseconds of lateness do not matter."""
MOST_BYTES_PER_S = 10e6
"""What all sockets together move in real time without keeping the cores from the model."""
LEAST_MESSAGE_BYTES = 1024
LEAST_DILATION = 0.02


def choose_scales(plan: Plan, measured: dict[str, float]) -> Scales:
    """Return the scenario's scales, or where they are `auto` those that the work and the bytes allow."""
    block = plan.scenario.emulator
    dilation = block.time_dilation
    if isinstance(dilation, str):
        dilation = 1.0 if block.clock != "paced" else least_dilation(plan, measured)
    scale = block.payload_scale
    if isinstance(scale, str):
        scale = payload_scale(plan, dilation)
    return Scales(float(dilation), float(scale))


def least_dilation(plan: Plan, measured: dict[str, float]) -> float:
    """Return the smallest dilation at which the work fits, each operation in its time and all of them on the cores."""
    real_s = {kind: seconds for kind, seconds in measured.items() if kind != "STEP"}
    per_microbatch_s = sum(real_s.values()) * plan.num_chunks / plan.num_stages
    busy = sum(per_microbatch_s * plan.speed_of(peer) / plan.stages[peer.stage].microbatch_s for peer in plan.peers)
    shortest_s = min(
        cost.duration_s for costs in plan.chunk_costs for kind, cost in costs.items() if kind in {"F", "B", "I", "W"}
    )
    longest_real_s = max(real_s.values())
    needed = max(
        HEADROOM * busy / num_cores(),
        max(LEAST_OPERATION_S, 2.0 * longest_real_s) / max(shortest_s, 1e-9),
        LEAST_DILATION,
    )
    return ceil(needed * 50.0) / 50.0


def payload_scale(plan: Plan, dilation: float) -> float:
    """Return by how much bytes shrink: as much as the tensors that travel allow, and no more than is needed."""
    shape = model_shape(plan)
    nominal = sum(min(peer.uplink_bps, 1e10) for peer in plan.peers) / 8.0
    needed = nominal / dilation / MOST_BYTES_PER_S
    most = min(plan.boundary_bytes / max(shape.boundary_bytes, LEAST_MESSAGE_BYTES), _weights_allow(plan))
    return max(1e-6, min(max(1.0, needed), most))


def _weights_allow(plan: Plan) -> float:
    from orionbed.training.shape import parameters_of

    shape = model_shape(plan)
    itemsize = np.dtype(shape.dtype).itemsize
    found = float("inf")
    # A peer that comes back fetches moments too.
    tensors = 3 if isinstance(plan.scenario.merge, str) else 1
    if tensors == 3 and isinstance(plan.scenario.churn, str) and not plan.scenario.faults.list:
        return found
    for chunk in range(plan.num_chunks):
        stage = plan.stages[plan.stage_of[chunk]]
        found = min(
            found,
            stage.weight_bytes / plan.num_chunks * plan.num_stages / (tensors * parameters_of(shape, chunk) * itemsize),
        )
    return found
