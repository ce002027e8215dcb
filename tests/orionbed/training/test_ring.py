"""Gradients round a ring: every replica gets the same bits, and they are the sum, in whatever order parts come."""

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

Make = Callable[..., Any]


class Circle:
    """The replicas of the first stage, each with a gradient of its own, and the parts on their way between them."""

    def __init__(self, peers: list[Any], gradients: Any) -> None:
        self.peers = peers
        self.agreed: list[tuple[int, int, int]] = []
        for peer, gradient in zip(peers, gradients, strict=True):
            peer.numbers.gradient = np.array(gradient)
            peer.loop.agreed = lambda step, count, _began_s, me=peer.loop.me.index: self.agreed.append(
                (me, step, count)
            )

    def exchange(self, step: int = 0, seed: int | None = None) -> None:
        """Let everybody begin and all parts arrive; with a seed late beginners and parts in any order."""
        chance = random.Random(seed)
        waiting: list[Any] = list(self.peers)
        parts: list[tuple[Any, Any]] = []
        while waiting or parts:
            if waiting and (seed is None or not parts or chance.random() < 0.2):
                waiting.pop(0).loop.ring.begin(step)
            else:
                sender, part = parts.pop(0 if seed is None else chance.randrange(len(parts)))
                me = sender.loop.me.index
                self.peers[part.target].loop.arrive(({**part.header, "from": me, "sent": 0.0}, part.body))
            for peer in self.peers:
                parts += [(peer, part) for part in peer.outbox]
                peer.outbox.clear()
        for peer in self.peers:
            peer.until(peer.loop.now_s + 100.0)

    @property
    def results(self) -> list[bytes]:
        return [peer.numbers.gradient.tobytes() for peer in self.peers]


@pytest.fixture(scope="session")
def circle(toy_plan: Make, alone: Make) -> Make:
    def make(gradients: Any, **sync: Any) -> Circle:
        count, size = np.shape(gradients)
        plan = toy_plan(
            {"kind": "1f1b", "microbatches": 4}, stages=2, replicas=count, sync={"algorithm": "ring", **sync}
        )
        return Circle([alone(plan, index, num_values=size) for index in range(count)], gradients)

    return make


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_everybody_gets_the_sum_over_all_micro_batches(circle: Make, count: int) -> None:
    gradients = np.arange(12.0 * count).reshape(count, 12)
    found = circle(gradients)
    found.exchange()
    for result in found.results:
        assert (np.frombuffer(result) == gradients.sum(axis=0)).all()
    # Alone a replica has nothing to agree on: its own count is the divisor.
    assert sorted(found.agreed) == [(peer, 0, 4 * count if count > 1 else 0) for peer in range(count)]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from([2, 3, 5]), st.integers(1, 17), st.integers(0, 2**32 - 1))
def test_all_bits_are_equal_in_whatever_order_parts_come(circle: Make, count: int, size: int, seed: int) -> None:
    gradients = np.random.default_rng(seed).normal(size=(count, size)) * 10.0 ** np.arange(count)[:, None]
    found = circle(gradients)
    found.exchange(seed=seed)
    assert len(set(found.results)) == 1
    assert np.frombuffer(found.results[0]) == pytest.approx(gradients.sum(axis=0), rel=1e-12, abs=1e-10)
    ordered = circle(gradients)
    ordered.exchange()
    assert ordered.results == found.results


def test_one_exchange_follows_the_other(circle: Make) -> None:
    found = circle([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    found.exchange(step=0)
    found.exchange(step=1)
    assert [np.frombuffer(result).tolist() for result in found.results] == [[27.0, 36.0]] * 3
    assert {step for _, step, _ in found.agreed} == {0, 1}


def test_a_part_ahead_of_its_step_waits(circle: Make) -> None:
    found = circle([[1.0, 2.0], [3.0, 4.0]])
    early = {"k": "R", "s": 1, "r": 0, "e": 0, "from": 1, "sent": 0.0}
    found.peers[0].loop.arrive((early, np.array([7.0]).tobytes()))
    found.exchange(step=0)
    assert [np.frombuffer(result).tolist() for result in found.results] == [[4.0, 6.0]] * 2


def test_what_travels_counts_as_an_nth_of_the_gradients(circle: Make) -> None:
    found = circle([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    found.peers[0].loop.ring.begin(0)
    (part,) = found.peers[0].outbox
    plan = found.peers[0].loop.plan
    assert part.num_bytes == pytest.approx(plan.stages[0].parameters * 4.0 / 3.0)
    assert part.target == 1


def test_between_two_exchanges_nothing_travels(circle: Make) -> None:
    found = circle([[1.0], [2.0]], every=2)
    found.exchange(step=0)
    assert [np.frombuffer(result).tolist() for result in found.results] == [[1.0], [2.0]]
    found.exchange(step=1)
    assert [np.frombuffer(result).tolist() for result in found.results] == [[3.0], [3.0]]
