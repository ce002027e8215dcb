"""Runs one stage's list of a static schedule, step after step, as inputs arrive."""

from collections.abc import Sequence

from orionbed.schedule.actions import Action
from orionbed.schedule.order import Order
from orionbed.schedule.policy import Waiting
from orionbed.schedule.routers import StageView
from orionbed.schedule.timing import needed_input, provided_input, source_chunk


class StaticPolicy:
    """The head of the list as soon as its input is there, then a STEP, then the list anew.

    Micro-batches are numbered through: number `m` of step `n` is `n x num_microbatches + m`. `peers[s]` is the peer of
    stage s of this pipeline. With `waits_for_sync` the STEP needs a message "SYNC" with the step's number.
    """

    __slots__ = (
        "_actions",
        "_arrived",
        "_order",
        "_peers",
        "_position",
        "_started",
        "num_microbatches",
        "num_steps",
        "waits_for_sync",
    )

    def __init__(self, order: Order, stage: int, peers: Sequence[int], *, waits_for_sync: bool = False) -> None:
        actions = order.lists[stage]
        self.num_steps = 0
        self.num_microbatches = order.num_microbatches
        self.waits_for_sync = waits_for_sync
        self._order = order
        self._peers = peers
        self._actions = [*actions, Action("STEP", actions[0].chunk, -1)]
        self._position = 0
        self._arrived: set[tuple[str, int, int]] = set()
        self._started: dict[int, int] = {}

    def on_message(self, kind: str, microbatch: int, from_peer: int, chunk: int = 0) -> None:  # noqa: ARG002
        """Note that an input is there."""
        self._arrived.add((kind, chunk, microbatch))

    def _numbered(self, position: int) -> Action:
        kind, chunk, microbatch = self._actions[position]
        return Action(kind, chunk, self.num_steps * self.num_microbatches + microbatch)

    def _needs(self) -> list[tuple[str, int, int]]:
        """Return the messages that the head of the list needs; a pair needs both of its."""
        head = self._actions[self._position]
        if head.kind == "STEP":
            return [("SYNC", 0, self.num_steps)] if self.waits_for_sync else []
        positions = (self._position, self._position + 1) if head in self._order.pairs else (self._position,)
        found = (needed_input(self._numbered(p), self._order.num_chunks) for p in positions)
        return [needed for needed in found if needed is not None]

    def ready(self) -> bool:
        """Whether the head of the list has its input."""
        return all(needed in self._arrived for needed in self._needs())

    @property
    def waiting(self) -> Waiting:
        """What the head of the list waits for."""
        return Waiting.SYNC if self._actions[self._position].kind == "STEP" else Waiting.EMPTY

    def next_action(self) -> Action | None:
        """Return the head of the list, once its input has arrived."""
        if not self.ready():
            return None
        head = self._actions[self._position]
        if head.kind == "STEP":
            action = head
            self._arrived.discard(("SYNC", 0, self.num_steps))
        else:
            action = self._numbered(self._position)
            own = needed_input(action, self._order.num_chunks)
            if own is not None:  # the second half of a pair takes its own when its turn comes
                self._arrived.discard(own)
        self._position += 1
        if action.kind == "F":
            self._started[action.microbatch] = self._started.get(action.microbatch, 0) + 1
        return action

    def partner(self) -> int | None:
        """Return the other peer that the input of the next action comes from."""
        head = self._actions[self._position]
        if head.kind == "STEP" or needed_input(head, self._order.num_chunks) is None:
            return None
        peer = self._peers[self._order.stage_of[source_chunk(head)]]
        return None if peer == self._peers[self._order.stage_of[head.chunk]] else peer

    def opens_pair(self, action: Action) -> bool:
        """Whether the result of `action`, just finished, goes out only with that of the next one."""
        if action.kind != "F" or not self._order.pairs:
            return False
        return Action("F", action.chunk, action.microbatch % self.num_microbatches) in self._order.pairs

    def on_finished(self, action: Action) -> None:
        """Begin the list anew after its optimizer step."""
        if action.kind == "STEP":
            self._position = 0
            self.num_steps += 1
        elif action.kind in {"B", "W"}:
            left = self._started.get(action.microbatch, 0) - 1
            if left > 0:
                self._started[action.microbatch] = left
            else:
                self._started.pop(action.microbatch, None)

    def route(self, action: Action, candidates: StageView | None) -> int | None:  # noqa: ARG002
        """The peer of this pipeline that holds the next chunk, or for gradients the one before; `None` at the ends."""
        result = provided_input(action, self._order.num_chunks)
        return None if result is None else self._peers[self._order.stage_of[result[1]]]

    def staleness(self, microbatch: int) -> int:  # noqa: ARG002
        """None: the weights change only between steps."""
        return 0

    def holds(self, microbatch: int) -> bool:
        """Whether a gradient of `microbatch` would be of use here."""
        return microbatch in self._started

    def on_lost(self, microbatch: int) -> None:
        """A static schedule cannot go on without a micro-batch: the backend resets the whole replica instead."""

    def held(self) -> list[int]:
        """Micro-batches whose input is here and unused, or whose backward is still to come."""
        arrived = {microbatch for kind, _, microbatch in self._arrived if kind != "SYNC"}
        return sorted(arrived | self._started.keys())

    def reset(self) -> None:
        """Give up the step: the list begins anew. The backend sets `num_steps` to one value for the whole replica."""
        self._position = 0
        self._arrived.clear()
        self._started.clear()

    def restart(self) -> None:
        """Begin anew as a new process."""
        self.reset()
