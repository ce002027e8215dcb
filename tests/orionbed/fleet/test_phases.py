"""When a phase of a merge is over: the quorum relaxes, the lost are not waited for, every second is the true one."""

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from math import inf
from types import SimpleNamespace
from typing import Any

import pytest

from orionbed.fleet.members import Member, Status
from orionbed.fleet.orchestra import Orchestra
from orionbed.fleet.phases import Gate
from orionbed.fleet.record import Record
from orionbed.fleet.supervising import Limits
from orionbed.plan import make_plan
from orionbed.scenario import apply, load
from orionbed.scenario.merging import Merge

BEGAN_S = 1000.0
Happenings = list[tuple[float, Callable[[], object]]]


class FakeClock:
    """Time that passes when somebody waits for it; on the way what is to happen happens."""

    def __init__(self) -> None:
        self.now_s = BEGAN_S
        self.dilation = 1.0
        self.to_come: Happenings = []

    def now(self) -> float:
        return self.now_s

    def real_until(self, run_s: float) -> float:
        if self.to_come and self.to_come[0][0] <= run_s:
            self.now_s, happen = self.to_come.pop(0)
            asyncio.get_running_loop().call_soon(happen)
            return 1.0
        self.now_s = max(self.now_s, run_s)
        return 0.0


def opens(num_peers: int, *what: tuple[float, str, int], **block: Any) -> tuple[Gate, float]:
    """Return a gate and how long after it began it opens, given (second, done or gone, peer)."""
    clock = FakeClock()
    gate = Gate(clock, range(num_peers), BEGAN_S)  # type: ignore[arg-type]
    for at_s, how, peer in what:
        clock.to_come.append((BEGAN_S + at_s, partial(getattr(gate, how), peer, BEGAN_S + at_s)))
    merge = Merge.model_validate({"every": 60.0, "quorum_every": 6.0, "quorum_relax": 0.1, "timeout": 600.0} | block)
    return gate, asyncio.run(limited(gate.wait(merge))) - BEGAN_S


async def limited(work: Coroutine[Any, Any, float]) -> float:
    return await asyncio.wait_for(work, 5.0)


def test_it_opens_when_the_last_one_is_through() -> None:
    gate, at_s = opens(3, (1.5, "done", 1), (2.5, "done", 0), (4.25, "done", 2))
    assert at_s == 4.25
    assert gate.pending == set()


def test_nobody_is_waited_for_where_there_is_nobody() -> None:
    assert opens(0)[1] == 0.0


def test_the_quorum_relaxes_tick_by_tick() -> None:
    gate, at_s = opens(4, (1.0, "done", 0), (2.0, "done", 1), (3.0, "done", 2))
    assert at_s == 18.0  # 75 % are enough when three ticks have taken 30 % off
    assert gate.pending == {3}


def test_between_two_ticks_it_opens_at_the_second_of_what_opened_it() -> None:
    gate, at_s = opens(4, (1.0, "done", 0), (2.0, "done", 1), (20.5, "done", 2), (21.0, "done", 3))
    assert at_s == 20.5
    assert gate.pending == {3}


def test_the_quorum_has_a_floor_and_the_phase_a_timeout() -> None:
    gate, at_s = opens(4, (1.0, "done", 0), quorum_floor=0.3)
    assert at_s == 600.0
    assert gate.pending == {1, 2, 3}
    assert opens(4, (1.0, "done", 0), quorum_floor=0.25)[1] == pytest.approx(48.0)  # 1 - 8 x 0.1 < 0.25


def test_with_a_quorum_that_does_not_relax_all_are_waited_for() -> None:
    assert opens(2, (1.0, "done", 0), (599.0, "done", 1), quorum_relax=0.0)[1] == 599.0


def test_who_is_lost_is_not_waited_for() -> None:
    gate, at_s = opens(3, (1.0, "done", 0), (2.0, "gone", 1), (3.0, "done", 2))
    assert at_s == 3.0
    assert gate.lost == {1}


def test_a_word_that_comes_late_counts_with_its_own_second() -> None:
    gate, at_s = opens(2)  # neither is heard of in time
    assert at_s == 600.0
    clock = FakeClock()
    gate = Gate(clock, [0, 1], BEGAN_S)  # type: ignore[arg-type]
    gate.done(0, BEGAN_S + 3.0)
    gate.done(1, BEGAN_S + 2.0)
    clock.now_s += 50.0
    assert asyncio.run(limited(gate.wait(Merge(every=60.0)))) == BEGAN_S + 3.0


def test_only_who_is_waited_for_is_counted_and_once() -> None:
    gate = Gate(FakeClock(), [0, 1], 0.0)  # type: ignore[arg-type]
    assert gate.done(0, 1.0)
    assert not gate.done(0, 2.0)
    assert not gate.done(7, 3.0)
    assert gate.pending == {1}


def test_a_machine_that_falls_behind_skips_ticks_and_not_their_relaxing() -> None:
    clock = FakeClock()
    gate = Gate(clock, range(4), BEGAN_S)  # type: ignore[arg-type]
    gate.done(0, BEGAN_S + 1.0)
    clock.now_s = BEGAN_S + 31.0
    merge = Merge(every=60.0, quorum_every=6.0, quorum_relax=0.1, quorum_floor=0.25)
    assert asyncio.run(limited(gate.wait(merge))) == pytest.approx(BEGAN_S + 48.0)


# ---------------------------------------------------------------- the three phases of a merge


class Peer(Member):
    """A peer that does as it is told: it is through with each phase a second after it began, or it dies of it."""

    def __init__(self, index: int, dies_in: str = "", status: Status = "training") -> None:
        super().__init__(index, "peer", status=status)
        self.dies_in = dies_in
        self.told: list[dict[str, Any]] = []
        self.orchestra: Any = None
        self.ended.set()

    def tell(self, message: dict[str, Any]) -> None:
        self.told.append(message)
        at_s = message["at_s"] + 1.0
        if message["phase"] == self.dies_in:
            self.status = "down"
            self.orchestra.gate.gone(self.index, at_s)
        else:
            self.orchestra.gate.done(self.index, at_s)


def merged(peers: list[Peer], num_merges: int = 1) -> tuple[list[Member], float]:
    """Let the peers of a stage merge; return who has the weights of the last merge, and when that is."""
    scenario = apply(
        load("minimal"),
        {"pipeline.stages": 1, "pipeline.replicas": 3, "peers.sites": {"virginia": 3}, "churn": "none"},
    )
    plan = make_plan(scenario)

    async def merge() -> tuple[list[Member], float]:
        supervisor: Any = SimpleNamespace(
            plan=plan,
            record=Record(1),
            seed=0,
            end_s=inf,
            clock=FakeClock(),
            peers=peers,
            members=peers,
            limits=Limits(None, 600.0),
        )
        orchestra = Orchestra(supervisor, None)
        for peer in peers:
            peer.orchestra = orchestra
        for number in range(num_merges):
            ready, at_s = await orchestra._merge(BEGAN_S)
            orchestra.epoch += 1
            if number + 1 < num_merges:
                for peer in ready:
                    peer.status = "training"
        return ready, at_s

    return asyncio.run(merge())


@pytest.mark.parametrize("phase", ["", "upload", "partitions", "download"])
def test_slices_are_downloaded_as_they_were_cut_for_those_who_averaged_them(phase: str) -> None:
    peers = [Peer(0), Peer(1, dies_in=phase), Peer(2)]
    ready, at_s = merged(peers)
    members = [message["members"] for message in peers[0].told]
    everybody, survivors = [0, 1, 2], [0, 2]
    assert members[0] == everybody
    assert members[1] == members[2] == (survivors if phase == "upload" else everybody)
    assert [peer.index for peer in ready] == (survivors if phase else everybody)
    assert at_s == BEGAN_S + 3.0


def test_who_still_downloads_when_the_next_merge_begins_takes_part_in_its_download_only() -> None:
    peers = [Peer(0), Peer(1), Peer(2, status="merging")]
    ready, _ = merged(peers)
    assert [message["phase"] for message in peers[2].told] == ["download"]
    assert {tuple(message["members"]) for peer in peers for message in peer.told} == {(0, 1)}
    assert [peer.index for peer in ready] == [0, 1, 2]


def test_peers_are_told_which_version_the_last_merge_made() -> None:
    peers = [Peer(0), Peer(1), Peer(2)]
    merged(peers, num_merges=2)
    versions = [(message["base"], message["version"]) for message in peers[0].told]
    assert versions == [(0, 1)] * 3 + [(1, 2)] * 3
