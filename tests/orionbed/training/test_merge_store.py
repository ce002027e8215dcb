"""Merges from end to end without a network: peers, the store, and messages that arrive when the test says so."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from orionbed.merging.butterfly import butterfly_bytes
from orionbed.training.merge import PeerMerge
from orionbed.training.store import StoreLoop

Make = Callable[..., Any]
SIZE = 7


def command(phase: str, merge: int, members: list[int]) -> dict[str, Any]:
    return {"phase": phase, "merge": merge, "base": merge, "version": merge + 1, "members": members}


class Stage:
    """The peers of one stage with weights of their own, and a store; `lost` says which messages do not arrive."""

    def __init__(self, peers: list[Any], store: int) -> None:
        self.peers = {peer.loop.me.index: peer for peer in peers}
        self.lost: Callable[[int, dict[str, Any]], bool] = lambda _source, _header: False
        self.number = store
        self.store = StoreLoop(self)
        self.merges = {}
        self.asked: list[tuple[int, str, str, float]] = []
        self._way: list[tuple[int, int, dict[str, Any], bytes, float]] = []
        for index, peer in self.peers.items():
            peer.loop.status = "merging"
            merge = self.merges[index] = PeerMerge(peer.loop, store)
            peer.loop.on_other = merge.arrived
        self.first = self.weights(0)
        self.train()

    def train(self, works: list[int] | None = None) -> None:
        """Give every peer weights of its own, and as much work as is said, at first one micro-batch each."""
        for index, peer in self.peers.items():
            peer.numbers.values += 100.0 ** (index % 4) * np.arange(1.0, len(peer.numbers.values) + 1.0)
            peer.loop._work = 1 if works is None else works[index]

    def again(self, index: int) -> None:
        """Let a peer be started again, with the weights that it had; it knows nothing of merges."""
        peer = self.peers[index]
        now = peer.numbers.values
        peer.numbers.values = np.array(self.first, dtype=now.dtype)
        merge = self.merges[index] = PeerMerge(peer.loop, self.number)
        peer.loop.on_other = merge.arrived
        peer.numbers.values = now

    def send(self, target: int, header: Any, body: bytes, num_bytes: float, at_s: float, *, control: bool) -> None:
        """Take what the store sends."""
        del at_s, control
        self._way.append((self.number, target, header, body, num_bytes))

    def phase(self, name: str, members: list[int], *, taking: list[int] | None = None, merge: int = 0) -> None:
        """Let a phase begin for some, and everything that follows from it happen."""
        for index in members if taking is None else taking:
            self.merges[index].begin(command(name, merge, members))
        self.deliver()

    def deliver(self) -> None:
        while True:
            for index, peer in self.peers.items():
                self._way += [(index, mail.target, mail.header, mail.body, mail.num_bytes) for mail in peer.outbox]
                peer.outbox.clear()
            if not self._way:
                return
            source, target, header, body, num_bytes = self._way.pop(0)
            if self.lost(source, header):
                continue
            full = {**header, "from": source, "sent": 0.0, "length": len(body), "plan_bytes": num_bytes}
            if target == self.number:
                self.asked.append((source, header["k"], header["phase"], header.get("bytes", num_bytes)))
                self.store.arrive((full, body))
            else:
                peer = self.peers[target]
                peer.hears(peer.loop.now_s, body, **full)
                peer.until(peer.loop.now_s + 10.0)

    def merge(self, members: list[int], merge: int = 0) -> None:
        for name in ("upload", "partitions", "download"):
            self.phase(name, members, merge=merge)

    def weights(self, index: int) -> list[float]:
        found: list[float] = self.peers[index].numbers.values.tolist()
        return found


@pytest.fixture
def stage(toy_plan: Make, alone: Make) -> Make:
    def make(count: int, num_values: int = SIZE, outer: str = "none") -> Stage:
        merge = {"every": 60.0, "compute": 5.0, "outer": outer}
        plan = toy_plan({"kind": "queue"}, stages=2, replicas=count, merge=merge)
        peers = [alone(plan, index, num_values=num_values) for index in range(count)]
        return Stage(peers, len(plan.peers))

    return make


def mean(stage: Stage, members: list[int]) -> list[float]:
    found: list[float] = np.mean([stage.peers[index].numbers.values for index in members], axis=0).tolist()
    return found


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_everybody_has_the_mean_afterwards(stage: Make, count: int) -> None:
    found, members = stage(count), list(range(count))
    expected = mean(found, members)
    found.merge(members)
    for index in members:
        assert found.weights(index) == pytest.approx(expected, rel=1e-15)
    assert len({found.peers[index].numbers.weights_hash() for index in members}) == 1
    assert found.store.num_disagreeing == 0
    assert found.store.num_agreeing == count * (count - 1) // 2  # every pair puts the same slice twice
    phases = [message["phase"] for message in found.peers[0].told]
    assert phases == ["upload", "partitions", "download"]


@pytest.mark.parametrize("outer", ["nesterov", "none"])
@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_bytes_are_those_of_the_butterfly(stage: Make, count: int, outer: str) -> None:
    found, members = stage(count, outer=outer), list(range(count))
    weight_bytes = float(found.peers[0].loop.plan.stages[0].weight_bytes)
    amounts = butterfly_bytes(weight_bytes, count, momentum=outer == "nesterov")
    found.merge(members)
    for index in members:
        mine = [(kind, phase, size) for source, kind, phase, size in found.asked if source == index]
        assert mine == [
            ("P", "upload", amounts.gradients_up),
            ("G", "partitions", amounts.partitions_down),
            ("P", "partitions", amounts.partitions_up),
            ("G", "download", amounts.weights_down),
        ]
    assert found.store.bytes_stored == pytest.approx(count * amounts.up)
    assert found.store.bytes_read == pytest.approx(count * amounts.down)


def test_the_merged_weights_are_written_down_as_a_version(stage: Make) -> None:
    found = stage(2)
    found.peers[1].loop.status = "benched"
    for name in ("upload", "partitions"):
        found.phase(name, [0])
    found.phase("download", [0], taking=[0, 1])
    events = [[(e.event, e.step, e.detail) for e in found.peers[index].journal] for index in (0, 1)]
    text = found.peers[0].numbers.weights_hash()
    assert events == [[("committed", 1, text)], [("adopted", 1, text)]]


def test_an_upload_that_is_not_there_is_left_out_of_the_mean(stage: Make) -> None:
    found, members = stage(3), [0, 1, 2]
    expected = mean(found, [0, 2])
    found.lost = lambda source, header: source == 1 and header["phase"] == "upload"
    found.merge(members)
    for index in members:
        assert found.weights(index) == pytest.approx(expected, rel=1e-15)
    assert found.store.num_disagreeing == 0


def test_an_upload_that_comes_when_others_have_begun_to_average_is_too_late(stage: Make) -> None:
    found, members = stage(3), [0, 1, 2]
    expected = mean(found, [0, 1])
    found.phase("upload", members, taking=[0, 1])
    found.phase("partitions", members, taking=[0])
    found.phase("upload", members, taking=[2])
    found.phase("partitions", members, taking=[1, 2])
    found.phase("download", members)
    for index in members:
        assert found.weights(index) == pytest.approx(expected, rel=1e-15)
    assert found.store.num_disagreeing == 0
    assert found.store.num_agreeing == 3


def test_a_pair_that_is_lost_leaves_its_slice_as_it_was_before(stage: Make) -> None:
    found, members = stage(4), [0, 1, 2, 3]
    expected = mean(found, members)
    found.phase("upload", members)
    found.phase("partitions", members, taking=[0, 1])  # pair (2, 3) never averages the sixth slice, values 5 and 6
    found.phase("download", members)
    for index in members:
        assert found.weights(index) == pytest.approx([*expected[:5], *found.first[5:]], rel=1e-15)


def test_a_slice_that_comes_when_others_went_without_it_is_not_used(stage: Make) -> None:
    found, members = stage(2), [0, 1]
    found.phase("upload", members)
    found.phase("download", members, taking=[0])
    found.phase("partitions", members, taking=[1])
    found.phase("download", members, taking=[1])
    assert found.weights(0) == found.weights(1) == found.first


@pytest.mark.parametrize("members", [[], [0, 1]])
def test_where_nobody_uploaded_everybody_goes_back_to_what_was_before(stage: Make, members: list[int]) -> None:
    found = stage(2)
    found.phase("partitions", members)
    found.phase("download", members, taking=[0, 1])
    assert [found.weights(index) for index in (0, 1)] == [found.first] * 2
    assert found.store.bytes_stored == 0.0
    assert found.peers[0].told[-1]["phase"] == "download"


def test_more_slices_than_values(stage: Make) -> None:
    found, members = stage(4, num_values=2), [0, 1, 2, 3]
    for index in members:
        found.peers[index].numbers.values = np.array([float(index), 4.0])
    found.merge(members)
    assert [found.weights(index) for index in members] == [[1.5, 4.0]] * 4


def test_the_next_merge_has_nothing_to_do_with_the_last_one(stage: Make) -> None:
    found, members = stage(2), [0, 1]
    found.merge(members)
    for index in members:
        found.peers[index].numbers.values = np.full(SIZE, float(index))
    found.merge(members, merge=1)
    assert found.weights(0) == found.weights(1) == [0.5] * SIZE


def test_answers_of_a_phase_that_is_over_are_not_heard(stage: Make) -> None:
    found, members = stage(2), [0, 1]
    found.phase("upload", members)
    found.merges[0].begin(command("partitions", 0, members))
    found.merges[0].begin(command("download", 0, members))
    found.deliver()
    assert [message["phase"] for message in found.peers[0].told] == ["upload", "download"]


def test_averaging_takes_its_time_and_is_accounted_for(stage: Make) -> None:
    found = stage(1)
    found.merge([0])
    account = found.peers[0].loop.account
    assert found.peers[0].told[1]["at_s"] - found.peers[0].told[0]["at_s"] >= 5.0
    assert sum(account.cause_s) == pytest.approx(account.accounted_s)
