"""The same scenario on the simulator and on a backend that really computes, held against one another."""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

from orionbed import backends, tracing
from orionbed.plan import Plan, make_plan
from orionbed.results import RunResult
from orionbed.runs import with_seed
from orionbed.scenario import Scenario

TOLERANCES = {"virtual": 0.001, "cpu": 0.25, "paced": 0.03, "queue": 0.05, "real": 0.10}
"""Largest accepted difference in throughput, by clock; with the queue-driven schedule of the median of the seeds."""
DONE = {"emulator": "emulated", "real": "measured"}
"""What a backend did with a run, in a word."""
COMPUTE = tuple(tracing.KINDS[code] for code in (tracing.KIND_F, tracing.KIND_B, tracing.KIND_I, tracing.KIND_W))


@dataclass(frozen=True, slots=True)
class Agreement:
    """Both backends' throughput with one seed, micro-batches per second, and whether peers did the same in order."""

    seed: int
    simulated: float
    executed: float
    same_order: bool | None
    mean_s: dict[str, tuple[float, float]]
    void: str

    @property
    def error(self) -> float:
        """How much faster the simulator says that it is than it was."""
        return self.simulated / self.executed - 1.0 if self.executed else float("inf")


def crosscheck(
    scenario: Scenario, seeds: list[int], say: Callable[[str], None] | None = None, *, backend: str = "emulator"
) -> tuple[list[Agreement], float]:
    """Return the agreement with each seed, and the tolerance that the median of their errors is held to.

    Raises:
        BackendError: the backend cannot run it, or its times would be those of another device.

    """
    found = [_once(with_seed(scenario, seed), seed, say, backend) for seed in seeds]
    if backend == "real":
        return found, TOLERANCES["real"]
    kind = "queue" if scenario.pipeline.schedule.kind == "queue" else scenario.emulator.clock
    return found, TOLERANCES[kind]


def median_error(found: list[Agreement]) -> float:
    """Return the median over the seeds of how far the simulator is off."""
    return median(one.error for one in found)


def _once(scenario: Scenario, seed: int, say: Callable[[str], None] | None, backend: str) -> Agreement:
    executed = backends.load(backend).run(make_plan(scenario, seed), seed=seed, say=say)
    if not executed.has_baseline:
        raise backends.BackendError(
            f"peers.gpu {scenario.peers.gpu} is not the device that ran, so there is nothing to compare: measure it "
            "with `orionbed calibrate` and give --profile"
        )
    plan = executed.plan
    max_epochs = scenario.emulator.merges if backend == "emulator" else scenario.real.merges
    options: dict[str, Any] = {"fetches": False, "max_epochs": max_epochs}
    simulated = backends.load("sim").run(plan, seed=seed, **options)
    speeds = _speeds(plan, simulated, executed)
    return Agreement(
        seed,
        *speeds,
        same_order=None if plan.order is None else _same_order(simulated, executed),
        mean_s=_means(simulated, executed),
        void=executed.aborted,
    )


def _speeds(plan: Plan, simulated: RunResult, executed: RunResult) -> tuple[float, float]:
    """Return micro-batches per second of training, up to as many as both have applied or in phases of equal length."""
    if not isinstance(plan.scenario.merge, str) or plan.scenario.run.tokens is None:
        one, other = (result.ledger.applied / result.training_s for result in (simulated, executed))
        return one, other
    count = min(len(simulated.applied_s), len(executed.applied_s))
    if not count:
        return 0.0, 0.0
    one, other = (count / float(r.applied_s[count - 1] - r.startup_s) for r in (simulated, executed))
    return one, other


def _operations(result: RunResult) -> dict[int, list[tuple[str, int]]]:
    """Return what each peer did, in order: kind and micro-batch."""
    trace = result.trace
    assert trace is not None
    wanted = [code for code, name in enumerate(trace.kinds) if name in COMPUTE]
    rows = trace.select((trace["lane"] == tracing.LANE_COMPUTE) & np.isin(trace["kind"], wanted))
    order = np.argsort(rows["start_s"], kind="stable")
    found: dict[int, list[tuple[str, int]]] = {}
    for row in order.tolist():
        action = (rows.kinds[int(rows["kind"][row])], int(rows["microbatch"][row]))
        found.setdefault(int(rows["peer"][row]), []).append(action)
    return found


def _same_order(simulated: RunResult, executed: RunResult) -> bool:
    """Whether every peer did the same things in the same order, as far as both runs went."""
    one, other = _operations(simulated), _operations(executed)
    return one.keys() == other.keys() and all(
        mine[: min(len(mine), len(theirs))] == theirs[: min(len(mine), len(theirs))]
        for mine, theirs in ((one[peer], other[peer]) for peer in one)
    )


def _means(simulated: RunResult, executed: RunResult) -> dict[str, tuple[float, float]]:
    """Return the mean seconds of each class of operation, and of messages, in both runs."""
    found = {}
    for name in (*COMPUTE, "receive"):
        pair = tuple(_mean(result, name) for result in (simulated, executed))
        if all(pair):
            found[name] = (pair[0], pair[1])
    return found


def _mean(result: RunResult, name: str) -> float:
    trace = result.trace
    assert trace is not None
    rows = trace["kind"] == trace.kinds.index(name)
    return float((trace["end_s"][rows] - trace["start_s"][rows]).mean()) if rows.any() else 0.0


def with_clock(scenario: Scenario, clock: str) -> Scenario:
    """Return the scenario on another clock of the emulator."""
    block = scenario.emulator.model_copy(update={"clock": clock})
    return scenario.model_copy(update={"emulator": block})
