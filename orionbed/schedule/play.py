"""Plays policies against one another in exact time, without a simulator, and writes down what they did as an order."""

from collections.abc import Sequence
from heapq import heappop, heappush

from orionbed.schedule.actions import Action
from orionbed.schedule.opportunistic import OpportunisticPolicy
from orionbed.schedule.order import Order, ScheduleError, make_order, one_each
from orionbed.schedule.policy import Policy
from orionbed.schedule.timing import Hops, Timed, Times, provided_input


def opportunistic_order(
    num_microbatches: int, times: Times, hops: Hops | None = None, *, limit: int | None = None, splits: bool = False
) -> Order:
    """Return what an opportunistic pipeline does in one step; `limit` (default: none) per stage, in micro-batches."""
    num_stages = len(times.forward_s)
    policies = [
        OpportunisticPolicy(stage, range(num_stages), num_microbatches, limit=limit or num_microbatches, splits=splits)
        for stage in range(num_stages)
    ]
    return play(policies, times, hops).order


def play(policies: Sequence[Policy], times: Times, hops: Hops | None = None) -> Timed:
    """Run one step of a pipeline of policies, one per stage and chunk, until all have reached their STEP.

    Raises:
        ScheduleError: they wait for one another.

    """
    return _Play(policies, times, hops or Hops()).run()


class _Play:
    def __init__(self, policies: Sequence[Policy], times: Times, hops: Hops) -> None:
        self.policies = policies
        self.times = times
        self.hops = hops
        self.num_stages = len(policies)
        self.events: list[tuple[float, int, int, Action | tuple[str, int, int]]] = []
        self.count = 0
        self.busy = [False] * self.num_stages
        self.through = [False] * self.num_stages
        self.lists: list[list[Action]] = [[] for _ in policies]
        self.starts_s: list[list[float]] = [[] for _ in policies]
        self.link_free_s: dict[tuple[int, int], float] = {}

    def run(self) -> Timed:
        for stage in range(self.num_stages):
            self._look(stage, 0.0)
        while self.events:
            now_s, _, stage, what = heappop(self.events)
            if isinstance(what, Action):
                self._finish(stage, what, now_s)
            else:
                kind, chunk, microbatch = what
                self.policies[stage].on_message(kind, microbatch, -1, chunk)
            if not self.events or self.events[0][0] > now_s:
                # Everything of this instant has happened: now let all idle stages look.
                for idle in range(self.num_stages):
                    self._look(idle, now_s)
        if not all(self.through):
            raise ScheduleError(f"deadlock: stage {self.through.index(False)} waits for ever")
        return Timed(
            make_order(self.lists, one_each(self.num_stages)), self.times, tuple(tuple(s) for s in self.starts_s)
        )

    def _look(self, stage: int, now_s: float) -> None:
        if self.busy[stage] or self.through[stage]:
            return
        action = self.policies[stage].next_action()
        if action is None:
            return
        if action.kind == "STEP":
            self.through[stage] = True
            return
        self.busy[stage] = True
        self.lists[stage].append(action)
        self.starts_s[stage].append(now_s)
        self._push(now_s + self.times.of(action), stage, action)

    def _finish(self, stage: int, action: Action, now_s: float) -> None:
        self.busy[stage] = False
        self.policies[stage].on_finished(action)
        sent = provided_input(action, self.num_stages)
        if sent is not None:
            receiver = sent[1]
            transfer_s, delay_s = self.hops.of(stage, receiver)
            leaves_s = max(now_s, self.link_free_s.get((stage, receiver), 0.0)) + transfer_s
            self.link_free_s[stage, receiver] = leaves_s
            self._push(leaves_s + delay_s, receiver, sent)

    def _push(self, at_s: float, stage: int, what: Action | tuple[str, int, int]) -> None:
        self.count += 1
        heappush(self.events, (at_s, self.count, stage, what))
