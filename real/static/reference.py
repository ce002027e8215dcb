"""The final weights of a run held against the plain model's, trained on the same micro-batches in one process."""

import base64
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from orionbed.training.serial import train_serially, worst_difference
from real.prepared import Prepared
from real.static.reports import Reports

if TYPE_CHECKING:
    from torch import Tensor


def difference_of(prepared: Prepared, reports: Reports, told: Sequence[dict[str, Any]]) -> float | None:
    """Return the largest difference of a weight, relative to the largest of its process; None if nothing was told."""
    plan = prepared.plan
    synced = not isinstance(plan.scenario.sync, str)
    num_steps = plan.scenario.real.warm_up + reports.num_complete
    trained: dict[int, list[Tensor]] = {}
    pairs: list[tuple[bytes, list[Tensor]]] = []
    for peer, final in zip(plan.peers, told, strict=True):
        if "weights" not in final:
            continue
        pipeline = -1 if synced else peer.replica
        if pipeline not in trained:
            trained[pipeline] = _serial(prepared, num_steps, pipeline)
        expected = [trained[pipeline][chunk] for chunk in plan.chunks_of(peer.stage)]
        pairs.append((base64.b64decode(final["weights"]), expected))
    return worst_difference(pairs)


def _serial(prepared: Prepared, num_steps: int, pipeline: int) -> "list[Tensor]":
    """Return the weights of each chunk of the plain model; pipeline -1 stands for all of them together."""
    plan, job = prepared.plan, prepared.job
    assert plan.order is not None
    count, replicas = plan.order.num_microbatches, plan.num_replicas
    which = range(replicas) if pipeline < 0 else [pipeline]
    batches = [[(s * count + m) * replicas + r for m in range(count) for r in which] for s in range(num_steps)]
    return train_serially(job.shape, job.seed, batches, plan.scenario.training.optimizer, job.batches)
