"""Static schedules as lists, and the policy that runs them."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orionbed.schedule.actions import Action, parse_action
from orionbed.schedule.classic import gpipe, one_forward_one_backward
from orionbed.schedule.static import StaticPolicy


def texts(actions: Sequence[Action]) -> str:
    return " ".join(str(action) for action in actions)


def test_gpipe_runs_all_forwards_first() -> None:
    assert texts(gpipe(2, 2).lists[1]) == "1F0 1F1 1B0 1B1"


def test_1f1b_warms_up_by_its_distance_from_the_end() -> None:
    lists = one_forward_one_backward(3, 4).lists
    assert texts(lists[0]) == "0F0 0F1 0F2 0B0 0F3 0B1 0B2 0B3"
    assert texts(lists[2]) == "2F0 2B0 2F1 2B1 2F2 2B2 2F3 2B3"


@given(num_stages=st.integers(1, 10), num_microbatches=st.integers(1, 20))
def test_1f1b_never_holds_more_than_its_distance_from_the_end(num_stages: int, num_microbatches: int) -> None:
    for stage, actions in enumerate(one_forward_one_backward(num_stages, num_microbatches).lists):
        held = peak = 0
        for action in actions:
            held += 1 if action.kind == "F" else -1
            peak = max(peak, held)
        assert peak == min(num_microbatches, num_stages - stage)


def test_the_policy_waits_for_the_head_of_its_list_and_numbers_steps_through() -> None:
    peer = StaticPolicy(one_forward_one_backward(2, 2), 0, [0, 1])
    assert [str(peer.next_action()), str(peer.next_action())] == ["0F0", "0F1"]
    assert not peer.ready()
    peer.on_message("B", 1, 1)
    assert peer.next_action() is None
    peer.on_message("B", 0, 1)
    done = []
    for _ in range(2):
        action = peer.next_action()
        assert action is not None
        peer.on_finished(action)
        done.append(str(action))
    assert done == ["0B0", "0B1"]
    step = peer.next_action()
    assert str(step) == "0STEP"
    assert step is not None
    peer.on_finished(step)
    assert str(peer.next_action()) == "0F2"


@pytest.mark.parametrize("text", ["0F0", "12B345", "1I3", "2W7", "3STEP"])
def test_actions_read_and_write_the_same_text(text: str) -> None:
    assert str(parse_action(text)) == text


@pytest.mark.parametrize("text", ["", "F0", "0X1", "0F", "0STEP1", "-1F0"])
def test_what_is_no_action_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no action"):
        parse_action(text)
