"""What takes part in a run: a peer with its loop, its part in merges and in fetching states, or the object store."""

import base64
import resource
from collections.abc import Callable
from math import inf
from pathlib import Path
from typing import Any

from orionbed import tracing
from orionbed.fleet.supervising import Disk
from orionbed.training.compute import Compute
from orionbed.training.fixed_loop import FixedLoop
from orionbed.training.loop import PeerLoop
from orionbed.training.merge import PeerMerge
from orionbed.training.parameters import hash_of
from orionbed.training.queue_loop import QueueLoop
from orionbed.training.reporting import Reporter
from orionbed.training.store import StoreLoop
from orionbed.training.surroundings import Header, Setup, Transport
from orionbed.training.timeline import Timeline

SNAPSHOTS_FROM = 1_000_000
"""Versions of snapshots that peers take by themselves; those that merges make are numbered from 1."""
Emit = Callable[[dict[str, Any]], None]
Address = tuple[str, int]


class Participant:
    """A loop and how the supervisor's commands reach it."""

    loop: Any

    def __init__(self) -> None:
        self.on_address: Callable[[int, Address | None], None] = lambda _peer, _address: None
        self.on_cut: Callable[[int, str], None] = lambda _peer, _reason: None

    @property
    def timeline(self) -> Timeline:
        """The loop's events."""
        found: Timeline = self.loop.timeline
        return found

    def awake_s(self, at_s: float) -> float:
        """Return when the participant takes note of what happens at `at_s`."""
        return at_s

    def started(self, at_s: float) -> None:
        """The participant is up, at a second of the run."""

    def command(self, command: dict[str, Any]) -> None:
        """Do what the supervisor says."""
        if command["t"] == "address":
            to = command["to"]
            self.on_address(command["peer"], None if to is None else (to[0], to[1]))
        elif command["t"] == "cut":
            self.on_cut(command["peer"], "connection reset")

    def close(self) -> None:
        """The run is over, at the second that the timeline is at."""

    def final(self) -> dict[str, Any]:
        """Return what is told at the end."""
        return {"memory_bytes": memory_bytes()}


class StoreParticipant(Participant):
    """The object store."""

    def __init__(self, transport: Transport) -> None:
        super().__init__()
        self.loop = StoreLoop(transport)

    def final(self) -> dict[str, Any]:
        store = self.loop
        return super().final() | {
            "agreeing": store.num_agreeing, "disagreeing": store.num_disagreeing,
            "bytes_read": store.bytes_read, "bytes_stored": store.bytes_stored,
        }  # fmt: skip


class PeerParticipant(Participant):
    """A peer. `disk` keeps its states for the next life; with `tells_weights` they are told at the end."""

    def __init__(
        self,
        setup: Setup,
        compute: Compute,
        transport: Transport,
        emit: Emit,
        *,
        disk: Disk | None = None,
        tells_weights: bool = False,
    ) -> None:
        super().__init__()
        plan, index, life = setup.plan, setup.index, setup.life
        me = plan.peers[index]
        reporter = Reporter(index, life, me.stage, me.replica, emit)
        make = QueueLoop if plan.order is None else FixedLoop
        self.loop: PeerLoop = make(setup, transport, reporter, compute)
        self.loop.on_command = emit
        self._life = life
        self._disk = disk
        self._tells_weights = tells_weights
        if isinstance(self.loop, FixedLoop):
            self.loop.on_state = self._keep
            if life == 0:
                self._keep(0, compute.worker.state())
        elif self._disk is not None:
            self.loop.stepped = lambda: self._keep(*self._snapshot())  # type: ignore[method-assign]
        self._transport = transport
        self.merge = PeerMerge(self.loop, len(plan.peers))
        self._failed, self.loop.failed = self.loop.failed, self._on_failed  # type: ignore[method-assign]
        self._arrive = self.loop.on_other
        self.loop.on_other = self._on_other  # type: ignore[method-assign]

    def awake_s(self, at_s: float) -> float:
        return self.loop.ailments.awake_s(at_s) if self.loop.ailments.pauses_s else at_s

    def started(self, at_s: float) -> None:
        self.loop.account.accounted_s = at_s
        self.loop.timeline.now_s = at_s
        if self._life:
            self.loop.status = "benched"
            self.loop.reporter.journal(at_s, "returned", chunk=self.loop.compute.chunks[0])

    def command(self, command: dict[str, Any]) -> None:
        loop, what = self.loop, command["t"]
        if what == "begin":
            if "steps" in command and isinstance(loop, FixedLoop):
                loop.begin_at(command["steps"])
            if "ordinal" in command and isinstance(loop, QueueLoop):
                loop.cursor.go_on(command["ordinal"])
            until_s = command["until_s"]
            loop.begin(command["epoch"], inf if until_s is None else until_s)
        elif what == "phase":
            self.merge.begin(command)
        elif what == "restore":
            self._restore(command.get("version"))
        elif what == "start_over":
            # Everybody begins with the same first weights, which this peer has made anew.
            self._adopt(0, loop.compute.worker.state())
            loop.tell({"t": "fetched"})
        elif what == "fetch":
            self._transport.send(
                command["peer"], {"k": "Q", "version": command.get("version")}, b"", 0.0, loop.now_s, control=True
            )
        elif what == "give_up":
            assert isinstance(loop, FixedLoop)
            loop.give_up_step(command["version"], command["steps"])
            loop.tell({"t": "gave_up"})
        else:
            if what == "address" and isinstance(loop, QueueLoop):
                (loop.gone.add if command["to"] is None else loop.gone.discard)(command["peer"])
            super().command(command)

    def _restore(self, version: int | None) -> None:
        """Take over the state that this machine kept."""
        found = None if self._disk is None else self._disk.read(version)
        if found is None:
            self.loop.tell({"t": "nothing_kept"})
        else:
            self._adopt(*found, self.loop.me.index)
            self.loop.tell({"t": "fetched"})

    def _on_other(self, header: Header, body: bytes) -> None:
        loop = self.loop
        if header["k"] in {"A", "D"}:
            self.merge.arrived(header, body)
        elif header["k"] == "Q":
            self._serve(header)
        elif header["k"] == "T":
            self._take_state(header, body)
        else:
            self._arrive(header, body)
        loop.reporter.flush(loop.account, loop.status)

    def _on_failed(self, what: tuple[int, Header, str]) -> None:
        """A message could not be delivered; one that brings a state or asks for it has to be sent anew."""
        target, header, _ = what
        if header["k"] in {"Q", "T"}:
            self.loop.tell({"t": "not_served", "peer": self.loop.me.index if header["k"] == "Q" else target})
        else:
            self._failed(what)

    def _serve(self, header: Header) -> None:
        """Send this peer's state to one that comes back."""
        loop = self.loop
        if isinstance(loop, FixedLoop):
            version = loop.version if header["version"] is None else header["version"]
            state = loop.state_of(version)
        else:
            version, state = self._snapshot()
        size = float(loop.plan.stages[loop.stage].weight_bytes)
        self._transport.send(header["from"], {"k": "T", "version": version}, state, size, loop.now_s)

    def _snapshot(self) -> tuple[int, bytes]:
        """Return this peer's state as it is, under a version of its own."""
        loop = self.loop
        loop.settle()
        version = SNAPSHOTS_FROM + round(1000.0 * loop.now_s) * loop.plan.num_replicas + loop.replica
        state = loop.compute.worker.state()
        loop.journal_version("committed", version, hash_of(state))
        # Told before anybody can see it: a process that is killed tells nothing any more.
        loop.reporter.flush(loop.account, "busy")
        return version, state

    def _take_state(self, header: Header, body: bytes) -> None:
        loop = self.loop
        self._adopt(header["version"], bytes(body), header["from"])
        loop.reporter.span(
            tracing.LANE_MERGE, tracing.KIND_DOWNLOAD, tracing.CAUSE_BENCHED, -1, (header["sent"], loop.now_s),
            header["plan_bytes"],
        )  # fmt: skip
        loop.tell({"t": "fetched"})

    def _adopt(self, version: int, state: bytes, source: int = -1) -> None:
        loop = self.loop
        if isinstance(loop, FixedLoop):
            loop.adopt(version, state, source)
            return
        loop.compute.worker.load_state(state)
        loop.journal_version("adopted", version, hash_of(state), source)

    def _keep(self, version: int, state: bytes) -> None:
        if self._disk is not None:
            self._disk.write(version, state)

    def close(self) -> None:
        self.loop.close(self.loop.now_s)

    def final(self) -> dict[str, Any]:
        loop, account = self.loop, self.loop.account
        if self._tells_weights:
            loop.settle()
        loop.reporter.flush(account, "over")
        found = super().final() | {
            "account": [account.accounted_s, *account.cause_s],
            "spent_s": loop.compute.spent_s,
            "operations": loop.compute.num_done,
            "bytes_boundary": loop.bytes_boundary,
            "events": loop.timeline.num_happened,
            "held": loop.held(),
        }
        if isinstance(loop, FixedLoop):
            found |= self._final_of_pipeline(loop)
        if self._tells_weights:
            found["weights"] = base64.b64encode(loop.compute.weights()).decode()
        return found

    def _final_of_pipeline(self, loop: FixedLoop) -> dict[str, Any]:
        found: dict[str, Any] = {"version": loop.version}
        if loop.ring is not None:
            found |= {"num_syncs": loop.ring.num_exchanges, "syncing_s": loop.ring.exchange_s}
            found["bytes_sync"] = loop.ring.bytes_sent
        return found


def memory_bytes() -> int:
    """Return what this process has in memory; pages that several share count in proportion, where that is known."""
    try:
        lines = Path("/proc/self/smaps_rollup").read_text(encoding="ascii").splitlines()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
