"""Fluid flows in simulated time, served by weighted max-min fair sharing.

Rates change when a flow comes, drains or is stopped and when a ceiling or a capacity changes; between two changes all
is linear and nothing is computed. All changes of one instant are followed by one solution.

A change is felt only at and above some level: flows below it keep their rates. The walk from the changed resources
passes through flows at or above that level only, and not through resources with room left, which are checked afterwards
instead. `pruned=False` recomputes everything that is connected with the change. The results are the same; only where
two resources fill up at one level, a rounding may fall the other way.
"""

from heapq import heappop, heappush
from math import inf, nan
from operator import attrgetter
from typing import Final

from sim.clock import CAPACITY, COMPLETION, SOLVE, Clock
from sim.filling import Flow, Resource, fill, filled_at, load

_CLOSE: Final = 1.0 - 1e-12


class FairShare:
    """The flows of one network and the rates at which they are served."""

    def __init__(self, clock: Clock, *, pruned: bool = True) -> None:
        self.flows: dict[Flow, None] = {}
        self.num_solves = 0
        self._clock = clock
        self._pruned = pruned
        self._num_flows = 0
        self._mark = 0
        self._changed: list[Resource] = []
        self._fresh: list[Flow] = []
        self._due = False
        self._finishes: list[tuple[float, int, Flow]] = []
        self._armed_s = inf
        self._changes: dict[float, list[Resource]] = {}

    def start(self, flow: Flow) -> None:
        """Let a flow begin now. ValueError if nothing would bound its rate."""
        if not flow.route and flow.ceiling == inf:
            raise ValueError("a flow needs a route or a ceiling")
        flow.updated_s = self._clock.now
        flow.level = flow.cap_level
        flow.next_rate = flow.ceiling
        self._enter(flow)
        self._fresh.append(flow)
        self._touch(flow.route)

    def adopt(self, flow: Flow, started_s: float, rate: float) -> None:
        """Take over a flow that has been alone on its route at `rate` since `started_s`."""
        flow.updated_s = started_s
        flow.rate = flow.next_rate = rate
        flow.level = rate / flow.weight
        self._enter(flow)
        flow.finish_s = started_s + flow.remaining / rate
        heappush(self._finishes, (flow.finish_s, flow.number, flow))
        if rate < flow.ceiling:
            full = min((r for r in flow.route if r.capacity <= rate), key=attrgetter("number"))
            full.level = flow.level
        self._arm()

    def stop(self, flow: Flow) -> float:
        """Take a flow out now and return the bytes that had not drained (0 when it was not running)."""
        if not flow.active:
            return 0.0
        flow.remaining = flow.left(self._clock.now)
        self._leave(flow)
        if self._changed:
            self._solve_later()
        return flow.remaining

    def set_ceiling(self, flow: Flow, ceiling: float) -> None:
        """Change the ceiling of a flow from now on, bytes/s."""
        limited_elsewhere = flow.next_rate < flow.ceiling <= ceiling
        flow.ceiling = ceiling
        flow.cap_level = ceiling / flow.weight
        if flow.active and not limited_elsewhere:
            flow.level = flow.cap_level
            flow.next_rate = ceiling
            self._fresh.append(flow)
            self._touch(flow.route)

    def set_capacity(self, resource: Resource, capacity: float) -> None:
        """Change the capacity of a resource from now on, bytes/s; of several changes at one instant the last counts."""
        resource.capacity = capacity
        if resource.flows:
            self._touch((resource,))

    def _enter(self, flow: Flow) -> None:
        self._num_flows += 1
        flow.number = self._num_flows
        flow.active = True
        self.flows[flow] = None
        now = self._clock.now
        for r in flow.route:
            if now >= r.until_s:
                r.refresh(now)
            if r.until_s < inf and not r.watched:
                self._watch(r)
            r.flows[flow] = None
            r.busy_until_s = inf

    def _leave(self, flow: Flow) -> None:
        flow.active = False
        flow.finish_s = nan
        flow.rate = flow.next_rate = 0.0
        del self.flows[flow]
        for r in flow.route:
            del r.flows[flow]
            if not r.flows:
                r.level = inf
                r.busy_until_s = -inf
            elif r.level < inf and not r.changed:
                r.changed = True
                self._changed.append(r)

    def _touch(self, resources: tuple[Resource, ...]) -> None:
        for r in resources:
            if not r.changed:
                r.changed = True
                self._changed.append(r)
        self._solve_later()

    def _solve_later(self) -> None:
        """Have the network solved after all other changes of this instant."""
        if not self._due:
            self._due = True
            self._clock.call_at(self._clock.now, self._solve, None, SOLVE)

    def _solve_now_or_later(self) -> None:
        """Solve the network if it has changed: without an event when nothing else is to happen at this instant."""
        if self._changed and not self._due:
            heap = self._clock.heap
            if heap and heap[0][0] <= self._clock.now:
                self._solve_later()
            else:
                self._solve(None)

    def _watch(self, resource: Resource) -> None:
        """Have the capacity of a resource in use changed when its profile says so."""
        resource.watched = True
        at = resource.until_s
        waiting = self._changes.get(at)
        if waiting is None:
            self._changes[at] = [resource]
            self._clock.call_at(at, self._change, at, CAPACITY)
        else:
            waiting.append(resource)

    def _change(self, at: float) -> None:
        for r in self._changes.pop(at):
            r.watched = False
            if r.flows:
                before = r.capacity
                r.refresh(at)
                if r.until_s < inf:
                    self._watch(r)
                if r.capacity != before and not r.changed:
                    r.changed = True
                    self._changed.append(r)
        self._solve_now_or_later()

    def _complete(self, _: object) -> None:
        now = self._clock.now
        if now >= self._armed_s:
            self._armed_s = inf
        finishes = self._finishes
        while finishes:
            finish_s, _number, flow = finishes[0]
            if finish_s == flow.finish_s:
                if finish_s > now:
                    break
                heappop(finishes)
                self._leave(flow)
                flow.remaining = 0.0
                flow.drained(flow)
            else:
                heappop(finishes)
        self._solve_now_or_later()
        self._arm()

    def _arm(self) -> None:
        """Have the clock call when the next flow drains."""
        finishes = self._finishes
        while finishes and finishes[0][0] != finishes[0][2].finish_s:
            heappop(finishes)
        if finishes and finishes[0][0] < self._armed_s:
            self._armed_s = finishes[0][0]
            self._clock.call_at(self._armed_s, self._complete, None, COMPLETION)

    def _solve(self, _: object) -> None:
        """Compute the rates anew where the changes of this instant can be felt."""
        self._due = False
        self.num_solves += 1
        self._mark += 1
        changed, self._changed = self._changed, []
        fresh, self._fresh = self._fresh, []
        floor, region, unsure = self._floor(changed)
        visited: list[Flow] = []
        while region:
            self._walk(floor, region, unsure, visited)
            fill(region, visited)
            full = [r for r in unsure if load(r) > r.capacity]
            if not full:
                break
            unsure = [r for r in unsure if r not in full]
            region += full
        now = self._clock.now
        finishes = self._finishes
        for flow in fresh + visited if fresh else visited:
            rate = flow.next_rate
            if rate != flow.rate and flow.active:
                flow.remaining -= flow.rate * (now - flow.updated_s)
                flow.updated_s = now
                flow.rate = rate
                if rate > 0.0:
                    left = flow.remaining
                    flow.finish_s = finish_s = now + left / rate if left > 0.0 else now
                    heappush(finishes, (finish_s, flow.number, flow))
                else:
                    flow.finish_s = inf
        self._arm()

    def _floor(self, changed: list[Resource]) -> tuple[float, list[Resource], list[Resource]]:
        """Return the level below which nothing differs, the changed resources that fill up, and those with room.

        Filling goes as before until a changed resource fills up: where it did so the last time, or where it does with
        all its flows held at their present levels, whichever comes first.
        """
        mark = self._mark
        pruned = self._pruned
        floor = inf
        region = []
        unsure = []
        for r in changed:
            r.changed = False
            r.mark = mark
            if r.flows:
                level = min(r.level, filled_at(r))
                if level < inf or not pruned:
                    region.append(r)
                    floor = min(floor, level)
                else:
                    unsure.append(r)
        # Flows that tie with the lowest change but for rounding are taken along.
        return floor * _CLOSE if pruned else -inf, region, unsure

    def _walk(self, floor: float, region: list[Resource], unsure: list[Resource], visited: list[Flow]) -> None:
        """Extend region and visited along flows at or above the floor; both grow while they are walked over."""
        mark = self._mark
        pruned = self._pruned
        for r in region:
            for flow in r.flows:
                if flow.mark != mark and flow.level >= floor:
                    flow.mark = mark
                    visited.append(flow)
                    for q in flow.route:
                        if q.mark != mark:
                            q.mark = mark
                            if q.level < inf or not pruned:
                                region.append(q)
                            else:
                                unsure.append(q)
