"""A rehearsal: peers as processes that only send each other bytes, to see how well this machine keeps the time."""

import os
import secrets
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from math import inf
from multiprocessing import get_context
from multiprocessing.connection import Connection
from queue import Empty, SimpleQueue
from resource import RUSAGE_SELF, getrusage
from typing import Any, Final, NamedTuple
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from emulator.throttle.changes import Change
from emulator.throttle.counters import Counters
from emulator.throttle.endpoint import CHUNK_BYTES, Endpoint
from emulator.throttle.paths import Path
from emulator.throttle.rates import Rate
from emulator.throttle.receiving import Delivery
from emulator.throttle.shared_clock import SharedClock
from orionbed.fleet.clock import PacedClock

_START_REAL_S: Final = 0.4
_WARM: Final = b"warm"
_NO_PATH: Final = Path(0.0)


@dataclass(frozen=True, slots=True)
class Load:
    """Messages of `num_bytes` from one peer to another: `count` of them, the first at `at_s`, then `every_s` apart."""

    source: int
    target: int
    num_bytes: int
    at_s: float = 0.0
    count: int = 1
    every_s: float = 0.0
    control: bool = False


Steps = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """What a rehearsal is about. Rates in bytes/s, one per peer, each a number or steps of (from second, rate).

    `paths` has the way between ordered pairs of peers, `path` that of all others. Peers with a number in `sites` share
    the rates `site_out` and `site_in` with the others of that site. `changes` are (peer, at second, change), `kills`
    are (peer, second) at which a process is killed. It ends when everything has come in, at the latest at `until_s`.
    """

    uplinks: Sequence[float | Steps]
    downlinks: Sequence[float | Steps]
    loads: Sequence[Load]
    until_s: float
    path: Path = _NO_PATH
    paths: dict[tuple[int, int], Path] = field(default_factory=dict)
    sites: Sequence[int] = ()
    site_out: float = inf
    site_in: float = inf
    changes: Sequence[tuple[int, float, Change]] = ()
    kills: Sequence[tuple[int, float]] = ()
    dilation: float = 1.0
    lead_real_s: float = 0.004
    chunk_bytes: tuple[int, int] = CHUNK_BYTES
    seed: int = 0


class Arrival(NamedTuple):
    """A message that came in; `late_s` is by how many real seconds after its stamp, `right` whether its bytes were."""

    source: int
    target: int
    load: int
    sent_s: float
    stamp_s: float
    late_s: float
    right: bool


class Failure(NamedTuple):
    """A message that failed at its source."""

    source: int
    target: int
    load: int
    reason: str
    stamp_s: float


@dataclass(frozen=True, slots=True)
class Report:
    """What came of a rehearsal: arrivals in order of their stamps, CPU seconds of all processes together."""

    arrivals: list[Arrival]
    failures: list[Failure]
    counters: list[Counters]
    cpu_s: float
    num_chunks: int
    frame_late_s: NDArray[np.float64]

    def stamps(self, load: int) -> list[float]:
        """Return when the messages of a load, by its place in the list, came in."""
        return [arrival.stamp_s for arrival in self.arrivals if arrival.load == load]

    @property
    def late_s(self) -> NDArray[np.float64]:
        """How late each delivery was in real seconds (n,)."""
        return np.array([arrival.late_s for arrival in self.arrivals])


def rehearse(rehearsal: Rehearsal) -> Report:
    """Run it in processes of its own, one per peer, and return what happened. RuntimeError: a process failed.

    The peers are forked by one process that is started afresh, so the caller may have threads and much memory.
    """
    here, there = get_context("spawn").Pipe()
    manager = get_context("spawn").Process(target=_manage, args=(rehearsal, there), daemon=False)
    manager.start()
    there.close()
    try:
        result = here.recv()
    except EOFError:
        raise RuntimeError("the rehearsal's processes ended without a report") from None
    finally:
        manager.join()
        manager.close()
        here.close()
    if isinstance(result, Report):
        return result
    raise RuntimeError(str(result))


def _manage(rehearsal: Rehearsal, caller: Connection) -> None:
    """Fork the peers, tell them where the others listen, end them when all is in, and send the caller the report."""
    num_peers = len(rehearsal.uplinks)
    clocks = {
        (way, site): SharedClock(Rate.constant(rate))
        for way, rate in (("out", rehearsal.site_out), ("in", rehearsal.site_in))
        for site in set(rehearsal.sites)
        if rate < inf
    }
    token = secrets.token_bytes(16)
    fork = get_context("fork")
    pipes: list[Connection] = []
    processes = []
    for peer in range(num_peers):
        here, there = fork.Pipe()
        process = fork.Process(target=_play, args=(rehearsal, peer, there, clocks, token))
        process.start()
        there.close()
        pipes.append(here)
        processes.append(process)
    try:
        addresses = [pipe.recv() for pipe in pipes]
        clock = PacedClock(time.monotonic() + _START_REAL_S, rehearsal.dilation)
        for pipe in pipes:
            pipe.send((addresses, clock))
        _kill(rehearsal, clock, processes)
        caller.send(_collect(rehearsal, clock, pipes, processes))
    except EOFError:
        caller.send("a peer's process failed")
    finally:
        for process in processes:
            if process.is_alive():
                process.terminate()
            process.join()


def _kill(rehearsal: Rehearsal, clock: PacedClock, processes: list[Any]) -> None:
    for peer, at_s in rehearsal.kills:
        time.sleep(max(clock.real_until(at_s), 0.0))
        os.kill(processes[peer].pid, signal.SIGKILL)


def _collect(rehearsal: Rehearsal, clock: PacedClock, pipes: list[Connection], processes: list[Any]) -> Report:
    killed = {peer for peer, _ in rehearsal.kills}
    alive = [pipe for peer, pipe in enumerate(pipes) if peer not in killed]
    for pipe in alive:
        if pipe.poll(max(clock.real_until(rehearsal.until_s), 0.0)):
            pipe.recv()
    for pipe in alive:
        pipe.send("stop")
    arrivals: list[Arrival] = []
    failures: list[Failure] = []
    counters: list[Counters] = []
    cpu_s = 0.0
    frames_late_s = [np.zeros(1)]
    for pipe in alive:
        while (report := pipe.recv()) is None:
            pass  # that it was done came after its time
        arrivals += report[0]
        failures += report[1]
        counters.append(report[2])
        cpu_s += report[3]
        frames_late_s.append(report[4])
    for pipe in alive:
        pipe.send("close")  # only now, so that nobody reports connections that others closed
    for process in processes:
        process.join()
    num_chunks = sum(count.num_chunks for one in counters for count in one.sent)
    arrivals.sort(key=lambda arrival: arrival.stamp_s)
    return Report(arrivals, failures, counters, cpu_s, num_chunks, np.concatenate(frames_late_s))


def _play(
    rehearsal: Rehearsal, peer: int, pipe: Connection, clocks: dict[tuple[str, int], SharedClock], token: bytes
) -> None:
    """Be one peer."""
    failures: list[Failure] = []
    inbox: SimpleQueue[tuple[Delivery, float]] = SimpleQueue()
    clock = PacedClock(0.0, rehearsal.dilation)
    content = memoryview(_content(max((load.num_bytes for load in rehearsal.loads), default=0)))

    def deliver(delivery: Delivery) -> None:
        if delivery.header != _WARM:
            inbox.put((delivery, -clock.real_until(delivery.stamp_s)))

    def failed(target: int, header: bytes, _message: int, reason: str, stamp_s: float) -> None:
        if header != _WARM:
            failures.append(Failure(peer, target, int(header), reason, stamp_s))

    site = rehearsal.sites[peer] if rehearsal.sites else None
    endpoint = Endpoint(
        peer, clock, uplink=_rate(rehearsal.uplinks[peer]), downlink=_rate(rehearsal.downlinks[peer]),
        path=lambda other: rehearsal.paths.get((peer, other), rehearsal.path), deliver=deliver, failed=failed,
        seed=rehearsal.seed, token=token, lead_real_s=rehearsal.lead_real_s, chunk_bytes=rehearsal.chunk_bytes,
        site_out=None if site is None else clocks.get(("out", site)),
        site_in=None if site is None else clocks.get(("in", site)),
    )  # fmt: skip
    pipe.send(endpoint.address)
    addresses, given = pipe.recv()
    clock.origin_s = given.origin_s
    for other, address in enumerate(addresses):
        endpoint.set_address(other, address)
    for whose, at_s, change in rehearsal.changes:
        if whose == peer:
            endpoint.change(at_s, change)
    endpoint.start()
    used = getrusage(RUSAGE_SELF)
    _send_all(rehearsal, peer, endpoint, clock, content)
    arrivals = _take_all(rehearsal, peer, inbox, clock, content)
    pipe.send(None)
    pipe.recv()
    now = getrusage(RUSAGE_SELF)
    cpu_s = now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime
    pipe.send((arrivals, list(failures), endpoint.counters(), cpu_s, endpoint.frame_lateness()))
    pipe.recv()
    endpoint.close()


def _take_all(
    rehearsal: Rehearsal, peer: int, inbox: SimpleQueue[tuple[Delivery, float]], clock: PacedClock, content: memoryview
) -> list[Arrival]:
    """Return what comes in until all is there or the time is up, each message compared with what was sent."""
    wanted = sum(load.count for load in rehearsal.loads if load.target == peer)
    checksums = {size: crc32(content[:size]) for size in {load.num_bytes for load in rehearsal.loads}}
    arrivals: list[Arrival] = []
    with suppress(Empty):
        while len(arrivals) < wanted:
            delivery, late_s = inbox.get(timeout=max(clock.real_until(rehearsal.until_s), 0.001))
            load, right = int(delivery.header), crc32(delivery.body) == checksums[len(delivery.body)]
            arrivals.append(Arrival(delivery.source, peer, load, delivery.sent_s, delivery.stamp_s, late_s, right))
    return arrivals


def _send_all(rehearsal: Rehearsal, peer: int, endpoint: Endpoint, clock: PacedClock, content: memoryview) -> None:
    """Open the connections before the run begins, then send every message when its time has come."""
    own = [(number, load) for number, load in enumerate(rehearsal.loads) if load.source == peer]
    opens_s = -0.5 * _START_REAL_S / clock.dilation
    for target in {load.target for _, load in own}:
        endpoint.send(target, _WARM, b"", stamp_s=opens_s, control=True)
    plan = [(load.at_s + i * load.every_s, number, load) for number, load in own for i in range(load.count)]
    for at_s, number, load in sorted(plan, key=lambda entry: entry[0]):
        wait_s = clock.real_until(at_s)
        if wait_s > 0.0:
            time.sleep(wait_s)
        body = content[: load.num_bytes]
        endpoint.send(load.target, str(number).encode(), body, stamp_s=at_s, control=load.control)


def _content(size: int) -> bytes:
    """Return bytes that are the same in every process, and in which no two chunks are alike."""
    return np.random.Generator(np.random.PCG64(size)).bytes(size)


def _rate(rate: float | Steps) -> Rate:
    return Rate(rate) if isinstance(rate, Sequence) else Rate.constant(rate)
