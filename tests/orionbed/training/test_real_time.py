"""A queue-driven peer whose operations really take their time: what it does before, meanwhile and when it must stop."""

from collections.abc import Callable
from math import inf
from typing import Any

import pytest

from orionbed.faults import Parameters, ResolvedFault
from orionbed.training.ailments import Ailments
from orionbed.training.timeline import Event, Timeline

Make = Callable[..., Any]
FIRST, MIDDLE, LAST = 0, 2, 4


class SlowHands:
    """Hands that do their work at once, and say that it took a while; `busy` while that is so."""

    def __init__(self, peer: Any, lasts_s: float) -> None:
        self._timeline, self._lasts_s = peer.loop.timeline, lasts_s
        self._until_s = -inf
        self.began: list[tuple[str, float]] = []
        peer.loop.hands = self

    def begin(self, what: str, work: Callable[[], None], ended: Callable[[Event], None], ending: Event) -> None:
        work()
        self.began.append((what, self._timeline.now_s))
        self._until_s = self._timeline.now_s + self._lasts_s
        self._timeline.at(self._until_s, ended, ending, exact=True)

    def wait(self) -> float:
        return max(self._until_s, float(self._timeline.now_s))


def started(peer: Any, lasts_s: float, until_s: float = inf) -> tuple[Any, SlowHands]:
    hands = SlowHands(peer, lasts_s)
    peer.loop.begin(0, until_s)
    return peer, hands


def seconds(peer: Any) -> float:
    return float(peer.loop.account.accounted_s)


def whole(peer: Any, at_s: float) -> bool:
    """Whether every second up to `at_s` has been charged once."""
    account = peer.loop.account
    return sum(account.cause_s) + sum(account.work_s.values()) == pytest.approx(at_s)


def test_operations_end_when_their_work_does(queue_peer: Make) -> None:
    peer, hands = started(queue_peer(FIRST), 0.25)
    peer.until(1.0)
    assert hands.began == [("F of micro-batch 0", 0.0), ("F of micro-batch 2", 0.25)]
    assert [mail.at_s for mail in peer.outbox.of("F")] == [0.25, 0.5]
    peer.loop.close(1.0)
    assert whole(peer, 1.0)


def test_a_step_is_done_once_as_work(queue_peer: Make) -> None:
    peer, hands = started(queue_peer(FIRST), 0.25)
    for at_s, number in ((1.0, 0), (1.1, 2)):
        peer.hears(at_s, **{"k": "B", "m": number, "c": 0, "e": 0, "from": MIDDLE})
    peer.until(3.0)
    assert "STEP" in [what for what, _ in hands.began]
    assert peer.numbers.divisors == [2]
    assert peer.wrote("applied") == [(0, "2"), (2, "2")]


def test_what_has_begun_when_a_phase_ends_is_brought_to_its_end_and_counted(queue_peer: Make) -> None:
    peer, _ = started(queue_peer(LAST), 1.0, until_s=1.5)
    peer.hears(1.0, **{"k": "F", "m": 7, "c": 2, "e": 0, "from": MIDDLE})
    peer.until(2.0)
    assert peer.loop.status == "merging"
    assert peer.numbers.divisors == [1]  # its gradient is in the last step of the phase
    assert peer.wrote("applied") == [(7, "1")]
    assert [mail.header["m"] for mail in peer.outbox.of("B")] == [7]
    assert peer.loop.now_s == 2.0
    assert seconds(peer) == 2.0
    assert whole(peer, 2.0)
    peer.until(3.0)  # nothing comes of it a second time
    assert peer.numbers.divisors == [1]


def test_an_activation_that_is_made_when_the_phase_ends_goes_nowhere(queue_peer: Make) -> None:
    peer, _ = started(queue_peer(FIRST), 1.0, until_s=0.5)
    peer.until(3.0)
    assert peer.outbox.of("F") == []
    assert peer.wrote("dropped") == [(0, "flushed at merge")]
    assert whole(peer, 1.0)


def test_a_state_is_not_taken_while_it_changes(queue_peer: Make) -> None:
    peer, _ = started(queue_peer(FIRST), 1.0)
    peer.until(0.5)
    peer.loop.settle()
    assert peer.loop.now_s == 1.0


def test_a_slow_peer_takes_longer_than_its_work(queue_peer: Make) -> None:
    slow = ResolvedFault("s1", "slow", 0.0, 10.0, (FIRST,), parameters=Parameters(compute_factor=3.0))
    peer, hands = started(queue_peer(FIRST, faults=(slow,)), 0.5)
    peer.until(2.0)
    assert [mail.at_s for mail in peer.outbox.of("F")] == [1.5]
    assert hands.began[1][1] == 1.5
    assert Ailments((slow,), FIRST).slowed_s(20.0, 21.0) == 21.0


def test_what_has_happened_keeps_its_second_and_the_rest_happens_now() -> None:
    timeline, found = Timeline(), list[float]()
    timeline.at(1.0, lambda _: found.append(timeline.now_s), exact=True)
    timeline.at(1.5, lambda _: found.append(timeline.now_s))
    timeline.at(1.6, lambda _: found.append(timeline.now_s), exact=True)
    for _ in range(3):
        timeline.step(2.0)
    assert found == [1.0, 2.0, 2.0]
