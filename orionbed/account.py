"""Where one peer's seconds go: every second is charged to work or to a cause of waiting, in every backend."""

from collections.abc import Mapping
from typing import Final

from orionbed import tracing
from orionbed.schedule.actions import KINDS, Kind
from orionbed.tracing import CAUSES

MOSTLY = 0.5
CAUSE_OF_STATUS: Final[Mapping[str, int]] = {
    "startup": tracing.CAUSE_STARTUP,
    "training": tracing.CAUSE_FILL,
    "merging": tracing.CAUSE_MERGE_WAIT,
    "down": tracing.CAUSE_DOWN,
    "benched": tracing.CAUSE_BENCHED,
    "registering": tracing.CAUSE_BENCHED,
    "kicked": tracing.CAUSE_DOWN,
    "reconfiguring": tracing.CAUSE_BENCHED,
}
"""What a peer's time is charged to that it spends in a status without anything else to be said of it."""
KIND_CODES: Final[Mapping[Kind, int]] = {
    "F": tracing.KIND_F,
    "B": tracing.KIND_B,
    "I": tracing.KIND_I,
    "W": tracing.KIND_W,
    "STEP": tracing.KIND_STEP,
}
"""Operations as codes of the trace."""


class Account:
    """The seconds of one peer. Times are seconds of the run.

    `accounted_s` is the time up to which every second has been charged. While the peer is idle, the other fields tell
    what it waits for: `ready_s` is when there was something to do again (below 0: not yet), `ready_sent_s` when that
    message was sent, `ready_encrypted_s` how much later it has come for being encrypted, `blocked_share` how far the
    window kept the pipeline's entrance shut when the wait began.
    """

    __slots__ = (
        "accounted_s",
        "blocked_share",
        "cause_s",
        "idle",
        "idle_by_sync",
        "idle_by_window",
        "num_done",
        "ready_encrypted_s",
        "ready_s",
        "ready_sent_s",
        "sync_compute_s",
        "thrown_s",
        "waiting_for_first",
        "work_s",
    )

    def __init__(self) -> None:
        self.idle = False
        self.idle_by_window = False
        self.idle_by_sync = False
        self.sync_compute_s = 0.0
        self.blocked_share = 0.0
        self.ready_s = -1.0
        self.ready_sent_s = 0.0
        self.ready_encrypted_s = 0.0
        self.waiting_for_first = True
        self.accounted_s = 0.0
        self.cause_s = [0.0] * len(CAUSES)
        self.work_s: dict[Kind, float] = dict.fromkeys(KINDS, 0.0)
        self.thrown_s: dict[Kind, float] = dict.fromkeys(KINDS, 0.0)
        self.num_done: dict[Kind, int] = dict.fromkeys(KINDS, 0)

    def charge(self, cause: int, until_s: float) -> None:
        """Charge everything since `accounted_s` to `cause`."""
        self.cause_s[cause] += until_s - self.accounted_s
        self.accounted_s = until_s

    def end_idle(self, until_s: float) -> int:
        """Split the idle time that ends at `until_s` between its causes; return the main one.

        From `ready_s` on there was something to do and the peer only had not looked: polling. Before that, a first
        stage or a full peer waits for its window. Everybody else waits for a message: on its way since
        `ready_sent_s` (transfer, or encryption as far as that made it later), not even sent before that (upstream, or
        the window, as far as the window kept the pipeline's entrance shut when the wait began).
        """
        self.idle = False
        started_s, cause_s = self.accounted_s, self.cause_s
        self.accounted_s = until_s
        encrypted_s, self.ready_encrypted_s = self.ready_encrypted_s, 0.0
        has_message = self.ready_s >= 0.0
        ready_s = self.ready_s if has_message else until_s
        cause_s[tracing.CAUSE_POLLING] += until_s - ready_s
        if self.waiting_for_first or self.idle_by_window:
            cause = tracing.CAUSE_FILL if self.waiting_for_first else tracing.CAUSE_WINDOW
            cause_s[cause] += ready_s - started_s
            return cause
        sent_s = min(ready_s, max(started_s, self.ready_sent_s)) if has_message else ready_s
        if self.idle_by_sync:
            return self._charge_sync(started_s, sent_s, ready_s)
        by_window_s = (sent_s - started_s) * self.blocked_share
        if encrypted_s:
            encrypted_s = min(ready_s - sent_s, encrypted_s)
            cause_s[tracing.CAUSE_ENCRYPTION] += encrypted_s
        cause_s[tracing.CAUSE_TRANSFER] += ready_s - sent_s - encrypted_s
        cause_s[tracing.CAUSE_WINDOW] += by_window_s
        cause_s[tracing.CAUSE_UPSTREAM] += sent_s - started_s - by_window_s
        if ready_s - sent_s > sent_s - started_s:
            return tracing.CAUSE_TRANSFER if encrypted_s < (ready_s - sent_s) * MOSTLY else tracing.CAUSE_ENCRYPTION
        return tracing.CAUSE_WINDOW if self.blocked_share > MOSTLY else tracing.CAUSE_UPSTREAM

    def _charge_sync(self, started_s: float, began_s: float, ready_s: float) -> int:
        """Split the wait for the other replicas: until all of them had finished, the exchange, and its computation."""
        compute_s = min(self.sync_compute_s, ready_s - began_s)
        self.cause_s[tracing.CAUSE_MERGE_WAIT] += began_s - started_s
        self.cause_s[tracing.CAUSE_MERGE_COMPUTE] += compute_s
        self.cause_s[tracing.CAUSE_MERGE_TRANSFER] += ready_s - began_s - compute_s
        return tracing.CAUSE_MERGE_TRANSFER if ready_s - began_s > began_s - started_s else tracing.CAUSE_MERGE_WAIT
