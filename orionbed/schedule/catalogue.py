"""All schedules with a fixed batch per step, by name: what a scenario and the command line can ask for."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from orionbed.schedule.classic import gpipe, interleaved, one_forward_one_backward
from orionbed.schedule.order import Order
from orionbed.schedule.play import opportunistic_order
from orionbed.schedule.timing import Hops, Times
from orionbed.schedule.v_shaped import dualpipe_v, zb_v
from orionbed.schedule.zero_bubble import zb_h1, zb_h2
from orionbed.schedule.zero_bubble_search import zero_bubble


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a schedule is made for. Times and hops matter only to those that are made to measure."""

    num_stages: int
    num_microbatches: int
    times: Times
    hops: Hops = field(default_factory=Hops)
    chunks: int = 2
    limit: int | None = None
    splits: bool = False
    kept_for_weights: float = 0.5


@dataclass(frozen=True, slots=True)
class Entry:
    """One schedule: how it is made, whether it splits the backward, and chunks per stage (0: as wanted)."""

    make: Callable[[Wanted], Order]
    title: str
    splits: bool = False
    chunks: int = 1


def _searched(times_memory: int) -> Callable[[Wanted], Order]:
    return lambda w: zero_bubble(
        w.num_microbatches,
        w.times,
        delay_s=w.hops.delay_s + w.hops.transfer_s,
        limit=times_memory * w.num_stages,
        kept_for_weights=w.kept_for_weights,
    )


ENTRIES: Final[Mapping[str, Entry]] = MappingProxyType(
    {
        "gpipe": Entry(lambda w: gpipe(w.num_stages, w.num_microbatches), "all forwards, then all backwards"),
        "1f1b": Entry(
            lambda w: one_forward_one_backward(w.num_stages, w.num_microbatches), "one forward, one backward in turn"
        ),
        "interleaved-1f1b": Entry(
            lambda w: interleaved(w.num_stages, w.num_microbatches, w.chunks),
            "1F1B, several pieces per stage",
            chunks=0,
        ),
        "zb-h1": Entry(
            lambda w: zb_h1(w.num_stages, w.num_microbatches), "split backward, memory of 1F1B", splits=True
        ),
        "zb-h2": Entry(
            lambda w: zb_h2(w.num_stages, w.num_microbatches), "split backward, twice the memory", splits=True
        ),
        "zb-1p": Entry(_searched(1), "split backward, made for these times, memory of 1F1B", splits=True),
        "zb-2p": Entry(_searched(2), "split backward, made for these times, twice the memory", splits=True),
        "zb-v": Entry(
            lambda w: zb_v(w.num_stages, w.num_microbatches), "split backward, the model folded", splits=True, chunks=2
        ),
        "dualpipe-v": Entry(
            lambda w: dualpipe_v(w.num_stages, w.num_microbatches),
            "paired passes, the model folded",
            splits=True,
            chunks=2,
        ),
        "opportunistic": Entry(
            lambda w: opportunistic_order(w.num_microbatches, w.times, w.hops, limit=w.limit, splits=w.splits),
            "whatever is ready, within a memory limit",
        ),
    }
)


def chunks_of(name: str, wanted: int) -> int:
    """Return how many pieces of the model a stage holds in the schedule called `name`."""
    return ENTRIES[name].chunks or wanted


def splits_backward(name: str, *, wanted: bool) -> bool:
    """Whether backwards are done in two halves in the schedule called `name`."""
    return ENTRIES[name].splits or (name == "opportunistic" and wanted)
