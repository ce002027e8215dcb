"""Starts the processes of a queue-driven run, watches them, does to them what the run asks for, and ends them."""

import asyncio
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from orionbed.backends import BackendError
from orionbed.fleet.clock import PacedClock
from orionbed.fleet.control import Message
from orionbed.fleet.crew import Crew
from orionbed.fleet.members import Door, Member, Status
from orionbed.fleet.reaching import reachable
from orionbed.fleet.supervising import AbortedRunError, Limits
from real.hearing import LastActions
from real.job import Job
from real.launch import environment, layout_of, rank_environment
from real.opening import opened, tell_others
from real.queued.processes import Key, Processes

FINAL_WITHIN_S: Final = 120.0
QUIET_AFTER_S: Final = 0.3
BEGINS_IN_S: Final = 0.5
LOOKS_EVERY_S: Final = 0.5
LAST_WORDS_S: Final = 0.2
"""How long one that has died is listened to: it may have said why, and that may not have been read yet."""
ENDS_WITHIN_S: Final = 10.0


class QueueSupervisor(Crew):
    """The processes of one run. `say` hears what a user should know on the way.

    `on_death` hears of a peer that has died unasked while there are restarts left, at which second of the run and how;
    without one, the run ends.
    """

    def __init__(self, job: Job, say: Callable[[str], None]) -> None:
        self.job, self.seed, self.say = job, job.seed, say
        self.block = job.plan.scenario.real
        self.limits = Limits(self.block.merges, job.plan.scenario.emulator.recovery_deadline)
        self.layout = layout_of(job.plan)
        num_peers = len(job.plan.peers)
        roles = ["peer"] * num_peers + ["store"] * (self.layout.num_ranks - num_peers)
        super().__init__(
            job.plan, [Member(index, role) for index, role in enumerate(roles)], PacedClock(time.monotonic())
        )
        for member in self.members:
            member.host = member.index // self.layout.per_node
        self.on_message: Callable[[Member, Message], None] = lambda _member, _message: None
        self.on_death: Callable[[Member, float, str], None] | None = None
        self.restarts: list[dict[str, Any]] = []
        self.devices: dict[int, dict[str, Any]] = {}
        self.actions = LastActions()
        self._door = Door(job.token, self._expected, self._hear, left=self._left)
        self._processes: Processes | None = None
        self._copy: Path | None = None
        self._met = {member.index: asyncio.Event() for member in self.members}
        self._why: dict[int, str] = {}
        self._paused: set[int] = set()
        self._dying: set[asyncio.Task[None]] = set()
        self._watching: asyncio.Task[None] | None = None
        self._begun = self._finishing = self._over = False

    # ---------------------------------------------------------------- starting

    async def start(self) -> None:
        """Start everybody and wait until all have met. BackendError when that fails."""
        self.job = await opened(self._door, self.job, self.layout)
        self._processes = Processes(self.job, self._exited)
        if self.layout.num_nodes > 1:
            self._copy = tell_others(self.job, self.layout, 0, self.say)
        for member in self.members:
            if not member.host:
                self._launch(member)
        await self._gather(self.members)
        self._begin()

    def _launch(self, member: Member) -> None:
        assert self._processes is not None
        given = rank_environment(self.layout, member.index) | {"ORIONBED_LIFE": str(member.life)}
        member.pid = self._processes.start((member.index, member.life), environment(self.plan) | given)

    async def _gather(self, members: list[Member]) -> None:
        """Wait until some are up, tell them where the others are, and wait until they have met them."""
        deadline_s = time.monotonic() + self.block.start_timeout
        for count, member in enumerate(members, start=1):
            await self._within(member.up.wait(), deadline_s, self.name(member))
            if len(members) > 1 and (count % 8 == 0 or count == len(members)):
                self.say(f"{count} of {len(members)} processes are up")
        for member in members:
            member.tell({"t": "meet", "addresses": self._addresses(member)})
        for member in members:
            await self._within(self._met[member.index].wait(), deadline_s, self.name(member))

    def _begin(self) -> None:
        self.clock = PacedClock(time.monotonic() + BEGINS_IN_S)
        for member in self.members:
            member.tell(self._go(member))
            member.status = "up"
        self._begun = True
        self._watching = asyncio.ensure_future(self._watch())

    def _go(self, member: Member) -> Message:
        return {"t": "go", "origin_s": self.clock.origin_s, "addresses": self._addresses(member)}

    def _addresses(self, member: Member) -> list[list[Any]]:
        """Return where a participant reaches the others."""
        there = [other for other in self.members if other.address is not None and other is not member]
        return [[other.index, reachable(other, member)] for other in there]

    async def _within(self, what: Any, deadline_s: float, who: str) -> None:
        task = asyncio.ensure_future(what)
        left_s = max(0.0, deadline_s - time.monotonic())
        done, _ = await asyncio.wait({task, self.failure}, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
        if task not in done:
            task.cancel()
        if self.failure in done:
            self.failure.result()
        if task not in done:
            error = AbortedRunError if self._begun else BackendError
            raise error(f"{who} was not there in time; real.start_timeout says how long is waited at the start")
        task.result()

    # ---------------------------------------------------------------- hearing

    def _expected(self, hello: Message) -> Member | None:
        index = hello.get("index")
        if self._over or not isinstance(index, int) or not 0 <= index < len(self.members):
            return None
        member = self.members[index]
        if hello.get("life") != member.life or member.writer is not None:
            return None
        self.actions.heard(index)
        return member

    def _hear(self, member: Member, message: Message) -> None:
        what, life = message["t"], message["life"]
        if self._over:
            return  # the books are closed
        if life == member.life:
            self.actions.hear(member.index, message)
        if what == "report":
            self.record.report(member.index, message)
        elif what == "alive" or life != member.life:
            return
        elif what == "clock":
            member.tell({"t": "clock", "at_s": time.monotonic()})
        elif what == "up":
            member.address = message["address"]
            self.devices[member.index] = message["device"]
            member.up.set()
        elif what == "met":
            self._met[member.index].set()
        elif what == "failed":
            self._why[member.index] = message["why"]
        elif what == "final":
            member.final = message
            member.finished.set()
        elif what == "counted":
            assert member.final is not None
            member.final["counters"] = message["counters"]
            member.counted.set()
        else:
            if "steps" in message:
                member.num_steps = message["steps"]
            self.on_message(member, message)

    # ---------------------------------------------------------------- watching

    async def _watch(self) -> None:
        """Take for dead who is not heard of."""
        while True:
            before_s = time.monotonic()
            await asyncio.sleep(LOOKS_EVERY_S)
            if time.monotonic() - before_s > self.block.silence:  # this process itself has not been there
                for member in self.members:
                    self.actions.heard(member.index)
            for member in self.members:
                alive = member.status not in {"down", "starting"} and member.index not in self._paused
                silent_s = self.actions.silent_s(member.index)
                if alive and silent_s > self.block.silence and not self._finishing:
                    self._signal(member, signal.SIGKILL)
                    self._lose(member, f"was not heard of for {silent_s:.1f} s")

    def _exited(self, key: Key, status: int) -> None:
        member = self.members[key[0]]
        if key[1] != member.life or (status == 0 and member.counted.is_set()):
            return
        how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        self._lose(member, how)

    def _left(self, member: Member, life: int) -> None:
        """A connection has ended; of processes that live here more is known when they have ended."""
        if member.host and life == member.life and not member.counted.is_set():
            self._lose(member, "was not heard of any more: its connection ended")

    def _lose(self, member: Member, how: str) -> None:
        if self._over or member.status == "down":
            return
        was, member.status = member.status, "down"
        task = asyncio.ensure_future(self._lost(member, how, restartable=self._restartable(member, was)))
        self._dying.add(task)
        task.add_done_callback(self._dying.discard)

    def _restartable(self, member: Member, was: Status) -> bool:
        """Whether a participant can be started again here: one that was about to come back has failed for good."""
        there = {"up", "training", "merging"} | ({"benched"} if self.plan.scenario.merge != "none" else set())
        return member.role == "peer" and not member.host and was in there and not self._finishing

    async def _lost(self, member: Member, how: str, *, restartable: bool) -> None:
        """A participant has died unasked: it is started again, or the run ends."""
        at_s = self.clock.now()
        await asyncio.sleep(LAST_WORDS_S)
        why = f" ({self._why[member.index]})" if member.index in self._why else ""
        told = f"{self.name(member)} (rank {member.index}) {how}{why}; its last action was {self.actions[member.index]}"
        if not self._begun:
            tail = self._processes.tail((member.index, member.life)) if self._processes is not None else ""
            self.fail(BackendError(f"{told}\n{tail}".rstrip()))
            return
        if not restartable or self.on_death is None or len(self.restarts) >= self.block.restarts:
            self.fail(AbortedRunError(told))
            return
        self.restarts.append({"peer": self.name(member), "at_s": at_s, "why": told})
        self.say(f"{told}; it is started again")
        self.on_death(member, at_s, told)

    # ---------------------------------------------------------------- losing and bringing back

    def _signal(self, member: Member, number: signal.Signals) -> None:
        if self._processes is not None and not member.host:
            self._processes.signal((member.index, member.life), number)

    def kill(self, member: Member) -> None:
        """End a participant's process at once; one on another machine ends when it is hung up on."""
        member.status = "down"
        self._signal(member, signal.SIGKILL)
        if member.host and member.writer is not None:
            member.writer.close()
        self.tell_address(member, None)

    def pause(self, member: Member, *, stopped: bool) -> None:
        """Stop a participant's process, or let it go on."""
        if member.host:
            self.fail(AbortedRunError(f"{self.name(member)} lives on another machine, and cannot be stopped from here"))
            return
        (self._paused.add if stopped else self._paused.discard)(member.index)
        self.actions.heard(member.index)
        self._signal(member, signal.SIGSTOP if stopped else signal.SIGCONT)

    async def restart(self, member: Member) -> None:
        """Start the next life of a participant, and wait until it is up."""
        if member.host:
            raise AbortedRunError(f"{self.name(member)} lives on another machine, and cannot be started from here")
        member.reborn()
        self._met[member.index].clear()
        self._paused.discard(member.index)
        self._why.pop(member.index, None)
        self._launch(member)
        deadline_s = time.monotonic() + self.block.start_timeout
        await self._within(member.up.wait(), deadline_s, f"{self.name(member)}, started again,")
        self.tell_address(member, member.address)
        await self._gather([member])
        member.tell(self._go(member))
        self.actions.heard(member.index)

    # ---------------------------------------------------------------- ending

    def last_s(self) -> float:
        """Return the present second of the run, or the last one that anybody has reported of."""
        return max(self.clock.now(), self.reported_s())

    async def finish(self, end_s: float) -> None:
        """Have everybody stop at `end_s` and tell what there is to tell."""
        self._finishing = True
        alive = self.alive
        deadline_s = time.monotonic() + FINAL_WITHIN_S
        for member in alive:
            member.tell({"t": "finish", "at_s": end_s})
        for member in alive:
            await self._within(member.finished.wait(), deadline_s, f"the report of {self.name(member)}")
        await asyncio.sleep(QUIET_AFTER_S)
        for member in alive:
            member.tell({"t": "count"})
        for member in alive:
            await self._within(member.counted.wait(), deadline_s, f"the counts of {self.name(member)}")

    async def close(self) -> None:
        """End every process and every connection. Nothing of the run is left behind."""
        done = all(member.counted.is_set() for member in self.members)
        self._over = True
        tasks = [*self._dying, *([self._watching] if self._watching is not None else [])]
        for task in tasks:
            task.cancel()
        try:
            if self._processes is not None:
                self._processes.close(ENDS_WITHIN_S if done else 0.0)
            await self._door.close()
        finally:
            if self._copy is not None:
                self._copy.unlink(missing_ok=True)  # it holds the run's secrets
            if self.failure.done():
                self.failure.exception()
