"""The pieces between a peer's loop and its surroundings: warm-up, messages, last words, the last second of a run."""

import json
import time
from types import SimpleNamespace
from typing import Any

import pytest

from orionbed import tracing
from orionbed.fleet.clock import PacedClock
from orionbed.fleet.losses import losses_of
from orionbed.fleet.members import Member
from orionbed.fleet.record import Record
from orionbed.results import Epoch
from orionbed.scenario.schedules import ResBMBoundary
from orionbed.scenario.training import InnerOptimizer
from orionbed.training.compute import Compute
from orionbed.training.shape import ModelShape
from real.hearing import LastActions
from real.queued.observed import quantiles
from real.queued.run import _levelled
from real.queued.staging import make_staging
from real.queued.warming import warm_up
from real.queued.wire import Inbox, Wire

NARROW = ResBMBoundary(kind="resbm", width=4)
SHAPE = ModelShape((1, 1, 1), 32, 48, 4, 2, 64, sequence=8, sequences=2, boundary=NARROW, recompute=True)


# ---------------------------------------------------------------- warm-up


@pytest.mark.parametrize("chunk", [0, 1, 2])
def test_a_warm_up_does_every_operation_and_leaves_version_0(chunk: int) -> None:
    pytest.importorskip("torch")
    staging = make_staging(SHAPE, "cpu")
    compute = Compute(
        SHAPE, (chunk,), seed=3, optimizer=InnerOptimizer(learning_rate=0.1), fused_last=True, codec=staging
    )
    before = compute.worker.state_hash()
    done = list[str]()
    run = compute.run
    compute.run = lambda *order: (done.append(order[0]), run(*order))[1]  # type: ignore[method-assign,assignment]
    warm_up(compute, staging, 2, optimizer=InnerOptimizer(learning_rate=0.1))
    assert done == (["B", "B"] if chunk == 2 else ["F", "B", "F", "B"])
    assert compute.worker.state_hash() == before
    assert not compute.worker.gradients().any()
    assert (compute.spent_s, compute.num_done, compute.worker.losses) == ({}, {}, {})


# ---------------------------------------------------------------- messages


class Sent:
    """An endpoint that keeps what it is given."""

    def __init__(self) -> None:
        self.messages: list[tuple[int, dict[str, Any], Any, bool]] = []

    def send(self, target: int, header: bytes, body: Any, *, control: bool = False) -> None:
        self.messages.append((target, json.loads(header), body, control))


def test_bodies_travel_as_they_are_and_those_to_come_are_not_asked_for_their_length() -> None:
    wire, endpoint = Wire(), Sent()
    wire.endpoint = endpoint  # type: ignore[assignment]
    wire.send(3, {"k": "P", "keys": []}, b"abc", 7.0, 1.5)
    later = lambda: memoryview(b"abc")  # noqa: E731
    wire.send(3, {"k": "F"}, later, 7.0, 1.5, control=True)
    assert endpoint.messages == [
        (3, {"k": "P", "keys": [], "sent": 1.5, "plan_bytes": 7.0, "length": 3}, b"abc", False),
        (3, {"k": "F", "sent": 1.5, "plan_bytes": 7.0}, later, True),
    ]


def test_what_comes_is_stamped_when_it_comes_and_was_never_sent_later_than_that() -> None:
    came: list[Any] = []
    clock = PacedClock(time.monotonic() - 100.0)
    inbox = Inbox(clock, lambda body: ("staged", body), lambda *one: came.append(one), lambda *one: came.append(one))
    inbox.deliver(4, b'{"k": "F", "sent": 99.5}', b"x")
    inbox.deliver(4, b'{"k": "T", "sent": 200.0}', b"y")
    inbox.failed(2, b'{"k": "B", "sent": 1.0}', "is gone")
    (first_s, first), (second_s, second), (_, failure) = came
    assert 100.0 <= first_s <= second_s < 130.0
    assert first == ({"k": "F", "sent": 99.5, "from": 4}, ("staged", b"x"))
    assert second == ({"k": "T", "sent": second_s, "from": 4}, b"y")
    assert failure == (2, {"k": "B", "sent": 1.0}, "is gone")


def test_long_bodies_go_in_parts_and_are_put_together_again() -> None:
    wire, endpoint, came = Wire(most_bytes=4), Sent(), list[Any]()
    wire.endpoint = endpoint  # type: ignore[assignment]
    inbox = Inbox(
        PacedClock(time.monotonic()),
        lambda body: body,
        lambda _, what: came.append(what),
        lambda _, what: came.append(what),
    )
    wire.send(3, {"k": "T", "version": 1}, b"abcdefghij", 7.0, 0.0)
    parts = [(json.dumps(header).encode(), body) for _, header, body, _ in endpoint.messages]
    assert [bytes(body) for _, body in parts] == [b"abcd", b"efgh", b"ij"]
    for header, body in (parts[0], *parts, parts[1], parts[2], parts[0], parts[2]):  # begun anew, and with gaps
        inbox.deliver(5, header, body)
    ((header, body),) = came
    assert bytes(body) == b"abcdefghij"
    assert (header["k"], header["version"], header["length"], header["from"]) == ("T", 1, 10, 5)
    assert "part_at" not in header
    for header, _ in parts:
        inbox.failed(3, header, "is gone")
    assert [what[1]["plan_bytes"] for what in came[1:]] == [7.0, 0.0, 0.0]


# ---------------------------------------------------------------- last words


def test_the_last_action_is_what_a_process_says_or_the_last_operation_that_it_reports() -> None:
    actions = LastActions()
    assert actions[0] == "none yet"
    assert actions.silent_s(0) < 1.0
    actions.hear(0, {"t": "alive", "doing": "warming up"})
    assert actions[0] == "warming up"
    idle = [0, tracing.LANE_COMPUTE, tracing.KIND_IDLE, -1, 0, 1.0, 2.0, 0.0, 0]
    forward = [0, tracing.LANE_COMPUTE, tracing.KIND_F, 12, 0, 0.0, 1.0, 0.0, 0]
    actions.hear(0, {"t": "report", "doing": "idle", "spans": [forward, idle]})
    assert actions[0] == "F of micro-batch 12 (done)"
    actions.hear(0, {"t": "report", "doing": "idle", "spans": []})
    assert actions[0] == "F of micro-batch 12 (done)"


# ---------------------------------------------------------------- the end


def test_a_run_ends_when_the_last_one_has_and_the_others_waited_for_it() -> None:
    record = Record(1)
    record.epochs.append(Epoch(0, 0.0, 10.0, 10.0, 5, 0))
    peers = [Member(0, "peer"), Member(1, "peer"), Member(2, "peer")]
    for peer, at_s in zip(peers, (10.0, 10.5), strict=False):
        peer.final = {"account": [at_s, *[0.0] * len(tracing.CAUSES)]}
    assert _levelled(SimpleNamespace(peers=peers, record=record), 10.0) == 10.5  # type: ignore[arg-type]
    accounts = [peer.final["account"] for peer in peers if peer.final is not None]
    assert [account[0] for account in accounts] == [10.5, 10.5]
    assert [account[1 + tracing.CAUSE_FILL] for account in accounts] == [0.5, 0.0]
    assert record.epochs == [Epoch(0, 0.0, 10.5, 10.5, 5, 0)]


def test_losses_and_latenesses_are_told_in_few_numbers() -> None:
    record = Record(1)
    assert losses_of(record.loss_curve()) == {"first": None, "last": None, "curve": []}
    record.losses = [(float(second), second, 10.0 - second) for second in (2, 0, 1)]
    assert record.loss_curve() == [(0.0, 10.0), (1.0, 9.0), (2.0, 8.0)]
    assert losses_of(record.loss_curve())["last"] == 8.0
    assert quantiles([]) == {"p50_s": 0.0, "p99_s": 0.0, "max_s": 0.0, "count": 0}
    assert quantiles([1.0, 2.0, 3.0])["p50_s"] == 2.0
