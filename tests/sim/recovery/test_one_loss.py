"""One micro-batch, one lost peer, and what each policy makes of it, to the second.

Three stages of two replicas; only the first replica has a source, so that nothing disturbs. An F takes 1 s, a B 2 s,
the last stage's B 3 s: without a loss the micro-batch is at stage 1 from 1 to 2, at stage 2 from 2 to 5, and back at
stage 1 from 5 to 7 and at stage 0 from 7 to 9. A loss is known after 1 s.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from orionbed.results import RunResult
from orionbed.scenario.distributions import Constant
from orionbed.scenario.merging import Merge
from orionbed.tracing import CAUSE_BENCHED, CAUSE_THROWN_AWAY
from sim.recovery.telling import TAKEN_BACK

Make = Callable[..., Any]
IN_FORWARD, BEYOND, IN_BACKWARD = 1.5, 3.0, 6.0
ALONE: dict[str, Any] = {"without": {1}, "queue": {"window": 1}}


def told(story: Make, in_flight: str, lost_at: float | None, stage: int = 1, **changes: Any) -> RunResult:
    """Tell of one micro-batch; the next one begins when it is through or given up."""
    the_story = story(in_flight, **(ALONE | changes))
    if lost_at is not None:
        the_story.lose(lost_at, stage)
    result: RunResult = the_story.finish()
    return result


def thrown(result: RunResult) -> float:
    return float(sum(seconds.sum() for seconds in result.thrown_s.values()))


@pytest.mark.parametrize("in_flight", ["drop", "resend", "splice", "replicas", "skip-stage", "not-counted"])
def test_without_a_loss_all_are_alike(story: Make, in_flight: str) -> None:
    result = told(story, in_flight, None)
    assert result.applied_s[0] == 9.0
    assert result.ledger.dropped == 0
    assert result.recovery["losses"] == 0


def test_drop_loses_it_and_the_slot_is_free_when_it_expires(story: Make) -> None:
    result = told(story, "drop", BEYOND)
    # The way back is found lost at 5; the slot taken at 1 expires 3 stages x 5 s later; the next one takes 9 s.
    assert result.applied_s[0] == 1.0 + 3 * 5.0 + 9.0
    assert result.ledger.dropped_by_reason == {"way back lost": 1}
    assert result.ledger.partially_applied == 1
    assert result.recovery["drops_by_peer"] == {result.plan.peers[2].name: 1}
    assert thrown(result) == 1.0 + 1.0 + 3.0


def test_not_counted_frees_the_slot_at_once(story: Make) -> None:
    result = told(story, "not-counted", BEYOND)
    assert result.applied_s[0] == BEYOND + 9.0
    assert result.ledger.dropped_by_reason == {"not counted": 1}
    assert result.ledger.partially_applied == 0


@pytest.mark.parametrize("delay_s", [0.0, 0.125])
def test_resend_costs_one_stage_time_and_transfer(story: Make, delay_s: float) -> None:
    """Lost in the forward: detection, the stage again, and the transfer. Every connection used here is a new one."""
    result = told(story, "resend", IN_FORWARD + 3 * delay_s, network={"delay": delay_s})
    transfer_s = 3 * delay_s  # with the handshake, a round trip
    forward_s = 1.0 + transfer_s + 0.5  # first stage, transfer, half a forward: the moment of the loss
    again_s = transfer_s + 1.0  # transfer and stage time
    rest_s = transfer_s + 3.0 + transfer_s + 2.0 + transfer_s + 2.0
    assert result.applied_s[0] == pytest.approx(forward_s + 1.0 + again_s + rest_s, abs=1e-9)
    assert (result.recovery["begun_again"], result.ledger.duplicated) == (1, 0)
    assert result.ledger.dropped == 0
    assert result.other_s[2, CAUSE_THROWN_AWAY] == pytest.approx(0.5)


def test_resend_throws_the_later_stages_work_away(story: Make) -> None:
    result = told(story, "resend", BEYOND)
    # Known at 4, when stage 2 is at the old attempt: F again to 5, and 3 + 2 + 2 s.
    assert result.applied_s[0] == 12.0
    assert result.ledger.duplicated == 1
    assert thrown(result) == 1.0 + 3.0  # stage 1's first F, stage 2's first B


def test_resend_does_not_use_a_gradient_twice(story: Make) -> None:
    result = told(story, "resend", BEYOND, recovery={"detect": 3.0})
    # Stage 2 had used the gradient at 5; from 6 on F again, its B again for the sake of stage 1, and the way back.
    assert result.applied_s[0] == 6.0 + 1.0 + 3.0 + 2.0 + 2.0
    assert result.ledger.duplicated == 1
    assert thrown(result) == 1.0 + 3.0


def test_resend_of_the_first_stage_begins_with_the_data(story: Make) -> None:
    the_story = story("resend", queue={"window": 1}, without={1})
    the_story.lose(BEYOND, 0)
    the_story.at(3.5, lambda: the_story.engine.start_training(the_story.peer(0, 1)))
    result = the_story.finish()
    # The other first-stage peer begins its own at 3.5 and ours, from 4 on due, when its window is free again.
    assert result.ledger.dropped == 0
    assert result.recovery["begun_again"] == 1
    assert list(result.applied_s[:2]) == [3.5 + 9.0, 3.5 + 9.0 + 9.0]


def test_resend_goes_one_stage_further_back_when_two_are_lost(story: Make) -> None:
    the_story = story("resend", stages=4, without={1}, queue={"window": 1})
    the_story.lose(2.5, 2)
    the_story.lose(2.75, 1)
    result = the_story.finish()
    # The first loss would be known at 3.5 by a peer that is gone at 2.75; from 3.75 on: F, F, and 3 + 2 + 2 + 2 s.
    assert result.applied_s[0] == 3.75 + 2.0 + 9.0
    assert result.recovery["begun_again"] == 1


@pytest.mark.parametrize("in_flight", ["splice", "replicas"])
@pytest.mark.parametrize(
    ("recompute", "detect_s", "lost_at", "through_s"),
    [
        # The gradient comes to the hole at 5, when the loss is known: no time is lost with full recompute,
        ("full", 1.0, BEYOND, 9.0),
        # a forward without,
        ("none", 1.0, BEYOND, 10.0),
        # the wait for detection, known at 6,
        ("full", 3.0, BEYOND, 10.0),
        # and what the lost peer had done of the backward, known at 7.
        ("full", 1.0, IN_BACKWARD, 11.0),
    ],
)
def test_splicing_redoes_the_lost_stage_alone(
    story: Make, in_flight: str, recompute: str, detect_s: float, lost_at: float, through_s: float
) -> None:
    queue = {"window": 1, "recompute": recompute}
    result = told(story, in_flight, lost_at, queue=queue, recovery={"detect": detect_s})
    assert result.applied_s[0] == through_s
    assert (result.recovery["spliced"], result.recovery["begun_again"]) == (1, 0)
    assert (result.ledger.dropped, result.ledger.duplicated) == (0, 0)
    assert thrown(result) == 1.0  # the lost peer's F


def test_splicing_without_the_neighbour_behind_begins_again(story: Make) -> None:
    the_story = story("splice", **ALONE)
    the_story.lose(IN_BACKWARD, 1)
    the_story.lose(6.5, 2)
    result = the_story.finish()
    # The second loss is known at 7.5: F, stage 2's B for stage 1's sake, and the way back.
    assert result.applied_s[0] == 7.5 + 1.0 + 3.0 + 2.0 + 2.0
    assert (result.recovery["spliced"], result.recovery["begun_again"]) == (0, 1)


def test_replicas_are_dealt_the_work_in_turn(story: Make) -> None:
    the_story = story("replicas", replicas=3, without={1, 2}, queue={"window": 4})
    the_story.lose(4.5, 1)
    result = the_story.finish()
    others = result.num_done["B"][4:6]
    # Three micro-batches were beyond the lost peer, the fourth was sent again; later ones go to the next in line.
    assert result.recovery["spliced"] == 3
    assert others.min() >= 1
    assert result.ledger.dropped == 0


@pytest.mark.parametrize(
    ("stage", "lost_at", "through_s"),
    [
        # Stage 0's F takes 2 s, with the redundant one of stage 1: forward to 3, stage 2 to 6, and its own B after the
        # lost stage's.
        (1, 4.0, 6.0 + 4.0),
        # In the forward: the result is there already, known lost at 3.5.
        (1, 2.5, 3.5 + 3.0 + 4.0),
        # The last stage, known at 5: its 3 s and one's own 2 s, then stage 0.
        (2, 4.0, 5.0 + 5.0 + 2.0),
    ],
)
def test_a_neighbour_goes_on_with_both_stages(story: Make, stage: int, lost_at: float, through_s: float) -> None:
    result = told(story, "neighbour", lost_at, stage)
    assert result.applied_s[0] == through_s
    assert result.ledger.dropped == 0
    forwards = result.num_done["F"][0]
    assert result.recovery["extra_compute_s"] == pytest.approx(forwards * 1.0)


def test_two_lost_neighbours_are_too_many(story: Make) -> None:
    the_story = story("neighbour", stages=4, without={1}, queue={"window": 1})
    the_story.lose(7.0, 2)
    the_story.lose(7.5, 1)
    result = the_story.finish()
    assert result.ledger.dropped_by_reason["neighbours lost"] == 1


def test_redundant_forwards_may_hide_in_bubbles(story: Make) -> None:
    result = told(story, "neighbour", None, recovery={"redundant": 0.0})
    assert result.applied_s[0] == 9.0
    assert result.recovery["extra_compute_s"] == 0.0


@pytest.mark.parametrize(("lost_at", "through_s"), [(IN_FORWARD, 2.5 + 3.0 + 2.0), (BEYOND, 5.0 + 2.0)])
def test_a_skipped_stage_costs_no_time_and_is_counted(story: Make, lost_at: float, through_s: float) -> None:
    result = told(story, "skip-stage", lost_at)
    assert result.applied_s[0] == through_s
    assert (result.ledger.skipped_stages, result.recovery["with_skipped_stages"]) == (1, 1)
    assert result.ledger.dropped == 0


@pytest.mark.parametrize("stage", [0, 2])
def test_the_first_and_the_last_stage_are_not_skipped(story: Make, stage: int) -> None:
    result = told(story, "skip-stage", BEYOND, stage)
    assert result.ledger.skipped_stages == 0
    assert result.ledger.dropped == 1


def test_a_lost_iteration_costs_all_in_flight_and_a_pause(story: Make) -> None:
    result = told(story, "iteration", BEYOND)
    assert result.applied_s[0] == BEYOND + 10.0 + 9.0
    assert result.ledger.dropped_by_reason == {"iteration lost": 1}
    assert result.recovery["pauses"] == 1
    assert result.other_s[:, CAUSE_BENCHED].sum() == 4 * 10.0  # neither the lost peer nor the one that never was


def test_rebuilding_downloads_both_neighbours_weights(story: Make) -> None:
    downlink = 1e9
    the_story = story("rebuild", **ALONE, network={"downlink": Constant(dist="constant", value=downlink)})
    the_story.lose(BEYOND, 1)
    the_story.at(4.0, lambda: the_story.come_back(the_story.peer(1)))
    result = the_story.finish()
    stages = result.plan.stages
    num_bytes = stages[0].weight_bytes + stages[2].weight_bytes
    assert result.recovery["rebuild_bytes"] == num_bytes
    assert result.recovery["rebuilt"] == 1
    assert result.other_s[2, CAUSE_BENCHED] == pytest.approx(num_bytes * 8.0 / downlink, rel=1e-6)
    assert result.bytes_storage_read == 0.0
    assert result.ledger.dropped_by_reason == {"peer lost": 1}


def test_local_steps_lose_what_the_peer_had_applied_since_the_last_merge(story: Make) -> None:
    """H steps of k micro-batches are H k (F + B) seconds of the lost worker, and all the others did for them."""
    lost_s = 4 * 9.0 + 3.0
    result = told(story, "local-steps", lost_s, run={"duration": 45.0})
    assert result.recovery["taken_back"] == 4
    assert result.ledger.dropped_by_reason == {TAKEN_BACK: 4, "peer lost": 1}
    assert result.ledger.partially_applied == 4
    num_steps, every = 2, 2
    assert result.thrown_s["F"][2] + result.thrown_s["B"][2] == num_steps * every * (1.0 + 2.0) + 1.0
    assert result.thrown_s["B"][4] == 4 * 3.0 + 3.0  # stage 2, with what it was at
    assert result.ledger.applied == 0
    assert result.applied_s.size == 0


def test_local_steps_before_a_merge_are_safe(story: Make) -> None:
    merge = Merge(every=20.0, compute=0.0)
    result = told(story, "local-steps", 39.5, run={"duration": 45.0}, merge=merge)
    assert result.recovery["taken_back"] == 2
    assert result.ledger.applied == 2


@pytest.mark.parametrize("in_flight", ["drop", "iteration", "not-counted"])
def test_with_a_fixed_batch_a_replica_loses_its_step_or_all_do(story: Make, in_flight: str) -> None:
    fixed = {"kind": "1f1b", "microbatches": 2, "recompute": "none"}
    the_story = story(in_flight, stages=2, schedule=fixed)
    the_story.lose(4.5, 1)
    the_story.at(5.5, lambda: the_story.come_back(the_story.peer(1)))
    result = the_story.finish()
    reason = {"drop": "peer lost", "iteration": "iteration lost", "not-counted": "not counted"}[in_flight]
    num_lost = {"drop": 1, "iteration": 2, "not-counted": 1}[in_flight] * 2
    assert result.ledger.dropped_by_reason == {reason: num_lost}
    begins_s = 14.5 if in_flight == "iteration" else 5.5
    again = result.applied_s[result.applied_s > 4.5]
    assert np.isclose(again, begins_s + 6.0, atol=1e-3).any()  # the peer has fetched its weights within that
