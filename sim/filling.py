"""Progressive filling: what each flow on a set of shared resources gets.

A flow is served at the rate x that progressive filling gives: one level rises for all flows, x = weight * level, until
a resource on the flow's route is full or the flow's own ceiling is reached. The result is the weighted max-min fair
allocation: every flow is at its ceiling or crosses a full resource on which no other flow has a higher level.

What a full resource gives is always computed afresh from the flows on it, in the order in which they came. So no
rounding error builds up, and a flow's rate does not depend on how much of the network was computed with it.
"""

from collections.abc import Callable
from heapq import heapify, heappop, heapreplace
from math import inf, nan
from operator import attrgetter
from typing import Any, Final

Profile = Callable[[float], tuple[float, float]]
"""Time in seconds -> capacity in bytes/s from then on, and until when; times are asked for in order."""

_BY_CAP: Final = attrgetter("cap_level", "number")


class Resource:
    """Something that flows share: an uplink, a downlink, a site's exit, a wide-area path, a store.

    Capacities are in payload bytes per second. With a `profile` the capacity follows it; `until_s` is when the present
    one ends. `busy_until_s` tells the fast path of `sim.network` whether the resource is free: infinite while flows are
    here, else when the transfer that has it to itself (`guest`) is drained.
    """

    __slots__ = (
        "busy_until_s", "capacity", "changed", "flows", "guest", "level", "mark", "name", "number", "profile",
        "rest", "stale", "until_s", "watched", "weight",
    )  # fmt: skip

    def __init__(self, name: str, number: int, capacity: float = inf, profile: Profile | None = None) -> None:
        self.name = name
        self.number = number
        self.capacity = capacity
        self.profile = profile
        self.until_s = inf
        if profile is not None:
            self.capacity, self.until_s = profile(0.0)
        self.flows: dict[Flow, None] = {}
        self.guest: Any = None
        self.busy_until_s = -inf
        self.level = inf  # where it was filled in the last solution; infinite: it has room
        self.rest = self.weight = 0.0
        self.mark = 0
        self.changed = self.stale = self.watched = False

    def refresh(self, now_s: float) -> None:
        """Bring the capacity up to date; for resources with a profile."""
        assert self.profile is not None
        self.capacity, self.until_s = self.profile(now_s)


class Flow:
    """A number of bytes on their way along a route at a rate that changes.

    `drained(flow)` is called when the last byte has left, at `finish_s`. The rate never exceeds `ceiling` (bytes/s).
    """

    __slots__ = (
        "active", "arg", "cap_level", "ceiling", "drained", "finish_s", "level", "mark", "next_rate", "number", "open",
        "rate", "remaining", "route", "updated_s", "weight",
    )  # fmt: skip

    def __init__(
        self,
        route: tuple[Resource, ...],
        size_bytes: float,
        drained: Callable[["Flow"], object],
        arg: Any = None,
        *,
        weight: float = 1.0,
        ceiling: float = inf,
    ) -> None:
        self.route = route
        self.remaining = size_bytes
        self.drained = drained
        self.arg = arg
        self.weight = weight
        self.ceiling = ceiling
        self.cap_level = self.level = ceiling / weight
        self.rate = self.next_rate = 0.0
        self.finish_s = inf
        self.updated_s = nan
        self.number = self.mark = 0
        self.open = self.active = False

    def left(self, now_s: float) -> float:
        """Return the bytes that have not drained by `now_s`."""
        return max(0.0, self.remaining - self.rate * (now_s - self.updated_s)) if self.active else self.remaining


def load(resource: Resource) -> float:
    """Return what the flows on a resource get together, bytes/s."""
    total = 0.0
    for flow in resource.flows:
        total += flow.next_rate
    return total


def filled_at(resource: Resource) -> float:
    """Return a level at or below which the resource fills up if all its flows were held at their present levels."""
    capacity = resource.capacity
    total = weight = 0.0
    for flow in resource.flows:
        total += flow.weight * flow.level
        weight += flow.weight
    if total <= capacity:
        return inf
    level = capacity / weight
    while True:
        rest = capacity
        above = 0.0
        for flow in resource.flows:
            if flow.level < level:
                rest -= flow.weight * flow.level
            else:
                above += flow.weight
        if above >= weight or above <= 0.0:
            return level
        weight = above
        level = rest / above


def _share(resource: Resource) -> float:
    """Return the level at which a resource fills up, given what those of its flows get whose rates are settled."""
    rest = resource.capacity
    weight = 0.0
    for flow in resource.flows:
        if flow.open:
            weight += flow.weight
        else:
            rest -= flow.next_rate
    if weight == 0.0:
        return inf
    resource.rest = rest = max(rest, 0.0)
    resource.weight = weight
    resource.stale = False
    return rest / weight


def fill(region: list[Resource], visited: list[Flow]) -> None:  # noqa: C901  (one loop; calls would double its cost)
    """Give every visited flow its level and `next_rate` by progressive filling of the region's resources."""
    for flow in visited:
        flow.open = True
    heap = []
    for r in region:
        r.level = inf
        level = _share(r)
        if level < inf:
            heap.append((level, r.number, r))
    heapify(heap)
    capped = sorted([f for f in visited if f.cap_level < inf], key=_BY_CAP, reverse=True)
    num_open = len(visited)
    while num_open:
        level = inf
        if heap:
            level, _, r = heap[0]
            if r.stale:
                level = _share(r)
                if level < inf:
                    heapreplace(heap, (level, r.number, r))
                else:
                    heappop(heap)
                continue
        if capped and capped[-1].cap_level <= level:
            flow = capped.pop()
            if flow.open:
                flow.open = False
                flow.level = flow.cap_level
                flow.next_rate = flow.ceiling
                num_open -= 1
                for q in flow.route:
                    q.stale = True
            continue
        heappop(heap)
        r.level = level
        for flow in r.flows:
            if flow.open:
                flow.open = False
                flow.level = level
                # A flow that has the rest to itself gets exactly the rest.
                flow.next_rate = r.rest if flow.weight == r.weight else flow.weight * level
                num_open -= 1
                for q in flow.route:
                    q.stale = True
