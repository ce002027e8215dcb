"""What happens when, in a run of real peers: phases, merges, peers that leave and come back, faults, the end."""

import asyncio
from collections.abc import Callable, Coroutine
from math import ceil, inf
from typing import Any

from orionbed.backends import BackendError
from orionbed.faults import ResolvedFault
from orionbed.fleet.control import Message
from orionbed.fleet.members import Member
from orionbed.fleet.mishaps import Mishaps
from orionbed.fleet.phases import Gate
from orionbed.fleet.supervising import AbortedRunError, Supervising
from orionbed.results import Epoch, Mark
from orionbed.training.merge import PHASES

ENDED_WITHIN_S = 60.0
FINISH_IN_REAL_S = 0.3
LOOKS_EVERY_S = 0.25
MARGIN_REAL_S = 0.05


class Orchestra:
    """Conducts one run from its first second to its last. Seconds are those of the run."""

    def __init__(
        self, supervisor: Supervising, progress: Callable[[float, int, int | None, float | None], None] | None
    ) -> None:
        self.supervisor = supervisor
        self.plan = supervisor.plan
        self.record = supervisor.record
        self.in_training = False
        self.epoch = 0
        self.gate: Gate | None = None
        self.num_missed = 0
        self.merges_done = 0
        self._merged_version = 0
        self.mishaps = Mishaps(self)
        self._phase = ""
        self._progress = progress
        self._tasks: list[asyncio.Task[None]] = []
        run, max_merges = self.plan.scenario.run, supervisor.limits.max_merges
        self._end_s = inf if run.duration is None else run.duration
        self._target = None if run.tokens is None else ceil(run.tokens / self.plan.tokens_per_microbatch)
        self._max_merges = inf if max_merges is None else max_merges
        self._training_end_s = 0.0
        self._epoch_started_s = 0.0
        self._counted = (0, 0)
        supervisor.on_message = self._hear

    # ---------------------------------------------------------------- the run

    @property
    def faults(self) -> tuple[ResolvedFault, ...]:
        """The faults of the run, resolved."""
        return self.mishaps.faults

    def fault_rows(self, end_s: float) -> list[dict[str, Any]]:
        """Return a row for each fault: what it hit, what it destroyed, when the run was over it."""
        return self.mishaps.aftermath.rows(end_s)

    async def run(self) -> float:
        """Go through the run; return the second at which it ended."""
        for peer in self.supervisor.peers:
            self._begin(peer, 0.0)
        self.in_training = True
        self.start(self._life())
        self.mishaps.start()
        try:
            await self._until_the_end()
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await self.mishaps.settle()
        clock = self.supervisor.clock
        end_s = clock.now() + FINISH_IN_REAL_S / clock.dilation
        await self.supervisor.finish(end_s)
        if self.merges_done < self._max_merges:
            self._end_epoch(end_s if self.in_training else self._training_end_s, end_s)
        return end_s

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Let something go on beside the rest; its errors end the run."""
        task = asyncio.ensure_future(work)
        task.add_done_callback(self._over)
        self._tasks.append(task)

    def _over(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and isinstance(error := task.exception(), Exception):
            self.supervisor.fail(error)

    async def _until_the_end(self) -> None:
        supervisor = self.supervisor
        clock = supervisor.clock
        while True:
            now_s = clock.now()
            if self._progress is not None:
                self._progress(max(0.0, now_s), self.record.applied, self._target, self._share(now_s))
            enough = self._target is not None and self.record.applied >= self._target
            if enough or now_s >= self._end_s or self.merges_done >= self._max_merges:
                return
            self.mishaps.check_recovery(now_s)
            await supervisor.sleep_until(min(self._end_s, now_s + LOOKS_EVERY_S / clock.dilation))

    def _share(self, now_s: float) -> float | None:
        """Return how much of a run is over that lasts for some merges; training and merge count as half of each."""
        block = self.plan.scenario.merge
        if isinstance(block, str) or self._max_merges == inf:
            return None
        part = 0.5 * min(1.0, max(0.0, (now_s - self._epoch_started_s) / block.every))
        if not self.in_training:
            part = 0.5 + PHASES.index(self._phase or PHASES[0]) / (2.0 * len(PHASES))
        return min(1.0, (self.merges_done + part) / max(1.0, self._max_merges))

    async def _life(self) -> None:
        """Train and merge in turn."""
        block = self.plan.scenario.merge
        if isinstance(block, str):
            return
        while True:
            began_s = self._epoch_started_s
            end_s = began_s + block.every
            await self.supervisor.sleep_until(end_s)
            self.in_training = False
            self._training_end_s = end_s
            ready, began_s = await self._merge(end_s)
            self._end_epoch(end_s, began_s)
            self.merges_done += 1
            if self.merges_done >= self._max_merges:
                return
            self.in_training = True
            for peer in ready:
                self._begin(peer, began_s)

    # ---------------------------------------------------------------- training phases

    def _until_s(self) -> float | None:
        block = self.plan.scenario.merge
        return None if isinstance(block, str) else self._epoch_started_s + block.every

    def _begin(self, member: Member, at_s: float, steps: int | None = None) -> None:
        """Let a peer join the training phase; with a fixed batch all of a pipeline begin at the same step."""
        member.status = "training"
        member.ended.clear()
        self.mishaps.begun(member)
        command: Message = {"t": "begin", "epoch": self.epoch, "until_s": self._until_s(), "at_s": at_s}
        if steps is not None:
            command["steps"] = steps
        elif self.plan.order is not None and self.epoch:
            command["steps"] = max(peer.num_steps for peer in self.supervisor.peers)
        place = self.plan.peers[member.index]
        if self.plan.order is None and place.stage == 0:
            command["ordinal"] = self.record.next_ordinal(place.replica, self.plan.num_replicas)
        member.tell(command)

    def join(self, member: Member, at_s: float) -> None:
        """A peer has what it needs to train: let it, now or when the next phase begins."""
        if self.in_training:
            self._begin(member, at_s)
        else:
            member.status = "benched"

    def resume(self, member: Member, at_s: float) -> None:
        """A pipeline that gave up a step begins the next one."""
        if self.in_training:
            self._begin(member, at_s, steps=member.num_steps)
        else:
            member.status = "benched"

    def _end_epoch(self, training_end_s: float, at_s: float) -> None:
        applied = self.record.applied
        dropped = sum(entry.event == "dropped" for entry in self.record.entries)
        self.record.epochs.append(
            Epoch(
                self.epoch, self._epoch_started_s, training_end_s, at_s,
                applied - self._counted[0], dropped - self._counted[1],
            )
        )  # fmt: skip
        self._counted = (applied, dropped)
        self._epoch_started_s = at_s
        self.epoch += 1

    # ---------------------------------------------------------------- merges

    async def _merge(self, at_s: float) -> tuple[list[Member], float]:
        """Merge all who are in training; return who has the merged weights at the end, and when that is."""
        block = self.plan.scenario.merge
        assert not isinstance(block, str)
        supervisor = self.supervisor
        for peer in supervisor.peers:
            if peer.status == "merging":  # it is still downloading what the last merge gave, and has nothing to merge
                peer.status = "benched"
        merging = [peer for peer in supervisor.peers if peer.status == "training"]
        for peer in merging:
            await self._ended(peer)
        for peer in merging:
            if peer.status == "training":
                peer.status = "merging"
        await self.mishaps.agree_on_versions(at_s)
        version = 1 + (self.epoch if self.plan.order is None else max(p.version for p in supervisor.peers))
        phase_s, members = at_s, dict[int, list[int]]()
        for name in PHASES:
            taking = [
                p for p in supervisor.peers if p.status == "merging" or (name == "download" and p.status == "benched")
            ]
            gate = self.gate = Gate(supervisor.clock, [p.index for p in taking], phase_s)
            self._phase = name
            if name != "download":  # what is downloaded was cut for those who averaged it
                members = {stage: self._merging_at(stage) for stage in range(self.plan.num_stages)}
            for peer in taking:
                stage = self.plan.peers[peer.index].stage
                phase = {"t": "phase", "phase": name, "merge": self.epoch, "members": members[stage]}
                peer.tell(phase | {"base": self._merged_version, "version": version, "at_s": phase_s})
            phase_s = await gate.wait(block)
            self.gate = None
            if name == "upload":
                self.num_missed += len(gate.pending)
        self._merged_version = version
        self.record.marks.append(Mark(at_s, phase_s, "merge"))
        for peer in taking:
            peer.version = version
        return [p for p in taking if p.index not in gate.pending | gate.lost], phase_s

    def _merging_at(self, stage: int) -> list[int]:
        return [
            peer.index
            for peer in self.supervisor.peers
            if peer.status == "merging" and self.plan.peers[peer.index].stage == stage
        ]

    async def _ended(self, peer: Member) -> None:
        """Wait until a peer has left the training phase, or is gone."""
        for _ in range(ceil(ENDED_WITHIN_S / MARGIN_REAL_S)):
            if peer.ended.is_set() or peer.status != "training":
                return
            await asyncio.sleep(MARGIN_REAL_S)
        raise AbortedRunError(f"{self.plan.peers[peer.index].name} did not end its training phase")

    # ---------------------------------------------------------------- what peers say

    def _hear(self, member: Member, message: Message) -> None:
        what, at_s = message["t"], message["at_s"]
        if what == "ended":
            member.ended.set()
        elif what == "phase_done":
            self._phase_done(member, message["phase"], at_s)
        elif what == "fetched":
            member.fetched.set()
            member.last_at_s = at_s
        elif what == "gave_up":
            member.ended.set()
            member.last_at_s = at_s
        elif what == "not_served":
            self.supervisor.members[message["peer"]].not_served.set()
        elif what == "nothing_kept":
            name = self.plan.peers[member.index].name
            self.supervisor.fail(AbortedRunError(f"{name} came back, and its machine had kept nothing"))
        elif what == "committed":
            pass
        else:
            raise BackendError(f"a peer said {what!r}, which is not known")

    def _phase_done(self, member: Member, phase: str, at_s: float) -> None:
        if self.gate is not None and phase == self._phase and self.gate.done(member.index, at_s):
            return
        if phase == "download" and self.in_training and member.status in {"merging", "benched"}:
            self._begin(member, at_s)
