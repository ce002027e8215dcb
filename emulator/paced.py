"""A peer, or the store, in paced time: the machine's clock decides when what is due happens."""

import os
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import astuple
from math import inf
from typing import Any

from emulator.entry import entered
from emulator.headers import sealed
from emulator.job import Job
from emulator.links import make_endpoint
from emulator.participants import make_participant
from emulator.throttle.changes import BlockChange
from emulator.throttle.counters import Counters
from emulator.throttle.endpoint import Delivery, Endpoint
from orionbed.emulation import Scales
from orionbed.fleet.clock import PacedClock
from orionbed.fleet.control import Channel, ControlError, Message
from orionbed.fleet.headers import unpacked
from orionbed.fleet.participants import Participant
from orionbed.training.surroundings import Header

Happening = tuple[float, Callable[[Any], object], Any]
COUNT_WITHIN_S = 60.0
IN_SMALL_PARTS_S = 0.05
"""Longest sleep before a look at what has come in, so that a missed wake-up costs no more."""


class Wire:
    """Carries a loop's messages over throttled sockets, their bodies filled up to the size they stand for."""

    def __init__(self, scales: Scales) -> None:
        self._scales = scales
        self.endpoint: Endpoint | None = None

    def send(
        self, target: int, header: Header, body: bytes, num_bytes: float, at_s: float, *, control: bool = False
    ) -> None:
        """Send a message from second `at_s` of the run on."""
        assert self.endpoint is not None
        self.endpoint.send(target, *sealed(header, body, num_bytes, at_s, self._scales), stamp_s=at_s, control=control)


class Driver:
    """Lets the events of a participant happen when their second comes, and hears the supervisor."""

    def __init__(self, channel: Channel, participant: Participant, clock: PacedClock) -> None:
        self._channel = channel
        self._participant = participant
        self._timeline = participant.timeline
        self._clock = clock
        self._incoming: deque[Happening] = deque()
        self._signal = threading.Event()
        self.late_s: list[float] = []
        self.quiet = threading.Event()
        self.stopped = False

    def happen(self, at_s: float, fn: Callable[[Any], object], arg: Any) -> None:
        """Put something on the timeline, from any thread."""
        self._incoming.append((at_s, fn, arg))
        self._signal.set()

    def listen(self) -> None:
        """Hear the supervisor's commands, in a thread of their own; when it is gone, so is this process."""
        try:
            while True:
                command = self._channel.receive()
                if command["t"] == "count":
                    self.quiet.set()
                    continue
                self.happen(command.get("at_s", self._clock.now()), self._command, command)
        except (ControlError, OSError):
            if not self.stopped:
                os._exit(1)

    def _command(self, command: Message) -> None:
        if command["t"] == "finish":
            self.stopped = True
        else:
            self._participant.command(command)

    def run(self) -> None:
        """Go on until the supervisor says that the run is over."""
        timeline, clock = self._timeline, self._clock
        while not self.stopped:
            while self._incoming:
                at_s, fn, arg = self._incoming.popleft()
                timeline.at(at_s, fn, arg)
            next_s = self._participant.awake_s(timeline.next_s())
            wait_s = clock.real_until(next_s) if next_s < inf else inf
            if wait_s > 0.0:
                self._signal.wait(min(wait_s, IN_SMALL_PARTS_S))
                self._signal.clear()
                continue
            timeline.step(next_s)
            self.late_s.append(-wait_s)


def run_paced(job: Job, order: dict[str, Any]) -> None:
    """Be a peer or the store until the run is over."""
    channel, scales = entered(job, order)
    index, life = order["index"], order["life"]
    clock = PacedClock(0.0, scales.time_dilation)  # until it is known when the run begins
    wire = Wire(scales)
    participant = make_participant(job, order, wire, channel.send)
    driver = Driver(channel, participant, clock)

    def deliver(delivery: Delivery) -> None:
        header = unpacked(delivery.header)
        header["from"] = delivery.source
        body = bytes(delivery.body[: header["length"]])
        driver.happen(delivery.stamp_s, participant.loop.arrive, (header, body))

    def failed(peer: int, header: bytes, _message: int, reason: str, stamp_s: float) -> None:
        driver.happen(stamp_s, participant.loop.failed, (peer, unpacked(header), reason))

    endpoint = wire.endpoint = make_endpoint(job, index, life, clock, scales, deliver, failed)
    participant.on_address, participant.on_cut = endpoint.set_address, endpoint.cut
    channel.send({"t": "up", "address": list(endpoint.address)})
    go = channel.receive()
    clock.origin_s = go["origin_s"]
    participant.timeline.now_s = max(0.0, clock.now()) if life else 0.0
    for peer, address in go["addresses"]:
        endpoint.set_address(peer, (address[0], address[1]))
    endpoint.start()
    participant.started(participant.timeline.now_s)
    threading.Thread(target=driver.listen, daemon=True).start()
    try:
        driver.run()
        participant.close()
        for peer in range(job.store + 1):
            if peer != index:
                endpoint.change(participant.timeline.now_s, BlockChange(peer, blocked=True))
        lateness = {"late_s": _most(driver.late_s), "frames_late_s": _most(endpoint.lateness().tolist())}
        channel.send({"t": "final", **participant.final(), **lateness})
        # What has departed is counted when nothing moves any more.
        driver.quiet.wait(COUNT_WITHIN_S)
        channel.send({"t": "counted", "counters": _counted(endpoint.counters())})
    finally:
        endpoint.close()
        channel.close()


def _counted(counters: Counters) -> dict[str, Any]:
    """Return the counts of an endpoint as they are reported."""
    return {
        "sent": [list(astuple(one)) for one in counters.sent],
        "received": [list(astuple(one)) for one in counters.received],
        "departed_bytes": sum(one.first_bytes + one.repeated_bytes for one in counters.sent),
        "delivered_bytes": sum(one.delivered_bytes for one in counters.received),
        "num_corrupted": counters.num_corrupted,
        "num_resent": counters.num_resent,
        "num_reconnects": counters.num_reconnects,
    }


def _most(values: list[float], at_most: int = 20_000) -> list[float]:
    """Return the values, evenly thinned out where there are too many, the largest kept."""
    if len(values) > at_most:
        values = [*sorted(values)[:: -(-len(values) // at_most)], max(values)]
    return [round(value, 6) for value in values]
