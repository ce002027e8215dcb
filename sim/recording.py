"""Which part of a run goes into the trace."""

from typing import Final

from orionbed import tracing
from orionbed.account import KIND_CODES
from orionbed.ledger import ATTEMPT_BITS
from orionbed.plan import Plan
from orionbed.schedule.actions import Kind
from sim.clock import Clock
from sim.peer import SimPeer

_LARGEST: Final = (1 << ATTEMPT_BITS) - 1
_MOST_ATTEMPTS: Final = 127


class Recording:
    """Adds spans to the trace while `active`, which callers look at first: most of a run is not recorded."""

    def __init__(self, plan: Plan, clock: Clock) -> None:
        run = plan.scenario.run
        self.active = run.trace == "full"
        self.epoch = 0
        self._trace = None if run.trace == "summary" else tracing.TraceRecorder([peer.name for peer in plan.peers])
        if run.trace == "window":
            # A run too short for its window is recorded in its second half.
            from_s = run.trace_from if run.duration is None else min(run.trace_from, run.duration / 2)
            clock.call_at(from_s, self._switch, arg=True)
            clock.call_at(from_s + run.trace_for, self._switch, arg=False)

    def _switch(self, active: bool) -> None:  # noqa: FBT001  (the clock hands its argument over plainly)
        self.active = active

    def table(self) -> tracing.Trace | None:
        """Return the trace, `None` when nothing was to be recorded."""
        return None if self._trace is None else self._trace.table()

    def operation(self, peer: SimPeer, kind: Kind, microbatch: int, end_s: float) -> None:
        """`peer` finished the operation it began at `action_s`."""
        what = (tracing.LANE_COMPUTE, KIND_CODES[kind], tracing.CAUSE_NONE)
        self._add(peer, what, microbatch, (peer.action_s, end_s))

    def idle(self, peer: SimPeer, start_s: float, end_s: float, cause: int) -> None:
        """`peer` did nothing, mostly because of `cause`."""
        self._add(peer, (tracing.LANE_COMPUTE, tracing.KIND_IDLE, cause), -1, (start_s, end_s))

    def message(
        self, source: SimPeer, target: SimPeer, microbatch: int, num_bytes: float, span_s: tuple[float, float]
    ) -> None:
        """A boundary tensor travelled from one peer to another during `span_s`."""
        sent = (tracing.LANE_UP, tracing.KIND_SEND, tracing.CAUSE_NONE)
        received = (tracing.LANE_DOWN, tracing.KIND_RECEIVE, tracing.CAUSE_NONE)
        self._add(source, sent, microbatch, span_s, num_bytes)
        self._add(target, received, microbatch, span_s, num_bytes)

    def merge(self, peer: SimPeer, kind: int, cause: int, num_bytes: float, span_s: tuple[float, float]) -> None:
        """`peer` did a part of a merge during `span_s`."""
        self._add(peer, (tracing.LANE_MERGE, kind, cause), -1, span_s, num_bytes)

    def _add(
        self,
        peer: SimPeer,
        what: tuple[int, int, int],
        microbatch: int,
        span_s: tuple[float, float],
        num_bytes: float = 0.0,
    ) -> None:
        """Add a span; `what` is its lane, kind and cause."""
        assert self._trace is not None
        lane, kind, cause = what
        start_s, end_s = span_s
        place = (self.epoch, peer.replica, peer.stage, peer.index)
        number, attempt = microbatch, 0
        if microbatch > _LARGEST:
            number, attempt = microbatch & _LARGEST, min(microbatch >> ATTEMPT_BITS, _MOST_ATTEMPTS)
        self._trace.add(*place, lane, kind, number, attempt, start_s, end_s, num_bytes, cause)
