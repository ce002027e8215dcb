"""A process of a queue-driven run on hardware: a peer or the object store, from its first word to its last."""

import os
import threading
import time
from dataclasses import asdict
from typing import Any

from orionbed.fleet.clock import PacedClock
from orionbed.fleet.control import Message
from orionbed.fleet.parents import die_with_parent
from orionbed.training.loop import PeerLoop
from orionbed.transport.endpoint import Delivery, Endpoint
from real.job import Job
from real.launch import layout_of
from real.line import Line, introduced, offset_s
from real.queued.counting import counted
from real.queued.driver import Driver, WorkerThread, thinned
from real.queued.peers import Made, make_participant
from real.queued.places import PARENT, listening_host
from real.queued.wire import Inbox, Wire


def run(job: Job, rank: int, local_rank: int, life: int) -> None:
    """Be a participant until the run is over. OSError: the supervisor is not there."""
    if PARENT in os.environ:
        die_with_parent(int(os.environ[PARENT]))
    with introduced(job, rank, life) as line:
        _Process(job, rank, local_rank, life, line).run()


class _Process:
    """One life of a participant."""

    def __init__(self, job: Job, rank: int, local_rank: int, life: int, line: Line) -> None:
        self._job, self._line, self._rank, self._life = job, line, rank, life
        layout = layout_of(job.plan)
        self._ahead_s, self._uncertain_s = (0.0, 0.0) if rank in layout.ranks(0) else offset_s(line)
        self._elsewhere = rank not in layout.ranks(0)
        self._clock = PacedClock(time.monotonic())  # until it is known when the run began
        self._knows_time = threading.Event()
        self._wire = Wire()
        line.doing = "warming up"
        self._made: Made = make_participant(job, rank, local_rank, life, self._wire, line.tell)
        self._participant = self._made.participant
        self._driver = Driver(self._participant.timeline, self._clock)
        loop = self._participant.loop
        inbox = Inbox(
            self._clock,
            self._made.arrived,
            lambda at_s, what: self._driver.happen(at_s, loop.arrive, what),
            lambda at_s, what: self._driver.happen(at_s, loop.failed, what),
        )

        def deliver(delivery: Delivery) -> None:
            self._knows_time.wait()  # others may be a moment ahead
            inbox.deliver(delivery.source, delivery.header, delivery.body)

        def failed(target: int, header: bytes, _sequence: int, reason: str) -> None:
            self._knows_time.wait()
            inbox.failed(target, header, reason)

        self._endpoint = self._wire.endpoint = Endpoint(
            rank,
            token=bytes.fromhex(job.token),
            deliver=deliver,
            failed=failed,
            host=listening_host(layout),
            port=0,
            credentials=job.credentials,
            life=life,
        )
        self._addresses: dict[int, tuple[str, int]] = {}
        self._participant.on_address = self._endpoint.set_address
        self._participant.on_cut = self._endpoint.cut
        self._hands: WorkerThread | None = None
        if isinstance(loop, PeerLoop):
            loop.hands = self._hands = WorkerThread(self._driver, self._clock, self._label)

    def _label(self, what: str) -> None:
        self._line.doing = what

    def run(self) -> None:
        """Meet the others, take part, and tell what there is to tell."""
        line, timeline = self._line, self._participant.timeline
        try:
            line.tell({"t": "up", "address": list(self._endpoint.address), "device": self._made.device})
            self._meet(line.wait_for("meet")["addresses"])
            self._endpoint.warm(self._partners())
            line.tell({"t": "met"})
            go = line.wait_for("go")
            self._meet(go["addresses"])
            self._clock.origin_s = go["origin_s"] - self._ahead_s
            timeline.now_s = max(0.0, self._clock.now()) if self._life else 0.0
            self._participant.started(timeline.now_s)
            self._knows_time.set()
            listening = threading.Thread(target=self._listen, name="commands", daemon=True)
            listening.start()
            self._driver.run()
            listening.join()
            self._participant.close()
            line.tell({"t": "final", **self._participant.final(), **self._observed()})
            line.wait_for("count")
            line.tell_last({"t": "counted", "counters": counted(self._endpoint)})
        finally:
            self._knows_time.set()
            if self._hands is not None:
                self._hands.close()
            self._endpoint.close()

    def _meet(self, addresses: list[list[Any]]) -> None:
        """Learn where the others are."""
        for peer, (host, port) in addresses:
            if peer != self._rank and self._addresses.get(peer) != (host, port):
                self._addresses[peer] = (host, port)
                self._endpoint.set_address(peer, (host, port))

    def _partners(self) -> list[int]:
        """Return to whom this participant will surely send: the stages beside its own, and the store."""
        peers = self._job.plan.peers
        if self._rank == len(peers):
            return list(self._addresses)
        stage = peers[self._rank].stage
        return [other for other in self._addresses if other == len(peers) or abs(peers[other].stage - stage) == 1]

    def _listen(self) -> None:
        """Hear the supervisor's commands until it says when the run ends."""
        while True:
            command: Message = self._line.receive()
            what = command["t"]
            if what == "finish":
                self._driver.end(command["at_s"])
                return
            if what == "phase":
                self._line.doing = f"{command['phase']} of a merge"
            self._driver.happen(command.get("at_s", self._clock.now()), self._participant.command, command)

    def _telemetry(self) -> list[Message]:
        """Return how the connections are doing over which anything has been sent."""
        used = sorted(self._endpoint.telemetry().items())
        return [{"to": peer, **asdict(one)} for peer, one in used if one.message_s is not None]

    def _observed(self) -> Message:
        """Return what is told at the end beside what the participant itself has to tell."""
        drift_s = 0.0
        if self._elsewhere:
            ahead_s, uncertain_s = offset_s(self._line)
            drift_s, self._uncertain_s = ahead_s - self._ahead_s, max(self._uncertain_s, uncertain_s)
        return {
            "late_s": thinned(self._driver.late_s),
            "peak_memory_bytes": self._made.peak_memory_bytes(),
            "clock": {"offset_s": self._ahead_s, "uncertainty_s": self._uncertain_s, "drift_s": drift_s},
            "telemetry": self._telemetry(),
        }
