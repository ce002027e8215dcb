"""Virtual time: the coordinator lets the earliest event of all peers and of the network happen, and then the next.

Peers compute for real and send real bytes; only when things happen is decided here. So a run is the same to the bit
however busy the machine is.
"""

import asyncio
from collections.abc import Callable
from math import ceil, inf
from typing import Any

from emulator.fluid import Fluid
from emulator.routes import make_fluid
from emulator.supervisor import Supervisor
from orionbed.faults import ResolvedFault
from orionbed.fleet.control import Message
from orionbed.fleet.members import Member
from orionbed.fleet.supervising import AbortedRunError
from orionbed.results import Epoch

ANSWER_WITHIN_S = 120.0


class Coordinator:
    """Conducts one run in virtual time. Seconds are those of the run."""

    def __init__(self, supervisor: Supervisor, progress: Callable[[float, int, int | None], None] | None) -> None:
        self.supervisor = supervisor
        self.num_missed = 0
        self.faults: tuple[ResolvedFault, ...] = ()
        self._plan = supervisor.plan
        self._record = supervisor.record
        self._progress = progress
        self._fluid: Fluid = make_fluid(supervisor.plan, supervisor.seed)
        self._next_s = dict.fromkeys(range(len(supervisor.peers)), inf)
        self._answers: dict[int, asyncio.Future[Message]] = {}
        supervisor.on_message = self._hear

    def fault_rows(self, end_s: float) -> list[dict[str, Any]]:  # noqa: ARG002
        """There are no faults in virtual time."""
        return []

    async def run(self) -> float:
        """Go through the run; return the second at which it ended."""
        run = self._plan.scenario.run
        end_s = inf if run.duration is None else run.duration
        target = inf if run.tokens is None else ceil(run.tokens / self._plan.tokens_per_microbatch)
        for member in self.supervisor.peers:
            member.status = "training"
        for member in self.supervisor.peers:
            await self._ask(member, {"t": "begin", "epoch": 0, "until_s": None, "at_s": 0.0})
        now_s = 0.0
        while self._record.applied < target:
            peer = min(self._next_s, key=lambda p: (self._next_s[p], p))
            at_s = min(self._next_s[peer], self._fluid.next_s())
            if at_s > end_s:
                now_s = end_s
                break
            if at_s == inf:
                raise AbortedRunError(f"nothing more would happen after {now_s:.6g} s: the peers wait for one another")
            now_s = at_s
            await self._happen(peer, at_s)
            if self._progress is not None:
                self._progress(now_s, self._record.applied, None if target == inf else int(target))
        await self.supervisor.finish(now_s)
        self._record.epochs.append(Epoch(0, 0.0, now_s, now_s, self._record.applied, 0))
        return now_s

    async def _happen(self, peer: int, at_s: float) -> None:
        """Let everything of the network at this second happen, or else one peer's event."""
        if self._fluid.next_s() <= at_s:
            for message in self._fluid.advance(at_s):
                deliver = {"t": "deliver", "from": message.source, "number": message.number, "at_s": at_s}
                await self._ask(self.supervisor.members[message.target], deliver)
        else:
            self._fluid.advance(at_s)
            await self._ask(self.supervisor.members[peer], {"t": "step", "at_s": at_s})

    async def _ask(self, member: Member, command: Message) -> None:
        """Give a command and wait until it has been done; take over what was sent by it."""
        answer = self._answers[member.index] = asyncio.get_running_loop().create_future()
        member.tell(command)
        done, _ = await asyncio.wait(
            {answer, self.supervisor.failure}, timeout=ANSWER_WITHIN_S, return_when=asyncio.FIRST_COMPLETED
        )
        if self.supervisor.failure in done:
            self.supervisor.failure.result()
        if answer not in done:
            raise AbortedRunError(f"{self._plan.peers[member.index].name} did not answer within {ANSWER_WITHIN_S:g} s")
        said = answer.result()
        self._next_s[member.index] = inf if said["next_s"] is None else said["next_s"]
        for target, number, num_bytes, _ in said["sent"]:
            self._fluid.send(member.index, target, number, num_bytes)

    def _hear(self, member: Member, message: Message) -> None:
        if message["t"] == "did":
            self._answers[member.index].set_result(message)
