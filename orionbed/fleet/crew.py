"""What every supervisor of a queue-driven run can do with its participants, however their processes are started."""

import asyncio
from math import inf
from typing import Any

from orionbed.fleet.clock import PacedClock
from orionbed.fleet.members import Member
from orionbed.fleet.reaching import reachable
from orionbed.fleet.record import Record
from orionbed.plan import Plan


class Crew:
    """The participants of one run, peers first. What ends the run is the exception of `failure`."""

    def __init__(self, plan: Plan, members: list[Member], clock: PacedClock) -> None:
        self.plan = plan
        self.members = members
        self.clock = clock
        self.record = Record(plan.num_chunks)
        self.failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def peers(self) -> list[Member]:
        """All peers, without the store."""
        return self.members[: len(self.plan.peers)]

    @property
    def alive(self) -> list[Member]:
        """Everybody who is neither down nor about to come back."""
        return [member for member in self.members if member.status not in {"down", "starting"}]

    def name(self, member: Member) -> str:
        """Return what a participant is called."""
        return "the store" if member.role == "store" else self.plan.peers[member.index].name

    def fail(self, error: Exception) -> None:
        """End the run with an error."""
        if not self.failure.done():
            self.failure.set_exception(error)

    async def sleep_until(self, run_s: float) -> None:
        """Wait for a second of the run; whatever ends the run ends the wait."""
        wait_s = self.clock.real_until(run_s)
        done, _ = await asyncio.wait({self.failure}, timeout=None if wait_s == inf else max(0.0, wait_s))
        if done:
            self.failure.result()

    def reported_s(self) -> float:
        """Return the last second of the run that anybody has reported of."""
        return max((life.accounted_s for life in self.record.lives.values()), default=0.0)

    def tell_address(self, member: Member, address: list[Any] | None) -> None:
        """Tell the others where a participant is to be found; None: nowhere."""
        for other in self.alive:
            if other is not member:
                to = None if address is None else reachable(member, other)
                other.tell({"t": "address", "peer": member.index, "to": to})
