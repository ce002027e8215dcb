"""Peers that leave and come back, by churn or by a fault, for real: a process is killed, stopped, started again."""

import asyncio
from collections.abc import Callable, Iterator
from math import isfinite
from typing import TYPE_CHECKING

from orionbed.absences import Absence, Absences
from orionbed.faults import ResolvedFault, resolve
from orionbed.fleet.aftermath import Aftermath
from orionbed.fleet.members import Member
from orionbed.fleet.supervising import AbortedRunError
from orionbed.journal import Entry
from orionbed.plan import PeerPlan

if TYPE_CHECKING:
    from orionbed.fleet.orchestra import Orchestra

LOOKS_EVERY_REAL_S = 0.02
BEGIN_IN_REAL_S = 0.1
LAST_WORDS_REAL_S = 0.1


class Mishaps:
    """Does what `churn` and `faults` ask for, and brings the run through it."""

    def __init__(self, orchestra: "Orchestra") -> None:
        self._orchestra = orchestra
        self._supervisor = orchestra.supervisor
        self._plan = orchestra.plan
        self._record = orchestra.record
        self._halted: set[int] = set()
        self._burials: dict[int, asyncio.Task[None]] = {}
        self.faults = resolve(self._plan, self._supervisor.seed)
        self.aftermath = Aftermath(self._plan, self._record, self.faults, self._supervisor.limits.recovery_deadline_s)

    def start(self) -> None:
        """Let everything come in its time."""
        absences = Absences(self._plan, self._supervisor.seed)
        for peer in self._supervisor.peers:
            self._orchestra.start(self._churn(peer, absences.of(peer.index)))
        for fault in self.faults:
            if fault.kind == "crash":
                for index in fault.peers:
                    self._orchestra.start(self._crash_fault(fault, self._supervisor.members[index]))
            elif fault.kind == "pause":
                for index in fault.peers:
                    self._orchestra.start(self._pause(fault, self._supervisor.members[index]))
            elif fault.parameters.get("mode") == "reset":
                self._orchestra.start(self._reset(fault))

    def check_recovery(self, now_s: float) -> None:
        """Write down which faults are over and done with; AbortedRunError when one is not, in time."""
        # With merges a benched peer waits for the next training phase, and there is nothing more to be done for it.
        there = {"training", "merging"} | ({"benched"} if self._plan.scenario.merge != "none" else set())
        up = {peer.index for peer in self._supervisor.peers if peer.status in there}
        self.aftermath.check(now_s, up - self._halted, in_training=self._orchestra.in_training)

    # ---------------------------------------------------------------- what comes when

    async def _churn(self, peer: Member, absences: Iterator[Absence]) -> None:
        """One peer's life: it stays, leaves, is away, and comes back, which may take a process longer than planned."""
        up_s = 0.0
        for absence in absences:
            gone_s = max(up_s, absence.start_s)
            if absence.end_s <= gone_s:
                continue
            await self._supervisor.sleep_until(gone_s)
            if peer.status in {"down", "starting"}:
                continue
            self._record.reasons[peer.index] = absence.reason
            self.crash(peer, gone_s, "")
            if not isfinite(absence.end_s):
                return
            await self._supervisor.sleep_until(absence.end_s)
            up_s = await self.come_back(peer, absence.end_s, kept=True)

    async def _crash_fault(self, fault: ResolvedFault, peer: Member) -> None:
        await self._supervisor.sleep_until(fault.start_s)
        if peer.status in {"down", "starting"}:
            return
        self.aftermath.hit(fault.id)
        self.crash(peer, fault.start_s, fault.id)
        if isfinite(fault.end_s):
            await self._supervisor.sleep_until(fault.end_s)
            await self.come_back(peer, fault.end_s, kept=fault.parameters.get("state") == "disk")

    async def _pause(self, fault: ResolvedFault, peer: Member) -> None:
        """Stop a process for a while. The peer itself knows by the plan that it will not notice anything meanwhile."""
        await self._supervisor.sleep_until(fault.start_s)
        if peer.status in {"down", "starting"}:
            return
        self.aftermath.hit(fault.id)
        life = peer.life
        self._supervisor.pause(peer, stopped=True)
        try:
            await self._supervisor.sleep_until(fault.end_s)
        finally:
            if peer.life == life:
                self._supervisor.pause(peer, stopped=False)

    async def _reset(self, fault: ResolvedFault) -> None:
        """Reset the connections that a partition severs."""
        await self._supervisor.sleep_until(fault.start_s)
        for source, target in fault.pairs:
            for one, other in ((source, target), (target, source)):
                self._supervisor.members[one].tell({"t": "cut", "peer": other, "at_s": fault.start_s})

    # ---------------------------------------------------------------- leaving

    def crash(self, peer: Member, at_s: float, fault: str) -> None:
        """Kill a peer's process; what only it held is lost."""
        orchestra = self._orchestra
        was = peer.status
        self._supervisor.kill(peer)
        place = self._plan.peers[peer.index]
        self._burials[peer.index] = asyncio.ensure_future(self._bury(place, peer.life, at_s, fault))
        if orchestra.gate is not None:
            orchestra.gate.gone(peer.index, at_s)
        if self._plan.order is not None and was == "training":
            self._halt(place.replica)

    async def _bury(self, place: PeerPlan, life: int, at_s: float, fault: str) -> None:
        """Write down what was lost with a peer, once what it had told before has been read."""
        await asyncio.sleep(LAST_WORDS_REAL_S)
        record = self._record
        # A process ends a moment after it was to end, and may have told of that moment.
        at_s = max(at_s, record.lives[place.index, life].heard_s)
        base = (place.index, life, place.stage, place.replica, self._plan.chunks_of(place.stage)[0])
        record.enter(Entry(at_s, "crashed", *base, detail=fault))
        why = f"peer lost [fault {fault}]" if fault else "peer lost"
        for number in sorted(record.held_by(place.index, life, was_first=place.stage == 0)):
            record.enter(Entry(at_s, "dropped", *base, number, detail=why))

    async def settle(self) -> None:
        """Wait until all that was lost has been written down."""
        await asyncio.gather(*self._burials.values())

    def _pipeline(self, replica: int) -> list[Member]:
        """Return who gives up a step together: a pipeline, or all of them where they share gradients."""
        synced = not isinstance(self._plan.scenario.sync, str)
        return [m for m in self._supervisor.peers if synced or self._plan.peers[m.index].replica == replica]

    def begun(self, member: Member) -> None:
        """A peer trains again."""
        self._halted.discard(member.index)

    async def agree_on_versions(self, at_s: float) -> None:
        """Before a merge let each pipeline give up what not all of its peers have committed."""
        if self._plan.order is None:
            return
        synced = not isinstance(self._plan.scenario.sync, str)
        for replica in range(1 if synced else self._plan.num_replicas):
            members = [member for member in self._pipeline(replica) if member.status == "merging"]
            self._give_up(members, at_s)
            await self._until(lambda members=members: all(m.ended.is_set() or m.status == "down" for m in members))  # type: ignore[misc]

    def _halt(self, replica: int) -> None:
        """A pipeline that has lost a peer gives up its step."""
        members = self._pipeline(replica)
        self._halted |= {member.index for member in members}
        self._give_up(members, self._supervisor.clock.now())

    @staticmethod
    def _give_up(members: list[Member], at_s: float) -> None:
        """Have peers go back to the last version that all of them have committed."""
        if not members:
            return
        version = min(member.version for member in members)
        steps = 1 + max(member.num_steps for member in members)
        for member in members:
            member.version = version
            member.num_steps = steps
            member.ended.clear()
            if member.status in {"training", "merging"}:
                member.status = "benched" if member.status == "training" else member.status
                member.tell({"t": "give_up", "version": version, "steps": steps, "at_s": at_s})

    # ---------------------------------------------------------------- coming back

    async def come_back(self, peer: Member, at_s: float, *, kept: bool) -> float:
        """Start a peer again and let it join when it can; return the second at which it was up."""
        supervisor = self._supervisor
        await self._burials[peer.index]
        await supervisor.restart(peer)
        up_s = max(at_s, supervisor.clock.now())
        peer.status = "benched"
        if self._plan.order is not None:
            await self._resume(peer, kept=kept)
        elif isinstance(self._plan.scenario.merge, str):
            at_s = await (self._restore(peer, None) if kept and self._has_disk(peer) else self._fetch(peer, None))
            self._orchestra.join(peer, at_s)
        return up_s

    def _has_disk(self, peer: Member) -> bool:
        return any(
            f.kind == "crash" and f.parameters.get("state") == "disk" and peer.index in f.peers for f in self.faults
        )

    async def _restore(self, peer: Member, version: int | None) -> float:
        """Let a peer take the state that its machine kept; return when it has it."""
        peer.fetched.clear()
        peer.tell({"t": "restore", "version": version, "at_s": self._supervisor.clock.now()})
        await self._until(peer.fetched.is_set)
        return peer.last_at_s

    async def _fetch(self, peer: Member, version: int | None) -> float:
        """Let a peer take the state of another one of its stage; return when it has it."""
        stage = self._plan.peers[peer.index].stage
        while True:
            holders = [
                other
                for other in self._supervisor.peers
                if self._plan.peers[other.index].stage == stage
                and other is not peer
                and (other.status == "training" or (version is not None and other.status == "benched"))
            ]
            if not holders:
                raise AbortedRunError(
                    f"stage {stage} has no other peer to take its state from: what it had learnt is lost"
                )
            peer.fetched.clear()
            peer.not_served.clear()
            holder, life = holders[0], holders[0].life
            now_s = self._supervisor.clock.now()
            peer.tell({"t": "fetch", "peer": holder.index, "version": version, "at_s": now_s})
            await self._until(
                lambda peer=peer, holder=holder, life=life: (  # type: ignore[misc]
                    peer.fetched.is_set() or peer.not_served.is_set() or holder.life != life or holder.status == "down"
                )
            )
            if peer.fetched.is_set():
                return peer.last_at_s

    async def _resume(self, peer: Member, *, kept: bool) -> None:
        """Bring a pipeline back: the peer takes the version that the others are at, then all begin anew."""
        members = self._pipeline(self._plan.peers[peer.index].replica)
        synced = not isinstance(self._plan.scenario.sync, str)
        if kept:
            at_s = await self._restore(peer, peer.version)
        elif peer.version == 0:
            peer.fetched.clear()
            peer.tell({"t": "start_over", "at_s": self._supervisor.clock.now()})
            await self._until(peer.fetched.is_set)
            at_s = peer.last_at_s
        elif synced and self._plan.num_replicas > 1:
            at_s = await self._fetch(peer, peer.version)
        elif self._plan.scenario.merge != "none":
            return  # the whole pipeline takes part again with the next merge
        else:
            name = self._plan.peers[peer.index].name
            raise AbortedRunError(
                f"{name} came back empty, and nobody else has its state; use restart state: disk, or replicas with sync"
            )
        if any(member.status in {"down", "starting"} for member in members):
            return  # the last one to come back brings the pipeline back
        await self._until(lambda: all(m.ended.is_set() or m is peer or m.life for m in members))
        soon_s = self._supervisor.clock.now() + BEGIN_IN_REAL_S / self._supervisor.clock.dilation
        at_s = max(at_s, soon_s)
        for member in members:
            self._halted.discard(member.index)
            self._orchestra.resume(member, at_s)

    async def _until(self, over: Callable[[], bool]) -> None:
        clock = self._supervisor.clock
        while not over():
            await self._supervisor.sleep_until(clock.now() + LOOKS_EVERY_REAL_S / clock.dilation)
