"""Starts the processes of a pipeline through torchrun, hears what they report, and ends the run when one is lost."""

import asyncio
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from orionbed.backends import BackendError
from orionbed.fleet.control import Message
from orionbed.fleet.members import Door, Member
from orionbed.fleet.supervising import AbortedRunError
from real.hearing import LastActions
from real.job import Job
from real.launch import Layout, environment, torchrun
from real.opening import opened, tell_others
from real.static.reports import Reports, StepReport

LOOKS_EVERY_S: Final = 0.2
ENDS_WITHIN_S: Final = 10.0
LAST_WORDS_S: Final = 0.5
"""How long others are listened to after one was lost: the one that went wrong may say why."""
STALLED_AFTER: Final = 10.0
"""A run in which nobody finishes an operation for so many times `real.silence` has got stuck."""


class StaticSupervisor:
    """The processes of one run. `say` hears what a user should know, `progress` how many steps are complete."""

    def __init__(
        self, job: Job, layout: Layout, say: Callable[[str], None], progress: Callable[[Reports], None]
    ) -> None:
        self.job, self.plan, self.layout = job, job.plan, layout
        self.members = [Member(peer.index, "peer") for peer in job.plan.peers]
        self.reports = Reports(len(job.plan.peers))
        self._say, self._progress = say, progress
        self._block = job.plan.scenario.real
        self._door = Door(job.token, self._expected, self._hear, left=self._left)
        self._agent: subprocess.Popen[bytes] | None = None
        # Neither has a name: a supervisor that is killed leaves nothing, and above all not the run's secrets.
        self._secret = os.memfd_create("orionbed-job")
        self._output = tempfile.TemporaryFile()  # noqa: SIM115  (closed with everything else)
        self._failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._actions = LastActions()
        self._moved_s = time.monotonic()
        self._why: dict[int, str] = {}
        self._copy: Path | None = None
        self._origin_s: float | None = None
        self._restarts_left = self._block.restarts
        self._losing: asyncio.Task[None] | None = None
        self._over = False

    # ---------------------------------------------------------------- the run

    async def run(self) -> None:
        """Go through the run.

        Raises:
            BackendError: it could not begin.
            AbortedRunError: it could not be brought to its end; `reports` has what there is of it.

        """
        try:
            await self._start()
            await self._all_there()
            await self._until_done()
        finally:
            await self._close()

    async def _start(self) -> None:
        self.job = await opened(self._door, self.job, self.layout)
        path = Path(f"/proc/{os.getpid()}/fd/{self._secret}")
        self.job.write(path)
        if self.layout.num_nodes > 1:
            self._copy = tell_others(self.job, self.layout, self._block.restarts, self._say)
        self._agent = subprocess.Popen(  # noqa: S603  (this very interpreter)
            torchrun(self.layout, 0, path, restarts=self._block.restarts),
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=self._output,
            env=environment(self.plan),
            start_new_session=True,
        )

    async def _all_there(self) -> None:
        waiting = asyncio.ensure_future(self._arrivals())
        deadline_s = time.monotonic() + self._block.start_timeout
        try:
            while not waiting.done():
                await self._look(waiting)
                if self._agent is not None and self._agent.poll() is not None:
                    raise BackendError(f"the processes could not be started:\n{self._tail()}")
                if time.monotonic() > deadline_s:
                    missing = [self._name(m) for m in self.members if not m.arrived.is_set()]
                    raise BackendError(
                        f"{', '.join(missing)} did not come within {self._block.start_timeout:g} s; "
                        f"real.start_timeout says how long to wait\n{self._tail()}".rstrip()
                    )
        finally:
            waiting.cancel()
        self._say(f"{len(self.members)} processes are up")

    async def _arrivals(self) -> None:
        for member in self.members:
            await member.arrived.wait()

    async def _until_done(self) -> None:
        finished = asyncio.ensure_future(self._ends())
        try:
            while not finished.done():
                await self._look(finished)
                self._check_silence()
                if self._agent is not None and self._agent.poll() is not None and not finished.done():
                    await asyncio.sleep(2 * LAST_WORDS_S)  # what it was that ended it may be known by then
                    self._fail(f"torchrun ended with status {self._agent.poll()}\n{self._tail()}")
        finally:
            finished.cancel()
        self._over = True

    async def _ends(self) -> None:
        for member in self.members:
            await member.finished.wait()

    async def _look(self, awaited: "asyncio.Future[None]") -> None:
        """Wait a moment for something; what ends the run is raised."""
        await asyncio.wait({awaited, self._failure}, timeout=LOOKS_EVERY_S, return_when=asyncio.FIRST_COMPLETED)
        if self._failure.done():
            self._failure.result()

    def _check_silence(self) -> None:
        """Take for dead who is not heard of, and give up a run in which nothing happens."""
        if self._losing is not None:
            return
        now_s = time.monotonic()
        limit_s = self._block.silence
        for member in self.members:
            silent_s = self._actions.silent_s(member.index)
            if member.final is None and member.arrived.is_set() and silent_s > limit_s:
                self._why[member.index] = f"was not heard of for {silent_s:.0f} s"
                self._lose(member)
                return
        if now_s - self._moved_s > STALLED_AFTER * limit_s and all(m.arrived.is_set() for m in self.members):
            doing = "; ".join(f"{self._name(m)}: {self._actions[m.index]}" for m in self.members)
            self._fail(f"nobody has finished an operation for {now_s - self._moved_s:.0f} s. Last actions: {doing}")

    # ---------------------------------------------------------------- hearing

    def _expected(self, hello: Message) -> Member | None:
        index, life = hello.get("index"), hello.get("life")
        if not isinstance(index, int) or not 0 <= index < len(self.members) or self._over:
            return None
        member = self.members[index]
        while isinstance(life, int) and member.life < life <= self._block.restarts:
            member.reborn()
        if life != member.life or member.writer is not None:
            return None
        member.pid = int(hello.get("pid", 0))
        self._actions.heard(index)
        self._moved_s = time.monotonic()
        return member

    def _hear(self, member: Member, message: Message) -> None:
        if message["life"] != member.life or self._over:
            return
        what, before = message["t"], self._actions[member.index]
        self._actions.hear(member.index, message)
        if what == "step" or self._actions[member.index] != before:
            self._moved_s = time.monotonic()
        if what == "began":
            self._begun(message, member.life)
        elif what == "step":
            self.reports.add(member.index, StepReport.from_message(message), member.life)
            self._progress(self.reports)
        elif what == "clock":
            member.tell({"t": "clock", "at_s": time.monotonic(), "origin_s": self._origin_s})
        elif what == "failed":
            self._why.setdefault(member.index, f"failed with {message['why']}")
        elif what == "final":
            member.final = message
            member.finished.set()

    def _begun(self, message: Message, life: int) -> None:
        """Rank 0 says when the run began, on the clock of this machine, and with which step all begin again."""
        if self._origin_s is None:
            self._say("warmed up; what counts begins")
        self._origin_s = message["origin_s"]
        if self._losing is not None:
            self._losing.cancel()
            self._losing = None
            self._moved_s = time.monotonic()
            for member in self.members:
                self._actions.heard(member.index)
            self.reports.give_up_from(message["step"], self._lost_s, life)
            self._say(f"went on from step {message['step']}")

    # ---------------------------------------------------------------- losing

    def _left(self, member: Member, life: int) -> None:
        if life == member.life and member.final is None and not self._over:
            member.writer = None
            self._lose(member)

    def _lose(self, member: Member) -> None:
        """A process is gone: those that go with it are not asked why."""
        if self._losing is None:
            now_s = time.monotonic()
            self._lost_s = 0.0 if self._origin_s is None else now_s - self._origin_s
            self._losing = asyncio.ensure_future(self._lost(member))

    async def _lost(self, member: Member) -> None:
        await asyncio.sleep(LAST_WORDS_S)
        why = self._why.get(member.index, "died")
        told = f"{self._name(member)} (rank {member.index}) {why}; its last action was {self._actions[member.index]}"
        if not self._restarts_left or self._block.checkpoint is None or self._origin_s is None:
            self._fail(told)
            return
        self._restarts_left -= 1
        self._say(f"{told}; all begin again from the last checkpoint")
        with suppress(ProcessLookupError):
            if member.pid and member.index in self.layout.ranks(0):
                os.kill(member.pid, signal.SIGKILL)  # one that is stopped does not end by itself
        await asyncio.sleep(self._block.start_timeout)
        self._fail(f"{told}; the processes did not begin again within {self._block.start_timeout:g} s")

    def _fail(self, why: str) -> None:
        if not self._failure.done():
            error = BackendError if self._origin_s is None else AbortedRunError
            detail = "" if self._origin_s is not None else f"\n{self._tail()}".rstrip()
            self._failure.set_exception(error(why + detail))

    def _name(self, member: Member) -> str:
        return self.plan.peers[member.index].name

    def _tail(self) -> str:
        """Return the end of what the processes have printed."""
        self._output.seek(0)
        lines = self._output.read().decode(errors="replace").splitlines()
        return "\n".join(line for line in lines[-12:] if line.strip())

    # ---------------------------------------------------------------- ending

    async def _close(self) -> None:
        """End every process and every connection."""
        self._over = True
        if self._losing is not None:
            self._losing.cancel()
        await self._door.close()
        if self._agent is not None:
            await asyncio.to_thread(self._end, self._agent)
        self._output.close()
        os.close(self._secret)
        if self._copy is not None:
            self._copy.unlink(missing_ok=True)
        if self._failure.done():
            self._failure.exception()

    def _end(self, agent: "subprocess.Popen[bytes]") -> None:
        """End torchrun and its processes, which end by themselves when they hear nothing of us any more."""
        if self._failure.done():
            for member in self.members:
                if member.pid and member.index in self.layout.ranks(0):
                    with suppress(ProcessLookupError):
                        os.kill(member.pid, signal.SIGKILL)
        try:
            agent.wait(ENDS_WITHIN_S)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(agent.pid, signal.SIGKILL)
            agent.wait()
