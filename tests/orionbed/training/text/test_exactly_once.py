"""Every sample of an epoch is made once, however often first-stage peers are lost and started again."""

import asyncio
from collections.abc import Callable
from math import inf
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from orionbed.audit import audit
from orionbed.fleet.members import Member
from orionbed.fleet.orchestra import Orchestra
from orionbed.fleet.record import Record
from orionbed.fleet.supervising import Limits
from orionbed.journal import Entry
from orionbed.plan import make_plan
from orionbed.scenario import apply, load
from orionbed.scenario.training import FileData
from orionbed.training.cursor import Cursor
from orionbed.training.text.samples import Cut, Samples


class FirstStages:
    """The first-stage peers of some replicas, on record as the supervisor keeps it."""

    def __init__(self, num_replicas: int, text: Samples) -> None:
        self.record, self.text, self.num_replicas = Record(1), text, num_replicas
        self.cursors = [Cursor(replica, num_replicas) for replica in range(num_replicas)]
        self.lives = [0] * num_replicas
        self.now_s = 0.0

    def write(self, event: str, replica: int, number: int = -1, step: int = -1, detail: str = "") -> None:
        self.now_s += 1.0
        place = (replica, self.lives[replica], 0, replica, 0)
        self.record.enter(Entry(self.now_s, event, *place, number, 0, step, detail))

    def make(self, replica: int, *, then: str) -> None:
        """Make a micro-batch, which is applied, dropped, or lost with its peer before or after it is on record."""
        number = self.cursors[replica].take()
        if then != "lost unseen":
            self.write("created", replica, number, detail=self.text.sample(number))
        if then == "applied":
            self.write("accumulated", replica, number, step=int(self.now_s))
            self.write("applied", replica, number, step=int(self.now_s) - 1, detail="1")
        elif then == "dropped":
            self.write("dropped", replica, number, detail="way back lost")
        else:
            self.write("crashed", replica)
            if then == "lost":
                self.write("dropped", replica, number, detail="lost with its peer")
            self.lives[replica] += 1
            self.cursors[replica] = Cursor(replica, self.num_replicas)
            self.cursors[replica].go_on(self.record.next_ordinal(replica, self.num_replicas))
            self.write("returned", replica)


FATES = st.sampled_from(["applied", "applied", "dropped", "lost", "lost unseen"])


@given(num_replicas=st.integers(1, 3), events=st.lists(st.tuples(st.integers(0, 2), FATES), max_size=60))
@settings(max_examples=40, deadline=None)
def test_samples_are_made_once_per_epoch_over_any_restarts(
    tmp_path_factory: Any, num_replicas: int, events: list[tuple[int, str]]
) -> None:
    path = tmp_path_factory.mktemp("text") / "a.txt"
    path.write_text("".join(f"{number:04d}" for number in range(23)))
    text = Samples(FileData(kind="text", path=str(path), held_out=0.0), Cut(2, 4, 257), 0)
    peers = FirstStages(num_replicas, text)
    for replica, then in events:
        peers.make(replica % num_replicas, then=then)
    made = [entry for entry in peers.record.entries if entry.event == "created"]
    for replica in range(num_replicas):
        own = [entry.microbatch for entry in made if entry.replica == replica]
        assert own == list(range(replica, replica + len(own) * num_replicas, num_replicas))
    assert len({entry.detail for entry in made}) == len(made)
    # Epochs that all replicas are through have had every sample, and so every sequence but the one left over.
    ends = [max([e.microbatch for e in made if e.replica == r], default=-1) for r in range(num_replicas)]
    for epoch in range((min(ends) + 1) // 11):
        assert {f"{epoch}/{index}" for index in range(11)} <= {entry.detail for entry in made}
    found = audit(
        peers.record.entries, num_chunks=1, fixed_batch=False, end_s=peers.now_s, recovery_deadline_s=inf,
        bytes_sent=0, bytes_delivered=0, bytes_in_flight=0, bytes_destroyed=0,
    )  # fmt: skip
    assert found.rules[5].checked == len(made)
    assert not {1, 2, 6} & set(found.broken), [rule.violations for rule in found.rules]


def test_replicas_never_have_the_same_micro_batch(tmp_path: Path) -> None:
    cursors = [Cursor(replica, 3) for replica in range(3)]
    taken = sorted(cursor.take() for cursor in cursors for _ in range(7))
    assert taken == list(range(21))
    cursors[0].go_on(3)  # it is further than that
    assert cursors[0].take() == 21


def test_a_first_stage_peer_begins_where_it_is_told(queue_peer: Callable[..., Any]) -> None:
    peer = queue_peer(0)
    peer.loop.cursor.go_on(4)
    peer.loop.begin(0, inf)
    peer.until(10.0)
    assert [mail.header["m"] for mail in peer.outbox.of("F")] == [8, 10]


class Told(Member):
    """A peer that hears what it is told."""

    def tell(self, message: dict[str, Any]) -> None:
        self.heard = message

    heard: dict[str, Any]


def test_who_comes_back_is_told_where_its_replica_has_got_to() -> None:
    plan = make_plan(apply(load("minimal"), {"churn": "none", "uncertain": {}}))
    peers = [Told(peer.index, "peer") for peer in plan.peers]
    record = Record(plan.num_chunks)
    record.enter(Entry(1.0, "created", 1, 0, 0, 1, 0, 3 * plan.num_replicas + 1, 0, -1, "3"))

    async def begin() -> None:
        supervisor: Any = SimpleNamespace(
            plan=plan, record=record, seed=0, clock=None, peers=peers, members=peers, limits=Limits(None, 600.0)
        )
        orchestra = Orchestra(supervisor, None)
        for peer in peers:
            orchestra._begin(peer, 2.0)

    asyncio.run(begin())
    places = [(plan.peers[peer.index].stage, plan.peers[peer.index].replica) for peer in peers]
    ordinals = {place: peer.heard.get("ordinal") for place, peer in zip(places, peers, strict=True)}
    assert (ordinals[0, 0], ordinals[0, 1]) == (0, 4)
    assert {ordinal for (stage, _), ordinal in ordinals.items() if stage} == {None}
