"""Peers that leave and come back, by churn or by a fault, for real: a process is killed, stopped, started again."""

from typing import TYPE_CHECKING

from orionbed.journal import Entry

from emulator.members import Member
from emulator.supervisor import RunAborted
from orionbed import tracing
from orionbed.faults import ResolvedFault
from orionbed.results import Mark
from orionbed.streams import Streams

if TYPE_CHECKING:
    from emulator.orchestra import Orchestra

RETRY_FETCH_S = 5.0


class Mishaps:
    """Does what `churn` and `faults` ask for, and brings the run through it."""

    def __init__(self, orchestra: "Orchestra") -> None:
        self._orchestra = orchestra
        self._supervisor = orchestra.supervisor
        self._plan = orchestra.plan
        self._record = orchestra.record
        self._streams = Streams(self._supervisor.seed)
        self._left_s: dict[int, float] = {}
        self.faults: tuple[ResolvedFault, ...] = ()

    def start(self) -> None:
        """Let everything come in its time."""
        block = self._plan.scenario.churn
        if not isinstance(block, str):
            for peer in self._supervisor.peers:
                self._orchestra.start(self._churn(peer))

    def check_recovery(self, now_s: float) -> None:
        """Abort a run that does not recover from what happened to it."""

    async def _churn(self, peer: Member) -> None:
        """One peer's life: it stays, leaves, is away, and comes back."""
        block = self._plan.scenario.churn
        assert not isinstance(block, str)
        random = self._streams.get(f"churn/{peer.index}")
        at_s = 0.0
        while True:
            at_s += float(block.up.sample(random, 1)[0])
            await self._supervisor.sleep_until(at_s)
            self.crash(peer, at_s, "")
            at_s += float(block.down.sample(random, 1)[0])
            await self._supervisor.sleep_until(at_s)
            at_s = await self.come_back(peer, at_s)

    def crash(self, peer: Member, at_s: float, fault: str) -> None:
        """Kill a peer's process; what only it held is lost."""
        record, orchestra = self._record, self._orchestra
        was = peer.status
        self._left_s[peer.index] = at_s
        self._supervisor.kill(peer)
        place = self._plan.peers[peer.index]
        chunk = self._first_chunk(place.stage)
        why = f"peer lost [fault {fault}]" if fault else "peer lost"
        base = (peer.index, peer.life, place.stage, place.replica, chunk)
        record.enter(Entry(at_s, "crashed", *base, -1, 0, -1, fault))
        for number in sorted(record.received.pop(peer.index, set())):
            if record.is_open(number) and was == "training":
                record.enter(Entry(at_s, "dropped", *base, number, 0, -1, why))
        record.lost_life(peer.index, peer.life, at_s)
        if orchestra.gate is not None:
            orchestra.gate.gone(peer.index, at_s)

    def _first_chunk(self, stage: int) -> int:
        order = self._plan.order
        return stage if order is None else order.stage_of.index(stage)

    async def come_back(self, peer: Member, at_s: float) -> float:
        """Start a peer again and let it join when it can; return the second at which it was up."""
        await self._supervisor.restart(peer)
        up_s = max(at_s, self._supervisor.clock.now())
        self._record.charge(peer.index, peer.life - 1, tracing.CAUSE_DOWN, self._left_s[peer.index], up_s)
        self._record.marks.append(Mark(self._left_s.pop(peer.index), up_s, "down", peer.index))
        peer.status = "benched"
        if isinstance(self._plan.scenario.merge, str):
            await self._fetch(peer)
        return up_s

    async def _fetch(self, peer: Member) -> None:
        """Let a peer take the state of another one of its stage, then train."""
        stage = self._plan.peers[peer.index].stage
        supervisor = self._supervisor
        while peer.status == "benched":
            others = [
                m for m in supervisor.peers if m.status == "training" and self._plan.peers[m.index].stage == stage
            ]
            if not others:
                raise RunAborted(f"stage {stage} has no peer left: what it had learnt is lost")
            peer.fetched.clear()
            peer.tell({"t": "fetch", "peer": others[0].index, "at_s": supervisor.clock.now()})
            life = peer.life
            while not peer.fetched.is_set() and others[0].status == "training" and peer.status == "benched":
                await supervisor.sleep_until(supervisor.clock.now() + 0.02 / supervisor.clock.dilation)
            if peer.fetched.is_set() and peer.life == life:
                self._orchestra.join(peer, peer.last_at_s)
                return
