"""Run a plan on the simulator."""

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from math import ceil, inf
from typing import Any

import numpy as np
import simpy
from simpy.core import StopSimulation

from orionbed.backends import BackendError
from orionbed.plan import Plan
from orionbed.results import Epoch, Floats, MergeCounts, RunResult
from orionbed.schedule.actions import KINDS, Kind
from orionbed.script import Write
from orionbed.streams import Streams
from sim.churn import Churn
from sim.clock import Clock
from sim.engine import Engine
from sim.faulting import make_faulting
from sim.life import life_block, life_warnings, other_store_bytes
from sim.merging import Merging, succeed
from sim.not_scripted import not_scripted
from sim.orchestrator import make_orchestrator
from sim.peer import SimPeer
from sim.rebalancing import Rebalancing
from sim.scribe import Scribe
from sim.wiring import make_network

PROGRESS_EVERY_S = 600.0
# A run that applies nothing for this long will never reach its number of tokens.
STALLED_AFTER_S = 30 * 86400.0


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run has got."""

    now_s: float
    applied: int
    target: int | None


class _Run:
    """One run from start-up to its last micro-batch."""

    def __init__(
        self,
        plan: Plan,
        seed: int,
        *,
        fetches: bool = True,
        without: frozenset[int] = frozenset(),
        script: Write | None = None,
    ) -> None:
        self.plan = plan
        self.fetches = fetches
        self.seed = seed
        self.streams = Streams(seed)
        self.clock = Clock()
        self.network = make_network(plan, self.clock, self.streams)
        self.engine = Engine(plan, self.clock, self.network, self.streams)
        self.engine.scribe = None if script is None else Scribe(self.engine, script)
        merge, churn = plan.scenario.merge, plan.scenario.churn
        self.merging = None if isinstance(merge, str) else Merging(self.engine, merge)
        self.rebalancing = Rebalancing(self.engine, self.merging)
        self.orchestrator = make_orchestrator(self.engine, self.merging, self.rebalancing)
        self.churn = None if isinstance(churn, str) else Churn(self.engine, self.rebalancing)
        self.faulting = make_faulting(self.engine, self.merging, self.rebalancing, seed=seed)
        self._leave_out(without)
        self.epochs: list[Epoch] = []
        self.startup_s = inf
        self.startup_read_bytes = 0.0
        self.done = False
        self.aborted = ""
        self._epoch_started_s = 0.0
        self._training_end_s = 0.0
        self._counted = (0, 0)

    def _leave_out(self, without: frozenset[int]) -> None:
        """Let these peers be down from the first second to the last; nobody hears of them."""
        for index in sorted(without):
            peer = self.engine.peers[index]
            peer.status = "down"
            self.engine.status.views[peer.stage].drop(peer.position)

    def life(self, max_epochs: int | None) -> Generator[simpy.Event, Any, None]:
        """Start up, then train and merge in turn for ever; the clock stops it."""
        yield from self._start_up()
        merge = self.plan.scenario.merge
        ready = [peer for peer in self.engine.peers if peer.status == "startup"]
        while True:
            self._begin_epoch(ready)
            every_s = inf if isinstance(merge, str) else merge.between
            if self.orchestrator is None:
                yield self.clock.timeout(every_s)
            else:
                yield from self.orchestrator.training(every_s)
                self.orchestrator.training_is_about_to_end()
            assert self.merging is not None
            if self.merging.overlaps:
                yield from self.merging.begin_beside()
                self._training_end_s = self.clock.now
                ready = []
                if self._is_last_epoch(max_epochs):
                    raise StopSimulation(None)
                continue
            self._training_end_s = self.clock.now
            self.engine.in_training = False
            yield from self.merging.stop_training()
            if self.orchestrator is not None:
                self.orchestrator.boundary()
            ready = yield from self.merging.run()
            if self.orchestrator is not None:
                ready = self.orchestrator.epoch_ends(ready)
            if self._is_last_epoch(max_epochs):
                raise StopSimulation(None)

    def _is_last_epoch(self, max_epochs: int | None) -> bool:
        """End the epoch; return whether it was the last one."""
        self._end_epoch(self._training_end_s)
        self.done = len(self.epochs) == max_epochs
        return self.done

    def _start_up(self) -> Generator[simpy.Event, Any, None]:
        """Every peer fetches its stage's first weights; then the scenario's own start-up time passes."""
        if self.orchestrator is not None:
            yield self.orchestrator.register_all()
        fetched = []
        for peer in self.engine.peers if self.fetches else ():
            if peer.status == "down":
                continue
            event = self.clock.event()
            weight_bytes = float(self.plan.stages[peer.stage].weight_bytes)
            self.network.from_storage(peer.index, weight_bytes, succeed, event)
            self.startup_read_bytes += weight_bytes
            fetched.append(event)
        yield self.clock.all_of(fetched)
        yield self.clock.timeout(self.plan.scenario.run.startup)
        self.startup_s = self.clock.now
        self.engine.start_broadcasts()
        if self.churn is not None:
            self.churn.start()
        self.rebalancing.start()

    def _begin_epoch(self, ready: list[SimPeer]) -> None:
        self._epoch_started_s = self.clock.now
        self.engine.recording.epoch = len(self.epochs)
        self.engine.in_training = True
        for peer in ready:
            self.engine.start_training(peer)
        if self.orchestrator is not None:
            self.orchestrator.epoch_begins()

    def _end_epoch(self, training_end_s: float) -> None:
        ledger = self.engine.ledger
        applied, dropped = ledger.applied, ledger.dropped
        self.epochs.append(
            Epoch(
                len(self.epochs),
                self._epoch_started_s,
                training_end_s,
                self.clock.now,
                applied - self._counted[0],
                dropped - self._counted[1],
            )
        )
        self._counted = (applied, dropped)
        self._epoch_started_s = self.clock.now

    def go(self, progress: Callable[[Progress], None] | None, max_epochs: int | None) -> None:
        """Run to the target, or until `max_epochs` merges are over."""
        run = self.plan.scenario.run
        target = None if run.tokens is None else ceil(run.tokens / self.plan.tokens_per_microbatch)
        self.engine.target_applied = target
        end_s = inf if run.duration is None else run.duration
        self.clock.process(self.life(max_epochs))
        if self.faulting is not None:
            self.faulting.start()
        while not self.done and self.clock.now < end_s and (target is None or self.engine.ledger.applied < target):
            self.clock.run_to(min(end_s, self.clock.now + PROGRESS_EVERY_S))
            if progress is not None:
                progress(Progress(self.clock.now, self.engine.ledger.applied, target))
            if self.clock.now - self._last_applied_s() > STALLED_AFTER_S:
                self.aborted = f"no micro-batch was completed in {STALLED_AFTER_S / 86400.0:g} days"
                break
        self.engine.ending.close()
        if self.churn is not None:
            self.churn.close()
        if self.faulting is not None:
            self.faulting.close()
        if self.orchestrator is not None:
            self.orchestrator.close()
        if self.engine.in_training:
            self._end_epoch(self.clock.now)
        elif self.startup_s < inf and not self.done:  # the run ended within a merge
            self._end_epoch(self._training_end_s)

    def _last_applied_s(self) -> float:
        applied_s = self.engine.applied_s
        return applied_s[-1] if applied_s else 0.0


def run(
    plan: Plan,
    *,
    seed: int | None = None,
    progress: Callable[[Progress], None] | None = None,
    say: Callable[[str], None] | None = None,  # noqa: ARG001  (the simulator has nothing to say)
    max_epochs: int | None = None,
    fetches: bool = True,
    without: frozenset[int] = frozenset(),
    script: Write | None = None,
) -> RunResult:
    """Simulate `plan` to its number of tokens, its duration, or `max_epochs` merges, whichever comes first.

    `progress` is called about every ten simulated minutes. Without `fetches` all peers have their first weights.
    Peers `without`, by index, are absent the whole run; what is drawn for the others stays as it is. `script` takes
    down, line by line, what happens to weights (`orionbed.script`).

    Raises:
        BackendError: a script is wanted that could not say all of it; the message lists why.

    """
    started = time.perf_counter()
    beyond = [] if script is None else not_scripted(plan.scenario)
    if beyond:
        raise BackendError("\n  ".join(["weights cannot follow this run:", *beyond]))
    seed = plan.scenario.run.seed if seed is None else seed
    the_run = _Run(plan, seed, fetches=fetches, without=without, script=script)
    the_run.go(progress, max_epochs)
    the_run.engine.ledger.check()
    return _result(the_run, time.perf_counter() - started)


def _result(run: _Run, wall_s: float) -> RunResult:
    engine, peers = run.engine, run.engine.peers
    unfinished: dict[Kind, Floats] = {kind: np.zeros(len(peers)) for kind in KINDS}
    for record in engine.ledger.open.values():
        for index, kind, _, _, seconds in record.spent:
            unfinished[kind][index] += seconds
    merging = run.merging
    stored, read = run.network.bytes_stored
    other_stored, other_read = other_store_bytes(engine, run.orchestrator)
    life = life_block(engine, run.orchestrator)
    num_backwards = sum(peer.num_done["B"] for peer in peers)
    between = 0.0 if merging is None else merging.bytes_between_peers
    return RunResult(
        plan=run.plan,
        backend="sim",
        seed=run.seed,
        duration_s=run.clock.now,
        startup_s=min(run.startup_s, run.clock.now),
        applied_s=np.frombuffer(engine.applied_s, dtype=np.float64),
        ledger=engine.ledger,
        epochs=run.epochs,
        marks=sorted(engine.marks, key=lambda mark: (mark.start_s, mark.peer)),
        work_s={kind: np.array([p.work_s[kind] for p in peers]) for kind in KINDS},
        num_done={kind: np.array([p.num_done[kind] for p in peers], dtype=np.int64) for kind in KINDS},
        thrown_s={kind: np.array([p.thrown_s[kind] for p in peers]) for kind in KINDS},
        unfinished_s=unfinished,
        other_s=np.array([p.cause_s for p in peers]),
        bytes_up=np.array(run.network.bytes_up, dtype=np.float64),
        bytes_down=np.array(run.network.bytes_down, dtype=np.float64),
        bytes_boundary=engine.bytes_boundary,
        bytes_merge_up=stored - other_stored + between,
        bytes_merge_down=(0.0 if merging is None else max(0.0, read - run.startup_read_bytes - other_read)) + between,
        bytes_storage_read=read,
        merges_missed=0 if merging is None else merging.num_missed,
        num_syncs=0 if engine.syncing is None else engine.syncing.num_exchanges,
        syncing_s=0.0 if engine.syncing is None else engine.syncing.exchange_s,
        bytes_sync=0.0 if engine.syncing is None else engine.syncing.bytes_sent,
        num_moves=run.rebalancing.num_moves,
        trace=engine.recording.table(),
        events=run.clock.events,
        wall_s=wall_s,
        aborted=run.aborted,
        merge_counts=MergeCounts() if merging is None else merging.counts,
        warnings=life_warnings(life, engine.ledger.created, num_backwards),
        faults=[] if run.faulting is None else run.faulting.rows(),
        orchestrator=life,
        recovery=engine.recovery.summary(),
    )
