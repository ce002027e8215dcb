"""A little pipeline whose peers are lost and come back when the test says so."""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter

from orionbed import tracing, waterfall
from orionbed.ledger import ATTEMPT_BITS
from orionbed.plan import Plan
from orionbed.results import RunResult
from orionbed.scenario import Scenario
from orionbed.scenario.recovery import Recovery
from orionbed.scenario.schedules import Schedule
from orionbed.scenario.sections import Run
from orionbed.schedule.queue_driven import QueueDrivenPolicy
from sim.backend import _result, _Run
from sim.peer import SimPeer

SCHEDULE: TypeAdapter[Schedule] = TypeAdapter(Schedule)
# Calls of the clock that bring a micro-batch further.
WAITING = {"_resend", "_detected", "_from_data", "_fill", "_pass_on", "_pass_back"}
Make = Callable[..., Scenario]
Simple = Callable[..., Plan]
QUEUE: dict[str, Any] = {
    "kind": "queue", "window": 4, "router": "replica", "recompute": "full", "status_every": 0.5,
    "poll_loop": 0.0, "poll_empty": 0.0, "poll_full": 0.0, "connect_timeout": 0.5, "cache_ttl": 5.0,
    "local_step_every": 2,
}  # fmt: skip


class Story:
    """A run in which peers leave and come back at given times."""

    def __init__(self, plan: Plan, without: frozenset[int] = frozenset()) -> None:
        self.run = _Run(plan, plan.scenario.run.seed, fetches=False, without=without)
        self.engine = self.run.engine
        self.ledger = self.engine.ledger

    def peer(self, stage: int, replica: int = 0) -> SimPeer:
        return self.engine.peers[stage * self.engine.plan.num_replicas + replica]

    def at(self, time_s: float, do: Callable[[], object]) -> None:
        self.run.clock.call_at(time_s, lambda _: do())

    def lose(self, time_s: float, stage: int, replica: int = 0) -> None:
        self.at(time_s, lambda: self.leave(self.peer(stage, replica)))

    def leave(self, peer: SimPeer) -> None:
        if peer.status == "training":
            self.engine.ending.crash(peer)
        elif peer.status != "down":
            self.engine.network.cancel_peer(peer.index)
            peer.charge_status(self.run.clock.now)
            peer.status = "down"

    def come_back(self, peer: SimPeer) -> None:
        if peer.status == "down":
            peer.charge(tracing.CAUSE_DOWN, self.run.clock.now)
            peer.status = "benched"
            self.run.rebalancing.come_back(peer)

    def finish(self) -> RunResult:
        self.run.go(None, None)
        result = _result(self.run, 0.0)
        check(result)
        return result

    def unaccounted(self) -> list[int]:
        """Open micro-batches that nobody works on, has in a queue, sends, or is about to send."""
        found: set[int] = set()
        for peer in self.engine.peers:
            policy = peer.policy
            if peer.status == "training":
                assert isinstance(policy, QueueDrivenPolicy)
                found.update(policy.queued())
                if peer.running is not None and peer.action is not None:
                    found.add(peer.action.microbatch)
        for transfer in self.engine.network._undelivered():
            found.add(_number(transfer.arg))
        for call in self.engine.clock.scheduled():
            if getattr(call.fn, "__name__", "") in WAITING:
                found.add(_number(call.arg))
        return [number for number in self.ledger.open if number not in found]


def _number(arg: Any) -> int:
    """The micro-batch that a message, a part of one, or a call of the clock is about."""
    arg = getattr(arg, "hole", arg)
    if hasattr(arg, "number"):
        return int(arg.number)
    if isinstance(arg, tuple):
        return next((each for each in arg if isinstance(each, int)), -1)
    return arg if isinstance(arg, int) else -1


def check(result: RunResult) -> None:
    """Nothing is lost, counted twice or thrown away twice."""
    ledger = result.ledger
    ledger.check()
    assert ledger.created == ledger.applied + ledger.dropped + ledger.rejected + ledger.in_flight
    assert len(result.applied_s) == ledger.applied
    assert np.all(np.diff(result.applied_s) >= 0.0)
    assert sum(epoch.applied for epoch in result.epochs) == ledger.applied
    numbers = [number % (1 << ATTEMPT_BITS) for number in ledger.open]
    assert len(set(numbers)) == len(numbers)
    for kind, work_s in result.work_s.items():
        left_s = work_s - result.thrown_s[kind] - result.unfinished_s[kind]
        assert left_s.min() > -1e-9, kind
        assert result.thrown_s[kind].min() > -1e-9
    seconds = waterfall.gpu_seconds(result)
    assert seconds.sum(axis=1) == pytest.approx(np.full(len(result.plan.peers), result.duration_s), rel=1e-9)
    assert result.other_s.min() > -1e-9


@pytest.fixture(name="story", scope="session")
def _story(quiet: Make, simple: Simple) -> Callable[..., Story]:
    """Return a maker of stories: an F takes 1 s, a B 2 s, the last stage's B 3 s; nothing else takes time.

    Changes of a block are given by its name; `network` and `peers` may change single keys of it. A scenario is not
    checked as a whole each time, which takes longer than such a run.
    """

    @cache
    def base(stages: int, replicas: int) -> Scenario:
        return quiet(stages, replicas)

    def make(in_flight: str, stages: int = 3, replicas: int = 2, **changes: Any) -> Story:
        scenario = base(stages, replicas)
        schedule = SCHEDULE.validate_python(changes.get("schedule") or QUEUE | changes.get("queue", {}))
        recovery = {"in_flight": in_flight, "detect": 1.0, "reconfigure": 10.0} | changes.get("recovery", {})
        blocks: dict[str, Any] = {
            "pipeline": scenario.pipeline.model_copy(update={"schedule": schedule}),
            "recovery": Recovery.model_validate(recovery),
            "run": Run.model_validate({"duration": 60.0, "trace": "full"} | changes.get("run", {})),
        }
        for name in ("network", "peers"):
            blocks[name] = getattr(scenario, name).model_copy(update=changes.get(name, {}))
        for name in ("merge", "sync"):
            blocks[name] = changes.get(name, "none")
        plan = simple(
            scenario.model_copy(update=blocks), {"F": 1.0, "B": 2.0} | changes.get("costs", {}),
            fused=schedule.kind == "queue",
        )  # fmt: skip
        return Story(plan, frozenset(changes.get("without", ())))

    return make
