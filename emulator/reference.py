"""The final weights of a run held against the plain model's, trained on the same micro-batches in one process."""

import base64
from collections import defaultdict
from typing import TYPE_CHECKING

from orionbed.emulation import model_shape
from orionbed.fleet.members import Member
from orionbed.fleet.record import Record
from orionbed.plan import Plan
from orionbed.training.serial import train_serially, worst_difference
from orionbed.training.text import make_batches

if TYPE_CHECKING:
    from torch import Tensor


def reference_difference(plan: Plan, seed: int, record: Record, members: list[Member]) -> float | None:
    """Return the largest difference of a weight, relative to the largest of its peer; None if nothing was told.

    For schedules with a fixed batch and without merges: each pipeline is compared at the version that each of its peers
    ended with.
    """
    if plan.order is None or plan.scenario.merge != "none":
        return None
    synced = not isinstance(plan.scenario.sync, str)
    pairs: list[tuple[bytes, list[Tensor]]] = []
    steps = {r: _steps(record, None if synced else r) for r in ([0] if synced else range(plan.num_replicas))}
    trained: dict[tuple[int, int], list[Tensor]] = {}
    for member in members:
        if member.final is not None and "weights" in member.final:
            place = plan.peers[member.index]
            which = (0 if synced else place.replica, member.final["version"])
            if which not in trained:
                trained[which] = _serial(plan, seed, steps[which[0]][: which[1]])
            expected = [trained[which][chunk] for chunk in plan.chunks_of(place.stage)]
            pairs.append((base64.b64decode(member.final["weights"]), expected))
    return worst_difference(pairs)


def _steps(record: Record, replica: int | None) -> list[list[int]]:
    """Return the micro-batches of each step that counts, of one pipeline or of all, as its peers applied them."""
    applied: dict[int, set[int]] = defaultdict(set)
    for entry in record.entries:
        if replica in {None, entry.replica}:
            if entry.event == "applied":
                applied[entry.step].add(entry.microbatch)
            elif entry.event == "dropped":
                for numbers in applied.values():
                    numbers.discard(entry.microbatch)
    return [sorted(applied[step]) for step in sorted(applied) if applied[step]]


def _serial(plan: Plan, seed: int, batches: list[list[int]]) -> "list[Tensor]":
    """Return the weights of each chunk of the plain model after a step for each of the batches."""
    shape, training = model_shape(plan), plan.scenario.training
    return train_serially(shape, seed, batches, training.optimizer, make_batches(training.data, shape, seed))
