"""Whatever is ready: a gradient first, else a forward if memory allows, else a weight gradient that was put off.

Nothing is fixed in advance, so a late message delays only what needs it. Varuna (Athlur et al., EuroSys 2022) orders
micro-batches like this within a memory limit; splitting the backward is the zero-bubble idea on top.
"""

from collections import deque
from collections.abc import Sequence

from orionbed.schedule.actions import Action
from orionbed.schedule.policy import Waiting
from orionbed.schedule.routers import StageView


class OpportunisticPolicy:
    """One stage of a pipeline without fixed lists; a STEP after `num_microbatches` backwards.

    At most `limit` micro-batches are between their forward and the end of their backward here. Micro-batches are
    numbered through the steps, as in a static schedule; those of a later step wait until this stage has done its STEP.
    """

    __slots__ = (
        "_finished",
        "_forwards",
        "_gradients",
        "_held",
        "_owed",
        "_peers",
        "_started",
        "_synced",
        "limit",
        "num_microbatches",
        "num_steps",
        "splits",
        "stage",
        "waits_for_sync",
    )

    def __init__(
        self,
        stage: int,
        peers: Sequence[int],
        num_microbatches: int,
        *,
        limit: int,
        splits: bool = False,
        waits_for_sync: bool = False,
    ) -> None:
        self.stage = stage
        self.limit = limit
        self.splits = splits
        self.num_microbatches = num_microbatches
        self.num_steps = 0
        self.waits_for_sync = waits_for_sync
        self._peers = peers
        self._synced: set[int] = set()
        self.reset()

    def on_message(self, kind: str, microbatch: int, from_peer: int, chunk: int = 0) -> None:  # noqa: ARG002
        """Queue what arrived."""
        if kind == "SYNC":
            self._synced.add(microbatch)
        else:
            (self._forwards if kind == "F" else self._gradients).append(microbatch)

    @property
    def _is_last(self) -> bool:
        return self.stage == len(self._peers) - 1

    def _forward(self) -> int | None:
        """Return the next forward that this stage may do."""
        if len(self._held) >= self.limit:
            return None
        if self.stage == 0:
            number = self.num_steps * self.num_microbatches + self._started
            return number if self._started < self.num_microbatches else None
        if self._forwards and self._forwards[0] // self.num_microbatches == self.num_steps:
            return self._forwards[0]
        return None

    def _next(self) -> Action | None:
        if self._finished == self.num_microbatches:
            synced = not self.waits_for_sync or self.num_steps in self._synced
            return Action("STEP", self.stage, -1) if synced else None
        if self._gradients:
            return Action("I" if self.splits else "B", self.stage, self._gradients[0])
        forward = self._forward()
        if forward is not None:
            return Action("F", self.stage, forward)
        return Action("W", self.stage, self._owed[0]) if self._owed else None

    def ready(self) -> bool:
        """Whether there is something to do now."""
        return self._next() is not None

    @property
    def waiting(self) -> Waiting:
        """`WINDOW` when only the limit keeps this stage from a forward."""
        if self._finished == self.num_microbatches:
            return Waiting.SYNC
        more = self._started < self.num_microbatches
        if self.stage:
            more = bool(self._forwards) and self._forwards[0] // self.num_microbatches == self.num_steps
        return Waiting.WINDOW if more and len(self._held) >= self.limit else Waiting.EMPTY

    def next_action(self) -> Action | None:
        """A gradient, else a forward, else a weight gradient; the STEP once everything is done."""
        action = self._next()
        if action is None:
            return None
        if action.kind == "F":
            self._started += 1
            self._held.add(action.microbatch)
            if self.stage:
                self._forwards.popleft()
        elif action.kind in {"B", "I"}:
            self._gradients.popleft()
        elif action.kind == "W":
            self._owed.popleft()
        else:
            self._synced.discard(self.num_steps)
        return action

    def on_finished(self, action: Action) -> None:
        """Keep the books of what is held here; begin anew after the STEP."""
        if action.kind == "STEP":
            self.num_steps += 1
            self._started = self._finished = 0
        elif action.kind == "F":
            if self._is_last:
                self._gradients.append(action.microbatch)
        elif action.kind == "I":
            self._owed.append(action.microbatch)
        else:
            self._held.discard(action.microbatch)
            self._finished += 1

    def partner(self) -> int | None:
        """Return the other peer that the input of the next action comes from."""
        action = self._next()
        if action is not None and action.kind == "F" and self.stage:
            return self._peers[self.stage - 1]
        if action is not None and action.kind in {"B", "I"} and not self._is_last:
            return self._peers[self.stage + 1]
        return None

    def opens_pair(self, action: Action) -> bool:  # noqa: ARG002
        """Never: every result goes out at once."""
        return False

    def route(self, action: Action, candidates: StageView | None) -> int | None:  # noqa: ARG002
        """The neighbour in this pipeline that the result is for."""
        if action.kind == "F":
            return None if self._is_last else self._peers[self.stage + 1]
        return self._peers[self.stage - 1] if action.kind in {"B", "I"} and self.stage else None

    def staleness(self, microbatch: int) -> int:  # noqa: ARG002
        """None: the weights change only between steps."""
        return 0

    def holds(self, microbatch: int) -> bool:
        """Whether a gradient of `microbatch` would be of use here."""
        return microbatch in self._held

    def on_lost(self, microbatch: int) -> None:
        """The step cannot go on without a micro-batch: the backend resets the whole replica instead."""

    def held(self) -> list[int]:
        """Micro-batches queued, or whose backward is still to come."""
        return sorted({*self._forwards, *self._held})

    def reset(self) -> None:
        """Give up the step. The backend sets `num_steps` to one value for the whole replica."""
        self._forwards: deque[int] = deque()
        self._gradients: deque[int] = deque()
        self._owed: deque[int] = deque()
        self._held: set[int] = set()
        self._started = self._finished = 0
        self._synced.clear()

    def restart(self) -> None:
        """Begin anew as a new process."""
        self.reset()
