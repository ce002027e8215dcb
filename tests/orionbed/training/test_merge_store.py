"""Merges from end to end without a network: peers, the store, and messages that arrive when the test says so."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from orionbed.merging.butterfly import butterfly_bytes, pairs_of, slice_bounds
from orionbed.training.merge import PeerMerge
from orionbed.training.outer import narrowed, widened
from orionbed.training.store import StoreLoop

Make = Callable[..., Any]
SIZE = 7


def command(phase: str, merge: int, members: list[int]) -> dict[str, Any]:
    return {"phase": phase, "merge": merge, "base": merge, "version": merge + 1, "members": members}


class Stage:
    """The peers of one stage with weights of their own, and a store; `lost` says which messages do not arrive."""

    def __init__(self, peers: list[Any], store: int, dtype: str = "float64") -> None:
        self.dtype = dtype
        self.peers = {peer.loop.me.index: peer for peer in peers}
        self.lost: Callable[[int, dict[str, Any]], bool] = lambda _source, _header: False
        self.number = store
        self.store = StoreLoop(self)
        self.merges = {}
        self.asked: list[tuple[int, str, str, float]] = []
        self._way: list[tuple[int, int, dict[str, Any], bytes, float]] = []
        for index, peer in self.peers.items():
            peer.loop.status = "merging"
            peer.numbers.shape = SimpleNamespace(dtype=dtype)
            first = peer.numbers.values
            peer.numbers.values = np.empty(0, dtype=np.uint16 if dtype == "bfloat16" else dtype)
            self.put(index, first)
            merge = self.merges[index] = PeerMerge(peer.loop, store)
            peer.loop.on_other = merge.arrived
        self.first = self.weights(0)
        self.train()

    def put(self, index: int, values: Any) -> None:
        """Give a peer weights, in their number format."""
        self.peers[index].numbers.load_weights(narrowed(np.asarray(values), self.dtype))

    def train(self) -> None:
        """Give every peer weights of its own, and one micro-batch of work."""
        for index, peer in self.peers.items():
            self.put(index, self.weights(index) + 100.0 ** (index % 4) * np.arange(1.0, len(self.first) + 1.0))
            peer.loop._work = 1

    def again(self, index: int) -> None:
        """Let a peer be started again: it has the weights that it had, and knows of no merge."""
        peer, now = self.peers[index], self.weights(index)
        self.put(index, self.first)
        merge = self.merges[index] = PeerMerge(peer.loop, self.number)
        peer.loop.on_other = merge.arrived
        self.put(index, now)

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
        found: list[float] = widened(self.peers[index].numbers.weights(), self.dtype).tolist()
        return found


@pytest.fixture
def stage(toy_plan: Make, alone: Make) -> Make:
    def make(count: int, num_values: int = SIZE, outer: str = "none", dtype: str = "float64") -> Stage:
        merge = {"every": 60.0, "compute": 5.0, "outer": outer}
        plan = toy_plan({"kind": "queue"}, stages=2, replicas=count, merge=merge)
        peers = [alone(plan, index, num_values=num_values) for index in range(count)]
        return Stage(peers, len(plan.peers), dtype)

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
    mine = ("merged", 1, '{"merge": 0, "slices": 1, "slice": 0, "members": [0], "works": [1]}')
    taken = ("taken", 1, '{"merge": 0, "slices": 1, "made": [0]}')
    assert events == [[mine, taken, ("committed", 1, text)], [taken, ("adopted", 1, text)]]


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


# ---------------------------------------------------------------- the outer optimizer


class OnePlace:
    """What merges make of a stage, in one place and all at once: nobody is late, nothing is cut."""

    def __init__(self, weights: list[float], outer: str, dtype: str) -> None:
        self.outer, self.dtype = outer, dtype
        self.weights = np.array(weights)
        self.velocity = np.zeros_like(self.weights)

    def rounded(self, values: Any) -> Any:
        return widened(narrowed(values, self.dtype), self.dtype).astype(np.float64)

    def merge(self, number: int, rows: list[list[float]], works: list[int], merged: Any) -> None:
        """Merge where `merged` says so; elsewhere all stays as it was."""
        if not rows:
            return
        mean = np.average(rows, axis=0, weights=works if any(works) else None)
        momentum = 0.5 + 0.4 * min(number, 20) / 20
        velocity = momentum * self.velocity + (self.weights - mean)
        step = 0.7 * (self.weights - mean + momentum * velocity)
        weights = mean if self.outer == "none" else self.weights - step
        self.weights = np.where(merged, self.rounded(weights), self.weights)
        self.velocity = np.where(merged, self.rounded(velocity), self.velocity)


@pytest.mark.parametrize("outer", ["nesterov", "none"])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-12), ("float32", 1e-5), ("bfloat16", 0.03)], ids=str)
@pytest.mark.parametrize("seed", range(3))
def test_any_merges_are_those_that_one_place_makes(
    stage: Make, seed: int, outer: str, dtype: str, tolerance: float
) -> None:
    random = np.random.default_rng(seed)
    found = stage(4, num_values=23, outer=outer, dtype=dtype)
    plain = OnePlace(found.first, outer, dtype)
    there = [0, 1, 2, 3]  # who has what the last merge gave
    for number in range(6):
        works = {index: int(random.integers(0, 4)) if number % 3 else 0 for index in there}
        for index in there:
            found.put(index, np.array(found.weights(index)) + random.normal(size=23) * bool(works[index]))
            found.peers[index].loop._work = works[index]
            if random.random() < 0.3:
                found.again(index)
                found.peers[index].loop._work = works[index]
        uploading, merging = ([index for index in there if random.random() < 0.8] for _ in range(2))
        rows = [found.weights(index) for index in uploading]
        merged = np.zeros(23, dtype=bool)
        for part, pair in enumerate(pairs_of(there)):
            low, high = slice_bounds(23, len(pairs_of(there)), part)
            merged[low:high] = not set(pair).isdisjoint(merging)
        plain.merge(number, rows, [works[index] for index in uploading], merged)
        found.phase("upload", there, taking=uploading, merge=number)
        found.phase("partitions", there, taking=merging, merge=number)
        members, there = there, [index for index in range(4) if random.random() < 0.8] or [0]
        found.phase("download", members, taking=there, merge=number)
        for index in there:
            assert found.weights(index) == pytest.approx(plain.weights, rel=tolerance, abs=tolerance)
        assert len({found.peers[index].numbers.weights_hash() for index in there}) == 1
    assert found.store.num_disagreeing == 0
    assert found.store.num_agreeing > 0


def test_both_holders_put_the_same_though_one_was_started_again(stage: Make) -> None:
    found, members = stage(2, outer="nesterov"), [0, 1]
    found.merge(members)
    found.train()
    found.again(1)
    found.merge(members, merge=1)
    assert found.weights(0) == found.weights(1)
    assert (found.store.num_agreeing, found.store.num_disagreeing) == (2, 0)


def test_a_slice_that_comes_late_leaves_its_momentum_as_it_was(stage: Make) -> None:
    found, members = stage(2, outer="nesterov"), [0, 1]
    plain = OnePlace(found.first, "nesterov", "float64")
    for number in (0, 2):
        plain.merge(number, [found.weights(index) for index in members], [1, 1], merged=True)
        found.merge(members, merge=number)
        assert found.weights(0) == found.weights(1) == pytest.approx(plain.weights.tolist(), rel=1e-14)
        found.train()
        if not number:
            found.phase("upload", members, merge=1)
            found.phase("download", members, merge=1, taking=[0])
            found.phase("partitions", members, merge=1)
            found.phase("download", members, merge=1, taking=[1])
            assert found.weights(0) == found.weights(1) == pytest.approx(plain.weights.tolist(), rel=1e-14)
            found.train()


def test_who_asks_when_the_next_merge_has_begun_is_not_answered(stage: Make) -> None:
    found, members = stage(2, outer="nesterov"), [0, 1]
    found.merge(members)
    first = found.weights(0)
    found.train()
    found.merges[1].begin(command("download", 0, members))
    found.phase("upload", members, taking=[0], merge=1)
    asked = [told["phase"] for told in found.peers[1].told]
    assert asked == ["upload", "partitions", "download"]
    assert found.weights(1) != first
