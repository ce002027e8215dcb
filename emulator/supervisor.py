"""Starts all participants of a run, tells them what to do and when, watches them, and ends them."""

import asyncio
import secrets
import signal
import time
from collections.abc import Callable
from dataclasses import asdict
from math import inf
from typing import Any

from emulator.host import Host
from emulator.hosts import Hosts
from emulator.measuring import heaviest
from emulator.nursery import Nursery
from emulator.scaling import choose_scales
from orionbed.backends import BackendError
from orionbed.emulation import Scales
from orionbed.fleet.certificates import Authority
from orionbed.fleet.clock import PacedClock
from orionbed.fleet.control import Message
from orionbed.fleet.crew import Crew
from orionbed.fleet.members import Door, Member
from orionbed.fleet.reaching import reachable
from orionbed.fleet.supervising import AbortedRunError, Limits
from orionbed.fleet.tls import tls_order
from orionbed.plan import Plan

START_WITHIN_S = 180.0
FINAL_WITHIN_S = 60.0
QUIET_AFTER_S = 0.3
BEGINS_IN_S = 0.5


class Supervisor(Crew):
    """The processes of one run. `say` hears what a user should know on the way."""

    def __init__(self, plan: Plan, seed: int, say: Callable[[str], None]) -> None:
        members = [Member(peer.index, "peer") for peer in plan.peers]
        if not isinstance(plan.scenario.merge, str):
            members.append(Member(len(plan.peers), "store"))
        super().__init__(plan, members, PacedClock(time.monotonic(), 1.0))
        self.seed = seed
        self.say = say
        self.limits = Limits(plan.scenario.emulator.merges, plan.scenario.emulator.recovery_deadline)
        self.scales = Scales(1.0, 1.0)
        self.measured: dict[str, float] = {}
        self.on_message: Callable[[Member, Message], None] = lambda _member, _message: None
        self._token = secrets.token_hex(16)
        self._by_pid: dict[tuple[int, int], tuple[Member, int]] = {}
        self._hosts = Hosts(plan, say, self._event, self._lost) if plan.scenario.emulator.remote_slots else None
        self._door = Door(self._token, self._expected, self._hear)
        self._nursery = Nursery(self._event)
        self._prepared = asyncio.Event()
        self._measuring: list[Member] = []
        self._begun = False
        self._finishing = False
        self._over = False

    # ---------------------------------------------------------------- starting

    async def start(self) -> None:
        """Start everybody and wait until all are there. BackendError when that fails."""
        host, port = await self._door.open("127.0.0.1")
        scenario = self.plan.scenario.model_dump_json()
        order = {"t": "job", "scenario": scenario, "seed": self.seed, "control": [host, port], "token": self._token}
        if self._hosts is not None:
            self._hosts.order = order
            await self._hosts.open(self._token, self._expected, self._hear)
            order = order | self._hosts.here
        elif self.plan.scenario.emulator.encrypt:
            order["tls"] = tls_order(Authority().issue("peers of this machine"), supervisor="")
        self._nursery.order(order)
        if self._hosts is not None:
            await self._gather(self._hosts)
        await self._within(self._prepared.wait(), START_WITHIN_S, "the process that peers are forked from")
        await self._choose_scales()
        for member in self.members:
            self._fork(member)
        for count, member in enumerate(self.members, start=1):
            await self._within(member.arrived.wait(), START_WITHIN_S, f"{member.role} {member.index}")
            member.tell(self._setup())
            if count % 8 == 0 or count == len(self.members):
                self.say(f"{count} of {len(self.members)} processes are up")
        for member in self.members:
            await self._within(member.up.wait(), START_WITHIN_S, f"{member.role} {member.index}")
        self.clock = PacedClock(time.monotonic() + BEGINS_IN_S, self.scales.time_dilation)
        for member in self.members:
            member.tell(self._go(member))
            member.status = "up"
        self._begun = True

    async def _gather(self, hosts: Hosts) -> None:
        """Wait for the other machines, and deal them their peers."""
        await self._within(hosts.gathered(), inf, "the other hosts")
        hosts.deal(self.peers)
        for number in sorted({peer.host for peer in self.peers} - {0}):
            prepared = hosts[number].prepared.wait()
            await self._within(prepared, START_WITHIN_S, f"{hosts[number]}: the process that peers are forked from")

    async def _choose_scales(self) -> None:
        """Measure the work on every machine; the slowest one counts."""
        used = sorted({peer.host for peer in self.peers} - {0})
        zygotes: list[Nursery | Host] = [self._nursery]
        zygotes += [self._hosts[number] for number in used if self._hosts is not None]
        self._measuring = [Member(-1, "measure") for _ in zygotes]
        for zygote in zygotes:
            zygote.order({"t": "fork", "role": "measure"})
        found = []
        for member in self._measuring:
            await self._within(member.finished.wait(), START_WITHIN_S, "the measurement of the work")
            assert member.final is not None
            found.append(heaviest(member.final["chunks"]))
        self.measured = {kind: max(times[kind] for times in found) for kind in found[0]}
        self.scales = choose_scales(self.plan, self.measured)
        for zygote in zygotes:
            zygote.order({"t": "scales", "payload_scale": self.scales.payload_scale})

    def _zygote(self, member: Member) -> Nursery | Host:
        """Return what a member's process is started and ended with."""
        return self._nursery if self._hosts is None or not member.host else self._hosts[member.host]

    def _origin_s(self, member: Member) -> float:
        """Return when the run began, on the clock of the machine on which a member lives."""
        ahead_s = self._hosts[member.host].offset_s if self._hosts is not None and member.host else 0.0
        return self.clock.origin_s + ahead_s

    def _setup(self) -> Message:
        return {"t": "setup", **asdict(self.scales)}

    def _go(self, member: Member) -> Message:
        there = [other for other in self.members if other.address is not None]
        addresses = [[other.index, reachable(other, member)] for other in there]
        return {"t": "go", "origin_s": self._origin_s(member), "addresses": addresses}

    def _fork(self, member: Member) -> None:
        if self._hosts is not None and member.host and not self._hosts[member.host].alive:
            member.host = 0  # its machine is gone for good; it comes back here
        self._zygote(member).order({"t": "fork", "role": member.role, "index": member.index, "life": member.life})

    async def _within(self, what: Any, seconds: float, who: str) -> None:
        task = asyncio.ensure_future(what)
        done, _ = await asyncio.wait({task, self.failure}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if self.failure in done:
            task.cancel()
            self.failure.result()
        if task not in done:
            task.cancel()
            raise BackendError(f"{who} was not there within {seconds:g} s; is this machine short of memory?")
        task.result()

    # ---------------------------------------------------------------- hearing

    def _expected(self, hello: Message) -> Member | None:
        if hello.get("role") == "measure":
            return next((one for one in self._measuring if one.writer is None), None)
        index = hello.get("index")
        if not isinstance(index, int) or not 0 <= index < len(self.members):
            return None
        member = self.members[index]
        return member if hello.get("life") == member.life and member.writer is None else None

    def _hear(self, member: Member, message: Message) -> None:
        what = message["t"]
        if self._over:
            return  # the books are closed, even if other hosts take a moment to end
        if what == "measured":
            member.final = message
            member.finished.set()
        elif what == "report":
            self.record.report(member.index, message)
        elif message["life"] != member.life:
            return
        elif what == "up":
            member.address = message["address"]
            member.up.set()
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
            if "version" in message:
                member.version = message["version"]
            self.on_message(member, message)

    def _event(self, event: Message, host: int = 0) -> None:
        what = event["t"]
        if what == "ready":
            self._prepared.set()
        elif what == "failed":
            self.fail(BackendError(f"the run could not be prepared: {event['why']}"))
        elif what == "forked" and event["role"] != "measure":
            member = self.members[event["index"]]
            if member.life == event["life"]:
                member.pid = event["pid"]
            self._by_pid[host, event["pid"]] = (member, event["life"])
        elif what == "exited" and (host, event["pid"]) in self._by_pid:
            member, life = self._by_pid.pop((host, event["pid"]))
            if not (self._over or self._finishing) and life == member.life and member.status != "down":
                self._unexpected(member, event["status"])
        elif what == "ended" and not self._over:
            self.fail(BackendError("the process that peers are forked from has died; is this machine short of memory?"))

    def _lost(self, host: Host) -> None:
        """A host is gone, and its peers with it."""
        there = [pid for number, pid in self._by_pid if number == host.number]
        self.say(f"{host} is gone" + (f", and {len(there)} peers with it" if there else ""))
        dealt = any(member.host == host.number for member in self.peers)
        if dealt and not self._begun:
            self.fail(BackendError(f"{host} went away before the run began"))
        elif dealt and self._finishing:
            self.fail(AbortedRunError(f"{host} went away before its peers had reported"))
        for pid in there if self._begun else ():
            self._event({"t": "exited", "pid": pid, "status": -signal.SIGKILL}, host.number)

    def _unexpected(self, member: Member, status: int) -> None:
        how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        why = f"{self.name(member)} {how}, which no fault of the scenario asked for"
        self.fail(AbortedRunError(why) if self._begun else BackendError(why))

    # ---------------------------------------------------------------- losing and bringing back

    def kill(self, member: Member) -> None:
        """End a participant's process at once."""
        member.status = "down"
        if member.pid:
            self._zygote(member).signal(member.pid, signal.SIGKILL)
        self.tell_address(member, None)

    def pause(self, member: Member, *, stopped: bool) -> None:
        """Stop a participant's process, or let it go on."""
        if member.pid:
            self._zygote(member).signal(member.pid, signal.SIGSTOP if stopped else signal.SIGCONT)

    async def restart(self, member: Member) -> None:
        """Start the next life of a participant, and wait until it is up."""
        member.reborn()
        self._fork(member)
        await self._within(member.arrived.wait(), START_WITHIN_S, f"peer {member.index}, started again")
        member.tell(self._setup())
        await self._within(member.up.wait(), START_WITHIN_S, f"peer {member.index}, started again")
        member.tell(self._go(member))
        self.tell_address(member, member.address)

    # ---------------------------------------------------------------- ending

    def last_s(self) -> float:
        """Return the last second of the run that anybody has reported of."""
        return self.reported_s()

    async def finish(self, end_s: float) -> None:
        """Have everybody stop at `end_s` and tell what there is to tell."""
        self._finishing = True
        alive = self.alive
        for member in alive:
            member.tell({"t": "finish", "at_s": end_s})
        for member in alive:
            await self._within(member.finished.wait(), FINAL_WITHIN_S, f"the report of {member.role} {member.index}")
        if self.plan.scenario.emulator.clock == "paced":
            await self._count(alive)
        if self._hosts is not None:
            await self._hosts.measure_drift()
            for member in alive:
                if member.host and member.final is not None:
                    member.final |= self._hosts[member.host].clock()

    async def _count(self, alive: list[Member]) -> None:
        """Have everybody count the bytes that moved, once nothing moves any more."""
        await asyncio.sleep(QUIET_AFTER_S)
        for member in alive:
            member.tell({"t": "count"})
        for member in alive:
            await self._within(member.counted.wait(), FINAL_WITHIN_S, f"the counts of {member.role} {member.index}")

    async def close(self) -> None:
        """End every process and every connection. Nothing of the run is left behind."""
        self._over = True
        if self._hosts is not None:
            await self._hosts.close()
        self._nursery.close()
        await self._door.close()
        if self.failure.done():
            self.failure.exception()
