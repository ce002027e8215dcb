"""What conducting a run needs of whoever holds its processes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from orionbed.fleet.clock import PacedClock
from orionbed.fleet.control import Message
from orionbed.fleet.members import Member
from orionbed.fleet.record import Record
from orionbed.plan import Plan


class AbortedRunError(Exception):
    """The run cannot go on; the message says why. What there is of it is kept."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a run lasts at most, in merges, and how long it may take to get over a fault."""

    max_merges: int | None
    recovery_deadline_s: float


class Supervising(Protocol):
    """The processes of one run. Seconds are those of the run."""

    plan: Plan
    seed: int
    limits: Limits
    record: Record
    members: list[Member]
    clock: PacedClock
    on_message: Callable[[Member, Message], None]

    @property
    def peers(self) -> list[Member]:
        """All peers, without the store."""

    async def sleep_until(self, run_s: float) -> None:
        """Wait for a second of the run; whatever ends the run ends the wait."""

    def fail(self, error: Exception) -> None:
        """End the run with an error."""

    def kill(self, member: Member) -> None:
        """End a participant's process at once."""

    def pause(self, member: Member, *, stopped: bool) -> None:
        """Stop a participant's process, or let it go on."""

    async def restart(self, member: Member) -> None:
        """Start the next life of a participant, and wait until it is up."""

    async def finish(self, end_s: float) -> None:
        """Have everybody stop at `end_s` and tell what there is to tell."""


class Disk(Protocol):
    """What keeps states of a peer while none of its processes lives."""

    def write(self, version: int, state: bytes) -> Any:
        """Keep the state of a version; that of the version before stays."""

    def read(self, version: int | None = None) -> tuple[int, bytes] | None:
        """Return a version and its state, the latest if none is asked for; None when it is not there."""
