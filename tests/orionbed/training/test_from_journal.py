"""Whatever happens in a queue-driven run, one process that does what its journal says ends with the same weights."""

from collections.abc import Callable, Iterator
from itertools import groupby
from math import isnan
from typing import Any

import pytest

from orionbed.audit import audit
from orionbed.fleet.participants import Participant, PeerParticipant, StoreParticipant
from orionbed.journal import Entry, in_order
from orionbed.plan import Plan
from orionbed.training.compute import Compute
from orionbed.training.data import synthetic
from orionbed.training.from_journal import JournalError, UndecidedError, script_of
from orionbed.training.merge import PHASES
from orionbed.training.replay import replayed_difference
from orionbed.training.serial import train_serially
from orionbed.training.shape import ModelShape
from orionbed.training.surroundings import Setup

SEED = 3
DELAY_S = 0.1
SCHEDULE: dict[str, Any] = {
    "kind": "queue", "window": 3, "router": "random", "status_every": 5.0, "local_step_every": 2, "cache_ttl": 100.0,
    "connect_timeout": 1.0, "attempts": 3, "poll_loop": 0.0, "poll_empty": 0.0, "poll_full": 0.0,
}  # fmt: skip


class Swarm:
    """All peers of a plan and their store in this process; whoever has the earliest event has its turn."""

    def __init__(self, plan: Plan, shape: ModelShape) -> None:
        self.plan, self.shape = plan, shape
        self.entries: list[Entry] = []
        self.members: list[Participant | None] = [None] * (len(plan.peers) + 1)
        self.members[-1] = StoreParticipant(Wire(self, len(plan.peers)))
        for index in range(len(plan.peers)):
            self.start(index, 0, 0.0)

    def start(self, index: int, life: int, at_s: float) -> None:
        """Let a peer live."""
        plan = self.plan
        compute = Compute(
            self.shape, plan.chunks_of(plan.peers[index].stage), seed=SEED, fused_last=True,
            optimizer=plan.scenario.training.optimizer, batches=synthetic(self.shape, SEED),
        )  # fmt: skip
        setup = Setup(plan, index, life, SEED)
        made = PeerParticipant(setup, compute, Wire(self, index), self.hear, tells_weights=True)
        self.members[index] = made
        made.started(at_s)

    def hear(self, message: dict[str, Any]) -> None:
        """Take in what a peer tells."""
        self.entries += [Entry(*row) for row in message.get("entries", ()) if row[1] != "loss"]

    def tell(self, at_s: float, indices: Any, **command: Any) -> None:
        """Have peers obey a command at a second of the run."""
        for index in indices:
            member = self.members[index]
            if member is not None:
                member.timeline.at(at_s, member.command, {**command, "at_s": at_s})

    def until(self, at_s: float) -> None:
        """Let everything happen that is due."""
        while True:
            timelines = [member.timeline for member in self.members if member is not None]
            first = min(timelines, key=lambda timeline: timeline.next_s())
            if first.next_s() > at_s:
                break
            first.step()

    def begin(self, at_s: float, indices: Any, epoch: int = 0, until_s: float | None = None) -> None:
        """Let peers train."""
        self.tell(at_s, indices, t="begin", epoch=epoch, until_s=until_s)

    def crash(self, index: int, at_s: float) -> None:
        """Take a peer away."""
        self.until(at_s)
        self.members[index] = None
        place = self.plan.peers[index]
        self.entries.append(Entry(at_s, "crashed", index, 0, place.stage, place.replica, place.stage))
        self.tell(at_s + 3.0, range(len(self.plan.peers)), t="address", peer=index, to=None)

    def come_back(self, index: int, at_s: float) -> None:
        """Let a peer live again."""
        self.until(at_s)
        self.start(index, 1, at_s)
        self.tell(at_s, range(len(self.plan.peers)), t="address", peer=index, to=["here", 1])

    def merge(self, at_s: float, members: list[list[int]], takers: list[list[int]]) -> None:
        """Merge the weights of each stage, three seconds a phase."""
        for number, phase in enumerate(PHASES):
            for own, taking in zip(members, takers, strict=True):
                indices = taking if phase == "download" else own
                self.tell(at_s + 3.0 * number, indices, t="phase", phase=phase, merge=0, members=own, base=0, version=1)

    def weights(self) -> dict[int, bytes]:
        """Return the weights of all peers, after their last entries."""
        found = {}
        for index, member in enumerate(self.members[:-1]):
            if isinstance(member, PeerParticipant):
                member.final()
                found[index] = member.loop.compute.weights()
        return found


class Wire:
    """Carries a peer's messages in no time worth speaking of."""

    def __init__(self, swarm: Swarm, index: int) -> None:
        self._swarm, self._index = swarm, index

    def send(
        self, target: int, header: dict[str, Any], body: bytes, num_bytes: float, at_s: float, *, control: bool = False
    ) -> None:
        full = {**header, "from": self._index, "sent": at_s, "plan_bytes": num_bytes}
        receiver, sender = self._swarm.members[target], self._swarm.members[self._index]
        if receiver is not None:
            receiver.timeline.at(at_s + DELAY_S, receiver.loop.arrive, (full, bytes(body)))
        elif sender is not None and not control:
            sender.timeline.at(at_s + DELAY_S, sender.loop.failed, (target, full, "gone"))


Finished = tuple[Plan, ModelShape, list[Entry], dict[int, bytes]]


@pytest.fixture(scope="module")
def finished(toy_plan: Callable[..., Plan]) -> Finished:
    """Two replicas of three stages that lose peers, take over a state, merge with an outer step, and train on."""
    shape = shape_of()
    swarm = Swarm(toy_plan(SCHEDULE, merge={"every": 30.0, "compute": 1.0}), shape)
    everybody = range(6)
    swarm.begin(0.0, everybody, until_s=30.0)
    swarm.crash(3, 8.5)
    swarm.come_back(3, 10.0)
    swarm.tell(10.0, [3], t="fetch", peer=2)
    swarm.begin(11.0, [3], until_s=30.0)
    swarm.crash(5, 25.0)
    swarm.come_back(5, 27.0)
    swarm.merge(30.0, [[0, 1], [2, 3], [4]], [[0, 1], [2, 3], [4, 5]])
    swarm.begin(45.0, everybody, epoch=1)
    swarm.until(70.0)
    weights = swarm.weights()
    return swarm.plan, shape, swarm.entries, weights


def shape_of(dtype: str = "float32") -> ModelShape:
    pytest.importorskip("torch")
    return ModelShape(
        layers_per_chunk=(1, 1, 1), hidden=32, ffn=48, heads=4, kv_heads=2, vocab=64, sequence=8, sequences=2,
        boundary=None, dtype=dtype,
    )  # fmt: skip


def difference(finished: Finished, entries: list[Entry]) -> float:
    plan, shape, _, weights = finished
    found = replayed_difference(plan, shape, SEED, synthetic(shape, SEED), entries, weights)
    assert found is not None
    return found


def test_a_run_with_faults_and_a_merge_is_done_again_to_the_bit(finished: Finished) -> None:
    entries = finished[2]
    happened = {entry.event for entry in entries}
    assert {"crashed", "adopted", "merged", "taken", "dropped", "reset"} <= happened
    assert len({(e.peer, e.source) for e in entries if e.event == "forward" and e.chunk == 1}) == 4, "replicas mix"
    assert difference(finished, entries) == 0.0


def test_weights_that_are_no_numbers_are_the_furthest_off(finished: Finished) -> None:
    plan, shape, entries, weights = finished
    torch = pytest.importorskip("torch")
    first = torch.full((len(weights[0]) // 4,), float("nan")).numpy().tobytes()
    found = replayed_difference(plan, shape, SEED, synthetic(shape, SEED), entries, {**weights, 0: first})
    assert found is not None
    assert isnan(found)


def test_clocks_that_disagree_do_not_matter(finished: Finished) -> None:
    ahead = [entry._replace(at_s=entry.at_s - 0.7 * (entry.peer % 3)) for entry in finished[2]]
    assert difference(finished, ahead) == 0.0


def without_a_backward(entries: list[Entry]) -> Iterator[Entry]:
    victim = next(e for e in entries if e.event == "backward" and e.chunk == 0 and e.at_s > 50.0)
    return (entry for entry in entries if entry is not victim)


def with_another_source(entries: list[Entry]) -> Iterator[Entry]:
    victim = next(e for e in entries if e.event == "backward" and e.chunk == 0 and e.at_s > 50.0)
    return (entry._replace(source=5 - victim.source) if entry is victim else entry for entry in entries)


def with_a_step_a_pass_earlier(entries: list[Entry]) -> Iterator[Entry]:
    rows = in_order(entries)
    own = [entry for entry in rows if entry.peer == 0 and entry.at_s > 45.0]
    groups = [list(rows) for _, rows in groupby(own, key=lambda entry: entry.event)]
    number = next(n for n, rows in enumerate(groups) if rows[0].event == "applied")
    step = groups[number]
    passed = next(e for rows in reversed(groups[:number]) for e in reversed(rows) if e.event in {"forward", "backward"})
    moved = {id(entry) for entry in step}
    for entry in rows:
        if entry is passed:
            yield from (one._replace(at_s=passed.at_s) for one in step)
        if id(entry) not in moved:
            yield entry


@pytest.mark.parametrize("alter", [without_a_backward, with_another_source, with_a_step_a_pass_earlier])
def test_an_altered_journal_is_noticed(finished: Finished, alter: Callable[[list[Entry]], Iterator[Entry]]) -> None:
    try:
        found = difference(finished, list(alter(finished[2])))
    except ValueError:
        return
    assert found > 1e-5


def test_what_cannot_be_done_again_breaks_the_rule() -> None:
    nothing: dict[str, Any] = {
        "num_chunks": 1, "fixed_batch": False, "end_s": 1.0, "recovery_deadline_s": 1.0, "bytes_sent": 0,
        "bytes_delivered": 0, "bytes_in_flight": 0, "bytes_destroyed": 0,
    }  # fmt: skip
    found = audit([], reference_problem="peer 3 needs what nobody made", **nothing)
    assert found.broken == [7]
    assert "peer 3 needs what nobody made" in found.void


FIRST = Entry(1.0, "forward", 0, chunk=0, stage=0, microbatch=0, detail="F")
MIDDLE = Entry(2.0, "forward", 2, chunk=1, stage=1, microbatch=0, detail="F", source=0)


def test_a_journal_with_a_gap_is_refused(toy_plan: Callable[..., Plan]) -> None:
    plan = toy_plan(SCHEDULE)
    assert [line.does for line in script_of(plan, [MIDDLE, FIRST])] == ["F", "F"]
    with pytest.raises(JournalError, match="at 2 s peer 2 needs what nobody made"):
        script_of(plan, [MIDDLE])
    with pytest.raises(JournalError, match="adopted version 4, which 2 never had"):
        script_of(plan, [Entry(1.0, "adopted", 3, 1, 1, 1, 1, step=4, detail="ab", source=2)])
    taken = Entry(1.0, "taken", 3, 0, 1, 1, 1, step=1, detail='{"merge": 0, "slices": 1, "made": [0]}')
    with pytest.raises(JournalError, match="slice 0 was taken over, and nobody says how it was merged"):
        script_of(plan, [taken])


def test_a_tensor_of_two_lives_leaves_it_open(toy_plan: Callable[..., Plan]) -> None:
    plan, again = toy_plan(SCHEDULE), FIRST._replace(at_s=1.5, life=1)
    assert len(script_of(plan, [FIRST, again, MIDDLE._replace(at_s=1.2)])) == 3
    with pytest.raises(UndecidedError, match="peer 0 made twice what peer 2 used"):
        script_of(plan, [FIRST, again, MIDDLE])


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-10), ("float32", 1e-5)])
def test_with_one_micro_batch_in_flight_the_queue_trains_as_the_plain_model(
    toy_plan: Callable[..., Plan], dtype: str, tolerance: float
) -> None:
    shape = shape_of(dtype)
    sgd = {"training.optimizer": {"kind": "sgd", "learning_rate": 0.01}}
    swarm = Swarm(toy_plan({**SCHEDULE, "window": 1}, replicas=1, **sgd), shape)
    swarm.begin(0.0, range(3))
    swarm.until(60.0)
    weights = swarm.weights()
    steps = [e for e in swarm.entries if e.event == "applied" and e.chunk == 0]
    batches = [[e.microbatch for e in rows] for _, rows in groupby(steps, key=lambda entry: entry.step)]
    assert len(batches) > 2
    assert {len(batch) for batch in batches} == {2}
    optimizer = swarm.plan.scenario.training.optimizer
    for chunk, expected in enumerate(train_serially(shape, SEED, batches, optimizer, synthetic(shape, SEED))):
        found = swarm.members[chunk].loop.compute.worker.weights()  # type: ignore[union-attr]
        assert (found - expected).abs().max() < tolerance * expected.abs().max()
        assert found.tolist() != [0.0]
    assert set(weights) == {0, 1, 2}
