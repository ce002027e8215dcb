"""The IOTA policy, told as stories: what arrives, what the peer does next."""

import pytest

from orionbed.schedule.actions import Action
from orionbed.schedule.policy import Waiting
from orionbed.schedule.queue_driven import QueueDrivenPolicy
from orionbed.schedule.routers import ReplicaRouter, StageView


def policy(stage: int, num_stages: int = 3, window: int = 2, local_step_every: int = 100) -> QueueDrivenPolicy:
    numbers = iter(range(100))
    return QueueDrivenPolicy(
        stage, num_stages, 0, window=window, local_step_every=local_step_every,
        router=ReplicaRouter(), source=lambda: next(numbers),
    )  # fmt: skip


def did(peer: QueueDrivenPolicy) -> str:
    action = peer.next_action()
    assert action is not None
    peer.on_finished(action)
    if action.kind == "B":
        peer.route(action, None)
    return str(action)


def test_the_first_stage_makes_micro_batches_until_its_window_is_full() -> None:
    peer = policy(stage=0)
    assert [did(peer), did(peer)] == ["0F0", "0F1"]
    assert not peer.ready()
    assert peer.next_action() is None
    assert peer.waiting is Waiting.WINDOW


def test_backward_comes_first_and_frees_a_slot() -> None:
    peer = policy(stage=0, window=3)
    did(peer)
    did(peer)
    peer.on_message("B", 0, 5)
    assert peer.ready()
    assert [did(peer), did(peer), did(peer)] == ["0B0", "0F2", "0F3"]


def test_a_middle_stage_takes_forwards_in_order_within_its_window() -> None:
    peer = policy(stage=1)
    assert peer.waiting is Waiting.EMPTY
    for microbatch in (7, 8, 9):
        peer.on_message("F", microbatch, 0)
    assert [did(peer), did(peer)] == ["1F7", "1F8"]
    assert peer.next_action() is None
    assert peer.waiting is Waiting.WINDOW
    assert (peer.num_free, peer.num_queued) == (0, 1)


def test_the_last_stage_does_all_in_one_and_holds_nothing() -> None:
    peer = policy(stage=2, window=1)
    for microbatch in (4, 5):
        peer.on_message("F", microbatch, 3)
    assert [did(peer), did(peer)] == ["2B4", "2B5"]
    assert peer.held() == []


def test_a_local_step_comes_after_every_k_backwards() -> None:
    peer = policy(stage=2, window=4, local_step_every=2)
    for microbatch in range(4):
        peer.on_message("F", microbatch, 3)
    assert [did(peer) for _ in range(6)] == ["2B0", "2B1", "2STEP", "2B2", "2B3", "2STEP"]
    assert peer.num_steps == 2


def test_staleness_counts_local_steps_between_forward_and_backward() -> None:
    peer = policy(stage=0, window=4, local_step_every=1)
    did(peer)
    did(peer)
    peer.on_message("B", 0, 1)
    did(peer)
    assert did(peer) == "0STEP"
    assert peer.staleness(1) == 1


def test_gradients_go_back_the_way_the_activation_came() -> None:
    peer = policy(stage=1)
    peer.on_message("F", 3, 1)
    action = peer.next_action()
    assert action == Action("F", 1, 3)
    assert peer.route(action, StageView([20, 21], [1.0, 1.0], 2)) == 20
    assert peer.holds(3)
    assert peer.route(Action("B", 1, 3), None) == 1
    assert not peer.holds(3)


def test_a_lost_micro_batch_frees_its_slot() -> None:
    peer = policy(stage=0)
    did(peer)
    did(peer)
    peer.on_lost(0)
    assert did(peer) == "0F2"


def test_reset_forgets_queues_and_window() -> None:
    peer = policy(stage=1)
    peer.on_message("F", 1, 0)
    peer.on_message("F", 2, 0)
    peer.next_action()
    peer.on_message("B", 1, 6)
    assert peer.held() == [2, 1]
    assert peer.queued() == [2, 1]
    peer.reset()
    assert peer.held() == []
    assert peer.next_action() is None


def test_a_first_stage_without_a_source_is_refused() -> None:
    peer = QueueDrivenPolicy(0, 2, 0, window=1, local_step_every=1, router=ReplicaRouter(), source=None)
    with pytest.raises(ValueError, match="source"):
        peer.next_action()
