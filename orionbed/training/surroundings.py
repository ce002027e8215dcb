"""What a peer's loop has around it: what it is told at its start, what carries its messages, and who does its work."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from orionbed.faults import ResolvedFault
from orionbed.plan import Plan
from orionbed.training.compute import Body
from orionbed.training.timeline import Event

Header = dict[str, Any]


class Transport(Protocol):
    """What carries messages between peers."""

    def send(
        self, target: int, header: Header, body: Body, num_bytes: float, at_s: float, *, control: bool = False
    ) -> None:
        """Send a message that counts as `num_bytes` of the plan, from second `at_s` of the run on."""


class Hands(Protocol):
    """What does the work of operations in real time, while the loop goes on hearing messages."""

    def begin(self, what: str, work: Callable[[], None], ended: Callable[[Event], None], ending: Event) -> None:
        """Begin some work; `ended(ending)` comes onto the timeline at the second at which it is done."""

    def wait(self) -> float:
        """Wait until nothing is being worked on; return the second of the run at which that is."""


@dataclass(slots=True)
class Setup:
    """What a peer is told when it is started.

    With `measured` an operation takes the processor time that it took here, else the plan's. With `deferred` the driver
    calls `work` between two events. `faults` are those of the whole run.
    """

    plan: Plan
    index: int
    life: int
    seed: int
    measured: bool = False
    deferred: bool = False
    faults: tuple[ResolvedFault, ...] = ()
