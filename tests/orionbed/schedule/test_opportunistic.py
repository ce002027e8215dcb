"""The opportunistic policy alone, message by message."""

from collections.abc import Sequence

from orionbed.schedule.actions import Action
from orionbed.schedule.opportunistic import OpportunisticPolicy
from orionbed.schedule.policy import Waiting

PEERS = [10, 11, 12]


def policy(
    stage: int, num_microbatches: int = 4, *, limit: int = 4, splits: bool = False, waits_for_sync: bool = False
) -> OpportunisticPolicy:
    return OpportunisticPolicy(
        stage, PEERS, num_microbatches, limit=limit, splits=splits, waits_for_sync=waits_for_sync
    )


def do(peer: OpportunisticPolicy) -> str | None:
    """Let it do what it does next, and tell what that was."""
    assert peer.ready() == (peer._next() is not None)
    action = peer.next_action()
    if action is None:
        return None
    peer.on_finished(action)
    return "STEP" if action.kind == "STEP" else f"{action.kind}{action.microbatch}"


def do_all(peer: OpportunisticPolicy) -> list[str]:
    done = []
    while (name := do(peer)) is not None:
        done.append(name)
    return done


def why_idle(peer: OpportunisticPolicy) -> Waiting:
    return peer.waiting


def get(peer: OpportunisticPolicy, kind: str, microbatches: Sequence[int]) -> None:
    for microbatch in microbatches:
        peer.on_message(kind, microbatch, -1)


def test_a_gradient_goes_before_a_forward() -> None:
    peer = policy(1)
    get(peer, "F", [0, 1])
    assert do(peer) == "F0"
    get(peer, "B", [0])
    get(peer, "F", [2])
    assert [do(peer) for _ in range(4)] == ["B0", "F1", "F2", None]
    assert why_idle(peer) is Waiting.EMPTY


def test_the_first_stage_begins_forwards_until_its_memory_is_full() -> None:
    peer = policy(0, limit=2)
    assert do_all(peer) == ["F0", "F1"]
    assert why_idle(peer) is Waiting.WINDOW
    get(peer, "B", [0])
    assert do_all(peer) == ["B0", "F2"]
    get(peer, "B", [1, 2])
    assert do_all(peer) == ["B1", "B2", "F3"]
    assert why_idle(peer) is Waiting.EMPTY
    get(peer, "B", [3])
    # Every forward of the step had begun; the next step's follow the optimizer's.
    assert do_all(peer) == ["B3", "STEP", "F4", "F5"]


def test_a_forward_beyond_the_limit_waits_although_it_has_come() -> None:
    peer = policy(1, limit=1)
    get(peer, "F", [0, 1])
    assert do_all(peer) == ["F0"]
    assert why_idle(peer) is Waiting.WINDOW
    assert not peer.ready()
    get(peer, "B", [0])
    assert do_all(peer) == ["B0", "F1"]


def test_the_last_stage_goes_back_at_once() -> None:
    peer = policy(2, limit=3)
    get(peer, "F", [0, 1])
    assert do_all(peer) == ["F0", "B0", "F1", "B1"]


def test_a_weight_gradient_is_done_only_when_there_is_nothing_else() -> None:
    peer = policy(1, limit=2, splits=True)
    get(peer, "F", [0, 1, 2])
    assert do_all(peer) == ["F0", "F1"]
    get(peer, "B", [0, 1])
    # Both gradients first; then memory is full, and only a weight gradient frees it for the forward that has come.
    assert [do(peer) for _ in range(4)] == ["I0", "I1", "W0", "F2"]
    get(peer, "F", [3])
    assert [do(peer) for _ in range(3)] == ["W1", "F3", None]
    get(peer, "B", [3, 2])
    assert do_all(peer) == ["I3", "I2", "W3", "W2", "STEP"]


def test_the_step_comes_once_all_weight_gradients_are_done() -> None:
    peer = policy(2, 2, limit=2, splits=True)
    get(peer, "F", [0, 1])
    assert do_all(peer) == ["F0", "I0", "F1", "I1", "W0", "W1", "STEP"]
    assert peer.num_steps == 1


def test_the_step_waits_for_the_other_replicas_if_told_to() -> None:
    peer = policy(2, 2, waits_for_sync=True)
    get(peer, "F", [0, 1])
    assert do_all(peer) == ["F0", "B0", "F1", "B1"]
    assert why_idle(peer) is Waiting.SYNC
    get(peer, "SYNC", [1])
    assert not peer.ready()  # that was for the next step
    get(peer, "SYNC", [0])
    assert do_all(peer) == ["STEP"]
    get(peer, "F", [2, 3])
    assert do_all(peer) == ["F2", "B2", "F3", "B3", "STEP"]


def test_forwards_of_the_next_step_are_held_back_until_this_one_has_ended() -> None:
    peer = policy(1, 2, waits_for_sync=True)
    get(peer, "F", [0, 1, 2])
    assert do_all(peer) == ["F0", "F1"]
    assert why_idle(peer) is Waiting.EMPTY
    get(peer, "B", [0, 1])
    assert do_all(peer) == ["B0", "B1"]
    assert why_idle(peer) is Waiting.SYNC
    get(peer, "SYNC", [0])
    assert do_all(peer) == ["STEP", "F2"]


def test_results_go_to_the_neighbours_and_end_at_the_ends() -> None:
    first, middle, last = (policy(stage) for stage in range(3))
    assert [p.route(Action("F", p.stage, 0), None) for p in (first, middle, last)] == [11, 12, None]
    assert [p.route(Action("I", p.stage, 0), None) for p in (first, middle, last)] == [None, 10, 11]
    assert [p.route(Action("B", p.stage, 0), None) for p in (first, middle, last)] == [None, 10, 11]
    assert [p.route(Action("W", p.stage, 0), None) for p in (first, middle, last)] == [None, None, None]


def test_its_partner_is_the_one_that_the_next_input_comes_from() -> None:
    peer = policy(1, splits=True)
    assert peer.partner() is None
    get(peer, "F", [0])
    assert peer.partner() == 10
    do(peer)
    get(peer, "B", [0])
    assert peer.partner() == 12
    do(peer)
    assert peer.partner() is None  # a weight gradient needs nobody
    last = policy(2)
    get(last, "F", [0])
    do(last)
    assert last.partner() is None


def test_what_is_held_is_known_until_its_weight_gradient_is_done() -> None:
    peer = policy(1, splits=True)
    get(peer, "F", [0, 1])
    do(peer)
    assert (peer.holds(0), peer.holds(1), peer.held()) == (True, False, [0, 1])
    get(peer, "B", [0])
    assert [do(peer) for _ in range(2)] == ["I0", "F1"]
    assert peer.holds(0)
    assert do(peer) == "W0"
    assert (peer.holds(0), peer.held()) == (False, [1])


def test_a_step_that_is_given_up_leaves_nothing_behind() -> None:
    peer = policy(0, 3, splits=True, waits_for_sync=True)
    do(peer)
    do(peer)
    get(peer, "B", [0])
    do(peer)
    get(peer, "SYNC", [0])
    peer.reset()
    peer.num_steps = 1
    assert peer.held() == []
    assert do_all(peer) == ["F3", "F4", "F5"]
    get(peer, "B", [3, 4, 5])
    assert do_all(peer) == ["I3", "I4", "I5", "W3", "W4", "W5"]
    assert why_idle(peer) is Waiting.SYNC
