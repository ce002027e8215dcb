"""From a scenario's `pipeline.schedule` block to an order or to the policies that run it."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from orionbed.schedule.catalogue import ENTRIES, Wanted, chunks_of, splits_backward
from orionbed.schedule.opportunistic import OpportunisticPolicy
from orionbed.schedule.order import Order
from orionbed.schedule.static import StaticPolicy
from orionbed.schedule.text import read_csv
from orionbed.schedule.timing import Hops, Times

if TYPE_CHECKING:
    from orionbed.scenario.schedules import FixedBatch, QueueSchedule


def chunks_per_stage(schedule: "FixedBatch | QueueSchedule") -> int:
    """Return how many pieces of the model one stage holds. OSError or ScheduleError for a file that is no schedule."""
    if schedule.kind == "queue":
        return 1
    if schedule.kind == "csv":
        return read_csv(Path(schedule.file)).chunks_per_stage
    return chunks_of(schedule.kind, schedule.chunks if schedule.kind == "interleaved-1f1b" else 1)


def needs_split_backward(schedule: "FixedBatch | QueueSchedule") -> bool:
    """Whether the schedule does backwards in two halves."""
    if schedule.kind == "queue":
        return False
    if schedule.kind == "csv":
        return read_csv(Path(schedule.file)).splits_backward
    wanted = schedule.kind == "opportunistic" and schedule.split_backward
    return splits_backward(schedule.kind, wanted=wanted)


def build_order(schedule: "FixedBatch", num_stages: int, times: Times, hops: Hops, kept_for_weights: float) -> Order:
    """Return the order of the schedule; for the opportunistic one what it does if all goes as `times` and `hops` say.

    Raises:
        ScheduleError: it cannot be made, or deadlocks.
        OSError: its file cannot be read.

    """
    if schedule.kind == "csv":
        return read_csv(Path(schedule.file))
    wanted = Wanted(num_stages, schedule.microbatches, times, hops, kept_for_weights=kept_for_weights)
    if schedule.kind == "interleaved-1f1b":
        wanted = replace(wanted, chunks=schedule.chunks)
    elif schedule.kind == "opportunistic":
        wanted = replace(wanted, limit=schedule.memory_limit, splits=schedule.split_backward)
    return ENTRIES[schedule.kind].make(wanted)


def make_fixed_policy(
    schedule: "FixedBatch", order: Order, stage: int, peers: Sequence[int], *, waits_for_sync: bool
) -> StaticPolicy | OpportunisticPolicy:
    """Return the policy of one stage; `peers` are those of this pipeline, by stage."""
    if schedule.kind != "opportunistic":
        return StaticPolicy(order, stage, peers, waits_for_sync=waits_for_sync)
    return OpportunisticPolicy(
        stage,
        peers,
        schedule.microbatches,
        limit=schedule.memory_limit or schedule.microbatches,
        splits=schedule.split_backward,
        waits_for_sync=waits_for_sync,
    )
