"""A small model, one torch thread, an executor that runs an order's lists on workers, and loops at work alone."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest

from orionbed.compute import Cost
from orionbed.faults import ResolvedFault
from orionbed.journal import Entry
from orionbed.plan import Plan, make_plan
from orionbed.scenario import apply, load
from orionbed.scenario.schedules import ResBMBoundary
from orionbed.schedule.actions import Action
from orionbed.schedule.order import Order
from orionbed.training.fixed_loop import FixedLoop
from orionbed.training.loop import PeerLoop
from orionbed.training.queue_loop import QueueLoop
from orionbed.training.reporting import Reporter
from orionbed.training.shape import ModelShape
from orionbed.training.surroundings import Setup
from orionbed.training.threads import with_threads
from orionbed.training.worker import StageWorker


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    pytest.importorskip("torch")
    with with_threads(1):
        yield


@pytest.fixture
def small() -> Callable[..., ModelShape]:
    """Make a small shape; what is not said is one layer per chunk, full boundary, float64. A width means a ResBM."""

    def make(num_chunks: int = 4, **changes: Any) -> ModelShape:
        if isinstance(changes.get("boundary"), int):
            changes["boundary"] = ResBMBoundary(kind="resbm", width=changes["boundary"])
        fields: dict[str, Any] = {
            "layers_per_chunk": (1,) * num_chunks,
            "hidden": 32,
            "ffn": 48,
            "heads": 4,
            "kv_heads": 2,
            "vocab": 64,
            "sequence": 8,
            "sequences": 2,
            "boundary": None,
            "dtype": "float64",
        }
        return ModelShape(**fields | changes)

    return make


@dataclass
class Pipeline:
    """One worker per stage of an order; tensors pass from list to list as their receivers come to need them."""

    order: Order
    workers: list[StageWorker]
    _ready: dict[tuple[str, int, int], Any] = field(default_factory=dict)

    def step(self, microbatches: Sequence[int], leave_out: Callable[[Action], bool] = lambda _: False) -> None:
        """Run the order once; its micro-batch i is `microbatches[i]`."""
        lists = [list(actions) for actions in self.order.lists]
        while any(lists):
            moved = False
            for worker, actions in zip(self.workers, lists, strict=True):
                while actions and self._can(actions[0]._replace(microbatch=microbatches[actions[0].microbatch])):
                    action = actions.pop(0)
                    moved = True
                    if not leave_out(action):
                        self._do(worker, action._replace(microbatch=microbatches[action.microbatch]))
            assert moved, "deadlock"
        for worker in self.workers:
            worker.step(len(microbatches))

    def _can(self, action: Action) -> bool:
        kind, chunk, microbatch = action
        if kind == "W" or (kind == "F" and chunk == 0):
            return True
        if kind == "F":
            return ("F", chunk - 1, microbatch) in self._ready
        if chunk == self.order.num_chunks - 1:
            return ("F", chunk, microbatch) in self._ready
        return ("B", chunk + 1, microbatch) in self._ready

    def _do(self, worker: StageWorker, action: Action) -> None:
        kind, chunk, microbatch = action
        if kind == "W":
            worker.backward_weight(chunk, microbatch)
        elif kind == "F":
            inputs = self._ready.pop(("F", chunk - 1, microbatch)) if chunk else None
            self._ready["F", chunk, microbatch] = worker.forward(chunk, microbatch, inputs)
        else:
            last = chunk == self.order.num_chunks - 1
            gradient = self._ready.pop(("F", chunk, microbatch) if last else ("B", chunk + 1, microbatch))
            run = worker.backward if kind == "B" else worker.backward_input
            self._ready["B", chunk, microbatch] = run(chunk, microbatch, gradient)

    def weights(self) -> list[Any]:
        """Return the weights of each chunk along the model."""
        from orionbed.training.shape import parameters_of

        found: dict[int, Any] = {}
        for worker in self.workers:
            counts = [parameters_of(worker.shape, chunk) for chunk in worker.chunks]
            found |= dict(zip(worker.chunks, worker.weights().split(counts), strict=True))
        return [found[chunk] for chunk in range(self.order.num_chunks)]


@pytest.fixture
def pipeline() -> Callable[..., Pipeline]:
    """Make the workers of an order."""

    def make(order: Order, shape: ModelShape, **how: Any) -> Pipeline:
        held = [[c for c, stage in enumerate(order.stage_of) if stage == s] for s in range(order.num_stages)]
        return Pipeline(order, [StageWorker(shape, chunks, **how) for chunks in held])

    return make


@pytest.fixture
def relative_error() -> Callable[..., float]:
    """Largest difference between two lists of weights, relative to the largest weight."""

    def error(found: Sequence[Any], expected: Sequence[Any]) -> float:
        largest = max(float(tensor.abs().max()) for tensor in expected)
        return max(float((a - b).abs().max()) for a, b in zip(found, expected, strict=True)) / largest

    return error


# ---------------------------------------------------------------- loops without torch, sockets or clocks


class Mail(NamedTuple):
    """A message as a loop handed it over."""

    target: int
    header: dict[str, Any]
    body: bytes
    num_bytes: float
    at_s: float
    control: bool


class Outbox(list[Mail]):
    """A transport that keeps what it is given."""

    def send(
        self, target: int, header: dict[str, Any], body: bytes, num_bytes: float, at_s: float, *, control: bool = False
    ) -> None:
        self.append(Mail(target, header, body, num_bytes, at_s, control))

    def of(self, kind: str) -> list[Mail]:
        """Return the messages of one kind."""
        return [mail for mail in self if mail.header["k"] == kind]


class Numbers:
    """Stands in for a peer's pieces of the model, and for their worker: some weights, and a list of what was done."""

    def __init__(self, values: Sequence[float], dtype: str = "float64") -> None:
        self.shape = SimpleNamespace(dtype=dtype)
        self.chunks = (0,)
        self.values = np.array(values, dtype=dtype)
        self.gradient = np.zeros_like(self.values)
        self.done: list[tuple[str, int, int]] = []
        self.divisors: list[int] = []
        self.forgotten: list[int] = []
        self.last_s = 0.0
        self.worker = self

    def run(self, kind: str, chunk: int, microbatch: int, body: bytes | None) -> bytes:  # noqa: ARG002
        self.done.append((kind, chunk, microbatch))
        if kind in {"B", "W"}:
            self.gradient += microbatch + 1
        return f"{kind}{microbatch}".encode()

    def step(self, num_microbatches: int) -> None:
        self.divisors.append(num_microbatches)
        self.values -= self.gradient / num_microbatches
        self.gradient[:] = 0.0

    def take_loss(self, microbatch: int) -> None:  # noqa: ARG002
        return None

    def weights(self) -> bytes:
        return self.values.tobytes()

    def load_weights(self, body: bytes) -> None:
        self.values = np.frombuffer(body, dtype=self.values.dtype).copy()

    def gradients(self) -> bytes:
        return self.gradient.tobytes()

    def load_gradients(self, body: bytes) -> None:
        self.gradient = np.frombuffer(body, dtype=self.values.dtype).copy()

    state, load_state = weights, load_weights

    def state_hash(self) -> str:
        return hashlib.sha256(self.values.tobytes()).hexdigest()[:16]

    weights_hash = state_hash

    def forget(self, microbatch: int) -> None:
        self.forgotten.append(microbatch)

    def reset(self) -> None:
        self.gradient[:] = 0.0


@dataclass
class Alone:
    """A loop by itself: the test is its clock and everybody else."""

    loop: Any
    outbox: Outbox
    numbers: Numbers
    reports: list[dict[str, Any]]
    told: list[dict[str, Any]]

    def until(self, at_s: float) -> None:
        """Let everything happen that is due up to a second of the run."""
        timeline = self.loop.timeline
        while timeline.next_s() <= at_s:
            timeline.step()
        timeline.now_s = max(timeline.now_s, at_s)

    def hears(self, at_s: float, body: bytes = b"x", **header: Any) -> None:
        """Let a message arrive at a second of the run."""
        self.loop.timeline.at(at_s, self.loop.arrive, ({"sent": at_s, "plan_bytes": 0.0, **header}, body))
        self.until(at_s)

    def loses(self, mail: Mail, at_s: float) -> None:
        """Let it learn at a second of the run that a message could not be delivered."""
        header = {**mail.header, "plan_bytes": mail.num_bytes}
        self.loop.timeline.at(at_s, self.loop.failed, (mail.target, header, "connection reset"))
        self.until(at_s)

    @property
    def journal(self) -> list[Entry]:
        """Everything that it has written down."""
        self.loop.reporter.flush(self.loop.account, "idle")
        return [Entry(*row) for report in self.reports for row in report["entries"]]

    def wrote(self, event: str) -> list[tuple[int, str]]:
        """Return micro-batch and detail of the entries of one kind."""
        return [(entry.microbatch, entry.detail) for entry in self.journal if entry.event == event]


QUEUE: dict[str, Any] = {
    "kind": "queue", "window": 2, "router": "replica", "status_every": 1e3, "local_step_every": 2, "cache_ttl": 100.0,
    "connect_timeout": 1.0, "attempts": 3, "poll_loop": 0.0, "poll_empty": 0.0, "poll_full": 0.0,
}  # fmt: skip


@pytest.fixture(scope="session")
def toy_plan() -> Callable[..., Plan]:
    """Make a plan of small round numbers: F takes 1 s, B 2 s, a step no time; `schedule` and keys of the scenario."""

    made: dict[str, Plan] = {}

    def make(schedule: dict[str, Any], stages: int = 3, replicas: int = 2, **changes: Any) -> Plan:
        key = repr((schedule, stages, replicas, changes))
        if key not in made:
            made[key] = plan_of(schedule, stages, replicas, changes)
        return made[key]

    def plan_of(schedule: dict[str, Any], stages: int, replicas: int, changes: dict[str, Any]) -> Plan:
        scenario = apply(
            load("minimal"),
            {
                "pipeline.stages": stages, "pipeline.replicas": replicas, "pipeline.schedule": schedule,
                "peers.sites": {"virginia": stages * replicas}, "churn": "none", "uncertain": {}, "merge": "none",
                "report": {"uplinks": []},
            } | {key.replace("__", "."): value for key, value in changes.items()},
        )  # fmt: skip
        plan = make_plan(scenario)
        whole = {"F": Cost(model_s=1.0), "B": Cost(model_s=2.0)}
        last = {"B": Cost(model_s=3.0)} if plan.order is None else whole
        chunks = (*[whole] * (plan.num_chunks - 1), last)
        stages_ = tuple(replace(stage, costs={**stage.costs, "STEP": Cost()}) for stage in plan.stages)
        return replace(plan, chunk_costs=chunks, stages=stages_)  # type: ignore[arg-type]

    return make


@pytest.fixture(scope="session")
def alone() -> Callable[..., Alone]:
    """Make one peer of a plan, with weights 0, 1, 2 and so on; `faults` are those of the run."""

    def make(plan: Plan, index: int, *, num_values: int = 6, faults: tuple[ResolvedFault, ...] = ()) -> Alone:
        outbox, numbers = Outbox(), Numbers(np.arange(num_values, dtype=np.float64))
        reports: list[dict[str, Any]] = []
        told: list[dict[str, Any]] = []
        me = plan.peers[index]
        kind: type[PeerLoop] = QueueLoop if plan.order is None else FixedLoop
        reporter = Reporter(index, 0, me.stage, me.replica, reports.append)
        numbers.chunks = (me.stage,)
        loop: Any = kind(Setup(plan, index, 0, 0, faults=faults), outbox, reporter, numbers)  # type: ignore[arg-type]
        loop.on_command = told.append
        return Alone(loop, outbox, numbers, reports, told)

    return make


@pytest.fixture(scope="session")
def queue_peer(toy_plan: Callable[..., Plan], alone: Callable[..., Alone]) -> Callable[..., Alone]:
    """Make a peer of a queue-driven pipeline of 3 stages and 2 replicas: peer 2 s + r is replica r of stage s."""

    def make(index: int, *, faults: tuple[ResolvedFault, ...] = (), **schedule: Any) -> Alone:
        return alone(toy_plan({**QUEUE, **schedule}), index, faults=faults)

    return make
