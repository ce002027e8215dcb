"""The interface every schedule policy meets."""

from enum import StrEnum
from typing import Protocol

from orionbed.schedule.actions import Action
from orionbed.schedule.routers import StageView


class Waiting(StrEnum):
    """Why a policy has nothing to do."""

    EMPTY = "empty"
    WINDOW = "window"
    SYNC = "sync"


class Policy(Protocol):
    """What one peer does next. The backend reports what happened and asks; the policy never acts by itself."""

    def on_message(self, kind: str, microbatch: int, from_peer: int, chunk: int = 0) -> None:
        """An activation (`F`) or a gradient (`B`) of `microbatch` arrived from `from_peer` for `chunk`."""

    def on_finished(self, action: Action) -> None:
        """The peer finished `action`."""

    def on_lost(self, microbatch: int) -> None:
        """Nothing more will come for `microbatch`: forget it and free what it held."""

    def next_action(self) -> Action | None:
        """What to start now, or `None` to wait; starting it is then taken for granted."""

    num_steps: int
    """Optimizer steps taken."""

    @property
    def waiting(self) -> Waiting:
        """Why `next_action` gave `None`."""

    def ready(self) -> bool:
        """Whether `next_action` would give an action."""

    def partner(self) -> int | None:
        """Return the other peer that the input of the next action comes from, for peers with synchronous messages."""

    def opens_pair(self, action: Action) -> bool:
        """Whether the result of `action`, just finished, goes out only with that of the next one."""

    def route(self, action: Action, candidates: StageView | None) -> int | None:
        """Which peer gets the result of `action`; `None` where nobody does."""

    def staleness(self, microbatch: int) -> int:
        """Local optimizer steps since the forward of `microbatch`, which must be in flight here."""

    def holds(self, microbatch: int) -> bool:
        """Whether a gradient of `microbatch` would be of use here."""

    def held(self) -> list[int]:
        """Micro-batches this peer holds in any form: queued, or forwarded and waiting for their gradient."""

    def reset(self) -> None:
        """Forget everything in flight, as at an epoch boundary."""

    def restart(self) -> None:
        """Begin anew as a new process: also forget what was learnt."""
